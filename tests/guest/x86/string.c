/*
 * String instructions that fault in the middle, restart, run backwards, with other address sizes
 * and zero counts: SDM vol. 2 REP ("the source and destination registers point to the next
 * elements, the ECX register to the number of iterations left; EIP to the string instruction").
 */
#include "guest.h"

SNIPPET(rep_movsb, "rep movsb");
SNIPPET(rep_movsw, "rep movsw");
SNIPPET(rep_movsl, "rep movsl");
SNIPPET(rep_movsq, "rep movsq");
SNIPPET(rep_stosb, "rep stosb");
SNIPPET(rep_stosq, "rep stosq");
SNIPPET(rep_lodsb, "rep lodsb");
SNIPPET(rep_lodsq, "rep lodsq");
SNIPPET(repe_cmpsb, "repe cmpsb");
SNIPPET(repe_cmpsq, "repe cmpsq");
SNIPPET(repne_cmpsb, "repne cmpsb");
SNIPPET(repne_scasb, "repne scasb");
SNIPPET(repe_scasl, "repe scasl");
SNIPPET(repne_movsb, "repne movsb");
SNIPPET(rep_outsb, "rep outsb");
SNIPPET(rep_insb, "rep insb");
SNIPPET(insb_one, "insb");
SNIPPET(outsl_one, "outsl");
SNIPPET(movsb32, "addr32 rep movsb");
SNIPPET(stosb32, "addr32 rep stosb");
SNIPPET(scasb32, "addr32 repne scasb");
SNIPPET(lodsb32, "addr32 lodsb");
SNIPPET32(rep_movsb_32, "rep movsb");
SNIPPET32(stos16, "addr16 rep stosb");
SNIPPET(fs_movs, "rep movsb %fs:(%rsi), (%rdi)");
SNIPPET(xlat_insn, "xlatb");

/* Two pages for sources, two for destinations, their middles at fixed addresses. */
#define SRC (TEST_HIGH + 0x100000)
#define DST (TEST_HIGH + 0x200000)
#define RW  (PTE_P | PTE_W | PTE_U)

static u8 *src[2], *dst[2];
static u64 *src_pte[2], *dst_pte[2];

static u8 pattern(u64 i)
{
	return (u8)(i * 11 + (i >> 8) + 1);
}

static u8 *dst_byte(u64 i) /* i counts from the start of the first page */
{
	return &dst[i / PAGE_SIZE][i % PAGE_SIZE];
}

static void reset(void)
{
	for (u32 i = 0; i < 2; i++) {
		*src_pte[i] = (u64)src[i] | RW;
		*dst_pte[i] = (u64)dst[i] | RW;
		memset(dst[i], 0xee, PAGE_SIZE);
		for (u64 k = 0; k < PAGE_SIZE; k++)
			src[i][k] = pattern(i * PAGE_SIZE + k);
	}
	flush_tlb();
}

static void setup(void)
{
	for (u32 i = 0; i < 2; i++) {
		/* A page between them: what is adjacent in linear addresses is not in physical
		 * ones. */
		src[i] = alloc_pages(2);
		dst[i] = alloc_pages(2);
		src_pte[i] = map_page(SRC + i * PAGE_SIZE, (u64)src[i], RW);
		dst_pte[i] = map_page(DST + i * PAGE_SIZE, (u64)dst[i], RW);
	}
	*entry_of(SRC - PAGE_SIZE, 1) = 0;
	*entry_of(SRC + 2 * PAGE_SIZE, 1) = 0;
	*entry_of(DST - PAGE_SIZE, 1) = 0;
	*entry_of(DST + 2 * PAGE_SIZE, 1) = 0;
}

/*
 * Moves of count elements whose source or destination page is missing from some element on:
 * registers at the fault, memory up to there and not beyond, then the page is given and the same
 * context goes on.
 */
static void check_moves(u8 *code, u32 size, bool down, bool source, u64 done, u32 count)
{
	struct ctx c = ctx_user(code);
	s64 step = down ? -(s64)size : (s64)size;
	/* the first element: done elements before the edge of the missing page */
	u64 near = PAGE_SIZE - done * size, from, to, err;

	reset();
	if (down)
		near = PAGE_SIZE + (done - 1) * size;
	/* The other side is placed so that it stays on one page: 512 off the edge. */
	from = source ? near : down ? 2 * PAGE_SIZE - 1024 : 512;
	to = source ? (down ? 2 * PAGE_SIZE - 1024 : 512) : near;
	if (source)
		*src_pte[down ? 0 : 1] = 0;
	else
		*dst_pte[down ? 0 : 1] = (u64)dst[down ? 0 : 1] | PTE_P | PTE_U; /* read-only */
	flush_tlb();
	c.gpr[RSI] = SRC + from;
	c.gpr[RDI] = DST + to;
	c.gpr[RCX] = count;
	if (down)
		c.rflags |= FL_DF;
	err = source ? PF_U : PF_U | PF_W | PF_P;
	exec(&c);
	expect_trap(&c, PF, err);
	if (c.vector != PF)
		return;
	expect("RIP", (u64)user_alias(code), c.rip);
	expect("RCX", count - done, c.gpr[RCX]);
	expect("RSI", SRC + from + done * (u64)step, c.gpr[RSI]);
	expect("RDI", DST + to + done * (u64)step, c.gpr[RDI]);
	expect("CR2", source ? c.gpr[RSI] : c.gpr[RDI], c.cr2);
	for (u64 i = 0; i < count * size; i++) {
		u64 d = down ? to + size - 1 - i : to + i,
		    s = down ? from + size - 1 - i : from + i;

		if ((i < done * size ? pattern(s) : 0xee) != *dst_byte(d)) {
			expect("first wrong byte of the destination", ~0ull, i);
			break;
		}
	}
	*src_pte[0] = (u64)src[0] | RW;
	*src_pte[1] = (u64)src[1] | RW;
	*dst_pte[0] = (u64)dst[0] | RW;
	*dst_pte[1] = (u64)dst[1] | RW;
	flush_tlb();
	exec(&c); /* the same context: a restart */
	expect_done(&c);
	expect("RCX", 0, c.gpr[RCX]);
	expect("RSI", SRC + from + count * (u64)step, c.gpr[RSI]);
	expect("RDI", DST + to + count * (u64)step, c.gpr[RDI]);
	for (u64 i = 0; i < count * size; i++) {
		u64 d = down ? to + size - 1 - i : to + i,
		    s = down ? from + size - 1 - i : from + i;

		if (*dst_byte(d) != pattern(s)) {
			expect("first wrong byte after the restart", ~0ull, i);
			break;
		}
	}
	expect("byte before", 0xee, *dst_byte(down ? to + size : to - 1));
	expect("byte behind", 0xee,
	       *dst_byte(down ? to + size - 1 - count * size : to + count * size));
}

static void test_moves(void)
{
	static const struct {
		u8 *code;
		u32 size;
	} forms[] = {
		{rep_movsb, 1}, {rep_movsw, 2}, {rep_movsl, 4}, {rep_movsq, 8}, {repne_movsb, 1},
	};

	test_begin("string: REP MOVS faults in the middle and restarts");
	for (u32 i = 0; i < ARRAY_SIZE(forms); i++) {
		for (u32 k = 0; k < 4; k++) {
			for (u64 done = 0; done <= 20; done += done < 2 ? 1 : 9) {
				if ((k & 1) && !done)
					continue; /* backwards: the first is always done */
				test_context("size %u, %s, %s missing after %lu", forms[i].size,
					     k & 1 ? "down" : "up",
					     k & 2 ? "source" : "destination", done);
				check_moves(forms[i].code, forms[i].size, k & 1, k & 2, done, 32);
			}
		}
	}
	test_context(NULL);
	test_end();

	/* An element that lies on both pages: nothing of it is stored. */
	test_begin("string: REP MOVSQ, an element over two pages");
	for (u64 first = 1; first < 8; first++) {
		struct ctx c = ctx_user(rep_movsq);

		reset();
		*dst_pte[1] = 0;
		flush_tlb();
		c.gpr[RSI] = SRC + 64;
		c.gpr[RDI] = DST + PAGE_SIZE - 16 - first;
		c.gpr[RCX] = 10;
		exec(&c);
		test_context("%lu bytes on the first", first);
		expect_trap(&c, PF, PF_U | PF_W);
		expect("CR2", DST + PAGE_SIZE, c.cr2);
		expect("RCX", 8, c.gpr[RCX]);
		expect("RSI", SRC + 80, c.gpr[RSI]);
		expect("RDI", DST + PAGE_SIZE - first, c.gpr[RDI]);
		for (u64 i = 0; i < first; i++)
			expect("byte of the split element", 0xee, dst[0][PAGE_SIZE - first + i]);
	}
	test_context(NULL);
	test_end();

	/* Overlap: forwards with a distance of one element repeats it. */
	test_begin("string: REP MOVS of overlapping areas");
	for (u64 dist = 1; dist <= 9; dist += 4) {
		struct ctx c = ctx_user(rep_movsb);

		reset();
		c.gpr[RSI] = SRC + PAGE_SIZE - 100;
		c.gpr[RDI] = SRC + PAGE_SIZE - 100 + dist;
		c.gpr[RCX] = 200;
		exec(&c);
		test_context("distance %lu", dist);
		expect_done(&c);
		for (u64 i = 0; i < 200; i++) {
			u64 at = PAGE_SIZE - 100 + dist + i;

			if (src[at / PAGE_SIZE][at % PAGE_SIZE] !=
			    pattern(PAGE_SIZE - 100 + i % dist)) {
				expect("first wrong byte", ~0ull, i);
				break;
			}
		}
	}
	test_context(NULL);
	test_end();
}

static void test_stos_lods(void)
{
	struct ctx c;

	test_begin("string: REP STOS and REP LODS over a fault");
	for (u32 q = 0; q < 2; q++) {
		u32 size = q ? 8 : 1;

		reset();
		*dst_pte[1] = 0;
		flush_tlb();
		c = ctx_user(q ? rep_stosq : rep_stosb);
		c.gpr[RAX] = 0x5a5a5a5a5a5a5a5a;
		c.gpr[RDI] = DST + PAGE_SIZE - 5 * size;
		c.gpr[RCX] = 9;
		exec(&c);
		test_context("stos of %u", size);
		expect_trap(&c, PF, PF_U | PF_W);
		expect("RCX", 4, c.gpr[RCX]);
		expect("RDI", DST + PAGE_SIZE, c.gpr[RDI]);
		expect("CR2", DST + PAGE_SIZE, c.cr2);
		expect("last byte", 0x5a, dst[0][PAGE_SIZE - 1]);
		*dst_pte[1] = (u64)dst[1] | RW;
		exec(&c);
		expect_done(&c);
		expect("RDI", DST + PAGE_SIZE + 4 * size, c.gpr[RDI]);
		expect("byte", 0x5a, dst[1][4 * size - 1]);
		expect("byte behind", 0xee, dst[1][4 * size]);

		reset();
		*src_pte[1] = 0;
		flush_tlb();
		c = ctx_user(q ? rep_lodsq : rep_lodsb);
		c.gpr[RAX] = 0;
		c.gpr[RSI] = SRC + PAGE_SIZE - 5 * size;
		c.gpr[RCX] = 9;
		exec(&c);
		test_context("lods of %u", size);
		expect_trap(&c, PF, PF_U);
		expect("RCX", 4, c.gpr[RCX]);
		expect("RSI", SRC + PAGE_SIZE, c.gpr[RSI]);
		/* The element loaded last is in RAX. */
		expect("RAX", pattern(PAGE_SIZE - size), c.gpr[RAX] & 0xff);
		*src_pte[1] = (u64)src[1] | RW;
		exec(&c);
		expect_done(&c);
		expect("RAX", pattern(PAGE_SIZE + 3 * size), c.gpr[RAX] & 0xff);
	}
	test_context(NULL);
	test_end();
}

static void test_compares(void)
{
	struct ctx c;

	test_begin("string: REPE CMPS and REPNE SCAS over a fault");
	reset();
	memcpy(dst[0] + PAGE_SIZE - 16, src[0] + PAGE_SIZE - 16, 16);
	memcpy(dst[1], src[1], 64);
	dst[1][10] ^= 1;
	*dst_pte[1] = 0;
	flush_tlb();
	c = ctx_user(repe_cmpsb);
	c.gpr[RSI] = SRC + PAGE_SIZE - 16;
	c.gpr[RDI] = DST + PAGE_SIZE - 16;
	c.gpr[RCX] = 60;
	exec(&c);
	expect_trap(&c, PF, PF_U);
	expect("RCX", 44, c.gpr[RCX]);
	expect("RSI", SRC + PAGE_SIZE, c.gpr[RSI]);
	expect("RDI", DST + PAGE_SIZE, c.gpr[RDI]);
	expect("CR2", DST + PAGE_SIZE, c.cr2);
	*dst_pte[1] = (u64)dst[1] | RW;
	exec(&c);
	expect_done(&c);
	expect("RCX", 33, c.gpr[RCX]);
	expect("RSI", SRC + PAGE_SIZE + 11, c.gpr[RSI]);
	expect("ZF", 0, c.rflags & FL_ZF);

	reset();
	dst[1][20] = 0x77;
	*dst_pte[1] = 0;
	flush_tlb();
	c = ctx_user(repne_scasb);
	c.gpr[RAX] = 0x77;
	c.gpr[RDI] = DST + PAGE_SIZE - 3;
	c.gpr[RCX] = 1000;
	exec(&c);
	expect_trap(&c, PF, PF_U);
	expect("RCX", 997, c.gpr[RCX]);
	expect("RDI", DST + PAGE_SIZE, c.gpr[RDI]);
	*dst_pte[1] = (u64)dst[1] | RW;
	exec(&c);
	expect_done(&c);
	expect("RDI", DST + PAGE_SIZE + 21, c.gpr[RDI]);
	expect("RCX", 997 - 21, c.gpr[RCX]);
	expect("ZF", FL_ZF, c.rflags & FL_ZF);

	/* A match on the last element before a missing page ends without touching that page. */
	reset();
	dst[0][PAGE_SIZE - 1] = 0x77;
	*dst_pte[1] = 0;
	flush_tlb();
	c = ctx_user(repne_scasb);
	c.gpr[RAX] = 0x77;
	c.gpr[RDI] = DST + PAGE_SIZE - 3;
	c.gpr[RCX] = 1000;
	exec(&c);
	expect_done(&c);
	expect("RCX", 997, c.gpr[RCX]);
	test_end();

	test_begin("string: ends of REPE and REPNE");
	reset();
	memset(dst[0], 0x11, 64);
	c = ctx_user(repe_scasl);
	c.gpr[RAX] = 0x11111111;
	c.gpr[RDI] = DST;
	c.gpr[RCX] = 16;
	exec(&c);
	expect_done(&c);
	expect("count ran out", 0, c.gpr[RCX]);
	expect("ZF", FL_ZF, c.rflags & FL_ZF);
	c = ctx_user(repe_scasl);
	c.gpr[RAX] = 0x11111111;
	c.gpr[RDI] = DST;
	c.gpr[RCX] = 20;
	exec(&c);
	expect_done(&c);
	expect("differed", 3, c.gpr[RCX]);
	expect("ZF", 0, c.rflags & FL_ZF);
	c = ctx_user(repne_cmpsb);
	memcpy(dst[0] + 30, src[0] + 30, 1);
	c.gpr[RSI] = SRC + 16;
	c.gpr[RDI] = DST + 16;
	c.gpr[RCX] = 40;
	for (u64 i = 16; i < 30; i++)
		dst[0][i] = (u8)~pattern(i);
	exec(&c);
	expect_done(&c);
	expect("equal", 25, c.gpr[RCX]);
	expect("ZF", FL_ZF, c.rflags & FL_ZF);
	test_end();
}

static void test_zero(void)
{
	u8 *const all[] = {rep_movsb,  rep_movsq,  rep_stosb,	rep_stosq,   rep_lodsb, rep_lodsq,
			   repe_cmpsb, repe_cmpsq, repne_cmpsb, repne_scasb, repe_scasl};

	/* No access, no change of a flag, though the pointers are wild. */
	test_begin("string: zero counts do nothing");
	for (u32 i = 0; i < ARRAY_SIZE(all); i++) {
		for (u64 fl = 0; fl < 2; fl++) {
			struct ctx c = ctx_user(all[i]), before;

			c.gpr[RSI] = 0x8000000000000000;
			c.gpr[RDI] = 0x8000000000000000;
			c.gpr[RCX] = 0;
			c.gpr[RAX] = 0x1234567812345678;
			c.rflags |= fl ? FL_ARITH : FL_DF;
			before = c;
			exec(&c);
			test_context("%u", i);
			expect_done(&c);
			expect("RSI", before.gpr[RSI], c.gpr[RSI]);
			expect("RDI", before.gpr[RDI], c.gpr[RDI]);
			expect("RAX", before.gpr[RAX], c.gpr[RAX]);
			expect("flags", before.rflags, c.rflags);
		}
	}
	test_context(NULL);
	test_end();
}

/* Vol. 1 3.3.7, vol. 2 REP: the address size decides which of RCX, ECX, CX counts and how the
 * pointers wrap; a 32-bit result clears the upper half of its register. */
static void test_address_size(void)
{
	struct ctx c;
	u8 *low = alloc_pages(1), *top = alloc_pages(1);

	test_begin("string: 32-bit addresses in 64-bit mode");
	memset(low, 0, 16);
	for (u32 i = 0; i < 16; i++)
		low[16 + i] = (u8)(i + 1);
	c = ctx_user(movsb32);
	c.gpr[RSI] = 0xdead000000000000 | ((u64)user_alias(low) + 16);
	c.gpr[RDI] = 0xbeef000000000000 | (u64)user_alias(low);
	c.gpr[RCX] = 0xffffffff00000004;
	exec(&c);
	expect_done(&c);
	expect("RCX", 0, c.gpr[RCX]);
	expect("RSI", (u64)user_alias(low) + 20, c.gpr[RSI]);
	expect("RDI", (u64)user_alias(low) + 4, c.gpr[RDI]);
	expect("moved", 0x04030201, *(u32 *)low);
	expect("not more", 0, low[4]);
	c = ctx_user(stosb32); /* ECX = 0 though RCX is not */
	c.gpr[RDI] = 0x8000000000000000;
	c.gpr[RCX] = 0xffffffff00000000;
	exec(&c);
	expect_done(&c);
	expect("RDI of a zero count", 0x8000000000000000, c.gpr[RDI]);
	c = ctx_user(scasb32);
	c.gpr[RDI] = (u64)user_alias(low) | 0xffff000000000000;
	c.gpr[RCX] = 0x1200000010;
	c.gpr[RAX] = 3;
	exec(&c);
	expect_done(&c);
	expect("RCX", 0xd, c.gpr[RCX]);
	expect("RDI", (u64)user_alias(low) + 3, c.gpr[RDI]);
	c = ctx_user(lodsb32);
	c.gpr[RSI] = (u64)user_alias(low) | 0xffff000000000000;
	exec(&c);
	expect_done(&c);
	expect("AL", 1, c.gpr[RAX] & 0xff);
	expect("RSI", (u64)user_alias(low) + 1, c.gpr[RSI]);
	test_end();

	/* 0xffffffff is followed by 0. The page at 0 belongs to the supervisor: the fault tells. */
	test_begin("string: 32-bit pointers wrap");
	u64 *pde = entry_of(0xffe00000, 2), old = *pde, *pt = alloc_pages(1);

	pt[511] = (u64)top | RW;
	*pde = (u64)pt | RW;
	flush_tlb();
	c = ctx_user(stosb32);
	c.gpr[RDI] = 0xfffffffe;
	c.gpr[RCX] = 5;
	c.gpr[RAX] = 0x33;
	exec(&c);
	expect_trap(&c, PF, PF_U | PF_W | PF_P);
	expect("CR2", 0, c.cr2);
	expect("RDI", 0, c.gpr[RDI]);
	expect("RCX", 3, c.gpr[RCX]);
	expect("stored", 0x3333, *(u16 *)(top + PAGE_SIZE - 2));
	*pde = old;
	flush_tlb();
	test_end();

	test_begin("string: compatibility mode, 32 and 16-bit addresses");
	memset(low, 0, 16);
	c = ctx_user32(rep_movsb_32);
	c.gpr[RSI] = (u64)user_alias(low) + 16;
	c.gpr[RDI] = (u64)user_alias(low);
	c.gpr[RCX] = 3;
	exec(&c);
	expect_done(&c);
	expect("moved", 0x030201, *(u32 *)low);
	/* CX and DI: base the segment so that DI wraps inside of memory that is ours. */
	u8 *seg = alloc_aligned(0x10000, 0x10000);

	this_cpu()->gdt[SEL_TEST / 8] = descriptor((u32)(u64)user_alias(seg), 0xffff, 0xf3, 0);
	c = ctx_user32(stos16);
	c.es = SEL_TEST | 3;
	c.gpr[RDI] = 0x1234fffe;
	c.gpr[RCX] = 0x56780004;
	c.gpr[RAX] = 0x44;
	exec(&c);
	expect_done(&c);
	expect("top", 0x4444, *(u16 *)(seg + 0xfffe));
	expect("wrapped", 0x4444, *(u16 *)seg);
	expect("not more", 0, seg[2]);
	expect("EDI", 0x12340002, (u32)c.gpr[RDI]);
	expect("ECX", 0x56780000, (u32)c.gpr[RCX]);
	test_end();

	test_begin("string: a segment override moves the source only; XLAT");
	for (u32 i = 0; i < 32; i++)
		low[i] = (u8)(0x80 + i);
	this_cpu()->gdt[SEL_TEST / 8] = descriptor((u32)(u64)user_alias(low), 0xffff, 0xf3, 4);
	c = ctx_user(fs_movs);
	c.fs = SEL_TEST | 3;
	c.gpr[RSI] = 8;
	c.gpr[RDI] = (u64)user_alias(low) + 64;
	c.gpr[RCX] = 4;
	exec(&c);
	expect_done(&c);
	expect("moved", 0x8b8a8988, *(u32 *)(low + 64));
	c = ctx_user(xlat_insn);
	c.gpr[RBX] = (u64)user_alias(low);
	c.gpr[RAX] = 0xffffff05;
	exec(&c);
	expect_done(&c);
	expect("XLAT", 0xffffff85, c.gpr[RAX]);
	test_end();
}

/* INS and OUTS: port 0x80 of the board swallows everything, COM1's scratch register remembers a
 * byte. */
static void test_io(void)
{
	struct ctx c;

	test_begin("string: REP INS over a fault");
	outb(0x3ff, 0xa5);
	reset();
	*dst_pte[1] = 0;
	flush_tlb();
	c = ctx_user(rep_insb);
	c.rflags |= FL_IOPL3;
	c.gpr[RDX] = 0x3ff;
	c.gpr[RDI] = DST + PAGE_SIZE - 3;
	c.gpr[RCX] = 7;
	exec(&c);
	expect_trap(&c, PF, PF_U | PF_W);
	expect("RCX", 4, c.gpr[RCX]);
	expect("RDI", DST + PAGE_SIZE, c.gpr[RDI]);
	expect("last byte", 0xa5, dst[0][PAGE_SIZE - 1]);
	*dst_pte[1] = (u64)dst[1] | RW;
	exec(&c);
	expect_done(&c);
	expect("RDI", DST + PAGE_SIZE + 4, c.gpr[RDI]);
	expect("byte", 0xa5, dst[1][3]);
	expect("byte behind", 0xee, dst[1][4]);
	test_end();

	/* The write is checked before the port is read: a byte of a FIFO must not get lost. The
	 * scratch register cannot tell; what can be seen is that nothing changed. */
	test_begin("string: INS to a read-only page, OUTS from a missing one");
	reset();
	*dst_pte[0] = (u64)dst[0] | PTE_P | PTE_U;
	*src_pte[0] = 0;
	flush_tlb();
	c = ctx_user(insb_one);
	c.rflags |= FL_IOPL3;
	c.gpr[RDX] = 0x3ff;
	c.gpr[RDI] = DST + 5;
	exec(&c);
	expect_trap(&c, PF, PF_U | PF_W | PF_P);
	expect("RDI", DST + 5, c.gpr[RDI]);
	c = ctx_user(outsl_one);
	c.rflags |= FL_IOPL3;
	c.gpr[RDX] = 0x80;
	c.gpr[RSI] = SRC + 5;
	exec(&c);
	expect_trap(&c, PF, PF_U);
	expect("RSI", SRC + 5, c.gpr[RSI]);
	reset();
	c = ctx_user(rep_outsb);
	c.rflags |= FL_IOPL3;
	c.gpr[RDX] = 0x3ff;
	c.gpr[RSI] = SRC + PAGE_SIZE - 2;
	c.gpr[RCX] = 4;
	exec(&c);
	expect_done(&c);
	expect("last byte written", pattern(PAGE_SIZE + 1), inb(0x3ff));
	expect("RSI", SRC + PAGE_SIZE + 2, c.gpr[RSI]);
	test_end();
}

/* A long one is interrupted between iterations, and goes on (vol. 2 REP). */
static volatile u32 ticks;
static volatile u64 tick_rip, tick_rcx;

static void on_tick(struct frame *f)
{
	if (!ticks && f->rip == (u64)rep_stosb) {
		ticks = 1;
		tick_rcx = f->gpr[RCX];
	}
	tick_rip = f->rip;
	lapic_eoi();
}

static void test_interrupted(void)
{
	u8 *area = alloc_aligned(0x800000, 0x1000);
	struct ctx c;

	test_begin("string: REP STOS of 8 MiB under timer interrupts");
	irq_handler(0x40, on_tick);
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_LVTT, 0x20040); /* periodic */
	lapic_write(LAPIC_TMICT, 20000);
	for (u32 i = 0; i < 50 && !ticks; i++) {
		c = ctx_kernel(rep_stosb);
		c.rflags |= FL_IF;
		c.gpr[RAX] = i + 1;
		c.gpr[RDI] = (u64)area;
		c.gpr[RCX] = 0x800000;
		exec(&c);
		expect_done(&c);
		expect("RCX", 0, c.gpr[RCX]);
		expect("RDI", (u64)area + 0x800000, c.gpr[RDI]);
		for (u64 k = 0; k < 0x800000; k += 8)
			if (*(u64 *)(area + k) != 0x0101010101010101ull * (i + 1)) {
				expect("first wrong byte", ~0ull, k);
				break;
			}
	}
	lapic_write(LAPIC_LVTT, BIT(16));
	irq_handler(0x40, NULL);
	expect("was interrupted in the middle", 1, ticks);
	test_end();
}

void test_main(void)
{
	setup();
	test_moves();
	test_stos_lods();
	test_compares();
	test_zero();
	test_address_size();
	test_io();
	test_interrupted();
}
