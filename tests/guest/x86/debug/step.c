/* Single steps. */
#include "debug.h"

/* ---- single step --------------------------------------------------------------------------------
 */

SNIPPET(steps,
	"nop; inc %eax; jmp 1f; ud2; 1: push %rax; pop %rcx; mov (%rsi), %rax; mov %rax, 8(%rsi)\n"
	"cpuid; rdtsc; xor %ecx, %ecx; jz 2f; ud2; 2: call 3f; 3: add $8, %rsp; addps %xmm0, "
	"%xmm0\n"
	"lock incl (%rsi); xchg %eax, (%rsi); sub %edx, %edx; nop; steps_end_at:");
extern u8 steps_end_at[];
static const u8 step_offsets[] = {1,  3,  7,  8,  9,  12, 16, 18, 20,
				  22, 26, 31, 35, 38, 41, 43, 45, 46};

static void test_each(bool user)
{
	struct ctx c = context(steps, user);
	char name[64];

	snprintf(name, sizeof(name), "debug: single step over ordinary instructions, CPL %d",
		 user ? 3 : 0);
	test_begin(name);
	expect("offsets are those of the snippet", (u64)(steps_end_at - steps),
	       step_offsets[ARRAY_SIZE(step_offsets) - 1]);
	c.rflags |= FL_TF;
	for (u32 i = 0; i < ARRAY_SIZE(step_offsets); i++) {
		write_dr6(0xffff0ff0);
		exec(&c);
		test_context("step %u", i);
		expect_db(&c, at(steps, user) + step_offsets[i], DR6_BS);
		expect("TF saved", FL_TF, c.rflags & FL_TF);
		if (c.vector != DB)
			break;
	}
	/* INT n enters its handler with TF clear and no trap before it (18.3.1.4). */
	write_dr6(0xffff0ff0);
	exec(&c);
	test_context("INT");
	expect_done(&c);
	expect("TF saved", FL_TF, c.rflags & FL_TF);
	expect("DR6", 0, c.dr6 & DR6_LOW);
	test_context(NULL);
	test_end();
}

SNIPPET(step_rep, "rep movsb; nop");
SNIPPET(step_rep0, "rep movsb; nop");
SNIPPET(step_repe, "repe cmpsb; nop");
SNIPPET(step_movss, "mov %eax, %ss; inc %ecx; inc %ecx");
SNIPPET32(step_popss, "push %ss; pop %ss; inc %ecx; inc %ecx");
SNIPPET(step_popf_set, "popfq; inc %ecx; inc %ecx");
SNIPPET(step_popf_clear, "popfq; inc %ecx");
SNIPPET(step_iret, "iretq");
SNIPPET(step_target, "inc %ecx; inc %ecx");
SNIPPET(step_sti, "sti; inc %ecx; cli");
SNIPPET(step_fault, "mov (%rsi), %rax; nop");
SNIPPET(step_syscall, "syscall; nop");
SNIPPET(step_sysret, "sysretq");
SNIPPET(step_cr, "mov %cr3, %rax; mov %rax, %cr3; nop; invlpg (%rsi); nop");

static void step(struct ctx *c)
{
	write_dr6(0xffff0ff0);
	c->rflags |= FL_TF;
	exec(c);
}

static void test_step_special(void)
{
	struct ctx c;

	/* 18.3.1.4 and vol. 2 REP: a trap after every iteration. */
	test_begin("debug: single step over REP MOVS stops after each iteration");
	for (u64 i = 0; i < 8; i++)
		((u8 *)data)[i] = (u8)(i + 1);
	c = context(step_rep, true);
	c.gpr[RDI] += 64;
	c.gpr[RCX] = 4;
	for (u32 i = 1; i <= 4; i++) {
		step(&c);
		test_context("iteration %u", i);
		expect_db(&c, at(step_rep, true) + (i == 4 ? 2 : 0), DR6_BS);
		expect("RCX", 4 - i, c.gpr[RCX]);
		expect("byte", i, ((u8 *)data)[63 + i]);
	}
	test_context("zero count");
	c = context(step_rep0, true);
	c.gpr[RCX] = 0;
	step(&c);
	expect_db(&c, at(step_rep0, true) + 2, DR6_BS);
	test_context("REPE CMPS that ends by ZF");
	c = context(step_repe, true);
	c.gpr[RDI] += 1; /* 1 against 2: differ at once */
	c.gpr[RCX] = 4;
	step(&c);
	expect_db(&c, at(step_repe, true) + 2, DR6_BS);
	expect("RCX", 3, c.gpr[RCX]);
	test_context(NULL);
	test_end();

	test_begin("debug: single step skips the instruction behind MOV SS and POP SS");
	c = context(step_movss, false);
	c.gpr[RAX] = SEL_KDATA;
	c.gpr[RCX] = 0;
	step(&c);
	expect_db(&c, (u64)step_movss + 4, DR6_BS);
	expect("ECX", 1, c.gpr[RCX]);
	c = context(step_movss, true);
	c.gpr[RAX] = SEL_UDATA;
	step(&c);
	expect_db(&c, at(step_movss, true) + 4, DR6_BS);
	c = ctx_user32(step_popss);
	step(&c); /* push */
	expect_db(&c, at(step_popss, true) + 1, DR6_BS);
	step(&c); /* pop and inc */
	expect_db(&c, at(step_popss, true) + 3, DR6_BS);
	expect("ECX", 1, (u32)c.gpr[RCX]);
	test_end();

	test_begin("debug: single step and POPF");
	c = context(step_popf_set, true);
	c.gpr[RSP] -= 8;
	*(u64 *)(c.gpr[RSP] - USER_ALIAS) = FL_FIXED | FL_TF;
	write_dr6(0xffff0ff0);
	exec(&c); /* TF set by POPF: the trap comes after the next instruction */
	expect_db(&c, at(step_popf_set, true) + 3, DR6_BS);
	c = context(step_popf_clear, true);
	c.gpr[RSP] -= 8;
	*(u64 *)(c.gpr[RSP] - USER_ALIAS) = FL_FIXED;
	step(&c); /* TF was set when it began: the trap comes, with TF clear in what is saved */
	expect_db(&c, at(step_popf_clear, true) + 1, DR6_BS);
	expect("TF saved", 0, c.rflags & FL_TF);
	test_end();

	test_begin("debug: IRET that sets TF traps after the next instruction");
	c = context(step_iret, false);
	c.gpr[RSP] -= 64;
	u64 *sp = (u64 *)c.gpr[RSP];

	sp[0] = at(step_target, true);
	sp[1] = SEL_UCODE;
	sp[2] = FL_FIXED | FL_TF;
	sp[3] = c.gpr[RSP] + USER_ALIAS;
	sp[4] = SEL_UDATA;
	c.gpr[RCX] = 0;
	write_dr6(0xffff0ff0);
	exec(&c);
	expect_db(&c, at(step_target, true) + 2, DR6_BS);
	expect("ECX", 1, c.gpr[RCX]);
	test_end();

	test_begin("debug: STI and CR loads are stepped like others");
	c = context(step_sti, false);
	step(&c);
	expect_db(&c, (u64)step_sti + 1, DR6_BS);
	c.rflags &= ~FL_IF;
	step(&c);
	expect_db(&c, (u64)step_sti + 3, DR6_BS);
	c = context(step_cr, false);
	for (u32 i = 0; i < 5; i++) {
		static const u8 off[] = {3, 6, 7, 10, 11};

		step(&c);
		expect_db(&c, (u64)step_cr + off[i], DR6_BS);
	}
	test_end();

	test_begin("debug: a fault comes instead of the trap");
	c = context(step_fault, true);
	c.gpr[RSI] = TEST_HIGH;
	step(&c);
	expect_trap(&c, PF, PF_U);
	expect("DR6", 0, c.dr6 & DR6_LOW);
	expect("TF saved", FL_TF, c.rflags & FL_TF);
	test_end();

	/* Vol. 2 SYSCALL: TF as FMASK leaves it decides; the trap, if any, is in the kernel. */
	test_begin("debug: single step over SYSCALL");
	wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_KCODE << 32);
	wrmsr(MSR_LSTAR, (u64)step_target);
	wrmsr(MSR_FMASK, FL_TF);
	c = context(step_syscall, true);
	step(&c);
	test_context("FMASK has TF");
	expect_done(&c);
	expect("R11 has TF", FL_TF, c.gpr[R11] & FL_TF);
	wrmsr(MSR_FMASK, 0);
	c = context(step_syscall, true);
	step(&c);
	test_context("FMASK has not");
	expect_db(&c, (u64)step_target, DR6_BS);
	test_context(NULL);
	test_end();

	/* SYSRET that sets TF: the trap is there before the first user instruction. */
	test_begin("debug: SYSRET that sets TF traps at once");
	c = context(step_sysret, false);
	c.gpr[RCX] = at(step_target, true);
	c.gpr[R11] = FL_FIXED | FL_TF;
	write_dr6(0xffff0ff0);
	exec(&c);
	expect_db(&c, at(step_target, true), DR6_BS);
	expect("CS", SEL_UCODE, c.cs);
	test_end();

	test_begin("debug: single step and breakpoints together");
	c = context(w8, false);
	c.gpr[RSI] = (u64)&data[4];
	set_address(0, (u64)&data[4]);
	write_dr7(DR7_1 | dr7_bits(0, WRITE, 8));
	step(&c);
	expect_db(&c, (u64)w8 + 3, DR6_BS | 1);
	clear_debug();
	set_address(0, (u64)w8 + 3);
	write_dr7(DR7_1 | dr7_bits(0, EXEC, 1));
	c = context(w8, false);
	c.gpr[RSI] = (u64)data;
	step(&c); /* the trap of this instruction has priority over the fault of the next (table
		     6-2) */
	expect_trap(&c, DB, NO_ERROR);
	expect("BS", DR6_BS, c.dr6 & DR6_BS);
	expect("RIP", (u64)w8 + 3, c.rip);
	clear_debug();
	test_end();
}

void test_step(void)
{
	test_each(false);
	test_each(true);
	test_step_special();
}
