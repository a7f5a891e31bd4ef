/*
 * What a format must say about one entry. Everything else (walking, mapping, locking, policy) is
 * common code, written as always-inline functions that take a pointer to a constant struct format:
 * the compiler follows the pointer and specialises the code, so there is no indirect call per
 * entry. A format lives in mmu/format/NAME.h and knows geometry and bits, nothing else.
 *
 * Most of a format is constants: masks, from which the functions below make what formats have in
 * common. Entry values are uint64_t in host order whatever the entry size. All functions are pure.
 */
#ifndef MMU_FORMAT_H
#define MMU_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/geometry.h"

/* Permissions are S2_R | S2_W | S2_X of second_stage.h. */
enum { FORMAT_R = 1, FORMAT_W = 2, FORMAT_X = 4 };

/* Accessed and dirty. */
enum { FORMAT_A = 1, FORMAT_D = 2 };

/* Memory types: write-back; not cached; device. */
enum { FORMAT_WB, FORMAT_NC, FORMAT_IO, FORMAT_MEMORY_TYPES };

/* What the hardware that walks the tables can do: the values of enum s2_options, and what a
 * geometry adds. */
enum format_options {
	FORMAT_EXEC_ONLY = 1,
	FORMAT_VMID16 = 2,
	FORMAT_PBMT = 4,
	FORMAT_NAPOT = 8,
	FORMAT_AD = 16,	  /* it sets accessed and dirty bits */
	FORMAT_WIDE = 32, /* addresses of more than 48 bits, with a layout of their own */
};

enum entry_kind {
	ENTRY_NONE,   /* nothing mapped */
	ENTRY_TABLE,  /* points to a table of the next lower level */
	ENTRY_LEAF,   /* maps geometry_size(level) bytes */
	ENTRY_FROZEN, /* not present; being changed by its owner, who alone may replace it */
};

/* What an instance chose; constant while its tables live. */
struct format_config {
	unsigned input_bits;  /* 0: the format's default */
	unsigned output_bits; /* 0: the format's default */
	unsigned levels;      /* of the root; 0: from input_bits */
	unsigned page_shift;  /* where a format has several granules */
	unsigned options;     /* enum format_options */
};

/* The values that make hardware use the tables. */
struct format_registers {
	uint64_t root;	  /* EPTP, nCR3, VTTBR_EL2, hgatp */
	uint64_t control; /* VTCR_EL2; else 0 */
};

/* Owners of frozen entries are below this, and below a format's own limit. */
enum { FORMAT_MAX_OWNERS = 512 };

struct format {
	const char *name;
	/* An entry whose size changes is broken, or flushed, first: as the instance's level says
	 * (see s2_config.bbm_level). */
	bool break_before_make;
	uint64_t not_cached; /* a block with this bit is in no TLB */
	/* Constants that the compiler may fold; 0: the geometry says (chosen at run time). */
	uint8_t page_shift, index_bits, root_bits, entry_size, leaf_levels;

	/* 0, or -EINVAL with the rule that was broken in *why. */
	int (*geometry)(struct geometry *out, const struct format_config *config, const char **why);
	/* -EINVAL: the VMID is too wide (or not 0, if there is none). */
	int (*registers)(const struct geometry *g, uint64_t root_pa, unsigned vmid,
			 struct format_registers *out);

	/* Valid entries have one of these bits. */
	uint64_t valid;
	bool (*is_leaf)(uint64_t entry, unsigned level);
	/* The address field of leaves and tables: pack(UINT64_MAX) is its mask. */
	uint64_t (*pack)(const struct geometry *g, uint64_t addr);
	uint64_t (*unpack)(const struct geometry *g, uint64_t entry);
	/* Everything else in a new leaf but permissions: write-back, accessed and dirty set where
	 * hardware does not or always does it. size_bits: the part that a level determines. */
	uint64_t (*leaf)(const struct geometry *g, unsigned level);
	uint64_t size_bits;
	uint64_t table; /* everything but the address of a table entry */

	uint8_t options; /* of enum format_options those that are chosen: others are refused */

	/* Bit n: permissions n can be expressed; execute-only may be an option. */
	uint8_t perms;
	uint64_t perm_bits;
	uint32_t (*perm)(uint64_t entry);
	uint64_t (*encode_perm)(uint32_t perm);

	uint64_t accessed, dirty; /* 0: has no such bit */
	/* Where hardware neither sets A nor faults without it, an unused leaf grants nothing and
	 * keeps its permissions here (perm_bits << hide_shift); 0: no need. */
	uint8_t hide_shift;
	uint64_t memory_bits, memory[FORMAT_MEMORY_TYPES];
	unsigned memory_option; /* other types than write-back need it */
	uint64_t napot;		/* leaf is one of 16 alike that map 16 pages; 0: has no such bit */
	/* Software bits of a valid leaf. */
	uint8_t sw_bits, sw_shift;
	/* Entries that are not valid. */
	uint64_t frozen, frozen_table;
	uint64_t frozen_back; /* something stands there again soon: see format_freeze_back */
	uint8_t owner_bits, owner_shift;
};

/* Geometry with the format's constants folded in: shifts become immediate. */
mmu_inline struct geometry format_fold(const struct format *f, const struct geometry *g)
{
	/* Field by field: a copy that is then changed is kept in memory by compilers, with the
	 * constants in it. */
	return (struct geometry){
		.levels = g->levels,
		.page_shift = f->page_shift ? f->page_shift : g->page_shift,
		.index_bits = f->index_bits ? f->index_bits : g->index_bits,
		.root_bits = f->root_bits ? f->root_bits : g->root_bits,
		.entry_size = f->entry_size ? f->entry_size : g->entry_size,
		.leaf_levels = f->leaf_levels ? f->leaf_levels : g->leaf_levels,
		.input_bits = g->input_bits,
		.output_bits = g->output_bits,
		.options = g->options,
	};
}

mmu_inline enum entry_kind format_kind(const struct format *f, uint64_t e, unsigned level)
{
	if (!(e & f->valid)) {
		if (e & f->frozen)
			return ENTRY_FROZEN;
		return f->hide_shift && e & f->perm_bits << f->hide_shift && f->is_leaf(e, level)
			       ? ENTRY_LEAF
			       : ENTRY_NONE;
	}
	return f->is_leaf(e, level) ? ENTRY_LEAF : ENTRY_TABLE;
}

/* log2 of the bytes around an address that a leaf says how to translate */
mmu_inline unsigned format_leaf_shift(const struct format *f, const struct geometry *g, uint64_t e,
				      unsigned level)
{
	return geometry_shift(g, level) + (e & f->napot ? 4 : 0);
}

mmu_inline uint64_t format_addr(const struct format *f, const struct geometry *g, uint64_t e)
{
	uint64_t addr = f->unpack(g, e);

	/* The lowest bit that is set tells how many pages there are. */
	return e & f->napot ? addr & (addr - 1) : addr;
}

mmu_inline bool format_perm_legal(const struct format *f, const struct geometry *g, uint32_t perm)
{
	if (perm > 7 || !(f->perms >> perm & 1))
		return false;
	return perm != FORMAT_X || !(f->options & FORMAT_EXEC_ONLY & ~g->options);
}

/* A leaf that is legal: of format_make_leaf's checks none is needed. */
mmu_inline uint64_t format_leaf(const struct format *f, const struct geometry *g, uint64_t addr,
				unsigned level, uint32_t perm)
{
	return f->pack(g, addr) | f->leaf(g, level) | f->encode_perm(perm);
}

/* Encoders return 0, which is never a leaf or a table, for what the format or the geometry forbids:
 * permissions that cannot be expressed, a misaligned or too wide address, a level without leaves.
 */
mmu_inline uint64_t format_make_leaf(const struct format *f, const struct geometry *g,
				     uint64_t addr, unsigned level, uint32_t perm)
{
	if (!geometry_has_leaf(g, level) || !format_perm_legal(f, g, perm))
		return 0;
	if (addr & (geometry_size(g, level) - 1) || addr >> g->output_bits)
		return 0;
	return format_leaf(f, g, addr, level, perm);
}

mmu_inline uint64_t format_make_table(const struct format *f, const struct geometry *g, uint64_t pa)
{
	uint64_t e = f->pack(g, pa) | f->table;

	return !(pa >> g->output_bits) && f->unpack(g, e) == pa ? e : 0;
}

/* e leads to the table at *pa, if table addresses are pointers: then the bits below the address are
 * those of f->table (A included, so that hardware changes nothing), as in no other entry above
 * level 1, and all above is 0. Cheaper than format_kind and format_addr. *pa is set in any case. */
mmu_inline bool format_points(const struct format *f, const struct geometry *g, uint64_t e,
			      uint64_t *pa)
{
	const uint64_t lowest = f->pack(g, geometry_size(g, 1));

	e ^= f->table;
	*pa = e * (geometry_size(g, 1) / lowest);
	return !(e & (lowest - 1));
}

/* The same leaf with other permissions (software and A/D bits untouched), or 0. */
mmu_inline uint64_t format_set_perm(const struct format *f, const struct geometry *g, uint64_t e,
				    uint32_t perm)
{
	if (!format_perm_legal(f, g, perm))
		return 0;
	return (e & ~f->perm_bits) | f->encode_perm(perm);
}

/* The same leaf with permissions added, or 0: `more` has another bit, or they are not legal. */
mmu_inline uint64_t format_relax(const struct format *f, const struct geometry *g, uint64_t e,
				 uint32_t more)
{
	return format_set_perm(f, g, e, f->perm(e) | more);
}

/* A leaf of another level and address with all other attributes of `e`. */
mmu_inline uint64_t format_resize(const struct format *f, const struct geometry *g, uint64_t e,
				  uint64_t addr, unsigned level)
{
	return (e & ~(f->pack(g, UINT64_MAX) | f->size_bits)) | f->pack(g, addr) |
	       (f->leaf(g, level) & f->size_bits);
}

/* The same leaf with another memory type, or 0. The policy maps write-back memory only; it keeps
 * what is there, which tests put there with this one and the next, and so do the images for
 * decoders. */
mmu_inline uint64_t format_set_memory(const struct format *f, const struct geometry *g, uint64_t e,
				      unsigned type)
{
	if (type >= FORMAT_MEMORY_TYPES || !f->memory_bits ||
	    (type != FORMAT_WB && (g->options & f->memory_option) != f->memory_option))
		return 0;
	return (e & ~f->memory_bits) | f->memory[type];
}

/* A level-1 leaf as one of 16 neighbours that are alike and map 16 pages from where the aligned 16
 * around it begin, or 0. All 16 must be written, and broken before one of them changes. */
mmu_inline uint64_t format_make_napot(const struct format *f, const struct geometry *g, uint64_t e)
{
	uint64_t size = geometry_size(g, 1), addr = format_addr(f, g, e) & ~(16 * size - 1);

	if (!f->napot || !(g->options & FORMAT_NAPOT) || e & f->napot)
		return 0;
	return format_resize(f, g, e, addr | 8 * size, 1) | f->napot;
}

/* Freezes `e` for an owner; a table's address stays readable. */
mmu_inline uint64_t format_freeze(const struct format *f, const struct geometry *g, uint64_t e,
				  unsigned level, unsigned owner)
{
	uint64_t frozen = f->frozen | (uint64_t)owner << f->owner_shift;

	if (format_kind(f, e, level) == ENTRY_TABLE)
		frozen |= f->frozen_table | (e & f->pack(g, UINT64_MAX));
	return frozen;
}

/* Frozen, but the owner means to put back what was there, in smaller leaves or as one. Whoever
 * wants it gone or protected clears the bit (format_frozen_gone): the owner's compare-and-exchange
 * then fails, and it makes the entry empty. */
mmu_inline uint64_t format_freeze_back(const struct format *f, const struct geometry *g, uint64_t e,
				       unsigned level, unsigned owner)
{
	return format_freeze(f, g, e, level, owner) | f->frozen_back;
}

mmu_inline uint64_t format_frozen_gone(const struct format *f, uint64_t e)
{
	return e & ~f->frozen_back;
}

mmu_inline unsigned format_frozen_owner(const struct format *f, uint64_t e)
{
	return (unsigned)(e >> f->owner_shift) & ((1u << f->owner_bits) - 1);
}

mmu_inline bool format_frozen_table(const struct format *f, const struct geometry *g, uint64_t e,
				    uint64_t *pa)
{
	*pa = f->unpack(g, e);
	return e & f->frozen_table;
}

/* Accessed and dirty bits of a leaf, as FORMAT_A | FORMAT_D. */
mmu_inline uint32_t format_ad(const struct format *f, uint64_t e)
{
	return (e & f->accessed ? FORMAT_A : 0) | (e & f->dirty ? FORMAT_D : 0);
}

mmu_inline uint64_t format_set_ad(const struct format *f, uint64_t e, uint32_t ad)
{
	return (e & ~(f->accessed | f->dirty)) | (ad & FORMAT_A ? f->accessed : 0) |
	       (ad & FORMAT_D ? f->dirty : 0);
}

/* Ageing: the same leaf as if it had not been used (its next use faults, or sets A), and as if it
 * had. */
mmu_inline bool format_hides(const struct format *f, const struct geometry *g)
{
	return f->hide_shift && !(g->options & FORMAT_AD);
}

mmu_inline uint64_t format_old(const struct format *f, const struct geometry *g, uint64_t e)
{
	uint64_t perm = e & f->perm_bits;

	if (!format_hides(f, g))
		return e & ~f->accessed;
	return perm ? (e & ~perm) | perm << f->hide_shift : e;
}

mmu_inline uint64_t format_young(const struct format *f, const struct geometry *g, uint64_t e)
{
	uint64_t kept = e & f->perm_bits << f->hide_shift;

	if (!format_hides(f, g))
		return e | f->accessed;
	return (e & ~kept) | kept >> f->hide_shift;
}

/* The same leaf, used or not, with permissions taken; or 0. */
mmu_inline uint64_t format_forbid(const struct format *f, const struct geometry *g, uint64_t e,
				  uint32_t less)
{
	uint64_t young = format_young(f, g, e);
	uint64_t forbidden = format_set_perm(f, g, young, f->perm(young) & ~less);

	return young == e ? forbidden : format_old(f, g, forbidden);
}

/* The bits that W takes with it when it is forbidden to a valid leaf that can be read: a valid leaf
 * is not hidden, so no more has to be looked at. */
mmu_inline uint64_t format_write_bits(const struct format *f)
{
	return f->encode_perm(FORMAT_R | FORMAT_W) & ~f->encode_perm(FORMAT_R);
}

mmu_inline uint64_t format_sw_mask(const struct format *f)
{
	return ((UINT64_C(1) << f->sw_bits) - 1) << f->sw_shift;
}

mmu_inline uint32_t format_sw(const struct format *f, uint64_t e)
{
	return (uint32_t)((e & format_sw_mask(f)) >> f->sw_shift);
}

mmu_inline uint64_t format_set_sw(const struct format *f, uint64_t e, uint32_t sw)
{
	return (e & ~format_sw_mask(f)) | ((uint64_t)sw << f->sw_shift & format_sw_mask(f));
}

#endif
