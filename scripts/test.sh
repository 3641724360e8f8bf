#!/usr/bin/env bash
# What `make test` and `make conformance` run: the tests, then those under the race
# detector and the address sanitizer (tools/gotest), with the list of skipped tests
# at the end.
#
# A test that needs what this host lacks is skipped with its reason, unless its
# need is named in XFERBENCH_REQUIRE (internal/testenv): then it fails. Unset,
# XFERBENCH_REQUIRE names what `make test` itself installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z ${XFERBENCH_REQUIRE+set} ]]; then
	XFERBENCH_REQUIRE=cc,git,libfabric,ucx,readelf,dist,qemu-user,hadolint
	# shellcheck source=/dev/null
	debian=$(. /etc/os-release && echo "$ID")
	[[ $debian != debian ]] || XFERBENCH_REQUIRE+=,chromium
	# Root in a container may still lack the right to make namespaces.
	if ((EUID == 0)) && unshare --mount --net true 2>/dev/null; then
		XFERBENCH_REQUIRE+=,root,netns,mount
		[[ $debian != debian ]] || XFERBENCH_REQUIRE+=,debian13,sshd
	fi
fi
export XFERBENCH_REQUIRE

# Libraries under test keep memory until the process ends; see the file's own comments.
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/scripts/lsan.supp:print_suppressions=0}

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
scripts/go build -o "$bin/gotest" ./tools/gotest
PATH="$(dirname "$(scripts/go --find)"):$PATH" "$bin/gotest" "$@"
