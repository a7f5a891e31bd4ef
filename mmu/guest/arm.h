/*
 * What readers of a guest's arm64 registers share: Arm ARM D24.2. For mmu/guest only; pure.
 */
#ifndef MMU_GUEST_ARM_H
#define MMU_GUEST_ARM_H

#include "mmu/shadow.h"

/* VTTBR_EL2.VMID: 16 bits with VTCR_EL2.VS, else 8. */
static inline uint32_t arm_guest_vmid(const struct s2_guest_root *regs)
{
	return (uint32_t)(regs->root >> 48 & (regs->control >> 19 & 1 ? 0xffff : 0xff));
}

#endif
