#!/bin/sh
# Debian's own kernels, unpacked and never installed: kernel.sh bookworm|trixie [vmlinuz|modules]
#   bookworm  Debian 12's cloud kernel (linux-image-cloud-amd64)
#   trixie    Debian 13's kernel (linux-image-amd64)
# Prints the path of the image, or of the folder with its modules. The package is fetched once, through
# an apt configuration of its own (no root needed), from the mirror that this machine's apt uses.
#   FERRY_CACHE   where they are kept (default: $XDG_CACHE_HOME/ferry or ~/.cache/ferry)
set -eu
suite=${1-}
what=${2:-vmlinuz}
case $suite in
bookworm) meta=linux-image-cloud-amd64 ;;
trixie) meta=linux-image-amd64 ;;
*)
	echo "usage: kernel.sh bookworm|trixie [vmlinuz|modules]" >&2
	exit 2
	;;
esac
cache=${FERRY_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ferry}
dir=$cache/kernel-$suite

answer() {
	case $what in
	vmlinuz) echo "$dir"/boot/vmlinuz-* ;;
	modules) echo "$dir"/lib/modules/* ;;
	*) echo "kernel.sh: vmlinuz or modules, not '$what'" >&2 && exit 2 ;;
	esac
}
die() {
	echo "kernel.sh: $*" >&2
	exit 1
}

[ -e "$dir/.done" ] && answer && exit 0
command -v apt-get >/dev/null || die "no apt-get here to fetch $meta; put vmlinuz-* into $dir/boot and touch $dir/.done"
mkdir -p "$cache"
exec 9>"$cache/kernel-$suite.lock"
flock 9
[ -e "$dir/.done" ] && answer && exit 0
rm -rf "$dir" && mkdir -p "$dir"

apt=$cache/apt-$suite
mirrors=$("$(dirname "$0")/mirrors.sh") # asks the machine's own apt
APT_CONFIG=$("$(dirname "$0")/apt.sh" "$apt" amd64)
export APT_CONFIG

log=$apt/log
for mirror in $mirrors; do
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
	if apt-get update -qq >"$log" 2>&1 && ! grep -q '^[EW]:' "$log"; then
		image=$(apt-cache depends "$meta" |
			sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
		[ -n "$image" ] && break
	fi
done
[ -n "${image-}" ] || { cat "$log" >&2; die "no mirror of this machine has $meta of $suite"; }

echo "fetching $image ($suite)" >&2
(cd "$apt/cache" && rm -f ./*.deb && apt-get download -qq "$image") >"$log" 2>&1 ||
	{ cat "$log" >&2; die "cannot download $image"; }
dpkg-deb -x "$apt/cache/$image"_*.deb "$dir"
# Debian 13 ships /usr/lib/modules; one place for both.
[ -d "$dir/lib/modules" ] || { mkdir -p "$dir/lib" && ln -s ../usr/lib/modules "$dir/lib/modules"; }
rm -rf "$apt"
touch "$dir/.done"
answer
