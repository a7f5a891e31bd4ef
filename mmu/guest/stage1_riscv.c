/* RISC-V: Privileged Architecture, Sv39, Sv48, Sv57 (satp, entries, Svnapot, Svpbmt). */
#include "mmu/guest/riscv.h"
#include "mmu/guest/stage1_walk.h"

static enum guest_fault entry(const struct stage1 *s, struct walk_entry *w, struct guest_xlat *out)
{
	const uint64_t e = w->value;
	const uint32_t perm = riscv_perm(e);

	if (riscv_reserved(&s->geo, e, w->level))
		return GUEST_RESERVED;
	if (!perm) /* a table */
		return GUEST_MAPPED;
	/* The kernel neither executes users' pages nor, without SUM, touches them. */
	out->perm = e & RISCV_U ? perm & ~(uint32_t)S2_X : perm;
	out->user = e & RISCV_U ? perm : 0;
	return GUEST_MAPPED;
}

enum guest_fault stage1_riscv(const struct guest_paging *p, const struct guest_reader *memory,
			      uint64_t va, struct guest_xlat *out)
{
	const unsigned mode = (unsigned)(p->riscv.satp >> 60), levels = mode - 5;
	const unsigned bits = 12 + 9 * levels;
	const struct format_config c = {
		.levels = levels,
		.output_bits = p->gpa_bits < 56 ? p->gpa_bits : 56,
		.options = FORMAT_PBMT | FORMAT_NAPOT,
	};
	const char *why;
	struct stage1 s = {.f = &riscv64_format, .entry = entry};

	if (!mode) {
		out->gpa = va;
		out->perm = out->user = S2_R | S2_W | S2_X;
		return GUEST_MAPPED;
	}
	if (mode < 8 || mode > 10)
		return GUEST_BAD_ROOT;
	if ((uint64_t)((int64_t)(va << (64 - bits)) >> (64 - bits)) != va)
		return GUEST_NOT_CANONICAL;
	if (riscv_geometry(&s.geo, &c, &why))
		return GUEST_BAD_ROOT;
	s.geo.root_bits -= 2; /* a G-stage is that much wider */
	s.geo.input_bits -= 2;
	s.root = (p->riscv.satp & UINT64_C(0xfffffffffff)) << 12;
	return stage1_walk(&s, memory, va, out);
}
