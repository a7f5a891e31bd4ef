/* Data and I/O breakpoints. */
#include "debug.h"

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

void test_watch(void)
{
	test_data(false);
	test_data(true);
	test_data_more();
	test_io();
}
