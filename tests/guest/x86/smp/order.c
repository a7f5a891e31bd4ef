/* Memory order: SDM vol. 3A 9.1, 9.2; time. */
#include "smp.h"

/* ---- memory order: SDM vol. 3A 9.2
 * ------------------------------------------------------------------- */

/*
 * Litmus tests in batches: both processors run through an array of independent cells without
 * meeting each other in between, so that they overlap in all ways also where processors are slow
 * threads; what each read is judged afterwards.
 */
#define CELLS 256

static struct cell {
	u64 x, pad0[7], y, pad1[7];
} cells[CELLS] __attribute__((aligned(64)));
static u64 result[2][CELLS];
static volatile u32 round_no, done_count;

enum litmus { SB_MFENCE, SB_LOCKED, SB_XCHG, MP, LB };

static void litmus_cell(enum litmus kind, u32 me, u32 i)
{
	u64 *mine = me ? &cells[i].y : &cells[i].x, *other = me ? &cells[i].x : &cells[i].y;
	u64 r = 0, r2 = 0;

	switch (kind) {
	case SB_MFENCE:
		asm volatile("movq $1, %1; mfence; movq %2, %0"
			     : "=r"(r), "=m"(*mine)
			     : "m"(*other)
			     : "memory");
		break;
	case SB_LOCKED:
		asm volatile("movq $1, %1; lock addl $0, (%%rsp); movq %2, %0"
			     : "=r"(r), "=m"(*mine)
			     : "m"(*other)
			     : "memory", "cc");
		break;
	case SB_XCHG:
		r = 1;
		asm volatile("xchgq %0, %1; movq %2, %0"
			     : "+r"(r), "+m"(*mine)
			     : "m"(*other)
			     : "memory");
		break;
	case MP: /* 9.2.3.2: stores of one are seen in order */
		if (me == 0) {
			asm volatile("movq $1, %0; movq $1, %1"
				     : "=m"(cells[i].x), "=m"(cells[i].y)::"memory");
		} else {
			asm volatile("movq %2, %0; movq %3, %1"
				     : "=&r"(r), "=&r"(r2)
				     : "m"(cells[i].y), "m"(cells[i].x)
				     : "memory");
			r |= r2 << 1; /* y without x is forbidden */
		}
		break;
	case LB: /* 9.2.3.3: no store before an older load */
		asm volatile("movq %2, %0; movq $1, %1"
			     : "=&r"(r), "=m"(*mine)
			     : "m"(*other)
			     : "memory");
		break;
	}
	result[me][i] = r;
}

static bool is_forbidden(enum litmus kind, u64 a, u64 b)
{
	switch (kind) {
	case MP: return b == 1;
	case LB: return a && b;
	default: return !a && !b;
	}
}

static void litmus_worker(void *arg)
{
	enum litmus kind = (enum litmus)(u64)arg;
	u32 last = 0;

	while (last < rounds) {
		while (round_no == last)
			cpu_relax();
		last = round_no;
		for (u32 i = 0; i < CELLS; i++)
			litmus_cell(kind, 1, i);
		__atomic_store_n(&done_count, last, __ATOMIC_SEQ_CST);
	}
}

static void test_litmus(void)
{
	static const char *const names[] = {
		"smp: store buffering with MFENCE",
		"smp: store buffering with a locked instruction",
		"smp: store buffering with XCHG",
		"smp: message passing",
		"smp: load buffering",
	};

	for (u32 k = SB_MFENCE; k <= LB; k++) {
		u32 forbidden = 0;

		test_begin(names[k]);
		round_no = done_count = 0;
		smp_run(1, litmus_worker, (void *)(u64)k);
		for (u32 n = 1; n <= rounds; n++) {
			memset(cells, 0, sizeof(cells));
			__atomic_store_n(&round_no, n, __ATOMIC_SEQ_CST);
			for (u32 i = 0; i < CELLS; i++)
				litmus_cell((enum litmus)k, 0, i);
			while (done_count != n)
				cpu_relax();
			for (u32 i = 0; i < CELLS; i++)
				forbidden +=
					is_forbidden((enum litmus)k, result[0][i], result[1][i]);
		}
		smp_wait(1);
		expect("forbidden outcomes", 0, forbidden);
		test_end();
	}
}

/* A stream of numbered records: whoever sees the number sees the record (9.2.3.2), with nothing but
 * plain moves. */
static volatile u64 ring[256][8];
static volatile u64 head;

static void consumer(void *arg)
{
	u32 me = this_cpu()->index;
	u64 at = 0, last = (u64)rounds * 50;

	(void)arg;
	while (at < last) {
		u64 h = head;

		for (; at < h; at++) {
			volatile u64 *r = ring[at & 255];

			/* The producer stays 128 ahead at most: an overwritten record cannot be
			 * older. */
			if (r[0] < at || r[7] < at)
				lost[me]++;
		}
		counters[me] = (u32)at;
		cpu_relax();
	}
}

static void test_stream(void)
{
	test_begin("smp: stream of records by plain stores");
	head = 0;
	for (u32 i = 1; i < cpu_count; i++) {
		lost[i] = 0;
		counters[i] = 0;
		smp_run(i, consumer, NULL);
	}
	for (u64 n = 0; n < (u64)rounds * 50; n++) {
		for (u32 i = 1; i < cpu_count; i++)
			while (counters[i] + 128 < n)
				cpu_relax();
		ring[n & 255][7] = n;
		ring[n & 255][0] = n;
		asm volatile("" ::: "memory");
		head = n + 1;
	}
	for (u32 i = 1; i < cpu_count; i++) {
		smp_wait(i);
		expect("records seen too early", 0, lost[i]);
	}
	test_end();
}

/* Aligned quadwords are written and read whole (9.1.1). */
void tear_reader(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	while (!leave_idle) {
		u64 v = *target;

		lost[me] += (u32)v != (u32)(v >> 32);
		counters[me]++;
	}
}

static void test_tearing(void)
{
	test_begin("smp: aligned 8-byte accesses are never torn");
	target = (volatile u64 *)(arena + 256);
	*target = 0;
	leave_idle = false;
	for (u32 i = 1; i < cpu_count; i++) {
		lost[i] = counters[i] = 0;
		smp_run(i, tear_reader, NULL);
	}
	for (u64 n = 0; n < (u64)rounds * 500; n++)
		*target = n << 32 | (u32)n;
	for (u32 i = 1; i < cpu_count; i++)
		while (!counters[i])
			cpu_relax();
	leave_idle = true;
	for (u32 i = 1; i < cpu_count; i++) {
		smp_wait(i);
		expect("torn values", 0, lost[i]);
	}
	test_end();
}

/* ---- time
 * --------------------------------------------------------------------------------------------- */

static volatile u64 last_tsc;

/* Each reads the TSC under a lock: never less than what any other has read before (with invariant
 * TSC). */
static void tsc_worker(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	barrier();
	for (u32 i = 0; i < rounds * 20; i++) {
		u64 t;

		while (__atomic_exchange_n((u32 *)target, 1, __ATOMIC_SEQ_CST))
			cpu_relax();
		t = rdtsc();
		if (t < last_tsc)
			lost[me]++;
		last_tsc = t;
		__atomic_store_n((u32 *)target, 0, __ATOMIC_SEQ_CST);
	}
}

static void test_tsc(void)
{
	test_begin("smp: the TSC never runs backwards between processors");
	target = (volatile u64 *)(arena + 320);
	*target = 0;
	last_tsc = 0;
	for (u32 i = 0; i < cpu_count; i++)
		lost[i] = 0;
	smp_run_all(tsc_worker, NULL);
	for (u32 i = 0; i < cpu_count; i++)
		expect("backward steps", 0, lost[i]);
	test_end();
}

void test_order(void)
{
	test_litmus();
	test_stream();
	test_tearing();
	test_tsc();
}
