#!/usr/bin/env bash
# Fails when a program needs a newer glibc than MAX, by the versions of the
# symbols that it imports:  scripts/glibc.sh MAX FILE...
set -euo pipefail
(($# >= 2)) || {
	echo "usage: scripts/glibc.sh MAX FILE..." >&2
	exit 2
}
max=$1
shift
status=0
for file in "$@"; do
	versions=$(LC_ALL=C readelf --wide --version-info "$file") || exit 1
	newest=$(grep -o 'Name: GLIBC_[0-9.]*' <<<"$versions" | sed 's/.*_//' | sort -uV | tail -n 1) || true
	if [[ -z $newest ]]; then
		echo "$file: imports no versioned glibc symbol; is it a dynamic executable?" >&2
		status=1
	elif [[ $(printf '%s\n%s\n' "$newest" "$max" | sort -V | tail -n 1) != "$max" ]]; then
		echo "$file: needs glibc $newest, newer than $max" >&2
		status=1
	else
		echo "$file: needs glibc $newest"
	fi
done
exit $status
