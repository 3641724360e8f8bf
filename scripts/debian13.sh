#!/usr/bin/env bash
# Debian 13's libfabric, UCX and rdma-core beside the machine's own, to test
# against newer libraries and headers without installing them.
#
#   scripts/debian13.sh path             the folder they are unpacked in
#   scripts/debian13.sh headers          an include folder with their headers only
#   scripts/debian13.sh exec CMD ARG...  CMD with Debian 13's C library and all else
#
# The packages are fetched on first use (scripts/debroot.sh) and kept. `exec`
# changes root into that folder in a mount namespace of its own, as root or in
# a user namespace. /dev, /proc, /sys, /tmp, /run, home folders, this checkout
# and the working folder appear at their own paths; processes, network and
# users are the machine's. LD_PRELOAD and LD_LIBRARY_PATH are for CMD alone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(dirname "$here")
arch=$(dpkg --print-architecture 2>/dev/null) || arch=amd64
root=$("$here/cache.sh")/debian13-$arch

# fetch unpacks the packages, unless they are there, and gathers the headers of
# the RDMA libraries alone: the C library's own must not be mixed with others.
fetch() {
	"$here/debroot.sh" "$root" trixie "$arch" coreutils dash \
		libfabric1 libfabric-bin libfabric-dev libucx0 ucx-utils libucx-dev \
		libibverbs1 ibverbs-providers libibverbs-dev librdmacm1t64 librdmacm-dev rdmacm-utils
	local name
	mkdir -p "$root/include"
	for name in rdma infiniband ucp uct ucs ucm; do
		[[ -e $root/include/$name ]] || ln -sfn "../usr/include/$name" "$root/include/$name"
	done
}

usage() {
	sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' >&2
	exit 2
}

case ${1:-} in
path)
	fetch
	echo "$root"
	;;
headers)
	fetch
	echo "$root/include"
	;;
exec)
	shift
	(($# > 0)) || usage
	preload=${LD_PRELOAD:-} libpath=${LD_LIBRARY_PATH:-}
	unset LD_PRELOAD LD_LIBRARY_PATH
	fetch
	env=()
	[[ -z $preload ]] || env+=("LD_PRELOAD=$preload")
	[[ -z $libpath ]] || env+=("LD_LIBRARY_PATH=$libpath")
	namespace=(--mount --propagation private)
	((EUID == 0)) || namespace+=(--map-root-user)
	# exec all the way: CMD keeps this process's id, so that a signal reaches it.
	exec unshare "${namespace[@]}" "$here/inroot.sh" "$root" "$checkout" "$PWD" "${env[@]}" -- "$@"
	;;
*) usage ;;
esac
