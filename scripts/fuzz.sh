#!/usr/bin/env bash
# What `make fuzz` runs: each fuzz target of the repository, one after the
# other, for $FUZZTIME (60s) on one core. All of them run; the table at the end
# says what each found, and the exit status whether any did.
#
#   scripts/fuzz.sh [PATTERN]   only the targets that match, as package/FuzzName
#
# What a target finds lies in its package's testdata/fuzz/NAME, where `go test`
# runs it from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${FUZZTIME:-60s}
mapfile -t targets < <(git grep --untracked -o -E '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' |
	sed -E 's|/[^/]*:func |/|' | grep -E -- "${1:-.}" | sort)
((${#targets[@]} > 0)) || {
	echo "fuzz: no target matches ${1:-.}" >&2
	exit 2
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
rows=() failed=()
for target in "${targets[@]}"; do
	name=${target##*/} package=./${target%/*}
	echo "fuzz: $target for $time"
	# A target that finds something ends at once; its input is in the output.
	if scripts/go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -parallel 1 "$package" >"$log" 2>&1; then
		result=ok
	else
		result=FAILED
		failed+=("$target")
		cat "$log"
	fi
	execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$log" | tail -n 1)
	rows+=("$(printf '%-50s %-7s %12s runs' "$target" "$result" "${execs:-0}")")
done

printf '%s\n' "${rows[@]}"
if ((${#failed[@]} > 0)); then
	printf 'fuzz: %d of %d targets failed: %s\n' "${#failed[@]}" "${#targets[@]}" "${failed[*]}" >&2
	exit 1
fi
echo "fuzz: ${#targets[@]} targets ran $time each and found nothing"
