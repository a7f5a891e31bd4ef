/* Non-canonical addresses: #GP(0), #SS(0). */
#include "exceptions.h"

/* ---- non-canonical addresses ------------------------------------------------------------------
 */

SNIPPET(push_rax, "push %rax");
SNIPPET(call_rax, "call *%rax");
SNIPPET(ret_near, "ret");
SNIPPET(load_rbp, "mov (%rbp), %rax");
SNIPPET(load_rsp, "mov 8(%rsp), %rax");
SNIPPET(load_rsi, "mov (%rsi), %rax");
SNIPPET(store_rsi, "mov %rax, (%rsi)");
SNIPPET(load_fs, "mov %fs:(%rsi), %rax");
SNIPPET(load_ds_rbp, "mov %ds:(%rbp), %rax");
SNIPPET(jmp_rax, "jmp *%rax");
SNIPPET(enter_insn, "enter $16, $0");
SNIPPET(movs, "movsq");
SNIPPET(lods, "lodsb");

void test_noncanonical(void)
{
	static const u64 bad[] = {NONCANON,	      NONCANON - 7,	  0xffff7fffffffffff,
				  0x8000000000000000, 0x0001000000000000, 0xdeadbeefdeadbeef};
	struct ctx c;

	/* NONCANON - 7: the first bytes are canonical (though not mapped), the last is not. */
	test_begin("exceptions: non-canonical data address is #GP(0)");
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		u8 *const code[] = {load_rsi, store_rsi};

		test_context("0x%lx", bad[i]);
		if (bad[i] == NONCANON - 7)
			continue; /* below */
		for (u32 j = 0; j < ARRAY_SIZE(code); j++) {
			c = ctx_user(code[j]);
			c.gpr[RSI] = bad[i];
			exec(&c);
			expect_trap(&c, GP, 0);
			expect("RIP", (u64)user_alias(code[j]), c.rip);
		}
		c = ctx_user(movs);
		c.gpr[RSI] = bad[i];
		c.gpr[RDI] = (u64)user_alias(insn_data);
		exec(&c);
		expect_trap(&c, GP, 0);
		expect("RSI", bad[i], c.gpr[RSI]);
		c = ctx_user(lods);
		c.gpr[RSI] = bad[i];
		exec(&c);
		expect_trap(&c, GP, 0);
	}
	test_context(NULL);
	test_end();

	/* Through RSP, RBP, pushes and pops: #SS(0) (vol. 3A 6.15 interrupt 12; vol. 1 3.3.7.1). An
	 * override to another segment makes it #GP. */
	test_begin("exceptions: non-canonical stack address is #SS(0)");
	u8 *const stack[] = {push_rax, load_rbp, load_rsp, ret_near, enter_insn, call_rax};

	for (u32 i = 0; i < ARRAY_SIZE(stack); i++) {
		c = ctx_user(stack[i]);
		c.gpr[RBP] = c.gpr[RSP] = NONCANON;
		if (stack[i] == push_rax || stack[i] == enter_insn || stack[i] == call_rax)
			c.gpr[RSP] = NONCANON + 0x100;
		c.gpr[RAX] = (u64)user_alias(push_rax);
		exec(&c);
		test_context("snippet %u", i);
		expect_trap(&c, SS, 0);
		expect("RIP", (u64)user_alias(stack[i]), c.rip);
	}
	test_context(NULL);
	test_end();

	test_begin("exceptions: an override decides between #SS and #GP");
	c = ctx_user(load_fs);
	c.gpr[RSI] = NONCANON;
	exec(&c);
	expect_trap(&c, GP, 0);
	/* DS has no effect as an override in 64-bit mode: still the stack segment?  The assembler's
	 * 3e prefix is ignored (vol. 1 3.3.7.1), so RBP means SS. */
	c = ctx_user(load_ds_rbp);
	c.gpr[RBP] = NONCANON;
	exec(&c);
	expect("vector is #SS or #GP", true, c.vector == SS || c.vector == GP);
	expect("error code", 0, c.error);
	test_end();

	/* The address is checked before anything is done: RIP is the branch, the stack untouched.
	 */
	test_begin("exceptions: non-canonical branch target is #GP(0) at the branch");
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		u8 *const code[] = {jmp_rax, call_rax, ret_near};

		if (bad[i] == NONCANON - 7)
			continue;
		for (u32 j = 0; j < ARRAY_SIZE(code); j++) {
			u64 *sp;

			c = ctx_user(code[j]);
			c.gpr[RSP] -= 64;
			c.gpr[RAX] = bad[i];
			sp = (u64 *)(c.gpr[RSP] - USER_ALIAS);
			sp[-1] = 0x5555;
			sp[0] = bad[i];
			u64 rsp = c.gpr[RSP];

			exec(&c);
			test_context("snippet %u, 0x%lx", j, bad[i]);
			expect_trap(&c, GP, 0);
			expect("RIP", (u64)user_alias(code[j]), c.rip);
			expect("RSP", rsp, c.gpr[RSP]);
			expect("stack", 0x5555, sp[-1]);
		}
	}
	test_context(NULL);
	test_end();

	/* An access that begins canonical and ends beyond. Its pages are mapped, or it would be
	 * #PF. */
	test_begin("exceptions: access that runs into the hole");
	u64 *pte = map_page(NONCANON - PAGE_SIZE, (u64)alloc_pages(1), PTE_P | PTE_W | PTE_U);

	flush_tlb();
	c = ctx_user(load_rsi);
	c.gpr[RSI] = NONCANON - 8;
	exec(&c);
	expect_done(&c);
	for (u64 i = 1; i < 8; i++) {
		c = ctx_user(load_rsi);
		c.gpr[RSI] = NONCANON - i;
		exec(&c);
		test_context("load of 8, %lu below", i);
		expect_trap(&c, GP, 0);
		c = ctx_user(store_rsi);
		c.gpr[RSI] = NONCANON - i;
		c.gpr[RAX] = ~0ull;
		exec(&c);
		expect_trap(&c, GP, 0);
	}
	c = ctx_user(load_rsi);
	c.gpr[RSI] = NONCANON - 8;
	exec(&c);
	expect("nothing stored", 0, c.gpr[RAX]);
	*pte = 0;
	flush_tlb();
	test_context(NULL);
	test_end();
}
