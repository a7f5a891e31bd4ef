#!/bin/sh
# First process of our guests. By the kernel's command line:
#   ferry.test=NAME       runs /tests/NAME (or a busybox applet), prints "ferry: result NAME CODE", powers off
#   ferry.args=A,B        its arguments
#   ferry.end=poweroff|reboot|halt   how it ends (default: poweroff)
#   (none of them)        a shell with job control on the console
echo "ferry: init"
export PATH=/bin:/tests HOME=/root TERM=${TERM:-linux}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
for m in /modules/*.ko; do
	[ -e "$m" ] && insmod "$m"
done

test= args= end=poweroff
for word in $(cat /proc/cmdline); do
	case $word in
	ferry.test=*) test=${word#*=} ;;
	ferry.args=*) args=$(echo "${word#*=}" | tr , ' ') ;;
	ferry.end=*) end=${word#*=} ;;
	esac
done

if [ -n "$test" ]; then
	cd /tmp || exit
	$test $args </dev/null
	echo "ferry: result $test $?"
	$end -f
fi

# There is no init to be told: these act at once. (Functions, because this shell prefers its own applets to
# the path.)
for name in poweroff reboot halt; do
	echo "$name() { sync; busybox $name -f \"\$@\"; }"
done >/etc/shrc
export ENV=/etc/shrc
hostname ferry
echo "This is a guest of ferry: Linux $(uname -r), $(nproc) CPU(s). poweroff ends it."
cd /root || exit
while :; do
	setsid cttyhack sh
done
