#!/usr/bin/env bash
# Installs the official SDKs of every API, at the versions pinned beside this file, into the folder named: clients for the
# end-to-end tests of `tests/chat/sdks.rs`. Does nothing where they are there already.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
to="${1:?usage: install.sh FOLDER}"
mkdir -p "$to"
to="$(cd "$to" && pwd)"

# One at a time: several test runs may share the folder.
exec 9>"$to/lock"
flock 9

wanted="$(cat "$here/requirements.txt" "$here/package-lock.json" | sha256sum | cut -d' ' -f1)"
if [ "$(cat "$to/installed" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

for tool in python3 node npm; do
  command -v "$tool" >/dev/null || { echo "please install: $tool (scripts/test.sh does)" >&2; exit 1; }
done
rm -rf "$to/python" "$to/node" "$to/installed"
python3 -m venv "$to/python" || { echo "please install: python3-venv (scripts/test.sh does)" >&2; exit 1; }
"$to/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
mkdir "$to/node"
cp "$here/package.json" "$here/package-lock.json" "$to/node/"
npm ci --prefix "$to/node" --no-audit --no-fund --loglevel=error
echo "$wanted" > "$to/installed"
