/* Accesses that the processor makes for itself, and modes that change. */
#include "paging.h"

SNIPPET(do_mov_ds, "mov %eax, %ds");

static void test_descriptor_loads(void)
{
	struct cpu *cpu = this_cpu();
	u64 va = TEST_HIGH + 0x02000000, *pte;
	u64 *ldt = alloc_pages(1);
	struct ctx c;

	/* An LDT with one data descriptor for ring 3, in its page at offset 8. */
	ldt[1] = descriptor(0, 0xfffff, 0xf3, 0xc);
	pte = map_page(va, (u64)ldt, PTE_P | PTE_W);
	cpu->gdt[SEL_TEST / 8] = descriptor((u32)va, 0xfff, 0x82, 0);
	cpu->gdt[SEL_TEST / 8 + 1] = va >> 32;
	asm volatile("lldt %w0" ::"r"(SEL_TEST));

	test_begin("paging: descriptor loads are supervisor accesses");
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_done(&c); /* though the page is a supervisor one */
	expect("DS", 8 | 4 | 3, c.ds);
	*pte = 0;
	invlpg(va);
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_trap(&c, PF, 0); /* U = 0 at CPL 3 */
	expect("CR2", va + 8, c.cr2);
	expect("RIP", (u64)user_alias(do_mov_ds), c.rip);
	expect("DS", SEL_UDATA, c.ds);
	test_end();

	test_begin("paging: the accessed bit of a descriptor is written by the supervisor");
	ldt[1] = descriptor(0, 0xfffff, 0xf2, 0xc);
	*pte = (u64)ldt | PTE_P; /* read-only, WP = 1 */
	invlpg(va);
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_trap(&c, PF, PF_P | PF_W);
	expect("CR2 in the descriptor", va + 8, c.cr2 & ~7ull);
	expect("descriptor", 0xf2, ldt[1] >> 40 & 0xff);
	*pte |= PTE_W;
	invlpg(va);
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_done(&c);
	expect("descriptor accessed", 0xf3, ldt[1] >> 40 & 0xff);
	expect("page dirty", PTE_D, *pte & PTE_D);
	test_end();

	if (have_smap) {
		/* 4.6.1: EFLAGS.AC has no say in implicit supervisor accesses. */
		test_begin("paging: SMAP, implicit access at CPL 3 with AC");
		*pte = (u64)ldt | PTE_P | PTE_W | PTE_U;
		write_cr4(kernel_cr4 | CR4_SMAP);
		invlpg(va);
		c = ctx_user(do_mov_ds);
		c.gpr[RAX] = 8 | 4 | 3;
		c.rflags |= FL_AC;
		exec(&c);
		expect_trap(&c, PF, PF_P);
		write_cr4(kernel_cr4);
		test_end();
		test_begin("paging: SMAP, implicit access at CPL 0 with AC");
		write_cr4(kernel_cr4 | CR4_SMAP);
		invlpg(va);
		c = ctx_kernel(do_mov_ds);
		c.gpr[RAX] = 8 | 4 | 3;
		c.rflags |= FL_AC;
		exec(&c);
		expect_trap(&c, PF, PF_P);
		write_cr4(kernel_cr4);
		test_end();
	} else {
		test_skip("paging: SMAP, implicit accesses", "no SMAP");
	}
	asm volatile("lldt %w0" ::"r"(0));
}

/* 4.6.1: the mode is looked at in each access, also for what is in the TLB already. */
static void test_mode_switch(void)
{
	u64 va = TEST_HIGH + 0x02200000, *pte;
	u64 *page = alloc_pages(1);
	struct ctx c;

	pte = map_page(va, (u64)page, PTE_P | PTE_W | PTE_U | PTE_A | PTE_D);
	((u8 *)page)[CODE_OFFSET] = 0xcd;
	((u8 *)page)[CODE_OFFSET + 1] = VEC_DONE;
	if (have_smap) {
		test_begin("paging: STAC and CLAC act at once");
		write_cr4(kernel_cr4 | CR4_SMAP);
		for (int i = 0; i < 4; i++) {
			u64 t;

			asm volatile("stac; mov (%1), %0; clac" : "=r"(t) : "r"(va) : "memory");
			c = ctx_kernel(do_read);
			c.gpr[RSI] = va;
			exec(&c);
			expect_trap(&c, PF, PF_P);
			c = ctx_user(do_read);
			c.gpr[RSI] = va;
			exec(&c);
			expect_done(&c);
		}
		write_cr4(kernel_cr4);
		c = ctx_kernel(do_read);
		c.gpr[RSI] = va;
		exec(&c);
		expect_done(&c);
		test_end();
	} else {
		test_skip("paging: STAC and CLAC act at once", "no SMAP");
	}
	if (have_smep) {
		test_begin("paging: SMEP toggles at once");
		for (int i = 0; i < 4; i++) {
			write_cr4(kernel_cr4 | (i & 1 ? CR4_SMEP : 0));
			c = ctx_kernel(do_fetch);
			c.gpr[RSI] = va + CODE_OFFSET;
			exec(&c);
			if (i & 1)
				expect_trap(&c, PF, PF_P | PF_I);
			else
				expect_done(&c);
			c = ctx_user(do_fetch);
			c.gpr[RSI] = va + CODE_OFFSET;
			exec(&c);
			expect_done(&c);
		}
		write_cr4(kernel_cr4);
		test_end();
	} else {
		test_skip("paging: SMEP toggles at once", "no SMEP");
	}
	test_begin("paging: user and supervisor share no rights in the TLB");
	*pte &= ~PTE_U;
	invlpg(va);
	for (int i = 0; i < 4; i++) {
		c = ctx_kernel(do_read);
		c.gpr[RSI] = va;
		exec(&c);
		expect_done(&c);
		c = ctx_user(do_read);
		c.gpr[RSI] = va;
		exec(&c);
		expect_trap(&c, PF, PF_P | PF_U);
	}
	test_end();
}

void test_implicit(void)
{
	test_descriptor_loads();
	test_mode_switch();
}
