/*
 * Self-modifying and cross-modifying code (SDM vol. 3A 9.1.3, 12.6). One processor sees its own
 * writes to code at the next taken branch or serialising instruction at the latest, through any
 * linear address of the memory; between processors the protocol of 9.1.3 is followed: the writer
 * stores, then hands over; the reader executes CPUID before it runs what was written.
 */
#include "guest.h"

typedef u32 code_fn(void);

/* mov $imm, %eax; ret */
static void put_return(u8 *at, u32 value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static u32 call(const void *at)
{
	u32 r;

	asm volatile("call *%1" : "=a"(r) : "r"(at) : "memory", "rcx", "rdx", "cc");
	return r;
}

static void serialise(void)
{
	(void)cpuid(0, 0);
}

/* ---- one processor ------------------------------------------------------------------------------
 */

static void test_simple(void)
{
	u8 *code = alloc_pages(1);
	u32 bad = 0;

	test_begin("smc: function rewritten between calls");
	for (u32 i = 0; i < 2000; i++) {
		put_return(code + 64, i * 3);
		bad += call(code + 64) != i * 3;
	}
	expect("stale calls", 0, bad);
	test_end();

	test_begin("smc: only the immediate is rewritten, by each store size");
	put_return(code + 64, 0);
	for (u32 i = 0; i < 500; i++) {
		u32 want;

		code[65] = (u8)i;
		bad += (call(code + 64) & 0xff) != (u8)i;
		*(u16 *)(code + 65) = (u16)(i * 7);
		bad += (call(code + 64) & 0xffff) != (u16)(i * 7);
		want = i * 0x01010101;
		*(volatile u32 *)(code + 65) = want;
		bad += call(code + 64) != want;
		*(volatile u64 *)(code + 65) = 0xcccccccc00c3ull << 24 << 8 | ~i | 0xc300000000ull;
		bad += call(code + 64) != ~i;
		asm volatile("lock xchgl %0, %1" : "+r"(want), "+m"(*(u32 *)(code + 65)));
		bad += call(code + 64) != i * 0x01010101;
		asm volatile("lock incl %0" : "+m"(*(u32 *)(code + 65)));
		bad += call(code + 64) != i * 0x01010101 + 1;
		asm volatile("movd %1, %%xmm0; movd %%xmm0, %0"
			     : "=m"(*(u32 *)(code + 65))
			     : "r"(i));
		bad += call(code + 64) != i;
	}
	expect("stale calls", 0, bad);
	test_end();
}

/*
 * In the same basic block: the store hits an instruction a few bytes ahead. All processors since
 * the Pentium honour it (12.6: "will be executed properly"): for a store and a branch between;
 * without a branch the SDM wants one for safety, though processors check the prefetched
 * instructions too. One is put there.
 */
SNIPPET(ahead,
	"mov %ecx, ahead_imm - ahead(%rbx); jmp 1f; 1: mov $0x11111111, %eax; ahead_tail: nop");
asm(".set ahead_imm, ahead_tail - 4; .globl ahead_imm");
extern u8 ahead_imm[];
/* A loop that patches an instruction of its own body in every round. */
SNIPPET(own_loop,
	"xor %edx, %edx; mov $100, %ecx\n"
	"1: mov %ecx, own_loop_tail - 4 - own_loop(%rbx); jmp 2f; 2: add $0x11111111, %edx\n"
	"own_loop_tail: dec %ecx; jnz 1b; mov %edx, %eax");
/* A store that overwrites the very instruction that follows the branch with a different one. */
SNIPPET(to_nop, "movl $0x90909090, 1f - to_nop(%rbx); jmp 1f; 1: inc %eax; inc %eax; nop");

static void test_block(void)
{
	u8 *code = alloc_pages(1);
	struct ctx c;

	memcpy(code, ahead, (size_t)(ahead_end - ahead) + 2);
	test_begin("smc: store to an instruction just ahead");
	for (u32 i = 0; i < 300; i++) {
		c = ctx_user(code);
		c.gpr[RBX] = (u64)user_alias(code);
		c.gpr[RCX] = i * 0x01020304;
		exec(&c);
		expect_done(&c);
		expect("EAX", i * 0x01020304, c.gpr[RAX]);
	}
	test_end();

	test_begin("smc: loop that patches itself");
	memcpy(code + 512, own_loop, (size_t)(own_loop_end - own_loop));
	for (u32 i = 0; i < 20; i++) {
		c = ctx_user(code + 512);
		c.gpr[RBX] = (u64)user_alias(code + 512);
		exec(&c);
		expect_done(&c);
		expect("sum", 5050, c.gpr[RAX]);
	}
	test_end();

	test_begin("smc: instruction replaced by others of another length");
	for (u32 i = 0; i < 50; i++) {
		memcpy(code + 1024, to_nop, (size_t)(to_nop_end - to_nop));
		c = ctx_user(code + 1024);
		c.gpr[RBX] = (u64)user_alias(code + 1024);
		c.gpr[RAX] = 5;
		exec(&c);
		expect_done(&c);
		expect("EAX", 5, c.gpr[RAX]);
	}
	test_end();
}

/* An instruction over two pages: either half may change. */
static void test_cross_page(void)
{
	u8 *code = alloc_pages(2);
	u32 bad = 0;

	test_begin("smc: instruction over two pages, each half rewritten");
	for (u32 first = 1; first < 5; first++) {
		u8 *at = code + PAGE_SIZE - first;

		put_return(at, 0);
		for (u32 i = 1; i < 200; i++) {
			at[4] = (u8)i; /* last byte of the immediate: second page */
			bad += call(at) >> 24 != (u8)i;
			if (first > 1) {
				at[1] = (u8)~i; /* first page */
				bad += (call(at) & 0xff) != (u8)~i;
			}
			at[0] = i & 1 ? 0xb8 : 0xb9; /* the opcode: mov to %ecx instead */
			u32 r;

			asm volatile("call *%1" : "=a"(r) : "r"(at), "0"(0x5a5a) : "rcx", "memory");
			bad += (r == 0x5a5a) != !(i & 1);
			at[0] = 0xb8;
		}
	}
	expect("stale calls", 0, bad);
	test_end();

	test_begin("smc: store over two pages of code");
	u8 *at = code + PAGE_SIZE - 3;

	put_return(at, 0);
	for (u32 i = 0; i < 200; i++) {
		*(volatile u32 *)(at + 1) = i * 0x10203; /* the immediate lies on both */
		bad += call(at) != i * 0x10203;
	}
	expect("stale calls", 0, bad);
	test_end();
}

/* The same memory at other linear addresses: caches are physical. */
static void test_alias(void)
{
	u8 *code = alloc_pages(1), *other = alloc_pages(1);
	u64 va = TEST_HIGH + 0x400000, va2 = TEST_HIGH + 0x600000, *pte;
	u32 bad = 0;

	map_page(va, (u64)code, PTE_P | PTE_W);
	pte = map_page(va2, (u64)code, PTE_P | PTE_W);
	flush_tlb();
	test_begin("smc: written through another linear address");
	for (u32 i = 0; i < 1000; i++) {
		u8 *w = i % 3 == 0 ? code : i % 3 == 1 ? (u8 *)va : (u8 *)va2;
		u8 *x = i % 4 < 2 ? (u8 *)va : i % 4 == 2 ? code : (u8 *)va2;

		put_return(w + 128, i);
		bad += call(x + 128) != i;
	}
	expect("stale calls", 0, bad);
	test_end();

	/* The linear address gets another page: not the bytes but the mapping changes. */
	test_begin("smc: another page mapped under the same address");
	put_return(code + 128, 0xaaaa);
	put_return(other + 128, 0xbbbb);
	for (u32 i = 0; i < 500; i++) {
		*pte = (u64)(i & 1 ? other : code) | PTE_P | PTE_W;
		invlpg(va2);
		bad += call((u8 *)va2 + 128) != (i & 1 ? 0xbbbb : 0xaaaa);
	}
	expect("stale calls", 0, bad);
	/* ... and the page is written while it is not mapped there. */
	for (u32 i = 0; i < 500; i++) {
		*pte = (u64)other | PTE_P | PTE_W;
		invlpg(va2);
		bad += call((u8 *)va2 + 128) != (i ? i - 1 : 0xbbbb);
		*pte = (u64)code | PTE_P | PTE_W;
		invlpg(va2);
		bad += call((u8 *)va2 + 128) != 0xaaaa;
		put_return(other + 128, i);
	}
	expect("stale calls", 0, bad);
	test_end();
}

/* String instructions as writers, forwards, backwards, by element size. */
static void test_string_store(void)
{
	u8 *code = alloc_pages(2), image[2][64];
	u32 bad = 0;

	test_begin("smc: code written by string instructions");
	for (u32 i = 0; i < 2; i++) {
		memset(image[i], 0x90, 64);
		put_return(image[i] + 40, 1000 + i);
	}
	for (u32 i = 0; i < 500; i++) {
		u8 *d = code + PAGE_SIZE - 50;
		const u8 *s = image[i & 1];
		u64 n = 8;

		if (i % 3 == 0)
			memcpy(d, s, 64);
		else if (i % 3 == 1)
			asm volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n)::"memory");
		else {
			d += 63, s += 63, n = 64;
			asm volatile("std; rep movsb; cld" : "+D"(d), "+S"(s), "+c"(n)::"memory");
		}
		bad += call(code + PAGE_SIZE - 50) != 1000 + (i & 1);
	}
	for (u32 i = 0; i < 100; i++) {
		put_return(code + 16, i);
		memset(code, 0x90, 16);
		bad += call(code) != i;
		memset(code, 0xc3, 16); /* ret at once: EAX is what it was */
		u32 r;

		asm volatile("call *%1" : "=a"(r) : "r"(code), "0"(77) : "memory");
		bad += r != 77;
		memset(code, 0x90, 16);
	}
	expect("stale calls", 0, bad);
	test_end();
}

/* As a compiler at run time does it: a new function in a buffer that is used over and over. */
static u32 jit_compile(u8 *at, u32 seed)
{
	u32 v = seed;
	u8 *p = at;

	*p++ = 0xb8; /* mov $seed, %eax */
	memcpy(p, &seed, 4);
	p += 4;
	for (u32 i = 0; i < 12; i++) {
		u32 k = seed * 2654435761u >> (i & 15), op = k % 4;

		if (op == 0) {
			*p++ = 0x05; /* add imm32 */
			memcpy(p, &k, 4);
			p += 4;
			v += k;
		} else if (op == 1) {
			*p++ = 0x35; /* xor imm32 */
			memcpy(p, &k, 4);
			p += 4;
			v ^= k;
		} else if (op == 2) {
			*p++ = 0xd1; /* rol %eax */
			*p++ = 0xc0;
			v = v << 1 | v >> 31;
		} else {
			*p++ = 0xf7; /* not %eax */
			*p++ = 0xd0;
			v = ~v;
		}
	}
	*p = 0xc3;
	return v;
}

static void test_jit(void)
{
	u8 *code = alloc_pages(4);
	u32 bad = 0;

	test_begin("smc: code generator");
	for (u32 i = 0; i < 3000; i++) {
		u8 *at = code + (i * 61) % (4 * PAGE_SIZE - 128);
		u32 want = jit_compile(at, i * 0x9e3779b9);

		for (u32 k = 0; k < 1 + i % 3; k++)
			bad += call(at) != want;
	}
	expect("wrong results", 0, bad);
	test_end();
}

/* Data beside code: no store may be lost, no code may change, however often both happen. */
static void test_mixed(void)
{
	u8 *page = alloc_pages(1);
	volatile u32 *counter = (volatile u32 *)(page + 2048);
	volatile u8 *byte = page + 70;
	u32 bad = 0;

	put_return(page + 64, 0x1234);
	test_begin("smc: page that holds code and data");
	for (u32 i = 0; i < 5000; i++) {
		*counter += 1;
		*byte = (u8)i; /* directly behind the RET */
		bad += call(page + 64) != 0x1234;
		bad += *byte != (u8)i;
	}
	expect("counter", 5000, *counter);
	expect("wrong", 0, bad);
	/* Code that counts in its own page: a store into the page being executed, not into code. */
	SNIPPET(count_own, "mov $3000, %ecx; 1: incl 256(%rbx); dec %ecx; jnz 1b");
	memcpy(page + 512, count_own, (size_t)(count_own_end - count_own));
	struct ctx c = ctx_user(page + 512);

	c.gpr[RBX] = (u64)user_alias(page + 512);
	exec(&c);
	expect_done(&c);
	expect("own counter", 3000, *(u32 *)(page + 768));
	/* A call that pushes its return address into the page that it executes. */
	SNIPPET(stack_own,
		"lea 1024(%rbx), %rsp; mov $500, %ecx; 1: call 2f; dec %ecx; jnz 1b; jmp 3f\n"
		"2: incl 256(%rbx); ret; 3: nop");
	memcpy(page + 512, stack_own, (size_t)(stack_own_end - stack_own));
	*(u32 *)(page + 768) = 0;
	c = ctx_user(page + 512);
	c.gpr[RBX] = (u64)user_alias(page + 512);
	exec(&c);
	expect_done(&c);
	expect("calls", 500, *(u32 *)(page + 768));
	test_end();
}

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

void test_main(void)
{
	u32 rounds = (u32)argument("rounds", 80);

	test_simple();
	test_block();
	test_cross_page();
	test_alias();
	test_string_store();
	test_jit();
	test_mixed();
	smp_start();
	printf("%u processors\n", cpu_count);
	if (cpu_count < 2) {
		test_skip("smc: between processors", "one processor");
		return;
	}
	shared_code = alloc_pages(2);
	test_cross_handshake(rounds);
	test_cross_int3(rounds / 4);
	test_shared_jit();
	/* Last: what goes wrong here may stay wrong. */
	test_cross_running(rounds);
}
