#!/usr/bin/env bash
# What `make fuzz` runs: each fuzz target of the repository for $FUZZTIME (60s)
# on one core, as many at a time as there are cores ($FUZZJOBS). All of them
# run; the table at the end says what each found, and the exit status whether
# any did.
#
#   scripts/fuzz.sh [PATTERN]   only the targets that match, as package/FuzzName
#
# What a target finds lies in its package's testdata/fuzz/NAME, where `go test`
# runs it from then on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${FUZZTIME:-60s}
limit=${FUZZJOBS:-$(nproc)}
mapfile -t targets < <(git grep --untracked -o -E '^func Fuzz[A-Za-z0-9_]*' -- '*_test.go' |
	sed -E 's|/[^/]*:func |/|' | grep -E -- "${1:-.}" | sort)
((${#targets[@]} > 0)) || {
	echo "fuzz: no target matches ${1:-.}" >&2
	exit 2
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fuzz TARGET LOG runs one target; LOG.result says how it ended.
fuzz() {
	local name=${1##*/} package=./${1%/*} result=ok execs input
	echo "fuzz: $1 for $time"
	# A target that finds something ends at once; its input is in the output.
	scripts/go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -parallel 1 "$package" >"$2" 2>&1 || {
		result=FAILED
		# Go before 1.27 may fail a target whose time was up in the middle of a run
		# (go.dev/issue/75804); nothing was found where no input was written.
		if grep -q '^    context deadline exceeded$' "$2" && ! grep -Eq 'Failing input|panic:' "$2"; then
			result=ok
		else
			cat "$2"
			# Whole, since the machine that found it may be gone by tomorrow.
			input=$(sed -n 's/.*Failing input written to //p' "$2")
			[[ -z $input ]] || { echo "fuzz: ${1%/*}/$input:" && cat "${1%/*}/$input"; }
		fi
	}
	execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$2" | tail -n 1)
	printf '%-50s %-7s %12s runs\n' "$1" "$result" "${execs:-0}" >"$2.result"
}

for i in "${!targets[@]}"; do
	while (($(jobs -rp | wc -l) >= limit)); do
		wait -n || true
	done
	fuzz "${targets[i]}" "$work/$i" &
done
wait

failed=0
for i in "${!targets[@]}"; do
	# A job that was ended from outside has left no result.
	[[ -f $work/$i.result ]] || printf '%-50s FAILED  ended early\n' "${targets[i]}" >"$work/$i.result"
	cat "$work/$i.result"
	grep -q ' ok ' "$work/$i.result" || failed=$((failed + 1))
done
if ((failed > 0)); then
	echo "fuzz: $failed of ${#targets[@]} targets failed" >&2
	exit 1
fi
echo "fuzz: ${#targets[@]} targets ran $time each and found nothing"
