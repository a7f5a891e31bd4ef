/* arm64 stage 1 of the EL1&0 regime: Arm ARM D8.2 (levels from TCR_EL1.TxSZ), D8.3 (descriptors),
 * D8.4 (permissions: AP, UXN, PXN, and what tables take away). LPA2 and LPA where TCR_EL1 and the
 * width say so. */
#include "mmu/guest/arm.h"
#include "mmu/guest/stage1_walk.h"

ARM_FORMAT(arm, 12); /* the granule is the geometry's */

static enum guest_fault entry(const struct stage1 *s, struct walk_entry *w, struct guest_xlat *out)
{
	const uint64_t e = w->value;
	const unsigned level = w->level;

	if (arm_unpack(&s->geo, e) >> s->geo.output_bits)
		return GUEST_RESERVED; /* address size */
	if (!arm_is_leaf(e, level)) {
		/* APTable 62:61, UXNTable 60, PXNTable 59 */
		out->perm &= ~(uint32_t)((e >> 62 & 1 ? S2_W : 0) | (e >> 59 & 1 ? S2_X : 0));
		out->user &= ~(uint32_t)((e >> 61 & 1 ? S2_R | S2_W : 0) |
					 (e >> 62 & 1 ? S2_W : 0) | (e >> 60 & 1 ? S2_X : 0));
		return GUEST_MAPPED;
	}
	if (arm_guest_reserved(&s->geo, e, level))
		return GUEST_RESERVED; /* faults as nothing would */
	/* AP[2] 7: read-only, AP[1] 6: EL0, too; UXN 54, PXN 53 */
	out->perm &= ~(uint32_t)((e >> 7 & 1 ? S2_W : 0) | (e >> 53 & 1 ? S2_X : 0));
	out->user &= e >> 6 & 1	   ? ~(uint32_t)((e >> 7 & 1 ? S2_W : 0) | (e >> 54 & 1 ? S2_X : 0))
		     : e >> 54 & 1 ? 0
				   : S2_X; /* execute-only */
	/* What users may write is never executed by the kernel, whatever PXN says. */
	if (out->user & S2_W)
		out->perm &= ~(uint32_t)S2_X;
	out->dirty = out->perm & S2_W;
	return GUEST_MAPPED;
}

enum guest_fault stage1_arm(const struct guest_paging *p, const struct guest_reader *memory,
			    uint64_t va, struct guest_xlat *out)
{
	static const uint8_t granule0[] = {12, 16, 14, 0}, granule1[] = {0, 14, 12, 16};
	const uint64_t tcr = p->arm64.tcr;
	const bool high = va >> 55 & 1, ds = tcr >> 59 & 1;
	const uint64_t ttbr = high ? p->arm64.ttbr1 : p->arm64.ttbr0;
	unsigned page = high ? granule1[tcr >> 30 & 3] : granule0[tcr >> 14 & 3];
	unsigned bits = 64 - (unsigned)(tcr >> (high ? 16 : 0) & 63),
		 pa = arm_pa_bits(tcr >> 32 & 7);
	unsigned levels, index, ignored = tcr >> (high ? 38 : 37) & 1 ? 8 : 0; /* TBI */
	struct stage1 s = {.f = &arm_format, .entry = entry};
	bool wide;

	if (!(p->arm64.sctlr & 1)) {
		out->gpa = va;
		out->perm = out->user = S2_R | S2_W | S2_X;
		return GUEST_MAPPED;
	}
	wide = arm_guest_wide(page, pa, ds);
	if (!page || bits <= page || bits > (wide || page == 16 ? 52u : 48u))
		return GUEST_BAD_ROOT;
	if (tcr >> (high ? 23 : 7) & 1) /* EPD: no walks */
		return GUEST_NOT_PRESENT;
	if ((uint64_t)((int64_t)(va << ignored) >> ignored) >> bits !=
	    (high ? UINT64_MAX >> bits : 0))
		return GUEST_NOT_CANONICAL;
	index = page - 3;
	levels = (bits - page + index - 1) / index;
	if (p->gpa_bits && p->gpa_bits < pa)
		pa = p->gpa_bits;
	s.geo = (struct geometry){
		.levels = (uint8_t)levels,
		.page_shift = (uint8_t)page,
		.index_bits = (uint8_t)index,
		.root_bits = (uint8_t)(bits - page - index * (levels - 1)),
		.entry_size = 8,
		.leaf_levels = arm_guest_leaves(page, wide),
		.input_bits = (uint8_t)bits,
		.output_bits = (uint8_t)pa,
		.options = wide ? FORMAT_WIDE : 0,
	};
	s.root = arm_guest_table(ttbr, wide) & ~((UINT64_C(8) << s.geo.root_bits) - 1);
	return stage1_walk(&s, memory, va, out);
}
