/* The hostile guest's registers: states near those that a system has, and everything that is not.
 * Included once. */
#ifndef TESTS_FUZZ_UC_X86_STATE_H
#define TESTS_FUZZ_UC_X86_STATE_H

#include <string.h>

#include "tests/fuzz/uc_x86_random.h"

/* --- state --- */

static uc_x86_vcpu_seg segment(uint16_t selector, unsigned attr, uint64_t base, uint32_t limit)
{
	return (uc_x86_vcpu_seg){base, limit, selector, (uint16_t)attr};
}

static void random_state(uc_x86_vcpu_state *s, enum mode mode)
{
	const unsigned cpl = mode == VM86     ? 3
			     : mode == REAL16 ? 0
			     : one_in(2)      ? 0
			     : one_in(6)      ? below(4)
					      : 3;
	const bool wide = mode <= COMPAT16, small = mode == REAL16 || mode == VM86;
	static const unsigned code[MODES] = {0xa9b, 0xc9b, 0x89b, 0xc9b,
					     0x89b, 0xc9b, 0x09b, 0x0fb};
	unsigned i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < 16; i++)
		s->gpr[i] = wide ? value() : (uint32_t)value();
	if (!one_in(6))
		s->gpr[4] = small ? 0x7000 : STACK + 0x4000 + (one_in(4) ? below(16) : 0);
	s->rip = one_in(3) ? below(CODE_SIZE) : 0;
	if (!small)
		s->rip += CODE;
	s->rflags = 2 | (rnd() & 0x3f7fd7 & (one_in(3) ? ~UINT64_C(0) : 0xcd5));
	s->rflags &= ~UINT64_C(0x20100);
	if (one_in(8))
		s->rflags |= 0x100;
	if (mode == VM86)
		s->rflags |= 0x20000;
	for (i = 0; i < 6; i++)
		s->seg[i] = small ? segment(DATA >> 4, mode == VM86 ? 0xf3 : 0x93, DATA, 0xffff)
				  : segment((uint16_t)(0x10 | cpl), 0xc93 | cpl << 5,
					    one_in(16) ? value() & 0xffffff : 0, 0xffffffff);
	if (small)
		s->seg[2] = segment(STACK >> 4, mode == VM86 ? 0xf3 : 0x93, STACK, 0xffff);
	s->seg[1] = small ? segment(CODE >> 4, code[mode], CODE, 0xffff)
			  : segment((uint16_t)((wide ? 8 : 0x18) | cpl), code[mode] | cpl << 5, 0,
				    0xffffffff);
	if (small && one_in(4)) /* "unreal" */
		s->seg[3] = segment(0, mode == VM86 ? 0xf3 : 0x893, 0, 0xffffffff);
	s->tr = one_in(6)
			? segment(0x38, 1 << 12, 0, 0)
			: segment(0x40,
				  0x80 | (one_in(4) && !wide ? 1 + below(2) * 2 : 9 + below(2) * 2),
				  TSS, one_in(4) ? below(0x100) : 0x1ff);
	s->ldt = one_in(2) ? segment(0, 1 << 12, 0, 0) : segment(0x70, 0x82, GDT, below(0x400));
	s->gdt_base = one_in(20) ? value() & 0xfffff : GDT;
	s->gdt_limit = (uint16_t)(one_in(8) ? below(0x200) : 0x1ff);
	s->idt_base = one_in(20) ? value() & 0xfffff : IDT;
	s->idt_limit = (uint16_t)(one_in(8) ? below(0x1000) : 0xfff);
	s->cr0 = 0x30 | (one_in(3) ? 0 : 2);
	s->cr0 |= mode == REAL16 ? 0 : 0x80000001 | (one_in(2) ? 0x10000 : 0);
	if ((mode == PROT32 || mode == PROT16) && one_in(3))
		s->cr0 &= ~UINT64_C(0x80000000);
	if (one_in(6))
		s->cr0 ^= 1u << (1 + below(3)); /* MP EM TS */
	if (one_in(6))
		s->cr0 ^= 0x20; /* NE */
	s->cr2 = value();
	s->cr3 = wide ? PML4 : mode == PAE32 ? PDPT : PD32;
	s->cr4 = (one_in(8) ? 0 : 0x600) | 0x10 | (wide || mode == PAE32 ? 0x20 : 0);
	s->cr4 |= rnd() & (0x40000 | 0x100 | 0x80 | 8 | 4);
	if (one_in(8))
		s->cr4 |= rnd() & 0x310000;
	s->efer = (wide ? 0x500 : 0) | (one_in(4) ? 0 : 0x800) | (one_in(4) ? 0 : 1);
	s->xcr0 = one_in(2) ? 3 : 1;
	for (i = 0; i < 4; i++)
		s->dr[i] = one_in(2) ? CODE + below(256) : value();
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400 | (one_in(3) ? rnd() & 0xffff23ff : 0);
	s->star = rnd() & 0x0078007800000000;
	s->lstar = CODE + below(CODE_SIZE);
	s->cstar = CODE + below(CODE_SIZE);
	s->fmask = rnd() & 0x47700;
	s->kernel_gs_base = DATA;
	s->sysenter_cs = one_in(4) ? 0 : 8;
	s->sysenter_esp = STACK;
	s->sysenter_eip = CODE + below(CODE_SIZE);
	s->pat = 0x0007040600070406;
	s->fxsave[0] = one_in(3) ? (uint8_t)rnd() & 0x3f : 0x7f;
	s->fxsave[1] = one_in(3) ? (uint8_t)below(16) : 3;
	s->fxsave[2] = one_in(4) ? (uint8_t)rnd() : 0;
	s->fxsave[3] = one_in(4) ? (uint8_t)rnd() : 0;
	s->fxsave[4] = (uint8_t)rnd();
	s->fxsave[24] = one_in(3) ? (uint8_t)rnd() : 0x80;
	s->fxsave[25] = one_in(3) ? (uint8_t)rnd() : 0x1f;
	for (i = 32; i < 416; i++)
		s->fxsave[i] = one_in(3) ? (uint8_t)rnd() : one_in(2) ? 0xff : 0;
	s->interrupt_shadow = one_in(16);
	s->halted = one_in(50);
	s->irq_line = one_in(3);
	s->nmi_pending = one_in(20);
	if (one_in(10)) {
		static const uint32_t types[] = {0, 2, 3, 4, 6};

		s->pending_valid = 1;
		s->pending_type = types[below(5)];
		s->pending_vector = s->pending_type == 2   ? 2
				    : s->pending_type == 3 ? below(20)
				    : s->pending_type == 6 ? 3 + below(2)
							   : below(256);
		s->pending_error = (uint32_t)below(0x10000);
		s->pending_has_error = one_in(2);
		s->pending_insn_len = below(4);
	}
}

#endif
