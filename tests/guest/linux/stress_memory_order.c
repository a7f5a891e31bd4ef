/*
 * Memory ordering of x86 (SDM vol. 3A, 8.2.3): litmus tests. Each is run many times on two (or
 * four) processors that start together; what the manual forbids must never be seen. Clocks: what
 * one processor read, another never undercuts later.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "stress.h"

enum { BATCH = 512, STRIDE = 16 };

/* Places far from each other, one per try. */
static volatile uint32_t x[BATCH * STRIDE], y[BATCH * STRIDE];
static uint32_t seen[4][2][BATCH];
static struct meeting litmus_meeting;
static volatile bool litmus_stop;
static unsigned long weak; /* the reordering that x86 allows, seen for real */

#define MFENCE	asm volatile("mfence" : : : "memory")
#define LOCKED	asm volatile("lock addl $0, (%%rsp)" : : : "memory", "cc")
#define NOTHING asm volatile("" : : : "memory")

enum test { SB, SB_FENCE, SB_LOCKED, SB_XCHG, MP, LB, CORR, IRIW, TESTS };
static const char *const names[TESTS] = {"store buffering",	      "store buffering with mfence",
					 "store buffering with lock", "store buffering with xchg",
					 "message passing",	      "load buffering",
					 "coherence of one place",    "independent reads"};

static void one_side(enum test test, unsigned side)
{
	volatile uint32_t *mine = side ? y : x, *other = side ? x : y;

	for (unsigned i = 0; i < BATCH; i++) {
		unsigned p = i * STRIDE;
		uint32_t a = 0, b = 0;

		switch (test) {
		case SB:
			mine[p] = 1;
			NOTHING;
			a = other[p];
			break;
		case SB_FENCE:
			mine[p] = 1;
			MFENCE;
			a = other[p];
			break;
		case SB_LOCKED:
			mine[p] = 1;
			LOCKED;
			a = other[p];
			break;
		case SB_XCHG:
			a = 1;
			asm volatile("xchg %0, %1" : "+r"(a), "+m"(mine[p]) : : "memory");
			a = other[p];
			break;
		case MP:
			if (side == 0) {
				x[p] = 1;
				NOTHING;
				y[p] = 1;
			} else {
				a = y[p];
				NOTHING;
				b = x[p];
			}
			break;
		case LB:
			a = other[p];
			NOTHING;
			mine[p] = 1;
			break;
		case CORR:
			if (side == 0) {
				x[p] = 1;
				NOTHING;
				x[p] = 2;
			} else {
				a = x[p];
				NOTHING;
				b = x[p];
			}
			break;
		case IRIW:
			if (side < 2) {
				(side ? y : x)[p] = 1;
			} else {
				a = (side == 2 ? x : y)[p];
				NOTHING;
				b = (side == 2 ? y : x)[p];
			}
			break;
		case TESTS: break;
		}
		seen[side][0][i] = a;
		seen[side][1][i] = b;
	}
}

static void judge(struct run *r, enum test test)
{
	for (unsigned i = 0; i < BATCH; i++) {
		uint32_t a0 = seen[0][0][i], a1 = seen[1][0][i], b1 = seen[1][1][i];
		bool bad = false;

		switch (test) {
		case SB: weak += a0 == 0 && a1 == 0; break;
		case SB_FENCE:
		case SB_LOCKED:
		case SB_XCHG: bad = a0 == 0 && a1 == 0; break;
		case MP: bad = a1 == 1 && b1 == 0; break;
		case LB: bad = a0 == 1 && a1 == 1; break;
		case CORR: bad = a1 > b1; break;
		case IRIW:
			bad = seen[2][0][i] == 1 && seen[2][1][i] == 0 && seen[3][0][i] == 1 &&
			      seen[3][1][i] == 0;
			break;
		case TESTS: break;
		}
		if (bad)
			wrong(r, "%s: a forbidden outcome", names[test]);
	}
	checked(r, BATCH);
}

static void litmus_worker(struct run *r, unsigned index, void *arg)
{
	enum test tests = litmus_meeting.n < 4 ? IRIW : TESTS;

	(void)arg;
	for (unsigned round = 0;; round++) {
		enum test test = round % tests;

		if (index == 0) {
			litmus_stop = !going(r);
			memset((void *)x, 0, sizeof(x));
			memset((void *)y, 0, sizeof(y));
			memset(seen, 0, sizeof(seen));
		}
		meet(&litmus_meeting);
		if (litmus_stop)
			return;
		if (index < 2 || test == IRIW)
			one_side(test, index);
		meet(&litmus_meeting);
		if (index == 0)
			judge(r, test);
	}
}

void stress_litmus(struct run *r)
{
	weak = 0;
	litmus_meeting = (struct meeting){.n = r->threads < 4 ? 2 : 4};
	in_parallel(r, litmus_meeting.n, litmus_worker, NULL);
	printf("litmus: store buffering, which is allowed, was seen %lu times\n", weak);
}

static _Atomic uint64_t latest[3];

static uint64_t clock_value(unsigned which)
{
	uint32_t low, high, aux;
	struct timespec t;

	if (which == 2) {
		/* rdtscp waits for earlier loads; the fences keep it between the two accesses to
		 * latest[]. */
		asm volatile("mfence\n\tlfence\n\trdtsc\n\tlfence"
			     : "=a"(low), "=d"(high), "=c"(aux)
			     :
			     : "memory");
		return (uint64_t)high << 32 | low;
	}
	clock_gettime(which ? CLOCK_MONOTONIC_RAW : CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void clock_worker(struct run *r, unsigned index, void *arg)
{
	static const char *const clocks[] = {"CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "TSC"};

	(void)arg;
	for (unsigned n = 0; going(r); n++) {
		for (unsigned which = 0; which < 3; which++)
			for (unsigned i = 0; i < 100; i++) {
				uint64_t before = atomic_load(&latest[which]);
				uint64_t t = clock_value(which);

				if (t < before)
					wrong(r, "%s went back by %lu on processor %u",
					      clocks[which], before - t, index);
				while (before < t &&
				       !atomic_compare_exchange_weak(&latest[which], &before, t))
					;
			}
		checked(r, 300);
		if (n % 64 == 0)
			pin(index + n / 64); /* moves to another processor */
	}
}

void stress_clock(struct run *r)
{
	memset(latest, 0, sizeof(latest));
	in_parallel(r, r->threads, clock_worker, NULL);
}
