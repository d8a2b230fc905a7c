#!/usr/bin/env bash
# Measures every contender in one go and prints the table of docs/performance.md. Everything on loopback; about ten
# minutes after the build on two cores. Needs Rust (and a C compiler, as the build does); on Debian and Ubuntu it
# installs what else is missing.
#
#   bench/run.sh                         all contenders
#   CONTENDERS=mock,chat bench/run.sh    some (mock, nginx, chat, chats, chatbot, fastapi); the mock is what the others are held against
#   BEFORE=DIR CONTENDERS=mock,before,chat bench/run.sh   also the `auth` and `chat` in DIR, built before a change
#   SECONDS_EACH=10 bench/run.sh         longer (3 seconds a figure otherwise)
#   bench/run.sh passwords               an unknown user against a wrong password, and 64 logins at once (docs/security.md)
#   OUT=DIR bench/run.sh                 where the raw figures and logs go (target/bench otherwise)
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
command -v redis-server >/dev/null || missing+=(redis-server)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
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

cargo build --workspace --release --bins --locked
target=${CARGO_TARGET_DIR:-target}
out=${OUT:-$target/bench}
mkdir -p "$out"
if [ "${1:-}" = passwords ]; then
  exec python3 bench/passwords.py --bin "$target/release" --out "$out" --pairs "${PAIRS:-2000}"
fi
case ",${CONTENDERS:-fastapi}," in
  *,fastapi,*)
    [ -x "$out/venv/bin/uvicorn" ] || python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet --disable-pip-version-check -r bench/fastapi/requirements.txt
    ;;
esac

# 5,000 streams have 10,000 sockets on a contender.
ulimit -n "$(ulimit -H -n)"
exec python3 bench/run.py --bin "$target/release" --out "$out" \
  --contenders "${CONTENDERS:-mock,nginx,chat,chats,chatbot,fastapi}" --seconds "${SECONDS_EACH:-3}"
