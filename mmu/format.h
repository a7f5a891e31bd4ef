/*
 * What a format must say about one entry. Everything else (walking, mapping, locking, policy) is
 * common code, written as always-inline functions that take a pointer to a constant struct format:
 * the compiler follows the pointer and specialises the code, so there is no indirect call per
 * entry. A format lives in mmu/format/NAME.h and knows geometry and bits, nothing else.
 *
 * Entry values are uint64_t in host order whatever the entry size. Functions are pure.
 */
#ifndef MMU_FORMAT_H
#define MMU_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/geometry.h"

/* Permissions are S2_R | S2_W | S2_X of second_stage.h. */
enum { FORMAT_R = 1, FORMAT_W = 2, FORMAT_X = 4 };

enum entry_kind {
	ENTRY_NONE,   /* nothing mapped */
	ENTRY_TABLE,  /* points to a table of the next lower level */
	ENTRY_LEAF,   /* maps geometry_size(level) bytes */
	ENTRY_FROZEN, /* not present; being changed by its owner, who alone may replace it */
};

/* What an instance chose; constant while its tables live. */
struct format_config {
	unsigned input_bits;  /* 0: the widest the format has */
	unsigned output_bits; /* 0: 52 or what the format has */
	unsigned levels;      /* of the root; 0: from input_bits */
	bool use_ad;	      /* the hardware sets accessed and dirty bits */
};

/* Owners of frozen entries: ids below this fit into every format. */
enum { FORMAT_MAX_OWNERS = 512 };

struct format {
	const char *name;
	/* Valid -> frozen -> flush -> new is needed when an entry's size or address changes. */
	bool break_before_make;
	/* Constants that the compiler may fold; 0: the geometry says (chosen at run time). */
	uint8_t page_shift, index_bits, root_bits, entry_size;

	/* 0, or -EINVAL with the rule that was broken in *why. */
	int (*geometry)(struct geometry *out, const struct format_config *config, const char **why);

	enum entry_kind (*kind)(uint64_t entry, unsigned level);
	/* Address in a leaf or in a table entry. */
	uint64_t (*leaf_addr)(uint64_t entry, unsigned level);
	uint64_t (*table_addr)(uint64_t entry);
	uint32_t (*perm)(uint64_t entry);

	/* Encoders return 0, which is never a leaf or a table, for what the format or the geometry
	 * forbids: W without R, a misaligned or too wide address, a level without leaves. */
	uint64_t (*make_leaf)(const struct geometry *g, uint64_t addr, unsigned level,
			      uint32_t perm);
	uint64_t (*make_table)(const struct geometry *g, uint64_t pa);

	/* The same leaf with other permissions (software and A/D bits untouched), or 0. */
	uint64_t (*set_perm)(uint64_t entry, uint32_t perm);
	/* A leaf of another level and address with all other attributes of `entry`. */
	uint64_t (*resize)(uint64_t entry, uint64_t addr, unsigned level);

	/* Freezes `entry` for an owner; a table's address stays readable. */
	uint64_t (*freeze)(uint64_t entry, unsigned level, unsigned owner);
	unsigned (*frozen_owner)(uint64_t entry);
	bool (*frozen_table)(uint64_t entry, uint64_t *pa);

	/* Accessed and dirty bits of a leaf, as FORMAT_A | FORMAT_D. */
	uint32_t (*ad)(uint64_t entry);
	uint64_t (*set_ad)(uint64_t entry, uint32_t ad);
	/* Software bits of a valid leaf; sw_bits of them. */
	uint8_t sw_bits;
	uint32_t (*sw)(uint64_t entry);
	uint64_t (*set_sw)(uint64_t entry, uint32_t sw);

	/* The control register that points hardware at the root. */
	uint64_t (*root)(const struct geometry *g, uint64_t pa, bool use_ad);
};

enum { FORMAT_A = 1, FORMAT_D = 2 };

/* Geometry with the format's constants folded in: shifts become immediate. */
mmu_inline struct geometry format_fold(const struct format *f, const struct geometry *g)
{
	struct geometry folded = *g;

	if (f->page_shift)
		folded.page_shift = f->page_shift;
	if (f->index_bits)
		folded.index_bits = f->index_bits;
	if (f->root_bits)
		folded.root_bits = f->root_bits;
	if (f->entry_size)
		folded.entry_size = f->entry_size;
	return folded;
}

#endif
