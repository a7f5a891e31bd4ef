/* x87 and SSE: #NM, #MF, #XM, alignment; #AC. */
#include "exceptions.h"

/* ---- #NM and friends ------------------------------------------------------------------------ */

/* SDM vol. 3A table 2-2 (x87 and EM/MP/TS), table 13-1 (SSE). */
static void test_device_not_available(void)
{
	enum { ANY = ~0u };
	static const struct {
		const char *name;
		u64 cr0_set, cr0_clear, cr4_clear;
		u32 x87, wait, mmx, sse;
	} rows[] = {
		{"plain", 0, 0, 0, VEC_DONE, VEC_DONE, VEC_DONE, VEC_DONE},
		{"TS", CR0_TS, 0, 0, NM, NM, NM, NM},
		{"TS without MP", CR0_TS, CR0_MP, 0, NM, VEC_DONE, NM, NM},
		{"EM", CR0_EM, 0, 0, NM, VEC_DONE, UD, UD},
		/* #UD and #NM have the same priority (table 6-2): not asked. */
		{"EM and TS", CR0_EM | CR0_TS, 0, 0, NM, NM, ANY, ANY},
		{"no OSFXSR", 0, 0, CR4_FXSR, VEC_DONE, VEC_DONE, VEC_DONE, UD},
	};
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	test_begin("exceptions: #NM and #UD by CR0.TS, EM, MP and CR4.OSFXSR");
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct insn insns[] = {
			{"fld1", U64, CODE("\xd9\xe8"), rows[i].x87, EX},
			{"fnop", K64, CODE("\xd9\xd0"), rows[i].x87, EX},
			{"fnstsw", U64, CODE("\xdf\xe0"), rows[i].x87, EX},
			{"fwait", U64, CODE("\x9b"), rows[i].wait, EX},
			{"emms", U64, CODE("\x0f\x77"), rows[i].mmx, EX},
			{"paddb mm", U64, CODE("\x0f\xfc\xc0"), rows[i].mmx, EX},
			{"addps", U64, CODE("\x0f\x58\xc0"), rows[i].sse, EX},
			{"movaps (%rsi)", K64, CODE("\x0f\x28\x06"), rows[i].sse, EX},
			{"paddd xmm", U64, CODE("\x66\x0f\xfe\xc0"), rows[i].sse, EX},
			{"cvtsi2sd", U64, CODE("\xf2\x0f\x2a\xc0"), rows[i].sse, EX},
			{"stmxcsr", U64, CODE("\x0f\xae\x1e"), rows[i].sse, EX},
			{"movnti", U64, CODE("\x0f\xc3\x06"), VEC_DONE, EX},
			{"sfence", U64, CODE("\x0f\xae\xf8"), VEC_DONE, EX},
			{"prefetcht0", U64, CODE("\x0f\x18\x0e"), VEC_DONE, EX},
		};

		write_cr4(cr4 & ~rows[i].cr4_clear);
		write_cr0((cr0 | rows[i].cr0_set) & ~rows[i].cr0_clear);
		for (u32 j = 0; j < ARRAY_SIZE(insns); j++) {
			test_context("%s: %s", rows[i].name, insns[j].name);
			if (insns[j].vector == ANY)
				continue;
			insn_run(&insns[j]);
		}
		write_cr0(cr0);
		write_cr4(cr4);
		asm volatile("fninit");
	}
	/* CLTS lets it go on. */
	write_cr0(cr0 | CR0_TS);
	asm volatile("clts");
	expect("CLTS", 0, read_cr0() & CR0_TS);
	test_context(NULL);
	test_end();
}

/* ---- x87, SSE ------------------------------------------------------------------------------- */

SNIPPET(mf_wait, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; nop; mf_wait_at: fwait; nop");
SNIPPET(mf_arith, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; fnstsw %ax; mf_arith_at: fld1; nop");
SNIPPET(mf_mmx, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; inc %rcx; mf_mmx_at: paddb %mm0, %mm0");
SNIPPET(mf_sse, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; addps %xmm0, %xmm0; mf_sse_at: fwait");
SNIPPET(mf_clear, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; fnclex; fwait");
SNIPPET(mf_masked, "fninit; fld1; fldz; fdivrp; fwait; fnstsw %ax");
SNIPPET(mf_control, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; fnstcw 2(%rsi); fnstenv 64(%rsi)\n"
		    "fnclex");
SNIPPET(mf_unmask, "fninit; fld1; fldz; fdivrp; fldcw (%rsi); mf_unmask_at: fwait");
extern u8 mf_wait_at[], mf_arith_at[], mf_mmx_at[], mf_sse_at[], mf_unmask_at[];

/* An unmasked x87 exception is kept until the next waiting instruction (SDM vol. 1 8.6, 8.7; CR0.NE
 * = 1). */
static void test_mf(void)
{
	const struct {
		const char *name;
		u8 *code, *at; /* NULL: no exception */
	} rows[] = {
		{"fwait", mf_wait, mf_wait_at},
		{"next x87 instruction, fnstsw does not wait", mf_arith, mf_arith_at},
		{"MMX", mf_mmx, mf_mmx_at},
		{"SSE does not wait", mf_sse, mf_sse_at},
		{"cleared by fnclex", mf_clear, NULL},
		{"masked", mf_masked, NULL},
		{"control instructions do not wait", mf_control, NULL},
		{"unmasked later by fldcw", mf_unmask, mf_unmask_at},
	};

	test_begin("exceptions: #MF is raised at the next waiting instruction");
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ctx c = ctx_user(rows[i].code);

		*(u16 *)insn_data = 0x37b; /* ZM = 0 */
		c.gpr[RSI] = (u64)user_alias(insn_data);
		exec(&c);
		test_context("%s", rows[i].name);
		if (rows[i].at) {
			expect_trap(&c, MF, NO_ERROR);
			expect("RIP", (u64)user_alias(rows[i].at), c.rip);
		} else {
			expect_done(&c);
		}
		if (rows[i].code == mf_masked)
			expect("ZE, ES and B of the status word", 4, c.gpr[RAX] & 0x8084);
		asm volatile("fninit");
	}
	test_context(NULL);
	test_end();
}

/* MXCSR, XMM0 and XMM1 from memory, EFLAGS with none of the flags that a comparison sets. */
#define XM_SNIPPET(name, text)                                                                     \
	extern u8 name##_at[];                                                                     \
	SNIPPET(name, "ldmxcsr (%rsi); movups 16(%rsi), %xmm0; movups 32(%rsi), %xmm1\n"           \
		      "mov $1, %eax; or %eax, %eax\n" #name "_at: " text)
XM_SNIPPET(xm_divss, "divss %xmm1, %xmm0");
XM_SNIPPET(xm_divps, "divps 32(%rsi), %xmm0");
XM_SNIPPET(xm_addss, "addss %xmm1, %xmm0");
XM_SNIPPET(xm_mulsd, "mulsd %xmm1, %xmm0");
XM_SNIPPET(xm_sqrtsd, "sqrtsd %xmm1, %xmm0");
XM_SNIPPET(xm_cvtps2pd, "cvtps2pd %xmm1, %xmm0");
XM_SNIPPET(xm_cvttsd2si, "cvttsd2si %xmm1, %rax");
XM_SNIPPET(xm_cvtsi2ss, "cvtsi2ssl 32(%rsi), %xmm0");
XM_SNIPPET(xm_comisd, "comisd %xmm1, %xmm0");
XM_SNIPPET(xm_cmpps, "cmpltps %xmm1, %xmm0");
XM_SNIPPET(xm_masked, "ldmxcsr 4(%rsi); divss %xmm1, %xmm0");

enum { IE = 1, ZE = 4, OE = 8, PE = 32, MASKED = 0x1f80 };
#define UNMASK(flags) (MASKED & ~((flags) << 7))
#define PS(a, b)                                                                                   \
	{                                                                                          \
		(u64)(b) << 32 | (a), 0x3f8000003f800000                                           \
	}
#define PD(a)                                                                                      \
	{                                                                                          \
		a, 0x3ff0000000000000                                                              \
	}
#define ONE   0x3f800000 /* 1.0f */
#define ONE_D 0x3ff0000000000000
#define NAN_S 0x7fc00000
#define NAN_D 0x7ff8000000000000

static const struct xm {
	const char *name;
	u8 *code, *at;
	u32 mxcsr, flags; /* MXCSR before, what it has got beside it behind */
	u64 a[2], b[2];	  /* XMM0, XMM1 */
	u64 done;	  /* lower half of XMM0 behind it; 0: #XM */
} xm_rows[] = {
	{"divss by 0", xm_divss, xm_divss_at, UNMASK(ZE), ZE, PS(ONE, ONE), PS(0, ONE), 0},
	{"divss by 0, masked", xm_divss, xm_divss_at, MASKED, ZE, PS(ONE, ONE), PS(0, ONE),
	 0x3f8000007f800000},
	{"divss by 0, invalid unmasked", xm_divss, xm_divss_at, UNMASK(IE), ZE, PS(ONE, ONE),
	 PS(0, ONE), 0x3f8000007f800000},
	/* The inexact quotient of the first does not count when the second has none. */
	{"divps, second lane", xm_divps, xm_divps_at, UNMASK(ZE), ZE, PS(ONE, ONE),
	 PS(0x40400000, 0), 0},
	{"addss, overflow", xm_addss, xm_addss_at, UNMASK(OE), OE, PS(0x7f7fffff, ONE),
	 PS(0x7f7fffff, 0), 0},
	{"addss, nothing", xm_addss, xm_addss_at, 0, 0, PS(ONE, ONE), PS(ONE, 0),
	 0x3f80000040000000},
	{"mulsd, inexact", xm_mulsd, xm_mulsd_at, UNMASK(PE), PE, PD(0x3ff0000000000001),
	 PD(0x3ff0000000000001), 0},
	{"sqrtsd of -1", xm_sqrtsd, xm_sqrtsd_at, UNMASK(IE), IE, PD(ONE_D), PD(0xbff0000000000000),
	 0},
	{"cvtps2pd of a signalling NaN", xm_cvtps2pd, xm_cvtps2pd_at, UNMASK(IE), IE, PD(ONE_D),
	 PS(0x7f800001, 0), 0},
	{"cvttsd2si of a NaN", xm_cvttsd2si, xm_cvttsd2si_at, UNMASK(IE), IE, PD(ONE_D), PD(NAN_D),
	 0},
	{"cvtsi2ss, inexact", xm_cvtsi2ss, xm_cvtsi2ss_at, UNMASK(PE), PE, PS(ONE, ONE),
	 PS(0x7fffffff, 0), 0},
	{"comisd with a NaN", xm_comisd, xm_comisd_at, UNMASK(IE), IE, PD(ONE_D), PD(NAN_D), 0},
	{"cmpltps with a NaN", xm_cmpps, xm_cmpps_at, UNMASK(IE), IE, PS(ONE, ONE), PS(NAN_S, ONE),
	 0},
	{"masked again", xm_masked, xm_masked_at, UNMASK(ZE), ZE, PS(ONE, ONE), PS(0, ONE),
	 0x3f8000007f800000},
};

static struct ctx run_xm(const struct xm *row, u32 *mxcsr, u64 xmm0[2])
{
	struct ctx c = ctx_user(row->code);
	u32 *data = (u32 *)insn_data;

	data[0] = row->mxcsr;
	data[1] = MASKED;
	memcpy(insn_data + 16, row->a, 16);
	memcpy(insn_data + 32, row->b, 16);
	c.gpr[RSI] = (u64)user_alias(insn_data);
	exec(&c);
	asm volatile("stmxcsr %0\n movups %%xmm0, (%2)\n ldmxcsr %1"
		     : "=m"(*mxcsr)
		     : "m"((u32){MASKED}), "r"(xmm0)
		     : "memory");
	return c;
}

static void check_xm(const struct xm *row)
{
	const bool masked_again = row->code == xm_masked;
	u32 mxcsr;
	u64 xmm0[2];
	struct ctx c = run_xm(row, &mxcsr, xmm0);

	test_context("%s", row->name);
	/* Whether an unmasked overflow is inexact as well is not asked. */
	expect("MXCSR", (masked_again ? MASKED : row->mxcsr) | row->flags,
	       mxcsr & ~(row->flags & OE ? (u32)PE : 0));
	if (row->done) {
		expect_done(&c);
		expect("XMM0", row->done, xmm0[0]);
		return;
	}
	expect_trap(&c, XM, NO_ERROR);
	expect("RIP", (u64)user_alias(row->at), c.rip);
	expect("XMM0, lower half", row->a[0], xmm0[0]);
	expect("XMM0, upper half", row->a[1], xmm0[1]);
	expect("RAX", 1, c.gpr[RAX]);
	expect("CF, PF, ZF, SF, OF", 0, c.rflags & 0x8c5);
}

static void test_xm(void)
{
	u64 cr4 = read_cr4(), xmm0[2];
	struct ctx c;
	u32 mxcsr;

	test_begin("exceptions: masked SSE exception sets its flag");
	check_xm(&xm_rows[1]);
	test_context(NULL);
	test_end();
	test_begin("exceptions: #XM (SDM vol. 1 11.5.2)");
	for (u32 i = 0; i < ARRAY_SIZE(xm_rows); i++)
		check_xm(&xm_rows[i]);
	test_context("CR4.OSXMMEXCPT = 0");
	write_cr4(cr4 & ~CR4_XMM);
	c = run_xm(&xm_rows[0], &mxcsr, xmm0);
	expect_trap(&c, UD, NO_ERROR);
	write_cr4(cr4);
	test_context(NULL);
	test_end();
	test_begin("exceptions: MXCSR reserved bits are #GP(0)");
	insn_run(&(struct insn){"fine", U64, CODE("\x0f\xae\x56\x40"), VEC_DONE, EX});
	asm volatile("ldmxcsr %0" ::"m"((u32){0x1f80}));
	c = ctx_user(put_code("\x0f\xae\x16", 3));
	*(u32 *)insn_data = 0x11f80;
	c.gpr[RSI] = (u64)user_alias(insn_data);
	exec(&c);
	expect_trap(&c, GP, 0);
	test_end();
}

/* Alignment rules of SSE: vol. 1 11.6.10.4 and each instruction's list (type 1 and 4 against 5). */
static void test_alignment(void)
{
	static const struct insn must[] = {
		{"movaps load", U64, CODE("\x0f\x28\x46\x08"), GP, 0},
		{"movaps load", K64, CODE("\x0f\x28\x46\x01"), GP, 0},
		{"movaps store", U64, CODE("\x0f\x29\x46\x08"), GP, 0},
		{"movapd load", U64, CODE("\x66\x0f\x28\x46\x04"), GP, 0},
		{"movdqa load", U64, CODE("\x66\x0f\x6f\x46\x01"), GP, 0},
		{"movdqa store", U64, CODE("\x66\x0f\x7f\x46\x08"), GP, 0},
		{"movntps", U64, CODE("\x0f\x2b\x46\x08"), GP, 0},
		{"movntdq", U64, CODE("\x66\x0f\xe7\x46\x08"), GP, 0},
		{"addps", U64, CODE("\x0f\x58\x46\x08"), GP, 0},
		{"andps", U64, CODE("\x0f\x54\x46\x04"), GP, 0},
		{"mulpd", U64, CODE("\x66\x0f\x59\x46\x08"), GP, 0},
		{"paddd", U64, CODE("\x66\x0f\xfe\x46\x08"), GP, 0},
		{"pshufd", U64, CODE("\x66\x0f\x70\x46\x08\x00"), GP, 0},
		{"pxor", U64, CODE("\x66\x0f\xef\x46\x0f"), GP, 0},
		{"cvtdq2ps", U64, CODE("\x0f\x5b\x46\x08"), GP, 0},
		{"shufps", U64, CODE("\x0f\xc6\x46\x08\x00"), GP, 0},
		{"fxsave", U64, CODE("\x0f\xae\x46\x08"), GP, 0},
		{"fxrstor", U64, CODE("\x0f\xae\x4e\x08"), GP, 0},
		{"movaps load", U32, CODE("\x0f\x28\x46\x08"), GP, 0},
		{"movaps of the stack", U64, CODE("\x0f\x28\x45\x08"), GP, 0},
	};
	static const struct insn need_not[] = {
		{"movaps aligned", U64, CODE("\x0f\x28\x46\x10"), VEC_DONE, EX},
		{"movups load", U64, CODE("\x0f\x10\x46\x01"), VEC_DONE, EX},
		{"movups store", U64, CODE("\x0f\x11\x46\x01"), VEC_DONE, EX},
		{"movdqu load", U64, CODE("\xf3\x0f\x6f\x46\x01"), VEC_DONE, EX},
		{"movlps", U64, CODE("\x0f\x12\x46\x01"), VEC_DONE, EX},
		{"movss", U64, CODE("\xf3\x0f\x10\x46\x01"), VEC_DONE, EX},
		{"addsd", U64, CODE("\xf2\x0f\x58\x46\x01"), VEC_DONE, EX},
		{"cvtps2pd", U64, CODE("\x0f\x5a\x46\x04"), VEC_DONE, EX},
		{"paddb mm", U64, CODE("\x0f\xfc\x46\x01"), VEC_DONE, EX},
		{"cvtdq2pd", U64, CODE("\xf3\x0f\xe6\x46\x04"), VEC_DONE, EX},
		{"movddup-free: movhps", U64, CODE("\x0f\x16\x46\x03"), VEC_DONE, EX},
	};

	INSN_TABLE("exceptions: misaligned SSE operands are #GP(0)", must);
	INSN_TABLE("exceptions: SSE operands that may be misaligned", need_not);
	asm volatile("fninit");
	if (cpuid(1, 0).c & BIT(13)) {
		static const struct insn cx16[] = {
			{"cmpxchg16b 8(%rsi)", U64, CODE("\x48\x0f\xc7\x4e\x08"), GP, 0},
			{"lock cmpxchg16b 8(%rsi)", U64, CODE("\xf0\x48\x0f\xc7\x4e\x08"), GP, 0},
			{"cmpxchg16b 1(%rsi)", K64, CODE("\x48\x0f\xc7\x4e\x01"), GP, 0},
			{"lock cmpxchg16b 16(%rsi)", U64, CODE("\xf0\x48\x0f\xc7\x4e\x10"),
			 VEC_DONE, EX},
			{"cmpxchg8b 1(%rsi)", U64, CODE("\x0f\xc7\x4e\x01"), VEC_DONE, EX},
			{"lock cmpxchg8b 4(%rsi)", U64, CODE("\xf0\x0f\xc7\x4e\x04"), VEC_DONE, EX},
		};

		INSN_TABLE("exceptions: misaligned CMPXCHG16B is #GP(0)", cx16);
	} else {
		test_skip("exceptions: misaligned CMPXCHG16B is #GP(0)", "no CMPXCHG16B");
	}
}

/* #AC: vol. 3A 6.15 interrupt 17. */
static void test_ac(void)
{
	static const struct insn on[] = {
		{"movw 1(%rsi)", U64, CODE("\x66\x8b\x46\x01"), AC, 0, .rflags = FL_AC},
		{"movl 2(%rsi)", U64, CODE("\x8b\x46\x02"), AC, 0, .rflags = FL_AC},
		{"movl store 1(%rsi)", U64, CODE("\x89\x46\x01"), AC, 0, .rflags = FL_AC},
		{"movq 1(%rsi)", U64, CODE("\x48\x8b\x46\x01"), AC, 0, .rflags = FL_AC},
		{"addl 3(%rsi)", U64, CODE("\x01\x46\x03"), AC, 0, .rflags = FL_AC},
		{"movl 2(%esi)", U32, CODE("\x8b\x46\x02"), AC, 0, .rflags = FL_AC},
		{"push", U64, CODE("\x48\x8d\x64\x24\x01"), VEC_DONE, EX, .rflags = FL_AC},
	};
	static const struct insn off[] = {
		{"byte", U64, CODE("\x8a\x46\x01"), VEC_DONE, EX, .rflags = FL_AC},
		{"aligned", U64, CODE("\x8b\x46\x04"), VEC_DONE, EX, .rflags = FL_AC},
		{"no AC", U64, CODE("\x8b\x46\x02"), VEC_DONE, EX},
		{"CPL 0", K64, CODE("\x8b\x46\x02"), VEC_DONE, EX, .rflags = FL_AC},
	};
	u64 cr0 = read_cr0();

	write_cr0(cr0 | CR0_AM);
	INSN_TABLE("exceptions: #AC(0) at CPL 3 with AM and AC", on);
	INSN_TABLE("exceptions: no #AC without its conditions", off);
	write_cr0(cr0);
	test_begin("exceptions: no #AC without CR0.AM");
	insn_run(&(struct insn){"", U64, CODE("\x8b\x46\x02"), VEC_DONE, EX, .rflags = FL_AC});
	test_end();
}

void test_fpu(void)
{
	test_device_not_available();
	test_mf();
	test_xm();
	test_alignment();
	test_ac();
}
