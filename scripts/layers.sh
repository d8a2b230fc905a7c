#!/usr/bin/env bash
# Checks the layers of docs/architecture.md: which module may import which, and who spells a key of the store.
set -euo pipefail
cd "$(dirname "$0")/.."
broken=0

# The code of .rs files without comments, as file:line:code. A `use crate::{...}` is one line, without what is in its inner groups.
code() {
  local place
  for place; do
    [ -e "$place" ] || { echo "no such place: $place" >&2; exit 1; }
  done
  find "$@" -name '*.rs' -print0 | sort -z | xargs -0r awk '
    FNR == 1 { group = "" }
    {
      line = $0
      sub(/(^|[ \t])\/\/.*/, "", line)
      if (group == "" && line !~ /use crate::\{/) {
        if (line != "") print FILENAME ":" FNR ":" line
        next
      }
      if (group == "") start = FNR
      group = group " " line
      if (line !~ /;/) next
      split(group, halves, /crate::\{/)
      while (gsub(/::\{[^{}]*\}/, "::", halves[2])) { }
      print FILENAME ":" start ":use crate::{" halves[2]
      group = ""
    }'
}

# forbid <rule> <regular expression> <place>...: nothing in those places may match.
forbid() {
  local rule=$1 pattern=$2
  shift 2
  local lines found
  lines=$(code "$@")
  found=$(grep -E "$pattern" <<<"$lines" || true)
  if [ -n "$found" ]; then
    printf '%s\n%s\n\n' "$rule" "$found" >&2
    broken=1
  fi
}

# depends <crate> <crate>: whether the first one's manifest names the second.
depends() {
  [ -f "crates/$1/Cargo.toml" ] || { echo "no such file: crates/$1/Cargo.toml" >&2; exit 1; }
  sed -n '/^\[dependencies\]/,/^\[/p' "crates/$1/Cargo.toml" | grep -qE "^$2[ .=]"
}

for pair in "common auth" "common chat" "auth chat" "chat auth"; do
  read -r one other <<<"$pair"
  if depends "$one" "$other"; then
    echo "crates/$one must not depend on $other" >&2
    broken=1
  fi
done

# A path into a module of the crate: `crate::module`, or `module` inside `use crate::{...}`.
from() { printf 'crate::%s\\b|use crate::[{](.*[, ])?%s\\b' "$1" "$1"; }
web='\baxum\b|\bStatusCode\b|\butoipa_axum\b|\bHeaderMap\b|\bApiError\b|\bProblem\b'

src=crates/chat/src
services="$src/turns $src/events $src/generation $src/sessions.rs $src/usage.rs $src/erasure.rs $src/concurrency"
# shellcheck disable=SC2086
forbid "services of chat know no HTTP" "$web" $services
for module in http state; do
  # shellcheck disable=SC2086
  forbid "services of chat do not import $module" "$(from $module)" $services
done
forbid "chat's domain knows no HTTP" "$web" $src/domain
for module in http state turns events generation sessions usage erasure concurrency store llm; do
  forbid "chat's domain imports no other module, not $module" "$(from $module)" $src/domain
done
for module in http state turns events generation sessions usage erasure concurrency llm; do
  forbid "chat's store imports only domain, not $module" "$(from $module)" $src/store
done
forbid "chat's store knows no HTTP" "$web" $src/store
for module in http state turns events generation sessions usage erasure concurrency store; do
  forbid "llm imports only domain, not $module" "$(from $module)" $src/llm
done
forbid "llm knows no HTTP server" '\baxum\b|\butoipa\b' $src/llm
for module in turns sessions usage erasure concurrency; do
  forbid "events do not import $module" "$(from $module)" $src/events
done
forbid "the log of events, which keeps them, does not import generation" "$(from generation)" \
  $src/events/log $src/events/registry.rs $src/events/replicator.rs
for module in turns events sessions usage erasure concurrency; do
  forbid "generation does not import $module" "$(from $module)" $src/generation
done
forbid "chat's http asks services, not the store's keys" 'store::keys' $src/http

auth=crates/auth/src
for module in http state cli; do
  forbid "services of auth do not import $module" "$(from $module)" $auth/services
done
forbid "services of auth know no HTTP" "$web" $auth/services
forbid "services of auth leave transactions to the store" '\bTxn\b|\bOp::|\bSnapshot\b' $auth/services
for module in http services state cli metrics; do
  forbid "auth's store imports only domain, not $module" "$(from $module)" $auth/store
done
forbid "auth's store knows no HTTP" "$web" $auth/store
for module in http services store state cli metrics; do
  forbid "auth's domain imports no other module, not $module" "$(from $module)" $auth/domain
done
forbid "auth's domain knows neither HTTP nor the store" "$web|common::store|\bBytes\b" $auth/domain
forbid "auth's http asks services, not the store" "$(from store)" $auth/http

# Keys are spelled in the stores, in identity (`i:`), in the rate limiter, and where the format's number is.
spelled='format!\("[aci]:|"[aci]:[a-z]{3,}'
# shellcheck disable=SC2086
forbid "a key is spelled outside the stores" "$spelled" $services $src/http $src/llm $src/domain crates/chatbot/src \
  $auth/http $auth/services $auth/domain $auth/cli.rs $auth/lib.rs \
  crates/common/src/http $(ls -d crates/common/src/store/* | grep -v /format.rs) crates/common/src/clients crates/common/src/errors crates/common/src/config

exit "$broken"
