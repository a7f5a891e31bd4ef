/* EPT: SDM vol. 3C 25.6.11 (EPTP), 29.3.2 (tables), 29.3.3 (violations, misconfigurations). */
#ifndef EPT_DECODER_H
#define EPT_DECODER_H

#include "tests/unit/decoder.h"

static inline void ept_open(struct dec_shape *s, uint64_t eptp, uint64_t control)
{
	(void)control;
	s->levels = (unsigned)dec_bits(eptp, 5, 3) + 1;
	s->root = dec_bits(eptp, 51, 12) << 12;
	s->page_shift = 12;
	s->index_bits = s->root_bits = 9;
	s->entry_bytes = 8;
	s->input_bits = 12 + 9 * s->levels;
	s->hardware_ad = dec_bits(eptp, 6, 6);
	if ((dec_bits(eptp, 2, 0) != 6 && dec_bits(eptp, 2, 0) != 0) ||
	    (s->levels != 4 && s->levels != 5) || dec_bits(eptp, 11, 7) ||
	    dec_bits(eptp, 63, s->pa_bits))
		s->why = "EPTP: memory type, walk length or reserved bits";
}

static inline void ept_entry(const struct dec_shape *s, unsigned level, uint64_t e,
			     struct dec_entry *out)
{
	bool leaf = level == 1 || (level <= 3 && dec_bits(e, 7, 7));
	uint64_t type = dec_bits(e, 5, 3);
	bool idle;

	/* 29.3.2: not present if bits 2:0 are all 0 */
	if (!dec_bits(e, 2, 0) && (!dec_bits(e, 63, 61) || !leaf))
		return;
	idle = !dec_bits(e, 2, 0);
	if (idle) /* software's, see mmu/format/ept.h */
		e = dec_bits(e, 60, 3) << 3 | dec_bits(e, 63, 61);
	out->kind = DEC_BAD;
	out->r = dec_bits(e, 0, 0);
	out->w = dec_bits(e, 1, 1);
	out->x = dec_bits(e, 2, 2);
	out->pa = dec_bits(e, 51, 12) << 12;
	/* 29.3.3.1 */
	if (out->w && !out->r)
		out->why = "writable but not readable";
	else if (out->x && !out->r && !s->exec_only)
		out->why = "execute-only, which is not supported";
	else if (dec_bits(e, 51, s->pa_bits))
		out->why = "address bits beyond the physical address width";
	else if (leaf && (type == 2 || type == 3 || type == 7))
		out->why = "reserved memory type";
	else if (leaf && level > 1 && dec_bits(e, 12 + 9 * (level - 1) - 1, 12))
		out->why = "reserved address bits of a large page";
	else if (!leaf && dec_bits(e, 7, 3))
		out->why = "reserved bits 7:3 of an entry that references a table";
	else if (idle && s->hardware_ad)
		out->why = "idle, where A tells";
	else
		out->kind = idle ? DEC_IDLE : leaf ? DEC_LEAF : DEC_TABLE;
	out->memory = type == 6 ? 'W' : type == 1 ? 'N' : type == 0 ? 'D' : '?';
	if (leaf && dec_bits(e, 6, 6))
		out->memory = '?'; /* ignores the guest's PAT */
	out->accessed = dec_bits(e, 8, 8);
	out->dirty = dec_bits(e, 9, 9);
}

static const struct decoder ept_decoder = {"ept", ept_open, ept_entry};

#endif
