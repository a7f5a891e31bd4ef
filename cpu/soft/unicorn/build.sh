#!/bin/sh
# Builds the patched Unicorn once and keeps it: build.sh [--dir] release|asan
#   --dir only prints the folder where the result is (to be) kept.
# The folder's name holds a hash of this script and of the patches, so that a changed series is a
# new folder and an unchanged one is never built again.
#   FERRY_CACHE       where to keep it (default: $XDG_CACHE_HOME/ferry or ~/.cache/ferry)
#   UNICORN_TARBALL   the source distribution, for machines without PyPI
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=2.1.1
sha256=904f4146b09cd708fdf6b90ebb48d30eaa0ba339382964d4d08c0b9399cf4ba3
cache=${FERRY_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ferry}
only_dir=no
[ "${1-}" = --dir ] && { only_dir=yes; shift; }
variant=${1:-release}
series=$(cat "$here/build.sh" "$here"/*.patch 2>/dev/null | sha256sum | cut -c1-12)
out=$cache/unicorn-$version-$series-$variant
[ $only_dir = yes ] && { echo "$out"; exit 0; }
[ -e "$out/.done" ] && exit 0
mkdir -p "$cache"
exec 9>"$cache/unicorn.lock"
flock 9
[ -e "$out/.done" ] && exit 0

tarball=${UNICORN_TARBALL:-$cache/unicorn-$version.tar.gz}
if [ ! -e "$tarball" ]; then
	tmp=$(mktemp -d)
	python3 -m pip download -q --disable-pip-version-check --no-binary :all: --no-deps \
		"unicorn==$version" -d "$tmp" ||
		{ echo "build.sh: cannot get unicorn $version from PyPI; set UNICORN_TARBALL=FILE" >&2; exit 1; }
	mv "$tmp/unicorn-$version.tar.gz" "$tarball"
	rmdir "$tmp"
fi
echo "$sha256  $tarball" | sha256sum -c --quiet - ||
	{ echo "build.sh: $tarball is not the pinned unicorn $version; remove it and try again" >&2; exit 1; }

rm -rf "$out" && mkdir -p "$out/src" "$out/obj"
tar -xzf "$tarball" -C "$out/src" --strip-components=2 "unicorn-$version/src"
# The source distribution flattens src/cmake into src; its own CMakeLists.txt wants them back.
mkdir -p "$out/src/cmake"
for f in bundle_static mingw-w64 zig; do
	[ -e "$out/src/$f.cmake" ] && cp "$out/src/$f.cmake" "$out/src/cmake/"
done
for p in "$here"/*.patch; do
	[ -e "$p" ] || continue
	patch -s -p1 -d "$out/src" <"$p" || { echo "build.sh: $(basename "$p") does not apply" >&2; exit 1; }
done
case $variant in
asan) flags="-DCMAKE_BUILD_TYPE=None"; cflags="-O1 -g -fsanitize=address,undefined -fno-sanitize=alignment,shift,null,pointer-overflow -fno-omit-frame-pointer -DQEMU_STATIC_ANALYSIS" ;;
# Position-independent, but nobody puts other functions in the place of these: they may be inlined.
*) flags="-DCMAKE_BUILD_TYPE=Release"; cflags="-fno-semantic-interposition" ;;
esac
log=$out/build.log
{
	cmake -G Ninja -S "$out/src" -B "$out/obj" $flags -DCMAKE_C_FLAGS="$cflags" \
		-DUNICORN_ARCH="${UNICORN_ARCH:-x86}" -DBUILD_SHARED_LIBS=OFF -DUNICORN_BUILD_TESTS=OFF &&
		ninja -C "$out/obj"
} >"$log" 2>&1 || { tail -30 "$log" >&2; echo "build.sh: building Unicorn failed; the whole log: $log" >&2; exit 1; }
cp "$out/obj/libunicorn.a" "$out/libunicorn.a"
cp -r "$out/src/include" "$out/include"
rm -rf "$out/obj"
touch "$out/.done"
