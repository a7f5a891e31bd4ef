/*
 * AMD nested paging: long-mode page-table entries, read as a user access: APM vol. 2 section 15.25,
 * entries: 5.3.3 and 5.4. Size and permissions may change in place; hardware always maintains
 * accessed and dirty. Not used: protection keys, guest-mode execute trap.
 *
 * Software bits: 55:52 in a leaf (available). Frozen: P clear (all else ignored), bit 11 set, bit
 * 9: 51:12 still holds the table's address, bit 10: it comes back, 60:52 the owner.
 */
#ifndef MMU_FORMAT_NPT_H
#define MMU_FORMAT_NPT_H

#include "mmu/format/x86.h"

#define NPT_P  UINT64_C(0x1)
#define NPT_RW UINT64_C(0x2)
#define NPT_US UINT64_C(0x4) /* guest accesses count as user accesses */
#define NPT_A  UINT64_C(0x20)
#define NPT_D  UINT64_C(0x40)
#define NPT_NX (UINT64_C(1) << 63)

static inline uint64_t npt_leaf(const struct geometry *g, unsigned level)
{
	uint64_t ad = g->options & FORMAT_AD ? 0 : NPT_A | NPT_D;

	return NPT_P | NPT_US | ad | (level > 1 ? X86_LARGE : 0);
}

static inline uint32_t npt_perm(uint64_t e)
{
	return FORMAT_R | (e & NPT_RW ? FORMAT_W : 0) | (e & NPT_NX ? 0 : FORMAT_X);
}

static inline uint64_t npt_encode_perm(uint32_t perm)
{
	return (perm & FORMAT_W ? NPT_RW : 0) | (perm & FORMAT_X ? 0 : NPT_NX);
}

/* nCR3. The number of levels is the host's CR4.LA57. */
static inline int npt_registers(const struct geometry *g, uint64_t pa, unsigned vmid,
				struct format_registers *out)
{
	(void)g;
	*out = (struct format_registers){.root = pa};
	return vmid ? -EINVAL : 0;
}

static const struct format npt_format = {
	.name = "npt",
	X86_FORMAT,
	.registers = npt_registers,
	.valid = NPT_P,
	.leaf = npt_leaf,
	.table = NPT_P | NPT_RW | NPT_US | NPT_A,
	.perms = 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7, /* what is present can be read */
	.perm_bits = NPT_RW | NPT_NX,
	.perm = npt_perm,
	.encode_perm = npt_encode_perm,
	.accessed = NPT_A,
	.dirty = NPT_D,
	/* PWT and PCD, with the PAT as it is after reset: WB, UC-, UC. */
	.memory_bits = 1 << 3 | 1 << 4,
	.memory = {[FORMAT_WB] = 0, [FORMAT_NC] = 1 << 4, [FORMAT_IO] = 1 << 3 | 1 << 4},
};

#endif
