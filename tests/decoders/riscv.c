/*
 * RISC-V, hypervisor extension: machine mode gives hgatp what libmmu says and runs VS mode. With 64
 * bits its own translation is off, so that its addresses are guest-physical ones; with 32 bits an
 * Sv32 table of it, which lies in the stub and so behind the G-stage too, maps two windows of 4
 * MiB: Sv32x4 has 34 bits. Traps: mcause 20, 21, 23, mtval, mtval2 (the address >> 2). A cause says
 * no level.
 */
#include "tests/decoders/bare.h"

#define UART ((volatile uint8_t *)0x10000000)
#define TEST ((volatile uint32_t *)0x100000)

/* By number: not every assembler knows the extension. */
#define HGATP	 0x680
#define VSATP	 0x280
#define MTVAL2	 0x34b
#define MSTATUSH 0x310

#define STRING_(x) #x
#define STRING(x)  STRING_(x)
#define READ(csr)                                                                                  \
	({                                                                                         \
		uintptr_t v_;                                                                      \
		asm volatile("csrr %0, " STRING(csr) : "=r"(v_));                                  \
		v_;                                                                                \
	})
#define WRITE(csr, value)                                                                          \
	asm volatile("csrw " STRING(csr) ", %0" ::"r"((uintptr_t)(value)) : "memory")

enum { XLEN = __riscv_xlen };
/* of VS mode with 32 bits */
#define WINDOW_STUB UINT32_C(0x10000000)
#define WINDOW	    UINT32_C(0x20000000)

uintptr_t guest_enter(uintptr_t pc, uintptr_t a1, uintptr_t a0);
extern const uint32_t stub_read[];
_Noreturn void trapped(void);

static uint32_t *stage1; /* the root table of VS mode with 32 bits */

void arch_putc(char c)
{
	*UART = (uint8_t)c;
}

_Noreturn void arch_exit(void)
{
	*TEST = 0x5555;
	for (;;)
		;
}

_Noreturn void trapped(void)
{
	say("FAILED machine mode trapped: cause ");
	say_hex(READ(mcause));
	say(" pc ");
	say_hex(READ(mepc));
	say(" value ");
	say_hex(READ(mtval));
	say("\n");
	arch_exit();
}

static void fence(void)
{
	/* hfence.gvma, hfence.vvma */
	asm volatile(".word 0x62000073\n\t.word 0x22000073\n\tfence.i" ::: "memory");
}

bool arch_load(const char **why)
{
	(void)why;
	return true;
}

bool arch_init(const struct image *image, const char **why)
{
	uint32_t *stub = (uint32_t *)(uintptr_t)image->stub;

	if (!(READ(misa) >> ('H' - 'A') & 1)) {
		*why = "no hypervisor extension";
		return false;
	}
	for (int i = 0; i < 4; i++)
		stub[i] = stub_read[i];
	stage1 = stub + 0x1000 / 4;
	WRITE(pmpaddr0, UINTPTR_MAX);
	WRITE(pmpcfg0, 0x1f); /* NAPOT, all memory, RWX */
	WRITE(medeleg, 0);
	WRITE(mideleg, 0);
	WRITE(mie, 0);
	return true;
}

static uint32_t superpage(uint64_t gpa)
{
	return (uint32_t)(gpa >> 22 << 20) | 0xcf; /* D A, X W R V */
}

bool arch_set(const struct image_set *set, const char **why)
{
	WRITE(HGATP, set->root);
	if (READ(HGATP) != (uintptr_t)set->root) {
		*why = "hgatp does not take this mode";
		return false;
	}
	if (XLEN == 32) {
		stage1[WINDOW_STUB >> 22] = superpage(set->stub_gpa);
		WRITE(VSATP, UINT32_C(1) << 31 | (uint32_t)(set->stub_gpa >> 12) + 1);
	} else {
		WRITE(VSATP, 0);
	}
	fence();
	return true;
}

void arch_put_code(void *at, uint32_t tag)
{
	uint32_t *code = at;

	code[0] = 0x00000537 | ((tag + 0x800) & 0xfffff000); /* lui a0 */
	code[1] = 0x00050513 | tag << 20;		     /* addi a0, a0 */
	code[2] = 0x00000073;				     /* ecall */
	asm volatile("fence.i" ::: "memory");
}

void arch_probe(const struct image_set *set, const struct probe *p, uint32_t tag, struct seen *seen)
{
	uintptr_t stub = (uintptr_t)set->stub_gpa, at = (uintptr_t)p->gpa, value, cause;

	if (XLEN == 32) {
		stub = WINDOW_STUB | (stub & 0x3fffff);
		at = WINDOW | (at & 0x3fffff);
		stage1[WINDOW >> 22] = superpage(p->gpa);
		fence();
	}
	/* mret goes to VS mode: MPP 1, MPV 1. */
	WRITE(mstatus, (READ(mstatus) & ~(uintptr_t)0x1800) | 0x800
#if __riscv_xlen == 64
			       | UINT64_C(1) << 39
#endif
	);
#if __riscv_xlen == 32
	WRITE(MSTATUSH, READ(MSTATUSH) | 1 << 7);
#endif
	value = guest_enter(p->access & PROBE_X ? at : stub + (p->access & PROBE_W ? 8 : 0), at,
			    tag);
	cause = READ(mcause);
	seen->info[0] = cause;
	seen->info[1] = READ(mtval);
	seen->info[2] = READ(MTVAL2);
	seen->info[3] = READ(mepc);
	if (cause == 10) { /* an environment call from VS mode */
		seen->ok = true;
		seen->value = (uint32_t)value;
		return;
	}
	seen->access = cause == 20 ? PROBE_X : cause == 21 ? PROBE_R : cause == 23 ? PROBE_W : 0;
	seen->odd = !seen->access || seen->info[1] != at;
	seen->gpa = seen->info[2] << 2 | (seen->info[1] & 3);
}
