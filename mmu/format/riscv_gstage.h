/*
 * RISC-V G-stage: Privileged Architecture, chapter "H" Extension, hgatp and two-stage translation;
 * entries as in Sv32, Sv39, Sv48 and Sv57, with Svnapot and Svpbmt. Two formats: riscv64_format,
 * riscv32_format (Sv32x4: entries of 4 bytes, 10 index bits). The root is four tables wide. Every
 * level may hold leaves. After any change a fence is enough.
 *
 * Software bits: 9:8 in a leaf. Frozen: V clear (all else ignored), bit 1 set, bit 2: the table's
 * address is still there, bit 3: it comes back; the owner in 62:54, or in 9:4 of 32-bit entries.
 */
#ifndef MMU_FORMAT_RISCV_GSTAGE_H
#define MMU_FORMAT_RISCV_GSTAGE_H

#include <errno.h>

#include "mmu/format.h"

#define RISCV_V	   UINT64_C(0x1)
#define RISCV_RWX  UINT64_C(0xe)
#define RISCV_U	   UINT64_C(0x10) /* a G-stage leaf is a user page */
#define RISCV_A	   UINT64_C(0x40)
#define RISCV_D	   UINT64_C(0x80)
#define RISCV_PPN  UINT64_C(0x003ffffffffffc00)
#define RISCV_PBMT (UINT64_C(3) << 61)
#define RISCV_N	   (UINT64_C(1) << 63)

static inline int riscv_geometry(struct geometry *out, const struct format_config *c,
				 const char **why)
{
	const bool sv32 = c->levels == 2;
	const unsigned bits = sv32 ? 10 : 9, width = 12 + bits * c->levels + 2, pa = sv32 ? 34 : 56;
	unsigned input = c->input_bits ? c->input_bits : width;
	unsigned output = c->output_bits ? c->output_bits : pa;

	if (c->levels < 2 || c->levels > 5)
		*why = "RISC-V: a G-stage has 2 (Sv32x4) to 5 (Sv57x4) levels";
	else if (input < 13 || input > width)
		*why = "RISC-V: a guest-physical address has 13 to 34 (Sv32x4), 41 (Sv39x4), 50 "
		       "(Sv48x4) or 59 (Sv57x4) bits";
	else if (output < 32 || output > pa)
		*why = "RISC-V: a host address has 32 to 56 bits (Sv32x4: 34)";
	else {
		*out = (struct geometry){
			.levels = (uint8_t)c->levels,
			.page_shift = 12,
			.index_bits = (uint8_t)bits,
			.root_bits = (uint8_t)(bits + 2),
			.entry_size = sv32 ? 4 : 8,
			.leaf_levels = (uint8_t)((2u << c->levels) - 2),
			.input_bits = (uint8_t)input,
			.output_bits = (uint8_t)output,
			.options = (uint8_t)c->options,
		};
		return 0;
	}
	return -EINVAL;
}

static inline bool riscv_is_leaf(uint64_t e, unsigned level)
{
	return level == 1 || e & RISCV_RWX;
}

static inline uint64_t riscv_pack(const struct geometry *g, uint64_t addr)
{
	return addr >> 2 & (g->entry_size == 4 ? UINT64_C(0xfffffc00) : RISCV_PPN);
}

static inline uint64_t riscv_unpack(const struct geometry *g, uint64_t e)
{
	(void)g;
	return (e & RISCV_PPN) << 2;
}

static inline uint64_t riscv_leaf(const struct geometry *g, unsigned level)
{
	(void)level;
	return RISCV_V | RISCV_U | (g->options & FORMAT_AD ? 0 : RISCV_A | RISCV_D);
}

static inline uint32_t riscv_perm(uint64_t e)
{
	return (uint32_t)(e & RISCV_RWX) >> 1;
}

static inline uint64_t riscv_encode_perm(uint32_t perm)
{
	return perm << 1;
}

/* hgatp */
static inline int riscv_registers(const struct geometry *g, uint64_t pa, unsigned vmid,
				  struct format_registers *out)
{
	if (g->entry_size == 4)
		out->root = UINT64_C(1) << 31 | (uint64_t)vmid << 22 | pa >> 12;
	else
		out->root = (uint64_t)(g->levels + 5) << 60 | (uint64_t)vmid << 44 | pa >> 12;
	out->control = 0;
	return vmid >> (g->entry_size == 4 ? 7 : 14) ? -EINVAL : 0;
}

/* W without R is reserved. What differs between the two widths is said where they are defined. */
#define RISCV_COMMON                                                                               \
	.page_shift = 12, .geometry = riscv_geometry, .registers = riscv_registers,                \
	.valid = RISCV_V, .is_leaf = riscv_is_leaf, .pack = riscv_pack, .unpack = riscv_unpack,    \
	.leaf = riscv_leaf, .table = RISCV_V, .perms = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7, \
	.perm_bits = RISCV_RWX, .perm = riscv_perm, .encode_perm = riscv_encode_perm,              \
	.accessed = RISCV_A, .dirty = RISCV_D, .sw_bits = 2, .sw_shift = 8, .frozen = 1 << 1,      \
	.frozen_table = 1 << 2, .frozen_back = 1 << 3

static const struct format riscv64_format = {
	RISCV_COMMON,
	.name = "riscv64",
	.index_bits = 9,
	.root_bits = 11,
	.entry_size = 8,
	.memory_bits = RISCV_PBMT,
	.memory = {[FORMAT_NC] = UINT64_C(1) << 61, [FORMAT_IO] = UINT64_C(2) << 61},
	.options = FORMAT_PBMT | FORMAT_NAPOT,
	.memory_option = FORMAT_PBMT,
	.napot = RISCV_N,
	.owner_bits = 9,
	.owner_shift = 54,
};

/* No room for Svpbmt and Svnapot. */
static const struct format riscv32_format = {
	RISCV_COMMON,	 .name = "riscv32", .index_bits = 10, .root_bits = 12,
	.entry_size = 4, .owner_bits = 6,   .owner_shift = 4,
};

#endif
