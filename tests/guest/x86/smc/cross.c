/* Several processors. */
#include "smc.h"

/* ---- several processors
 * -------------------------------------------------------------------------- */

static u8 *shared_code;
static volatile u32 version, seen[MAX_CPUS], stale[MAX_CPUS], calls[MAX_CPUS];
static volatile bool stop;

/* 9.1.3: wait until the flag says it is there, serialise, execute. */
static void reader(void *arg)
{
	u32 me = this_cpu()->index, last = 0;

	(void)arg;
	while (!stop) {
		u32 v = version;

		if (v == last) {
			cpu_relax();
			continue;
		}
		serialise();
		stale[me] += call(shared_code + 64) != v;
		calls[me]++;
		last = v;
		__atomic_store_n(&seen[me], v, __ATOMIC_SEQ_CST);
	}
}

static void test_cross_handshake(u32 rounds)
{
	u32 bad = 0;

	test_begin("smc: another processor rewrites, with handshake");
	version = 0;
	stop = false;
	put_return(shared_code + 64, 0);
	for (u32 i = 1; i < cpu_count; i++) {
		seen[i] = stale[i] = calls[i] = 0;
		smp_run(i, reader, NULL);
	}
	for (u32 v = 1; v <= rounds; v++) {
		put_return(shared_code + 64, v);
		__atomic_store_n(&version, v, __ATOMIC_SEQ_CST);
		for (u32 i = 1; i < cpu_count; i++)
			while (seen[i] != v)
				cpu_relax();
	}
	stop = true;
	for (u32 i = 1; i < cpu_count; i++) {
		smp_wait(i);
		expect("stale calls", 0, stale[i]);
		expect("calls", rounds, calls[i]);
		bad += stale[i];
	}
	test_end();
}

/*
 * Without stopping the readers: an aligned 8-byte store replaces one whole instruction by another,
 * which is atomic; a reader sees either, and the new one for ever after it has serialised behind
 * the flag.
 */
static void running_reader(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	while (!stop) {
		u32 before = version, r;

		serialise();
		r = call(shared_code + 64);
		/* never older than what was published before the call, never from the future */
		stale[me] += r < before || r > __atomic_load_n(&version, __ATOMIC_SEQ_CST) + 1;
		calls[me]++;
	}
}

static void test_cross_running(u32 rounds)
{
	test_begin("smc: another processor rewrites while all execute");
	version = 0;
	stop = false;
	put_return(shared_code + 64, 0);
	for (u32 i = 1; i < cpu_count; i++) {
		stale[i] = calls[i] = 0;
		smp_run(i, running_reader, NULL);
	}
	for (u32 v = 1; v <= rounds; v++) {
		u64 insn = 0xb8 | (u64)v << 8 | 0xc3ull << 40;

		__atomic_store_n((u64 *)(shared_code + 64), insn, __ATOMIC_SEQ_CST);
		__atomic_store_n(&version, v, __ATOMIC_SEQ_CST);
		if (call(shared_code + 64) != v)
			stale[0]++;
	}
	/* Readers that were not scheduled yet must run too. */
	for (u32 i = 1; i < cpu_count; i++)
		while (calls[i] < 100)
			cpu_relax();
	stop = true;
	for (u32 i = 1; i < cpu_count; i++) {
		smp_wait(i);
		expect("stale calls", 0, stale[i]);
	}
	expect("stale calls of the writer", 0, stale[0]);
	stale[0] = 0;
	test_end();
}

/* INT3 first, then the tail, then the first byte: how Linux patches its text (text_poke_bp). */
static volatile u32 hits[MAX_CPUS];
static u64 waiting_since[MAX_CPUS];

static void on_int3(struct frame *f)
{
	u32 me = this_cpu()->index;
	u64 now = rdtsc();

	/* RIP is behind the INT3: retry until the first byte is back. Should it not come within 20
	 * s (a stale INT3 is executed for ever), let the reader go on and count it as stale. */
	hits[me]++;
	if (!waiting_since[me])
		waiting_since[me] = now;
	if (now - waiting_since[me] > 20 * tsc_hz()) {
		f->gpr[RAX] = 0;
		f->rip += 4; /* the RET */
	} else {
		f->rip -= 1;
	}
}

static void sync_core(struct frame *f)
{
	(void)f;
	serialise();
	__atomic_add_fetch(&seen[0], 1, __ATOMIC_SEQ_CST);
	lapic_eoi();
}

static void patched_reader(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	irq_enable();
	while (!stop) {
		u32 low = version, r = call(shared_code + 66);

		waiting_since[me] = 0;
		/* Nor older than what was complete before the call. */
		stale[me] += (r & 0xffff) < low;
		/* Only whole versions, each with its complement in the halves. */
		stale[me] += (u16)r != (u16) ~(r >> 16);
		calls[me]++;
	}
	irq_disable();
}

static void sync_all(void)
{
	seen[0] = 0;
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_OTHERS | 0x50);
	while (seen[0] != cpu_count - 1)
		cpu_relax();
}

static void test_cross_int3(u32 rounds)
{
	u8 *at = shared_code + 66;
	u32 bad = 0;

	test_begin("smc: patching by INT3 under running processors");
	irq_handler(BP, on_int3);
	irq_handler(0x50, sync_core);
	put_return(at, 0xffff0000);
	version = 0;
	stop = false;
	for (u32 i = 1; i < cpu_count; i++) {
		stale[i] = calls[i] = hits[i] = 0;
		smp_run(i, patched_reader, NULL);
		while (!calls[i])
			cpu_relax();
	}
	for (u32 v = 1; v <= rounds; v++) {
		u32 value = (v & 0xffff) | ~v << 16;

		*(volatile u8 *)at = 0xcc;
		sync_all();
		memcpy(at + 1, &value, 4);
		sync_all();
		*(volatile u8 *)at = 0xb8;
		sync_all();
		__atomic_store_n(&version, v, __ATOMIC_SEQ_CST);
		bad += call(at) != value;
	}
	stop = true;
	for (u32 i = 1; i < cpu_count; i++) {
		smp_wait(i);
		expect("torn or stale calls", 0, stale[i]);
	}
	expect("stale calls of the writer", 0, bad);
	irq_handler(BP, NULL);
	irq_handler(0x50, NULL);
	test_end();
}

/* All compile into and run from one buffer of their own each, in pages that they share. */
static volatile u32 jit_bad[MAX_CPUS];

static void jit_worker(void *arg)
{
	u32 me = this_cpu()->index;
	u8 *at = shared_code + PAGE_SIZE + me * 256;

	(void)arg;
	for (u32 i = 0; i < 400; i++) {
		u32 want = jit_compile(at, i * 77 + me);

		serialise();
		for (u32 k = 0; k < 4; k++)
			jit_bad[me] += call(at) != want;
	}
}

static void test_shared_jit(void)
{
	test_begin("smc: code generators of all processors in one page");
	for (u32 i = 0; i < MAX_CPUS; i++)
		jit_bad[i] = 0;
	smp_run_all(jit_worker, NULL);
	for (u32 i = 0; i < cpu_count; i++)
		expect("wrong results", 0, jit_bad[i]);
	test_end();
}

void test_cross(u32 rounds)
{
	shared_code = alloc_pages(2);
	test_cross_handshake(rounds);
	test_cross_int3(rounds / 4);
	test_shared_jit();
	/* Last: what goes wrong here may stay wrong. */
	test_cross_running(rounds);
}
