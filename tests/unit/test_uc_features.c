/* Description: what control registers and CPUID switch on and off: instructions that CPUID does not
 * show, #AC, SMAP, the check of PAE's PDPTEs; and RDRAND's numbers.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/uc_trap.h"

enum { TRAP_AC = 17 };

static void not_in_cpuid(void)
{
	int mode;

	for (mode = TRAP_K64; mode <= TRAP_K32; mode += TRAP_K32 - TRAP_K64) {
		EXPECT(mode, TRAP_UD, 0, 0x0f, 0x01, 0xc8);		   /* monitor */
		EXPECT(mode, TRAP_UD, 0, 0x0f, 0xc7, 0xf0);		   /* rdrand eax */
		EXPECT(mode, TRAP_UD, 0, 0x0f, 0xc7, 0xf8);		   /* rdseed eax */
		EXPECT(mode, TRAP_UD, 0, 0x0f, 0x0f, 0xc1, 0x9e);	   /* 3DNow! pfadd */
		EXPECT(mode, TRAP_UD, 0, 0x66, 0x0f, 0x78, 0xc0, 4, 4);	   /* SSE4A extrq */
		EXPECT(mode, TRAP_UD, 0, 0x8f, 0xe8, 0x78, 0xc0, 0xc0, 0); /* XOP */
		EXPECT(mode, TRAP_DONE, 0, 0x50, 0x8f, 0xc0);		   /* push; pop, long */
		EXPECT(mode, TRAP_DONE, 0, 0xf3, 0x0f, 0xb8, 0xc0);	   /* popcnt is there */
	}
}

static void alignment_check(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_U64);
	struct trap t;

	s.cr0 |= 1 << 18;
	s.gpr[7] = TRAP_DATA + 1;
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x8b, 0x07); /* AM without AC */
	s.rflags |= 1 << 18;
	t = trap_run_state(&s, TRAP_U64, TRAP_BYTES(0x8b, 0x07));
	CHECK(t.vector == TRAP_AC && t.error == 0 && t.at == 0, "vector %d", t.vector);
	EXPECT_STATE(&s, TRAP_U64, TRAP_AC, 0, 0x89, 0x07);
	EXPECT_STATE(&s, TRAP_U64, TRAP_AC, 0, 0xf0, 0xff, 0x07);
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x8a, 0x07);	    /* a byte */
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x0f, 0x10, 0x07); /* movups never */
	EXPECT_STATE(&s, TRAP_U64, TRAP_GP, 0, 0x0f, 0x28, 0x07);   /* movaps: #GP as ever */
	s.gpr[7]--;
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x8b, 0x07);
	s.gpr[7]++;
	s.cr0 &= ~(1 << 18);
	EXPECT_STATE(&s, TRAP_U64, TRAP_DONE, 0, 0x8b, 0x07); /* AC without AM */
	s = trap_state(TRAP_K64);
	s.cr0 |= 1 << 18, s.rflags |= 1 << 18;
	s.gpr[7] = TRAP_DATA + 1;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x8b, 0x07); /* not in ring 0 */
}

/* EFLAGS.AC lifts SMAP for what the program accesses, not for what the processor does by itself. */
static void smap(void)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	struct trap t;

	for (uint64_t i = 0; i < 512; i++)
		trap_st64(TRAP_PT + i * 8, i * 4096 | 3);
	trap_st64(TRAP_PT + (TRAP_DATA >> 12) * 8, TRAP_DATA | 7);
	trap_st64(TRAP_DATA, 0x00cf93000000ffff);
	s.cr4 |= 1 << 21;
	s.rflags |= 1 << 18;
	s.ldt = (uc_x86_vcpu_seg){TRAP_DATA, 0xff, 0x48, 0x82};
	s.gpr[0] = 4; /* the LDT's first */
	s.gpr[7] = TRAP_DATA;
	EXPECT_STATE(&s, TRAP_K64, TRAP_DONE, 0, 0x8b, 0x07);
	t = trap_run_state(&s, TRAP_K64, TRAP_BYTES(0x8e, 0xd8)); /* mov ds, eax */
	CHECK(t.vector == TRAP_PF && t.error == 1 && t.at == 0 && t.s.cr2 == TRAP_DATA,
	      "vector %d error %llx", t.vector, (unsigned long long)t.error);
	trap_memory();
}

/* Reserved bits of PAE's four PDPTEs are looked at when CR3 is loaded, and when paging begins. */
static void pdptes(void)
{
	enum { GOOD = 0xa000, BAD = 0xb000 };
	uc_x86_vcpu_state s = trap_state(TRAP_K32);

	trap_st64(GOOD, TRAP_PD | 1);
	trap_st64(BAD, TRAP_PD | 1);
	trap_st64(BAD + 24, TRAP_PD | 3);
	s.cr4 |= 0x20, s.cr3 = GOOD;
	s.gpr[0] = GOOD;
	EXPECT_STATE(&s, TRAP_K32, TRAP_DONE, 0, 0x0f, 0x22, 0xd8); /* mov cr3, eax */
	s.gpr[0] = BAD;
	EXPECT_STATE(&s, TRAP_K32, TRAP_GP, 0, 0x0f, 0x22, 0xd8);
	trap_st64(BAD + 24, TRAP_PD | 2); /* not present: nothing counts */
	EXPECT_STATE(&s, TRAP_K32, TRAP_DONE, 0, 0x0f, 0x22, 0xd8);
	trap_st64(BAD + 24, TRAP_PD | 3);
	s.gpr[0] = s.cr0, s.cr0 &= 0x7fffffff;
	s.cr3 = BAD;
	EXPECT_STATE(&s, TRAP_K32, TRAP_GP, 0, 0x0f, 0x22, 0xc0); /* mov cr0, eax */
	s.cr3 = GOOD;
	EXPECT_STATE(&s, TRAP_K32, TRAP_DONE, 0, 0x0f, 0x22, 0xc0);
	trap_memory();
}

static void cpuid_rdrand(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	trap_op_cpuid(opaque, leaf, subleaf, out);
	if (leaf == 1)
		out[2] |= 1 << 30;
}

static uint64_t rdrand(uc_engine *e)
{
	uc_x86_vcpu_state s = trap_state(TRAP_K64);
	uc_vcpu_run_info info = {0};

	memcpy(trap_ram + TRAP_CODE, (const uint8_t[]){0x48, 0x0f, 0xc7, 0xf0, 0xf4}, 5);
	CHECK(!uc_x86_vcpu_set_state(e, &s) && !uc_vcpu_run(e, &info) &&
		      info.reason == UC_VCPU_EXIT_HLT,
	      "reason %d", info.reason);
	uc_x86_vcpu_get_state(e, &s);
	return s.gpr[0];
}

/* Not a generator of the process: two copies of one process would go on with the same numbers. */
static void random_numbers(void)
{
	uint64_t first, child = 0, parent;
	uc_vcpu_ops ops = trap_ops;
	int status = 0, fd[2];
	uc_engine *e;
	pid_t pid;

	ops.cpuid = cpuid_rdrand;
	if (uc_open(UC_ARCH_X86, UC_MODE_64, &e) ||
	    uc_mem_map_ptr(e, 0, TRAP_RAM, UC_PROT_ALL, trap_ram) ||
	    uc_vcpu_enable(e, &ops, NULL, 4 << 20, false) || pipe(fd)) {
		CHECK(0, "no second engine");
		return;
	}
	first = rdrand(e);
	pid = fork();
	if (pid == 0) {
		child = rdrand(e);
		_exit(write(fd[1], &child, 8) != 8);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 &&
		      read(fd[0], &child, 8) == 8,
	      "status %x", status);
	parent = rdrand(e);
	CHECK(first != parent && child != parent, "%llx, then %llx and %llx",
	      (unsigned long long)first, (unsigned long long)parent, (unsigned long long)child);
	close(fd[0]), close(fd[1]);
	uc_close(e);
}

int main(void)
{
	trap_open();
	not_in_cpuid();
	alignment_check();
	smap();
	pdptes();
	random_numbers();
	trap_close();
	return trap_report("test_uc_features");
}
