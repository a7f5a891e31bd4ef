/*
 * Several processors: start, interrupts between them, atomic instructions, TLB shootdown, memory
 * order, time (SDM vol. 3A chapters 9 and 11). "cpus=N" on the command line says how many there
 * must be; "rounds=" scales the loops.
 */
#include "guest.h"

static u32 rounds;
static volatile u32 counters[MAX_CPUS];

/* A barrier of all processors. */
static volatile u32 arrived, generation;

static void barrier(void)
{
	u32 g = generation;

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == cpu_count) {
		arrived = 0;
		__atomic_store_n(&generation, g + 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (generation == g)
		cpu_relax();
}

/* ---- start
 * ---------------------------------------------------------------------------------------- */

static void test_start(void)
{
	test_begin("smp: all processors start, with their own APIC ids");
	for (u32 i = 0; i < cpu_count; i++) {
		struct cpu *c = cpu_get(i);

		expect("online", true, c->online);
		expect("index", i, c->index);
		for (u32 k = 0; k < i; k++)
			expect("APIC id seen twice", false, c->apic_id == cpu_get(k)->apic_id);
	}
	test_end();
}

static struct cpuid leaf1[MAX_CPUS], leaf7[MAX_CPUS], leafb[MAX_CPUS];
static u64 apic_base[MAX_CPUS], cr0_seen[MAX_CPUS];

static void read_identity(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	leaf1[me] = cpuid(1, 0);
	leaf7[me] = cpuid(7, 0);
	leafb[me] = cpuid(0xb, 0);
	apic_base[me] = rdmsr(MSR_APIC_BASE);
	cr0_seen[me] = read_cr0();
}

static void test_identity(void)
{
	smp_run_all(read_identity, NULL);
	test_begin("smp: CPUID and APIC base agree with the processor they are read on");
	for (u32 i = 0; i < cpu_count; i++) {
		expect("initial APIC id", cpu_get(i)->apic_id, leaf1[i].b >> 24);
		expect("features ECX", leaf1[0].c, leaf1[i].c);
		expect("features EDX", leaf1[0].d, leaf1[i].d);
		expect("leaf 7 EBX", leaf7[0].b, leaf7[i].b);
		if (cpuid(0, 0).a >= 0xb)
			expect("x2APIC id of leaf 0Bh", cpu_get(i)->apic_id, leafb[i].d);
		expect("BSP flag", i == 0, !!(apic_base[i] & BIT(8)));
		expect("APIC enabled", true, !!(apic_base[i] & BIT(11)));
		expect("APIC address", LAPIC_BASE, apic_base[i] & 0xffffff000);
	}
	test_end();
}

/* ---- interrupts
 * -------------------------------------------------------------------------------------- */

static volatile u32 ipis[MAX_CPUS];

static void on_ipi(struct frame *f)
{
	(void)f;
	__atomic_add_fetch(&ipis[this_cpu()->index], 1, __ATOMIC_SEQ_CST);
	lapic_eoi();
}

static volatile bool leave_idle;

static void spin_enabled(void *arg)
{
	(void)arg;
	irq_enable();
	while (!leave_idle)
		cpu_relax();
	irq_disable();
}

static void halt_enabled(void *arg)
{
	(void)arg;
	while (!leave_idle)
		asm volatile("sti; hlt; cli" ::: "memory");
}

static void expect_ipi(u32 target, u32 n)
{
	expect("interrupt arrived", true, wait_for(&ipis[target], n, 5000000));
}

static void test_ipi_with(void (*idle)(void *), const char *name)
{
	u32 few = rounds / 4 + 1;

	test_begin(name);
	irq_handler(0x41, on_ipi);
	leave_idle = false;
	for (u32 i = 0; i < cpu_count; i++)
		ipis[i] = 0;
	for (u32 i = 1; i < cpu_count; i++)
		smp_run(i, idle, NULL);
	for (u32 n = 1; n <= few; n++) {
		for (u32 i = 1; i < cpu_count; i++) {
			lapic_ipi(cpu_get(i)->apic_id, ICR_FIXED | ICR_ASSERT | 0x41);
			expect_ipi(i, n);
		}
	}
	for (u32 i = 1; i < cpu_count; i++)
		expect("exactly one each", few, ipis[i]);
	/* Shorthands. */
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_OTHERS | 0x41);
	for (u32 i = 1; i < cpu_count; i++)
		expect_ipi(i, few + 1);
	expect("not to itself", 0, ipis[0]);
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_SELF | 0x41);
	irq_enable();
	expect_ipi(0, 1);
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_ALL | 0x41);
	expect_ipi(0, 2);
	irq_disable();
	for (u32 i = 1; i < cpu_count; i++)
		expect_ipi(i, few + 2);
	leave_idle = true;
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_OTHERS | 0x41);
	for (u32 i = 1; i < cpu_count; i++)
		smp_wait(i);
	irq_handler(0x41, NULL);
	test_end();
}

static void set_logical(void *arg)
{
	(void)arg;
	lapic_write(LAPIC_DFR, 0xffffffff);
	lapic_write(LAPIC_LDR, 1u << (24 + this_cpu()->index));
}

static void on_late_ipi(struct frame *f)
{
	(void)f;
	lapic_eoi();
}

static void test_logical(void)
{
	test_begin("smp: logical destinations, flat model");
	/* A wake-up of the tests before may still be on its way: not counted, and another vector
	 * here. */
	irq_handler(0x41, on_late_ipi);
	irq_handler(0x42, on_ipi);
	smp_run_all(set_logical, NULL);
	leave_idle = false;
	for (u32 i = 0; i < cpu_count; i++)
		ipis[i] = 0;
	for (u32 i = 1; i < cpu_count; i++)
		smp_run(i, spin_enabled, NULL);
	irq_enable();
	for (u32 mask = 1; mask < 1u << cpu_count; mask++) {
		u32 before[MAX_CPUS];

		for (u32 i = 0; i < cpu_count; i++)
			before[i] = ipis[i];
		lapic_ipi(mask, ICR_FIXED | ICR_ASSERT | BIT(11) | 0x42);
		for (u32 i = 0; i < cpu_count; i++)
			if (mask >> i & 1)
				expect_ipi(i, before[i] + 1);
		for (u32 i = 0; i < cpu_count; i++)
			expect("only those addressed", before[i] + (mask >> i & 1), ipis[i]);
	}
	leave_idle = true;
	irq_disable();
	for (u32 i = 1; i < cpu_count; i++)
		smp_wait(i);
	irq_handler(0x41, NULL);
	irq_handler(0x42, NULL);
	test_end();
}

static volatile u32 nmis[MAX_CPUS];

static void on_nmi(struct frame *f)
{
	(void)f;
	__atomic_add_fetch(&nmis[this_cpu()->index], 1, __ATOMIC_SEQ_CST);
}

static void spin_disabled(void *arg)
{
	(void)arg;
	while (!leave_idle)
		cpu_relax();
}

static void halt_disabled(void *arg)
{
	(void)arg;
	while (!leave_idle)
		asm volatile("cli; hlt" ::: "memory");
}

/* An NMI gets through with IF clear, and wakes HLT (vol. 2 HLT). */
static void test_nmi(void)
{
	void (*const idle[])(void *) = {spin_disabled, halt_disabled};

	irq_handler(NMI, on_nmi);
	for (u32 k = 0; k < 2; k++) {
		test_begin(k ? "smp: NMI wakes a halted processor with IF clear"
			     : "smp: NMI to a processor with IF clear");
		leave_idle = false;
		for (u32 i = 0; i < cpu_count; i++)
			nmis[i] = 0;
		for (u32 i = 1; i < cpu_count; i++)
			smp_run(i, idle[k], NULL);
		for (u32 n = 1; n <= 20; n++)
			for (u32 i = 1; i < cpu_count; i++) {
				lapic_ipi(cpu_get(i)->apic_id, ICR_NMI | ICR_ASSERT);
				expect("NMI arrived", true, wait_for(&nmis[i], n, 5000000));
			}
		leave_idle = true;
		if (k)
			lapic_ipi(0, ICR_NMI | ICR_ASSERT | ICR_OTHERS);
		for (u32 i = 1; i < cpu_count; i++)
			smp_wait(i);
		test_end();
	}
	irq_handler(NMI, NULL);
}

/* ---- atomics
 * ----------------------------------------------------------------------------------------- */

static u8 *arena; /* several pages */
static volatile u64 *target;

#define ATOMIC(name, text)                                                                         \
	static void name(void *arg)                                                                \
	{                                                                                          \
		u32 n = rounds * 100, bit = this_cpu()->index;                                     \
		(void)arg;                                                                         \
		barrier();                                                                         \
		for (u32 i = 0; i < n; i++)                                                        \
			asm volatile(text                                                          \
				     : "+m"(*target)                                               \
				     : "r"((u64)1), "r"((u64)bit), "r"(target)                     \
				     : "memory", "cc", "rax", "rcx", "rdx", "rbx");                \
	}

ATOMIC(do_addb, "lock addb %b1, %b0")
ATOMIC(do_addw, "lock addw %w1, %w0")
ATOMIC(do_addl, "lock addl %k1, %k0")
ATOMIC(do_addq, "lock addq %1, %0")
ATOMIC(do_subl, "lock subl %k1, %k0")
ATOMIC(do_incl, "lock incl %k0")
ATOMIC(do_decq, "lock decq %q0")
ATOMIC(do_xaddl, "mov $1, %%eax; lock xaddl %%eax, %k0")
ATOMIC(do_xaddq, "mov $1, %%eax; lock xaddq %%rax, %q0")
ATOMIC(do_xaddw, "mov $1, %%eax; lock xaddw %%ax, %w0")
ATOMIC(do_adcl, "stc; mov $0, %%eax; lock adcl %%eax, %k0")
ATOMIC(do_sbbl, "stc; mov $0, %%eax; lock sbbl %%eax, %k0")
ATOMIC(do_cmpxchgl, "mov %k0, %%eax; 1: lea 1(%%rax), %%ecx; lock cmpxchgl %%ecx, %k0; jnz 1b")
ATOMIC(do_cmpxchgq, "mov %q0, %%rax; 1: lea 1(%%rax), %%rcx; lock cmpxchgq %%rcx, %q0; jnz 1b")
ATOMIC(do_cmpxchg8b, "mov %k0, %%eax; mov 4(%3), %%edx\n"
		     "1: mov %%eax, %%ebx; mov %%edx, %%ecx; add $1, %%ebx; adc $0, %%ecx\n"
		     "lock cmpxchg8b %0; jnz 1b")
ATOMIC(do_cmpxchg16b, "mov %q0, %%rax; mov 8(%3), %%rdx\n"
		      "1: lea 1(%%rax), %%rbx; lea -1(%%rdx), %%rcx; lock cmpxchg16b %0; jnz 1b")

struct atomic_row {
	const char *name;
	void (*fn)(void *);
	u32 size;
	int step;
};

static const struct atomic_row atomics[] = {
	{"add byte", do_addb, 1, 1},
	{"add word", do_addw, 2, 1},
	{"add long", do_addl, 4, 1},
	{"add quad", do_addq, 8, 1},
	{"sub", do_subl, 4, -1},
	{"inc", do_incl, 4, 1},
	{"dec", do_decq, 8, -1},
	{"xadd word", do_xaddw, 2, 1},
	{"xadd long", do_xaddl, 4, 1},
	{"xadd quad", do_xaddq, 8, 1},
	{"adc", do_adcl, 4, 1},
	{"sbb", do_sbbl, 4, -1},
	{"cmpxchg", do_cmpxchgl, 4, 1},
	{"cmpxchg quad", do_cmpxchgq, 8, 1},
	{"cmpxchg8b", do_cmpxchg8b, 8, 1},
};

static void count_atomics(u64 offset)
{
	for (u32 i = 0; i < ARRAY_SIZE(atomics); i++) {
		const struct atomic_row *r = &atomics[i];
		u64 mask = r->size == 8 ? ~0ull : (1ull << 8 * r->size) - 1;
		u64 start = 0x7fffff00 & mask, got;

		target = (volatile u64 *)(arena + offset);
		memset((void *)target - 8, 0x55, 32);
		memcpy((void *)target, &start, r->size);
		smp_run_all(r->fn, NULL);
		got = 0;
		memcpy(&got, (const void *)target, r->size);
		test_context("%s", r->name);
		expect("count", (start + (u64)((s64)r->step * cpu_count * rounds * 100)) & mask,
		       got);
		expect("byte before", 0x55, ((u8 *)target)[-1]);
		expect("byte behind", 0x55, ((u8 *)target)[r->size]);
	}
	test_context(NULL);
}

static void test_atomics(void)
{
	test_begin("smp: locked instructions count exactly");
	count_atomics(64);
	test_end();
	test_begin("smp: locked instructions count exactly, misaligned");
	count_atomics(64 + 1);
	count_atomics(64 - 3); /* over two cache lines */
	test_end();
	test_begin("smp: locked instructions count exactly, over two pages");
	count_atomics(PAGE_SIZE - 1);
	count_atomics(PAGE_SIZE - 3);
	test_end();
	if (!(cpuid(1, 0).c & BIT(13))) {
		test_skip("smp: CMPXCHG16B", "no CMPXCHG16B");
		return;
	}
	test_begin("smp: CMPXCHG16B is one access");
	target = (volatile u64 *)(arena + 128);
	target[0] = 5;
	target[1] = 0;
	smp_run_all(do_cmpxchg16b, NULL);
	expect("low", 5 + cpu_count * rounds * 100, target[0]);
	expect("high", 0 - (u64)cpu_count * rounds * 100, target[1]);
	test_end();
}

/* Each processor owns a bit of one word: nobody's change may be lost. */
static volatile u32 lost[MAX_CPUS];

#define BIT_OP(name, set, clear, size)                                                             \
	static void name(void *arg)                                                                \
	{                                                                                          \
		u64 me = this_cpu()->index, mask = BIT(me);                                        \
		(void)arg;                                                                         \
		barrier();                                                                         \
		for (u32 i = 0; i < rounds * 100; i++) {                                           \
			asm volatile(set                                                           \
				     : "+m"(*target)                                               \
				     : "r"(me), "r"(mask)                                          \
				     : "memory", "cc", "rcx");                                     \
			lost[me] += !(*target & mask);                                             \
			asm volatile(clear                                                         \
				     : "+m"(*target)                                               \
				     : "r"(me), "r"(mask)                                          \
				     : "memory", "cc", "rcx");                                     \
			lost[me] += !!(*target & mask);                                            \
		}                                                                                  \
	}

BIT_OP(bits_bts, "lock btsq %1, %0", "lock btrq %1, %0", 8)
BIT_OP(bits_btc, "lock btcl %k1, %k0", "lock btcl %k1, %k0", 4)
BIT_OP(bits_or, "lock orq %2, %0", "mov %2, %%rcx; not %%rcx; lock andq %%rcx, %0", 8)
BIT_OP(bits_xor, "lock xorb %b2, %b0", "lock xorb %b2, %b0", 1)

static void test_bits(void)
{
	static void (*const fn[])(void *) = {bits_bts, bits_btc, bits_or, bits_xor};

	test_begin("smp: BTS, BTR, BTC, OR, AND, XOR of neighbouring bits");
	for (u32 i = 0; i < ARRAY_SIZE(fn); i++) {
		for (u32 off = 0; off < 2; off++) {
			target = (volatile u64 *)(arena + 64 + off);
			memset((void *)target, 0, 8);
			for (u32 k = 0; k < cpu_count; k++)
				lost[k] = 0;
			smp_run_all(fn[i], NULL);
			test_context("form %u, offset %u", i, off);
			for (u32 k = 0; k < cpu_count; k++)
				expect("lost changes", 0, lost[k]);
			expect("word", 0, *target);
		}
	}
	test_context(NULL);
	test_end();
}

/* NEG and NOT have no neighbour that could count: an even number of each leaves the word as it was,
 * and what is seen is one of the two values. */
static void negate(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	barrier();
	for (u32 i = 0; i < rounds * 100; i++) {
		asm volatile("lock negl %0" : "+m"(*(u32 *)target)::"memory", "cc");
		u32 v = *(volatile u32 *)target;

		lost[me] += v != 0x12345678 && v != (u32)-0x12345678;
		asm volatile("lock notl 4%0" : "+m"(*(u32 *)target)::"memory", "cc");
		v = ((volatile u32 *)target)[1];
		lost[me] += v != 0xf0f01234 && v != ~0xf0f01234;
	}
}

static volatile u32 swapped[MAX_CPUS];

static u32 bit_count(u32 v)
{
	u32 n = 0;

	for (; v; v &= v - 1)
		n++;
	return n;
}

/* XCHG, with its implied lock: tokens move between a shared slot and private hands, none is lost or
 * doubled. */
static void exchange(void *arg)
{
	u32 me = this_cpu()->index, token = 1u << me;

	(void)arg;
	barrier();
	for (u32 i = 0; i < rounds * 100; i++)
		asm volatile("xchgl %0, %1" : "+r"(token), "+m"(*(u32 *)target)::"memory");
	swapped[me] = token;
}

/* A lock made of XCHG guards an ordinary counter. */
static volatile u32 guarded;

static void spin_lock_count(void *arg)
{
	(void)arg;
	barrier();
	for (u32 i = 0; i < rounds * 10; i++) {
		u32 taken = 1;

		for (;;) {
			asm volatile("xchgl %0, %1" : "+r"(taken), "+m"(*(u32 *)target)::"memory");
			if (!taken)
				break;
			while (*(volatile u32 *)target)
				cpu_relax();
		}
		guarded = guarded + 1;
		asm volatile("movl $0, %0" : "=m"(*(u32 *)target)::"memory");
	}
}

static void test_more_atomics(void)
{
	test_begin("smp: NEG and NOT");
	target = (volatile u64 *)(arena + 64);
	((volatile u32 *)target)[0] = 0x12345678;
	((volatile u32 *)target)[1] = 0xf0f01234;
	for (u32 k = 0; k < cpu_count; k++)
		lost[k] = 0;
	smp_run_all(negate, NULL);
	for (u32 k = 0; k < cpu_count; k++)
		expect("values of nobody", 0, lost[k]);
	expect("word", 0xf0f0123412345678, *target);
	test_end();

	test_begin("smp: XCHG loses and doubles nothing");
	for (u32 off = 0; off < 3; off++) {
		u32 all = 0, sum = 0, v;

		target = (volatile u64 *)(arena + (off == 2 ? PAGE_SIZE - 2 : 64 + off));
		v = 1u << 31;
		memcpy((void *)target, &v, 4);
		smp_run_all(exchange, NULL);
		memcpy(&v, (const void *)target, 4);
		all = v;
		sum = 1;
		for (u32 k = 0; k < cpu_count; k++) {
			all |= swapped[k];
			sum += bit_count(swapped[k]);
		}
		test_context("offset %u", off);
		expect("tokens", 1u << 31 | ((1u << cpu_count) - 1), all);
		expect("number of tokens", cpu_count + 1, sum);
	}
	test_context(NULL);
	test_end();

	test_begin("smp: lock made of XCHG");
	target = (volatile u64 *)(arena + 192);
	*target = 0;
	guarded = 0;
	smp_run_all(spin_lock_count, NULL);
	expect("guarded counter", cpu_count * rounds * 10, guarded);
	test_end();
}

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
static void tear_reader(void *arg)
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

/* ---- TLB shootdown
 * ------------------------------------------------------------------------------------ */

#define SHOOT_VA (TEST_HIGH + 0x800000)
static volatile u32 acks, shoot_stop;
static volatile u64 published;

static void on_shoot(struct frame *f)
{
	(void)f;
	invlpg(SHOOT_VA);
	__atomic_add_fetch(&acks, 1, __ATOMIC_SEQ_CST);
	lapic_eoi();
}

/* Reads through the mapping all the time: after the acknowledgement of the flush no old value may
 * come. */
static void shoot_reader(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	irq_enable();
	while (!shoot_stop) {
		u64 low = published, v;

		v = *(volatile u64 *)SHOOT_VA;
		lost[me] += v < low;
		counters[me]++;
	}
	irq_disable();
}

static void test_shootdown(void)
{
	u64 *page[2] = {alloc_pages(1), alloc_pages(1)}, *pte;

	test_begin("smp: TLB shootdown by interrupt");
	irq_handler(0x42, on_shoot);
	pte = map_page(SHOOT_VA, (u64)page[0], PTE_P | PTE_W);
	*page[0] = 0;
	published = 0;
	flush_tlb();
	shoot_stop = 0;
	for (u32 i = 1; i < cpu_count; i++) {
		lost[i] = counters[i] = 0;
		smp_run(i, shoot_reader, NULL);
		while (!counters[i])
			cpu_relax();
	}
	for (u64 n = 1; n <= rounds; n++) {
		*page[n & 1] = n;
		*(volatile u64 *)pte = (u64)page[n & 1] | PTE_P | PTE_W;
		invlpg(SHOOT_VA);
		acks = 0;
		lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_OTHERS | 0x42);
		while (acks != cpu_count - 1)
			cpu_relax();
		published = n;
		/* The page of before is poison from here on: a stale translation reads it. */
		*page[(n & 1) ^ 1] = 0;
	}
	shoot_stop = 1;
	for (u32 i = 1; i < cpu_count; i++) {
		smp_wait(i);
		expect("stale reads", 0, lost[i]);
		expect("has read", true, counters[i] > 0);
	}
	irq_handler(0x42, NULL);
	*pte = 0;
	test_end();
}

/* Accessed and dirty flags of one entry, set by all: none is lost, nothing else changes (4.8:
 * atomically). */
#define PAGES 16

static void touch_pages(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	for (u32 i = 0; i < PAGES; i++) {
		u64 va = SHOOT_VA + PAGE_SIZE * i;

		barrier();
		invlpg(va);
		if ((me + i) & 1)
			(void)*(volatile u64 *)(va + 8 * me);
		else
			*(volatile u64 *)(va + 8 * me) = i;
	}
}

static void test_accessed_dirty(void)
{
	u64 *pte[PAGES];
	u8 *pages = alloc_pages(PAGES);

	test_begin("smp: accessed and dirty flags set by several processors");
	for (u32 i = 0; i < PAGES; i++)
		pte[i] = map_page(SHOOT_VA + PAGE_SIZE * i, (u64)pages + PAGE_SIZE * i,
				  PTE_P | PTE_W | BIT(9) | BIT(52));
	flush_tlb();
	smp_run_all(touch_pages, NULL);
	for (u32 i = 0; i < PAGES; i++)
		expect("entry",
		       ((u64)pages + PAGE_SIZE * i) | PTE_P | PTE_W | BIT(9) | BIT(52) | PTE_A |
			       PTE_D,
		       *(volatile u64 *)pte[i]);
	test_end();
}

/* The page-table entries are changed by LOCK while the others' processors set A and D in them. */
static volatile u32 cleared;

static void write_page(void *arg)
{
	(void)arg;
	while (!shoot_stop) {
		*(volatile u64 *)SHOOT_VA += 1;
		invlpg(SHOOT_VA);
	}
}

static void test_dirty_race(void)
{
	u64 *pte = entry_of(SHOOT_VA, 1);
	u32 bad = 0;

	test_begin("smp: dirty flag against LOCK of software");
	shoot_stop = 0;
	cleared = 0;
	smp_run(1, write_page, NULL);
	u64 t0 = rdtsc(), limit = 10 * tsc_hz();

	for (u32 i = 0; i < rounds * 20 || (cleared < 2 && rdtsc() - t0 < limit); i++) {
		/* Clear D; software bit 10 toggles in the same word and must survive. */
		u64 v = __atomic_fetch_and(pte, ~PTE_D, __ATOMIC_SEQ_CST);

		cleared += !!(v & PTE_D);
		v = __atomic_xor_fetch(pte, BIT(10), __ATOMIC_SEQ_CST);
		bad += !!(v & BIT(10)) != !(i & 1);
		bad += (v & PTE_ADDR) == 0 || !(v & PTE_P);
	}
	shoot_stop = 1;
	smp_wait(1);
	expect("lost software bits", 0, bad);
	expect("D was set again and again", true, cleared > 1);
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

/* ---- INIT
 * -----------------------------------------------------------------------------------------------
 */

/* A second INIT and SIPI start a processor again: it registers as a new one (boot.S counts). Last
 * of all. */
extern volatile u32 cpu_next;
extern u8 ap_trampoline[], ap_trampoline_end[];

static void test_restart(void)
{
	u32 last = cpu_count - 1, id = cpu_get(last)->apic_id;
	u32 old_next = cpu_next;

	if (old_next >= MAX_CPUS) {
		test_skip("smp: INIT and SIPI restart a processor", "no room for another");
		return;
	}
	test_begin("smp: INIT stops a running processor, SIPI starts it");
	leave_idle = false;
	counters[last] = lost[last] = 0;
	target = (volatile u64 *)(arena + 256);
	*target = 0;
	smp_run(last, tear_reader, NULL); /* counts for ever */
	while (!counters[last])
		cpu_relax();
	lapic_ipi(id, ICR_INIT | ICR_ASSERT);
	delay_us(20000);
	u32 n = counters[last];

	delay_us(50000);
	expect("counter stands still", n, counters[last]);
	lapic_ipi(id, ICR_SIPI | ICR_ASSERT | 8);
	delay_us(1000);
	lapic_ipi(id, ICR_SIPI | ICR_ASSERT | 8); /* ignored by a processor that runs */
	wait_for((volatile u32 *)&cpu_get(old_next)->online, 1, 5000000);
	expect("online again", 1, cpu_get(old_next)->online);
	expect("same APIC id", id, cpu_get(old_next)->apic_id);
	expect("started once", old_next + 1, cpu_next);
	smp_run(old_next, read_identity, NULL);
	smp_wait(old_next);
	expect("works", LAPIC_BASE, apic_base[old_next] & 0xffffff000);
	test_end();
}

void test_main(void)
{
	rounds = (u32)argument("rounds", 100);
	smp_start();
	printf("%u processors\n", cpu_count);
	arena = alloc_pages(4);
	test_start();
	test_identity();
	if (cpu_count < 2) {
		test_skip("smp: between processors", "one processor");
		return;
	}
	test_ipi_with(spin_enabled, "smp: interrupts between running processors");
	test_ipi_with(halt_enabled, "smp: interrupts wake halted processors");
	test_logical();
	test_nmi();
	test_atomics();
	test_bits();
	test_more_atomics();
	test_litmus();
	test_stream();
	test_tearing();
	test_shootdown();
	test_accessed_dirty();
	test_dirty_race();
	test_tsc();
	test_restart();
}
