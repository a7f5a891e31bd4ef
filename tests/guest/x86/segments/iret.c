/* IRET. */
#include "segments.h"

/* ---- IRET ------------------------------------------------------------------------------------ */

SNIPPET(iretq_insn, "iretq");
SNIPPET(iretl_insn, "iretl");
/* 48 is DEC EAX in a 32-bit segment, a REX prefix in 64-bit mode: EAX 5 becomes 5 + 2 - 1 or 5 + 2.
 */
SNIPPET(mode_probe, ".byte 0x48, 0x83, 0xc0, 0x02");

static struct ctx do_iret(const void *code, u64 rip, u64 cs, u64 rflags, u64 rsp, u64 ss, bool user)
{
	struct ctx c = user ? ctx_user(code) : ctx_kernel(code);
	u64 *sp;

	c.gpr[RSP] -= 64;
	sp = (u64 *)(user ? c.gpr[RSP] - USER_ALIAS : c.gpr[RSP]);
	sp[0] = rip;
	sp[1] = cs;
	sp[2] = rflags;
	sp[3] = rsp;
	sp[4] = ss;
	c.gpr[RAX] = 5;
	exec(&c);
	return c;
}

void test_iret(void)
{
	u64 k = (u64)mode_probe, u = (u64)user_alias(mode_probe);
	u64 ksp = (u64)this_cpu() + STACK_USER - 128, usp = ksp + USER_ALIAS;
	struct ctx c;

	test_begin("segments: IRET within CPL 0");
	c = do_iret(iretq_insn, k, SEL_KCODE, FL_FIXED | FL_CF | FL_IOPL3, ksp, SEL_KDATA, false);
	expect_done(&c);
	expect("CS", SEL_KCODE, c.cs);
	expect("SS", SEL_KDATA, c.ss);
	expect("RSP", ksp, c.gpr[RSP]); /* always popped in 64-bit mode */
	expect("RIP", k + 6, c.rip);
	expect("flags but for the ADD", FL_IOPL3, c.rflags & (FL_IOPL3 | FL_IF));
	expect("64-bit", 7, c.gpr[RAX]);
	c = do_iret(iretq_insn, k, SEL_KCODE, FL_FIXED, ksp, 0,
		    false); /* SS null: allowed at CPL 0 */
	expect_done(&c);
	expect("SS", 0, c.ss);
	test_end();

	test_begin("segments: IRET to CPL 3, 64-bit");
	c = do_iret(iretq_insn, u, SEL_UCODE, FL_FIXED | FL_IOPL3 | FL_ID, usp, SEL_UDATA, false);
	expect_done(&c);
	expect("CS", SEL_UCODE, c.cs);
	expect("SS", SEL_UDATA, c.ss);
	expect("RSP", usp, c.gpr[RSP]);
	expect("flags", FL_IOPL3 | FL_ID, c.rflags & (FL_IOPL3 | FL_ID | FL_NT | FL_IF));
	expect("64-bit", 7, c.gpr[RAX]);
	/* Segments that the outer level may not use become null (vol. 3A 5.8.6... RETURN-TO-OUTER).
	 */
	expect("DS", 0, c.ds);
	expect("ES", 0, c.es);
	expect("FS", 0, c.fs);
	expect("GS", 0, c.gs);
	test_end();

	test_begin("segments: IRET to CPL 3, compatibility mode, by IRETQ and IRETD");
	for (int i = 0; i < 2; i++) {
		if (i == 0) {
			c = do_iret(iretq_insn, u, SEL_UCODE32, FL_FIXED, usp, SEL_UDATA, false);
		} else {
			u32 *sp;

			c = ctx_kernel(iretl_insn);
			c.gpr[RSP] -= 64;
			sp = (u32 *)c.gpr[RSP];
			sp[0] = (u32)u;
			sp[1] = SEL_UCODE32;
			sp[2] = FL_FIXED;
			sp[3] = (u32)usp;
			sp[4] = SEL_UDATA;
			c.gpr[RAX] = 5;
			exec(&c);
		}
		test_context("form %d", i);
		expect_done(&c);
		expect("CS", SEL_UCODE32, c.cs);
		expect("32-bit", 6, (u32)c.gpr[RAX]);
		expect("RSP", usp, c.gpr[RSP]);
		expect("EIP", u + 6, c.rip);
	}
	test_context(NULL);
	test_end();

	test_begin("segments: IRET at CPL 3 leaves IOPL and IF alone");
	c = do_iret(iretq_insn, u, SEL_UCODE, FL_FIXED | FL_IOPL3 | FL_IF | FL_AC, usp, SEL_UDATA,
		    true);
	expect_done(&c);
	expect("flags", FL_AC, c.rflags & (FL_IOPL3 | FL_IF | FL_AC));
	c = do_iret(iretq_insn, u, SEL_UCODE32, FL_FIXED, usp, SEL_UDATA, true);
	expect_done(&c);
	expect("to compatibility mode within CPL 3", 6, (u32)c.gpr[RAX]);
	test_end();

	test_begin("segments: IRET with NT in long mode is #GP(0)");
	for (int user = 0; user < 2; user++) {
		c = user ? ctx_user(iretq_insn) : ctx_kernel(iretq_insn);
		c.rflags |= FL_NT;
		c.gpr[RSP] -= 64;
		exec(&c);
		expect_trap(&c, GP, 0);
		expect("RIP", (u64)(user ? user_alias(iretq_insn) : iretq_insn), c.rip);
	}
	test_end();

	test_begin("segments: IRET, bad CS, SS, RIP");
	slot(0, descriptor(0, 0xfffff, 0x7b, 0xa)); /* code, not present */
	slot(2, descriptor(0, 0xfffff, 0x73, 0xc)); /* data, not present */
	slot(3, descriptor(0, 0xfffff, 0xf1, 0xc)); /* read-only */
	slot(4, descriptor(0, 0xfffff, 0xdb, 0xa)); /* code, DPL 2 */
	slot(5, descriptor(0, 0xffff, 0xf2, 0));
	const struct {
		const char *name;
		u64 rip, cs, ss;
		u32 vector;
		u64 error;
		bool user;
	} rows[] = {
		{"CS null", u, 0, SEL_UDATA, GP, 0, false},
		{"CS null with RPL 3", u, 3, SEL_UDATA, GP, 0, false},
		{"CS beyond the GDT", u, 0x1ffb, SEL_UDATA, GP, 0x1ff8, false},
		{"CS in no LDT", u, 0xf, SEL_UDATA, GP, 0xc, false},
		{"CS is data", u, SEL_UDATA, SEL_UDATA, GP, SEL_UDATA & ~3, false},
		{"CS not present", u, SLOT(0) | 3, SEL_UDATA, NP, SLOT(0), false},
		{"CS with L and D", u, SLOT(1) | 3, SEL_UDATA, GP, SLOT(1), false},
		{"RPL 3, DPL 2", u, SLOT(4) | 3, SEL_UDATA, GP, SLOT(4), false},
		{"RPL 0, DPL 3", u, SEL_UCODE & ~3, SEL_UDATA, GP, SEL_UCODE & ~3, false},
		{"to CPL 0 from CPL 3", k, SEL_KCODE, SEL_KDATA, GP, SEL_KCODE, true},
		{"SS null to CPL 3, 64-bit", u, SEL_UCODE, 3, GP, 0, false},
		{"SS null to compatibility mode", u, SEL_UCODE32, 3, GP, 0, false},
		{"SS with the wrong RPL", u, SEL_UCODE, SEL_UDATA & ~3, GP, SEL_UDATA & ~3, false},
		{"SS not present", u, SEL_UCODE, SLOT(2) | 3, SS, SLOT(2), false},
		{"SS read-only", u, SEL_UCODE, SLOT(3) | 3, GP, SLOT(3), false},
		{"SS is code", u, SEL_UCODE, SEL_UCODE, GP, SEL_UCODE & ~3, false},
		{"SS with DPL 0", u, SEL_UCODE, SEL_KDATA | 3, GP, SEL_KDATA, false},
		{"SS beyond the GDT", u, SEL_UCODE, 0x1ffb, GP, 0x1ff8, false},
		{"RIP not canonical", 0x800000000000, SEL_KCODE, SEL_KDATA, GP, 0, false},
		{"RIP not canonical, outer", 0x800000000000, SEL_UCODE, SEL_UDATA, GP, 0, false},
	};

	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		c = do_iret(iretq_insn, rows[i].rip, rows[i].cs, FL_FIXED, usp, rows[i].ss,
			    rows[i].user);
		test_context("%s", rows[i].name);
		expect_trap(&c, rows[i].vector, rows[i].error);
		expect("RIP", (u64)(rows[i].user ? user_alias(iretq_insn) : iretq_insn), c.rip);
		expect("CS", rows[i].user ? SEL_UCODE : SEL_KCODE, c.cs);
	}
	test_context(NULL);
	test_end();

	/* Vol. 3A 6.7.1, vol. 2 IRET: frame on a missing page. */
	test_begin("segments: IRET with its frame over a missing page");
	u64 va = TEST_HIGH + 0x5000;

	map_page(va, (u64)alloc_pages(1), PTE_P | PTE_W);
	*entry_of(va + PAGE_SIZE, 1) = 0;
	flush_tlb();
	c = ctx_kernel(iretq_insn);
	c.gpr[RSP] = va + PAGE_SIZE - 24;
	((u64 *)c.gpr[RSP])[0] = k;
	((u64 *)c.gpr[RSP])[1] = SEL_KCODE;
	((u64 *)c.gpr[RSP])[2] = FL_FIXED | FL_IOPL3;
	exec(&c);
	expect_trap(&c, PF, 0);
	expect("CR2", va + PAGE_SIZE, c.cr2);
	expect("RIP", (u64)iretq_insn, c.rip);
	expect("RSP", va + PAGE_SIZE - 24, c.gpr[RSP]);
	expect("flags not loaded", 0, c.rflags & FL_IOPL3);
	test_end();
}
