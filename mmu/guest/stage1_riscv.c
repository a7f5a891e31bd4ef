/* RISC-V: Privileged Architecture, Sv39, Sv48, Sv57 (satp, entries, Svnapot, Svpbmt). */
#include "mmu/guest/stage1_walk.h"

#define PTE_V	UINT64_C(0x1)
#define PTE_RWX UINT64_C(0xe)
#define PTE_U	UINT64_C(0x10)
#define PTE_A	UINT64_C(0x40)
#define PTE_D	UINT64_C(0x80)
#define PTE_N	(UINT64_C(1) << 63)

static bool is_leaf(uint64_t e, unsigned level)
{
	return level == 1 || e & PTE_RWX;
}

static uint64_t unpack(const struct geometry *g, uint64_t e)
{
	(void)g;
	return (e & UINT64_C(0x3ffffffffffc00)) << 2;
}

static const struct format stage1_format = {.valid = PTE_V,
					    .is_leaf = is_leaf,
					    .unpack = unpack,
					    .napot = PTE_N,
					    .accessed = PTE_A,
					    .dirty = PTE_D};

static enum guest_fault entry(const struct stage1 *s, struct walk_entry *w, struct guest_xlat *out)
{
	const uint64_t e = w->value;
	const unsigned level = w->level;
	const uint32_t perm = (uint32_t)(e >> 1 & 7);
	const bool napot = e & PTE_N;

	if (e >> 54 & 0x7f || (e >> 61 & 3) == 3)
		return GUEST_RESERVED;
	if (!perm)
		return level == 1 || e & (PTE_N | PTE_U | PTE_A | PTE_D | UINT64_C(3) << 61)
			       ? GUEST_RESERVED
			       : GUEST_MAPPED;
	if (perm == S2_W || perm == (S2_W | S2_X) ||
	    (napot ? level > 1 || (e >> 10 & 15) != 8
		   : unpack(&s->geo, e) & (geometry_size(&s->geo, level) - 1)))
		return GUEST_RESERVED;
	/* The kernel neither executes users' pages nor, without SUM, touches them. */
	out->perm = e & PTE_U ? perm & ~(uint32_t)S2_X : perm;
	out->user = e & PTE_U ? perm : 0;
	return GUEST_MAPPED;
}

enum guest_fault stage1_riscv(const struct guest_paging *p, const struct guest_reader *memory,
			      uint64_t va, struct guest_xlat *out)
{
	const unsigned mode = (unsigned)(p->riscv.satp >> 60), levels = mode - 5;
	const unsigned bits = 12 + 9 * levels;
	struct stage1 s = {.f = &stage1_format, .entry = entry};

	if (!mode) {
		out->gpa = va;
		out->perm = out->user = S2_R | S2_W | S2_X;
		return GUEST_MAPPED;
	}
	if (mode < 8 || mode > 10)
		return GUEST_BAD_ROOT;
	if ((uint64_t)((int64_t)(va << (64 - bits)) >> (64 - bits)) != va)
		return GUEST_NOT_CANONICAL;
	s.geo = (struct geometry){
		.levels = (uint8_t)levels,
		.page_shift = 12,
		.index_bits = 9,
		.root_bits = 9,
		.entry_size = 8,
		.leaf_levels = (uint8_t)((2u << levels) - 2),
		.input_bits = (uint8_t)bits,
		.output_bits = (uint8_t)(p->gpa_bits ? p->gpa_bits : 56),
	};
	s.root = (p->riscv.satp & UINT64_C(0xfffffffffff)) << 12;
	return stage1_walk(&s, memory, va, out);
}
