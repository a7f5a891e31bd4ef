#!/bin/sh
# First process of a guest whose root file system is on a disk: loads the drivers of the disk, mounts it
# (root=DEVICE, rootfstype=TYPE, ro or rw) and makes it the root.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for m in /modules/*.ko; do
	insmod "$m"
done

root= type=ext4 mode=ro
for word in $(cat /proc/cmdline); do
	case $word in
	root=*) root=${word#*=} ;;
	rootfstype=*) type=${word#*=} ;;
	ro | rw) mode=$word ;;
	esac
done

left=300
until [ -b "$root" ]; do
	left=$((left - 1))
	[ $left -gt 0 ] || { echo "ferry: there is no disk $root" && exit 1; }
	usleep 100000
done
mkdir /disk
mount -t "$type" -o "$mode" "$root" /disk || { echo "ferry: cannot mount $root" && exit 1; }
for d in dev proc sys; do
	mount --move /$d /disk/$d
done
exec switch_root /disk /sbin/init
