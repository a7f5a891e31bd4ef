#include "mmu/guest/invalidate.h"
#include "mmu/guest/arm.h"

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
static void ipa(struct s2_inv *inv, uint64_t xt)
{
	inv->kind = S2_INV_IPA;
	inv->start = (xt & UINT64_C(0xffffffffff)) << 12;
	inv->shift = ttl_shift(xt);
}

/* TG 47:46, SCALE 45:44, NUM 43:39, BaseADDR 36:0 in pages of the granule, or (DS) of 64 KiB; TG 0
 * is reserved and counts as the largest. */
static void range(struct s2_inv *inv, uint64_t xt, uint64_t vtcr)
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
		ipa(inv, xt);
		return true;
	}
	if ((crm == 0 && (op2 == 2 || op2 == 6)) || (crm == 4 && (op2 & 3) >= 2)) {
		range(inv, xt, now->control);
		return true;
	}
	if ((crm == 1 || crm == 3 || crm == 7) && (op2 == 4 || op2 == 6)) {
		inv->kind = op2 == 4 ? S2_INV_ALL : S2_INV_VMID; /* ALLE1, VMALLS12E1 */
		return true;
	}
	return false;
}

void s2_inv_hfence_gvma(struct s2_inv *inv, const uint64_t *rs1, const uint64_t *rs2)
{
	*inv = (struct s2_inv){.kind = S2_INV_ALL};
	if (!rs2)
		return; /* all, whatever the address: shadows are found by VMID */
	inv->vmid = (uint32_t)(*rs2 & 0x3fff);
	inv->kind = rs1 ? S2_INV_IPA : S2_INV_VMID;
	inv->start = rs1 ? *rs1 << 2 : 0;
}

bool s2_inv_invept(struct s2_inv *inv, uint64_t type, uint64_t eptp)
{
	*inv = (struct s2_inv){.kind = type == 1 ? S2_INV_ROOT : S2_INV_ALL, .root = eptp};
	return type == 1 || type == 2;
}

bool s2_inv_tlb_control(struct s2_inv *inv, unsigned control, uint32_t asid)
{
	*inv = (struct s2_inv){.kind = control == 1 ? S2_INV_ALL : S2_INV_VMID, .vmid = asid};
	return control == 1 || control == 3 || control == 7;
}
