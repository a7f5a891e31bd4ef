/*
 * Intel EPT: SDM vol. 3C section 29.3.2, tables 29-1 to 29-7; EPTP: section 25.6.11. Size and
 * permissions may change in place. Not used: mode-based execute control, supervisor shadow stack,
 * #VE.
 *
 * Software bits: 55:52 in a leaf (ignored by hardware; 57 to 60 and 63 may be claimed by features).
 * Frozen: bits 2:0 clear (not present, all else ignored), bit 11 set, bit 9: 51:12 still holds the
 * table's address, bit 10: it comes back, 60:52 the owner. Without A bits a leaf that has not been
 * used since it was aged: bits 2:0 clear, what they were in 63:61.
 */
#ifndef MMU_FORMAT_EPT_H
#define MMU_FORMAT_EPT_H

#include "mmu/format/x86.h"

#define EPT_RWX UINT64_C(0x7)

static inline uint64_t ept_leaf(const struct geometry *g, unsigned level)
{
	(void)g;
	return 6 << 3 | (level > 1 ? X86_LARGE : 0); /* write-back */
}

static inline uint32_t ept_perm(uint64_t e)
{
	return (uint32_t)(e & EPT_RWX);
}

static inline uint64_t ept_encode_perm(uint32_t perm)
{
	return perm;
}

static inline int ept_registers(const struct geometry *g, uint64_t pa, unsigned vmid,
				struct format_registers *out)
{
	out->root = pa | 6 | (uint64_t)(g->levels - 1) << 3 | (g->options & FORMAT_AD ? 1 << 6 : 0);
	out->control = 0;
	return vmid ? -EINVAL : 0;
}

static const struct format ept_format = {
	.name = "ept",
	X86_FORMAT,
	.registers = ept_registers,
	.valid = EPT_RWX,
	.leaf = ept_leaf,
	.table = EPT_RWX | 1 << 8, /* accessed */
	/* W without R is a misconfiguration (29.3.3.1); X without R, where it is not supported. */
	.perms = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7,
	.options = FORMAT_EXEC_ONLY,
	.perm_bits = EPT_RWX,
	.perm = ept_perm,
	.encode_perm = ept_encode_perm,
	.accessed = 1 << 8,
	.dirty = 1 << 9,
	.hide_shift = 61,
	.memory_bits = 7 << 3,
	.memory = {[FORMAT_WB] = 6 << 3, [FORMAT_NC] = 1 << 3, [FORMAT_IO] = 0}, /* WC, UC */
};

#endif
