/* The stacks of interrupts. */
#include "segments.h"

/* ---- stacks of interrupts ---------------------------------------------------------------------
 */

#define VEC_TEST 0x90
SNIPPET(int_test, "int $0x90");

void test_stacks(void)
{
	struct cpu *cpu = this_cpu();
	struct ctx c;

	/* Vol. 3A 6.14.2, 6.14.4. The frame of five quadwords lies at a multiple of 16, less 40. */
	test_begin("segments: interrupt from CPL 3 takes RSP0");
	idt_set(VEC_TEST, NULL, 0, 3);
	for (u64 off = 0; off < 16; off += 5) {
		cpu->tss.rsp[0] = (u64)cpu + STACK_IST3 - off;
		c = ctx_user(int_test);
		exec(&c);
		test_context("RSP0 - %lu", off);
		expect_trap(&c, VEC_TEST, NO_ERROR);
		expect("frame", (((u64)cpu + STACK_IST3 - off) & ~15ull) - 40, c.frame_rsp);
		expect("RSP saved", ctx_user(NULL).gpr[RSP], c.gpr[RSP]);
		expect("SS saved", SEL_UDATA, c.ss);
	}
	c = ctx_user32(put_code("\xcd\x90", 2));
	exec(&c);
	test_context("from compatibility mode");
	expect_trap(&c, VEC_TEST, NO_ERROR);
	expect("frame", (((u64)cpu + STACK_IST3 - 15) & ~15ull) - 40, c.frame_rsp);
	cpu->tss.rsp[0] = (u64)cpu + STACK_IST1;
	test_context(NULL);
	test_end();

	test_begin("segments: interrupt from CPL 0 stays on its stack, aligned");
	for (u64 off = 0; off < 32; off += 3) {
		c = ctx_kernel(int_test);
		c.gpr[RSP] = (u64)cpu + STACK_IST3 - 64 - off;
		exec(&c);
		test_context("RSP - %lu", off);
		expect_trap(&c, VEC_TEST, NO_ERROR);
		expect("frame", (((u64)cpu + STACK_IST3 - 64 - off) & ~15ull) - 40, c.frame_rsp);
		expect("RSP saved", (u64)cpu + STACK_IST3 - 64 - off, c.gpr[RSP]);
	}
	test_context(NULL);
	test_end();

	test_begin("segments: IST switches at every level");
	for (u8 ist = 1; ist <= 7; ist++) {
		u64 old = cpu->tss.ist[ist - 1], top = (u64)cpu + STACK_IST3 - 64 * ist;

		cpu->tss.ist[ist - 1] = top;
		idt_set(VEC_TEST, NULL, ist, 3);
		for (int user = 0; user < 2; user++) {
			/* What comes back by INT 0x81 would use IST1 as well: the trap itself ends
			 * exec(), nothing else runs meanwhile. */
			c = user ? ctx_user(int_test) : ctx_kernel(int_test);
			exec(&c);
			test_context("IST %u, CPL %d", ist, user ? 3 : 0);
			expect_trap(&c, VEC_TEST, NO_ERROR);
			expect("frame", (top & ~15ull) - 40, c.frame_rsp);
		}
		cpu->tss.ist[ist - 1] = old;
	}
	test_context(NULL);
	idt_set(VEC_TEST, NULL, 1, 0);
	test_end();

	test_begin("segments: interrupt gate clears IF, trap gate does not");
	idt_set(VEC_TEST, NULL, 1, 3);
	c = ctx_user(int_test);
	c.rflags |= FL_NT | FL_IF | FL_CF;
	exec(&c);
	expect_trap(&c, VEC_TEST, NO_ERROR);
	expect("saved flags", FL_NT | FL_IF | FL_CF | FL_FIXED, c.rflags);
	test_end();
}
