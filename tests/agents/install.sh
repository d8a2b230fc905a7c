#!/usr/bin/env bash
# Installs the agents, conformance suites and the model server of the tests in this folder, at the versions pinned beside this file,
# into the folder named (about 700 MB). Does nothing where they are there already.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
to="${1:?usage: install.sh FOLDER}"
mkdir -p "$to"
to="$(cd "$to" && pwd)"

# One at a time: several test runs may share the folder.
exec 9>"$to/lock"
flock 9

wanted="$(cat "$here/requirements.txt" "$here/package-lock.json" "$here"/go_clients/* "$here/collector_build.yaml" "$0" | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$to/installed" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

rm -rf "$to/python" "$to/node" "$to/installed"
python3 -m venv "$to/python"
"$to/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
mkdir "$to/node"
cp "$here/package.json" "$here/package-lock.json" "$to/node/"
npm ci --prefix "$to/node" --no-audit --no-fund --loglevel=error
"$to/python/bin/python" "$here/scripted_gguf.py" "$to/scripted.gguf"
"$to/python/bin/python" "$here/scripted_gguf.py" "$to/embedding.gguf" --pool
# A program with Go's SDKs, and Ollama's command line, which serves here as a client only.
command -v go >/dev/null || { echo "please install: golang (1.26 or later)" >&2; exit 1; }
(cd "$here/go_clients" && go build -o "$to/go_clients" .)
GOBIN="$to" go install github.com/ollama/ollama@v0.34.0
# The OpenTelemetry Collector, of the parts that are needed.
GOBIN="$to" go install go.opentelemetry.io/collector/cmd/builder@v0.165.0
rm -rf "$to/otelcol"
(cd "$to" && ./builder --config "$here/collector_build.yaml" >/dev/null)
echo "$wanted" > "$to/installed"
