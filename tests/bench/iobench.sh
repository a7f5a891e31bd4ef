#!/bin/sh
# The guest's side of bench_io.py: iobench.sh PORT NAME...: rows of the disk vda, then of the network.
port=$1
shift
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0 2>/dev/null && ip link set eth0 up && ip route add default via 10.0.2.2
echo "IOBENCH start"
for name in "$@"; do
	case $name in
	tcp-*) iobench net 10.0.2.2 "$port" "$name" ;;
	*) iobench disk /dev/vda "$name" ;;
	esac || exit
done
