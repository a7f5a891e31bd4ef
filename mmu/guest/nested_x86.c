/* A guest's EPT and nested paging: EPTP: SDM vol. 3C 25.6.11; misconfigurations: 29.3.3.1. nCR3 and
 * its entries: APM vol. 2 15.25, 5.3. */
#include <errno.h>

#include "mmu/format/ept.h"
#include "mmu/format/npt.h"
#include "mmu/guest/invalidate.h"
#include "mmu/guest/stage2.h"
#include "mmu/guest/x86.h"

static enum s2_stage_fault check_ept(const struct geometry *g, uint64_t e, unsigned level)
{
	bool large = level > 1 && e & X86_LARGE;
	unsigned type = e >> 3 & 7;

	if (x86_reserved(g, e, level, 0) || !format_perm_legal(&ept_format, g, ept_perm(e)))
		return S2_FAULT_RESERVED;
	if (!large && level > 1)
		return e & 0xf8 ? S2_FAULT_RESERVED : S2_NO_FAULT;
	return type == 2 || type == 3 || type == 7 ? S2_FAULT_RESERVED : S2_NO_FAULT;
}

/* The format says readable for all that is present; a supervisor page refuses guests. */
static enum s2_stage_fault check_npt(const struct geometry *g, uint64_t e, unsigned level)
{
	if (x86_reserved(g, e, level, 1 << 12)) /* of a large page: its PAT */
		return S2_FAULT_RESERVED;
	return e & NPT_US ? S2_NO_FAULT : S2_FAULT_PERMISSION;
}

static const struct nested_format nested_ept = {
	.f = &ept_format, .table_perms = true, .check = check_ept};
static const struct nested_format nested_npt = {
	.f = &npt_format, .table_perms = true, .check = check_npt};

static int parse(struct guest_stage2 *out, const struct nested_rules *rules, unsigned levels,
		 uint64_t root, const char **why)
{
	const struct format_config c = {
		.levels = levels, .output_bits = rules->gpa_bits, .options = rules->options};

	out->root = root & X86_ADDR;
	if (root >> rules->gpa_bits)
		*why = "x86: the root lies beyond the guest's physical width";
	else
		return x86_geometry(&out->geo, &c, why);
	return -EINVAL;
}

int nested_parse_ept(struct guest_stage2 *out, const struct nested_rules *rules,
		     const struct s2_guest_root *regs, const char **why)
{
	unsigned levels = (unsigned)(regs->root >> 3 & 7) + 1, type = regs->root & 7;

	out->n = &nested_ept;
	out->vmid = regs->vmid;
	out->set_ad = regs->root >> 6 & 1 && rules->use_ad;
	if ((type != 0 && type != 6) || regs->root & 0xf80)
		*why = "EPTP: memory type or reserved bits";
	else if (levels != 4 && !(levels == 5 && rules->format == S2_EPT5))
		*why = "EPTP: the walk has 4 levels, or 5 where the guest was told so";
	else
		return parse(out, rules, levels, regs->root, why);
	return -EINVAL;
}

int nested_parse_npt(struct guest_stage2 *out, const struct nested_rules *rules,
		     const struct s2_guest_root *regs, const char **why)
{
	out->n = &nested_npt;
	out->vmid = regs->vmid;
	out->set_ad = rules->use_ad;
	return parse(out, rules, rules->format == S2_NPT5 ? 5 : 4, regs->root, why);
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
