/* x86 paging: SDM vol. 3A chapter 4: 32-bit (4.3), PAE (4.4), 4 and 5 levels (4.5), access rights
 * (4.6). Protection keys are not looked at. Entries are those of nested paging. */
#include "mmu/format/npt.h"
#include "mmu/guest/stage1_walk.h"
#include "mmu/guest/x86.h"

static enum guest_fault rights(uint64_t e, struct guest_xlat *out)
{
	out->perm &= npt_perm(e);
	out->user &= e & NPT_US ? npt_perm(e) : 0;
	return GUEST_MAPPED;
}

static enum guest_fault entry64(const struct stage1 *s, struct walk_entry *w,
				struct guest_xlat *out)
{
	const uint64_t e = w->value;
	const unsigned level = w->level;
	const bool pae = s->geo.levels == 3;

	/* bit 12 of a large page is its PAT; NX is reserved where it is off; a PAE table has no
	 * address bits above 51, and nothing else there */
	if (x86_reserved(&s->geo, e, level, 1 << 12) || (e & NPT_NX && !s->nx) ||
	    (pae && e >> 52 & 0x7ff))
		return GUEST_RESERVED;
	if (pae && level == 3) /* no rights; 2:1, 8:5 and 63 are reserved */
		return e & (NPT_NX | 0x1e6) ? GUEST_RESERVED : GUEST_MAPPED;
	return rights(e, out);
}

/* Rewritten as in long mode: bit 7 is PS in a directory and with CR4.PSE only, the PAT of a small
 * page; a page of 4 MiB keeps bits 39:32 of its address in 20:13, and 21 is reserved. */
static enum guest_fault entry32(const struct stage1 *s, struct walk_entry *w,
				struct guest_xlat *out)
{
	const uint64_t e = w->value;

	if (w->level == 1 || !s->pse)
		w->value &= ~X86_LARGE;
	else if (e & X86_LARGE && e & 1 << 21)
		return GUEST_RESERVED;
	else if (e & X86_LARGE)
		w->value = (e & 0xffc00fff) | (e >> 13 & 0xff) << 32;
	return rights(w->value, out);
}

enum guest_fault stage1_x86(const struct guest_paging *p, const struct guest_reader *memory,
			    uint64_t va, struct guest_xlat *out)
{
	const bool pae = p->x86.cr4 >> 5 & 1, lma = p->x86.efer >> 10 & 1;
	const unsigned width = p->gpa_bits ? p->gpa_bits : 52;
	struct stage1 s = {.nx = p->x86.efer >> 11 & 1};
	unsigned levels = !pae ? 2 : !lma ? 3 : p->x86.cr4 >> 12 & 1 ? 5 : 4, bits;

	if (!(p->x86.cr0 >> 31 & 1)) {
		out->gpa = va;
		out->perm = out->user = S2_R | S2_W | S2_X;
		return GUEST_MAPPED;
	}
	if (lma && !pae)
		return GUEST_BAD_ROOT;
	bits = levels > 3 ? 12 + 9 * levels : 32;
	if (levels > 3 ? (uint64_t)((int64_t)(va << (64 - bits)) >> (64 - bits)) != va : va >> 32)
		return GUEST_NOT_CANONICAL;
	s.geo = (struct geometry){
		.levels = (uint8_t)levels,
		.page_shift = 12,
		.index_bits = pae ? 9 : 10,
		.root_bits = levels == 3 ? 2
			     : pae	 ? 9
					 : 10,
		.entry_size = pae ? 8 : 4,
		.leaf_levels = levels > 3 ? 0xe : 0x6, /* 1 GiB, without asking CPUID */
		.input_bits = (uint8_t)bits,
		.output_bits = (uint8_t)width,
	};
	s.f = &npt_format;
	s.pse = p->x86.cr4 >> 4 & 1;
	s.entry = pae ? entry64 : entry32;
	s.root = p->x86.cr3 & (levels > 3 ? X86_ADDR : levels == 3 ? 0xffffffe0 : 0xfffff000);
	return stage1_walk(&s, memory, va, out);
}
