#!/usr/bin/env bash
# Runs the walk of README.md as it stands there, against what listens on 127.0.0.1:9001 and :9002. Needs curl and websocat.
# Shows each command with what it prints, and ends with 1 where one fails or an answer is a problem object.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in curl websocat; do
  command -v "$tool" >/dev/null || { echo "please install: $tool" >&2; exit 1; }
done

walk=$(mktemp) out=$(mktemp)
trap 'rm "$walk" "$out"' EXIT
# What stands in the walk's code blocks, and nothing else, as one script.
awk '/<!-- walk: end -->/ { on = 0 } on && /^```sh/ { code = 1; next } /^```$/ { code = 0 } on && code
     /<!-- walk: begin -->/ { on = 1 }' README.md >"$walk"
bash -euv "$walk" 2>&1 | tee "$out"
if grep -q '"code":"' "$out"; then
  echo "the walk met a problem" >&2
  exit 1
fi
