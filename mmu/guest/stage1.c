#include "mmu/guest/stage1_walk.h"

struct walk_stage1 {
	const struct stage1 *s;
	const struct guest_reader *memory;
	struct guest_xlat *out;
};

static int load(void *opaque, uint64_t table, size_t index, struct walk_entry *w)
{
	struct walk_stage1 *walk = opaque;
	const struct geometry *g = &walk->s->geo;
	struct guest_xlat *out = walk->out;
	uint64_t at = table + index * g->entry_size;

	w->entry = NULL;
	if (at >> g->output_bits ||
	    walk->memory->load(walk->memory->opaque, at, g->entry_size, &w->value))
		return GUEST_NO_MEMORY;
	out->step[out->steps].level = w->level;
	out->step[out->steps].gpa = at;
	out->step[out->steps++].value = w->value;
	if (!(w->value & walk->s->f->valid))
		return GUEST_NOT_PRESENT;
	return (int)walk->s->entry(walk->s, w, out);
}

enum guest_fault stage1_walk(const struct stage1 *s, const struct guest_reader *memory, uint64_t va,
			     struct guest_xlat *out)
{
	struct walk_stage1 walk = {.s = s, .memory = memory, .out = out};
	struct walk_entry w = {0};
	uint64_t mask, base;

	out->levels = s->geo.levels;
	out->perm = out->user = S2_R | S2_W | S2_X;
	out->fault = (enum guest_fault)walk_down(s->f, &s->geo, s->root, va, load, &walk, &w);
	if (out->fault)
		return out->fault;
	out->size = UINT64_C(1) << format_leaf_shift(s->f, &s->geo, w.value, w.level);
	mask = out->size - 1;
	base = format_addr(s->f, &s->geo, w.value) & ~mask;
	if (base >> s->geo.output_bits)
		return out->fault = GUEST_RESERVED;
	out->gpa = base | (va & mask);
	out->accessed = w.value & s->f->accessed;
	out->dirty = w.value & s->f->dirty;
	return GUEST_MAPPED;
}

enum guest_fault guest_translate(const struct guest_paging *paging,
				 const struct guest_reader *memory, uint64_t va,
				 struct guest_xlat *out)
{
	*out = (struct guest_xlat){0};
	switch (paging->arch) {
	case GUEST_X86: out->fault = stage1_x86(paging, memory, va, out); break;
	case GUEST_ARM64: out->fault = stage1_arm(paging, memory, va, out); break;
	default: out->fault = stage1_riscv(paging, memory, va, out);
	}
	return out->fault;
}
