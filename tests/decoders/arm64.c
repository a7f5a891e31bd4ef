/*
 * arm64: EL2 gives VTTBR_EL2 and VTCR_EL2 what libmmu says, EL1 runs with its own translation off,
 * so that its addresses are intermediate physical ones. Faults: ESR_EL2 (Arm ARM D24.2, ISS of data
 * and instruction aborts), FAR_EL2, HPFAR_EL2. AT S12E1R and S12E1W translate to addresses where
 * there is no memory.
 */
#include "tests/decoders/bare.h"

#define UART ((volatile uint32_t *)0x9000000)

#define READ(reg)                                                                                  \
	({                                                                                         \
		uint64_t v_;                                                                       \
		asm volatile("mrs %0, " #reg : "=r"(v_));                                          \
		v_;                                                                                \
	})
#define WRITE(reg, value)                                                                          \
	asm volatile("msr " #reg ", %0\n\tisb" ::"r"((uint64_t)(value)) : "memory")

uint64_t guest_enter(uint64_t pc, uint64_t x1, uint64_t x0);
extern const uint32_t stub_read[], stub_write[];
_Noreturn void trapped(void);

void arch_putc(char c)
{
	*UART = (uint8_t)c;
}

_Noreturn void arch_exit(void)
{
	register uint64_t x0 asm("x0") = 0x84000008; /* PSCI SYSTEM_OFF */

	asm volatile("smc #0" ::"r"(x0) : "memory");
	for (;;)
		;
}

_Noreturn void trapped(void)
{
	say("FAILED EL2 trapped: esr ");
	say_hex(READ(esr_el2));
	say(" elr ");
	say_hex(READ(elr_el2));
	say(" far ");
	say_hex(READ(far_el2));
	say("\n");
	arch_exit();
}

bool arch_load(const char **why)
{
	(void)why;
	return true;
}

bool arch_init(const struct image *image, const char **why)
{
	uint32_t *stub = (uint32_t *)(uintptr_t)image->stub;

	if ((READ(CurrentEL) >> 2 & 3) != 2) {
		*why = "not at EL2";
		return false;
	}
	for (int i = 0; i < 4; i++)
		stub[i] = stub_read[i];
	WRITE(hcr_el2, UINT64_C(1) << 31 | 1); /* RW, VM */
	WRITE(sctlr_el1, 0x30d00800);
	WRITE(tcr_el1, 0);
	return true;
}

bool arch_set(const struct image_set *set, const char **why)
{
	(void)why;
	WRITE(vtcr_el2, set->control);
	WRITE(vttbr_el2, set->root);
	asm volatile("dsb sy\n\ttlbi alle1\n\tdsb sy\n\tisb" ::: "memory");
	return true;
}

void arch_put_code(void *at, uint32_t tag)
{
	uint32_t *code = at;

	code[0] = 0x52800000 | (tag & 0xffff) << 5;	  /* movz w0, #low */
	code[1] = 0x72a00000 | (tag >> 16 & 0xffff) << 5; /* movk w0, #high, lsl 16 */
	code[2] = 0xd4000002;				  /* hvc #0 */
	asm volatile("dsb sy\n\tic iallu\n\tdsb sy\n\tisb" ::: "memory");
}

/* A fault status code: levels of the manual fall to 3, ours to 1. */
static void status(unsigned code, struct seen *seen)
{
	static const int8_t kind[4] = {-1, PROBE_ABSENT, -1, PROBE_REFUSED};

	seen->outcome = kind[code >> 2 & 3];
	seen->level = 4 - (int)(code & 3);
	if (code >> 4 || seen->outcome < 0)
		seen->odd = true;
}

static void translate(const struct probe *p, struct seen *seen)
{
	uint64_t par;

	if (p->access & PROBE_W)
		asm volatile("at s12e1w, %0\n\tisb" ::"r"(p->gpa) : "memory");
	else
		asm volatile("at s12e1r, %0\n\tisb" ::"r"(p->gpa) : "memory");
	par = READ(par_el1);
	seen->info[0] = par;
	seen->ok = !(par & 1);
	if (seen->ok) {
		seen->hpa = (par & UINT64_C(0xffffffffff000)) | (p->gpa & 0xfff);
		return;
	}
	seen->gpa = p->gpa;
	seen->odd = !(par >> 9 & 1); /* S: the second stage */
	status(par >> 1 & 0x3f, seen);
}

void arch_probe(const struct image_set *set, const struct probe *p, uint32_t tag, struct seen *seen)
{
	uint64_t esr, pc = p->gpa, value;
	unsigned class;

	if (p->access & PROBE_TRANSLATE) {
		translate(p, seen);
	} else {
		if (!(p->access & PROBE_X))
			pc = set->stub_gpa + (p->access & PROBE_W ? 8 : 0);
		value = guest_enter(pc, p->gpa, tag);
		esr = READ(esr_el2);
		class = (unsigned)(esr >> 26);
		seen->info[0] = esr;
		seen->info[1] = READ(far_el2);
		seen->info[2] = READ(hpfar_el2);
		seen->info[3] = READ(elr_el2);
		if (class == 0x16) { /* HVC */
			seen->ok = true;
			seen->value = (uint32_t)value;
			return;
		}
		if (class != 0x20 && class != 0x24) {
			seen->odd = true;
			return;
		}
		seen->access = class == 0x20 ? PROBE_X : esr >> 6 & 1 ? PROBE_W : PROBE_R;
		seen->gpa = seen->info[1];
		status((unsigned)esr & 0x3f, seen);
		/* HPFAR_EL2 is defined for translation faults. */
		if (seen->outcome == PROBE_ABSENT && (seen->info[2] >> 4 << 12 ^ seen->gpa) >> 12)
			seen->odd = true;
	}
	/* Wider than the input: a translation fault of level 0, wherever the walk would begin. */
	if (p->outcome == PROBE_BEYOND && seen->outcome == PROBE_ABSENT && seen->level == 4) {
		seen->outcome = PROBE_BEYOND;
		seen->level = -1;
	}
}
