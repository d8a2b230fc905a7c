#!/usr/bin/env bash
# Builds the stand-in image for ollama, to run the compose file where no model can be had:
#
#   tests/docker/stand-in.sh
#   OLLAMA_IMAGE=chatbot-fake-ollama ENVIRONMENT=stg docker-compose up --build
#
# The binary comes from FAKE_OLLAMA, or is built. BASE_IMAGE: an image with the same C library as this machine's.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=${FAKE_OLLAMA:-}
if [ -z "$binary" ]; then
  cargo build --workspace --bins --locked
  binary=${CARGO_TARGET_DIR:-target}/debug/fake-ollama
fi
context=$(mktemp -d)
trap 'rm -r "$context"' EXIT
cp "$binary" "$context/fake-ollama"
cp tests/docker/ollama tests/docker/Dockerfile.ollama "$context/"
docker build --tag chatbot-fake-ollama --build-arg "BASE_IMAGE=${BASE_IMAGE:-debian:bookworm-slim}" \
  --file "$context/Dockerfile.ollama" "$context"
