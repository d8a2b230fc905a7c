#!/usr/bin/env bash
# Runs every test with instrumented binaries and writes coverage/: a summary, lcov.info, and pages to look at.
# Needs cargo-llvm-cov and the toolchain's llvm-tools; installs what else is missing.
# What is killed in a test (kill -9) leaves no counts.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/tools.sh
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/coverage"
# Binaries that a test starts are counted too, since they are built under these variables.
eval "$(cargo llvm-cov show-env --sh)"
# Thousands of processes: a few files that they merge their counts into, not one for each.
export LLVM_PROFILE_FILE="${LLVM_PROFILE_FILE//%p-/}"
cargo llvm-cov clean --workspace
cargo build --workspace --bins --locked
failed=0
cargo test --workspace --locked --no-fail-fast || failed=$?

mkdir -p coverage
cargo llvm-cov report --ignore-filename-regex '/tests/' | tee coverage/summary.txt
cargo llvm-cov report --ignore-filename-regex '/tests/' --lcov --output-path coverage/lcov.info
cargo llvm-cov report --ignore-filename-regex '/tests/' --html --output-dir coverage
exit "$failed"
