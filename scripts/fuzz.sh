#!/usr/bin/env bash
# Runs each fuzz target for so many seconds (60 unless told): scripts/fuzz.sh [SECONDS] [TARGET...]
# Needs a nightly compiler and cargo-fuzz (`cargo install cargo-fuzz`). It ends with 1 where one of them found something;
# what found it stands in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)

# Recorded answers are where the adapters' targets begin; the first byte says where they are cut.
seed() {
  local target=$1 file
  shift
  mkdir -p "fuzz/corpus/$target"
  for file; do
    { printf '\x40'; cat "$file"; } > "fuzz/corpus/$target/$(basename "$file")"
  done
}
seed ollama_answer tests/fixtures/ollama/*.ndjson
seed openai_answer tests/fixtures/openai/*.sse

found=0
for target in "${targets[@]}"; do
  echo "== $target, $seconds s"
  # No input may take longer than a second, or more than 512 MB.
  cargo +nightly fuzz run --sanitizer none "$target" -- \
    -max_total_time="$seconds" -timeout=1 -rss_limit_mb=512 -max_len=8192 -print_final_stats=1 || found=1
done
exit "$found"
