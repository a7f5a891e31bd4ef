/* Description: floating-point exceptions: what fetestexcept() of a guest sees, and where #MF and
 * #XM are raised.
 */
#include "tests/unit/uc_trap.h"

enum { IE = 1, ZE = 4, OE = 8, UE = 16, PE = 32, ES = 0x80, B = 0x8000 };

static uint32_t ld32(uint64_t a)
{
	uint32_t v;

	memcpy(&v, trap_ram + a, 4);
	return v;
}

static void st_double(uint64_t a, double v)
{
	memcpy(trap_ram + a, &v, 8);
}

/* fld [rdi]; OP [rdi + 8]; fnstsw ax */
static unsigned x87(double a, uint8_t op, double b, uint16_t cw)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;

	st_double(TRAP_DATA, a), st_double(TRAP_DATA + 8, b);
	s.gpr[7] = TRAP_DATA;
	memcpy(s.fxsave, &cw, 2);
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0xdd, 0x07, 0xdc, op, 0x08, 0xdf, 0xe0));
	CHECK(t.vector == TRAP_DONE, "vector %d", t.vector);
	return t.s.gpr[0] & 0x80ff;
}

/* movsd xmm0, [rdi]; OP xmm0, [rdi + 8]; stmxcsr [rdi + 16] */
static unsigned sse(double a, uint8_t op, double b)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;

	st_double(TRAP_DATA, a), st_double(TRAP_DATA + 8, b);
	s.gpr[7] = TRAP_DATA;
	t = trap_run_state(&s, TRAP_U64,
			   TRAP_BYTES(0xf2, 0x0f, 0x10, 0x07, 0xf2, 0x0f, op, 0x47, 0x08, 0x0f,
				      0xae, 0x5f, 0x10));
	CHECK(t.vector == TRAP_DONE, "vector %d", t.vector);
	CHECK((unsigned)(t.s.fxsave[24] | t.s.fxsave[25] << 8) == ld32(TRAP_DATA + 16),
	      "the state has another MXCSR");
	return ld32(TRAP_DATA + 16) & 0x3f;
}

static void flags(void)
{
	const double inf = 1e308 * 10;

	/* fdiv [m64] is /6, fmul /1, fadd /0 of DC */
	CHECK(x87(1, 0x77, 0, 0x37f) == ZE, "1/0");
	CHECK(x87(0, 0x77, 0, 0x37f) == IE, "0/0");
	CHECK(x87(1, 0x77, 4, 0x37f) == 0, "1/4");
	CHECK(x87(1, 0x77, 3, 0x37f) == PE, "1/3");
	CHECK(x87(inf, 0x4f, 0, 0x37f) == IE, "inf*0");
	CHECK(x87(1, 0x77, 0, 0x37b) == (ZE | ES | B), "1/0 unmasked");
	CHECK(x87(1, 0x77, 3, 0x37b) == PE, "1/3 with ZE unmasked");

	CHECK(sse(1, 0x5e, 0) == ZE, "divsd 1/0");
	CHECK(sse(0, 0x5e, 0) == IE, "divsd 0/0");
	CHECK(sse(1, 0x5e, 3) == PE, "divsd 1/3");
	CHECK(sse(1, 0x5e, 4) == 0, "divsd 1/4");
	CHECK(sse(1e300, 0x59, 1e300) == (OE | PE), "overflow");
	CHECK(sse(1e-300, 0x59, 1e-300) == (UE | PE), "underflow");
	CHECK(sse(-1, 0x51, -1) == IE, "sqrt(-1)");
	CHECK(sse(1, 0x58, 2) == 0, "1+2");
}

static void mxcsr(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;
	int i;

	s.gpr[7] = TRAP_DATA;
	/* sticky, and gone when it is loaded: divss 1/0; ldmxcsr; stmxcsr */
	trap_st64(TRAP_DATA, 0x000000003f800000), trap_st64(TRAP_DATA + 8, 0x1f80);
	t = trap_run_state(&s, TRAP_U64,
			   TRAP_BYTES(0xf3, 0x0f, 0x10, 0x07, 0xf3, 0x0f, 0x5e, 0x47, 0x04, 0x0f,
				      0xae, 0x57, 0x08, 0x0f, 0xae, 0x5f, 0x10));
	CHECK(t.vector == TRAP_DONE && ld32(TRAP_DATA + 16) == 0x1f80, "%x", ld32(TRAP_DATA + 16));
	/* rcpps, rsqrtps raise nothing; roundsd may be told not to */
	t = trap_run_state(&s, TRAP_U64,
			   TRAP_BYTES(0x0f, 0x57, 0xc0, 0x0f, 0x53, 0xc8, 0x0f, 0x52, 0xd0, 0x0f,
				      0xae, 0x5f, 0x10));
	CHECK(ld32(TRAP_DATA + 16) == 0x1f80, "rcpps of 0: %x", ld32(TRAP_DATA + 16));
	st_double(TRAP_DATA, 1.5);
	for (i = 0; i < 2; i++) {
		t = trap_run_state(&s, TRAP_U64,
				   TRAP_BYTES(0x66, 0x0f, 0x3a, 0x0b, 0x07, (uint8_t)(i * 8), 0x0f,
					      0xae, 0x5f, 0x10));
		CHECK(ld32(TRAP_DATA + 16) == (i ? 0x1f80 : 0x1fa0), "roundsd %d: %x", i * 8,
		      ld32(TRAP_DATA + 16));
	}
	/* FZ flushes SSE results, and not x87's */
	s.fxsave[25] = 0x9f;
	trap_st64(TRAP_DATA, 0x0000000000800000),
		trap_st64(TRAP_DATA + 8, 0x3f000000); /* FLT_MIN, 0.5 */
	t = trap_run_state(&s, TRAP_U64,
			   TRAP_BYTES(0xf3, 0x0f, 0x10, 0x07, 0xf3, 0x0f, 0x59, 0x47, 0x08, 0xf3,
				      0x0f, 0x11, 0x47, 0x10, 0xd9, 0x07, 0xd8, 0x4f, 0x08, 0xd9,
				      0x5f, 0x18));
	CHECK(ld32(TRAP_DATA + 16) == 0 && ld32(TRAP_DATA + 24) == 0x00400000, "%x %x",
	      ld32(TRAP_DATA + 16), ld32(TRAP_DATA + 24));
}

/* After an unmasked division by zero: which instruction raises #MF? */
static void waits(int vector, const uint8_t *insn, size_t n)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	uint8_t code[32] = {0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x90}; /* fld1; fldz; fdivp */
	struct trap t;

	memcpy(code + 7, insn, n);
	s.fxsave[0] = 0x7b;
	s.gpr[7] = TRAP_DATA;
	memset(trap_ram + TRAP_DATA, 0, 512);
	trap_ram[TRAP_DATA] = 0x7f, trap_ram[TRAP_DATA + 1] = 3;
	t = trap_run_state(&s, TRAP_U64, code, 7 + n);
	CHECK(t.vector == vector && (vector == TRAP_DONE || t.at == 7),
	      "%02x %02x: vector %d at %llx", insn[0], insn[1], t.vector, (unsigned long long)t.at);
}

static void mf(void)
{
	static const struct {
		uint8_t n, insn[4];
		int vector;
	} t[] = {
		{1, {0x9b}, TRAP_MF},		    /* fwait */
		{2, {0xd9, 0xe8}, TRAP_MF},	    /* fld1 */
		{2, {0xd9, 0xd0}, TRAP_MF},	    /* fnop */
		{2, {0xdd, 0x17}, TRAP_MF},	    /* fst [rdi] */
		{2, {0xd9, 0x2f}, TRAP_MF},	    /* fldcw waits */
		{3, {0x0f, 0x6f, 0xc0}, TRAP_MF},   /* MMX */
		{2, {0x0f, 0x77}, TRAP_MF},	    /* emms */
		{2, {0xdb, 0xe2}, TRAP_DONE},	    /* fnclex */
		{2, {0xdb, 0xe3}, TRAP_DONE},	    /* fninit */
		{2, {0xdf, 0xe0}, TRAP_DONE},	    /* fnstsw ax */
		{2, {0xdd, 0x3f}, TRAP_DONE},	    /* fnstsw */
		{2, {0xd9, 0x3f}, TRAP_DONE},	    /* fnstcw */
		{2, {0xd9, 0x37}, TRAP_DONE},	    /* fnstenv */
		{2, {0xdd, 0x37}, TRAP_DONE},	    /* fnsave */
		{3, {0x0f, 0x58, 0xc0}, TRAP_DONE}, /* SSE does not care */
	};
	uc_x86_vcpu_state s;
	size_t i;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		waits(t[i].vector, t[i].insn, t[i].n);
	/* fnclex forgets it; unmasking afterwards with FLDCW raises what is pending */
	s = trap_state(TRAP_U64);
	s.gpr[7] = TRAP_DATA;
	trap_st64(TRAP_DATA, 0x37b);
	EXPECT_STATE(&s, TRAP_U64, TRAP_MF, 8, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xd9, 0x2f,
		     0x9b);
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xdb, 0xe2,
		     0xd9, 0x2f, 0x9b);
	/* CR0.TS comes before, and without NE there is no #MF */
	s.fxsave[0] = 0x7b;
	s.cr0 &= ~0x20;
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b);
	s.cr0 |= 0x28;
	EXPECT_STATE(&s, TRAP_U64, TRAP_NM, 0, 0xd9, 0xe8);
	EXPECT_STATE(&s, TRAP_U64, TRAP_NM, 0, 0x9b);
}

static uint64_t xmm0_of(const struct trap *t, unsigned half)
{
	uint64_t v;

	memcpy(&v, t->s.fxsave + 160 + 8 * half, 8);
	return v;
}

static unsigned mxcsr_of(const struct trap *t)
{
	return t->s.fxsave[24] | (unsigned)t->s.fxsave[25] << 8;
}

/* OP xmm0, [rdi] with xmm0 = a, and the exceptions of `unmask` unmasked by LDMXCSR before it; the
 * operand of DIVPD is {b, b2}. */
static struct trap unmasked(double a, uint8_t op, double b, double b2, unsigned unmask, bool packed)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	const uint8_t code[] = {0x0f, 0xae, 0x57, 0x20, packed ? 0x66 : 0xf2, 0x0f, op, 0x07};

	st_double(TRAP_DATA, b), st_double(TRAP_DATA + 8, b2);
	trap_st64(TRAP_DATA + 0x20, 0x1f80 & ~(uint64_t)(unmask << 7));
	memcpy(s.fxsave + 160, &a, 8), memcpy(s.fxsave + 168, &a, 8);
	s.gpr[7] = TRAP_DATA;
	return trap_run_state(&s, TRAP_U64, code, sizeof(code));
}

static void xm(void)
{
	const double nan = __builtin_nan(""), big = 1e300;
	const struct {
		const char *name;
		double a, b, b2;
		unsigned unmask, flags; /* flags: what MXCSR says then */
		uint8_t op;
		bool packed, raises;
	} rows[] = {
		{"1/0", 1, 0, 0, ZE, ZE, 0x5e, false, true},
		{"1/0, all but it unmasked", 1, 0, 0, 0x3f & ~ZE, ZE, 0x5e, false, false},
		{"1/4, all unmasked", 1, 4, 0, 0x3f, 0, 0x5e, false, false},
		{"1/3", 1, 3, 0, PE, PE, 0x5e, false, true},
		{"1/3 and 1/0", 1, 3, 0, ZE, ZE, 0x5e, true, true},
		{"sqrt(-1)", 1, -1, 0, IE, IE, 0x51, false, true},
		{"overflow", big, big, 0, OE, OE | PE, 0x59, false, true},
		{"underflow", 1e-300, 1e-300, 0, UE, UE | PE, 0x59, false, true},
		{"comisd", 1, nan, 0, IE, IE, 0x2f, true, true},
		{"cvttpd2dq", 1, big, 0, IE, IE, 0xe6, true, true},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct trap t = unmasked(rows[i].a, rows[i].op, rows[i].b, rows[i].b2,
					 rows[i].unmask, rows[i].packed);
		uint64_t a;

		memcpy(&a, &rows[i].a, 8);
		CHECK(t.vector == (rows[i].raises ? TRAP_XM : TRAP_DONE) &&
			      (!rows[i].raises || t.at == 4),
		      "%s: vector %d at %llx", rows[i].name, t.vector, (unsigned long long)t.at);
		CHECK((mxcsr_of(&t) & 0x3f) == rows[i].flags, "%s: MXCSR %x", rows[i].name,
		      mxcsr_of(&t));
		CHECK(!rows[i].raises || (xmm0_of(&t, 0) == a && xmm0_of(&t, 1) == a),
		      "%s: the destination was changed", rows[i].name);
		CHECK(!rows[i].raises || !(t.flags & 0x8d5), "%s: EFLAGS %llx", rows[i].name,
		      (unsigned long long)t.flags);
	}
	/* Unmasked by the state, by FXRSTOR; CR4.OSXMMEXCPT. */
	for (unsigned osxmmexcpt = 0; osxmmexcpt < 2; osxmmexcpt++) {
		uc_x86_vcpu_state s = trap_state(TRAP_U64);

		s.gpr[7] = TRAP_DATA;
		s.cr4 = (s.cr4 & ~0x400ull) | osxmmexcpt << 10;
		st_double(TRAP_DATA, 0);
		s.fxsave[25] = 0x1d;
		/* cvtsi2sd xmm0, edi; divsd xmm0, [rdi] */
		EXPECT_STATE(&s, TRAP_U64, osxmmexcpt ? TRAP_XM : TRAP_UD, 4, 0xf2, 0x0f, 0x2a,
			     0xc7, 0xf2, 0x0f, 0x5e, 0x07);
		memcpy(trap_ram + TRAP_DATA + 64, s.fxsave, 512);
		s.fxsave[25] = 0x1f;
		EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0xf2, 0x0f, 0x2a, 0xc7, 0xf2, 0x0f, 0x5e,
			     0x07);
		/* fxrstor [rdi + 64] before */
		EXPECT_STATE(&s, TRAP_U64, osxmmexcpt ? TRAP_XM : TRAP_UD, 8, 0x0f, 0xae, 0x4f,
			     0x40, 0xf2, 0x0f, 0x2a, 0xc7, 0xf2, 0x0f, 0x5e, 0x07);
	}
}

int main(void)
{
	trap_open();
	flags();
	mxcsr();
	mf();
	xm();
	trap_close();
	return trap_report("test_uc_fpu");
}
