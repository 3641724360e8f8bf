#!/usr/bin/env bash
# Installs what a group of make targets needs, and says what it installs:
#
#   scripts/deps.sh build          compiler, headers, run-time libraries, Go
#   scripts/deps.sh build test …   and what the tests, `dist`, `rdma` need
#
# Debian and Ubuntu only; elsewhere it checks for the headers and names what is
# missing. When everything is there it prints nothing and touches nothing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Headers to compile against, the libraries that the binary opens at run time,
# and their own diagnosis programs, which docs/troubleshooting.md uses.
build=(gcc libc6-dev make git ca-certificates libfabric-dev libfabric1 libfabric-bin
	libucx-dev libucx0 ucx-utils)
# Peers to compare with, tools that tests drive, and headers of the emulated EFA device.
test=(libasan8 libibverbs-dev librdmacm-dev iproute2 procps iperf3 openssh-client
	binutils shellcheck)
# A browser for the pages of reports; Ubuntu has it as a snap alone.
# shellcheck source=/dev/null
[[ $(. /etc/os-release 2>/dev/null && echo "${ID-}") != debian ]] || test+=(chromium fonts-dejavu-core)
# Compiler driver for old glibc versions, the arm64 emulator, and the archives' tools.
dist=(python3-venv python3-pip binutils qemu-user-static tar gzip)
# A virtual machine with a kernel of its own, for Soft-RoCE.
rdma=(qemu-system-x86 busybox-static cpio kmod gzip xz-utils)

usage() {
	echo "usage: scripts/deps.sh build|test|dist|rdma ..." >&2
	exit 2
}

# installed PACKAGE tells whether dpkg has it unpacked and configured.
installed() {
	[[ $(dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]
}

# asRoot runs a command as root, through sudo where need be.
asRoot() {
	if ((EUID == 0)); then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "deps: installing needs root, and there is no sudo here; run as root: $*" >&2
		return 1
	fi
}

# aptInstall installs packages without questions, waiting for another apt to end.
aptInstall() {
	echo "deps: installing Debian packages: $*"
	local opts=(-q -o DPkg::Lock::Timeout=600 -o APT::Get::Assume-Yes=true)
	asRoot apt-get "${opts[@]}" update >/dev/null
	asRoot env DEBIAN_FRONTEND=noninteractive apt-get "${opts[@]}" install --no-install-recommends "$@" >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		echo "deps: apt-get could not install: $*" >&2
		return 1
	}
}

# checkHeaders is for systems without apt: it names what cannot be compiled.
checkHeaders() {
	local missing=() header
	if ! command -v cc >/dev/null; then
		echo "deps: no C compiler (cc) on PATH; install gcc, for example: dnf install gcc" >&2
		return 1
	fi
	# shellcheck disable=SC2086 # CGO_CFLAGS is a list of words
	for header in rdma/fabric.h ucp/api/ucp.h; do
		echo "#include <$header>" | cc ${CGO_CFLAGS:-} -E -x c - >/dev/null 2>&1 || missing+=("$header")
	done
	((${#missing[@]} == 0)) && return 0
	{
		echo "deps: this system has no apt-get, and its compiler does not find: ${missing[*]}"
		echo "  rdma/fabric.h   from the EFA installer (/opt/amazon/efa/include), or: dnf install libfabric-devel"
		echo "  ucp/api/ucp.h   from: dnf install ucx-devel"
	} >&2
	return 1
}

# fetchGo puts the Go that go.mod asks for into build/go, when no other will do.
# Debian's own go (1.19 in Debian 12) downloads it as the module
# golang.org/toolchain and checks it against the Go checksum database.
fetchGo() {
	"$root/scripts/go" --find >/dev/null 2>&1 && return 0
	local want arch dir
	want=$(awk '$1 == "go" { print $2; exit }' "$root/go.mod")
	case $(uname -m) in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	*)
		echo "deps: no Go toolchain is published for $(uname -m) under Linux; build Go $want from source" >&2
		return 1
		;;
	esac
	if ! command -v go >/dev/null; then
		command -v apt-get >/dev/null || {
			"$root/scripts/go" --find
			return 1
		}
		aptInstall golang-go
	fi
	echo "deps: fetching Go $want into build/go"
	mkdir -p "$root/build"
	dir=$(mktemp -d "$root/build/go.XXXXXX")
	# Old go cannot read this repository's go.mod, and must not find it.
	echo "module bootstrap" >"$dir/go.mod"
	(cd "$dir" && GOTOOLCHAIN=local GOFLAGS=-modcacherw GOMODCACHE="$dir/mod" \
		go mod download -json "golang.org/toolchain@v0.0.1-go$want.linux-$arch" >"$log" 2>&1) || {
		tail -n 5 "$log" >&2
		rm -rf "$dir"
		echo "deps: could not fetch Go $want; install it from https://go.dev/dl/ into /usr/local/go" >&2
		return 1
	}
	# A module's files carry no execute bit; the toolchain's programs need theirs.
	chmod -R u+w "$dir"
	chmod +x "$dir"/mod/golang.org/toolchain@*/bin/* "$dir"/mod/golang.org/toolchain@*/pkg/tool/*/*
	rm -rf "$root/build/go"
	mv "$dir"/mod/golang.org/toolchain@* "$root/build/go"
	rm -rf "$dir"
	"$root/scripts/go" --find >/dev/null
}

(($# > 0)) || usage
packages=()
for group in "$@"; do
	case $group in
	build) packages+=("${build[@]}") ;;
	test) packages+=("${test[@]}") ;;
	dist) packages+=("${dist[@]}") ;;
	rdma) packages+=("${rdma[@]}") ;;
	*) usage ;;
	esac
done

log=$(mktemp)
trap 'rm -f "$log"' EXIT

if command -v apt-get >/dev/null; then
	missing=()
	for package in "${packages[@]}"; do
		installed "$package" || missing+=("$package")
	done
	((${#missing[@]} == 0)) || aptInstall "${missing[@]}"
else
	checkHeaders
fi
fetchGo
