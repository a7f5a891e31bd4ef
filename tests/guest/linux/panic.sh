#!/bin/sh
# Crashes the guest: panic.sh port|kernel
case $1 in
port) exec pvpanic ;;
kernel)
	echo 1 >/proc/sys/kernel/sysrq
	echo c >/proc/sysrq-trigger
	;;
esac
sleep 10
