/*
 * What both stages of a RISC-V guest share: Privileged Architecture, Sv39, Svnapot, Svpbmt. For
 * mmu/guest only; pure.
 */
#ifndef MMU_GUEST_RISCV_H
#define MMU_GUEST_RISCV_H

#include "mmu/format/riscv_gstage.h"

/* Whether a valid entry is reserved: FORMAT_PBMT and FORMAT_NAPOT as in g->options. */
static inline bool riscv_reserved(const struct geometry *g, uint64_t e, unsigned level)
{
	const bool wide = g->entry_size == 8, napot = wide && e & RISCV_N;
	const uint64_t addr = riscv_unpack(g, e), pbmt = wide ? e >> 61 & 3 : 0;
	const uint32_t perm = riscv_perm(e);

	if (wide && e >> 54 & 0x7f)
		return true;
	if (!perm)
		return level == 1 || napot || pbmt || e & (RISCV_U | RISCV_A | RISCV_D);
	if ((pbmt && !(g->options & FORMAT_PBMT)) || pbmt == 3 ||
	    (perm & (FORMAT_R | FORMAT_W)) == FORMAT_W)
		return true;
	if (napot)
		return level > 1 || !(g->options & FORMAT_NAPOT) || (addr >> 12 & 15) != 8;
	return addr & (geometry_size(g, level) - 1);
}

#endif
