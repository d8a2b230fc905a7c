#!/usr/bin/env bash
# Holds the rooms' rule of docs/architecture.md: who may look where, and who spells a key of the store.
set -euo pipefail
cd "$(dirname "$0")/.."
broken=0

# The code of a folder's or file's .rs files without comments, as file:line:code.
code() {
  local place places=()
  for place; do
    [ ! -e "$place" ] || places+=("$place")
  done
  find "${places[@]}" -name '*.rs' -print0 | sort -z \
    | xargs -0r awk '{ line = $0; sub(/(^|[ \t])\/\/.*/, "", line); if (line != "") print FILENAME ":" FNR ":" line }'
}

# forbid <rule> <regular expression> <place>...: nothing in those places may match.
forbid() {
  local rule=$1 pattern=$2
  shift 2
  local found
  found=$(code "$@" | grep -E "$pattern" || true)
  if [ -n "$found" ]; then
    printf '%s\n%s\n\n' "$rule" "$found" >&2
    broken=1
  fi
}

# depends <crate> <crate>: whether the first one's manifest names the second.
depends() {
  sed -n '/^\[dependencies\]/,/^\[/p' "crates/$1/Cargo.toml" | grep -qE "^$2[ .=]"
}

for pair in "common auth" "common chat" "auth chat" "chat auth"; do
  read -r one other <<<"$pair"
  if depends "$one" "$other"; then
    echo "crates/$one must not depend on $other" >&2
    broken=1
  fi
done

# A path into that room: `crate::room`, or `room::` after a brace, a comma or the beginning of a line of `use crate::{…}`.
from() { printf '(crate|super)::%s\\b|(:[0-9]+: +|[{,] ?)%s::' "$1" "$1"; }
web='\baxum\b|\bStatusCode\b|\butoipa\b'

for crate in auth chat; do
  src=crates/$crate/src
  forbid "$src/service: knows no HTTP" "$web" "$src/service"
  forbid "$src/service: does not look into api" "$(from api)" "$src/service"
  forbid "$src/repository: knows no HTTP" "$web" "$src/repository"
  for room in api service adapters; do
    forbid "$src/repository: looks at models and the store alone, not at $room" "$(from "$room")" "$src/repository"
  done
  for room in api service repository adapters; do
    forbid "$src/models: looks at nothing, not at $room" "$(from "$room")" "$src/models" "$src/models.rs"
  done
  forbid "$src/api: asks the service, not the repository" "$(from repository)" "$src/api"
done
for room in api service repository; do
  forbid "crates/chat/src/adapters: look at models alone, not at $room" "$(from "$room")" crates/chat/src/adapters
done
forbid "crates/chat/src/adapters: know no server's side of HTTP" '\baxum\b|\butoipa\b' crates/chat/src/adapters

# Keys: `a:` and `c:` in the repositories, `i:` in common's identity too, the rate limit's in its own room.
spelled='"[aci]:[^"]*[{]|"[aci]:[a-z]+"'
forbid "a key of the store is spelled outside the repositories" "$spelled" \
  crates/*/src/api crates/*/src/service crates/chat/src/adapters crates/chatbot/src crates/common/src/http \
  crates/common/src/store crates/common/src/clients crates/common/src/errors crates/common/src/config

exit "$broken"
