#!/usr/bin/env bash
# Unpacks Debian packages of any release and architecture, with all that they
# depend on, into a folder. Nothing is installed: no package's scripts run, the
# machine's own packages and apt's own state stay as they are, and it needs no
# root.
#
#   scripts/debroot.sh [--kernel] DIR SUITE ARCH PACKAGE...
#
# --kernel adds the suite's kernel image and modules without its dependencies.
# The packages come from the Debian mirror that the machine's own apt is
# configured with (or from XFERBENCH_DEBIAN_MIRROR, a URL), and apt checks them
# against Debian's archive keys. A DIR that already holds the same request is
# left alone; remove it to fetch newer packages.
set -euo pipefail

die() {
	echo "debroot: $*" >&2
	exit 1
}

kernel=
if [[ ${1:-} == --kernel ]]; then
	kernel=yes
	shift
fi
(($# >= 4)) || die "usage: debroot.sh [--kernel] DIR SUITE ARCH PACKAGE..."
dir=$1 suite=$2 arch=$3
shift 3

request="debroot 2: $suite $arch ${kernel:+kernel }$*"
stamp=$dir.stamp
[[ -d $dir && -f $stamp && $(<"$stamp") == "$request" ]] && exit 0

command -v apt-get >/dev/null || die "no apt-get here: unpacking Debian packages needs a Debian or Ubuntu machine"

# mirror prints the archive that the machine's own Debian packages come from.
mirror() {
	if [[ -n ${XFERBENCH_DEBIAN_MIRROR:-} ]]; then
		echo "$XFERBENCH_DEBIAN_MIRROR"
		return
	fi
	local codename
	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && [[ $ID == debian ]] && echo "$VERSION_CODENAME") ||
		die "this is no Debian machine, so its apt knows no Debian mirror; name one in XFERBENCH_DEBIAN_MIRROR"
	# shellcheck disable=SC2016 # $(…) is apt's own notation
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v c="$codename" '($2 == c || $2 ~ /^(old)*stable$/) && $3 == "main" { print $1; exit }'
}

mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock -w 900 9 || die "another run holds $dir.lock since 15 minutes"
[[ -d $dir && -f $stamp && $(<"$stamp") == "$request" ]] && exit 0

from=$(mirror)
[[ -n $from ]] || die "apt's sources name no Debian mirror with this release's main section; name one in XFERBENCH_DEBIAN_MIRROR"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -f $keyring ]] || die "no $keyring; install debian-archive-keyring"

work=$dir.work
rm -rf "$work"
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,etc/parts,root}
: >"$work/status"
echo "deb [arch=$arch signed-by=$keyring] $from $suite main" >"$work/etc/sources.list"
opts=(-q -y -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User=
	-o APT::Install-Recommends=false -o Acquire::Languages=none -o Acquire::Retries=3
	-o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache"
	-o Dir::Etc::sourcelist="$work/etc/sources.list" -o Dir::Etc::sourceparts="$work/etc/parts" -o Dir::Etc::preferencesparts="$work/etc/parts"
	-o Debug::NoLocking=true -o APT::Get::List-Cleanup=false -o Binary::apt::APT::Keep-Downloaded-Packages=true
	-o APT::Keep-Downloaded-Packages=true -o APT::Update::Post-Invoke-Success=
	-o DPkg::Post-Invoke= -o APT::Update::Post-Invoke=)

apt() {
	local log=$work/log
	apt-get "${opts[@]}" "$@" >"$log" 2>&1 && return 0
	tail -n 20 "$log" >&2
	die "apt-get $1 failed for $suite/$arch"
}

echo "debroot: fetching Debian $suite/$arch packages into $dir" >&2
apt update
apt install --download-only "$@"
if [[ -n $kernel ]]; then
	image=$(apt-cache "${opts[@]:2}" depends "linux-image-$arch" | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
	[[ -n $image ]] || die "linux-image-$arch of $suite names no image"
	(cd "$work/cache/archives" && apt download "$image")
fi

# Debian merges /bin, /sbin and /lib into /usr through links that base-files makes.
merged=(bin sbin lib)
[[ $arch != amd64 ]] || merged+=(lib64)
for name in "${merged[@]}"; do
	mkdir -p "$work/root/usr/$name"
	ln -s "usr/$name" "$work/root/$name"
done
for deb in "$work"/cache/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" |
		tar -x -C "$work/root" --keep-directory-symlink --no-same-owner \
			--exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
done
# The one link that a package's script would have made: libfabric 1.17 needs this library.
for lib in "$work"/root/usr/lib/libpsm1/libpsm_infinipath.so.1.*; do
	[[ ! -e $lib ]] || ln -sfn "../libpsm1/$(basename "$lib")" "$work/root/usr/lib/x86_64-linux-gnu/libpsm_infinipath.so.1"
done
rm -rf "$dir" "$stamp"
mv "$work/root" "$dir"
rm -rf "$work"
echo "$request" >"$stamp"
