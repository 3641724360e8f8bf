#!/usr/bin/env bash
# The inner half of `debian13.sh exec`, in the new mount namespace: shows the
# machine's folders inside ROOT and runs the command there.
#
#   scripts/inroot.sh ROOT CHECKOUT WORKDIR [NAME=VALUE...] -- CMD [ARG...]
set -euo pipefail

root=$1 checkout=$2 workdir=$3
shift 3
env=()
while [[ $1 != -- ]]; do
	env+=("$1")
	shift
done
shift

# show makes PATH of the machine visible at the same path inside ROOT.
show() {
	local path=$1
	[[ -e $path ]] || return 0
	if [[ -d $path ]]; then
		mkdir -p "$root$path"
	else
		mkdir -p "$(dirname "$root$path")"
		[[ -e $root$path ]] || : >"$root$path"
	fi
	mount --rbind "$path" "$root$path"
}

# below tells whether PATH lies in one of the folders shown already.
shown=(/dev /proc /sys /tmp /run /root /home /etc/passwd /etc/group /etc/hosts /etc/resolv.conf)
below() {
	local path
	for path in "${shown[@]}"; do
		[[ $1/ == "$path"/* ]] && return 0
	done
	return 1
}

cache=$(dirname "$root")
for path in "${shown[@]}"; do
	show "$path"
done
for path in "$checkout" "$workdir" "$cache" "$(dirname "$(command -v -- "$1" || echo "$1")")"; do
	# The system's own folders are the ones that ROOT stands in for.
	case $path in
	/ | . | /usr | /usr/* | /bin | /sbin | /lib | /lib64 | /etc | /var | /opt) continue ;;
	esac
	below "$path" && continue
	show "$path"
	shown+=("$path")
done

exec chroot "$root" /usr/bin/env --chdir="$(below "$workdir" && echo "$workdir" || echo /)" "${env[@]}" "$@"
