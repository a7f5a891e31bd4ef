#include "cpu/x86/state.h"

#include <string.h>

static const struct field seg_fields[] = {
	FIELD_SCALAR(struct x86_seg, base, FIELD_U64, 1),
	FIELD_SCALAR(struct x86_seg, limit, FIELD_U32, 1),
	FIELD_SCALAR(struct x86_seg, attr, FIELD_U32, 1),
	FIELD_SCALAR(struct x86_seg, selector, FIELD_U16, 1),
	FIELD_END,
};
static const struct state_desc seg_desc = {
	.name = "x86-segment", .version = 1, .fields = seg_fields};

#define F(m, t) FIELD_SCALAR(struct x86_state, m, t, 1)
static const struct field state_fields[] = {
	FIELD_ARRAY(struct x86_state, gpr, FIELD_U64, 1),
	F(rip, FIELD_U64),
	F(rflags, FIELD_U64),
	FIELD_SUBS(struct x86_state, seg, &seg_desc, 1),
	F(gdt_base, FIELD_U64),
	F(idt_base, FIELD_U64),
	F(gdt_limit, FIELD_U16),
	F(idt_limit, FIELD_U16),
	F(cr0, FIELD_U64),
	F(cr2, FIELD_U64),
	F(cr3, FIELD_U64),
	F(cr4, FIELD_U64),
	F(xcr0, FIELD_U64),
	FIELD_ARRAY(struct x86_state, dr, FIELD_U64, 1),
	F(efer, FIELD_U64),
	F(star, FIELD_U64),
	F(lstar, FIELD_U64),
	F(cstar, FIELD_U64),
	F(fmask, FIELD_U64),
	F(kernel_gs_base, FIELD_U64),
	F(sysenter_cs, FIELD_U64),
	F(sysenter_esp, FIELD_U64),
	F(sysenter_eip, FIELD_U64),
	F(tsc_aux, FIELD_U64),
	F(pat, FIELD_U64),
	F(misc_enable, FIELD_U64),
	F(mtrr_def_type, FIELD_U64),
	FIELD_BLOB(struct x86_state, fxsave, 1),
	F(run_state, FIELD_U8),
	F(shadow, FIELD_U8),
	F(nmi_pending, FIELD_BOOL),
	F(nmi_masked, FIELD_BOOL),
	F(event_valid, FIELD_BOOL),
	F(event_has_error, FIELD_BOOL),
	F(event_vector, FIELD_U8),
	F(event_type, FIELD_U8),
	F(event_insn_len, FIELD_U8),
	F(event_error, FIELD_U32),
	F(tsc_adjust, FIELD_U64),
	F(spec_ctrl, FIELD_U64),
	F(feat_ctl, FIELD_U64),
	FIELD_ARRAY(struct x86_state, mtrr_fixed, FIELD_U64, 1),
	FIELD_ARRAY(struct x86_state, mtrr_base, FIELD_U64, 1),
	FIELD_ARRAY(struct x86_state, mtrr_mask, FIELD_U64, 1),
	FIELD_END,
};

/* What the engines rely on; whether the registers fit together is checked by the engine that loads
 * them. */
static int state_post_load(void *object, const char **why)
{
	const struct x86_state *s = object;

	*why = s->run_state > X86_WAIT_SIPI ? "run_state is not a state of a processor"
	       : s->shadow > 3		    ? "interrupt shadow has unknown bits"
	       : s->event_type > 6	    ? "pending event has an unknown type"
	       : s->event_insn_len > 15	    ? "pending event has an impossible length"
					    : NULL;
	return *why ? -22 : 0;
}

const struct state_desc x86_state_desc = {
	.name = "x86-cpu", .version = 1, .fields = state_fields, .post_load = state_post_load};

static struct x86_seg segment(uint16_t selector, uint64_t base, uint32_t limit, uint32_t attr)
{
	return (struct x86_seg){.selector = selector, .base = base, .limit = limit, .attr = attr};
}

void x86_state_reset(struct x86_state *s, bool bsp)
{
	memset(s, 0, sizeof(*s));
	s->rip = 0xfff0;
	s->rflags = 0x2;
	s->gpr[RDX] = 0x600; /* the processor's signature after reset: family 6 */
	for (int i = SEG_ES; i <= SEG_GS; i++)
		s->seg[i] = segment(0, 0, 0xffff, 0x93);
	s->seg[SEG_CS] = segment(0xf000, 0xffff0000, 0xffff, 0x9b);
	s->seg[SEG_LDT] = segment(0, 0, 0xffff, 0x82);
	s->seg[SEG_TR] = segment(0, 0, 0xffff, 0x8b);
	s->gdt_limit = s->idt_limit = 0xffff;
	s->cr0 = 0x60000010;
	s->xcr0 = 1;
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400;
	s->pat = 0x0007040600070406;
	s->misc_enable = 1; /* fast strings */
	s->feat_ctl = 1;    /* locked: no VMX */
	s->fxsave[0] =
		0x7f; /* FCW 037Fh is what an operating system starts with; reset gives 0040h */
	s->fxsave[1] = 0x03;
	s->fxsave[24] = 0x80; /* MXCSR 1F80h */
	s->fxsave[25] = 0x1f;
	s->run_state = bsp ? X86_RUNNING : X86_WAIT_SIPI;
}

void x86_state_sipi(struct x86_state *s, uint8_t vector)
{
	s->seg[SEG_CS] = segment((uint16_t)(vector << 8), (uint64_t)vector << 12, 0xffff, 0x9b);
	s->rip = 0;
	s->run_state = X86_RUNNING;
}
