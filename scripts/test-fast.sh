#!/usr/bin/env bash
# Unit and contract tests: everything that starts no service. Needs redis-server for the store's contract.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --locked --package common --package auth --package chat --package chatbot
