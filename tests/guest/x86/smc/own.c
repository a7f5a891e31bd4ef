/* One processor. */
#include "smc.h"

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
u32 jit_compile(u8 *at, u32 seed)
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

void test_own(void)
{
	test_simple();
	test_block();
	test_cross_page();
	test_alias();
	test_string_store();
	test_jit();
	test_mixed();
}
