/* RISC-V G-stage: privileged specification, hgatp, "Two-Stage Address Translation", Sv32 to Sv57,
 * Svnapot, Svpbmt. riscv64_decoder: XLEN 64. */
#ifndef RISCV_DECODER_H
#define RISCV_DECODER_H

#include "tests/unit/decoder.h"

static inline void riscv64_open(struct dec_shape *s, uint64_t hgatp, uint64_t control)
{
	unsigned mode = (unsigned)dec_bits(hgatp, 63, 60);

	s->levels = mode == 8 ? 3 : mode == 9 ? 4 : 5;
	s->page_shift = 12;
	s->index_bits = 9;
	s->root_bits = 11;
	s->entry_bytes = 8;
	s->input_bits = mode == 8 ? 41 : mode == 9 ? 50 : 59;
	s->root = dec_bits(hgatp, 43, 0) << 12;
	if (mode < 8 || mode > 10 || dec_bits(hgatp, 59, 58) || control)
		s->why = "hgatp: mode or reserved bits";
	else if (dec_bits(hgatp, 1, 0))
		s->why = "hgatp: the root is 16 KiB";
}

static inline void riscv32_open(struct dec_shape *s, uint64_t hgatp, uint64_t control)
{
	s->levels = 2;
	s->page_shift = 12;
	s->index_bits = 10;
	s->root_bits = 12;
	s->entry_bytes = 4;
	s->input_bits = 34;
	s->root = dec_bits(hgatp, 21, 0) << 12;
	if (dec_bits(hgatp, 63, 31) != 1 || dec_bits(hgatp, 30, 29) || control)
		s->why = "hgatp: mode or reserved bits";
	else if (dec_bits(hgatp, 1, 0))
		s->why = "hgatp: the root is 16 KiB";
}

static inline void riscv_entry(const struct dec_shape *s, unsigned level, uint64_t e,
			       struct dec_entry *out)
{
	bool rv64 = s->entry_bytes == 8, leaf = dec_bits(e, 3, 1) != 0;
	uint64_t ppn = rv64 ? dec_bits(e, 53, 10) : dec_bits(e, 31, 10);
	uint64_t pbmt = rv64 ? dec_bits(e, 62, 61) : 0;
	bool n = rv64 && dec_bits(e, 63, 63);

	if (!dec_bits(e, 0, 0))
		return;
	out->kind = DEC_BAD;
	out->r = !leaf || dec_bits(e, 1, 1);
	out->w = !leaf || dec_bits(e, 2, 2);
	out->x = !leaf || dec_bits(e, 3, 3);
	out->accessed = dec_bits(e, 6, 6);
	out->dirty = dec_bits(e, 7, 7);
	if (dec_bits(e, 2, 2) && !dec_bits(e, 1, 1))
		out->why = "W without R is reserved";
	else if (rv64 && dec_bits(e, 60, 54))
		out->why = "reserved bits 60:54";
	else if (pbmt && (!s->pbmt || pbmt == 3))
		out->why = "PBMT without Svpbmt, or reserved";
	else if (n && !s->napot)
		out->why = "N without Svnapot";
	else if (!leaf && (dec_bits(e, 7, 6) || dec_bits(e, 4, 4) || n || pbmt))
		out->why = "D, A, U, PBMT or N in a non-leaf";
	else if (!leaf && level == 1)
		out->why = "non-leaf at the last level";
	else if (leaf && level > 1 && dec_bits(ppn, s->index_bits * (level - 1) - 1, 0))
		out->why = "misaligned superpage";
	else if (n && (level > 1 || dec_bits(ppn, 3, 0) != 8))
		out->why = "N: reserved encoding";
	else if (leaf && !dec_bits(e, 4, 4))
		out->why = "not a user page";
	else if (leaf && !s->hardware_ad && out->w && !out->dirty)
		out->why = "D clear and no hardware to set it";
	else if (ppn << 12 >> s->pa_bits)
		out->why = "address beyond memory";
	else if (leaf && !s->hardware_ad && !out->accessed)
		out->kind = DEC_IDLE;
	else
		out->kind = leaf ? DEC_LEAF : DEC_TABLE;
	if (n) {
		out->napot = 4;
		ppn &= ~15ull;
	}
	out->pa = ppn << 12;
	out->memory = "WND?"[pbmt];
}

static const struct decoder riscv64_decoder = {"riscv64", riscv64_open, riscv_entry};
static const struct decoder riscv32_decoder = {"riscv32", riscv32_open, riscv_entry};

#endif
