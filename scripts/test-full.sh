#!/usr/bin/env bash
# What scripts/test.sh checks, and the tests that take long: random requests with many seeds, a soak of turns with killed
# instances, one of a Redis Cluster, groups of Redis servers, other versions of Redis, mixed load that would show leaks, real
# agents. An hour and a half on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/test.sh
# Agents, conformance suites and a real model server.
cargo test --workspace --test agents --features tests/agents --locked
scripts/test-redis-groups.sh
scripts/test-redis-versions.sh
TEST_RANDOM_CASES="${TEST_RANDOM_CASES:-2000}" cargo test --workspace --test e2e --locked -- random_requests
scripts/soak-turns.sh "${SOAK_SECONDS:-600}"
scripts/soak-cluster.sh "${SOAK_SECONDS:-600}"
scripts/soak-leaks.sh "${SOAK_MINUTES:-10}"
