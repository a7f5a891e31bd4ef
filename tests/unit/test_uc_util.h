/* A small long-mode guest on one or more engines, for the tests of the Unicorn series. RAM is
 * shared; the second stage is a permutation of its pages, so that nothing works by accident. The
 * guest's code is host assembly (x86-64 hosts only), copied to CODE. One file per test includes
 * this. */
#ifndef TEST_UC_UTIL_H
#define TEST_UC_UTIL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unicorn/unicorn.h>
#include <unicorn/vcpu.h>

enum { PAGE = 4096, NPAGES = 2048, RAM_SIZE = NPAGES * PAGE };
enum {
	PML4 = 0x1000,
	PDPT = 0x2000,
	PD = 0x3000,
	GDT = 0x4000,
	IDT = 0x5000,
	TSS = 0x6000,
	PT = 0x7000,
	PD_MMIO = 0xf000,
	CODE = 0x10000,
	DATA = 0x80000,
	STACK = 0xa0000
};
#define MMIO_BASE 0xf0000000ull
#define DONE_PORT 0xf4

static uint8_t *ram;
static uint32_t perm[NPAGES];

struct vm {
	uc_engine *uc;
	uint64_t walks, fills, mmios, outs, last_out, irq_acks;
	int vector; /* irq_ack */
	bool done;
	/* hook of the second stage: what to say to this page, or -1 */
	int (*s2)(struct vm *, uint64_t gpa, uint32_t access, uint32_t walk, uc_vcpu_xlat *);
	void (*pio_out)(struct vm *, uint16_t port, uint32_t value);
	uint64_t s2_arg;
	uint64_t mmio_gpa, mmio_val;
	unsigned mmio_size;
};

static inline void *gpa(uint64_t a)
{
	return ram + (uint64_t)perm[a / PAGE] * PAGE + a % PAGE;
}

static inline void gpa_write(uint64_t a, const void *p, size_t n)
{
	for (const uint8_t *b = p; n--; a++)
		*(uint8_t *)gpa(a) = *b++;
}

static inline void gpa_q(uint64_t a, uint64_t v)
{
	memcpy(gpa(a), &v, 8);
}

static inline uint64_t gpa_ldq(uint64_t a)
{
	uint64_t v;
	memcpy(&v, gpa(a), 8);
	return v;
}

static inline int op_translate(void *o, uint64_t a, uint64_t gva, uint32_t access, uint32_t walk,
			       uc_vcpu_xlat *x)
{
	struct vm *vm = o;
	(void)gva;
	vm->fills++;
	vm->walks += walk;
	if (a >= RAM_SIZE)
		return UC_VCPU_XLAT_MMIO;
	x->hpa = (uint64_t)perm[a / PAGE] * PAGE + a % PAGE;
	x->prot = UC_PROT_ALL;
	if (vm->s2) {
		int r = vm->s2(vm, a, access, walk, x);
		if (r >= 0)
			return r;
	}
	return UC_VCPU_XLAT_RAM;
}

static inline uint64_t op_mmio_read(void *o, uint64_t a, unsigned size)
{
	struct vm *vm = o;
	vm->mmios++, vm->mmio_gpa = a, vm->mmio_size = size;
	return 0x1122334455667788ull;
}

static inline void op_mmio_write(void *o, uint64_t a, unsigned size, uint64_t v)
{
	struct vm *vm = o;
	vm->mmios++, vm->mmio_gpa = a, vm->mmio_size = size, vm->mmio_val = v;
}

static inline uint32_t op_pio_read(void *o, uint16_t port, unsigned size)
{
	(void)o, (void)size;
	return port;
}

static inline void op_pio_write(void *o, uint16_t port, unsigned size, uint32_t v)
{
	struct vm *vm = o;
	(void)size;
	vm->outs++, vm->last_out = v;
	if (port == DONE_PORT) {
		vm->done = true;
		uc_vcpu_kick(vm->uc);
	}
	if (vm->pio_out)
		vm->pio_out(vm, port, v);
}

static inline int op_irq_ack(void *o)
{
	struct vm *vm = o;
	vm->irq_acks++;
	uc_vcpu_set_irq(vm->uc, false);
	return vm->vector;
}

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t op_tsc(void *o)
{
	(void)o;
	return now_ns();
}

static inline int op_rdmsr(void *o, uint32_t msr, uint64_t *v)
{
	(void)o, (void)msr, (void)v;
	return 1;
}

static inline int op_wrmsr(void *o, uint32_t msr, uint64_t v)
{
	(void)o, (void)msr, (void)v;
	return 1;
}

static inline void op_cpuid(void *o, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	(void)o, (void)sub;
	memset(out, 0, 16);
	if (leaf == 0) {
		memcpy(&out[1], "Genu", 4);
		memcpy(&out[3], "ineI", 4);
		memcpy(&out[2], "ntel", 4);
	}
}

static inline uint64_t op_cr8_read(void *o)
{
	(void)o;
	return 0;
}

static inline void op_cr8_write(void *o, uint64_t v)
{
	(void)o, (void)v;
}

static const uc_vcpu_ops guest_ops = {
	op_translate, op_mmio_read, op_mmio_write, op_pio_read, op_pio_write, op_irq_ack,
	op_tsc,	      op_rdmsr,	    op_wrmsr,	   op_cpuid,	op_cr8_read,  op_cr8_write,
};

static inline void idt_gate(int vector, uint64_t handler, unsigned dpl, unsigned ist)
{
	uint64_t lo = (handler & 0xffff) | 8ull << 16 | (uint64_t)(0x8e00 | dpl << 13 | ist) << 32 |
		      (handler >> 16 & 0xffff) << 48;
	gpa_q(IDT + (uint64_t)vector * 16, lo);
	gpa_q(IDT + (uint64_t)vector * 16 + 8, handler >> 32);
}

/* RAM, page tables (0..RAM_SIZE by 4K pages of the first 2 MiB, 2M pages behind; MMIO_BASE as
 * itself), GDT: 8 code, 0x10 data, 0x18|3 user data, 0x20|3 user code, 0x28 TSS. */
static inline void guest_memory(const void *code, const void *end)
{
	size_t len = (size_t)((const uint8_t *)end - (const uint8_t *)code);
#if !defined(__x86_64__)
	printf("skipped: the guest's code is x86-64 assembly of the host's compiler\n");
	exit(77);
#endif
	if (!ram) {
		ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			   0);
		if (ram == MAP_FAILED) {
			perror("mmap");
			exit(77);
		}
		for (uint32_t i = 0; i < NPAGES; i++)
			perm[i] = (i * 1061 + 77) % NPAGES;
	}
	memset(ram, 0, RAM_SIZE);
	gpa_q(PML4, PDPT | 7);
	gpa_q(PDPT, PD | 7);
	gpa_q(PDPT + 3 * 8, PD_MMIO | 7);
	gpa_q(PD, PT | 7);
	for (uint64_t i = 0; i < 512; i++)
		gpa_q(PT + i * 8, i * PAGE | 7);
	for (uint64_t i = 1; i < RAM_SIZE >> 21; i++)
		gpa_q(PD + i * 8, i << 21 | 0x87);
	gpa_q(PD_MMIO + ((MMIO_BASE >> 21) & 511) * 8, MMIO_BASE | 0x87);
	gpa_q(GDT + 8, 0x00af9b000000ffffull);
	gpa_q(GDT + 0x10, 0x00cf93000000ffffull);
	gpa_q(GDT + 0x18, 0x00cff3000000ffffull);
	gpa_q(GDT + 0x20, 0x00affb000000ffffull);
	gpa_q(GDT + 0x28, 0x0000890000000067ull | (uint64_t)(TSS & 0xffff) << 16);
	gpa_q(TSS + 4, STACK - 0x4000);	 /* RSP0 */
	gpa_q(TSS + 36, STACK - 0x6000); /* IST1 */
	gpa_write(CODE, code, len);
}

static inline uc_x86_vcpu_state guest_state(uint64_t rip)
{
	uc_x86_vcpu_state s = {0};
	for (int i = 0; i < 6; i++)
		s.seg[i] = (uc_x86_vcpu_seg){0, 0xffffffff, 0x10, 0xc93};
	s.seg[1] = (uc_x86_vcpu_seg){0, 0xffffffff, 8, 0xa9b};
	s.tr = (uc_x86_vcpu_seg){TSS, 0x67, 0x28, 0x8b};
	s.ldt.attr = 1 << 12;
	s.gdt_base = GDT, s.gdt_limit = 0x37;
	s.idt_base = IDT, s.idt_limit = 0xfff;
	s.cr0 = 0x80010033, s.cr3 = PML4,
	s.cr4 = 0x6a0 | 1 << 9; /* PG WP NE MP PE; PAE MCE PGE OSFXSR OSXMMEXCPT */
	s.efer = 0xd01;
	s.xcr0 = 1;
	s.rip = rip, s.rflags = 2;
	s.gpr[4] = STACK;
	s.dr[6] = 0xffff0ff0, s.dr[7] = 0x400;
	s.fxsave[0] = 0x7f, s.fxsave[1] = 3;	  /* FCW */
	s.fxsave[24] = 0x80, s.fxsave[25] = 0x1f; /* MXCSR */
	s.pat = 0x0007040600070406ull;
	return s;
}

static inline struct vm *vm_new_ops(const uc_vcpu_ops *ops, size_t buffer, bool parallel)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	uc_err e;
	if (!vm)
		exit(1);
	vm->vector = 0x40;
	if ((e = uc_open(UC_ARCH_X86, UC_MODE_64, &vm->uc)) ||
	    (e = uc_mem_map_ptr(vm->uc, 0, RAM_SIZE, UC_PROT_ALL, ram)) ||
	    (e = uc_vcpu_enable(vm->uc, ops, vm, buffer, parallel))) {
		printf("no engine: %s\n", uc_strerror(e));
		exit(1);
	}
	return vm;
}

static inline struct vm *vm_new(size_t buffer, bool parallel)
{
	return vm_new_ops(&guest_ops, buffer, parallel);
}

static inline void vm_set(struct vm *vm, const uc_x86_vcpu_state *s)
{
	uc_err e = uc_x86_vcpu_set_state(vm->uc, s);
	if (e) {
		printf("set_state: %s\n", uc_strerror(e));
		exit(1);
	}
}

static inline void vm_get(struct vm *vm, uc_x86_vcpu_state *s)
{
	if (uc_x86_vcpu_get_state(vm->uc, s))
		exit(1);
}

static inline void vm_free(struct vm *vm)
{
	uc_close(vm->uc);
	free(vm);
}

static inline const char *reason_name(int r)
{
	static const char *const n[] = {"KICK",	  "HLT",   "SHUTDOWN", "FAULT",
					"ATOMIC", "DEBUG", "ERROR"};
	return r >= 0 && r < 7 ? n[r] : "?";
}

#define CHECK(c, ...)                                                                              \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			printf("%s:%d: %s: ", __FILE__, __LINE__, #c);                             \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

/* The guest's code: asm between two labels, position independent. GUEST(name, "asm") -> name_code,
 * name_len */
#if defined(__x86_64__)
#define GUEST(name, text)                                                                          \
	__asm__(".section .rodata." #name ",\"a\"\n.globl " #name "_code\n" #name                  \
		"_code:\n.code64\n" text "\n.globl " #name "_end\n" #name "_end:\n.previous\n");   \
	extern const uint8_t name##_code[], name##_end[];
#else
#define GUEST(name, text) static const uint8_t name##_code[1], *const name##_end = name##_code + 1;
#endif

#endif
