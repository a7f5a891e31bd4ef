/*
 * What both stages of an arm64 guest share: Arm ARM D8.2, D8.3; registers in D24.2. For mmu/guest
 * only; pure.
 */
#ifndef MMU_GUEST_ARM_H
#define MMU_GUEST_ARM_H

#include "mmu/format/arm_s2.h"
#include "mmu/shadow.h"

/* VTTBR_EL2.VMID: 16 bits with VTCR_EL2.VS, else 8. */
static inline uint32_t arm_guest_vmid(const struct s2_guest_root *regs)
{
	return (uint32_t)(regs->root >> 48 & (regs->control >> 19 & 1 ? 0xffff : 0xff));
}

/* Whether descriptors hold 52 bits of address: 64K granules (page = 16) by the physical width,
 * others by DS. */
static inline bool arm_guest_wide(unsigned page, unsigned pa_bits, bool ds)
{
	return page == 16 ? pa_bits > 48 : ds;
}

/* The table address in VTTBR_EL2, TTBR0_EL1 or TTBR1_EL1 */
static inline uint64_t arm_guest_table(uint64_t ttbr, bool wide)
{
	return wide ? (ttbr & UINT64_C(0xffffffffffc0)) | (ttbr >> 2 & 15) << 48
		    : ttbr & UINT64_C(0xfffffffffffe);
}

/* geometry.leaf_levels */
static inline uint8_t arm_guest_leaves(unsigned page, bool wide)
{
	return (uint8_t)((page == 12 ? 0xe : 0x6) << wide | 2);
}

/* A valid descriptor that is neither a table nor a leaf where it stands. */
static inline bool arm_guest_reserved(const struct geometry *g, uint64_t e, unsigned level)
{
	return !(e & ARM_TYPE) && (level == 1 || !geometry_has_leaf(g, level));
}

#endif
