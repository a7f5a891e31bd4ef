/* Debug registers and single stepping: SDM vol. 3B 18.2, 18.3. */
#include "guest.h"

#define DR6_BD	BIT(13)
#define DR6_BS	BIT(14)
#define DR6_LOW 0xe00full /* B0-B3, BD, BS, BT */
#define DR7_1	BIT(10)	  /* reads as one */

enum { EXEC, WRITE, IO, RW };

static void clear_debug(void)
{
	write_dr7(DR7_1);
	write_dr6(0xffff0ff0);
	/* DR6 may report breakpoints that are not enabled (18.2.3): leave no address behind. */
	write_dr0(0);
	write_dr1(0);
	write_dr2(0);
	write_dr3(0);
}

/* len in bytes; enabled locally for even n, globally for odd. */
static u64 dr7_bits(u32 n, u32 type, u32 len)
{
	u64 l = len == 1 ? 0 : len == 2 ? 1 : len == 8 ? 2 : 3;

	return BIT(2 * n + (n & 1)) | (u64)type << (16 + 4 * n) | l << (18 + 4 * n);
}

static void set_address(u32 n, u64 va)
{
	switch (n) {
	case 0: write_dr0(va); break;
	case 1: write_dr1(va); break;
	case 2: write_dr2(va); break;
	default: write_dr3(va);
	}
}

static u64 data[16] __attribute__((aligned(64)));

static struct ctx context(u8 *code, bool user)
{
	struct ctx c = user ? ctx_user(code) : ctx_kernel(code);

	c.gpr[RSI] = c.gpr[RDI] = (u64)(user ? user_alias(data) : data);
	return c;
}

static u64 at(u8 *label, bool user)
{
	return (u64)(user ? user_alias(label) : label);
}

static void expect_db(const struct ctx *c, u64 rip, u64 bits)
{
	expect_trap(c, DB, NO_ERROR);
	expect("RIP", rip, c->rip);
	expect("DR6", bits, c->dr6 & DR6_LOW);
}

/* ---- registers ------------------------------------------------------------------------------- */

static void test_registers(void)
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

SNIPPET(line,
	"xor %eax, %eax; line1: inc %eax; line2: inc %eax; .byte 0x66, 0x66; nop; line3: inc %eax");
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

/* ---- data breakpoints ---------------------------------------------------------------------------
 */

SNIPPET(r1, "mov (%rsi), %al; nop");
SNIPPET(r2, "mov (%rsi), %ax; nop");
SNIPPET(r4, "mov (%rsi), %eax; nop");
SNIPPET(r8, "mov (%rsi), %rax; nop");
SNIPPET(w1, "mov %al, (%rsi); nop");
SNIPPET(w2, "mov %ax, (%rsi); nop");
SNIPPET(w4, "mov %eax, (%rsi); nop");
SNIPPET(w8, "mov %rax, (%rsi); nop");
SNIPPET(wxmm, "movups %xmm0, (%rsi); nop");
SNIPPET(rmw, "addl $1, (%rsi); nop");
SNIPPET(xchg_insn, "xchg %eax, (%rsi); nop");
SNIPPET(cmpxchg_fail, "lock cmpxchg %ecx, (%rsi); nop");
SNIPPET(push_insn, "push %rax; nop");
SNIPPET(pop_insn, "pop %rax; nop");
SNIPPET(rep_stos, "rep stosb");
SNIPPET(rep_movs, "rep movsq");
SNIPPET(bp_fst, "fld1; fstpt (%rsi); nop");
SNIPPET(lea_insn, "lea (%rsi), %rax; prefetcht0 (%rsi); nop");

static u32 insn_len(const u8 *code)
{
	for (u32 n = 1; n < 16; n++)
		if (code[n] == 0x90 && code[n + 1] == 0xcd)
			return n;
	return 0;
}

static void test_data(bool user)
{
	static const struct {
		u8 *code;
		u32 size;
		bool write;
	} ops[] = {
		{r1, 1, false}, {r2, 2, false}, {r4, 4, false}, {r8, 8, false},	  {w1, 1, true},
		{w2, 2, true},	{w4, 4, true},	{w8, 8, true},	{wxmm, 16, true},
	};
	char name[64];

	snprintf(name, sizeof(name), "debug: data breakpoints, CPL %d", user ? 3 : 0);
	test_begin(name);
	for (u32 len = 1; len <= 8; len *= 2) {
		for (u32 type = WRITE; type <= RW; type += RW - WRITE) {
			u64 watch = (user ? (u64)user_alias(data) : (u64)data) + 32;

			clear_debug();
			set_address(len & 3, watch);
			for (u32 i = 0; i < ARRAY_SIZE(ops); i++) {
				for (s64 d = -(s64)ops[i].size - 1; d <= (s64)len + 1; d++) {
					struct ctx c = context(ops[i].code, user);
					bool hit = d + (s64)ops[i].size > 0 && d < (s64)len &&
						   (type == RW || ops[i].write);

					write_dr6(0xffff0ff0);
					write_dr7(DR7_1 | dr7_bits(len & 3, type, len));
					c.gpr[RSI] = watch + (u64)d;
					exec(&c);
					write_dr7(DR7_1);
					test_context("%s, %u watched, %s of %u at %d",
						     type == RW ? "RW" : "W", len,
						     ops[i].write ? "write" : "read", ops[i].size,
						     (int)d);
					if (hit) /* a trap: after the instruction */
						expect_db(&c,
							  at(ops[i].code, user) +
								  insn_len(ops[i].code),
							  BIT(len & 3));
					else
						expect_done(&c);
				}
			}
		}
	}
	clear_debug();
	test_context(NULL);
	test_end();
}

static void test_data_more(void)
{
	static const struct {
		const char *name;
		u8 *code;
		u32 type;
		bool hit, stack;
	} rows[] = {
		{"add to memory", rmw, WRITE, true, false},
		{"xchg", xchg_insn, WRITE, true, false},
		{"lock cmpxchg that fails writes", cmpxchg_fail, WRITE, true, false},
		{"push", push_insn, WRITE, true, true},
		{"pop, W", pop_insn, WRITE, false, true},
		{"pop, RW", pop_insn, RW, true, true},
		{"lea, prefetch", lea_insn, RW, false, false},
	};
	struct ctx c;

	test_begin("debug: data breakpoints and other instructions");
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		u64 watch = (u64)user_alias(&data[4]);

		data[4] = 77;
		set_address(2, watch);
		write_dr6(0xffff0ff0);
		write_dr7(DR7_1 | dr7_bits(2, rows[i].type, 8));
		c = context(rows[i].code, true);
		c.gpr[RAX] = 1;
		c.gpr[RSI] = watch;
		if (rows[i].stack)
			c.gpr[RSP] = rows[i].code == push_insn ? watch + 8 : watch;
		exec(&c);
		write_dr7(DR7_1);
		test_context("%s", rows[i].name);
		if (rows[i].hit)
			expect_db(&c, at(rows[i].code, true) + insn_len(rows[i].code), 4);
		else
			expect_done(&c);
	}
	test_context(NULL);
	test_end();

	test_begin("debug: two breakpoints in one instruction are both reported");
	set_address(0, (u64)&data[4]);
	set_address(3, (u64)&data[4] + 4);
	write_dr6(0xffff0ff0);
	write_dr7(DR7_1 | dr7_bits(0, WRITE, 4) | dr7_bits(3, RW, 2));
	c = context(w8, false);
	c.gpr[RSI] = (u64)&data[4];
	exec(&c);
	expect_db(&c, (u64)w8 + 3, 1 | 8);
	clear_debug();
	test_end();

	/* 18.3.1.2: after the iteration, or after the group of a fast-string operation: not later
	 * than the instruction, not before the byte was written. */
	test_begin("debug: data breakpoint in the middle of REP STOS");
	memset(data, 0, sizeof(data));
	set_address(0, (u64)data + 40);
	write_dr7(DR7_1 | dr7_bits(0, WRITE, 1));
	c = context(rep_stos, false);
	c.gpr[RCX] = 100;
	c.gpr[RAX] = 0xab;
	exec(&c);
	write_dr7(DR7_1);
	expect_trap(&c, DB, NO_ERROR);
	expect("B0", 1, c.dr6 & DR6_LOW);
	expect("byte written", 0xab, ((u8 *)data)[40]);
	expect("RDI and RCX agree", 100, c.gpr[RDI] - (u64)data + c.gpr[RCX]);
	expect("RIP", c.gpr[RCX] ? (u64)rep_stos : (u64)rep_stos + 2, c.rip);
	exec(&c);
	expect_done(&c);
	expect("RDI", (u64)data + 100, c.gpr[RDI]);
	clear_debug();
	test_end();

	/* Data that are read to execute are no data. A faulting store is none either. */
	test_begin("debug: no data breakpoint by fetch, by a fault, when disabled");
	set_address(0, (u64)line2);
	write_dr7(DR7_1 | dr7_bits(0, RW, 4));
	c = context(line, false);
	exec(&c);
	expect_done(&c);
	u64 va = TEST_HIGH + 0x10000, *pte = map_page(va, (u64)alloc_pages(1), PTE_P | PTE_U);

	flush_tlb();
	set_address(0, va + 8);
	write_dr6(0xffff0ff0);
	write_dr7(DR7_1 | dr7_bits(0, WRITE, 8));
	c = context(w8, true);
	c.gpr[RSI] = va + 8;
	exec(&c);
	expect_trap(&c, PF, PF_P | PF_W | PF_U);
	expect("DR6", 0, c.dr6 & DR6_LOW);
	*pte |= PTE_W;
	invlpg(va);
	exec(&c);
	expect_db(&c, at(w8, true) + 3, 1);
	write_dr7(DR7_1);
	c = context(w8, true);
	c.gpr[RSI] = va + 8;
	exec(&c);
	expect_done(&c);
	clear_debug();
	test_end();
}

SNIPPET(out_al, "out %al, %dx; nop");
SNIPPET(in_al, "in %dx, %al; nop");

static void test_io(void)
{
	u64 cr4 = read_cr4();
	struct ctx c;

	test_begin("debug: I/O breakpoints");
	write_cr4(cr4 | CR4_DE);
	set_address(1, 0x80);
	for (u32 port = 0x7f; port <= 0x81; port++) {
		for (int in = 0; in < 2; in++) {
			u8 *code = in ? in_al : out_al;

			write_dr6(0xffff0ff0);
			write_dr7(DR7_1 | dr7_bits(1, IO, 1));
			c = context(code, false);
			c.gpr[RDX] = port;
			exec(&c);
			write_dr7(DR7_1);
			test_context("port 0x%x", port);
			if (port == 0x80)
				expect_db(&c, (u64)code + 1, 2);
			else
				expect_done(&c);
		}
	}
	write_cr4(cr4);
	clear_debug();
	test_context(NULL);
	test_end();
}

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

static void test_step(bool user)
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

void test_main(void)
{
	test_registers();
	test_aliases();
	test_instruction();
	test_data(false);
	test_data(true);
	test_data_more();
	test_io();
	test_step(false);
	test_step(true);
	test_step_special();
}
