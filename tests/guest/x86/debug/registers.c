/* The registers themselves; instruction breakpoints. */
#include "debug.h"

/* ---- registers ------------------------------------------------------------------------------- */

static void test_access(void)
{
	test_begin("debug: fixed bits of DR6 and DR7");
	write_dr6(0);
	expect("DR6 of 0", 0xffff0ff0,
	       read_dr6() | BIT(11) | BIT(16)); /* those two: newer features */
	write_dr6(0xffffffff);
	expect("DR6 of all ones", 0xffffefff, read_dr6());
	write_dr7(0);
	expect("DR7 of 0", 0x400, read_dr7());
	write_dr7(0x0000c800); /* bits 11, 14, 15: no bits */
	expect("DR7 of bits 11, 14, 15", 0x400, read_dr7() & ~BIT(11));
	write_dr0(0x123456789abcdef0);
	write_dr3(~0ull);
	expect("DR0", 0x123456789abcdef0, read_dr0());
	expect("DR3", ~0ull, read_dr3());
	test_end();
	clear_debug();
}

SNIPPET(read_dr4, "mov %db4, %rax");
SNIPPET(read_dr5, "mov %db5, %rax");
SNIPPET(write_dr4, "mov %rax, %db4");
SNIPPET(read_dr6_insn, "mov %db6, %rax");
SNIPPET(write_dr7_insn, "mov %rax, %db7");

static void test_aliases(void)
{
	u64 cr4 = read_cr4();
	struct ctx c;

	test_begin("debug: DR4 and DR5 are DR6 and DR7, or #UD with CR4.DE");
	write_cr4(cr4 & ~CR4_DE);
	c = ctx_kernel(read_dr4);
	exec(&c);
	expect_done(&c);
	expect("DR4", read_dr6(), c.gpr[RAX]);
	c = ctx_kernel(read_dr5);
	exec(&c);
	expect_done(&c);
	expect("DR5", read_dr7(), c.gpr[RAX]);
	write_cr4(cr4 | CR4_DE);
	c = ctx_kernel(read_dr4);
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	c = ctx_kernel(write_dr4);
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	write_cr4(cr4);
	test_end();

	test_begin("debug: DR7.GD");
	write_dr7(DR7_1 | BIT(13));
	c = ctx_kernel(read_dr6_insn);
	exec(&c);
	expect_db(&c, (u64)read_dr6_insn, DR6_BD); /* a fault */
	expect("GD cleared", DR7_1, read_dr7());
	test_end();
	clear_debug();
}

/* ---- instruction breakpoints ------------------------------------------------------------------
 */

SNIPPET(line, "xor %eax, %eax; line1: inc %eax; .globl line2; line2: inc %eax; .byte 0x66, 0x66; "
	      "nop; line3: inc %eax");
SNIPPET(loop2, "mov $2, %ecx; loop2_at: inc %eax; loop loop2_at");
SNIPPET(bp_ud2, "bp_ud2_at: ud2");
SNIPPET(bp_mov_ss, "mov %ss, %eax; mov %eax, %ss; bp_mov_ss_at: inc %ecx; inc %ecx");
extern u8 line1[], line2[], line3[], loop2_at[], bp_ud2_at[], bp_mov_ss_at[];

static void test_instruction(void)
{
	struct ctx c;

	for (int user = 0; user < 2; user++) {
		char name[64];

		snprintf(name, sizeof(name), "debug: instruction breakpoints, CPL %d",
			 user ? 3 : 0);
		test_begin(name);
		for (u32 n = 0; n < 4; n++) {
			clear_debug();
			set_address(n, at(line2, user));
			write_dr7(DR7_1 | dr7_bits(n, EXEC, 1));
			test_context("DR%u", n);
			c = context(line, user);
			exec(&c);
			expect_db(&c, at(line2, user), BIT(n));
			expect("not executed yet", 1, c.gpr[RAX]);
			expect("RF saved as it was", 0, c.rflags & FL_RF);
			write_dr6(0xffff0ff0);
			exec(&c); /* again without RF */
			expect_db(&c, at(line2, user), BIT(n));
			c.rflags |= FL_RF;
			exec(&c);
			expect_done(&c);
			expect("all executed", 3, c.gpr[RAX]);
		}
		test_context(NULL);
		clear_debug();
		/* Disabled: nothing. In the middle of an instruction: nothing. */
		set_address(0, at(line2, user));
		c = context(line, user);
		exec(&c);
		expect_done(&c);
		set_address(0, at(line2, user) + 1);
		write_dr7(DR7_1 | dr7_bits(0, EXEC, 1));
		c = context(line, user);
		exec(&c);
		expect_done(&c);
		/* At the first of its prefixes. */
		set_address(0, at(line2, user) + 2);
		c = context(line, user);
		exec(&c);
		expect_db(&c, at(line2, user) + 2, 1);
		/* At the very first instruction entered by IRET. */
		set_address(0, at(line, user));
		c = context(line, user);
		exec(&c);
		expect_db(&c, at(line, user), 1);
		clear_debug();
		test_end();
	}

	test_begin("debug: RF covers one instruction");
	set_address(1, (u64)loop2_at);
	write_dr7(DR7_1 | dr7_bits(1, EXEC, 1));
	c = context(loop2, false);
	exec(&c);
	expect_db(&c, (u64)loop2_at, 2);
	expect("ECX", 2, c.gpr[RCX]);
	c.rflags |= FL_RF;
	write_dr6(0xffff0ff0);
	exec(&c);
	expect_db(&c, (u64)loop2_at, 2);
	expect("ECX", 1, c.gpr[RCX]);
	c.rflags |= FL_RF;
	exec(&c);
	expect_done(&c);
	clear_debug();
	test_end();

	/* 18.3.1.1: RF is set in what a fault saves, so that the handler's IRET does not meet the
	 * instruction breakpoint a second time. */
	test_begin("debug: faults save RF = 1, traps and INT n do not");
	c = context(bp_ud2, true);
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	expect("#UD", FL_RF, c.rflags & FL_RF);
	c = ctx_user(put_code("\x8b\x06", 2));
	c.gpr[RSI] = TEST_HIGH;
	exec(&c);
	expect_trap(&c, PF, PF_U);
	expect("#PF", FL_RF, c.rflags & FL_RF);
	c = ctx_user(put_code("\xf4", 1));
	exec(&c);
	expect_trap(&c, GP, 0);
	expect("#GP", FL_RF, c.rflags & FL_RF);
	c = ctx_user(put_code("\xcc", 1));
	exec(&c);
	expect("#BP", 0, c.rflags & FL_RF);
	c = ctx_user(put_code("\xcd\x81", 2));
	exec(&c);
	expect_done(&c);
	expect("INT n", 0, c.rflags & FL_RF);
	test_end();

	test_begin("debug: the breakpoint comes before the instruction's own fault");
	set_address(0, (u64)bp_ud2_at);
	write_dr7(DR7_1 | dr7_bits(0, EXEC, 1));
	c = context(bp_ud2, false);
	exec(&c);
	expect_db(&c, (u64)bp_ud2_at, 1);
	c.rflags |= FL_RF;
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	clear_debug();
	test_end();

	/* 6.8.3: after a load of SS instruction breakpoints and single-step traps wait. */
	test_begin("debug: MOV SS suppresses an instruction breakpoint behind it");
	set_address(0, (u64)bp_mov_ss_at);
	write_dr7(DR7_1 | dr7_bits(0, EXEC, 1));
	c = context(bp_mov_ss, false);
	exec(&c);
	expect_done(&c);
	expect("ECX", 2, c.gpr[RCX]);
	clear_debug();
	test_end();
}

void test_registers(void)
{
	test_access();
	test_aliases();
	test_instruction();
}
