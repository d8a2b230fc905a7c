#!/usr/bin/env bash
# Kills, cancels, disconnects and faults of the model server over two instances, for so many seconds: scripts/soak-turns.sh [600]
# Then the gauges must be back at 0, no quota held, and nothing lost that was acknowledged. tests/chat/soak.rs tells how.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --workspace --bins --locked
TEST_SOAK_SECONDS=${1:-600} cargo test --workspace --locked --test e2e -- --nocapture --exact \
  chat::soak::after_kills_cancels_and_faults_nothing_runs_and_nothing_acknowledged_is_lost
