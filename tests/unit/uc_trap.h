/* Description: one piece of x86 machine code in one mode of the patched Unicorn, and what it
 * raised.
 *
 * For the tests of the exception patches of the series (cpu/soft/unicorn). The guest is 4 MiB of
 * flat, identity mapped memory; every vector leads to a HLT of its own, the code ends in INT 0xfe.
 * trap_run() says which vector was reached and with what frame.
 */
#ifndef TESTS_UC_TRAP_H
#define TESTS_UC_TRAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <unicorn/unicorn.h>
#include <unicorn/vcpu.h>

enum {
	TRAP_RAM = 4 << 20,
	TRAP_PML4 = 0x1000,
	TRAP_PDPT = 0x2000,
	TRAP_PD = 0x3000,
	TRAP_PT = 0x4000,   /* of the first 2 MiB */
	TRAP_PD32 = 0x5000, /* 4 MiB pages, without PAE */
	TRAP_GDT = 0x6000,
	TRAP_TSS = 0x7000,
	TRAP_IDT = 0x8000,   /* 64-bit gates */
	TRAP_IDT32 = 0x9000, /* 32-bit gates */
	TRAP_HANDLERS = 0x10000,
	TRAP_CODE = 0x20000,
	TRAP_DATA = 0x40000,
	TRAP_STACK = 0x60000,
	TRAP_STACK0 = 0x70000,
	TRAP_IST1 = 0x78000,
	TRAP_DONE = 0xfe,
};

enum { TRAP_K64, TRAP_U64, TRAP_K32, TRAP_U32, TRAP_R16 }; /* kernel, user, real mode */
enum {
	SEL_K64 = 0x08,
	SEL_KD = 0x10,
	SEL_K32 = 0x18,
	SEL_UD = 0x23,
	SEL_U64 = 0x2b,
	SEL_U32 = 0x33,
	SEL_TSS = 0x40,
};
enum {
	TRAP_DE = 0,
	TRAP_DB = 1,
	TRAP_BP = 3,
	TRAP_OF = 4,
	TRAP_BR = 5,
	TRAP_UD = 6,
	TRAP_NM = 7,
	TRAP_DF = 8,
	TRAP_TS = 10,
	TRAP_NP = 11,
	TRAP_SS = 12,
	TRAP_GP = 13,
	TRAP_PF = 14,
	TRAP_MF = 16,
	TRAP_XM = 19
};

struct trap {
	int vector;	/* TRAP_DONE: ran to its end; -1: another exit, see info */
	uint64_t error; /* error code, if the vector has one */
	uint64_t rip, cs, flags, rsp, ss;
	uint64_t at; /* rip - TRAP_CODE */
	uc_vcpu_run_info info;
	uc_x86_vcpu_state s; /* at the HLT */
};

static uint8_t *trap_ram;
static uc_engine *trap_uc;
static int trap_checks;
static int trap_failures;
/* the second stage's answer to a page, if a test wants another one than RAM */
static int (*trap_xlat)(uint64_t gpa, uint32_t access, uint32_t walk, uc_vcpu_xlat *out);

#define CHECK(c, ...)                                                                              \
	do {                                                                                       \
		trap_checks++;                                                                     \
		if (!(c)) {                                                                        \
			printf("%s:%d: %s: ", __FILE__, __LINE__, #c);                             \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			trap_failures++;                                                           \
		}                                                                                  \
	} while (0)

static inline int trap_op_translate(void *opaque, uint64_t gpa, uint64_t gva, uint32_t access,
				    uint32_t walk, uc_vcpu_xlat *out)
{
	(void)opaque, (void)gva;
	out->hpa = gpa;
	out->prot = UC_PROT_ALL;
	if (trap_xlat) {
		int r = trap_xlat(gpa, access, walk, out);

		if (r >= 0)
			return r;
	}
	return gpa < TRAP_RAM ? UC_VCPU_XLAT_RAM : UC_VCPU_XLAT_MMIO;
}

static inline uint64_t trap_op_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	(void)opaque, (void)gpa, (void)size;
	return ~UINT64_C(0);
}

static inline void trap_op_mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
	(void)opaque, (void)gpa, (void)size, (void)value;
}

static inline uint32_t trap_op_pio_read(void *opaque, uint16_t port, unsigned size)
{
	(void)opaque, (void)port, (void)size;
	return 0xffffffff;
}

static inline void trap_op_pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	(void)opaque, (void)port, (void)size, (void)value;
}

static inline int trap_op_irq_ack(void *opaque)
{
	(void)opaque;
	return -1;
}

static inline uint64_t trap_op_tsc(void *opaque)
{
	(void)opaque;
	return 1234567;
}

static inline int trap_op_rdmsr(void *opaque, uint32_t msr, uint64_t *value)
{
	(void)opaque, (void)msr, (void)value;
	return 1;
}

static inline int trap_op_wrmsr(void *opaque, uint32_t msr, uint64_t value)
{
	(void)opaque, (void)msr, (void)value;
	return 1;
}

static inline void trap_op_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)opaque, (void)subleaf;
	memset(out, 0, 16);
	switch (leaf) {
	case 0:
		out[0] = 13;
		memcpy(&out[1], "Genu", 4), memcpy(&out[3], "ineI", 4), memcpy(&out[2], "ntel", 4);
		break;
	case 1: /* SSE3 SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT XSAVE; FPU DE PSE TSC MSR PAE MCE ...
		   SSE2 */
		out[2] = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 26;
		out[3] = 0x0783fbfd;
		break;
	case 7: /* FSGSBASE BMI1 SMEP BMI2 SMAP */
		out[1] = 1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 20;
		break;
	case 0x80000001: /* SYSCALL NX RDTSCP LM */
		out[3] = 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29;
		break;
	}
}

static inline uint64_t trap_op_cr8_read(void *opaque)
{
	(void)opaque;
	return 0;
}

static inline void trap_op_cr8_write(void *opaque, uint64_t value)
{
	(void)opaque, (void)value;
}

static const uc_vcpu_ops trap_ops = {
	trap_op_translate, trap_op_mmio_read, trap_op_mmio_write, trap_op_pio_read,
	trap_op_pio_write, trap_op_irq_ack,   trap_op_tsc,	  trap_op_rdmsr,
	trap_op_wrmsr,	   trap_op_cpuid,     trap_op_cr8_read,	  trap_op_cr8_write,
};

static inline void trap_st64(uint64_t a, uint64_t v)
{
	memcpy(trap_ram + a, &v, 8);
}

static inline uint64_t trap_ld64(uint64_t a)
{
	uint64_t v;

	memcpy(&v, trap_ram + a, 8);
	return v;
}

static inline uint64_t trap_gate_low(uint64_t to, unsigned sel, unsigned type, unsigned dpl,
				     unsigned ist)
{
	return (to & 0xffff) | (uint64_t)sel << 16 |
	       (uint64_t)(0x8000 | dpl << 13 | type << 8 | ist) << 32 | (to >> 16 & 0xffff) << 48;
}

/* type 14: interrupt gate, 15: trap gate; type 0: an empty entry */
static inline void trap_gate(int vector, unsigned sel32, unsigned type, unsigned dpl, unsigned ist)
{
	const uint64_t to = TRAP_HANDLERS + (unsigned)vector * 16;

	trap_st64(TRAP_IDT + (unsigned)vector * 16,
		  type ? trap_gate_low(to, SEL_K64, type, dpl, ist) : 0);
	trap_st64(TRAP_IDT + (unsigned)vector * 16 + 8, 0);
	trap_st64(TRAP_IDT32 + (unsigned)vector * 8,
		  type ? trap_gate_low(to, sel32, type, dpl, 0) : 0);
}

/* Memory as every test finds it; called by trap_open, and to start over. */
static inline void trap_memory(void)
{
	unsigned i;

	memset(trap_ram, 0, TRAP_RAM);
	trap_st64(TRAP_PML4, TRAP_PDPT | 7);
	trap_st64(TRAP_PDPT, TRAP_PD | 7);
	trap_st64(TRAP_PD, TRAP_PT | 7);
	trap_st64(TRAP_PD + 8, 0x200000 | 0x87);
	for (i = 0; i < 512; i++)
		trap_st64(TRAP_PT + i * 8, i * 4096 | 7);
	memcpy(trap_ram + TRAP_PD32, (uint32_t[]){0x87}, 4);
	trap_st64(TRAP_GDT + 0x08, 0x00af9b000000ffff);
	trap_st64(TRAP_GDT + 0x10, 0x00cf93000000ffff);
	trap_st64(TRAP_GDT + 0x18, 0x00cf9b000000ffff);
	trap_st64(TRAP_GDT + 0x20, 0x00cff3000000ffff);
	trap_st64(TRAP_GDT + 0x28, 0x00affb000000ffff);
	trap_st64(TRAP_GDT + 0x30, 0x00cffb000000ffff);
	trap_st64(TRAP_GDT + 0x40, 0x0000890000000067 | TRAP_TSS << 16);
	trap_st64(TRAP_GDT + 0x48, 0);
	trap_st64(TRAP_TSS + 4, TRAP_STACK0); /* RSP0, or ESP0 */
	trap_st64(TRAP_TSS + 36, TRAP_IST1);
	for (i = 0; i < 256; i++) {
		trap_gate((int)i, SEL_K32, 14, i == TRAP_DONE || i == 3 || i == 4 ? 3 : 0, 0);
		trap_ram[TRAP_HANDLERS + i * 16] = 0xf4;
	}
}

static inline void trap_open(void)
{
	uc_err e;

	trap_ram = mmap(NULL, TRAP_RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (trap_ram == MAP_FAILED) {
		printf("no memory\n");
		exit(77);
	}
	trap_memory();
	if ((e = uc_open(UC_ARCH_X86, UC_MODE_64, &trap_uc)) ||
	    (e = uc_mem_map_ptr(trap_uc, 0, TRAP_RAM, UC_PROT_ALL, trap_ram)) ||
	    (e = uc_vcpu_enable(trap_uc, &trap_ops, NULL, 4 << 20, false))) {
		printf("no engine: %s\n", uc_strerror(e));
		exit(1);
	}
}

static inline void trap_close(void)
{
	uc_close(trap_uc);
	munmap(trap_ram, TRAP_RAM);
}

static inline uc_x86_vcpu_state trap_state(int mode)
{
	const bool user = mode == TRAP_U64 || mode == TRAP_U32,
		   long_mode = mode == TRAP_K64 || mode == TRAP_U64;
	uc_x86_vcpu_state s = {0};
	int i;

	/* SS0 of a 32-bit TSS, the upper half of RSP0 in a 64-bit one */
	memcpy(trap_ram + TRAP_TSS + 8, (uint16_t[]){mode == TRAP_U32 ? SEL_KD : 0}, 2);
	for (i = 0; i < 6; i++)
		s.seg[i] = user ? (uc_x86_vcpu_seg){0, 0xffffffff, SEL_UD, 0xcf3}
				: (uc_x86_vcpu_seg){0, 0xffffffff, SEL_KD, 0xc93};
	s.tr = (uc_x86_vcpu_seg){TRAP_TSS, 0x67, SEL_TSS, 0x8b};
	s.ldt.attr = 1 << 12;
	s.gdt_base = TRAP_GDT, s.gdt_limit = 0x4f;
	s.idt_base = long_mode ? TRAP_IDT : TRAP_IDT32;
	s.idt_limit = long_mode ? 0xfff : 0x7ff;
	s.cr0 = 0x80010033; /* PG WP NE ET MP PE */
	s.cr3 = long_mode ? TRAP_PML4 : TRAP_PD32;
	s.cr4 = long_mode ? 0x6f8 : 0x6d8;  /* OSXMMEXCPT OSFXSR PGE MCE (PAE) PSE DE */
	s.efer = long_mode ? 0xd01 : 0x801; /* NXE LMA LME SCE */
	s.xcr0 = 1;
	s.rip = TRAP_CODE, s.rflags = 2;
	s.gpr[4] = TRAP_STACK;
	s.dr[6] = 0xffff0ff0, s.dr[7] = 0x400;
	s.fxsave[0] = 0x7f, s.fxsave[1] = 3;
	s.fxsave[24] = 0x80, s.fxsave[25] = 0x1f;
	s.pat = 0x0007040600070406;
	switch (mode) {
	case TRAP_K64: s.seg[1] = (uc_x86_vcpu_seg){0, 0xffffffff, SEL_K64, 0xa9b}; break;
	case TRAP_U64: s.seg[1] = (uc_x86_vcpu_seg){0, 0xffffffff, SEL_U64, 0xafb}; break;
	case TRAP_K32: s.seg[1] = (uc_x86_vcpu_seg){0, 0xffffffff, SEL_K32, 0xc9b}; break;
	case TRAP_U32: s.seg[1] = (uc_x86_vcpu_seg){0, 0xffffffff, SEL_U32, 0xcfb}; break;
	default:
		for (i = 0; i < 6; i++)
			s.seg[i] = (uc_x86_vcpu_seg){0, 0xffff, 0, 0x93};
		s.seg[1] = (uc_x86_vcpu_seg){TRAP_CODE, 0xffff, TRAP_CODE >> 4, 0x9b};
		s.seg[2] = s.seg[3] = (uc_x86_vcpu_seg){TRAP_DATA, 0xffff, TRAP_DATA >> 4, 0x93};
		s.cr0 = 0x30, s.cr4 = 0x600, s.efer = 0;
		s.idt_base = TRAP_IDT32, s.idt_limit = 0x3ff;
		s.rip = 0, s.gpr[4] = 0xfff0;
		for (i = 0; i < 256; i++) { /* real-mode vectors, in the 32-bit IDT's place */
			const uint16_t to[2] = {(uint16_t)(i * 16), TRAP_HANDLERS >> 4};

			memcpy(trap_ram + TRAP_IDT32 + i * 4, to, 4);
		}
	}
	return s;
}

/* Runs @code from TRAP_CODE in state @s until a vector is reached. */
static inline struct trap trap_run_state(const uc_x86_vcpu_state *s, int mode, const void *code,
					 size_t len)
{
	static const uint8_t done[2] = {0xcd, TRAP_DONE};
	const bool wide = mode == TRAP_K64 || mode == TRAP_U64;
	struct trap t = {.vector = -1};
	uint64_t f[7], linear;
	uc_err e;
	int i, n;

	memcpy(trap_ram + TRAP_CODE, code, len);
	memcpy(trap_ram + TRAP_CODE + len, done, 2);
	uc_vcpu_invalidate_code(trap_uc, 0, TRAP_RAM);
	uc_vcpu_flush_tlb(trap_uc);
	e = uc_x86_vcpu_set_state(trap_uc, s);
	if (e) {
		printf("set_state: %s\n", uc_strerror(e));
		exit(1);
	}
	do
		e = uc_vcpu_run(trap_uc, &t.info);
	while (!e && t.info.reason == UC_VCPU_EXIT_KICK);
	if (e) {
		printf("run: %s\n", uc_strerror(e));
		exit(1);
	}
	uc_x86_vcpu_get_state(trap_uc, &t.s);
	linear = t.s.seg[1].base + t.s.rip - TRAP_HANDLERS;
	if (t.info.reason != UC_VCPU_EXIT_HLT || linear > 0xfff)
		return t;
	t.vector = (int)(linear >> 4);
	n = mode != TRAP_R16 &&
	    (t.vector == 8 || (t.vector >= 10 && t.vector <= 14) || t.vector == 17);
	for (i = 0; i < 7; i++) {
		const uint64_t sp = t.s.seg[2].base + t.s.gpr[4];

		if (sp > TRAP_RAM - 64)
			return t;
		f[i] = wide ? trap_ld64(sp + i * 8)
			    : trap_ld64(sp + i * (mode == TRAP_R16 ? 2 : 4));
		f[i] &= wide ? ~UINT64_C(0) : mode == TRAP_R16 ? 0xffff : 0xffffffff;
	}
	t.error = n ? f[0] : 0;
	t.rip = f[n], t.cs = f[n + 1] & 0xffff, t.flags = f[n + 2];
	t.rsp = f[n + 3], t.ss = f[n + 4] & 0xffff;
	t.at = t.rip - (mode == TRAP_R16 ? 0 : TRAP_CODE);
	return t;
}

static inline struct trap trap_run(int mode, const void *code, size_t len)
{
	uc_x86_vcpu_state s = trap_state(mode);

	return trap_run_state(&s, mode, code, len);
}

#define TRAP_BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static inline void trap_expect(int line, const uc_x86_vcpu_state *s, int mode, int vector, long off,
			       const void *code, size_t len)
{
	struct trap t = trap_run_state(s, mode, code, len);

	trap_checks++;
	if (t.vector == vector && (vector == TRAP_DONE || t.at == (uint64_t)off))
		return;
	trap_failures++;
	printf("line %d, mode %d, bytes", line, mode);
	for (size_t i = 0; i < len && i < 16; i++)
		printf(" %02x", ((const uint8_t *)code)[i]);
	printf(": vector %d at %lld instead of %d at %ld (reason %d %s, rip %llx)\n", t.vector,
	       (long long)t.at, vector, off, t.info.reason, t.info.error ? t.info.error : "",
	       (unsigned long long)t.s.rip);
}

/* These bytes raise @vector at offset @off (TRAP_DONE: they run to their end). */
#define EXPECT_STATE(state, mode, vector, off, ...)                                                \
	trap_expect(__LINE__, state, mode, vector, off, TRAP_BYTES(__VA_ARGS__))
#define EXPECT(mode, vector, off, ...)                                                             \
	do {                                                                                       \
		const uc_x86_vcpu_state st_ = trap_state(mode);                                    \
		EXPECT_STATE(&st_, mode, vector, off, __VA_ARGS__);                                \
	} while (0)

static inline int trap_report(const char *what)
{
	printf("%s: %d checks, %d failed\n", what, trap_checks, trap_failures);
	return trap_failures != 0;
}

#endif
