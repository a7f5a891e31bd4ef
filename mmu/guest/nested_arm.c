/* A guest's arm64 stage 2: Arm ARM D24.2 (VTTBR_EL2, VTCR_EL2), D8.2 and D8.3. Bits that are RES0
 * in a descriptor are not looked at, nor is the contiguous hint: hardware need not either. */
#include <errno.h>

#include "mmu/format/arm_s2.h"
#include "mmu/guest/arm.h"
#include "mmu/guest/stage2.h"

ARM_FORMAT(arm4k, 12);
ARM_FORMAT(arm16k, 14);
ARM_FORMAT(arm64k, 16);

static enum s2_stage_fault check_arm(const struct geometry *g, uint64_t e, unsigned level)
{
	bool block = level > 1 && geometry_has_leaf(g, level);

	return e & ARM_TYPE || block ? S2_NO_FAULT : S2_FAULT_TRANSLATION;
}

/* by VTCR_EL2.TG0 */
static const struct nested_format nested_arm[] = {
	{.f = &arm4k_format, .a_faults = true, .check = check_arm},
	{.f = &arm64k_format, .a_faults = true, .check = check_arm},
	{.f = &arm16k_format, .a_faults = true, .check = check_arm},
};

int nested_parse_arm(struct guest_stage2 *out, const struct nested_rules *rules,
		     const struct s2_guest_root *regs, const char **why)
{
	static const uint8_t sizes[] = {32, 36, 40, 42, 44, 48, 52, 52};
	const uint64_t vtcr = regs->control, vttbr = regs->root;
	const struct nested_format *n = &nested_arm[(vtcr >> 14 & 3) % 3];
	unsigned page = n->f->page_shift, pa = sizes[vtcr >> 16 & 7], sl0 = vtcr >> 6 & 3;
	unsigned levels = (page == 12 ? 2 : 1) + sl0, low = page + (page - 3) * (levels - 1);
	/* A guest of 48 bits or fewer has neither LPA nor LPA2: a larger PS means the same as its
	 * own (D24.2), and DS is not its to set. */
	const bool has_wide = rules->gpa_bits > 48, ds = vtcr >> 32 & 1;
	const bool wide = has_wide && (page == 16 ? pa > 48 : ds);
	const struct format_config c = {
		.input_bits = 64 - (vtcr & 63), .page_shift = page, .output_bits = wide ? 52 : 48};
	struct geometry *g = &out->geo;

	out->n = n;
	out->vmid = arm_guest_vmid(regs);
	out->set_ad = vtcr >> 21 & 1 && rules->use_ad;
	out->root = vttbr & (wide ? UINT64_C(0xffffffffffc0) : UINT64_C(0xfffffffffffe));
	out->root |= wide ? (vttbr >> 2 & 15) << 48 : 0;
	*why = "VTCR_EL2: reserved granule or start level (two to four levels are known)";
	if ((vtcr >> 14 & 3) == 3 || levels < 2 || levels > 4 || arm_geometry(g, &c, why))
		return -EINVAL;
	/* The guest may have more levels than it needs. */
	g->levels = (uint8_t)levels;
	g->root_bits = (uint8_t)(g->input_bits - low);
	g->leaf_levels = (uint8_t)((page == 12 ? 0xe : 0x6) << wide | 2);
	g->output_bits = (uint8_t)(pa < rules->gpa_bits ? pa : rules->gpa_bits);
	if (ds && !has_wide)
		*why = "VTCR_EL2.DS: the guest's physical addresses have no more than 48 bits";
	else if (g->input_bits > rules->gpa_bits)
		*why = "VTCR_EL2.T0SZ: the input is wider than the guest's physical addresses";
	else if (g->input_bits <= low || g->input_bits - low > g->index_bits + 4u)
		*why = "VTCR_EL2: start level and input size do not fit: 1 to 16 root tables";
	else if ((out->root & ((UINT64_C(8) << g->root_bits) - 1)) || out->root >> g->output_bits)
		*why = "VTTBR_EL2: the root is misaligned, or beyond the physical width";
	else
		return 0;
	return -EINVAL;
}
