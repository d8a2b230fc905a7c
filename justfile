# Common tasks; `just --list` shows them. Each is a command that also works without just.

# Formatting, layers and lints.
check:
    cargo fmt --all --check
    scripts/layers.sh
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Unit and contract tests.
test-fast:
    scripts/test-fast.sh

# Everything that CI runs; installs what is missing.
test:
    scripts/test.sh

# The large tests as well.
test-full:
    scripts/test-full.sh

# Both services in one process.
run:
    cargo run --release

# The comparison of docs/performance.md.
bench:
    bench/run.sh
