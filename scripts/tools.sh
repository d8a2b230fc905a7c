#!/usr/bin/env bash
# Installs what the tests start and this machine lacks (Debian, Ubuntu), and nothing that is there already; the Python tools go
# into target/venv. Only where a package is missing it needs to be root, or sudo.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "please install Rust: https://rustup.rs" >&2; exit 1; }

missing=()
# need <package> <command>...: the package, unless one of the commands is there.
need() {
  local package=$1 command
  shift
  for command; do
    ! command -v "$command" >/dev/null || return 0
  done
  missing+=("$package")
}
need build-essential cc
need curl curl
need redis-server redis-server
# Certificates for a Redis that speaks TLS.
need openssl openssl
need haproxy haproxy
need nginx-light nginx /usr/sbin/nginx
# Instances whose clocks are wrong.
need faketime faketime
# The official OpenAI SDKs are clients of some end-to-end tests.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv python3-pip)
need nodejs node
need npm npm
# Browser tests of the page.
[ -n "${CHROMIUM:-}" ] || need chromium chromium chromium-browser google-chrome

if [ "${#missing[@]}" -gt 0 ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  for tool in apt-get "${as_root[@]}"; do
    command -v "$tool" >/dev/null || { echo "$tool is missing; please install: ${missing[*]}" >&2; exit 1; }
  done
  "${as_root[@]}" apt-get update
  # Ubuntu has it as a snap alone.
  if [[ " ${missing[*]} " == *" chromium "* ]] && ! apt-cache show chromium >/dev/null 2>&1; then
    echo "no package chromium here: please install Google Chrome, or name a Chromium in the variable CHROMIUM" >&2
    exit 1
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
fi

# At fixed versions.
if ! cmp --silent tests/python/requirements.txt target/venv/installed; then
  python3 -m venv target/venv
  target/venv/bin/pip install --quiet --requirement tests/python/requirements.txt
  cp tests/python/requirements.txt target/venv/installed
fi
