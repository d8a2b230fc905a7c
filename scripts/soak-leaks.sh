#!/usr/bin/env bash
# Mixed load for a long time (minutes, 30 where none are given), then rest: fails where memory, files, tasks or connections
# to Redis leak. Needs redis-server. PROFILE=release soaks what is deployed.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-dev}
cargo build --quiet --workspace --bins --locked --profile "$profile"
folder=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")
exec "$folder/soak_leaks" "${1:-30}"
