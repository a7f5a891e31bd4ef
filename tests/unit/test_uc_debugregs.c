/* Description: debug registers: execution, data and I/O breakpoints, RF, general detect, reserved
 * bits, and the single step over string instructions and system calls.
 */
#include "tests/unit/uc_trap.h"

enum { BS = 1 << 14, BD = 1 << 13 };

static void exec_breakpoint(int mode, uint64_t base)
{
	static const uint8_t code[] = {0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0, 0xeb, 0x00, 0xff, 0xc0};
	static const int at[] = {0, 2, 4, 6, 8}; /* every instruction, the jump too */
	uc_x86_vcpu_state s = trap_state(mode);
	struct trap t;
	int i, hits;

	s.seg[1].base = base;
	s.rip = TRAP_CODE - base;
	for (i = 0; i < 5; i++) {
		s.dr[1] = TRAP_CODE + at[i];
		s.dr[7] = 0x404 | 4; /* L1 */
		s.rflags = 2;
		t = trap_run_state(&s, mode, code, sizeof(code));
		CHECK(t.vector == TRAP_DB && t.rip == s.dr[1] - base, "%d: vector %d at %llx", i,
		      t.vector, (unsigned long long)t.rip);
		CHECK((t.s.dr[6] & 0xe00f) == 2, "dr6 %llx", (unsigned long long)t.s.dr[6]);
		/* RF: once past it, and not twice */
		s.rflags = 0x10002;
		s.rip = s.dr[1] - base;
		t = trap_run_state(&s, mode, code, sizeof(code));
		CHECK(t.vector == TRAP_DONE, "%d: vector %d", i, t.vector);
		s.rip = TRAP_CODE - base;
		/* not enabled: nothing */
		s.rflags = 2, s.dr[7] = 0x400;
		t = trap_run_state(&s, mode, code, sizeof(code));
		CHECK(t.vector == TRAP_DONE, "%d: vector %d", i, t.vector);
	}
	/* a loop around it: every turn counts, the translations from before do not hide it */
	if (base)
		return;
	s = trap_state(mode);
	s.gpr[1] = 50;
	hits = 0;
	/* the handler at #DB sets RF and returns; it counts in memory */
	memcpy(trap_ram + TRAP_HANDLERS + 16, (const uint8_t[]){0xe9, 0xeb, 0x0f, 0, 0},
	       5); /* jmp +0x1000 */
	if (mode == TRAP_K64)
		memcpy(trap_ram + TRAP_HANDLERS + 0x1000,
		       (const uint8_t[]){0xff, 0x04, 0x25, 0, 0, 4, 0, 0x80, 0x4c, 0x24, 0x12, 1,
					 0x48, 0xcf},
		       14);
	else
		memcpy(trap_ram + TRAP_HANDLERS + 0x1000,
		       (const uint8_t[]){0xff, 5, 0, 0, 4, 0, 0x80, 0x4c, 0x24, 0x0a, 1, 0xcf}, 12);
	memset(trap_ram + TRAP_DATA, 0, 4);
	/* 1: inc eax; dec ecx; jnz 1 - in the middle of it, DR7 is written after 25 turns */
	s.gpr[3] = 0x402, s.gpr[2] = TRAP_CODE; /* rbx, rdx */
	{
		/* mov ecx, 25; 1: inc eax; dec ecx; jnz 1b; mov dr0, rdx'; mov dr7, rbx; mov ecx,
		 * 25; jmp 1b' */
		static const uint8_t loop[] = {
			0xbe, 0,    0,	  0, 0, /* mov esi, 0 */
			0xb9, 25,   0,	  0, 0, /* mov ecx, 25 */
			0xff, 0xc0,		/* 10: inc eax */
			0xff, 0xc9,		/* dec ecx */
			0x75, 0xfa,		/* jnz 10 */
			0xff, 0xc6,		/* inc esi */
			0x83, 0xfe, 2,		/* cmp esi, 2 */
			0x74, 13,		/* je end */
			0x0f, 0x23, 0xc2,	/* mov dr0, rdx */
			0x0f, 0x23, 0xfb,	/* mov dr7, rbx */
			0xb9, 25,   0,	  0, 0, /* mov ecx, 25 */
			0xeb, 0xe6,		/* jmp 10 */
		};

		s.gpr[2] = TRAP_CODE + 10;
		t = trap_run_state(&s, mode, loop, sizeof(loop));
	}
	memcpy(&hits, trap_ram + TRAP_DATA, 4);
	CHECK(t.vector == TRAP_DONE && hits == 25, "vector %d, %d hits", t.vector, hits);
	/* the same on another page, reached through a register */
	memset(trap_ram + TRAP_DATA, 0, 4);
	memcpy(trap_ram + TRAP_CODE + 0x1000, (const uint8_t[]){0xff, 0xc0, 0xff, 0xc0, 0xc3}, 5);
	s.gpr[2] = TRAP_CODE + 0x1002, s.gpr[7] = TRAP_CODE + 0x1000;
	{
		static const uint8_t loop[] = {
			0xbe, 0,    0,	  0, 0, /* mov esi, 0 */
			0xb9, 25,   0,	  0, 0, /* mov ecx, 25 */
			0xff, 0xd7,		/* 10: call edi */
			0xff, 0xc9,		/* dec ecx */
			0x75, 0xfa,		/* jnz 10 */
			0xff, 0xc6,		/* inc esi */
			0x83, 0xfe, 2,		/* cmp esi, 2 */
			0x74, 13,		/* je end */
			0x0f, 0x23, 0xc2,	/* mov dr0, rdx */
			0x0f, 0x23, 0xfb,	/* mov dr7, rbx */
			0xb9, 25,   0,	  0, 0, /* mov ecx, 25 */
			0xeb, 0xe6,		/* jmp 10 */
		};

		t = trap_run_state(&s, mode, loop, sizeof(loop));
	}
	memcpy(&hits, trap_ram + TRAP_DATA, 4);
	CHECK(t.vector == TRAP_DONE && hits == 25, "vector %d, %d hits", t.vector, hits);
	trap_memory();
}

/* A load of SS holds off the breakpoint on the next instruction, and only on that one. */
static void behind_ss(int mode)
{
	uc_x86_vcpu_state s = trap_state(mode);

	s.gpr[0] = SEL_KD;
	s.dr[0] = TRAP_CODE + 2, s.dr[7] = 0x402;
	EXPECT_STATE(&s, mode, TRAP_DONE, 0, 0x8e, 0xd0, 0x90, 0x90); /* mov ss, eax */
	EXPECT_STATE(&s, mode, TRAP_DB, 2, 0x8e, 0xd8, 0x90, 0x90);   /* mov ds, eax */
	s.dr[0]++;
	EXPECT_STATE(&s, mode, TRAP_DB, 3, 0x8e, 0xd0, 0x90, 0x90);
}

static void data_breakpoint(int mode)
{
	uc_x86_vcpu_state s = trap_state(mode);
	struct trap t;
	int len, i;

	s.gpr[7] = TRAP_DATA + 8; /* rdi */
	s.gpr[6] = TRAP_DATA + 0x100;
	s.dr[2] = TRAP_DATA + 8;
	for (len = 1; len <= 4; len *= 2) {
		const uint64_t lenbits = (uint64_t)(len - 1) << 26;

		/* write: mov [rdi+i], al; nop */
		s.dr[7] = 0x400 | 0x20 | 1 << 24 | lenbits; /* G2, RW2 = 1 */
		for (i = -1; i <= len; i++) {
			t = trap_run_state(&s, mode,
					   TRAP_BYTES(0x88, 0x47, (uint8_t)i, 0x90, 0x90));
			if (i < 0 || i >= len) {
				CHECK(t.vector == TRAP_DONE, "len %d at %d: vector %d", len, i,
				      t.vector);
				continue;
			}
			CHECK(t.vector == TRAP_DB && t.at == 3, "len %d at %d: vector %d at %llx",
			      len, i, t.vector, (unsigned long long)t.at);
			CHECK((t.s.dr[6] & 0xe00f) == 4, "dr6 %llx", (unsigned long long)t.s.dr[6]);
		}
		/* a read is not a write, but is an access */
		EXPECT_STATE(&s, mode, TRAP_DONE, 0, 0x8a, 0x07, 0x90);
		s.dr[7] |= 3 << 24;
		EXPECT_STATE(&s, mode, TRAP_DB, 2, 0x8a, 0x07, 0x90);
		EXPECT_STATE(&s, mode, TRAP_DB, 2, 0x88, 0x07, 0x90);
	}
	/* the access has happened, and what stood before it as well, once */
	s.dr[7] = 0x400 | 0x20 | 1 << 24 | 3 << 26;
	s.gpr[0] = 5, s.gpr[3] = 0;
	t = trap_run_state(
		&s, mode,
		TRAP_BYTES(0xff, 0xc3, 0xff, 0xc3, 0x89, 0x07, 0xff, 0xc3)); /* inc ebx x2 */
	CHECK(t.vector == TRAP_DB && t.at == 6 && t.s.gpr[3] == 2 && trap_ld64(TRAP_DATA + 8) == 5,
	      "vector %d at %llx, ebx %llx", t.vector, (unsigned long long)t.at,
	      (unsigned long long)t.s.gpr[3]);
	/* push, call, xchg and a locked one; an unaligned access that reaches into it */
	s.gpr[4] = TRAP_DATA + (mode == TRAP_K64 ? 16 : 12);
	EXPECT_STATE(&s, mode, TRAP_DB, 1, 0x50, 0x90, 0x90, 0x90);
	s.gpr[4] = TRAP_STACK;
	EXPECT_STATE(&s, mode, TRAP_DB, 2, 0x87, 0x07, 0x90);
	EXPECT_STATE(&s, mode, TRAP_DB, 3, 0xf0, 0x01, 0x07, 0x90);
	EXPECT_STATE(&s, mode, TRAP_DB, 3, 0x89, 0x47, 0xfd, 0x90);
	EXPECT_STATE(&s, mode, TRAP_DB, 3, 0x89, 0x47, 0x03, 0x90);
	EXPECT_STATE(&s, mode, TRAP_DONE, 0, 0x89, 0x47, 0xfc, 0x90);
	/* unaligned accesses beside it do not reach it, whatever words they are made of */
	s.dr[7] = 0x400 | 0x20 | 3 << 24; /* one byte */
	for (i = 0; i < 2; i++) {
		s.dr[2] = TRAP_DATA + (i ? 0xffc : 8);
		s.gpr[7] = s.dr[2] + 1; /* the second one over the end of the page */
		EXPECT_STATE(&s, mode, TRAP_DONE, 0, 0x8b, 0x07, 0x90);
		EXPECT_STATE(&s, mode, TRAP_DONE, 0, 0x89, 0x07, 0x90);
		s.gpr[7] = s.dr[2] - 3;
		EXPECT_STATE(&s, mode, TRAP_DB, 2, 0x8b, 0x07, 0x90);
		EXPECT_STATE(&s, mode, TRAP_DB, 2, 0x89, 0x07, 0x90);
	}
	s.dr[2] = s.gpr[7] = TRAP_DATA + 8;
	s.dr[7] |= 3 << 26;
	/* an instruction that faults reports nothing: pop [0xff000000] with a watched stack */
	s.dr[7] |= 3 << 24;
	s.gpr[4] = TRAP_DATA + 8;
	s.gpr[6] = 0xff000000;
	t = trap_run_state(&s, mode, TRAP_BYTES(0x8f, 0x06));
	CHECK(t.vector == TRAP_PF, "vector %d", t.vector);
	s.gpr[4] = TRAP_STACK, s.gpr[6] = TRAP_DATA + 0x100;
	/* rep stosb over it: stops behind the store, RCX says how far */
	s.gpr[7] = TRAP_DATA, s.gpr[1] = 64;
	t = trap_run_state(&s, mode, TRAP_BYTES(0xf3, 0xaa));
	CHECK(t.vector == TRAP_DB && t.s.gpr[7] == TRAP_DATA + 9 && t.s.gpr[1] == 55,
	      "vector %d edi %llx ecx %llu", t.vector, (unsigned long long)t.s.gpr[7],
	      (unsigned long long)t.s.gpr[1]);
}

static void registers(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	struct trap t;

	s.gpr[0] = UINT64_C(1) << 32;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x23, 0xf0); /* mov dr6, rax */
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x23, 0xf8);
	EXPECT_STATE(&s, TRAP_K64, TRAP_UD, 0, 0x0f, 0x23, 0xe0); /* dr4 with CR4.DE */
	s.cr4 &= ~8;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x23, 0xe0); /* is dr6 without */
	s.gpr[0] = 0;
	t = trap_run_state(&s, TRAP_K64,
			   TRAP_BYTES(0x0f, 0x23, 0xf0, 0x0f, 0x21, 0xf3)); /* dr6 = 0; rbx = dr6 */
	CHECK(t.s.gpr[3] == 0xffff0ff0, "dr6 %llx", (unsigned long long)t.s.gpr[3]);
	s.gpr[0] = 0xd800;
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xfb));
	CHECK(t.vector == TRAP_DONE && t.s.gpr[3] == 0x400, "dr7 %llx",
	      (unsigned long long)t.s.gpr[3]);
	EXPECT(TRAP_U64, TRAP_GP, 0, 0x0f, 0x21, 0xf8);

	/* general detect: a fault, seen in DR6, and off in the handler */
	s = trap_state(TRAP_K64);
	s.dr[7] = 0x2400;
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x0f, 0x21, 0xc0));
	CHECK(t.vector == TRAP_DB && t.at == 0 && (t.s.dr[6] & 0xe00f) == BD &&
		      !(t.s.dr[7] & 0x2000),
	      "vector %d dr6 %llx dr7 %llx", t.vector, (unsigned long long)t.s.dr[6],
	      (unsigned long long)t.s.dr[7]);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DB, 0, 0x0f, 0x23, 0xf8);
	s = trap_state(TRAP_U64);
	s.dr[7] = 0x2400;
	EXPECT_STATE(&s, TRAP_U64, TRAP_GP, 0, 0x0f, 0x23, 0xf8);
}

static void single_step(int mode)
{
	uc_x86_vcpu_state s = trap_state(mode);
	struct trap t;
	int i;

	s.rflags = 0x102;
	t = trap_run_state(&s, mode, TRAP_BYTES(0x90, 0x90));
	CHECK(t.vector == TRAP_DB && t.at == 1 && (t.s.dr[6] & 0xe00f) == BS && (t.flags & 0x100) &&
		      !(t.s.rflags & 0x100),
	      "vector %d at %llx", t.vector, (unsigned long long)t.at);
	/* each turn of a string instruction; the last one leaves it */
	for (i = 3; i >= 1; i--) {
		s.gpr[1] = i, s.gpr[7] = TRAP_DATA;
		t = trap_run_state(&s, mode, TRAP_BYTES(0xf3, 0xaa));
		CHECK(t.vector == TRAP_DB && t.s.gpr[1] == (uint64_t)i - 1 &&
			      (t.at == 0 || (i == 1 && t.at == 2)),
		      "turn %d: vector %d at %llx ecx %llx", i, t.vector, (unsigned long long)t.at,
		      (unsigned long long)t.s.gpr[1]);
	}
	s.gpr[1] = 0;
	EXPECT_STATE(&s, mode, TRAP_DB, 2, 0xf3, 0xaa, 0x90);
	/* int n clears TF on its way, popf takes effect after the next instruction */
	EXPECT_STATE(&s, mode, TRAP_DONE, 0, 0xcd, TRAP_DONE);
	s.rflags = 2;
	trap_st64(TRAP_STACK, 0x102);
	EXPECT_STATE(&s, mode, TRAP_DB, 2, 0x9d, 0x90, 0x90);
	/* a data breakpoint and the step in one #DB */
	s.rflags = 0x102, s.gpr[7] = TRAP_DATA;
	s.dr[0] = TRAP_DATA, s.dr[7] = 0x402 | 1 << 16;
	t = trap_run_state(&s, mode, TRAP_BYTES(0x88, 0x07, 0x90, 0x90));
	CHECK(t.vector == TRAP_DB && t.at == 2 && (t.s.dr[6] & 0xe00f) == (BS | 1),
	      "vector %d dr6 %llx", t.vector, (unsigned long long)t.s.dr[6]);
}

static void syscall_step(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;

	s.star = (uint64_t)SEL_K64 << 32 | (uint64_t)0x1b << 48;
	s.lstar = TRAP_CODE + 0x100;
	s.rflags = 0x102;
	memset(trap_ram + TRAP_CODE + 0x100, 0x90, 16);
	/* FMASK without TF: the step is reported at the first instruction of the kernel; with it,
	 * it is not */
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x0f, 0x05));
	CHECK(t.vector == TRAP_DB && t.at == 0x100 && t.cs == SEL_K64, "vector %d at %llx",
	      t.vector, (unsigned long long)t.at);
	s.fmask = 0x100;
	memcpy(trap_ram + TRAP_CODE + 0x110, (const uint8_t[]){0xcd, TRAP_DONE}, 2);
	s.gpr[4] = TRAP_STACK;
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x0f, 0x05));
	CHECK(t.vector == TRAP_DONE && (t.s.gpr[11] & 0x100), "vector %d at %llx", t.vector,
	      (unsigned long long)t.at);
}

static void io_breakpoint(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	struct trap t;

	s.dr[3] = 0x80, s.dr[7] = 0x400 | 0x80 | 2u << 28;
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x31, 0xc0, 0xe6, 0x80, 0x90));
	CHECK(t.vector == TRAP_DB && t.at == 4 && (t.s.dr[6] & 0xf) == 8 && (t.flags & 0x40),
	      "vector %d at %llx", t.vector, (unsigned long long)t.at);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DB, 2, 0xe4, 0x80, 0x90);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0xe4, 0x81);
}

int main(void)
{
	trap_open();
	exec_breakpoint(TRAP_K64, 0);
	exec_breakpoint(TRAP_K32, 0);
	exec_breakpoint(TRAP_K32, 0x10000);
	behind_ss(TRAP_K64);
	behind_ss(TRAP_K32);
	data_breakpoint(TRAP_K64);
	data_breakpoint(TRAP_K32);
	registers();
	single_step(TRAP_K64);
	single_step(TRAP_K32);
	syscall_step();
	io_breakpoint();
	trap_close();
	return trap_report("test_uc_debugregs");
}
