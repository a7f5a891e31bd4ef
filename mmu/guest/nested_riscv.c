/* A guest's G-stage: Privileged Architecture, chapter "H" Extension (hgatp); what is reserved in an
 * entry: section Sv39, Svnapot, Svpbmt. */
#include <errno.h>

#include "mmu/guest/invalidate.h"
#include "mmu/guest/riscv.h"
#include "mmu/guest/stage2.h"

static enum s2_stage_fault check_riscv(const struct geometry *g, uint64_t e, unsigned level)
{
	if (riscv_reserved(g, e, level))
		return S2_FAULT_RESERVED;
	return e & RISCV_RWX && !(e & RISCV_U) ? S2_FAULT_PERMISSION : S2_NO_FAULT;
}

static const struct nested_format nested_riscv64 = {
	.f = &riscv64_format, .a_faults = true, .d_faults = true, .check = check_riscv};
static const struct nested_format nested_riscv32 = {
	.f = &riscv32_format, .a_faults = true, .d_faults = true, .check = check_riscv};

int nested_parse_riscv(struct guest_stage2 *out, const struct nested_rules *rules,
		       const struct s2_guest_root *regs, const char **why)
{
	const bool sv32 = rules->format == S2_SV32X4;
	const unsigned mode = (unsigned)(sv32 ? regs->root >> 31 & 1 : regs->root >> 60);
	const unsigned pa = sv32 ? 34 : 56;
	const struct format_config c = {.levels = sv32 ? 2 : mode - 5, .options = rules->options};
	int err;

	out->n = sv32 ? &nested_riscv32 : &nested_riscv64;
	out->vmid = (uint32_t)(sv32 ? regs->root >> 22 & 0x7f : regs->root >> 44 & 0x3fff);
	out->set_ad = rules->use_ad;
	/* the two lowest bits of the page number read as zero */
	out->root = (regs->root & (sv32 ? 0x3ffffcu : UINT64_C(0xffffffffffc))) << 12;
	/* who has a mode has those of fewer levels */
	if (sv32 ? mode != 1 : mode < 8 || mode > 8u + rules->format - S2_SV39X4) {
		*why = "hgatp.MODE: reserved, or more levels than the guest was told of";
		return -EINVAL;
	}
	err = riscv_geometry(&out->geo, &c, why);
	out->geo.output_bits = (uint8_t)(rules->gpa_bits < pa ? rules->gpa_bits : pa);
	if (!err && out->root >> out->geo.output_bits) {
		*why = "hgatp: the root lies beyond the guest's physical width";
		err = -EINVAL;
	}
	return err;
}

void s2_inv_hfence_gvma(struct s2_inv *inv, const uint64_t *rs1, const uint64_t *rs2, bool rv32)
{
	*inv = (struct s2_inv){.kind = S2_INV_ALL};
	if (!rs2)
		return; /* all, whatever the address: shadows are found by VMID */
	inv->vmid = (uint32_t)(*rs2 & (rv32 ? 0x7f : 0x3fff));
	inv->kind = rs1 ? S2_INV_IPA : S2_INV_VMID;
	inv->start = rs1 ? *rs1 << 2 : 0;
}
