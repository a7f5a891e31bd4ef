/* x86 paging: SDM vol. 3A chapter 4: 32-bit (4.3), PAE (4.4), 4 and 5 levels (4.5), access rights
 * (4.6). Protection keys are not looked at. */
#include "mmu/guest/stage1_walk.h"

#define PTE_P  UINT64_C(0x1)
#define PTE_W  UINT64_C(0x2)
#define PTE_U  UINT64_C(0x4)
#define PTE_A  UINT64_C(0x20)
#define PTE_D  UINT64_C(0x40)
#define PTE_PS UINT64_C(0x80)
#define PTE_NX (UINT64_C(1) << 63)
#define ADDR   UINT64_C(0x000ffffffffff000)

static bool is_leaf(uint64_t e, unsigned level)
{
	return level == 1 || e & PTE_PS;
}

static uint64_t unpack(const struct geometry *g, uint64_t e)
{
	(void)g;
	return e & ADDR;
}

static const struct format long_mode = {
	.valid = PTE_P, .is_leaf = is_leaf, .unpack = unpack, .accessed = PTE_A, .dirty = PTE_D};

static enum guest_fault rights(uint64_t e, bool nx, struct guest_xlat *out)
{
	uint32_t less = (e & PTE_W ? 0 : S2_W) | (nx ? S2_X : 0);

	out->perm &= ~less;
	out->user &= e & PTE_U ? ~less : 0;
	return GUEST_MAPPED;
}

static enum guest_fault entry64(const struct stage1 *s, struct walk_entry *w,
				struct guest_xlat *out)
{
	const uint64_t e = w->value;
	const unsigned level = w->level;
	const bool pae = s->geo.levels == 3, large = level > 1 && e & PTE_PS;
	uint64_t low = large ? (UINT64_C(1) << geometry_shift(&s->geo, level)) - 1 : 0;

	/* reserved: address bits beyond the width (a PAE table has none above 51 either), NX where
	 * it is off, PS where no page is that large, low address bits but the PAT's */
	if ((e & ADDR) >> s->geo.output_bits || (e & PTE_NX && !s->nx) ||
	    (large && !geometry_has_leaf(&s->geo, level)) || (e & ADDR & low & ~UINT64_C(0x1000)) ||
	    (pae && e >> 52 & 0x7ff))
		return GUEST_RESERVED;
	if (pae && level == 3) /* no rights; 2:1, 8:5 and 63 are reserved */
		return e & (PTE_NX | 0x1e6) ? GUEST_RESERVED : GUEST_MAPPED;
	return rights(e, e & PTE_NX, out);
}

/* Rewritten as in long mode: bit 7 is PS in a directory and with CR4.PSE only, the PAT of a small
 * page; a page of 4 MiB keeps bits 39:32 of its address in 20:13, and 21 is reserved. */
static enum guest_fault entry32(const struct stage1 *s, struct walk_entry *w,
				struct guest_xlat *out)
{
	const uint64_t e = w->value;

	if (w->level == 1 || !s->pse)
		w->value &= ~PTE_PS;
	else if (e & PTE_PS && e & 1 << 21)
		return GUEST_RESERVED;
	else if (e & PTE_PS)
		w->value = (e & 0xffc00fff) | (e >> 13 & 0xff) << 32;
	return rights(e, false, out);
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
	s.f = &long_mode;
	s.pse = p->x86.cr4 >> 4 & 1;
	s.entry = pae ? entry64 : entry32;
	s.root = p->x86.cr3 & (levels > 3 ? ADDR : levels == 3 ? 0xffffffe0 : 0xfffff000);
	return stage1_walk(&s, memory, va, out);
}
