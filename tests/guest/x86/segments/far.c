/* Far jumps, calls and returns, call gates. */
#include "segments.h"

/* ---- far transfers ----------------------------------------------------------------------------
 */

SNIPPET(ljmp32, "ljmpl *(%rsi)");
SNIPPET(ljmp64, "rex.w ljmp *(%rsi)");
SNIPPET(lcall32, "lcalll *(%rsi)");
SNIPPET(lcall64, "rex.w lcall *(%rsi)");
SNIPPET(lretq_insn, "lretq");
SNIPPET(lretl_insn, "lretl");
SNIPPET32(from32, "ljmp *(%esi)");
SNIPPET32(lcall_from32, "lcall *(%esi)");
SNIPPET(gate_target, "mov %ss, %ecx");

struct far {
	u64 rip;
	u16 cs;
} __attribute__((packed));

void test_far(void)
{
	u64 k = (u64)mode_probe, u = (u64)user_alias(mode_probe);
	u8 *m = insn_data, *um = user_alias(insn_data);
	struct cpu *cpu = this_cpu();
	struct ctx c;

	test_begin("segments: far JMP between modes");
	*(struct far *)m = (struct far){u, SEL_UCODE};
	c = ctx_user(ljmp64);
	c.gpr[RSI] = (u64)um;
	c.gpr[RAX] = 5;
	exec(&c);
	if (c.vector == VEC_DONE || cpuid(0, 0).b == 0x756e6547) { /* AMD has no m16:64 */
		expect_done(&c);
		expect("m16:64", 7, c.gpr[RAX]);
	}
	*(u32 *)m = (u32)u;
	*(u16 *)(m + 4) = SEL_UCODE32;
	c = ctx_user(ljmp32);
	c.gpr[RSI] = (u64)um;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("to compatibility mode", 6, (u32)c.gpr[RAX]);
	expect("CS", SEL_UCODE32, c.cs);
	*(u16 *)(m + 4) = SEL_UCODE;
	c = ctx_user32(from32);
	c.gpr[RSI] = (u64)um;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("back to 64-bit mode", 7, c.gpr[RAX]);
	*(u16 *)(m + 4) = SEL_KCODE;
	*(u32 *)m = (u32)k;
	c = ctx_kernel(ljmp32);
	c.gpr[RSI] = (u64)m;
	exec(&c);
	expect_done(&c);
	test_end();

	test_begin("segments: far CALL pushes, far RET pops");
	*(u32 *)m = (u32)u;
	*(u16 *)(m + 4) = SEL_UCODE32;
	c = ctx_user(lcall32);
	c.gpr[RSI] = (u64)um;
	c.gpr[RAX] = 5;
	u64 sp = c.gpr[RSP];

	exec(&c);
	expect_done(&c);
	expect("mode", 6, (u32)c.gpr[RAX]);
	expect("RSP", sp - 8, c.gpr[RSP]);
	expect("EIP pushed", (u32)(u64)user_alias(lcall32) + 2, *(u32 *)(sp - 8 - USER_ALIAS));
	expect("CS pushed", SEL_UCODE, *(u16 *)(sp - 4 - USER_ALIAS));
	c = ctx_user32(lcall_from32);
	*(u16 *)(m + 4) = SEL_UCODE;
	c.gpr[RSI] = (u64)um;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("to 64-bit mode", 7, c.gpr[RAX]);
	expect("CS pushed", SEL_UCODE32, *(u16 *)(sp - 4 - USER_ALIAS));
	c = ctx_kernel(lretq_insn); /* to the outer level */
	c.gpr[RSP] -= 64;
	((u64 *)c.gpr[RSP])[0] = u;
	((u64 *)c.gpr[RSP])[1] = SEL_UCODE;
	((u64 *)c.gpr[RSP])[2] = sp - 128;
	((u64 *)c.gpr[RSP])[3] = SEL_UDATA;
	exec(&c);
	expect_done(&c);
	expect("CS", SEL_UCODE, c.cs);
	expect("SS", SEL_UDATA, c.ss);
	expect("RSP", sp - 128, c.gpr[RSP]);
	c = ctx_kernel(lretl_insn);
	c.gpr[RSP] -= 64;
	((u32 *)c.gpr[RSP])[0] = (u32)u;
	((u32 *)c.gpr[RSP])[1] = SEL_UCODE32;
	((u32 *)c.gpr[RSP])[2] = (u32)sp - 128;
	((u32 *)c.gpr[RSP])[3] = SEL_UDATA;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("to compatibility mode", 6, (u32)c.gpr[RAX]);
	test_end();

	test_begin("segments: far JMP and CALL, bad selectors");
	slot(0, descriptor(0, 0xfffff, 0x7b, 0xa)); /* not present */
	slot(1, descriptor(0, 0xfffff, 0xff, 0xc)); /* conforming, DPL 3 */
	slot(2, descriptor(0, 0xfffff, 0x9f, 0xa)); /* conforming, DPL 0 */
	const struct {
		const char *name;
		u16 cs;
		u32 vector;
		u64 error;
		bool kernel;
	} rows[] = {
		{"null", 0, GP, 0, false},
		{"null with RPL", 3, GP, 0, false},
		{"beyond the GDT", 0x1ffb, GP, 0x1ff8, false},
		{"data", SEL_UDATA, GP, SEL_UDATA & ~3, false},
		{"inner level", SEL_KCODE, GP, SEL_KCODE, false},
		{"outer level", SEL_UCODE, GP, SEL_UCODE & ~3, true},
		{"RPL above CPL", SEL_KCODE | 3, GP, SEL_KCODE, true},
		{"not present", SLOT(0) | 3, NP, SLOT(0), false},
		{"conforming, outer", SLOT(1) | 3, GP, SLOT(1), true},
		{"conforming, inner: no change of CPL", SLOT(2) | 3, VEC_DONE, NO_ERROR, false},
		{"TSS (no tasks in long mode)", SEL_TSS, GP, SEL_TSS, true},
	};

	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		u8 *const code[] = {ljmp32, lcall32};

		for (u32 j = 0; j < 2; j++) {
			*(u32 *)m = (u32)(rows[i].kernel ? k : u);
			*(u16 *)(m + 4) = rows[i].cs;
			c = rows[i].kernel ? ctx_kernel(code[j]) : ctx_user(code[j]);
			c.gpr[RSI] = (u64)(rows[i].kernel ? m : um);
			sp = c.gpr[RSP];
			exec(&c);
			test_context("%s, %s", j ? "call" : "jmp", rows[i].name);
			expect_trap(&c, rows[i].vector, rows[i].error);
			if (rows[i].vector != VEC_DONE)
				expect("RSP", sp, c.gpr[RSP]);
			else
				expect("CPL", 3, c.cs & 3);
		}
	}
	test_context(NULL);
	test_end();

	/* 64-bit call gate: vol. 3A 5.8.3.1, 5.8.5.1. */
	test_begin("segments: call gate from CPL 3 to CPL 0");
	u64 t = (u64)gate_target;

	slot(0, (t & 0xffff) | (u64)SEL_KCODE << 16 | 0xec00ull << 32 | (t >> 16 & 0xffff) << 48);
	slot(1, t >> 32);
	*(u32 *)m = 0;
	*(u16 *)(m + 4) = SLOT(0) | 3;
	c = ctx_user(lcall32);
	c.gpr[RSI] = (u64)um;
	sp = c.gpr[RSP];
	cpu->tss.rsp[0] = (u64)cpu + STACK_IST2;
	exec(&c);
	expect_done(&c);
	expect("CS", SEL_KCODE, c.cs);
	expect("SS is null", 0, c.gpr[RCX] & 0xffff);
	u64 *f = (u64 *)((u64)cpu + STACK_IST2 - 32);

	expect("RSP", (u64)f, c.gpr[RSP]);
	expect("RIP pushed", (u64)user_alias(lcall32) + 2, f[0]);
	expect("CS pushed", SEL_UCODE, f[1] & 0xffff);
	expect("RSP pushed", sp, f[2]);
	expect("SS pushed", SEL_UDATA, f[3] & 0xffff);
	cpu->tss.rsp[0] = (u64)cpu + STACK_IST1;
	slot(0, (t & 0xffff) | (u64)SEL_KCODE << 16 | 0x8c00ull << 32 | (t >> 16 & 0xffff) << 48);
	c = ctx_user(lcall32);
	c.gpr[RSI] = (u64)um;
	exec(&c);
	test_context("gate of DPL 0");
	expect_trap(&c, GP, SLOT(0));
	slot(0, (t & 0xffff) | (u64)SEL_KCODE << 16 | 0x6c00ull << 32 | (t >> 16 & 0xffff) << 48);
	c = ctx_user(lcall32);
	c.gpr[RSI] = (u64)um;
	exec(&c);
	test_context("gate not present");
	expect_trap(&c, NP, SLOT(0));
	test_end();
}
