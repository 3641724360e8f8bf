#!/usr/bin/env bash
# Runs an arm64 program on a host of another architecture, under qemu's user
# emulation, with Debian 12's arm64 C library, libfabric and UCX:
#
#   scripts/arm64.sh PROGRAM [ARG...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$("$here/cache.sh")/debian12-arm64
"$here/debroot.sh" "$root" bookworm arm64 libc6 libfabric1 libucx0 libibverbs1 ibverbs-providers
export QEMU_LD_PREFIX=$root
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || {
	echo "arm64: no qemu-aarch64-static on PATH; install qemu-user-static" >&2
	exit 1
}
exec "$qemu" "$@"
