#!/usr/bin/env bash
# What scripts/test.sh checks, and the tests that take long: random requests with many seeds, a soak of turns with killed
# instances, mixed load that would show leaks. About an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/test.sh
PROPTEST_CASES="${PROPTEST_CASES:-1000}" cargo test --package tests --test e2e --locked -- random_requests
scripts/soak-turns.sh "${SOAK_SECONDS:-600}"
scripts/soak.sh "${SOAK_MINUTES:-10}"
