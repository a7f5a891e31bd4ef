#include <string.h>

#include "cpu/soft/soft.h"

/* Unicorn packs AVL, L, D/B, G behind P; a VMCS leaves four bits between. */
static struct x86_seg seg_from_uc(const uc_x86_vcpu_seg *from)
{
	return (struct x86_seg){.base = from->base,
				.limit = from->limit,
				.selector = from->selector,
				.attr = (from->attr & 0xffu) | (from->attr & 0x1f00u) << 4};
}

static uc_x86_vcpu_seg seg_to_uc(const struct x86_seg *from)
{
	return (uc_x86_vcpu_seg){
		.base = from->base,
		.limit = from->limit,
		.selector = from->selector,
		.attr = (uint16_t)((from->attr & 0xff) | (from->attr >> 4 & 0x1f00))};
}

/* clang-format off */
#define SCALARS(X) \
	X(rip) X(rflags) X(gdt_base) X(idt_base) X(gdt_limit) X(idt_limit) \
	X(cr0) X(cr2) X(cr3) X(cr4) X(xcr0) X(efer) X(star) X(lstar) X(cstar) X(fmask) \
	X(kernel_gs_base) X(sysenter_cs) X(sysenter_esp) X(sysenter_eip) X(tsc_aux) X(pat) X(misc_enable)
/* clang-format on */

void soft_state_from_uc(struct x86_state *to, const uc_x86_vcpu_state *from)
{
	memcpy(to->gpr, from->gpr, sizeof(to->gpr));
	memcpy(to->dr, from->dr, sizeof(to->dr));
	memcpy(to->fxsave, from->fxsave, sizeof(to->fxsave));
#define X(m) to->m = from->m;
	SCALARS(X)
#undef X
	for (int i = SEG_ES; i <= SEG_GS; i++)
		to->seg[i] = seg_from_uc(&from->seg[i]);
	to->seg[SEG_LDT] = seg_from_uc(&from->ldt);
	to->seg[SEG_TR] = seg_from_uc(&from->tr);
	if (to->run_state != X86_WAIT_SIPI)
		to->run_state = from->halted ? X86_HALTED : X86_RUNNING;
	to->shadow = (uint8_t)from->interrupt_shadow;
	to->nmi_pending = from->nmi_pending;
	to->nmi_masked = from->nmi_masked;
	to->event_valid = from->pending_valid;
	to->event_vector = (uint8_t)from->pending_vector;
	to->event_type = (uint8_t)from->pending_type;
	to->event_has_error = from->pending_has_error;
	to->event_error = from->pending_error;
	to->event_insn_len = (uint8_t)from->pending_insn_len;
}

void soft_state_to_uc(uc_x86_vcpu_state *to, const struct x86_state *from)
{
	memcpy(to->gpr, from->gpr, sizeof(to->gpr));
	memcpy(to->dr, from->dr, sizeof(to->dr));
	memcpy(to->fxsave, from->fxsave, sizeof(to->fxsave));
#define X(m) to->m = from->m;
	SCALARS(X)
#undef X
	for (int i = SEG_ES; i <= SEG_GS; i++)
		to->seg[i] = seg_to_uc(&from->seg[i]);
	to->ldt = seg_to_uc(&from->seg[SEG_LDT]);
	to->tr = seg_to_uc(&from->seg[SEG_TR]);
	to->halted = from->run_state == X86_HALTED;
	to->interrupt_shadow = from->shadow;
	to->nmi_pending = from->nmi_pending;
	to->nmi_masked = from->nmi_masked;
	to->pending_valid = from->event_valid;
	to->pending_vector = from->event_vector;
	to->pending_type = from->event_type;
	to->pending_has_error = from->event_has_error;
	to->pending_error = from->event_error;
	to->pending_insn_len = from->event_insn_len;
}
