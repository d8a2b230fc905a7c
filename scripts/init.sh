#!/usr/bin/env bash
# Writes the environment of the compose deployment into .env, once: scripts/init.sh stg|prod
# Refuses to change an environment that was chosen before, since `stg` opens the login of every account without a password.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=${1:-}
case "$environment" in
  stg | prod) ;;
  *) echo "usage: scripts/init.sh stg|prod" >&2; exit 2 ;;
esac
touch .env
# In every form that compose reads: the last of several lines would win.
chosen=$(sed -nE 's/^[[:space:]]*(export[[:space:]]+)?ENVIRONMENT[[:space:]]*=[[:space:]]*//p' .env)
if [ -z "$chosen" ]; then
  # Not onto a last line that has no end.
  [ -z "$(tail -c 1 .env)" ] || echo >>.env
  echo "ENVIRONMENT=$environment" >>.env
elif [ "$chosen" != "$environment" ]; then
  echo ".env says ENVIRONMENT=$chosen; edit it there to change it" >&2
  exit 1
fi
