#!/bin/sh
# What a healthy boot looks like from inside: bootcheck.sh CPUS. Prints what is wrong; exit code 1 then.
cpus=$1
bad=0
wrong() {
	echo "bootcheck: $*"
	bad=1
}
[ "$(nproc)" = "$cpus" ] || wrong "$(nproc) processors instead of $cpus"
dmesg >/tmp/dmesg
for pattern in 'TSC unstable' 'Marking TSC' 'tsc: Marking' 'clocksource:.*unstable' 'clocksource:.*skewed' \
	'WARNING: CPU' 'BUG:' 'Call Trace' 'Oops:' 'APIC error' 'APIC calibration' 'lockup' 'stall' \
	'nobody cared' 'spurious' 'Firmware Bug' 'ACPI.*Error' 'ACPI BIOS Error' 'unchecked MSR' \
	'inconsistent MTRR' 'do_IRQ' 'No irq handler' 'timer doesn.t work' 'hung task' 'segfault' 'general protection'; do
	grep -i -e "$pattern" /tmp/dmesg && wrong "the kernel's log says '$pattern'"
done
# Each processor takes timer interrupts of its own, and none was an error.
for n in 1 2; do
	sed -n 's/^ *LOC: *\([0-9 ]*\).*/\1/p' /proc/interrupts >/tmp/loc$n
	[ $n = 1 ] && sleep 1
done
[ "$(wc -w </tmp/loc1)" = "$cpus" ] || wrong "LOC line: $(cat /tmp/loc1)"
for count in $(cat /tmp/loc2); do
	[ "$count" -gt 0 ] || wrong "a processor without timer interrupts: $(cat /tmp/loc2)"
done
for name in ERR MIS; do
	count=$(sed -n "s/^ *$name: *\([0-9]*\).*/\1/p" /proc/interrupts)
	[ "${count:-0}" = 0 ] || wrong "$name is $count in /proc/interrupts"
done
echo "bootcheck: clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
[ $bad = 0 ] && echo "bootcheck: ok"
exit $bad
