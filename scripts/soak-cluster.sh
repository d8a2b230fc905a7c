#!/usr/bin/env bash
# Two instances on a Redis Cluster whose masters are killed, frozen and replaced, and whose slots move, for so many seconds:
#   scripts/soak-cluster.sh [600] [replicated|local]
# Then nothing may be lost or doubled that was acknowledged (with local the number is told). tests/chat/cluster_soak.rs tells how.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --workspace --bins --locked
TEST_CLUSTER_SECONDS=${1:-600} TEST_CLUSTER_DURABILITY=${2:-replicated} cargo test --workspace --locked --test e2e -- --nocapture --exact \
  chat::cluster_soak::a_cluster_in_turmoil_loses_nothing_that_was_acknowledged
