/* Nested paging: APM vol. 2 15.25.3 to 15.25.6 (nCR3, user accesses), 5.3 (long-mode entries). The
 * number of levels is the host's, so it is given. */
#ifndef NPT_DECODER_H
#define NPT_DECODER_H

#include "tests/unit/decoder.h"

static inline void npt_open(struct dec_shape *s, uint64_t ncr3, uint64_t control)
{
	s->root = dec_bits(ncr3, 51, 12) << 12;
	s->page_shift = 12;
	s->index_bits = s->root_bits = 9;
	s->entry_bytes = 8;
	s->input_bits = 12 + 9 * s->levels;
	if (control || dec_bits(ncr3, 11, 5) || dec_bits(ncr3, 2, 0) || dec_bits(ncr3, 63, 52) ||
	    dec_bits(ncr3, 51, s->pa_bits))
		s->why = "nCR3: reserved bits";
}

static inline void npt_entry(const struct dec_shape *s, unsigned level, uint64_t e,
			     struct dec_entry *out)
{
	bool large = level > 1 && dec_bits(e, 7, 7), leaf = level == 1 || large;
	uint64_t pat = dec_bits(e, 4, 3);

	if (!dec_bits(e, 0, 0))
		return;
	out->kind = DEC_BAD;
	out->r = true;
	out->w = dec_bits(e, 1, 1);
	out->x = !dec_bits(e, 63, 63);
	out->pa = dec_bits(e, 51, 12) << 12;
	if (dec_bits(e, 51, s->pa_bits))
		out->why = "address bits beyond the physical address width";
	else if (large && level > 3)
		out->why = "PS in a level 4 or 5 entry";
	else if (large && dec_bits(e, 12 + 9 * (level - 1) - 1, 13))
		out->why = "reserved address bits of a large page";
	else if (!dec_bits(e, 2, 2))
		out->why = "a supervisor page: every guest access is a user access";
	else
		out->kind = leaf ? DEC_LEAF : DEC_TABLE;
	/* PAT after reset: 0 WB, 1 WT, 2 UC-, 3 UC. Bit 7 of a small, bit 12 of a large page. */
	out->memory = pat == 0 ? 'W' : pat == 2 ? 'N' : pat == 3 ? 'D' : '?';
	if (leaf && (large ? dec_bits(e, 12, 12) : dec_bits(e, 7, 7)))
		out->memory = '?';
	out->accessed = dec_bits(e, 5, 5);
	out->dirty = dec_bits(e, 6, 6);
}

static const struct decoder npt_decoder = {"npt", npt_open, npt_entry};

#endif
