/*
 * The runtime of the guest tests: what a test file sees.
 *
 * Address space, the same on every processor (boot.S):
 *
 *   0x00000000  1 GiB   physical memory, supervisor, 2 MiB pages
 *   0x40000000  1 GiB   the same memory, user accessible (user_alias())
 *   0x80000000  1 GiB   nothing: for tests that need addresses below 4 GiB
 *   0xc0000000  1 GiB   devices (LAPIC, IOAPIC), supervisor
 *   above               nothing: for tests
 *
 * Memory: image at 1 MiB, page pool from 16 to 64 MiB.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>

#include "x86.h"

#define PAGE_SIZE  4096ull
#define USER_ALIAS 0x40000000ull
#define TEST_LOW   0x80000000ull
#define TEST_HIGH  0x0000700000000000ull
#define POOL_START 0x1000000ull
#define POOL_END   0x4000000ull
#define MAX_CPUS   8

/* Selectors (gdt in cpu.c). The order is what SYSRET and SYSEXIT want (SDM vol. 3A 5.8.7, 5.8.8).
 */
#define SEL_KCODE   0x08
#define SEL_KDATA   0x10
#define SEL_UCODE32 0x1b
#define SEL_UDATA   0x23
#define SEL_UCODE   0x2b
#define SEL_UDATA2  0x33
#define SEL_KCODE32 0x38
#define SEL_TSS	    0x40
#define SEL_TEST    0x50 /* first of the slots that a test may fill */
#define GDT_ENTRIES 64

/* ---- results (console.c) ------------------------------------------------------------------- */

void printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * One named case: test_begin(), any number of expect(), test_end() prints "PASS name" or, once for
 * each of the first failed expectations, "FAIL name: what: expected .. got ..". A case without a
 * single expectation fails: it would prove nothing.
 */
void test_begin(const char *name);
void test_end(void);
/* The machine cannot show this case (feature not advertised): "SKIP name: why". */
void test_skip(const char *name, const char *why);
void expect_at(const char *what, u64 want, u64 got, const char *file, int line);
#define expect(what, want, got) expect_at(what, (u64)(want), (u64)(got), __FILE__, __LINE__)
/* Text put before "what" in failures, to name one of many combinations; NULL ends it. */
void test_context(const char *fmt, ...);
/* Ends the guest: 1 (all passed) or 3 as exit status of the monitor. */
void test_exit(void) __attribute__((noreturn));
void panic(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Arguments of the command line: value of "name=" or the default. */
u64 argument(const char *name, u64 otherwise);

int snprintf(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));
void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

/* ---- running code under observation (trap.c, entry.S) --------------------------------------- */

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/*
 * A processor context. exec() enters it by IRETQ, at any privilege and in 64-bit or compatibility
 * mode, and comes back at the first exception, or interrupt without a handler, with the state at
 * that moment. Code that is through ends with INT 0x81 (VEC_DONE).
 */
struct ctx {
	u64 gpr[16];
	u64 rip, rflags;
	u16 cs, ss, ds, es, fs, gs;
	/* after exec() only */
	u32 vector;
	u64 error; /* ~0 where the vector pushes none */
	u64 cr2;   /* read in the handler */
	u64 dr6;
	u64 frame_rsp; /* of the frame, as pushed by the processor */
};

#define VEC_DONE 0x81
#define NO_ERROR (~0ull)

void exec(struct ctx *c);

/* A context for CPL 0 64-bit, CPL 3 64-bit, CPL 3 32-bit, CPL 0 32-bit, with stacks and flat
 * segments. code is its kernel address: the user forms run it through the user alias. */
struct ctx ctx_kernel(const void *code);
struct ctx ctx_user(const void *code);
struct ctx ctx_user32(const void *code);
struct ctx ctx_kernel32(const void *code);

/* Put bytes (and an INT 0x81 behind them) at an address never used before, so that the tests do not
 * rely on self-modification being right; offset bytes before the end of a page when offset is not
 * 0. */
u8 *put_code(const void *bytes, size_t len);

/* A code snippet between two labels, ended by INT 0x81. */
#define SNIPPET_MODE(name, mode, text)                                                             \
	extern u8 name[], name##_end[];                                                            \
	asm(".pushsection .text.snippet, \"ax\"\n.balign 16\n" mode "\n.globl " #name "\n" #name   \
	    ":\n" text "\n\tint $0x81\n" #name "_end:\n\t.code64\n.popsection\n")
#define SNIPPET(name, text)   SNIPPET_MODE(name, ".code64", text)
#define SNIPPET32(name, text) SNIPPET_MODE(name, ".code32", text)

static inline void *user_alias(const void *p)
{
	return (void *)((u64)p + USER_ALIAS);
}

/* expect() of vector and error code of a context. */
void expect_trap_at(const struct ctx *c, u32 vector, u64 error, const char *file, int line);
#define expect_trap(c, vector, error) expect_trap_at(c, vector, error, __FILE__, __LINE__)
#define expect_done(c)		      expect_trap_at(c, VEC_DONE, NO_ERROR, __FILE__, __LINE__)
const char *vector_name(u32 vector);

/* ---- interrupts ----------------------------------------------------------------------------- */

/* What the entry code pushes; gpr in encoding order. */
struct frame {
	u64 gpr[16];
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

/* A handler makes its vector transparent: the interrupted code goes on. NULL removes it. */
typedef void irq_fn(struct frame *f);
void irq_handler(u32 vector, irq_fn *fn);

/* ---- processors (cpu.c, smp.c) --------------------------------------------------------------- */

struct tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3, iomap;
	u8 bitmap[8193];
} __attribute__((packed));

struct idt_entry {
	u16 offset0, selector;
	u8 ist, type;
	u16 offset1;
	u32 offset2, zero;
};

struct table_ptr {
	u16 limit;
	u64 base;
} __attribute__((packed));

/* Lies at the bottom of the processor's own, 128 KiB aligned area that holds its stacks too: found
 * from RSP, no segment base is needed. */
struct cpu {
	u64 exec_rsp; /* offsets 0 and 8: entry.S */
	struct ctx *exec_ctx;
	u32 index, apic_id;
	u64 gdt[GDT_ENTRIES];
	struct tss tss;
	/* smp.c: work given by smp_run() */
	void (*volatile fn)(void *arg);
	void *volatile arg;
	volatile bool busy, online;
};

#define CPU_AREA   0x20000ull
#define STACK_MAIN 0x10000 /* top, as an offset into the area */
#define STACK_IST1 0x14000
#define STACK_IST2 0x18000
#define STACK_IST3 0x1c000
#define STACK_USER 0x20000

static inline struct cpu *this_cpu(void)
{
	u64 sp;

	asm volatile("mov %%rsp, %0" : "=r"(sp));
	return (struct cpu *)(sp & ~(CPU_AREA - 1));
}

extern struct idt_entry idt[256];
void idt_set(u32 vector, void *entry, u8 ist, u8 dpl);
void cpu_load_tables(struct cpu *c); /* GDT, IDT, TSS, system registers */
/* An 8-byte descriptor; access is byte 5, flags the high nibble of byte 6. */
u64 descriptor(u32 base, u32 limit, u8 access, u8 flags);
void set_tss_descriptor(struct cpu *c);

extern u32 cpu_count;
struct cpu *cpu_get(u32 index);
void smp_start(void);
/* Run fn on processor i, without and with waiting for its end. */
void smp_run(u32 i, void (*fn)(void *), void *arg);
void smp_wait(u32 i);
void smp_run_all(void (*fn)(void *), void *arg); /* this one included; waits */

/* ---- memory (memory.c) ----------------------------------------------------------------------- */

void *alloc_pages(size_t n); /* zeroed, contiguous */
void *alloc_aligned(size_t bytes, size_t align);

#define PTE_P	 BIT(0)
#define PTE_W	 BIT(1)
#define PTE_U	 BIT(2)
#define PTE_A	 BIT(5)
#define PTE_D	 BIT(6)
#define PTE_PS	 BIT(7)
#define PTE_G	 BIT(8)
#define PTE_NX	 BIT(63)
#define PTE_ADDR 0x000ffffffffff000ull

/* Map va to pa with 4 KiB; upper entries P|W|U. Returns the entry. No flush. */
u64 *map_page(u64 va, u64 pa, u64 bits);
/* The entry for va at a level (1: PTE .. 4: PML4E), tables above it made on demand. */
u64 *entry_of(u64 va, int level);

/* ---- devices (apic.c, timer.c) ----------------------------------------------------------------
 */

#define LAPIC_BASE  0xfee00000ull
#define LAPIC_ID    0x20
#define LAPIC_VER   0x30
#define LAPIC_TPR   0x80
#define LAPIC_EOI   0xb0
#define LAPIC_LDR   0xd0
#define LAPIC_DFR   0xe0
#define LAPIC_SVR   0xf0
#define LAPIC_ISR   0x100
#define LAPIC_IRR   0x200
#define LAPIC_ICR   0x300
#define LAPIC_ICRH  0x310
#define LAPIC_LVTT  0x320
#define LAPIC_LINT0 0x350
#define LAPIC_LINT1 0x360
#define LAPIC_LVTE  0x370
#define LAPIC_TMICT 0x380
#define LAPIC_TMCCT 0x390
#define LAPIC_TDCR  0x3e0

#define ICR_FIXED  (0u << 8)
#define ICR_NMI	   (4u << 8)
#define ICR_INIT   (5u << 8)
#define ICR_SIPI   (6u << 8)
#define ICR_ASSERT (1u << 14)
#define ICR_SELF   (1u << 18)
#define ICR_ALL	   (2u << 18)
#define ICR_OTHERS (3u << 18)

static inline u32 lapic_read(u32 reg)
{
	return *(volatile u32 *)(LAPIC_BASE + reg);
}

static inline void lapic_write(u32 reg, u32 v)
{
	*(volatile u32 *)(LAPIC_BASE + reg) = v;
}

void lapic_enable(void);
void lapic_eoi(void);
void lapic_ipi(u32 apic_id, u32 icr_low);

void pic_mask_all(void);
u64 tsc_hz(void); /* measured against the PIT once */
u64 sample(u32 (*read)(void), u32 *value);
void delay_us(u64 us);
/* Wait until *flag reaches want, at most us; says whether it did. */
bool wait_for(volatile u32 *flag, u32 want, u64 us);

void test_main(void);

#endif
