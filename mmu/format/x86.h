/* The geometry that EPT and NPT share: 4 or 5 levels of 512 entries, leaves of 4 KiB, 2 MiB and
 * 1 GiB. */
#ifndef MMU_FORMAT_X86_H
#define MMU_FORMAT_X86_H

#include <errno.h>

#include "mmu/format.h"

#define X86_ADDR  UINT64_C(0x000ffffffffff000)
#define X86_LARGE UINT64_C(0x80) /* a leaf above level 1 */

enum { X86_LEAF_LEVELS = 1 << 1 | 1 << 2 | 1 << 3 };

static inline int x86_geometry(struct geometry *out, const struct format_config *c,
			       const char **why)
{
	unsigned levels = c->levels ? c->levels : c->input_bits > 48 ? 5 : 4;
	unsigned input = c->input_bits ? c->input_bits : levels == 5 ? 57 : 48;
	unsigned output = c->output_bits ? c->output_bits : 52;

	if (levels != 4 && levels != 5)
		*why = "x86: a second stage has 4 or 5 levels";
	else if (input < 13 || input > 12 + 9 * levels)
		*why = "x86: a guest-physical address has 13 to 48 (4 levels) or 57 (5 levels) "
		       "bits";
	else if (output < 32 || output > 52)
		*why = "x86: a host address has 32 to 52 bits";
	else {
		*out = (struct geometry){
			.levels = (uint8_t)levels,
			.page_shift = 12,
			.index_bits = 9,
			.root_bits = 9,
			.entry_size = 8,
			.leaf_levels = X86_LEAF_LEVELS,
			.input_bits = (uint8_t)input,
			.output_bits = (uint8_t)output,
			.options = (uint8_t)c->options,
		};
		return 0;
	}
	return -EINVAL;
}

/* A large leaf has its reserved low address bits clear: one mask serves all levels. */
static inline uint64_t x86_addr(const struct geometry *g, uint64_t e)
{
	(void)g;
	return e & X86_ADDR;
}

static inline bool x86_is_leaf(uint64_t e, unsigned level)
{
	return level == 1 || e & X86_LARGE;
}

/* What struct format says of both. Software's bits: 52..55 of an entry that is valid, the owner's
 * and the frozen marks in one that is not. */
#define X86_FORMAT                                                                                 \
	.page_shift = 12, .index_bits = 9, .root_bits = 9, .entry_size = 8,                        \
	.leaf_levels = X86_LEAF_LEVELS, .geometry = x86_geometry, .is_leaf = x86_is_leaf,          \
	.pack = x86_addr, .unpack = x86_addr, .size_bits = X86_LARGE, .sw_bits = 4,                \
	.sw_shift = 52, .frozen = 1 << 11, .frozen_table = 1 << 9, .frozen_back = 1 << 10,         \
	.owner_bits = 9, .owner_shift = 52

#endif
