#!/bin/sh
# A disk at work: disk.sh COMMAND [ARGUMENT]...; prints what the host compares, fails when something is wrong.
fail() {
	echo "disk.sh: $*"
	exit 1
}

# Files of several sizes on a new file system, read again after it was mounted anew. $1: ext4 or xfs; $2: MiB
filesystem() {
	mkdir -p /disk
	case $1 in
	ext4) /usr/mke2fs -q -F -t ext4 /dev/vda || fail mke2fs ;;
	xfs) /usr/mkfs.xfs -q -f /dev/vda || fail mkfs.xfs ;;
	esac
	mount -t "$1" /dev/vda /disk || fail mount
	dd if=/dev/urandom of=/disk/large bs=64k count=$(($2 * 16)) 2>/dev/null || fail write
	for n in $(seq 200); do
		head -c $((n * 37)) /disk/large >/disk/small$n || fail "write small"
	done
	rm /disk/small1??
	(cd /disk && sha256sum large small* >/tmp/sums) || fail sums
	umount /disk || fail umount
	echo 3 >/proc/sys/vm/drop_caches
	mount -t "$1" /dev/vda /disk || fail "mount again"
	(cd /disk && sha256sum -c -s /tmp/sums) || fail "files have changed"
	rm /disk/small?
	umount /disk || fail umount
	case $1 in
	ext4) /usr/e2fsck -f -n /dev/vda || fail e2fsck ;;
	xfs) /usr/xfs_repair -n /dev/vda >/tmp/repair 2>&1 || fail "xfs_repair: $(cat /tmp/repair)" ;;
	esac
	echo "image $(sha256sum </dev/vda)"
}

case $1 in
filesystem) filesystem "$2" "$3" ;;
info)
	q=/sys/block/vda/queue
	echo "disks $(cd /sys/block && echo vd?)"
	echo "size $(cat /sys/block/vda/size) ro $(cat /sys/block/vda/ro) serial $(cat /sys/block/vda/serial)"
	echo "logical $(cat $q/logical_block_size) physical $(cat $q/physical_block_size) cache $(cat $q/write_cache)"
	echo "discard $(cat $q/discard_max_bytes) zeroes $(cat $q/write_zeroes_max_bytes) queues $(ls /sys/block/vda/mq | wc -l)"
	echo "image $(sha256sum </dev/vda)"
	;;
write-refused) # a disk that may only be read
	dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync 2>&1 && fail "it was written to"
	blockdev --setrw /dev/vda
	dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct 2>&1 && fail "it was written to"
	exit 0
	;;
fill) # every MiB until an error, each on the disk before the next
	n=0
	while dd if=/dev/urandom of=/dev/vda bs=1M count=1 seek=$n conv=notrunc oflag=direct 2>/tmp/error; do
		n=$((n + 1))
		[ $n = "$2" ] && break
	done
	echo "written $n: $(head -n 1 /tmp/error)"
	;;
reads) # what can be read of it, MiB by MiB
	n=0 good=0
	while [ $n -lt "$2" ]; do
		dd if=/dev/vda of=/dev/null bs=1M count=1 skip=$n iflag=direct 2>/dev/null && good=$((good + 1))
		n=$((n + 1))
	done
	echo "readable $good"
	;;
discard)
	mkdir -p /disk
	/usr/mke2fs -q -F -t ext4 /dev/vda && mount -t ext4 /dev/vda /disk || fail mount
	dd if=/dev/urandom of=/disk/large bs=1M count="$2" 2>/dev/null && sync || fail write
	echo full
	read -r _ </dev/ttyS0
	rm /disk/large && sync && fstrim /disk || fail fstrim
	umount /disk
	echo trimmed
	;;
*) fail "what is $1?" ;;
esac
