/*
 * Segmentation where long mode still has it (compatibility mode), and control transfers between
 * privilege levels and modes: SDM vol. 3A chapters 3, 5 and 6, vol. 2 for each instruction.
 */
#include "insn.h"

#define SLOT(i) (SEL_TEST + 8 * (i))

static void slot(u32 i, u64 desc)
{
	this_cpu()->gdt[SLOT(i) / 8] = desc;
}

/* ---- limits --------------------------------------------------------------------------------- */

SNIPPET32(fs_read1, "movb %fs:(%esi), %al");
SNIPPET32(fs_read2, "movw %fs:(%esi), %ax");
SNIPPET32(fs_read4, "movl %fs:(%esi), %eax");
SNIPPET32(fs_read8, "fldl %fs:(%esi)");
SNIPPET32(fs_read10, "fldt %fs:(%esi)");
SNIPPET32(fs_write1, "movb %al, %fs:(%esi)");
SNIPPET32(fs_write2, "movw %ax, %fs:(%esi)");
SNIPPET32(fs_write4, "movl %eax, %fs:(%esi)");
SNIPPET32(es_stos, "stosl");
SNIPPET32(ds_lods, "lodsl");
SNIPPET32(ss_push, "push %eax");
SNIPPET32(ss_pop, "pop %eax");
SNIPPET32(ss_ebp, "movl (%ebp), %eax");
SNIPPET32(ds_add, "lock addl %eax, (%esi)");
SNIPPET32(cs_read, "movl %cs:(%esi), %eax");
SNIPPET32(cs_write, "movl %eax, %cs:(%esi)");
SNIPPET32(load_null_ds, "mov %eax, %ds; movl (%esi), %eax");
SNIPPET(null_ds_64, "mov %eax, %ds; movl (%rsi), %eax; mov %eax, %fs; mov %fs:(%rsi), %eax");

static u8 *buffer; /* 128 KiB; segments begin in its middle */
#define BASE ((u32)(u64)user_alias(buffer + 0x10000))

static struct ctx access(u8 *code, u32 sel_slot, u32 offset)
{
	struct ctx c = ctx_user32(code);

	c.fs = (u16)(SLOT(sel_slot) | 3);
	c.gpr[RSI] = offset;
	exec(&c);
	return c;
}

/* Vol. 3A 5.3: the last byte of the operand may not be beyond the limit; expand-down: no byte may
 * be at or below the limit, nor above 64 KiB - 1 or 4 GiB - 1 as B says. */
static void test_limits(void)
{
	static const struct {
		u8 *code;
		u32 size;
		bool write;
	} ops[] = {
		{fs_read1, 1, false}, {fs_read2, 2, false},   {fs_read4, 4, false},
		{fs_read8, 8, false}, {fs_read10, 10, false}, {fs_write1, 1, true},
		{fs_write2, 2, true}, {fs_write4, 4, true},
	};
	const struct {
		const char *name;
		u64 desc;
		u64 lo, hi; /* first and last byte that may be accessed */
		u64 at[4];  /* boundaries to look at */
	} segs[] = {
		{"byte limit", descriptor(BASE, 0x2fe, 0xf3, 4), 0, 0x2fe, {0, 0x2fe}},
		{"limit 0", descriptor(BASE, 0, 0xf3, 4), 0, 0, {0, 1}},
		{"page limit", descriptor(BASE, 1, 0xf3, 0xc), 0, 0x1fff, {0xfff, 0x1fff}},
		{"16-bit segment", descriptor(BASE, 0x7ff, 0xf3, 0), 0, 0x7ff, {0, 0x7ff}},
		{"expand down, 64 KiB",
		 descriptor(BASE - 0x8000, 0x0fff, 0xf7, 0),
		 0x1000,
		 0xffff,
		 {0xfff, 0x1000, 0xffff, 0x8000}},
		{"expand down, 4 GiB",
		 descriptor(BASE, 0xffff7fff & 0xfffff, 0xf7, 4),
		 0xf8000,
		 0xffffffff,
		 {0xfffffff8, 0xffffffff}},
		{"expand down, page limit",
		 descriptor(BASE, 0xffff7, 0xf7, 0xc),
		 0xffff8000,
		 0xffffffff,
		 {0xffff7fff, 0xffff8000, 0xffffffff}},
	};

	test_begin("segments: limits");
	asm volatile("fninit");
	for (u32 i = 0; i < ARRAY_SIZE(segs); i++) {
		slot(0, segs[i].desc);
		for (u32 j = 0; j < ARRAY_SIZE(segs[i].at); j++) {
			for (u32 k = 0; k < ARRAY_SIZE(ops); k++) {
				for (s64 d = -10; d <= 2; d++) {
					u64 off = segs[i].at[j] + (u64)d,
					    last = off + ops[k].size - 1;
					bool ok = off >= segs[i].lo && last <= segs[i].hi;
					struct ctx c;

					if (off > 0xffffffff)
						continue;
					/* Around the end of a 4 GiB segment that wraps: only what
					 * is surely inside or surely an error. */
					c = access(ops[k].code, 0, (u32)off);
					test_context("%s, offset 0x%lx size %u %s", segs[i].name,
						     off, ops[k].size,
						     ops[k].write ? "write" : "read");
					if (ok) {
						expect_done(&c);
					} else {
						expect_trap(&c, GP, 0);
						expect("RIP", (u64)user_alias(ops[k].code), c.rip);
					}
					asm volatile("fninit");
				}
			}
		}
	}
	test_context(NULL);
	test_end();
}

static void test_each_segment(void)
{
	struct ctx c;

	slot(0, descriptor(BASE, 0x7f, 0xf3, 4));

	test_begin("segments: ES and DS limits in string instructions");
	for (u32 off = 0x7c; off <= 0x7d; off++) {
		c = ctx_user32(es_stos);
		c.es = SLOT(0) | 3;
		c.gpr[RDI] = off;
		exec(&c);
		test_context("stos 0x%x", off);
		if (off == 0x7c)
			expect_done(&c);
		else
			expect_trap(&c, GP, 0);
		expect("EDI", off == 0x7c ? 0x80 : off, (u32)c.gpr[RDI]);
		c = ctx_user32(ds_lods);
		c.ds = SLOT(0) | 3;
		c.gpr[RSI] = off;
		exec(&c);
		test_context("lods 0x%x", off);
		if (off == 0x7c)
			expect_done(&c);
		else
			expect_trap(&c, GP, 0);
		expect("ESI", off == 0x7c ? 0x80 : off, (u32)c.gpr[RSI]);
		c = ctx_user32(ds_add);
		c.ds = SLOT(0) | 3;
		c.gpr[RSI] = off;
		exec(&c);
		test_context("lock add 0x%x", off);
		if (off == 0x7c)
			expect_done(&c);
		else
			expect_trap(&c, GP, 0);
	}
	test_context(NULL);
	test_end();

	test_begin("segments: stack limit is #SS(0)");
	/* Expand-up stack of 0x80 bytes; then an expand-down one, the usual kind, above 0x1000. */
	for (u32 down = 0; down < 2; down++) {
		u32 lo = down ? 0x1000 : 0, hi = down ? 0xffffffff : 0x7f;

		slot(0, down ? descriptor(BASE - 0x1000, 0xfff, 0xf7, 4)
			     : descriptor(BASE, 0x7f, 0xf3, 4));
		for (u32 sp = lo; sp <= lo + 8; sp++) {
			c = ctx_user32(ss_push);
			c.ss = SLOT(0) | 3;
			c.gpr[RSP] = sp;
			exec(&c);
			test_context("push at 0x%x, expand %s", sp, down ? "down" : "up");
			if (sp == lo && !down) {
				/* ESP wraps to 4 GiB - 4: beyond the limit */
				expect_trap(&c, SS, 0);
			} else if (sp - 4 >= lo && sp >= 4) {
				expect_done(&c);
				expect("ESP", sp - 4, (u32)c.gpr[RSP]);
			} else {
				expect_trap(&c, SS, 0);
				expect("ESP", sp, (u32)c.gpr[RSP]);
			}
		}
		if (down)
			continue;
		for (u32 sp = hi - 5; sp <= hi; sp++) {
			c = ctx_user32(ss_pop);
			c.ss = SLOT(0) | 3;
			c.gpr[RSP] = sp;
			exec(&c);
			test_context("pop at 0x%x", sp);
			if (sp + 3 <= hi)
				expect_done(&c);
			else
				expect_trap(&c, SS, 0);
			c = ctx_user32(ss_ebp);
			c.ss = SLOT(0) | 3;
			c.gpr[RBP] = sp;
			c.gpr[RSP] = 0x40;
			exec(&c);
			test_context("(%%ebp) at 0x%x", sp);
			if (sp + 3 <= hi)
				expect_done(&c);
			else
				expect_trap(&c, SS, 0);
		}
	}
	test_context(NULL);
	test_end();

	test_begin("segments: types: read-only, execute-only, code");
	slot(0, descriptor(BASE, 0xfffff, 0xf1, 0xc)); /* read-only */
	c = access(fs_read4, 0, 0);
	expect_done(&c);
	c = access(fs_write4, 0, 0);
	expect_trap(&c, GP, 0);
	slot(0, descriptor(BASE, 0xfffff, 0xfb, 0xc)); /* code, readable */
	c = access(fs_read4, 0, 0);
	expect_done(&c);
	c = access(fs_write4, 0, 0);
	expect_trap(&c, GP, 0);
	c = ctx_user32(cs_read);
	c.gpr[RSI] = BASE;
	exec(&c);
	expect_done(&c);
	c = ctx_user32(cs_write);
	c.gpr[RSI] = BASE;
	exec(&c);
	expect_trap(&c, GP, 0);
	slot(1, descriptor(0, 0xfffff, 0xf9, 0xc)); /* execute-only */
	c = ctx_user32(cs_read);
	c.cs = SLOT(1) | 3;
	c.gpr[RSI] = BASE;
	exec(&c);
	expect_trap(&c, GP, 0);
	test_end();

	test_begin("segments: null selector: #GP(0) at use, not in 64-bit mode");
	for (u32 sel = 0; sel < 4; sel++) {
		c = ctx_user32(load_null_ds);
		c.gpr[RAX] = sel;
		c.gpr[RSI] = BASE;
		exec(&c);
		expect_trap(&c, GP, 0);
		expect("RIP", (u64)user_alias(load_null_ds) + 2, c.rip);
		expect("DS", sel, c.ds);
		c = ctx_user(null_ds_64);
		c.gpr[RAX] = sel;
		c.gpr[RSI] = BASE;
		memset(buffer + 0x10000, 0, 8);
		exec(&c);
		expect_done(&c);
	}
	test_end();

	/* Base addresses count for FS and GS only in 64-bit mode; a limit never does. */
	test_begin("segments: 64-bit mode ignores limits, and bases of DS");
	slot(0, descriptor(BASE, 0, 0xf3, 4));
	*(u64 *)(buffer + 0x10010) = 0x1234567890abcdef;
	c = ctx_user(put_code("\x64\x48\x8b\x06", 4)); /* mov %fs:(%rsi), %rax */
	c.fs = SLOT(0) | 3;
	c.gpr[RSI] = 0x10;
	exec(&c);
	expect_done(&c);
	expect("through FS base", 0x1234567890abcdef, c.gpr[RAX]);
	c = ctx_user(put_code("\x3e\x48\x8b\x06", 4));
	c.ds = SLOT(0) | 3;
	c.gpr[RSI] = BASE + 0x10;
	exec(&c);
	expect_done(&c);
	expect("DS base ignored", 0x1234567890abcdef, c.gpr[RAX]);
	test_end();
}

/* The fetch is checked against the limit of CS, jumps at the jump (vol. 2 JMP). */
static void test_code_limit(void)
{
	static const u8 code[] = {0x90, 0x90, 0x90, 0xb8, 1, 2, 3, 4, 0xcd, VEC_DONE};
	u8 *at = put_code(code, sizeof(code));
	struct ctx c;

	test_begin("segments: CS limit");
	for (u32 limit = 0; limit < 12; limit++) {
		u32 want = limit < 1 ? 1 : limit < 2 ? 2 : limit < 7 ? 3 : limit < 9 ? 8 : 10;

		slot(0, descriptor((u32)(u64)user_alias(at), limit, 0xfb, 4));
		c = ctx_user32(at);
		c.cs = SLOT(0) | 3;
		c.rip = 0;
		exec(&c);
		test_context("limit %u", limit);
		if (limit < 9)
			expect_trap(&c, GP, 0);
		else
			expect_done(&c);
		expect("EIP", limit >= 2 && limit < 7 ? 3 : want, c.rip);
	}
	slot(0, descriptor((u32)(u64)user_alias(at), 9, 0xfb, 4));
	static const u8 *const jumps[] = {
		(const u8 *)"\xe9\x10\0\0\0", (const u8 *)"\xe8\x10\0\0\0",
		(const u8 *)"\x0f\x84\x10\0\0\0", (const u8 *)"\x68\x20\0\0\0\xc3"};
	for (u32 i = 0; i < ARRAY_SIZE(jumps); i++) {
		u8 *j = put_code(jumps[i], 6);
		u32 sp;

		slot(0, descriptor((u32)(u64)user_alias(j), 9, 0xfb, 4));
		c = ctx_user32(j);
		c.cs = SLOT(0) | 3;
		c.rip = 0;
		c.rflags |= FL_ZF;
		sp = (u32)c.gpr[RSP];
		exec(&c);
		test_context("jump %u", i);
		expect_trap(&c, GP, 0);
		expect("EIP", i == 3 ? 5 : 0, c.rip);
		expect("ESP", i == 3 ? sp - 4 : sp, (u32)c.gpr[RSP]);
	}
	test_context(NULL);
	test_end();
}

/* ---- LAR, LSL, VERR, VERW -------------------------------------------------------------------- */

SNIPPET(lar, "lar %eax, %ecx");
SNIPPET(lsl, "lsl %eax, %ecx");
SNIPPET(verr, "verr %ax");
SNIPPET(verw, "verw %ax");

static void test_verify(void)
{
	/* Columns: ZF of LAR, LSL, VERR, VERW at CPL 3 with RPL 3, then at CPL 0. */
	const struct {
		const char *name;
		u64 desc;
		u8 user, kernel; /* bit 0 LAR .. bit 3 VERW */
		u32 lsl;
	} rows[] = {
		{"data, DPL 3", descriptor(0, 0x1234, 0xf3, 4), 15, 15, 0x1234},
		{"data, page limit", descriptor(0, 0x12, 0xf3, 0xc), 15, 15, 0x12fff},
		{"read-only data", descriptor(0, 0x1234, 0xf1, 4), 7, 7, 0x1234},
		{"data, DPL 0", descriptor(0, 0x1234, 0x93, 4), 0, 15, 0x1234},
		{"code, readable", descriptor(0, 0x1234, 0xfb, 4), 7, 7, 0x1234},
		{"code, execute-only", descriptor(0, 0x1234, 0xf9, 4), 3, 3, 0x1234},
		{"conforming code, DPL 0", descriptor(0, 0x1234, 0x9f, 4), 7, 7, 0x1234},
		{"code, DPL 0", descriptor(0, 0x1234, 0x9b, 4), 0, 7, 0x1234},
		{"not present", descriptor(0, 0x1234, 0x73, 4), 15, 15, 0x1234},
		{"LDT", descriptor(0, 0x1234, 0xe2, 0), 3, 3, 0x1234},
		{"TSS", descriptor(0, 0x1234, 0xe9, 0), 3, 3, 0x1234},
		{"busy TSS", descriptor(0, 0x1234, 0xeb, 0), 3, 3, 0x1234},
		{"TSS, DPL 0", descriptor(0, 0x1234, 0x89, 0), 0, 3, 0x1234},
		{"call gate", descriptor(0, 0x1234, 0xec, 0), 1, 1, 0},
		{"interrupt gate", descriptor(0, 0x1234, 0xee, 0), 0, 0, 0},
		{"16-bit TSS", descriptor(0, 0x1234, 0xe1, 0), 0, 0, 0},
		{"task gate", descriptor(0, 0x1234, 0xe5, 0), 0, 0, 0},
		{"type 0", descriptor(0, 0x1234, 0xe0, 0), 0, 0, 0},
	};
	u8 *const code[] = {lar, lsl, verr, verw};

	test_begin("segments: LAR, LSL, VERR, VERW");
	for (u32 i = 0; i <= ARRAY_SIZE(rows) + 2; i++) {
		u32 sel = SLOT(0) | 3;
		u8 user = 0, kernel = 0;

		if (i < ARRAY_SIZE(rows)) {
			slot(0, rows[i].desc);
			slot(1, 0);
			user = rows[i].user;
			kernel = rows[i].kernel;
		} else {
			/* null, beyond the limit, in the LDT that does not exist */
			sel = i == ARRAY_SIZE(rows) ? 0 : i == ARRAY_SIZE(rows) + 1 ? 0xfff8 : 0x14;
		}
		for (u32 j = 0; j < 4; j++) {
			for (int k = 0; k < 2; k++) {
				struct ctx c = k ? ctx_kernel(code[j]) : ctx_user(code[j]);
				bool want = (k ? kernel : user) & BIT(j);

				c.gpr[RAX] = k ? sel & ~3u : sel;
				c.gpr[RCX] = 0x5555;
				c.rflags |= want ? 0 : FL_ZF;
				exec(&c);
				test_context("%s, instruction %u, CPL %d",
					     i < ARRAY_SIZE(rows) ? rows[i].name : "special", j,
					     k ? 0 : 3);
				expect_done(&c);
				expect("ZF", want, !!(c.rflags & FL_ZF));
				if (j > 1)
					continue;
				if (!want)
					expect("destination", 0x5555, c.gpr[RCX]);
				else if (j == 1)
					expect("limit", rows[i].lsl, c.gpr[RCX]);
				else /* access bytes of the second doubleword; bits 19:16 undefined
				      */
					expect("rights", rows[i].desc >> 32 & 0xf0ff00,
					       c.gpr[RCX] & 0xf0ff00);
			}
		}
	}
	test_context(NULL);
	test_end();
}

/* ---- IRET ------------------------------------------------------------------------------------ */

SNIPPET(iretq_insn, "iretq");
SNIPPET(iretl_insn, "iretl");
SNIPPET(lretq_insn, "lretq");
SNIPPET(lretl_insn, "lretl");
SNIPPET(end64, "nop");
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

static void test_iret(void)
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

/* ---- far transfers ----------------------------------------------------------------------------
 */

SNIPPET(ljmp32, "ljmpl *(%rsi)");
SNIPPET(ljmp64, "rex.w ljmp *(%rsi)");
SNIPPET(lcall32, "lcalll *(%rsi)");
SNIPPET(lcall64, "rex.w lcall *(%rsi)");
SNIPPET32(from32, "ljmp *(%esi)");
SNIPPET32(lcall_from32, "lcall *(%esi)");
SNIPPET(gate_target, "mov %ss, %ecx");

struct far {
	u64 rip;
	u16 cs;
} __attribute__((packed));

static void test_far(void)
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

/* ---- SYSCALL and SYSENTER ---------------------------------------------------------------------
 */

SNIPPET(syscall_insn, "syscall");
SNIPPET(sysretq_insn, "sysretq");
SNIPPET(sysretl_insn, "sysretl");
SNIPPET(entry_insn, "mov %ss, %ebx");
SNIPPET(sysenter_insn, "sysenter");
SNIPPET32(sysenter32_insn, "sysenter");
SNIPPET(sysexitl_insn, "sysexitl");
SNIPPET(sysexitq_insn, "rex.w sysexit");

static void test_syscall(void)
{
	struct ctx c;
	u64 sp;

	wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_KCODE << 32);
	wrmsr(MSR_LSTAR, (u64)entry_insn);
	wrmsr(MSR_FMASK, 0);

	test_begin("segments: SYSCALL");
	for (int i = 0; i < 3; i++) {
		u64 mask = i == 0 ? 0 : i == 1 ? FL_CF | FL_IF | FL_AC : 0xffffffff;
		u64 flags = FL_FIXED | FL_CF | FL_AC | FL_IOPL3 | FL_OF;

		wrmsr(MSR_FMASK, mask);
		c = ctx_user(syscall_insn);
		c.rflags = flags;
		sp = c.gpr[RSP];
		exec(&c);
		test_context("FMASK 0x%lx", mask);
		expect_done(&c);
		expect("RIP", (u64)entry_insn_end, c.rip);
		expect("RCX", (u64)user_alias(syscall_insn) + 2, c.gpr[RCX]);
		expect("R11", flags, c.gpr[R11]);
		expect("flags", (flags & ~mask) | FL_FIXED, c.rflags);
		expect("CS", SEL_KCODE, c.cs);
		expect("SS", SEL_KCODE + 8, c.gpr[RBX] & 0xffff);
		expect("RSP is left alone", sp, c.gpr[RSP]);
	}
	wrmsr(MSR_FMASK, 0);
	test_context(NULL);
	test_end();

	test_begin("segments: SYSRET");
	c = ctx_kernel(sysretq_insn);
	c.gpr[RCX] = (u64)user_alias(mode_probe);
	c.gpr[R11] = FL_CF | FL_IOPL3 | FL_ID | FL_RF | 0x8028 | FL_VM | 0xffffffff00000000;
	c.gpr[RAX] = 5;
	sp = c.gpr[RSP];
	exec(&c);
	expect_done(&c);
	expect("64-bit", 7, c.gpr[RAX]);
	expect("CS", SEL_UCODE, c.cs);
	expect("SS", SEL_UDATA, c.ss);
	expect("RSP", sp, c.gpr[RSP]);
	expect("flags but for the ADD", FL_IOPL3 | FL_ID | FL_FIXED, c.rflags & ~FL_ARITH);
	c = ctx_kernel(sysretl_insn);
	c.gpr[RCX] = (u64)user_alias(mode_probe) | 0xffffffff00000000;
	c.gpr[R11] = FL_FIXED;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("32-bit", 6, (u32)c.gpr[RAX]);
	expect("CS", SEL_UCODE32, c.cs);
	expect("SS", SEL_UDATA, c.ss);
	test_end();

	test_begin("segments: SYSCALL and SYSRET without EFER.SCE are #UD");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE);
	c = ctx_user(syscall_insn);
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	c = ctx_kernel(sysretq_insn);
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	test_end();

	if (cpuid(0, 0).b != 0x756e6547 || !(cpuid(1, 0).d & BIT(11))) {
		test_skip("segments: SYSENTER and SYSEXIT", "not of Intel's kind");
		return;
	}
	test_begin("segments: SYSENTER");
	wrmsr(MSR_SYSENTER_CS, 0);
	c = ctx_user(sysenter_insn);
	exec(&c);
	expect_trap(&c, GP, 0); /* MSR null */
	wrmsr(MSR_SYSENTER_CS, SEL_KCODE);
	wrmsr(MSR_SYSENTER_ESP, (u64)this_cpu() + STACK_IST2);
	wrmsr(MSR_SYSENTER_EIP, (u64)entry_insn);
	for (int i = 0; i < 2; i++) {
		c = i ? ctx_user32(sysenter32_insn) : ctx_user(sysenter_insn);
		c.rflags |= FL_IF | FL_CF | FL_IOPL3;
		exec(&c);
		test_context("from %s", i ? "compatibility mode" : "64-bit mode");
		expect_done(&c);
		expect("RIP", (u64)entry_insn_end, c.rip);
		expect("RSP", (u64)this_cpu() + STACK_IST2, c.gpr[RSP]);
		expect("CS", SEL_KCODE, c.cs);
		expect("SS", SEL_KDATA, c.gpr[RBX] & 0xffff);
		expect("IF and VM cleared, others not", FL_CF | FL_IOPL3 | FL_FIXED, c.rflags);
	}
	test_context(NULL);
	test_end();

	test_begin("segments: SYSEXIT");
	c = ctx_kernel(sysexitl_insn);
	c.gpr[RDX] = (u64)user_alias(mode_probe);
	c.gpr[RCX] = (u64)this_cpu() + STACK_USER + USER_ALIAS - 64;
	sp = c.gpr[RCX];
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("32-bit", 6, (u32)c.gpr[RAX]);
	expect("CS", (SEL_KCODE + 16) | 3, c.cs);
	expect("SS", (SEL_KCODE + 24) | 3, c.ss);
	expect("RSP", sp, c.gpr[RSP]);
	c = ctx_kernel(sysexitq_insn);
	c.gpr[RDX] = (u64)user_alias(mode_probe);
	c.gpr[RCX] = sp;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("64-bit", 7, c.gpr[RAX]);
	expect("CS", (SEL_KCODE + 32) | 3, c.cs);
	expect("SS", (SEL_KCODE + 40) | 3, c.ss);
	c = ctx_kernel(sysexitq_insn);
	c.gpr[RDX] = 0x800000000000;
	exec(&c);
	test_context("RDX not canonical");
	expect_trap(&c, GP, 0);
	test_end();
}

/* ---- stacks of interrupts ---------------------------------------------------------------------
 */

#define VEC_TEST 0x90
SNIPPET(int_test, "int $0x90");

static void test_stacks(void)
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

/* ---- 32-bit programs ---------------------------------------------------------------------------
 */

SNIPPET32(fib32, "mov $15, %eax; call 1f; jmp 9f\n"
		 "1: push %ebx; push %esi; mov %eax, %ebx; cmp $2, %eax; jb 2f\n"
		 "lea -1(%ebx), %eax; call 1b; mov %eax, %esi; lea -2(%ebx), %eax; call 1b\n"
		 "add %esi, %eax\n"
		 "2: pop %esi; pop %ebx; ret\n"
		 "9:");
SNIPPET32(bcd32, "mov $0x38, %al; add $0x45, %al; daa; movzbl %al, %ebx\n"	     /* 83 */
		 "mov $0x83, %al; sub $0x45, %al; das; mov %al, %bh\n"		     /* 38 */
		 "mov $0x0009, %ax; add $8, %al; aaa; movzwl %ax, %ecx\n"	     /* 0107 */
		 "mov $0x0205, %ax; sub $6, %al; aas; shl $16, %ecx; mov %ax, %cx\n" /* 0109 */
		 "mov $97, %al; aam; movzwl %ax, %edx\n"			     /* 0907 */
		 "mov $0x0907, %ax; aad; shl $16, %edx; mov %ax, %dx");		     /* 97 */
SNIPPET32(stack32, "mov $1, %eax; mov $2, %ecx; mov $3, %edx; mov $4, %ebx\n"
		   "mov $6, %esi; mov $7, %edi; mov %esp, %ebp; pusha\n"
		   "xor %eax, %eax; xor %ebx, %ebx; xor %edi, %edi; addl $10, 24(%esp); popa\n"
		   "push %es; pop %ds; pushw $0x1234; pop %ax; enter $16, $1; leave\n"
		   "inc %esi; dec %edi; sub %esp, %ebp");
SNIPPET32(les32, "les (%esi), %ebx; lds 8(%esi), %edi; mov %es, %eax; mov %ds, %ecx");
SNIPPET32(addr16, "mov $0x12340010, %esi; xor %ebx, %ebx; addr16 lea 0x7ff8(%si), %edi\n"
		  "mov $0xffff, %ecx; 1: inc %edi; addr16 loop 1b; mov %ecx, %ebx");

static void test_programs(void)
{
	struct ctx c;

	test_begin("segments: 32-bit user programs");
	c = ctx_user32(fib32);
	exec(&c);
	test_context("recursion");
	expect_done(&c);
	expect("fib(15)", 610, (u32)c.gpr[RAX]);
	expect("ESP", ctx_user32(NULL).gpr[RSP], c.gpr[RSP]);
	c = ctx_user32(bcd32);
	exec(&c);
	test_context("decimal instructions");
	expect_done(&c);
	expect("DAA, DAS", 0x3883, (u32)c.gpr[RBX]);
	expect("AAA, AAS", 0x01070109, (u32)c.gpr[RCX]);
	expect("AAM, AAD", 0x09070061, (u32)c.gpr[RDX]);
	c = ctx_user32(stack32);
	exec(&c);
	test_context("stack instructions");
	expect_done(&c);
	expect("EAX: 1, low half popped", 0x1234, (u32)c.gpr[RAX]);
	expect("ECX: 12", 12, (u32)c.gpr[RCX]);
	expect("EBX", 4, (u32)c.gpr[RBX]);
	expect("ESI", 7, (u32)c.gpr[RSI]);
	expect("EDI", 6, (u32)c.gpr[RDI]);
	expect("stack level", 0, (u32)c.gpr[RBP]);
	*(u32 *)insn_data = 0x11223344;
	*(u16 *)(insn_data + 4) = SEL_UDATA;
	*(u32 *)(insn_data + 8) = 0x55667788;
	*(u16 *)(insn_data + 12) = SEL_UDATA;
	c = ctx_user32(les32);
	c.gpr[RSI] = (u64)user_alias(insn_data);
	c.es = c.fs = 0;
	exec(&c);
	test_context("LES, LDS");
	expect_done(&c);
	expect("EBX", 0x11223344, (u32)c.gpr[RBX]);
	expect("EDI", 0x55667788, (u32)c.gpr[RDI]);
	expect("ES", SEL_UDATA, (u32)c.gpr[RAX] & 0xffff);
	c = ctx_user32(addr16);
	exec(&c);
	test_context("16-bit addresses");
	expect_done(&c);
	expect("LEA wraps at 64 KiB; LOOP counts CX", 0x8008 + 0xffff, (u32)c.gpr[RDI]);
	expect("ECX", 0, (u32)c.gpr[RBX]);
	test_context(NULL);
	test_end();
}

void test_main(void)
{
	buffer = alloc_aligned(0x20000, 0x10000);
	test_limits();
	test_each_segment();
	test_code_limit();
	test_verify();
	test_iret();
	test_far();
	test_syscall();
	test_stacks();
	test_programs();
}
