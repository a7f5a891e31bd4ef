#!/bin/sh
# Installs the Debian packages that are missing, and only those: deps.sh build|run|test|all
#   build  to compile ferry        run  also what `make run` needs        test|all  everything
# Each row below: package | how to see that it is there | what it is for.
# As root it installs with apt-get; as anyone else it prints the command and fails.
# DEPS_DRY=1 only prints.
set -eu
group=${1:-all}

rows_build='
gcc|command -v gcc|the C compiler
libc6-dev|test -e /usr/include/stdio.h|C library headers
make|command -v make|builds ferry
cmake|command -v cmake|builds Unicorn, the instruction emulator
ninja-build|command -v ninja|builds Unicorn
patch|command -v patch|applies our series to Unicorn
pkg-config|command -v pkg-config|finds libraries
python3|command -v python3|initramfs builder, tests
python3-pip|python3 -m pip --version|fetches the pinned source of Unicorn
liburcu-dev|pkg-config --exists liburcu-memb|lock-free page tables
liblz4-dev|pkg-config --exists liblz4|kernel images
libzstd-dev|pkg-config --exists libzstd|kernel images
zlib1g-dev|pkg-config --exists zlib|kernel images
liblzma-dev|pkg-config --exists liblzma|kernel images
libjansson-dev|pkg-config --exists jansson|control socket
liburing-dev|pkg-config --exists liburing|disks
libnbd-dev|pkg-config --exists libnbd|disks that are not raw files
libslirp-dev|test -e /usr/include/slirp/libslirp.h|network without privileges
libgnutls28-dev|pkg-config --exists gnutls|migration over TLS
libglib2.0-dev|pkg-config --exists glib-2.0|libslirp is built on it'
rows_run='
busybox-static|static busybox|the guest of make run and of the tests
debian-archive-keyring|test -e /usr/share/keyrings/debian-archive-keyring.gpg|checks the kernel packages'
rows_test='
git|command -v git|make lint looks at what git knows
gcc-multilib|multilib|32-bit guest programs
qemu-system-x86|command -v qemu-system-x86_64|the peer of make bench
qemu-system-arm|command -v qemu-system-aarch64|walks our tables for arm64
qemu-system-misc|command -v qemu-system-riscv64|walks our tables for RISC-V
bochs|command -v bochs|walks our tables for EPT
gcc-aarch64-linux-gnu|command -v aarch64-linux-gnu-gcc|the MMU core for arm64
libc6-dev-arm64-cross|test -e /usr/aarch64-linux-gnu/lib/libc.a|the MMU core for arm64
gcc-riscv64-linux-gnu|command -v riscv64-linux-gnu-gcc|links the MMU core for RISC-V
libc6-dev-riscv64-cross|test -e /usr/riscv64-linux-gnu/lib/libc.a|the MMU core for RISC-V
qemu-user-static|command -v qemu-aarch64-static|runs the tests of both
lld|command -v ld.lld|links the programs for these
qemu-utils|command -v qemu-nbd|disks that are not raw files
acpica-tools|command -v iasl|checks our ACPI tables
stress-ng|command -v stress-ng|runs inside test guests
e2fsprogs|PATH=$PATH:/sbin command -v mke2fs|runs inside test guests
xfsprogs|PATH=$PATH:/sbin command -v mkfs.xfs|runs inside test guests
clang|command -v clang|second compiler, fuzzing
clang-format|command -v clang-format|make lint
clang-tidy|command -v clang-tidy|make lint
cppcheck|command -v cppcheck|make lint
xz-utils|command -v xz|kernel payloads in tests
zstd|command -v zstd|kernel payloads in tests
lz4|command -v lz4|kernel payloads in tests
passt|command -v passt|network tests
mmdebstrap|command -v mmdebstrap|Debian on a disk image
e2fsprogs|PATH=$PATH:/sbin:/usr/sbin command -v mke2fs|Debian on a disk image
gnutls-bin|command -v certtool|keys and certificates of tests
openssh-client|command -v ssh|logs in there'
rows_user='
fakeroot|command -v fakeroot|Debian on a disk image, without root
fakechroot|command -v fakechroot|Debian on a disk image, without root'

# A busybox that needs no library: the dynamic one would not run in an initramfs.
static() {
	f=$(command -v "$1") && ! ldd "$f" >/dev/null 2>&1
}
multilib() {
	echo 'int main(void) { return 0; }' | gcc -m32 -x c -c -o /dev/null - 2>/dev/null &&
		test -n "$(gcc -m32 -print-file-name=libgcc.a | grep /)"
}

case $group in
build) rows=$rows_build ;;
run) rows=$rows_build$rows_run ;;
test | all) rows=$rows_build$rows_run$rows_test ;;
*)
	echo "usage: deps.sh build|run|test|all" >&2
	exit 2
	;;
esac

[ "$(id -u)" -eq 0 ] || case $group in test | all) rows=$rows$rows_user ;; esac

list=$(mktemp)
trap 'rm -f "$list"' EXIT
printf '%s\n' "$rows" | while IFS='|' read -r package probe why; do
	[ -n "$package" ] || continue
	eval "$probe" >/dev/null 2>&1 || echo "$package $why" >>"$list"
done
[ -s "$list" ] || exit 0

echo "missing on this machine:"
while read -r package why; do
	printf '  %-24s %s\n' "$package" "$why"
done <"$list"
packages=$(cut -d' ' -f1 "$list" | tr '\n' ' ')
install="apt-get install -y --no-install-recommends $packages"

if ! command -v apt-get >/dev/null; then
	echo "deps.sh: no apt-get here: install these by the names that your distribution gives them" >&2
	exit 1
fi
if [ -n "${DEPS_DRY-}" ] || [ "$(id -u)" -ne 0 ]; then
	echo "to install them:"
	echo "  sudo $install"
	[ -n "${DEPS_DRY-}" ] && exit 0
	exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive $install
