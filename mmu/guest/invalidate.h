/*
 * What a guest hypervisor's invalidation instructions mean for shadow contexts (shadow.h), as
 * struct s2_inv. Those that name one processor only are widened to all, and nXS variants are their
 * plain form: more than was asked for is legal, less is not. Pure; no locks.
 */
#ifndef MMU_GUEST_INVALIDATE_H
#define MMU_GUEST_INVALIDATE_H

#include "mmu/shadow.h"

/* arm64: TLBI <op>, Xt as executed at EL2, by its encoding (Arm ARM C5.5: op1, CRn, CRm, op2).
 * now: VTTBR_EL2 and VTCR_EL2 as they are now (root, control), which say for which VMID it is, and
 * in what units a range is: VTCR_EL2.DS makes it 64 KiB whatever the granule. What VTCR_EL2 held
 * when the context was made does not count. false: it concerns no second stage and nothing under it
 * (EL2's own, for example). */
bool s2_inv_tlbi(struct s2_inv *inv, unsigned op1, unsigned crn, unsigned crm, unsigned op2,
		 uint64_t xt, const struct s2_guest_root *now);

/* RISC-V: HFENCE.GVMA rs1, rs2 (Privileged Architecture, chapter "H" Extension): NULL: the register
 * is x0. rs1 holds the guest-physical address >> 2, rs2 the VMID and bits that are ignored: rv32
 * (of a hypervisor with Sv32x4) says how many. HFENCE.VVMA is S2_INV_STAGE1. */
void s2_inv_hfence_gvma(struct s2_inv *inv, const uint64_t *rs1, const uint64_t *rs2, bool rv32);

/* x86: INVEPT (SDM vol. 3C 31.3) of type 1 (single context) or 2 (all); false: no such type. */
bool s2_inv_invept(struct s2_inv *inv, uint64_t type, uint64_t eptp);
/* AMD: what VMRUN does by VMCB.TLB_CONTROL (APM vol. 2 15.16): false: nothing. */
bool s2_inv_tlb_control(struct s2_inv *inv, unsigned control, uint32_t asid);

#endif
