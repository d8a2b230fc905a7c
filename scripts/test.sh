#!/usr/bin/env bash
# Everything that must hold before a change is taken: formatting, the layers, lints, the build, every test.
# Needs Rust; installs what else is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/tools.sh
cargo fmt --all --check
scripts/layers.sh
cargo clippy --workspace --all-targets --locked -- -D warnings
tests/sdk/install.sh "${CARGO_TARGET_DIR:-target}/tmp/sdk"
# The end-to-end tests start the binaries, which `cargo test` alone does not build.
cargo build --workspace --bins --locked
cargo test --workspace --locked
# The page, in a real browser.
bash tests/web/run.sh
