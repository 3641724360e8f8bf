#!/usr/bin/env bash
# Prints the path of the pinned zig compiler, installing it from PyPI into the
# cache folder on first use (411 MB unpacked).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pins=$here/requirements-dist.txt
version=$(sed -n 's/^ziglang==\([0-9.]*\).*/\1/p' "$pins")
venv=$("$here/cache.sh")/zig-$version-$(uname -m)

mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock -w 900 9 || {
	echo "zig: another run holds $venv.lock since 15 minutes" >&2
	exit 1
}
if [[ ! -f $venv/complete ]]; then
	echo "zig: installing ziglang $version into $venv" >&2
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$pins" >&2
	touch "$venv/complete"
fi
"$venv/bin/python" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))'
