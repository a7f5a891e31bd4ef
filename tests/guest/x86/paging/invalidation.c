/* What must be seen after which invalidation. */
#include "paging.h"

SNIPPET(do_invlpg, "invlpg (%rsi)");

static u64 peek(u64 va)
{
	u64 v;

	asm volatile("mov (%1), %0" : "=r"(v) : "r"(va) : "memory");
	return v;
}

/* A user-mode read, for its fault. */
static struct ctx user_read(u64 va)
{
	struct ctx c = ctx_user(do_read);

	c.gpr[RSI] = va;
	exec(&c);
	return c;
}

static struct ctx user_write(u64 va, u64 v)
{
	struct ctx c = ctx_user(do_write);

	c.gpr[RSI] = va;
	c.gpr[RAX] = v;
	exec(&c);
	return c;
}

/*
 * What must be seen after which invalidation (SDM vol. 3A 4.10.4). That an old translation lives on
 * without one is allowed and never asserted.
 */
void test_invalidation(void)
{
	u64 va = TEST_HIGH + 0x01e00000, *pte, *pde = entry_of(va, 2);
	u64 *a = alloc_pages(1), *b = alloc_pages(1), old;
	const u64 rw = PTE_P | PTE_W | PTE_U;
	struct ctx c;

	*a = 0xaaaa;
	*b = 0xbbbb;
	pte = map_page(va, (u64)a, rw);

	test_begin("paging: not present to present needs no invalidation");
	*pte = 0;
	flush_tlb();
	c = user_read(va);
	expect_trap(&c, PF, PF_U);
	*pte = (u64)a | rw; /* no entry may be cached of what was not present (4.10.2.3) */
	c = user_read(va);
	expect_done(&c);
	expect("data", 0xaaaa, c.gpr[RAX]);
	test_end();

	test_begin("paging: INVLPG after unmap, remap, protect");
	*pte = (u64)b | rw;
	invlpg(va);
	expect("remapped", 0xbbbb, peek(va));
	*pte = 0;
	invlpg(va + 0xfff); /* any address of the page */
	c = user_read(va);
	expect_trap(&c, PF, PF_U);
	*pte = (u64)a | rw;
	c = user_write(va, 1);
	expect_done(&c);
	*pte = (u64)a | PTE_P | PTE_U | PTE_A | PTE_D;
	invlpg(va);
	c = user_write(va, 2);
	expect_trap(&c, PF, PF_P | PF_W | PF_U);
	expect("old data", 1, *a);
	*pte = (u64)a | PTE_P | PTE_W | PTE_A | PTE_D;
	invlpg(va);
	c = user_read(va);
	expect_trap(&c, PF, PF_P | PF_U);
	test_end();

	/* After a fault for its rights no stale entry is left (4.10.4.1): at most one spurious
	 * fault. */
	test_begin("paging: more rights without invalidation, at most one spurious fault");
	*pte = (u64)a | PTE_P | PTE_U | PTE_A;
	flush_tlb();
	(void)peek(va);
	*pte = (u64)a | rw | PTE_A | PTE_D;
	c = user_write(va, 3);
	if (c.vector == PF)
		c = user_write(va, 3);
	expect_done(&c);
	expect("written", 3, *a);
	test_end();

	test_begin("paging: CR3 load invalidates");
	*a = 0xaaaa;
	*pte = (u64)a | rw;
	flush_tlb();
	expect("first", 0xaaaa, peek(va));
	*pte = (u64)b | rw;
	flush_tlb();
	expect("second", 0xbbbb, peek(va));
	*pte = 0;
	flush_tlb();
	c = user_read(va);
	expect_trap(&c, PF, PF_U);
	test_end();

	test_begin("paging: global pages: INVLPG and CR4.PGE invalidate");
	write_cr4(kernel_cr4 | CR4_PGE);
	*pte = (u64)a | rw | PTE_G;
	invlpg(va);
	expect("first", 0xaaaa, peek(va));
	*pte = (u64)b | rw | PTE_G;
	invlpg(va);
	expect("after INVLPG", 0xbbbb, peek(va));
	*pte = (u64)a | rw | PTE_G;
	write_cr4(kernel_cr4);
	expect("after clearing PGE", 0xaaaa, peek(va));
	*pte = (u64)b | rw | PTE_G;
	write_cr4(kernel_cr4 | CR4_PGE); /* 4.10.4.1: any change of PGE */
	expect("after setting PGE", 0xbbbb, peek(va));
	write_cr4(kernel_cr4);
	/* Without PGE the G bit means nothing and CR3 flushes. */
	*pte = (u64)a | rw | PTE_G;
	flush_tlb();
	expect("G without PGE", 0xaaaa, peek(va));
	test_end();

	test_begin("paging: INVLPG drops paging-structure caches");
	/* The PDE itself is changed: INVLPG of one page is enough for its other pages (4.10.4.1).
	 */
	map_page(va + PAGE_SIZE, (u64)a, rw);
	(void)peek(va);
	(void)peek(va + PAGE_SIZE);
	old = *pde;
	u64 *other = alloc_pages(1);

	other[(va >> 12) & 511] = (u64)b | rw;
	other[((va >> 12) & 511) + 1] = (u64)b | rw;
	*pde = (u64)other | rw;
	invlpg(va);
	expect("same page", 0xbbbb, peek(va));
	invlpg(va + PAGE_SIZE);
	expect("next page", 0xbbbb, peek(va + PAGE_SIZE));
	*pde = old;
	flush_tlb();
	test_end();

	test_begin("paging: accessed and dirty flags are set again after INVLPG");
	*pte = (u64)a | rw;
	invlpg(va);
	(void)peek(va);
	expect("A", PTE_A, *pte & (PTE_A | PTE_D));
	c = user_write(va, 9); /* the TLB entry exists and is clean: D must come nevertheless */
	expect_done(&c);
	expect("D", PTE_A | PTE_D, *pte & (PTE_A | PTE_D));
	*pte &= ~PTE_D;
	invlpg(va);
	(void)peek(va);
	expect("no D by reading", 0, *pte & PTE_D);
	c = user_write(va, 9);
	expect_done(&c);
	expect("D again", PTE_D, *pte & PTE_D);
	*pte &= ~(PTE_A | PTE_D);
	invlpg(va);
	(void)peek(va);
	expect("A again", PTE_A, *pte & (PTE_A | PTE_D));
	/* LOCK CMPXCHG that fails still writes (SDM vol. 2 CMPXCHG: "always writes"). */
	*pte = (u64)a | rw;
	invlpg(va);
	c = ctx_user(do_cmpxchg);
	c.gpr[RSI] = va;
	c.gpr[RAX] = ~*a;
	exec(&c);
	expect_done(&c);
	expect("D by a failed LOCK CMPXCHG", PTE_A | PTE_D, *pte & (PTE_A | PTE_D));
	/* A read-only page written by the supervisor with WP = 0 becomes dirty too. */
	*pte = (u64)a | PTE_P | PTE_U;
	invlpg(va);
	write_cr0(read_cr0() & ~CR0_WP);
	*(volatile u64 *)va = 5;
	write_cr0(read_cr0() | CR0_WP);
	expect("D with WP = 0", PTE_A | PTE_D, *pte & (PTE_A | PTE_D));
	/* ... and setting WP again must be seen at once (4.10.4.1: software need not invalidate for
	 * CR0.WP, 4.6 checks it per access). */
	c = ctx_kernel(do_write);
	c.gpr[RSI] = va;
	exec(&c);
	expect_trap(&c, PF, PF_P | PF_W);
	test_end();

	test_begin("paging: INVLPG itself");
	c = ctx_kernel(do_invlpg);
	c.gpr[RSI] = 0x0000800000000000; /* non-canonical: nothing happens (vol. 2 INVLPG) */
	exec(&c);
	expect_done(&c);
	c = ctx_kernel(do_invlpg);
	c.gpr[RSI] = TEST_HIGH + 0x123450000; /* not mapped */
	exec(&c);
	expect_done(&c);
	c = ctx_user(do_invlpg);
	c.gpr[RSI] = va;
	exec(&c);
	expect_trap(&c, GP, 0);
	test_end();
}

/* CR2 and the error code of accesses that the processor makes for itself. */
