#!/usr/bin/env bash
# What `make check` runs: golangci-lint (.golangci.yml: gofmt, vet, staticcheck,
# the layers and more), go mod tidy, shellcheck, and every C file of the
# repository under -Wall -Wextra -Werror. All of it runs, then the exit status
# says whether any of it failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
# step NAME COMMAND... runs one check and remembers whether it failed.
step() {
	local name=$1
	shift
	echo "check: $name"
	"$@" || failed+=("$name")
}

sources() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do [[ -f $f ]] && echo "$f"; done; }

# cWarnings compiles each C file with the flags its own Go package gives cgo;
# -O2, because several warnings come out of the optimiser's analysis.
cWarnings() {
	local status=0 file dir flags
	declare -A flagsOf=()
	while IFS='|' read -r dir flags; do
		flagsOf[$dir]=$flags
	done < <(scripts/go list -e -f '{{if .CgoFiles}}{{.Dir}}|{{join .CgoCPPFLAGS " "}} {{join .CgoCFLAGS " "}}{{end}}' ./...)
	while read -r file; do
		dir=$PWD/$(dirname "$file")
		# shellcheck disable=SC2086 # flags are a list of words
		cc -std=gnu11 -O2 -fPIC -Wall -Wextra -Werror ${CGO_CFLAGS:-} ${flagsOf[$dir]:-} -I"$dir" \
			-c -o /dev/null "$file" || status=1
	done < <(sources '*.c')
	return $status
}

shellLint() {
	local files
	mapfile -t files < <(sources '*.sh' scripts/go .ci/run)
	shellcheck --shell=bash "${files[@]}"
}

step golangci-lint scripts/go tool -modfile=tools/lint/go.mod golangci-lint run ./...
# Not of tools/lint, where it would fetch the modules of the linters' own tests.
step 'go mod tidy' scripts/go mod tidy -diff
step 'C warnings' cWarnings
step shellcheck shellLint

if ((${#failed[@]} > 0)); then
	printf 'check: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
echo 'check: all passed'
