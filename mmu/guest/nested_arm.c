/* A guest's arm64 stage 2: Arm ARM D24.2 (VTTBR_EL2, VTCR_EL2), D8.2 and D8.3. Bits that are RES0
 * in a descriptor are not looked at, nor is the contiguous hint: hardware need not either. */
#include <errno.h>

#include "mmu/guest/arm.h"
#include "mmu/guest/invalidate.h"
#include "mmu/guest/stage2.h"

ARM_FORMAT(arm4k, 12);
ARM_FORMAT(arm16k, 14);
ARM_FORMAT(arm64k, 16);

static enum s2_stage_fault check_arm(const struct geometry *g, uint64_t e, unsigned level)
{
	return arm_guest_reserved(g, e, level) ? S2_FAULT_TRANSLATION : S2_NO_FAULT;
}

/* By VTCR_EL2.TG0. beyond_level: level 0, wherever the walk begins (Arm ARM, AArch64.S2Walk,
 * IPAIsOutOfRange). */
static const struct nested_format nested_arm[] = {
	{.f = &arm4k_format, .beyond_level = 4, .a_faults = true, .check = check_arm},
	{.f = &arm64k_format, .beyond_level = 4, .a_faults = true, .check = check_arm},
	{.f = &arm16k_format, .beyond_level = 4, .a_faults = true, .check = check_arm},
};

int nested_parse_arm(struct guest_stage2 *out, const struct nested_rules *rules,
		     const struct s2_guest_root *regs, const char **why)
{
	const uint64_t vtcr = regs->control;
	const struct nested_format *n = &nested_arm[(vtcr >> 14 & 3) % 3];
	unsigned page = n->f->page_shift, pa = arm_pa_bits(vtcr >> 16 & 7), sl0 = vtcr >> 6 & 3;
	unsigned levels = (page == 12 ? 2 : 1) + sl0, low = page + (page - 3) * (levels - 1);
	/* A guest of 48 bits or fewer has neither LPA nor LPA2: a larger PS means the same as its
	 * own (D24.2), and DS is not its to set. */
	const bool has_wide = rules->gpa_bits > 48, ds = vtcr >> 32 & 1;
	const bool wide = has_wide && arm_guest_wide(page, pa, ds);
	const struct format_config c = {
		.input_bits = 64 - (vtcr & 63), .page_shift = page, .output_bits = wide ? 52 : 48};
	struct geometry *g = &out->geo;

	out->n = n;
	out->vmid = arm_guest_vmid(regs);
	out->set_ad = vtcr >> 21 & 1 && rules->use_ad;
	out->root = arm_guest_table(regs->root, wide);
	*why = "VTCR_EL2: reserved granule or start level (two to four levels are known)";
	if ((vtcr >> 14 & 3) == 3 || levels < 2 || levels > 4 || arm_geometry(g, &c, why))
		return -EINVAL;
	/* The guest may have more levels than it needs. */
	g->levels = (uint8_t)levels;
	g->root_bits = (uint8_t)(g->input_bits - low);
	g->leaf_levels = arm_guest_leaves(page, wide);
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

/* The TTL hint of an address operand, bits 47:44: granule and level (Arm ARM, "TLBI by VA and IPA
 * with level hint"). Levels that such a granule has no leaf at say nothing. */
static unsigned ttl_shift(uint64_t xt)
{
	unsigned granule = xt >> 46 & 3, level = xt >> 44 & 3;
	unsigned page = granule == 1 ? 12 : granule == 2 ? 14 : 16;

	if (!granule || !level || (level == 1 && granule != 1))
		return 0;
	return page + (page - 3) * (3 - level);
}

/* IPA[51:12] in bits 39:0, whatever the granule. */
static void tlbi_ipa(struct s2_inv *inv, uint64_t xt)
{
	inv->kind = S2_INV_IPA;
	inv->start = (xt & UINT64_C(0xffffffffff)) << 12;
	inv->shift = ttl_shift(xt);
}

/* TG 47:46, SCALE 45:44, NUM 43:39, BaseADDR 36:0 in pages of the granule, or (DS) of 64 KiB; TG 0
 * is reserved and counts as the largest. */
static void tlbi_range(struct s2_inv *inv, uint64_t xt, uint64_t vtcr)
{
	unsigned granule = xt >> 46 & 3, page = granule == 1 ? 12 : granule == 2 ? 14 : 16;
	uint64_t pages = ((xt >> 39 & 31) + 1) << (5 * (xt >> 44 & 3) + 1);

	inv->kind = S2_INV_RANGE;
	inv->start = (xt & UINT64_C(0x1fffffffff)) << (vtcr >> 32 & 1 ? 16 : page);
	inv->end = inv->start + (pages << page);
}

bool s2_inv_tlbi(struct s2_inv *inv, unsigned op1, unsigned crn, unsigned crm, unsigned op2,
		 uint64_t xt, const struct s2_guest_root *now)
{
	*inv = (struct s2_inv){.vmid = arm_guest_vmid(now)};
	if (crn != 8 && crn != 9) /* 9: nXS */
		return false;
	if (op1 == 0 && crm >= 1 && crm <= 7 && crm != 4) { /* EL1: VMALLE1, VAE1, RVAE1 ... */
		inv->kind = S2_INV_STAGE1;
		return true;
	}
	if (op1 != 4)
		return false;
	/* By IPA, all levels and last level; inner shareable in CRm 0, outer and local in 4. */
	if ((crm == 0 && (op2 == 1 || op2 == 5)) || (crm == 4 && (op2 & 3) < 2)) {
		tlbi_ipa(inv, xt);
		return true;
	}
	if ((crm == 0 && (op2 == 2 || op2 == 6)) || (crm == 4 && (op2 & 3) >= 2)) {
		tlbi_range(inv, xt, now->control);
		return true;
	}
	if ((crm == 1 || crm == 3 || crm == 7) && (op2 == 4 || op2 == 6)) {
		inv->kind = op2 == 4 ? S2_INV_ALL : S2_INV_VMID; /* ALLE1, VMALLS12E1 */
		return true;
	}
	return false;
}
