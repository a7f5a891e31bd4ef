/*
 * arm64 stage 2, VMSAv8-64: Arm ARM (DDI 0487) sections D8.2 (granules, start level, concatenated
 * tables), D8.3 (descriptors), D8.4 (stage 2 permissions); VTCR_EL2 and VTTBR_EL2 in D24.2. A
 * granule each: arm4k_format, arm16k_format, arm64k_format. Blocks of 2 MiB and 1 GiB, 32 MiB,
 * 512 MiB.
 *
 * Addresses of more than 48 bits: with 64 KiB pages (FEAT_LPA) bits 51:48 are 15:12 of a
 * descriptor; with smaller ones (FEAT_LPA2, VTCR_EL2.DS) bits 51:50 are 9:8, and shareability is
 * VTCR_EL2.SH0.
 *
 * Software bits: 58:55 in a leaf. Frozen: bit 0 clear (not valid, all else ignored), bit 10 set,
 * bit 1: the table's address is still there, bit 11: it comes back, 58:50 the owner.
 */
#ifndef MMU_FORMAT_ARM_S2_H
#define MMU_FORMAT_ARM_S2_H

#include <errno.h>

#include "mmu/format.h"

#define ARM_VALID UINT64_C(0x1)
#define ARM_TYPE  UINT64_C(0x2) /* a table, or a page at the last level; else a block */
#define ARM_WB	  (UINT64_C(0xf) << 2)
#define ARM_R	  (UINT64_C(1) << 6) /* S2AP */
#define ARM_W	  (UINT64_C(1) << 7)
#define ARM_INNER (UINT64_C(3) << 8) /* shareable */
#define ARM_AF	  (UINT64_C(1) << 10)
#define ARM_NT	  (UINT64_C(1) << 16) /* of a block: it is in no TLB (FEAT_BBM level 1) */
#define ARM_XN	  (UINT64_C(3) << 53) /* 10: never executed */
#define ARM_NX	  (UINT64_C(2) << 53)

/* What VTCR_EL2.PS says; 7 is reserved, and counts as 6. */
static inline unsigned arm_pa_bits(unsigned ps)
{
	static const uint8_t sizes[] = {32, 36, 40, 42, 44, 48, 52, 52};

	return sizes[ps & 7];
}

/* VTCR_EL2.PS, or -1 */
static inline int arm_ps(unsigned bits)
{
	for (int i = 0; i < 7; i++) {
		if (arm_pa_bits((unsigned)i) == bits)
			return i;
	}
	return -1;
}

static inline int arm_geometry(struct geometry *out, const struct format_config *c,
			       const char **why)
{
	unsigned ipa = c->input_bits ? c->input_bits : 40;
	unsigned pa = c->output_bits ? c->output_bits : ipa > 48 ? 52 : 48;
	unsigned page = c->page_shift, bits = page - 3, levels, shift;

	if (ipa < 32 || ipa > 52)
		*why = "arm64: an intermediate physical address has 32 to 52 bits";
	else if (arm_ps(pa) < 0)
		*why = "arm64: a host address has 32, 36, 40, 42, 44, 48 or 52 bits (VTCR_EL2.PS)";
	else if (ipa > pa)
		*why = "arm64: an intermediate physical address has no more bits than a host "
		       "address";
	else {
		/* Up to 16 tables side by side save a level; two levels at least. */
		levels = (ipa - 8) / bits < 2 ? 2 : (ipa - 8) / bits;
		shift = bits * levels + 3;
		*out = (struct geometry){
			.levels = (uint8_t)levels,
			.page_shift = (uint8_t)page,
			.index_bits = (uint8_t)bits,
			.root_bits = (uint8_t)(ipa - shift),
			.entry_size = 8,
			.leaf_levels = page == 12 && levels > 2 ? 1 << 1 | 1 << 2 | 1 << 3
								: 1 << 1 | 1 << 2,
			.input_bits = (uint8_t)ipa,
			.output_bits = (uint8_t)pa,
			.options = (uint8_t)(c->options | (pa > 48 ? FORMAT_WIDE : 0)),
		};
		return 0;
	}
	return -EINVAL;
}

static inline bool arm_is_leaf(uint64_t e, unsigned level)
{
	return level == 1 || !(e & ARM_TYPE);
}

mmu_inline bool arm_lpa2(const struct geometry *g)
{
	return __builtin_expect(g->page_shift != 16 && g->options & FORMAT_WIDE, 0);
}

mmu_inline uint64_t arm_pack(const struct geometry *g, uint64_t addr)
{
	if (g->page_shift == 16)
		return (addr & UINT64_C(0xffffffff0000)) | (addr >> 48 & 15) << 12;
	if (arm_lpa2(g))
		return (addr & UINT64_C(0x3fffffffff000)) | (addr >> 50 & 3) << 8;
	return addr & UINT64_C(0xfffffffff000);
}

mmu_inline uint64_t arm_unpack(const struct geometry *g, uint64_t e)
{
	const uint64_t page = ~((UINT64_C(1) << g->page_shift) - 1);

	if (!(e & ARM_TYPE))
		e &= ~ARM_NT;
	if (g->page_shift == 16)
		return (e & UINT64_C(0xffffffff0000)) | (e >> 12 & 15) << 48;
	if (arm_lpa2(g))
		return (e & UINT64_C(0x3ffffffffffff) & page) | (e >> 8 & 3) << 50;
	return e & UINT64_C(0xffffffffffff) & page;
}

static inline uint64_t arm_leaf(const struct geometry *g, unsigned level)
{
	return ARM_VALID | (level == 1 ? ARM_TYPE : 0) | ARM_WB | (arm_lpa2(g) ? 0 : ARM_INNER) |
	       ARM_AF;
}

static inline uint32_t arm_perm(uint64_t e)
{
	return (uint32_t)(e >> 6 & (FORMAT_R | FORMAT_W)) | ((e & ARM_XN) == 0 ? FORMAT_X : 0);
}

static inline uint64_t arm_encode_perm(uint32_t perm)
{
	return (uint64_t)(perm & (FORMAT_R | FORMAT_W)) << 6 | (perm & FORMAT_X ? 0 : ARM_NX);
}

/* VTTBR_EL2 and VTCR_EL2: walks are write-back and inner shareable. */
static inline int arm_registers(const struct geometry *g, uint64_t pa, unsigned vmid,
				struct format_registers *out)
{
	/* SL0 of a root of level 0 (with 4 levels), and TG0; by granule */
	const unsigned sl0 = g->page_shift == 12 ? 2 : 3;
	const unsigned tg0 = g->page_shift == 12 ? 0 : g->page_shift == 16 ? 1 : 2;

	out->root = (pa & UINT64_C(0xffffffffffff)) | (pa >> 48 & 15) << 2 | (uint64_t)vmid << 48;
	out->control = (64u - g->input_bits) | (sl0 - (4u - g->levels)) << 6 | 1 << 8 | 1 << 10 |
		       3 << 12 | tg0 << 14 | (unsigned)arm_ps(g->output_bits) << 16 |
		       (g->options & FORMAT_VMID16 ? 1 << 19 : 0) |
		       (g->options & FORMAT_AD ? 1 << 21 : 0) | UINT64_C(1) << 31 |
		       (arm_lpa2(g) ? UINT64_C(1) << 32 : 0);
	return vmid >> (g->options & FORMAT_VMID16 ? 16 : 8) ? -EINVAL : 0;
}

/* Any set of permissions is legal. With hardware's help only the access flag is set. */
#define ARM_FORMAT(fmt, page)                                                                      \
	static const struct format fmt##_format = {                                                \
		.name = #fmt,                                                                      \
		.break_before_make = true,                                                         \
		.not_cached = ARM_NT,                                                              \
		.frozen_back = 1 << 11,                                                            \
		.page_shift = (page),                                                              \
		.index_bits = (page)-3,                                                            \
		.entry_size = 8,                                                                   \
		.geometry = arm_geometry,                                                          \
		.registers = arm_registers,                                                        \
		.valid = ARM_VALID,                                                                \
		.is_leaf = arm_is_leaf,                                                            \
		.pack = arm_pack,                                                                  \
		.unpack = arm_unpack,                                                              \
		.leaf = arm_leaf,                                                                  \
		.size_bits = ARM_TYPE,                                                             \
		.table = ARM_VALID | ARM_TYPE,                                                     \
		.options = FORMAT_VMID16,                                                          \
		.perms = 0xfe,                                                                     \
		.perm_bits = ARM_R | ARM_W | ARM_XN,                                               \
		.perm = arm_perm,                                                                  \
		.encode_perm = arm_encode_perm,                                                    \
		.accessed = ARM_AF,                                                                \
		.memory_bits = 15 << 2,                                                            \
		.memory = {[FORMAT_WB] = 15 << 2, [FORMAT_NC] = 5 << 2, [FORMAT_IO] = 1 << 2},     \
		.sw_bits = 4,                                                                      \
		.sw_shift = 55,                                                                    \
		.frozen = 1 << 10,                                                                 \
		.frozen_table = 1 << 1,                                                            \
		.owner_bits = 9,                                                                   \
		.owner_shift = 50,                                                                 \
	}

#endif
