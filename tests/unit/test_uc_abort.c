/* Description: what used to kill the process: instructions that made the translator abort or
 * overrun, the host trap, or an exception's delivery give up. Each is an exception of the guest
 * now, or simply runs.
 */
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/uc_trap.h"

void uc_fail(const char *file, int line,
	     const char *what); /* where every assertion of the library leads */

/* @insn, 600 times in one straight line, then the end. */
static void repeat(int mode, const uint8_t *insn, size_t n)
{
	static uint8_t code[16 * 600];
	struct trap t;
	size_t i;

	for (i = 0; i < 600; i++)
		memcpy(code + i * n, insn, n);
	t = trap_run(mode, code, 600 * n);
	CHECK(t.vector == TRAP_DONE, "%02x %02x %02x: vector %d reason %d %s", insn[0], insn[1],
	      insn[2], t.vector, t.info.reason, t.info.error ? t.info.error : "");
}

static void temporaries(void)
{
	static const uint8_t insns[][6] = {
		{2, 0xde, 0xc1},	     /* faddp */
		{2, 0xd9, 0xc9},	     /* fxch */
		{2, 0xd9, 0xee},	     /* fldz */
		{4, 0x0f, 0x70, 0xc0, 0x7c}, /* pshufw */
		{5, 0x66, 0x0f, 0x70, 0xc0, 0x7c},
		{4, 0x0f, 0xc6, 0xc0, 0x7c}, /* shufps */
		{3, 0x0f, 0x20, 0xc0},	     /* mov eax, cr0 */
		{4, 0x66, 0x0f, 0x50, 0xc0}, /* movmskpd */
		{2, 0xd8, 0xc1},	     /* fadd */
	};
	size_t i;

	for (i = 0; i < sizeof(insns) / sizeof(insns[0]); i++) {
		repeat(TRAP_K64, insns[i] + 1, insns[i][0]);
		repeat(TRAP_K32, insns[i] + 1, insns[i][0]);
	}
	repeat(TRAP_K32, (const uint8_t[]){0xce, 0x90, 0x90}, 1); /* into */
}

static void lock(void)
{
	static const uint8_t group[] = {0xa3, 0xab, 0xb3, 0xbb};
	int mode, i;

	for (mode = TRAP_K64; mode <= TRAP_K32; mode++) {
		for (i = 0; i < 4; i++) {
			EXPECT(mode, TRAP_UD, 0, 0xf0, 0x0f, group[i], 0xc1);
			EXPECT(mode, TRAP_UD, 0, 0xf0, 0x0f, 0xba, (uint8_t)(0xe0 + i * 8), 3);
		}
		EXPECT(mode, TRAP_UD, 0, 0xf0, 0x0f, 0xa3, 0x04, 0x24); /* bt [rsp], eax */
		EXPECT(mode, TRAP_DONE, 0, 0x31, 0xc0, 0xf0, 0x0f, 0xab, 0x04, 0x24);
	}
}

static void division(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	struct trap t;

	/* EDX:EAX = INT64_MIN, by -1; the same in 16 and 64 bits, and what only just fits */
	s.gpr[0] = 0, s.gpr[2] = 0x80000000, s.gpr[1] = ~UINT64_C(0);
	EXPECT_STATE(&s, TRAP_K64, TRAP_DE, 0, 0xf7, 0xf9);
	s.gpr[2] = 0x8000;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DE, 0, 0x66, 0xf7, 0xf9);
	s.gpr[2] = UINT64_C(1) << 63;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DE, 0, 0x48, 0xf7, 0xf9);
	s.gpr[0] = 0x8000;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DE, 0, 0xf6, 0xf9);
	s.gpr[0] = 0x80000001, s.gpr[2] = 0xffffffff; /* -(2^31 - 1) / -1 */
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0xf7, 0xf9));
	CHECK(t.vector == TRAP_DONE && t.s.gpr[0] == 0x7fffffff && t.s.gpr[2] == 0, "%d %llx",
	      t.vector, (unsigned long long)t.s.gpr[0]);
	s.gpr[0] = 0x80000000, s.gpr[2] = 0xffffffff;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DE, 0, 0xf7, 0xf9);
	EXPECT(TRAP_K32, TRAP_DE, 0, 0xd4, 0); /* aam 0 */
}

/* MOV DR7 with an execution breakpoint, on and off, from a block that goes on behind it. */
static void breakpoint(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	uc_vcpu_stats before, after;
	struct trap t;
	int i;

	uc_vcpu_get_stats(trap_uc, &before);
	s.gpr[0] = TRAP_DATA, s.gpr[3] = 0x402, s.gpr[2] = 0x400;
	for (i = 0; i < 50; i++) {
		/* mov dr0, rax; 200 x { mov dr7, rbx; mov dr7, rdx } */
		static const uint8_t code[] = {0x0f, 0x23, 0xc0, 0xb9, 200,  0,
					       0,    0,	   0x0f, 0x23, 0xfb, 0x0f,
					       0x23, 0xfa, 0xff, 0xc9, 0x75, 0xf6};

		t = trap_run_state(&s, TRAP_K64, code, sizeof(code));
		CHECK(t.vector == TRAP_DONE, "%d", t.vector);
	}
	/* and nothing that was translated is thrown away for it */
	uc_vcpu_get_stats(trap_uc, &after);
	CHECK(after.tb_flushes == before.tb_flushes, "%llu flushes of the code buffer",
	      (unsigned long long)(after.tb_flushes - before.tb_flushes));
	/* one is left behind for uc_close */
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x0f, 0x23, 0xc0, 0x0f, 0x23, 0xfb);
}

static void tss(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;

	EXPECT(TRAP_K64, TRAP_GP, 2, 0x31, 0xc0, 0x0f, 0x00, 0xd8); /* ltr 0 */

	/* IST without a TSS, and a ring change: #TS, whose own delivery from ring 3 ends in a
	 * triple fault */
	s.tr = (uc_x86_vcpu_seg){.attr = 1 << 12};
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == -1 && t.info.reason == UC_VCPU_EXIT_SHUTDOWN, "vector %d reason %d",
	      t.vector, t.info.reason);
	s = trap_state(TRAP_U32);
	s.tr = (uc_x86_vcpu_seg){.attr = 1 << 12};
	t = trap_run_state(&s, TRAP_U32, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == -1 && t.info.reason == UC_VCPU_EXIT_SHUTDOWN, "vector %d reason %d",
	      t.vector, t.info.reason);
	/* in ring 0 without a stack switch the #TS arrives */
	s = trap_state(TRAP_K64);
	s.tr = (uc_x86_vcpu_seg){.attr = 1 << 12, .selector = SEL_TSS};
	trap_gate(TRAP_UD, SEL_K32, 14, 0, 1);
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x0f, 0x0b));
	CHECK(t.vector == TRAP_TS && (t.error & ~1ull) == SEL_TSS, "vector %d error %llx", t.vector,
	      (unsigned long long)t.error);
	trap_gate(TRAP_UD, SEL_K32, 14, 0, 0);
	/* a busy TSS, as hardware reports it, is a TSS: ports by the bitmap */
	s = trap_state(TRAP_U64);
	memcpy(trap_ram + TRAP_TSS + 0x66, (uint16_t[]){0x68}, 2);
	s.tr.limit = 0xff;
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0xe4, 0x80);
	trap_ram[TRAP_TSS + 0x68 + 0x10] = 1;
	EXPECT_STATE(&s, TRAP_U64, TRAP_GP, 0, 0xe4, 0x80);
	trap_memory();
}

static void no_svm(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);

	/* EFER.SVME: #GP, and VMRUN, VMLOAD, VMSAVE, SKINIT stay undefined */
	s.gpr[1] = 0xc0000080, s.gpr[0] = 0x1d01;
	EXPECT_STATE(&s, TRAP_K64, TRAP_GP, 0, 0x0f, 0x30);
	EXPECT(TRAP_K64, TRAP_UD, 0, 0x0f, 0x01, 0xd8);
	EXPECT(TRAP_K64, TRAP_UD, 0, 0x0f, 0x01, 0xda);
	EXPECT(TRAP_K64, TRAP_UD, 0, 0x0f, 0x01, 0xdb);
	EXPECT(TRAP_K64, TRAP_UD, 0, 0x0f, 0x01, 0xde);
	s.efer |= 0x1000;
	CHECK(uc_x86_vcpu_set_state(trap_uc, &s) == UC_ERR_ARG, "a state with SVME was taken");
}

static void failing_port(void *opaque, uint16_t port, unsigned size, uint32_t v)
{
	(void)opaque, (void)size, (void)v;
	if (port == 0x99)
		uc_fail("nowhere.c", 7, "an assertion");
}

/* An assertion while an engine runs: that engine is lost, nothing else. */
static void assertion(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	uc_vcpu_ops ops = trap_ops;
	uc_vcpu_run_info info = {0};
	uc_engine *e;
	int i;

	ops.pio_write = failing_port;
	if (uc_open(UC_ARCH_X86, UC_MODE_64, &e) ||
	    uc_mem_map_ptr(e, 0, TRAP_RAM, UC_PROT_ALL, trap_ram) ||
	    uc_vcpu_enable(e, &ops, NULL, 4 << 20, false)) {
		CHECK(0, "no second engine");
		return;
	}
	memcpy(trap_ram + TRAP_CODE, (const uint8_t[]){0xe6, 0x98, 0xe6, 0x99, 0xf4}, 5);
	CHECK(!uc_x86_vcpu_set_state(e, &s), "set");
	for (i = 0; i < 2; i++) {
		CHECK(!uc_vcpu_run(e, &info), "run");
		CHECK(info.reason == UC_VCPU_EXIT_ERROR && info.error &&
			      !strcmp(info.error, "nowhere.c:7: an assertion"),
		      "reason %d, %s", info.reason, info.error ? info.error : "-");
	}
	uc_close(e);
	EXPECT(TRAP_K64, TRAP_UD, 0, 0x0f, 0x0b); /* the first one goes on */
}

/* No memory for translated code is an error of the call, every time. */
static void no_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they reserve terabytes */
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		const struct rlimit few = {512 << 20,
					   512 << 20}; /* the buffer's reservation is 1 GiB */
		uc_engine *e;

		setrlimit(RLIMIT_AS, &few);
		_exit(uc_open(UC_ARCH_X86, UC_MODE_64, &e) ||
		      uc_mem_map_ptr(e, 0, TRAP_RAM, UC_PROT_ALL, trap_ram) != UC_ERR_RESOURCE ||
		      uc_mem_map_ptr(e, 0, TRAP_RAM, UC_PROT_ALL, trap_ram) != UC_ERR_RESOURCE ||
		      uc_close(e));
	}
	CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0, "status %x", status);
#endif
}

/* Translation asked for without a run, until the buffer is full and full again. (Unicorn's header
 * makes the number of such a request by a shift into the sign.) */
__attribute__((no_sanitize("shift"))) static void request_cache(void)
{
	enum { BLOCKS = 20000, SIZE = 16 };
	uc_engine *e;
	uc_err err = UC_ERR_OK;
	uc_tb tb;
	int i;

	CHECK(!uc_open(UC_ARCH_X86, UC_MODE_64, &e), "open");
	CHECK(!uc_ctl_set_tcg_buffer_size(e, 1 << 20), "buffer");
	CHECK(!uc_mem_map(e, 0x100000, BLOCKS * SIZE & ~4095, UC_PROT_ALL), "map");
	for (i = 0; i < (BLOCKS * SIZE & ~4095) / SIZE && !err; i++) {
		const uint64_t at = 0x100000 + (uint64_t)i * SIZE;

		uc_mem_write(e, at, (const uint8_t[]){0x48, 0x01, 0xd8, 0xc3}, 4);
		err = uc_ctl_request_cache(e, at, &tb);
		if (!err && tb.pc != at)
			err = UC_ERR_ARG;
	}
	CHECK(!err, "block %d: %s", i, uc_strerror(err));
	uc_close(e);
}

int main(void)
{
	trap_open();
	assertion();
	no_memory();
	request_cache();
	temporaries();
	lock();
	division();
	tss();
	no_svm();
	breakpoint();
	trap_close();
	return trap_report("test_uc_abort");
}
