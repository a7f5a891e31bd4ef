/*
 * What a guest's first stage, EPT and nested paging share: SDM vol. 3A 4.5, vol. 3C 29.3. For
 * mmu/guest only; pure.
 */
#ifndef MMU_GUEST_X86_H
#define MMU_GUEST_X86_H

#include "mmu/format/x86.h"

/* Whether a valid entry has bits that all three forbid: of the address, beyond the guest's physical
 * width; bit 7, where no leaf is that large; of a large leaf's address, but for those of
 * `allowed`. */
static inline bool x86_reserved(const struct geometry *g, uint64_t e, unsigned level,
				uint64_t allowed)
{
	const uint64_t low = geometry_size(g, level) - 1, addr = e & X86_ADDR;

	if (addr >> g->output_bits)
		return true;
	return level > 1 && e & X86_LARGE &&
	       (!geometry_has_leaf(g, level) || addr & low & ~allowed);
}

#endif
