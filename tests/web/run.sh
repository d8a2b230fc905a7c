#!/usr/bin/env bash
# Runs the end-to-end tests of the chat page: the built binaries, a model server that repeats what it is told, and Chromium.
# Build first: cargo build --workspace --bins. Installs what is missing.
set -euo pipefail
cd "$(dirname "$0")"

../../scripts/tools.sh
# Playwright wants Node.js 20; Debian 12's own is older. The package `node` of npm brings a newer one.
if ! node --eval 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)'; then
  newer="${CARGO_TARGET_DIR:-$PWD/../../target}/node"
  npm install --no-audit --no-fund --prefix "$newer" node@22
  PATH="$newer/node_modules/.bin:$PATH"
fi
export CHROMIUM="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}"

# What the lock file names, once; again when it has changed.
if ! cmp --silent package-lock.json node_modules/.installed; then
  npm ci --no-audit --no-fund --ignore-scripts
  cp package-lock.json node_modules/.installed
fi
exec node --test --test-concurrency=1
