#!/usr/bin/env bash
# `make test-rdma`: boots Debian's kernel in QEMU with nothing but an initramfs,
# brings up a Soft-RoCE device there (rdma_rxe) and runs scripts/rdma/guest.sh
# on it with bin/xferbench. The machine's own kernel and network are not used.
#
#   scripts/rdma/run.sh [COMMAND [ARG...]]    another command in the guest
#
# XFERBENCH_QEMU_ACCEL=kvm replaces software emulation where the host has KVM.
# XFERBENCH_RDMA_LIMIT is the deadline in seconds, boot included (default 280).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
accel=${XFERBENCH_QEMU_ACCEL:-tcg,thread=multi}
limit=${XFERBENCH_RDMA_LIMIT:-280}
command=("$@")
((${#command[@]} > 0)) || command=(/guest.sh)

qemu=$(command -v qemu-system-x86_64) || {
	echo "test-rdma: no qemu-system-x86_64 on PATH; install qemu-system-x86" >&2
	exit 1
}
cache=$("$checkout/scripts/cache.sh")
root=$cache/rdma-amd64
"$checkout/scripts/debroot.sh" --kernel "$root" bookworm amd64 bash busybox-static coreutils iproute2 kmod \
	libfabric1 libfabric-bin libucx0 ucx-utils libibverbs1 ibverbs-providers ibverbs-utils librdmacm1 perftest

# crc32_generic first: rdma_rxe asks the crypto layer for it and does not name it as a dependency.
modules=(crc32_generic dummy ib_uverbs rdma_ucm rdma_rxe)

work=$(mktemp -d "${TMPDIR:-/tmp}/xferbench-rdma.XXXXXX")
trap 'rm -rf "$work"' EXIT

# archive writes the files that it is told on stdin, below the folder, as an initramfs.
archive() { (cd "$1" && cpio --quiet --null --create --format=newc --owner=0:0); }

# The first archive, kept: the root without what the guest has no use for, and
# the modules with their dependencies in the order of loading. It is not
# compressed: an emulated processor would be long at it.
kernel=$(basename "$(echo "$root"/lib/modules/*)")
base=$cache/rdma-amd64-$kernel.cpio
if [[ ! -f $base || $base -ot $root.stamp || $base -ot $here/run.sh ]]; then
	depmod --basedir "$root" "$kernel"
	modprobe --dirname "$root" --set-version "$kernel" --show-depends --all "${modules[@]}" |
		awk -v root="$root" '$1 == "insmod" && !seen[$2]++ { sub(root, "", $2); print $2 }' >"$root/modules.list"
	{
		(cd "$root" && find . -path ./boot -prune -o -path ./usr/lib/modules -prune -o -path ./usr/share -prune -o -print0)
		while read -r module; do
			printf './usr%s\0' "$module"
		done <"$root/modules.list"
	} | awk -v RS='\0' -v ORS='\0' '
		# Each file of usr/lib/modules needs the folders above it.
		{ n = split($0, part, "/"); path = part[1]
		  for (i = 2; i < n; i++) { path = path "/" part[i]; if (!seen[path]++) print path }
		  if (!seen[$0]++) print }' | archive "$root" >"$base.new"
	mv "$base.new" "$base"
fi

# The second: what changes from run to run.
mkdir "$work/overlay"
install -m 755 "$here/init.sh" "$work/overlay/init"
install -m 755 "$here/guest.sh" "$work/overlay/guest.sh"
[[ ! -x $checkout/bin/xferbench ]] || install -m 755 "$checkout/bin/xferbench" "$work/overlay/xferbench"
printf '%q ' "${command[@]}" >"$work/overlay/command"
{
	cat "$base"
	(cd "$work/overlay" && find . -mindepth 1 -print0) | archive "$work/overlay"
} >"$work/initramfs"

console=$work/console
echo "test-rdma: booting Debian's $kernel ($accel), at most $limit s"
status=0
timeout --kill-after=10 "$limit" "$qemu" -accel "$accel" -cpu max -smp 2 -m 3072 \
	-nodefaults -no-user-config -display none -no-reboot -nic none -serial stdio \
	-kernel "$root/boot/vmlinuz-$kernel" -initrd "$work/initramfs" \
	-append "console=ttyS0 quiet loglevel=3 panic=-1 rdinit=/init mitigations=off" \
	</dev/null 2>&1 | tr -d '\r' | tee "$console" || status=${PIPESTATUS[0]}

if ((status == 124 || status == 137)); then
	echo "test-rdma: the guest did not end within $limit s" >&2
	exit 1
fi
# The guest's last line is the only word on success: a kernel panic ends qemu with status 0 too.
verdict=$(sed -n 's/^guest: exit status \([0-9]*\)$/\1/p' "$console" | tail -n 1)
if [[ -z $verdict ]]; then
	echo "test-rdma: the guest stopped without a verdict (qemu's exit status $status); its console is above" >&2
	exit 1
fi
exit "$verdict"
