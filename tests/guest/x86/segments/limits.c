/* Limits of data, stack and code segments. */
#include "segments.h"

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
static void test_data_limits(void)
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

void test_limits(void)
{
	buffer = alloc_aligned(0x20000, 0x10000);
	test_data_limits();
	test_each_segment();
	test_code_limit();
}
