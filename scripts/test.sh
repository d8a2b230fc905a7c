#!/usr/bin/env bash
# Everything that must hold before a change is taken: formatting, the rooms, lints, the build, every test.
# Needs Rust; installs what else the tests start (Debian, Ubuntu), and nothing that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v curl >/dev/null || missing+=(curl)
# The official OpenAI SDKs are clients of some stories.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv python3-pip)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v haproxy >/dev/null || missing+=(haproxy)
# Instances whose clocks are wrong.
command -v faketime >/dev/null || missing+=(faketime)
if [ "${#missing[@]}" -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "please install: ${missing[*]}" >&2
    exit 1
  fi
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
fi
# Python tools that stories run, at fixed versions.
if ! cmp --silent tests/python/requirements.txt target/venv/installed; then
  python3 -m venv target/venv
  target/venv/bin/pip install --quiet --requirement tests/python/requirements.txt
  cp tests/python/requirements.txt target/venv/installed
fi

cargo fmt --all --check
scripts/rooms.sh
cargo clippy --workspace --all-targets --locked -- -D warnings
tests/sdk/install.sh "${CARGO_TARGET_DIR:-target}/tmp/sdk"
# The stories start the binaries, which `cargo test` alone does not build.
cargo build --workspace --bins --locked
cargo test --workspace --locked
# The page, in a real browser; it brings Node.js, npm and Chromium where they are missing.
bash tests/web/run.sh
