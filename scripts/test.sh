#!/usr/bin/env bash
# What `make test` runs: every test, then the race detector, then the address
# sanitizer (scripts/gotest), with the list of skipped tests at the end.
#
# A test that needs what this host lacks is skipped with its reason, unless its
# need is named in XFERBENCH_REQUIRE (internal/testenv): then it fails. Unset,
# XFERBENCH_REQUIRE names what `make test` itself installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z ${XFERBENCH_REQUIRE+set} ]]; then
	XFERBENCH_REQUIRE=cc,libfabric,ucx,fi_info,ucx_info,readelf,iperf3,ssh,dist,qemu-user,hadolint
	((EUID != 0)) || XFERBENCH_REQUIRE+=,root
fi
export XFERBENCH_REQUIRE

# Libraries under test keep memory until the process ends; see the file's own comments.
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/scripts/lsan.supp:print_suppressions=0}

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
scripts/go build -o "$bin/gotest" ./scripts/gotest
PATH="$(dirname "$(scripts/go --find)"):$PATH" "$bin/gotest" "$@"
