#!/bin/sh
# stress-ng with verification, each stressor for a few seconds: stressng.sh SECONDS [STRESSOR]...
seconds=$1
shift
[ $# -gt 0 ] || set -- cpu matrix vm mmap mremap fork vfork clone pthread mutex futex sem switch pipe \
	sockpair sigfpe sigsegv sigq timer clock memcpy memrate qsort hsearch str atomic lockbus \
	membarrier mprotect madvise fault stackmmap zero
bad=0
for name; do
	if stress-ng --$name "$(nproc)" --timeout "$seconds" --verify --temp-path /tmp --vm-bytes 32M \
		--no-rand-seed >/tmp/log 2>&1; then
		echo "stressng: $name ok"
	elif [ $? = 4 ]; then
		echo "stressng: $name not implemented here"
	else
		echo "stressng: $name FAILED"
		cat /tmp/log
		bad=1
	fi
done
exit $bad
