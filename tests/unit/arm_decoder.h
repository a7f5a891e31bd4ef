/* arm64 stage 2: Arm ARM D24.2 (VTCR_EL2, VTTBR_EL2), D8.2 and D8.3 (lookup levels, descriptors),
 * D8.4 (permissions). */
#ifndef ARM_DECODER_H
#define ARM_DECODER_H

#include "tests/unit/decoder.h"

static inline void arm_open(struct dec_shape *s, uint64_t vttbr, uint64_t vtcr)
{
	static const unsigned pa_sizes[8] = {32, 36, 40, 42, 44, 48, 52, 0};
	/* first level of the walk by granule and SL0; 9: reserved */
	static const unsigned start[3][4] = {{2, 1, 0, 9}, {3, 2, 1, 0}, {3, 2, 1, 9}};
	static const unsigned granules[4] = {12, 16, 14, 0}; /* TG0 */
	unsigned tg = granules[dec_bits(vtcr, 15, 14)], row = tg == 12 ? 0 : tg == 14 ? 1 : 2;
	unsigned sl0 = (unsigned)dec_bits(vtcr, 7, 6), first = start[row][sl0], low;
	bool ds = dec_bits(vtcr, 32, 32);
	uint64_t align;

	s->pa_bits = pa_sizes[dec_bits(vtcr, 18, 16)];
	s->page_shift = tg;
	s->index_bits = tg - 3;
	s->entry_bytes = 8;
	s->input_bits = 64 - (unsigned)dec_bits(vtcr, 5, 0);
	s->wide = tg == 16 ? s->pa_bits == 52 : ds;
	s->hardware_ad = dec_bits(vtcr, 21, 21);
	s->levels = 4 - first;
	low = s->page_shift + s->index_bits * (s->levels - 1);
	s->root_bits = s->input_bits - low;
	s->root = dec_bits(vttbr, 47, 6) << 6;
	if (s->pa_bits == 52)
		s->root = (s->root & ~0x3full) | dec_bits(vttbr, 5, 2) << 48;
	align = 8ull << s->root_bits;
	if (!tg || first == 9 || !s->pa_bits)
		s->why = "VTCR_EL2: reserved granule, start level or physical size";
	else if (!dec_bits(vtcr, 31, 31))
		s->why = "VTCR_EL2: bit 31 is RES1";
	else if (dec_bits(vtcr, 63, 33) || dec_bits(vtcr, 30, 22) || dec_bits(vtcr, 20, 20))
		s->why = "VTCR_EL2: a feature that nobody asked for";
	else if (dec_bits(vtcr, 9, 8) != 1 || dec_bits(vtcr, 11, 10) != 1 ||
		 dec_bits(vtcr, 13, 12) != 3)
		s->why = "VTCR_EL2: walks are not write-back and inner shareable";
	else if (tg == 16 && ds)
		s->why = "VTCR_EL2: DS is RES0 with 64 KiB pages";
	else if (s->input_bits > 48 && !s->wide)
		s->why = "VTCR_EL2: more than 48 bits need LPA2, or LPA with 64 KiB pages";
	else if (tg == 14 && first == 0 && !ds)
		s->why = "VTCR_EL2: level 0 with 16 KiB pages needs LPA2";
	else if (s->pa_bits == 52 && !s->wide)
		s->why = "VTCR_EL2: 52 bits of physical address without LPA2";
	else if (s->input_bits > s->pa_bits)
		s->why = "VTCR_EL2: IPA wider than PA";
	else if (s->input_bits <= low || s->root_bits > s->index_bits + 4)
		s->why = "VTCR_EL2: start level does not fit T0SZ";
	else if (s->root & (align - 1) || s->root >> s->pa_bits)
		s->why = "VTTBR_EL2: root misaligned or too high";
}

static inline void arm_entry(const struct dec_shape *s, unsigned level, uint64_t e,
			     struct dec_entry *out)
{
	unsigned low = s->page_shift + s->index_bits * (level - 1);
	bool bit1 = dec_bits(e, 1, 1), leaf = level == 1 || !bit1;
	uint64_t xn = dec_bits(e, 54, 53);
	bool block_ok;

	if (!dec_bits(e, 0, 0))
		return;
	/* table D8-: 4K: levels 1 and 2 (0 with LPA2); 16K: 2 (1 with LPA2); 64K: 2 (1 with LPA) */
	if (s->page_shift == 12)
		block_ok = level == 2 || level == 3 || (level == 4 && s->wide);
	else
		block_ok = level == 2 || (level == 3 && s->wide);
	out->kind = DEC_BAD;
	if (s->page_shift == 16) {
		out->pa = dec_bits(e, 47, 16) << 16;
		if (s->wide)
			out->pa |= dec_bits(e, 15, 12) << 48;
	} else if (s->wide) {
		out->pa = dec_bits(e, 49, s->page_shift) << s->page_shift | dec_bits(e, 9, 8) << 50;
	} else {
		out->pa = dec_bits(e, 47, s->page_shift) << s->page_shift;
	}
	if (leaf && level > 1)
		out->pa &= ~(1ull << 16); /* nT */
	if (level == 1 && !bit1)
		out->why = "reserved descriptor at the last level";
	else if (leaf && level > 1 && !block_ok)
		out->why = "no block at this level";
	else if (out->pa >> s->pa_bits)
		out->why = "address size";
	else if (leaf && out->pa & ((1ull << low) - 1))
		out->why = "RES0 address bits of a block";
	else if (s->page_shift != 16 && dec_bits(e, s->page_shift - 1, 12))
		out->why = "RES0 bits below the granule";
	else if (s->page_shift == 16 && !s->wide && dec_bits(e, 15, 12))
		out->why = "RES0 bits 15:12";
	else if (!s->wide && dec_bits(e, 50, 48))
		out->why = "RES0 bits 50:48";
	else if (leaf && (dec_bits(e, 52, 51) || xn == 1 || xn == 3))
		out->why = "contiguous, DBM or split execute-never, which nobody asked for";
	else if (leaf && !(s->wide && s->page_shift != 16) && dec_bits(e, 9, 8) != 3)
		out->why = "not inner shareable";
	else if (!leaf && dec_bits(e, 11, 10))
		out->why = "attributes in a table descriptor";
	else if (leaf && !dec_bits(e, 10, 10) && !s->hardware_ad)
		out->kind = DEC_IDLE; /* access flag fault */
	else
		out->kind = leaf ? DEC_LEAF : DEC_TABLE;
	out->r = leaf ? dec_bits(e, 6, 6) : 1;
	out->w = leaf ? dec_bits(e, 7, 7) : 1;
	out->x = leaf ? xn == 0 : 1;
	out->accessed = dec_bits(e, 10, 10);
	out->dirty = out->w;
	switch (dec_bits(e, 5, 2)) {
	case 15: out->memory = 'W'; break;
	case 5: out->memory = 'N'; break;
	case 1: out->memory = 'D'; break;
	default: out->memory = '?';
	}
}

static const struct decoder arm_decoder = {"arm", arm_open, arm_entry};

#endif
