/* Description: which exception, at which address and with which error code: encodings that do not
 * exist, reserved bits, alignment, paging rights, addresses that are not canonical.
 */
#include "tests/unit/uc_trap.h"

static const uint64_t noncanonical = UINT64_C(0x800000000000);

static void encodings(void)
{
	int mode;

	for (mode = TRAP_K64; mode <= TRAP_U32; mode++) {
		const int end = TRAP_DONE;
		const bool wide = mode == TRAP_K64 || mode == TRAP_U64;

		/* LOCK: only the listed instructions, only with a memory destination */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x89, 0x04, 0x24);    /* mov [rsp], eax */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x90);		     /* nop */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x0f, 0xc1, 0xc0);    /* xadd eax, eax */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x01, 0xc0);	     /* add eax, eax */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x03, 0x04, 0x24);    /* add eax, [rsp] */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x83, 0x3c, 0x24, 0); /* cmp */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0xf7, 0x24, 0x24);    /* mul */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0xff, 0x34, 0x24);    /* push */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0xf3, 0xa4);	     /* rep movsb */
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x0f, 0xa2);	     /* cpuid */
		EXPECT(mode, end, 0, 0xf0, 0x01, 0x04, 0x24);
		EXPECT(mode, end, 0, 0xf0, 0x83, 0x04, 0x24, 1);
		EXPECT(mode, end, 0, 0xf0, 0x0f, 0xc1, 0x04, 0x24);
		EXPECT(mode, end, 0, 0xf0, 0x0f, 0xb1, 0x04, 0x24);
		EXPECT(mode, end, 0, 0xf0, 0x0f, 0xc7, 0x0c, 0x24); /* cmpxchg8b */
		EXPECT(mode, end, 0, 0xf0, 0x87, 0x04, 0x24);
		EXPECT(mode, end, 0, 0xf0, 0xf7, 0x1c, 0x24); /* neg */
		EXPECT(mode, end, 0, 0xf0, 0xfe, 0x04, 0x24); /* inc */

		/* VEX: BMI on general registers runs, everything that needs AVX does not */
		EXPECT(mode, end, 0, 0xc4, 0xe2, 0x78, 0xf2, 0xc1);    /* andn */
		EXPECT(mode, end, 0, 0xc4, 0xe2, 0x70, 0xf7, 0xc0);    /* bextr */
		EXPECT(mode, end, 0, 0xc4, 0xe2, 0x71, 0xf7, 0xc0);    /* shlx */
		EXPECT(mode, end, 0, 0xc4, 0xe2, 0x78, 0xf3, 0xc8);    /* blsr */
		EXPECT(mode, end, 0, 0xc4, 0xe2, 0x73, 0xf5, 0xc1);    /* pdep */
		EXPECT(mode, end, 0, 0xc4, 0xe2, 0x73, 0xf6, 0xc1);    /* mulx */
		EXPECT(mode, end, 0, 0xc4, 0xe3, 0x7b, 0xf0, 0xc0, 7); /* rorx */
		EXPECT(mode, TRAP_UD, 0, 0xc5, 0xf8, 0x58, 0xc0);      /* vaddps xmm0, xmm0, xmm0 */
		EXPECT(mode, TRAP_UD, 0, 0xc5, 0xf8, 0x77);	       /* vzeroupper */
		EXPECT(mode, TRAP_UD, 0, 0xc5, 0xf9, 0xef, 0xc0);      /* vpxor */
		EXPECT(mode, TRAP_UD, 0, 0xc5, 0xfc, 0x28, 0xc0);      /* vmovaps ymm */
		EXPECT(mode, TRAP_UD, 0, 0xc5, 0xf8, 0xa2);	       /* VEX cpuid */
		EXPECT(mode, TRAP_UD, 0, 0xc4, 0xe2, 0x7c, 0xf2, 0xc1); /* andn with L */
		EXPECT(mode, TRAP_UD, 0, 0xc4, 0xe2, 0x79, 0x00, 0xc0); /* vpshufb */
		EXPECT(mode, TRAP_UD, 0, 0xc4, 0xe3, 0x79, 0x0f, 0xc0, 1);

		EXPECT(mode, TRAP_UD, 0, 0x0f, 0x38, 0xf0, 0xc0); /* movbe reg, reg */
		EXPECT(mode, TRAP_UD, 0, 0x0f, 0x0b);
		EXPECT(mode, TRAP_UD, 0, 0x0f, 0xff);
		/* more than 15 bytes */
		EXPECT(mode, TRAP_GP, 0, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		       0x66, 0x66, 0x66, 0x66, 0x66, 0x90);

		EXPECT(mode, TRAP_DB, 1, 0xf1, 0x90); /* int1: behind it, without DPL check */
		EXPECT(mode, TRAP_BP, 1, 0xcc, 0x90);
		if (wide) {
			EXPECT(mode, TRAP_UD, 0, 0xce);
			EXPECT(mode, TRAP_UD, 0, 0x62, 0x04, 0x24);
			EXPECT(mode, TRAP_UD, 0, 0x27);
			EXPECT(mode, TRAP_UD, 0, 0x9a, 0, 0, 0, 0, 0, 0);
		} else {
			EXPECT(mode, end, 0, 0xce); /* into */
			EXPECT(mode, TRAP_OF, 5, 0xb0, 0x7f, 0x04, 1, 0xce,
			       0x90); /* a trap: behind it */
		}
	}
}

static void bound(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U32);
	const int32_t limits[2] = {-5, 10};

	memcpy(trap_ram + TRAP_DATA, limits, 8);
	s.gpr[6] = TRAP_DATA;
	s.gpr[0] = 10;
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x62, 0x06);
	s.gpr[0] = 0xfffffffb;
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x62, 0x06);
	s.gpr[0] = 11;
	EXPECT_STATE(&s, TRAP_U32, TRAP_BR, 0, 0x62, 0x06);
	s.gpr[0] = 0xfffffffa;
	EXPECT_STATE(&s, TRAP_U32, TRAP_BR, 0, 0x62, 0x06);
}

static void cr(uint8_t reg, uint64_t value, bool ok)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);

	s.gpr[0] = value;
	/* mov crN, rax, and back to what it was in rbx */
	s.gpr[3] = reg == 0 ? s.cr0 : reg == 3 ? s.cr3 : reg == 4 ? s.cr4 : 0;
	if (reg == 8)
		EXPECT_STATE(&s, TRAP_K64, ok ? TRAP_DONE : TRAP_GP, 0, 0x44, 0x0f, 0x22, 0xc0);
	else
		EXPECT_STATE(&s, TRAP_K64, ok ? TRAP_DONE : TRAP_GP, 0, 0x0f, 0x22,
			     (uint8_t)(0xc0 | reg << 3), 0x0f, 0x22, (uint8_t)(0xc3 | reg << 3));
}

static void msr(uint32_t number, uint64_t value, bool ok)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);

	s.gpr[1] = number, s.gpr[0] = (uint32_t)value, s.gpr[2] = value >> 32;
	EXPECT_STATE(&s, TRAP_K64, ok ? TRAP_DONE : TRAP_GP, 0, 0x0f, 0x30);
}

static void reserved_bits(void)
{
	static const uint32_t addresses[] = {0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101,
					     0xc0000102, 0x175,	     0x176};
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	const uint64_t cr0 = s.cr0, cr4 = s.cr4;
	size_t i;

	cr(0, cr0, true);
	cr(0, cr0 | UINT64_C(1) << 32, false);
	cr(0, cr0 & ~1ull, false);	    /* PG without PE */
	cr(0, cr0 & ~0x80000000ull, false); /* PG off in 64-bit code */
	cr(0, cr0 | 1 << 29, false);	    /* NW without CD */
	cr(0, cr0 | 1 << 29 | 1 << 30, true);
	cr(3, TRAP_PML4, true);
	cr(3, TRAP_PML4 | UINT64_C(1) << 45, false);
	cr(3, TRAP_PML4 | UINT64_C(1) << 63, false);
	cr(4, cr4, true);
	cr(4, cr4 & ~0x20ull, false); /* PAE off in long mode */
	cr(4, cr4 | 1 << 12, false);  /* LA57: not in CPUID, and not in long mode */
	cr(4, cr4 | 1 << 13, false);  /* VMXE */
	cr(4, cr4 | 1 << 17, false);  /* PCIDE */
	cr(4, cr4 | 1 << 22, false);  /* PKE */
	cr(4, cr4 | 1 << 11, false);  /* UMIP */
	cr(4, cr4 | 1 << 15, false);
	cr(4, cr4 | UINT64_C(1) << 32, false);
	cr(8, 15, true);
	cr(8, 16, false);
	cr(8, UINT64_C(1) << 63, false);
	EXPECT(TRAP_U64, TRAP_GP, 0, 0x0f, 0x20, 0xc0);

	for (i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		msr(addresses[i], 0x7fffffffffff, true);
		msr(addresses[i], UINT64_C(0xffff800000000000), true);
		msr(addresses[i], noncanonical, false);
	}
	msr(0xc0000080, s.efer, true);
	msr(0xc0000080, s.efer | 0x1000, false); /* SVME */
	msr(0xc0000080, s.efer | 2, false);
	msr(0xc0000080, s.efer | UINT64_C(1) << 40, false);
	msr(0xc0000080, s.efer & ~0x100ull, false); /* LME off under paging */
	msr(0xc0000080, s.efer & ~0x400ull, true);  /* LMA is read-only */
	msr(0x277, 0x0007040600070406, true);
	msr(0x277, 0x0002040600070406, false);
	msr(0x277, 0x0008040600070406, false);
	EXPECT(TRAP_U64, TRAP_GP, 0, 0x0f, 0x32);

	/* MXCSR */
	s = trap_state(TRAP_K64);
	trap_st64(TRAP_STACK, 0x1f80);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x0f, 0xae, 0x14, 0x24);
	trap_st64(TRAP_STACK, 0x11f80);
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0xae, 0x14, 0x24);

	/* TSC and counters */
	s = trap_state(TRAP_U64);
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x0f, 0x31);
	s.cr4 |= 4;
	EXPECT_STATE(&s, TRAP_U64, TRAP_GP, 0, 0x0f, 0x31);
	EXPECT_STATE(&s, TRAP_U64, TRAP_GP, 0, 0x0f, 0x33);
	EXPECT(TRAP_K64, TRAP_GP, 0, 0x0f, 0x33);
}

/* @insn with [rdi] as its 16-byte operand */
static void aligned(const uint8_t *insn, size_t n, bool must)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;
	int i;

	for (i = 0; i < 16; i++) {
		s.gpr[7] = TRAP_DATA + i;
		t = trap_run_state(&s, TRAP_U64, insn, n);
		CHECK(t.vector == (must && i ? TRAP_GP : TRAP_DONE) &&
			      (t.vector != TRAP_GP || (!t.error && !t.at)),
		      "%02x %02x %02x %02x at +%d: vector %d", insn[0], insn[1], insn[2], insn[3],
		      i, t.vector);
	}
}

static void alignment(void)
{
	static const struct {
		uint8_t n, insn[7];
		bool must;
	} t[] = {
		{3, {0x0f, 0x28, 0x07}, true}, /* movaps */
		{3, {0x0f, 0x29, 0x07}, true},
		{4, {0x66, 0x0f, 0x6f, 0x07}, true}, /* movdqa */
		{4, {0x66, 0x0f, 0x7f, 0x07}, true},
		{3, {0x0f, 0x2b, 0x07}, true},		      /* movntps */
		{4, {0x66, 0x0f, 0xe7, 0x07}, true},	      /* movntdq */
		{5, {0x66, 0x0f, 0x38, 0x2a, 0x07}, true},    /* movntdqa */
		{3, {0x0f, 0x58, 0x07}, true},		      /* addps */
		{4, {0x66, 0x0f, 0xef, 0x07}, true},	      /* pxor */
		{4, {0x66, 0x0f, 0xfe, 0x07}, true},	      /* paddd */
		{5, {0x66, 0x0f, 0x70, 0x07, 0}, true},	      /* pshufd */
		{5, {0x66, 0x0f, 0x38, 0x00, 0x07}, true},    /* pshufb */
		{6, {0x66, 0x0f, 0x3a, 0x0f, 0x07, 1}, true}, /* palignr */
		{4, {0xf3, 0x0f, 0x16, 0x07}, true},	      /* movshdup */
		{4, {0x66, 0x0f, 0x2d, 0x07}, true},	      /* cvtpd2pi */
		{4, {0x48, 0x0f, 0xc7, 0x0f}, true},	      /* cmpxchg16b */
		{3, {0x0f, 0x10, 0x07}, false},		      /* movups */
		{3, {0x0f, 0x11, 0x07}, false},
		{4, {0xf3, 0x0f, 0x6f, 0x07}, false}, /* movdqu */
		{4, {0xf3, 0x0f, 0x7f, 0x07}, false},
		{4, {0xf2, 0x0f, 0xf0, 0x07}, false},	       /* lddqu */
		{6, {0x66, 0x0f, 0x3a, 0x63, 0x07, 0}, false}, /* pcmpistri */
		{3, {0x0f, 0x5a, 0x07}, false},		       /* cvtps2pd: 8 bytes */
		{4, {0xf3, 0x0f, 0xe6, 0x07}, false},	       /* cvtdq2pd */
		{3, {0x0f, 0x2d, 0x07}, false},		       /* cvtps2pi */
		{6, {0x66, 0x0f, 0x3a, 0x0a, 0x07, 0}, false}, /* roundss */
		{6, {0x66, 0x0f, 0x3a, 0x0b, 0x07, 0}, false},
		{4, {0xf3, 0x0f, 0x58, 0x07}, false},	    /* addss */
		{5, {0x66, 0x0f, 0x38, 0x20, 0x07}, false}, /* pmovsxbw */
	};
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	size_t i;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		aligned(t[i].insn, t[i].n, t[i].must);
	/* those that read less than 16 bytes do not reach into the next page, which is not there */
	trap_st64(TRAP_PT + (TRAP_DATA >> 12) * 8 + 8, 0);
	s.gpr[7] = TRAP_DATA + 0x1000 - 8;
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x0f, 0x5a, 0x07);
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0xf3, 0x0f, 0xe6, 0x07);
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x66, 0x0f, 0x3a, 0x0b, 0x07, 0);
	EXPECT_STATE(&s, TRAP_U64, TRAP_PF, 0, 0x0f, 0x10, 0x07);
	trap_memory();
}

static void page_fault(uc_x86_vcpu_state *s, int mode, uint64_t pte, const uint8_t *code, size_t n,
		       int64_t error)
{
	struct trap t;

	trap_st64(TRAP_PT + (TRAP_DATA >> 12) * 8, pte);
	trap_ram[TRAP_DATA + 0x18] = 0xc3; /* ret */
	s->gpr[7] = TRAP_DATA + 0x18;
	t = trap_run_state(s, mode, code, n);
	if (error < 0)
		CHECK(t.vector == TRAP_DONE, "pte %llx %02x: vector %d error %llx cr2 %llx",
		      (unsigned long long)pte, code[0], t.vector, (unsigned long long)t.error,
		      (unsigned long long)t.s.cr2);
	else
		CHECK(t.vector == TRAP_PF && t.error == (uint64_t)error &&
			      t.s.cr2 == TRAP_DATA + 0x18,
		      "pte %llx %02x: vector %d error %llx cr2 %llx, not %llx",
		      (unsigned long long)pte, code[0], t.vector, (unsigned long long)t.error,
		      (unsigned long long)t.s.cr2, (unsigned long long)error);
}

static void paging(void)
{
	static const uint8_t rd[] = {0x8a, 0x07}, wr[] = {0x88, 0x07}, ex[] = {0xff, 0xd7, 0x90};
	const uint64_t nx = UINT64_C(1) << 63, rsvd = UINT64_C(1) << 45;
	uc_x86_vcpu_state k = trap_state(TRAP_K64), u = trap_state(TRAP_U64);

	/* P 1, W 2, U 4, RSVD 8, I 16 */
	page_fault(&u, TRAP_U64, TRAP_DATA | 7, rd, 2, -1);
	page_fault(&u, TRAP_U64, 0, rd, 2, 4);
	page_fault(&u, TRAP_U64, 0, wr, 2, 6);
	page_fault(&u, TRAP_U64, 0, ex, 3, 0x14);
	page_fault(&u, TRAP_U64, TRAP_DATA | 3, rd, 2, 5);
	page_fault(&u, TRAP_U64, TRAP_DATA | 5, wr, 2, 7);
	page_fault(&u, TRAP_U64, TRAP_DATA | 7 | nx, ex, 3, 0x15);
	page_fault(&u, TRAP_U64, TRAP_DATA | 7 | rsvd, rd, 2, 0xd);
	page_fault(&u, TRAP_U64, TRAP_DATA | 7 | rsvd, wr, 2, 0xf);
	page_fault(&k, TRAP_K64, TRAP_DATA | 3, rd, 2, -1);
	page_fault(&k, TRAP_K64, 0, wr, 2, 2);
	page_fault(&k, TRAP_K64, TRAP_DATA | 1, wr, 2, 3); /* CR0.WP */
	k.cr0 &= ~0x10000;
	page_fault(&k, TRAP_K64, TRAP_DATA | 1, wr, 2, -1);
	k.cr0 |= 0x10000;
	k.efer &= ~0x800;
	page_fault(&k, TRAP_K64, TRAP_DATA | 7 | nx, rd, 2, 9); /* bit 63 is reserved without NXE */
	k.efer |= 0x800;
	page_fault(&k, TRAP_K64, TRAP_DATA | 3 | nx, ex, 3, 0x11);

	/* SMEP and SMAP: all but that page the supervisor's */
	for (int i = 0; i < 512; i++)
		trap_st64(TRAP_PT + i * 8, i * 4096 | 3);
	k.cr4 |= 1 << 20 | 1 << 21;
	page_fault(&k, TRAP_K64, TRAP_DATA | 7, ex, 3, 0x11);
	page_fault(&k, TRAP_K64, TRAP_DATA | 7, rd, 2, 1);
	page_fault(&k, TRAP_K64, TRAP_DATA | 7, wr, 2, 3);
	k.rflags |= 1 << 18; /* AC */
	page_fault(&k, TRAP_K64, TRAP_DATA | 7, rd, 2, -1);
	page_fault(&k, TRAP_K64, TRAP_DATA | 7, ex, 3, 0x11);
	k.rflags = 2;
	page_fault(&k, TRAP_K64, TRAP_DATA | 3, ex, 3, -1);
	trap_memory();

	/* a fetch that crosses into a page that is not there: the address of the instruction, what
	 * is before it done once, CR2 the page */
	for (int at = 1; at < 5; at++) {
		struct trap t;
		static const uint8_t code[] = {0xff, 0xc3, 0xff, 0xc3, 0xb8, 1,
					       2,    3,	   4,	 0xff, 0xc3};
		uc_x86_vcpu_state s = trap_state(TRAP_U64);

		memcpy(trap_ram + TRAP_CODE + 0x1000 - 4 - at, code, sizeof(code));
		trap_st64(TRAP_PT + (TRAP_CODE >> 12) * 8 + 8, 0);
		s.rip = TRAP_CODE + 0x1000 - 4 - at;
		s.gpr[3] = 0;
		t = trap_run_state(&s, TRAP_U64, code, 0);
		CHECK(t.vector == TRAP_PF && t.error == 0x14 && t.rip == s.rip + 4 &&
			      t.s.gpr[3] == 2 && t.s.cr2 == TRAP_CODE + 0x1000,
		      "%d bytes before: vector %d rip %llx rbx %llx cr2 %llx", at, t.vector,
		      (unsigned long long)t.rip, (unsigned long long)t.s.gpr[3],
		      (unsigned long long)t.s.cr2);
	}
	trap_memory();

	/* a store that faults on its second page has changed nothing on the first; neither have the
	 * wide ones */
	for (int wide = 0; wide < 4; wide++) {
		uc_x86_vcpu_state s = trap_state(TRAP_U64);
		struct trap t;

		trap_st64(TRAP_PT + (TRAP_DATA >> 12) * 8 + 8, 0);
		trap_st64(TRAP_DATA + 0xff8, 0);
		memset(s.fxsave + 32, 0xff, 16 * 24), s.fxsave[4] = 0xff;
		s.gpr[7] = TRAP_DATA + 0x1000 - (wide == 3 ? 9 : 8);
		t = wide == 0	? trap_run_state(&s, TRAP_U64,
						 TRAP_BYTES(0x0f, 0x11, 0x07)) /* movups */
		    : wide == 1 ? trap_run_state(&s, TRAP_U64,
						 TRAP_BYTES(0xf3, 0x0f, 0x7f, 0x07)) /* movdqu */
		    : wide == 2
			    ? trap_run_state(&s, TRAP_U64, TRAP_BYTES(0xdb, 0x3f)) /* fstp m80 */
			    : trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x0f, 0x11, 0x07));
		CHECK(t.vector == TRAP_PF && trap_ld64(TRAP_DATA + 0xff8) == 0 &&
			      t.s.cr2 == TRAP_DATA + 0x1000,
		      "%d: vector %d, %llx", wide, t.vector,
		      (unsigned long long)trap_ld64(TRAP_DATA + 0xff8));
	}
	trap_memory();
	for (int size = 2; size <= 8; size *= 2) {
		uc_x86_vcpu_state s = trap_state(TRAP_U64);
		struct trap t;

		trap_st64(TRAP_PT + (TRAP_DATA >> 12) * 8 + 8, 0);
		trap_st64(TRAP_DATA + 0xff8, 0);
		s.gpr[0] = ~UINT64_C(0);
		s.gpr[7] = TRAP_DATA + 0x1000 - size / 2;
		t = size == 2	? trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x66, 0x89, 0x07))
		    : size == 4 ? trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x89, 0x07))
				: trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x48, 0x89, 0x07));
		CHECK(t.vector == TRAP_PF && trap_ld64(TRAP_DATA + 0xff8) == 0 &&
			      t.s.cr2 == TRAP_DATA + 0x1000,
		      "size %d: vector %d, %llx", size, t.vector,
		      (unsigned long long)trap_ld64(TRAP_DATA + 0xff8));
	}
	trap_memory();
}

/* One access of a locked instruction, which is a write, whether the page is there or not. */
static void locked(void)
{
	static const struct {
		size_t n;
		uint8_t code[6];
	} insns[] = {
		{2, {0x87, 0x07}},		     /* xchg [rdi], eax */
		{3, {0xf0, 0x01, 0x07}},	     /* lock add [rdi], eax */
		{4, {0xf0, 0x0f, 0xb1, 0x0f}},	     /* lock cmpxchg [rdi], ecx */
		{4, {0xf0, 0x0f, 0xc1, 0x07}},	     /* lock xadd [rdi], eax */
		{3, {0xf0, 0xf7, 0x1f}},	     /* lock neg [rdi] */
		{5, {0xf0, 0x0f, 0xba, 0x2f, 0x01}}, /* lock bts [rdi], 1 */
		{4, {0xf0, 0x0f, 0xc7, 0x0f}},	     /* lock cmpxchg8b [rdi] */
		{5, {0xf0, 0x48, 0x0f, 0xc7, 0x0f}}, /* lock cmpxchg16b [rdi] */
	};
	static const struct {
		uint64_t pte;
		unsigned error;
	} pages[] = {{0, 6}, {5, 7}, {3, 7}}; /* not there; read-only; the supervisor's */
	const uint64_t pte = TRAP_PT + (TRAP_DATA >> 12) * 8, old = trap_ld64(pte);
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;

	s.gpr[7] = TRAP_DATA;
	for (size_t page = 0; page < sizeof(pages) / sizeof(pages[0]); page++) {
		trap_st64(pte, pages[page].pte ? pages[page].pte | TRAP_DATA : 0);
		for (size_t i = 0; i < sizeof(insns) / sizeof(insns[0]); i++) {
			t = trap_run_state(&s, TRAP_U64, insns[i].code, insns[i].n);
			CHECK(t.vector == TRAP_PF && t.error == pages[page].error && t.at == 0 &&
				      t.s.cr2 == TRAP_DATA,
			      "page %zu, instruction %zu: vector %d error %llx", page, i, t.vector,
			      (unsigned long long)t.error);
		}
		/* mov eax, [rdi] */
		t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x8b, 0x07));
		CHECK(page == 1 || (t.vector == TRAP_PF && t.error == (pages[page].error & 5)),
		      "page %zu, a load: vector %d error %llx", page, t.vector,
		      (unsigned long long)t.error);
	}
	trap_st64(pte, old);
}

/* The flags that a LOOPNE or LOOPE leaves are those of the comparison before, whichever way it
 * ends. */
static void loops(void)
{
	enum { P = 4, Z = 0x40, S = 0x80 };

	for (unsigned i = 0; i < 8; i++) {
		const bool equal = i & 1, last = i & 2;
		uc_x86_vcpu_state s = trap_state(TRAP_U64);
		struct trap t;

		s.gpr[0] = equal ? 0x7777 : 0x8777, s.gpr[3] = 0x7777;
		s.gpr[1] = last ? 1 : 2;
		s.rflags |= S;
		/* cmp eax, ebx; loop(n)e to the next instruction */
		t = trap_run_state(&s, TRAP_U64,
				   TRAP_BYTES(0x39, 0xd8, (uint8_t)(0xe0 | (i >> 2)), 0x00));
		CHECK(t.vector == TRAP_DONE && t.s.gpr[1] == s.gpr[1] - 1 &&
			      (t.flags & ~0x202ull) == (equal ? Z | P : P),
		      "case %u: vector %d, rcx %llx, flags %llx", i, t.vector,
		      (unsigned long long)t.s.gpr[1], (unsigned long long)t.flags);
	}
}

static void canonical(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	struct trap t;

	s.gpr[7] = noncanonical;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x8a, 0x07);
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x36, 0x8a,
		     0x07); /* the SS override does not exist here */
	s = trap_state(TRAP_U64);
	s.gpr[4] = noncanonical + 0x100;
	s.gpr[5] = noncanonical;
	s.gpr[7] = TRAP_DATA;
	EXPECT_STATE(&s, TRAP_U64, TRAP_SS, 0, 0x50);		  /* push */
	EXPECT_STATE(&s, TRAP_U64, TRAP_SS, 0, 0x58);		  /* pop */
	EXPECT_STATE(&s, TRAP_U64, TRAP_SS, 0, 0xe8, 0, 0, 0, 0); /* call */
	EXPECT_STATE(&s, TRAP_U64, TRAP_SS, 0, 0xc3);		  /* ret */
	EXPECT_STATE(&s, TRAP_U64, TRAP_SS, 0, 0x8b, 0x45, 0x08); /* mov eax, [rbp + 8] */
	EXPECT_STATE(&s, TRAP_U64, TRAP_SS, 0, 0x8b, 0x04, 0x24);
	EXPECT_STATE(&s, TRAP_U64, TRAP_SS, 0, 0xff, 0x37); /* push [rdi]: the stack */
	s.gpr[7] = noncanonical + 0x1000000;
	EXPECT_STATE(&s, TRAP_U64, TRAP_GP, 0, 0xff, 0x37); /* push [rdi]: the operand */
	EXPECT_STATE(&s, TRAP_U64, TRAP_GP, 0, 0x8b, 0x07);
	/* descriptor tables, segment bases, XCR0 */
	s = trap_state(TRAP_K64);
	s.gpr[7] = TRAP_DATA;
	trap_st64(TRAP_DATA, 0x4f), trap_st64(TRAP_DATA + 2, noncanonical);
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x01, 0x17); /* lgdt */
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x01, 0x1f); /* lidt */
	trap_st64(TRAP_DATA + 2, TRAP_GDT);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x0f, 0x01, 0x17);
	s.gpr[0] = SEL_TSS;
	trap_st64(TRAP_GDT + 0x48, 0x8000);
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x00, 0xd8); /* ltr */
	trap_st64(TRAP_GDT + 0x48, 0);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x0f, 0x00, 0xd8);
	s.cr4 |= 1 << 16 | 1 << 18; /* FSGSBASE, OSXSAVE */
	s.gpr[0] = noncanonical;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0xf3, 0x48, 0x0f, 0xae, 0xd0); /* wrfsbase rax */
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0xf3, 0x48, 0x0f, 0xae, 0xd8);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0xf3, 0x0f, 0xae, 0xd0);
	s.gpr[1] = s.gpr[2] = 0, s.gpr[0] = 1;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x0f, 0x01, 0xd1); /* xsetbv */
	s.gpr[0] = 7;						    /* AVX */
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x01, 0xd1);
	/* delivery on such a stack, in ring 0: #SS, and that one as well: #DF; its IST is good */
	s = trap_state(TRAP_K64);
	s.gpr[4] = noncanonical + 8;
	trap_gate(TRAP_DF, SEL_K32, 14, 0, 1);
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_DF && t.rsp == noncanonical + 8, "vector %d", t.vector);
	trap_gate(TRAP_SS, SEL_K32, 14, 0, 1);
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_SS && t.error == 1, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	/* a handler that is not canonical */
	trap_gate(TRAP_UD, SEL_K32, 14, 0, 0);
	trap_st64(TRAP_IDT + TRAP_UD * 16 + 8, 0x8000);
	s = trap_state(TRAP_K64);
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_GP && t.error == 1 && t.at == 0, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	trap_memory();
}

static void pcmpestr(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;

	/* equal each, bytes; lengths 2^32 and the most negative ones count as 16 */
	s.gpr[0] = UINT64_C(1) << 32, s.gpr[2] = UINT64_C(1) << 63;
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x66, 0x48, 0x0f, 0x3a, 0x61, 0xc1, 0x08));
	CHECK(t.s.gpr[1] == 0 && !(t.flags & 0xc0), "index %llx flags %llx",
	      (unsigned long long)t.s.gpr[1], (unsigned long long)t.flags);
	/* without REX.W the upper halves do not count: both empty */
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x66, 0x0f, 0x3a, 0x61, 0xc1, 0x08));
	CHECK((t.flags & 0xc0) == 0xc0, "flags %llx", (unsigned long long)t.flags);
	s.gpr[0] = 0x80000000, s.gpr[2] = 0xfffffffd; /* INT32_MIN, -3 */
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x66, 0x0f, 0x3a, 0x61, 0xc1, 0x08));
	CHECK((t.flags & 0xc0) == 0x40, "flags %llx", (unsigned long long)t.flags);
}

int main(void)
{
	trap_open();
	encodings();
	bound();
	reserved_bits();
	alignment();
	paging();
	locked();
	loops();
	canonical();
	pcmpestr();
	trap_close();
	return trap_report("test_uc_exceptions");
}
