/* Description: segments and what hangs on them: limits and types, LAR and LSL, a null SS, far jumps
 * between modes, the TSS that a task switch leaves.
 */
#include "tests/unit/uc_trap.h"

enum { DS = 3, SS = 2, CS = 1 }; /* in uc_x86_vcpu_state.seg */

static void limits(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U32);

	s.seg[DS] = (uc_x86_vcpu_seg){0, TRAP_DATA + 0xfff, SEL_UD, 0x4f3};
	s.gpr[7] = TRAP_DATA + 0xffc;
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x8b, 0x07); /* mov eax, [edi] */
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x89, 0x07);
	s.gpr[7]++;
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0x8b, 0x07);
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0x89, 0x07);
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0xf0, 0xff, 0x07);   /* lock inc */
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x26, 0x8b, 0x07); /* ES is flat */
	/* expand-down: everything but what a limit holds */
	s.seg[DS].attr = 0x4f7;
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0x8b, 0x07);
	s.gpr[7] = TRAP_DATA + 0x1000;
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x8b, 0x07);
	/* not writable; a code segment, not readable */
	s.seg[DS] = (uc_x86_vcpu_seg){0, 0xffffffff, SEL_UD, 0xcf1};
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x8b, 0x07);
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0x89, 0x07);
	s = trap_state(TRAP_U32);
	s.gpr[7] = TRAP_DATA;
	EXPECT_STATE(&s, TRAP_U32, TRAP_DONE, 0, 0x2e, 0x8b, 0x07);
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0x2e, 0x89, 0x07); /* code is never written */
	s.seg[CS].attr = 0xcf9;
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0x2e, 0x8b, 0x07);
	/* the stack's is #SS */
	s = trap_state(TRAP_U32);
	s.seg[SS] = (uc_x86_vcpu_seg){0, 0xfff, SEL_UD, 0x4f3};
	s.gpr[5] = 0x1000;
	EXPECT_STATE(&s, TRAP_U32, TRAP_SS, 0, 0x8b, 0x45, 0x00); /* mov eax, [ebp] */
	EXPECT_STATE(&s, TRAP_U32, TRAP_SS, 0, 0x50);
	/* a near jump beyond the code's, and code that runs into the end */
	s = trap_state(TRAP_U32);
	s.seg[CS] = (uc_x86_vcpu_seg){0, TRAP_CODE + 0xf, SEL_U32, 0x4fb};
	memcpy(trap_ram + TRAP_CODE + 0x22, (const uint8_t[]){0xcd, TRAP_DONE}, 2);
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 0, 0xeb, 0x20);
	EXPECT_STATE(&s, TRAP_U32, TRAP_GP, 13, 0xeb, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb8,
		     0, 0, 0, 0);
	/* 64-bit mode has no limits */
	s = trap_state(TRAP_K64);
	s.seg[DS] = (uc_x86_vcpu_seg){0, 0xfff, SEL_KD, 0x493};
	s.gpr[7] = TRAP_DATA;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x89, 0x07);
}

/* LAR (0x02) or LSL (0x03) eax, ecx; setz dl */
static bool looks(int mode, uint8_t op, uint16_t selector)
{
	uc_x86_vcpu_state s = trap_state(mode);
	struct trap t;

	s.gpr[1] = selector;
	t = trap_run_state(&s, mode, TRAP_BYTES(0x0f, op, 0xc1, 0x0f, 0x94, 0xc2));
	CHECK(t.vector == TRAP_DONE, "vector %d", t.vector);
	return t.s.gpr[2] & 1;
}

static void lar_lsl(void)
{
	/* which system segments LAR and LSL show: SDM vol. 2, tables of LAR and LSL */
	static const struct {
		uint8_t type;
		bool lar, lsl, lar64, lsl64;
	} t[] = {
		{1, true, true, false, false},	{2, true, true, true, true},
		{3, true, true, false, false},	{4, true, false, false, false},
		{5, true, false, false, false}, {6, false, false, false, false},
		{9, true, true, true, true},	{11, true, true, true, true},
		{12, true, false, true, false}, {14, false, false, false, false},
	};
	size_t i;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		trap_st64(TRAP_GDT + 0x38, 0x67 | (uint64_t)(0x8000 | t[i].type << 8) << 32);
		CHECK(looks(TRAP_K32, 0x02, 0x38) == t[i].lar, "LAR, type %d", t[i].type);
		CHECK(looks(TRAP_K32, 0x03, 0x38) == t[i].lsl, "LSL, type %d", t[i].type);
		CHECK(looks(TRAP_K64, 0x02, 0x38) == t[i].lar64, "64-bit LAR, type %d", t[i].type);
		CHECK(looks(TRAP_K64, 0x03, 0x38) == t[i].lsl64, "64-bit LSL, type %d", t[i].type);
	}
	trap_memory();
	/* a null SS: 64-bit mode, outside of ring 3, RPL = CPL */
	EXPECT(TRAP_K64, TRAP_DONE, 0, 0x31, 0xc0, 0x8e, 0xd0); /* xor eax, eax; mov ss, eax */
	EXPECT(TRAP_K64, TRAP_GP, 5, 0xb8, 3, 0, 0, 0, 0x8e, 0xd0);
	EXPECT(TRAP_K32, TRAP_GP, 2, 0x31, 0xc0, 0x8e, 0xd0);
}

/* The same bytes at one address, first as 64-bit code, then behind a far jump (@op: FF /5, or
 * FF /3, a call) as 32-bit code: 48 90 is a NOP and then DEC EAX. */
static void between_modes(uint8_t op)
{
	enum { SHARED = TRAP_CODE + 0x80, SECOND = TRAP_CODE + 0x40, LAST = TRAP_CODE + 0xc0 };
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	struct trap t;
	int i;

	/* 48 90; jmp [rdi] */
	memcpy(trap_ram + SHARED, (const uint8_t[]){0x48, 0x90, 0xff, 0x27}, 4);
	/* mov [rdi], ebx; jmp or call far [rsi] */
	memcpy(trap_ram + SECOND, (const uint8_t[]){0x89, 0x1f, 0xff, op}, 4);
	memcpy(trap_ram + LAST, (const uint8_t[]){0xcd, TRAP_DONE}, 2);
	trap_st64(TRAP_DATA + 64, SHARED | (uint64_t)SEL_K32 << 32);
	s.gpr[7] = TRAP_DATA, s.gpr[6] = TRAP_DATA + 64;
	s.gpr[3] = LAST, s.gpr[2] = SHARED;
	for (i = 0; i < 4; i++) { /* everything is translated the second time */
		s.gpr[0] = 10;
		trap_st64(TRAP_DATA, SECOND);
		if (i == 0) {
			t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0xff, 0xe2)); /* jmp rdx */
		} else {
			CHECK(!uc_x86_vcpu_set_state(trap_uc, &s), "set");
			do
				CHECK(!uc_vcpu_run(trap_uc, &t.info), "run");
			while (t.info.reason == UC_VCPU_EXIT_KICK);
			uc_x86_vcpu_get_state(trap_uc, &t.s);
		}
		CHECK(t.info.reason == UC_VCPU_EXIT_HLT &&
			      t.s.rip == TRAP_HANDLERS + TRAP_DONE * 16 + 1 && t.s.gpr[0] == 9,
		      "%02x, round %d: reason %d at %llx, eax %llu", op, i, t.info.reason,
		      (unsigned long long)t.s.rip, (unsigned long long)t.s.gpr[0]);
	}
}

/* From a 16-bit task to a 32-bit one: the old state goes into the old TSS, and not behind it. And
 * into a 16-bit task. */
static void task_switch(void)
{
	enum { NEW = 0xc000, END16 = 0x2c };
	uc_x86_vcpu_state s = trap_state(TRAP_K32);
	uint32_t tss[26] = {0};
	struct trap t;
	/* IP, flags, 8 registers, ES, CS, SS, DS, LDT from 0x0e on */
	static const uint16_t tss16[22] = {[7] = 0x40,	[8] = 2,     [13] = 0xfff0, [17] = SEL_KD,
					   [18] = 0x48, [19] = 0x30, [20] = SEL_KD};
	uint16_t ax, ds;
	int i, touched = 0;

	tss[7] = TRAP_PD32, tss[8] = TRAP_CODE + 0x40, tss[9] = 2, tss[14] = TRAP_STACK;
	tss[18] = tss[20] = tss[21] = tss[22] = tss[23] = SEL_KD;
	tss[19] = SEL_K32;
	memcpy(trap_ram + NEW, tss, sizeof(tss));
	memcpy(trap_ram + TRAP_CODE + 0x40, (const uint8_t[]){0xcd, TRAP_DONE}, 2);
	memset(trap_ram + TRAP_TSS + END16, 0xa5, 0x100);
	trap_st64(TRAP_GDT + 0x38, 0x67 | (uint64_t)NEW << 16 | UINT64_C(0x8900) << 32);
	trap_st64(TRAP_GDT + 0x40, (END16 - 1) | TRAP_TSS << 16 | UINT64_C(0x8300) << 32);
	s.tr = (uc_x86_vcpu_seg){TRAP_TSS, END16 - 1, SEL_TSS, 0x83};
	s.gpr[0] = 0x1234;
	/* jmp far 0x38:0 */
	t = trap_run_state(&s, TRAP_K32, TRAP_BYTES(0xea, 0, 0, 0, 0, 0x38, 0));
	memcpy(&ax, trap_ram + TRAP_TSS + 0x12, 2);
	memcpy(&ds, trap_ram + TRAP_TSS + 0x28, 2);
	for (i = 0; i < 0x100; i++)
		touched += trap_ram[TRAP_TSS + END16 + i] != 0xa5;
	CHECK(t.vector == TRAP_DONE && t.s.tr.selector == 0x38, "vector %d", t.vector);
	CHECK(ax == 0x1234 && ds == SEL_KD && touched == 0, "AX %x, DS %x, %d bytes behind the TSS",
	      ax, ds, touched);
	trap_memory();

	/* and the other way: its code at 0x48:0x40, its stack a 16-bit one */
	memcpy(trap_ram + TRAP_CODE + 0x40, (const uint8_t[]){0xcd, TRAP_DONE}, 2);
	memcpy(trap_ram + NEW, tss16, sizeof(tss16));
	trap_st64(TRAP_GDT + 0x30, 0x000093000000ffff);
	trap_st64(TRAP_GDT + 0x38, (END16 - 1) | (uint64_t)NEW << 16 | UINT64_C(0x8100) << 32);
	trap_st64(TRAP_GDT + 0x48, 0x00409b0200000fff);
	s = trap_state(TRAP_K32);
	t = trap_run_state(&s, TRAP_K32, TRAP_BYTES(0xea, 0, 0, 0, 0, 0x38, 0));
	CHECK(t.vector == TRAP_DONE && t.s.seg[SS].selector == 0x30 &&
		      t.s.seg[DS].selector == SEL_KD,
	      "vector %d, SS %x", t.vector, t.s.seg[SS].selector);
	trap_memory();
}

int main(void)
{
	trap_open();
	limits();
	lar_lsl();
	between_modes(0x2e);
	between_modes(0x1e);
	task_switch();
	trap_close();
	return trap_report("test_uc_segments");
}
