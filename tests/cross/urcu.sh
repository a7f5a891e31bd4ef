#!/bin/sh
# Debian's liburcu for another architecture, unpacked and never installed: urcu.sh aarch64-linux-gnu|riscv64-linux-gnu
# Prints the folder that holds it. Fetched once, through an apt configuration of its own (no root needed), from the
# mirrors that this machine's apt uses; riscv64 is in Debian 13 only.
#   FERRY_CACHE   where it is kept (default: $XDG_CACHE_HOME/ferry or ~/.cache/ferry)
set -eu
case ${1-} in
aarch64-linux-gnu) arch=arm64 suite=bookworm ;;
riscv64-linux-gnu) arch=riscv64 suite=trixie ;;
*)
	echo "usage: urcu.sh aarch64-linux-gnu|riscv64-linux-gnu" >&2
	exit 2
	;;
esac
cache=${FERRY_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ferry}
dir=$cache/urcu-$arch
[ -e "$dir/.done" ] && echo "$dir" && exit 0
mkdir -p "$cache"
exec 9>"$dir.lock"
flock 9
[ -e "$dir/.done" ] && echo "$dir" && exit 0

apt=$cache/apt-urcu-$arch
rm -rf "$dir" "$apt"
mkdir -p "$dir"
mirrors=$("$(dirname "$0")/../guest/mirrors.sh") # asks the machine's own apt
APT_CONFIG=$("$(dirname "$0")/../guest/apt.sh" "$apt" "$arch")
export APT_CONFIG
log=$apt/log
for mirror in $mirrors; do
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
	apt-get update -qq >"$log" 2>&1 || continue
	if (cd "$apt/cache" && apt-get download -qq liburcu-dev) >>"$log" 2>&1; then
		dpkg-deb -x "$apt/cache"/liburcu-dev_*.deb "$dir"
		rm -rf "$apt"
		touch "$dir/.done"
		echo "$dir"
		exit 0
	fi
done
cat "$log" >&2
echo "urcu.sh: no mirror of this machine has liburcu-dev of $suite for $arch" >&2
exit 1
