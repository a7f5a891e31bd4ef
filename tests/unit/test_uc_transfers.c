/* Description: what leaves one piece of code for another with checks: IRET and far transfers, the
 * delivery of exceptions itself, virtual-8086 mode. Which exception, at which address, with which
 * error code.
 */
#include "tests/unit/uc_trap.h"

static const uint64_t noncanonical = UINT64_C(0x800000000000);

/* IRETQ with this frame */
static struct trap iret(int mode, uint64_t rip, uint64_t cs, uint64_t flags, uint64_t rsp,
			uint64_t ss)
{
	const uint64_t f[5] = {rip, cs, flags, rsp, ss};
	uc_x86_vcpu_state s = trap_state(mode);
	int i;

	for (i = 0; i < 5; i++) {
		if (mode == TRAP_K64)
			trap_st64(TRAP_STACK + i * 8, f[i]);
		else
			memcpy(trap_ram + TRAP_STACK + i * 4, &f[i], 4);
	}
	memcpy(trap_ram + TRAP_CODE + 0x40, (const uint8_t[]){0xcd, TRAP_DONE}, 2);
	return mode == TRAP_K64 ? trap_run_state(&s, mode, TRAP_BYTES(0x48, 0xcf))
				: trap_run_state(&s, mode, TRAP_BYTES(0xcf));
}

static void far_transfers(void)
{
	const uint64_t to = TRAP_CODE + 0x40;
	uc_x86_vcpu_state s;
	struct trap t;

#define IRET(vec, err, ...)                                                                        \
	do {                                                                                       \
		t = iret(__VA_ARGS__);                                                             \
		CHECK(t.vector == (vec) && (t.vector == TRAP_DONE ||                               \
					    (t.error == (uint64_t)(err) && t.at == 0)),            \
		      "vector %d error %llx at %llx", t.vector, (unsigned long long)t.error,       \
		      (unsigned long long)t.at);                                                   \
	} while (0)
	IRET(TRAP_DONE, 0, TRAP_K64, to, SEL_K64, 2, TRAP_STACK, SEL_KD);
	IRET(TRAP_DONE, 0, TRAP_K64, to, SEL_K64, 2, TRAP_STACK, 0);
	IRET(TRAP_DONE, 0, TRAP_K64, to, SEL_U64, 2, TRAP_STACK, SEL_UD);
	IRET(TRAP_DONE, 0, TRAP_K64, to, SEL_U32, 2, TRAP_STACK, SEL_UD);
	IRET(TRAP_GP, 0, TRAP_K64, noncanonical, SEL_K64, 2, TRAP_STACK, SEL_KD);
	IRET(TRAP_GP, 0, TRAP_K64, noncanonical, SEL_U64, 2, TRAP_STACK, SEL_UD);
	IRET(TRAP_GP, 0, TRAP_K64, UINT64_C(1) << 32, SEL_U32, 2, TRAP_STACK,
	     SEL_UD); /* beyond the limit */
	IRET(TRAP_GP, 0, TRAP_K64, to, SEL_U64, 2, TRAP_STACK, 0);
	IRET(TRAP_GP, 0, TRAP_K64, to, SEL_U32, 2, TRAP_STACK, 3);
	IRET(TRAP_GP, SEL_UD & ~3, TRAP_K64, to, SEL_U64, 2, TRAP_STACK, SEL_UD & ~3);
	IRET(TRAP_GP, 0x50, TRAP_K64, to, 0x53, 2, TRAP_STACK, SEL_UD);	    /* beyond the GDT */
	IRET(TRAP_GP, SEL_KD, TRAP_K64, to, SEL_KD, 2, TRAP_STACK, SEL_KD); /* not code */
	IRET(TRAP_GP, 0, TRAP_K64, to, 0, 2, TRAP_STACK, SEL_KD);
	trap_st64(TRAP_GDT + 0x20, 0x00cf73000000ffff); /* the user's stack segment: not present */
	IRET(TRAP_SS, SEL_UD & ~3, TRAP_K64, to, SEL_U64, 2, TRAP_STACK, SEL_UD);
	trap_st64(TRAP_GDT + 0x28, 0x00af7b000000ffff);
	IRET(TRAP_NP, SEL_U64 & ~3, TRAP_K64, to, SEL_U64, 2, TRAP_STACK, SEL_UD);
	trap_memory();
	/* VM is not a flag that long mode or a user can set */
	IRET(TRAP_DONE, 0, TRAP_K64, to, SEL_U64, 0x20002, TRAP_STACK, SEL_UD);
	CHECK(!(t.flags & 0x20000), "VM set in long mode");
	IRET(TRAP_DONE, 0, TRAP_U32, to, SEL_U32, 0x23002, TRAP_STACK, SEL_UD);
	CHECK(!(t.flags & 0x23000), "flags %llx: ring 3 set VM or IOPL",
	      (unsigned long long)t.flags);
#undef IRET

	/* SYSRET */
	s = trap_state(TRAP_K64);
	s.star = (uint64_t)SEL_K64 << 32 | (uint64_t)0x1b << 48;
	s.gpr[1] = noncanonical, s.gpr[11] = 2;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x48, 0x0f, 0x07);
	s.gpr[1] = to, s.gpr[11] = 0x20002;
	memcpy(trap_ram + to, (const uint8_t[]){0xcd, TRAP_DONE}, 2);
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x48, 0x0f, 0x07));
	CHECK(t.vector == TRAP_DONE && t.cs == SEL_U64 && !(t.flags & 0x20000),
	      "vector %d flags %llx", t.vector, (unsigned long long)t.flags);
	/* SYSEXIT */
	s.sysenter_cs = SEL_K64;
	s.gpr[2] = noncanonical, s.gpr[1] = TRAP_STACK;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x48, 0x0f, 0x35);
	s.gpr[2] = to, s.gpr[1] = noncanonical;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x48, 0x0f, 0x35);
	s.gpr[1] = TRAP_STACK;
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x48, 0x0f, 0x35));
	CHECK(t.vector == TRAP_DONE && t.cs == SEL_U64, "vector %d cs %llx", t.vector,
	      (unsigned long long)t.cs);
	/* L and D are not both set in what it loads: the state at its first instruction is a
	 * possible one */
	trap_gate(TRAP_DB, SEL_K32, 14, 0, 0);
	s.gpr[2] = TRAP_CODE + 0x50;
	memcpy(trap_ram + TRAP_CODE + 0x50, (const uint8_t[]){0xe6, 0x80},
	       2); /* out: #GP, in ring 3 */
	{
		uc_x86_vcpu_state at;

		CHECK(!uc_x86_vcpu_set_state(trap_uc, &s), "set");
		memcpy(trap_ram + TRAP_CODE, (const uint8_t[]){0x48, 0x0f, 0x35}, 3);
		uc_vcpu_invalidate_code(trap_uc, 0, TRAP_RAM);
		CHECK(!uc_vcpu_step(trap_uc, &t.info), "step");
		uc_x86_vcpu_get_state(trap_uc, &at);
		CHECK(at.rip == s.gpr[2] && (at.seg[1].attr & 0x600) == 0x200, "cs %x",
		      at.seg[1].attr);
		CHECK(!uc_x86_vcpu_set_state(trap_uc, &at), "it was refused");
	}
	/* far jump through memory */
	s = trap_state(TRAP_K64);
	s.gpr[7] = TRAP_DATA;
	trap_st64(TRAP_DATA, noncanonical), trap_st64(TRAP_DATA + 8, SEL_K64);
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x48, 0xff, 0x2f);
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x48, 0xff, 0x1f);
}

static void delivery(void)
{
	uc_x86_vcpu_state s;
	struct trap t;

	/* what is wrong with a gate: vector * 8 + IDT, EXT only if it was no INT */
	s = trap_state(TRAP_U64);
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0xcd, 0x30)); /* DPL */
	CHECK(t.vector == TRAP_GP && t.error == 0x30 * 8 + 2 && t.at == 0, "vector %d error %llx",
	      t.vector, (unsigned long long)t.error);
	trap_gate(0x30, SEL_K32, 0, 0, 0);
	t = trap_run(TRAP_K64, TRAP_BYTES(0xcd, 0x30));
	CHECK(t.vector == TRAP_GP && t.error == 0x30 * 8 + 2, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	trap_gate(TRAP_UD, SEL_K32, 0, 0, 0);
	t = trap_run(TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_GP && t.error == TRAP_UD * 8 + 3 && t.at == 0,
	      "vector %d error %llx", t.vector, (unsigned long long)t.error);
	t = trap_run(TRAP_K32, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_GP && t.error == TRAP_UD * 8 + 3, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	s = trap_state(TRAP_K64);
	s.idt_limit = 0x2ff;
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0xcd, 0x30));
	CHECK(t.vector == TRAP_GP && t.error == 0x30 * 8 + 2, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	trap_memory();
	/* a gate to a segment that is not there */
	trap_gate(TRAP_UD, SEL_K32, 14, 0, 0);
	memcpy(trap_ram + TRAP_IDT + TRAP_UD * 16 + 2, (const uint16_t[]){0x58}, 2);
	t = trap_run(TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_GP && t.error == 0x59, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	trap_memory();

	/* RF: with faults, not with traps */
	t = trap_run(TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_UD && (t.flags & 0x10000), "flags %llx",
	      (unsigned long long)t.flags);
	t = trap_run(TRAP_K32, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_UD && (t.flags & 0x10000), "flags %llx",
	      (unsigned long long)t.flags);
	t = trap_run(TRAP_K64, TRAP_BYTES(0xcc));
	CHECK(t.vector == TRAP_BP && !(t.flags & 0x10000), "flags %llx",
	      (unsigned long long)t.flags);
	t = trap_run(TRAP_K64, TRAP_BYTES(0xf1));
	CHECK(t.vector == TRAP_DB && !(t.flags & 0x10000), "flags %llx",
	      (unsigned long long)t.flags);

	/* INT through a task gate: its DPL counts */
	trap_st64(TRAP_IDT32 + 0x30 * 8, 0x0000850000000000 | SEL_TSS << 16);
	t = trap_run(TRAP_U32, TRAP_BYTES(0xcd, 0x30));
	CHECK(t.vector == TRAP_GP && t.error == 0x30 * 8 + 2, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	trap_memory();

	/* an IST without a change of ring leaves SS alone */
	trap_gate(TRAP_UD, SEL_K32, 14, 0, 1);
	t = trap_run(TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_UD && t.s.seg[2].selector == SEL_KD && t.s.gpr[4] == TRAP_IST1 - 40,
	      "ss %x rsp %llx", t.s.seg[2].selector, (unsigned long long)t.s.gpr[4]);
	trap_memory();

	/* contributory twice: #DF; its delivery failing: the end */
	trap_gate(TRAP_GP, SEL_K32, 0, 0, 0);
	t = trap_run(TRAP_K64, TRAP_BYTES(0x31, 0xc0, 0x8e, 0xd8, 0xb8, 0x80, 0, 0, 0, 0x8e, 0xd8));
	CHECK(t.vector == TRAP_DF && t.error == 0, "vector %d", t.vector);
	trap_gate(TRAP_DF, SEL_K32, 0, 0, 0);
	t = trap_run(TRAP_K64, TRAP_BYTES(0xb8, 0x80, 0, 0, 0, 0x8e, 0xd8));
	CHECK(t.vector == -1 && t.info.reason == UC_VCPU_EXIT_SHUTDOWN, "vector %d reason %d",
	      t.vector, t.info.reason);
	trap_memory();

	/* real mode */
	EXPECT(TRAP_R16, TRAP_DE, 0, 0xf6, 0xf4);
	EXPECT(TRAP_R16, TRAP_UD, 0, 0xf0, 0x90);
	EXPECT(TRAP_R16, TRAP_BP, 1, 0xcc);
	trap_memory();
}

/* A VM86 task at DATA:0, run until it is left. */
static struct trap vm86(unsigned iopl, const uint8_t *code, size_t n)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U32);
	int i;

	for (i = 0; i < 6; i++)
		s.seg[i] = (uc_x86_vcpu_seg){TRAP_CODE, 0xffff, TRAP_CODE >> 4, 0xf3};
	s.rflags = 0x20002 | iopl << 12;
	s.rip = 0;
	s.gpr[4] = 0x8000;
	memcpy(trap_ram + TRAP_TSS + 0x66, (uint16_t[]){0x68}, 2); /* no ports */
	return trap_run_state(&s, TRAP_U32, code, n);
}

static void virtual8086(void)
{
	static const uint8_t int_n[] = {0xcd, TRAP_DONE}, cli[] = {0xfa}, pushf[] = {0x9c},
			     iret_[] = {0xcf}, hlt[] = {0xf4}, ud[] = {0x0f, 0x0b},
			     in[] = {0xe4, 0x80}, lgdt[] = {0x0f, 0x01, 0x16, 0, 0},
			     int3[] = {0xcc}, lldt[] = {0x0f, 0x00, 0xd0};
	const struct {
		const uint8_t *code;
		size_t n;
		int iopl0, iopl3; /* what is raised */
	} t[] = {
		{int_n, 2, TRAP_GP, TRAP_DONE}, {cli, 1, TRAP_GP, TRAP_DONE},
		{pushf, 1, TRAP_GP, TRAP_DONE}, {hlt, 1, TRAP_GP, TRAP_GP},
		{ud, 2, TRAP_UD, TRAP_UD},	{in, 2, TRAP_GP, TRAP_GP},
		{lgdt, 5, TRAP_GP, TRAP_GP},	{int3, 1, TRAP_BP, TRAP_BP},
		{lldt, 3, TRAP_UD, TRAP_UD},	{iret_, 1, TRAP_GP, -2},
	};
	struct trap r;
	size_t i;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		for (unsigned iopl = 0; iopl <= 3; iopl += 3) {
			const int want = iopl ? t[i].iopl3 : t[i].iopl0;

			if (want == -2)
				continue;
			r = vm86(iopl, t[i].code, t[i].n);
			CHECK(r.vector == want, "%02x, IOPL %u: vector %d reason %d", t[i].code[0],
			      iopl, r.vector, r.info.reason);
			/* the frame holds the segments; ring 0 has none of them */
			CHECK((r.flags & 0x20000) && r.cs == TRAP_CODE >> 4 &&
				      r.ss == TRAP_CODE >> 4 && r.s.seg[3].selector == 0 &&
				      r.s.seg[2].selector == SEL_KD && !(r.s.rflags & 0x20000) &&
				      r.s.gpr[4] < TRAP_STACK0,
			      "%02x: flags %llx cs %llx", t[i].code[0], (unsigned long long)r.flags,
			      (unsigned long long)r.cs);
		}
	}
	/* and back in by IRETD from ring 0, and out again */
	{
		const uint32_t f[9] = {
			0x40, TRAP_CODE >> 4, 0x23002, 0x8000, TRAP_CODE >> 4, 0, 0, 0, 0};
		uc_x86_vcpu_state s = trap_state(TRAP_K32);

		memcpy(trap_ram + TRAP_STACK, f, sizeof(f));
		memcpy(trap_ram + TRAP_CODE + 0x40, ud, 2);
		memcpy(trap_ram + TRAP_TSS + 8, (uint16_t[]){SEL_KD}, 2);
		r = trap_run_state(&s, TRAP_K32, TRAP_BYTES(0xcf));
		CHECK(r.vector == TRAP_UD && r.rip == 0x40 && (r.flags & 0x23000) == 0x23000,
		      "vector %d at %llx flags %llx", r.vector, (unsigned long long)r.rip,
		      (unsigned long long)r.flags);
	}
	trap_memory();
}
int main(void)
{
	trap_open();
	far_transfers();
	delivery();
	virtual8086();
	trap_close();
	return trap_report("test_uc_transfers");
}
