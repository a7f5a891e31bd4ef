/*
 * Intel EPT: SDM vol. 3C section 29.3.2, tables 29-1 to 29-7; EPTP: section 25.6.11.
 * 4 or 5 levels of 512 entries, leaves of 4 KiB, 2 MiB and 1 GiB. Size and permissions may change
 * in place. Not used: mode-based execute control, supervisor shadow stack, #VE.
 *
 * Software bits: 55:52 in a leaf (ignored by hardware; 57 to 60 and 63 may be claimed by features).
 * Frozen: bits 2:0 clear (not present, all else ignored), bit 11 set, bit 9: 51:12 still holds the
 * table's address, 60:52 the owner.
 */
#ifndef MMU_FORMAT_EPT_H
#define MMU_FORMAT_EPT_H

#include <errno.h>

#include "mmu/format.h"

#define EPT_RWX	   UINT64_C(0x7)
#define EPT_WB	   (UINT64_C(6) << 3) /* memory type of a leaf: write-back */
#define EPT_LARGE  (UINT64_C(1) << 7)
#define EPT_A	   (UINT64_C(1) << 8)
#define EPT_D	   (UINT64_C(1) << 9)
#define EPT_ADDR   UINT64_C(0x000ffffffffff000)
#define EPT_SW	   (UINT64_C(0xf) << 52)
#define EPT_FROZEN (UINT64_C(1) << 11)
#define EPT_FTABLE (UINT64_C(1) << 9)
#define EPT_OWNER  52u /* shift of the owner in a frozen entry */

static inline int ept_geometry(struct geometry *out, const struct format_config *c,
			       const char **why)
{
	unsigned levels = c->levels ? c->levels : c->input_bits > 48 ? 5 : 4;
	unsigned input = c->input_bits ? c->input_bits : levels == 5 ? 57 : 48;
	unsigned output = c->output_bits ? c->output_bits : 52;

	if (levels != 4 && levels != 5)
		*why = "EPT has 4 or 5 levels";
	else if (input < 13 || input > 12 + 9 * levels)
		*why = "EPT: a guest-physical address has 13 to 48 (4 levels) or 57 (5 levels) "
		       "bits";
	else if (output < 32 || output > 52)
		*why = "EPT: a host address has 32 to 52 bits";
	else {
		*out = (struct geometry){
			.levels = (uint8_t)levels,
			.page_shift = 12,
			.index_bits = 9,
			.root_bits = 9,
			.entry_size = 8,
			.leaf_levels = 1 << 1 | 1 << 2 | 1 << 3,
			.input_bits = (uint8_t)input,
			.output_bits = (uint8_t)output,
		};
		return 0;
	}
	return -EINVAL;
}

static inline enum entry_kind ept_kind(uint64_t e, unsigned level)
{
	if (!(e & EPT_RWX))
		return e & EPT_FROZEN ? ENTRY_FROZEN : ENTRY_NONE;
	return level == 1 || e & EPT_LARGE ? ENTRY_LEAF : ENTRY_TABLE;
}

/* A 2 MiB or 1 GiB leaf has its reserved low address bits clear: one mask serves all levels. */
static inline uint64_t ept_leaf_addr(uint64_t e, unsigned level)
{
	(void)level;
	return e & EPT_ADDR;
}

static inline uint64_t ept_table_addr(uint64_t e)
{
	return e & EPT_ADDR;
}

static inline uint32_t ept_perm(uint64_t e)
{
	return (uint32_t)(e & EPT_RWX);
}

/* W without R is a misconfiguration (29.3.3.1); so is an address beyond MAXPHYADDR. */
static inline uint64_t ept_make_leaf(const struct geometry *g, uint64_t addr, unsigned level,
				     uint32_t perm)
{
	if (level < 1 || level > 3 || !(perm & EPT_RWX) || perm & ~EPT_RWX ||
	    (perm & (FORMAT_R | FORMAT_W)) == FORMAT_W)
		return 0;
	if (addr & (geometry_size(g, level) - 1) || addr >> g->output_bits)
		return 0;
	return addr | perm | EPT_WB | (level > 1 ? EPT_LARGE : 0);
}

static inline uint64_t ept_make_table(const struct geometry *g, uint64_t pa)
{
	if (!pa || pa & ~EPT_ADDR || pa >> g->output_bits)
		return 0;
	return pa | EPT_RWX;
}

static inline uint64_t ept_set_perm(uint64_t e, uint32_t perm)
{
	if (!(perm & EPT_RWX) || perm & ~EPT_RWX || (perm & (FORMAT_R | FORMAT_W)) == FORMAT_W)
		return 0;
	return (e & ~EPT_RWX) | perm;
}

static inline uint64_t ept_resize(uint64_t e, uint64_t addr, unsigned level)
{
	return (e & ~(EPT_ADDR | EPT_LARGE)) | addr | (level > 1 ? EPT_LARGE : 0);
}

static inline uint64_t ept_freeze(uint64_t e, unsigned level, unsigned owner)
{
	uint64_t frozen = EPT_FROZEN | (uint64_t)owner << EPT_OWNER;

	return ept_kind(e, level) == ENTRY_TABLE ? frozen | EPT_FTABLE | (e & EPT_ADDR) : frozen;
}

static inline unsigned ept_frozen_owner(uint64_t e)
{
	return (unsigned)(e >> EPT_OWNER) & (FORMAT_MAX_OWNERS - 1);
}

static inline bool ept_frozen_table(uint64_t e, uint64_t *pa)
{
	*pa = e & EPT_ADDR;
	return e & EPT_FTABLE;
}

static inline uint32_t ept_ad(uint64_t e)
{
	return (e & EPT_A ? FORMAT_A : 0) | (e & EPT_D ? FORMAT_D : 0);
}

static inline uint64_t ept_set_ad(uint64_t e, uint32_t ad)
{
	return (e & ~(EPT_A | EPT_D)) | (ad & FORMAT_A ? EPT_A : 0) | (ad & FORMAT_D ? EPT_D : 0);
}

static inline uint32_t ept_sw(uint64_t e)
{
	return (uint32_t)((e & EPT_SW) >> 52);
}

static inline uint64_t ept_set_sw(uint64_t e, uint32_t sw)
{
	return (e & ~EPT_SW) | ((uint64_t)sw << 52 & EPT_SW);
}

static inline uint64_t ept_root(const struct geometry *g, uint64_t pa, bool use_ad)
{
	return pa | 6 | (uint64_t)(g->levels - 1) << 3 | (use_ad ? 1 << 6 : 0);
}

static const struct format ept_format = {
	.name = "ept",
	.break_before_make = false,
	.page_shift = 12,
	.index_bits = 9,
	.root_bits = 9,
	.entry_size = 8,
	.geometry = ept_geometry,
	.kind = ept_kind,
	.leaf_addr = ept_leaf_addr,
	.table_addr = ept_table_addr,
	.perm = ept_perm,
	.make_leaf = ept_make_leaf,
	.make_table = ept_make_table,
	.set_perm = ept_set_perm,
	.resize = ept_resize,
	.freeze = ept_freeze,
	.frozen_owner = ept_frozen_owner,
	.frozen_table = ept_frozen_table,
	.ad = ept_ad,
	.set_ad = ept_set_ad,
	.sw_bits = 4,
	.sw = ept_sw,
	.set_sw = ept_set_sw,
	.root = ept_root,
};

#endif
