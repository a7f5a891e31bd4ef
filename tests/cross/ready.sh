#!/bin/sh
# Can libmmu be built and tried here for another architecture? ready.sh aarch64-linux-gnu|riscv64-linux-gnu
# Fetches what it needs and ends with 0, or says in one line what is missing.
set -eu
triple=$1
for tool in "$triple-gcc" clang "qemu-${triple%%-*}-static"; do
	[ "$tool" = clang ] && [ "${triple%%-*}" != riscv64 ] && continue # gcc builds for arm64
	command -v "$tool" >/dev/null || { echo "no $tool here (.ci/deps.sh test)" && exit 1; }
done
log=$("$(dirname "$0")/urcu.sh" "$triple" 2>&1) || {
	echo "${log:-no liburcu}" | tail -n 1
	exit 1
}
