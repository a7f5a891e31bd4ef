/* Atomic instructions: nothing is lost. */
#include "smp.h"

/* ---- atomics
 * ----------------------------------------------------------------------------------------- */

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

static void test_counts(void)
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

void test_atomics(void)
{
	test_counts();
	test_bits();
	test_more_atomics();
}
