#!/usr/bin/env bash
# Builds the release archives into dist/:
#
#   xferbench-VERSION-linux-ARCH.tar.gz   for amd64 and arm64, and SHA256SUMS
#
# C is compiled by zig against glibc 2.34 (Amazon Linux 2023), and the result is
# held to that by its symbol versions. The same checkout gives the same bytes:
# no paths, no build time; files carry the commit's date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

glibc=2.34
: "${VERSION:?scripts/dist.sh is run by make dist, which sets VERSION}"
: "${LDFLAGS:=}"
: "${ARCHES:=amd64 arm64}"
: "${DIST:=dist}"
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH=$epoch

zig=$(scripts/pinned.sh zig)
work=$(mktemp -d "${TMPDIR:-/tmp}/xferbench-dist.XXXXXX")
trap 'rm -rf "$work"' EXIT
# At the same path each time, or the cgo packages would be compiled anew.
stage=$(scripts/cache.sh)/dist
mkdir -p "$stage/include" "$DIST"
rm -f "$DIST"/xferbench-*-linux-*.tar.gz "$DIST/SHA256SUMS"

# Only these libraries' headers: the C library's come with zig, and are those of 2.34.
for name in rdma infiniband ucp uct ucs ucm; do
	[[ -e /usr/include/$name ]] || continue
	ln -sfn "/usr/include/$name" "$stage/include/$name"
done

declare -A triple=([amd64]=x86_64-linux-gnu [arm64]=aarch64-linux-gnu)
for arch in $ARCHES; do
	cc=$stage/cc-$arch
	# zig's own default would add a sanitizer to C that is not optimised.
	printf '#!/bin/sh\nexec "%s" cc -target %s.%s -fno-sanitize=undefined "$@"\n' "$zig" "${triple[$arch]}" "$glibc" >"$cc.new"
	chmod +x "$cc.new"
	cmp -s "$cc.new" "$cc" || mv "$cc.new" "$cc"
	rm -f "$cc.new"

	name=xferbench-$VERSION-linux-$arch
	mkdir "$work/$name"
	CC=$cc CGO_ENABLED=1 GOOS=linux GOARCH=$arch CGO_CFLAGS="-O2 -I$stage/include" \
		scripts/go build -trimpath -buildmode=pie -buildvcs=false -ldflags "-s -w -buildid= $LDFLAGS" \
		-o "$work/$name/xferbench" ./cmd/xferbench
	scripts/glibc.sh "$glibc" "$work/$name/xferbench"
	for file in README.md CHANGELOG.md LICENSE; do
		[[ ! -f $file ]] || install -m 644 "$file" "$work/$name/"
	done
	tar -C "$work" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --format=gnu \
		--mode=u+rwX,go+rX,go-w -cf - "$name" | gzip -9n >"$work/$name.tar.gz"
	mv "$work/$name.tar.gz" "$DIST/"
done
(cd "$DIST" && sha256sum -- *.tar.gz >SHA256SUMS && cat SHA256SUMS)
