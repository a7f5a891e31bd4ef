#!/bin/sh
# Sockets between guest and host: vsock.sh all|again.
vsock listen 5000 sha256sum || exit
vsock listen 5001 cat || exit
case $1 in
all)
	vsock connect 5999 </dev/null && exit 1 # nobody is there
	# 20 MB out; the answer is what the host has got.
	head -c 20971520 /dev/urandom >data
	sha256sum <data >sum
	echo "ferry: ready"
	vsock connect 6000 <data >answer || exit 1
	cmp sum answer || exit 1
	;;
again)
	echo "ferry: ready"
	;;
esac
# Until the host is through; a connection that breaks is made again.
until vsock connect 7000 </dev/null; do
	echo "ferry: again"
	sleep 0.1
done
