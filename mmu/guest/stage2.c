#include "mmu/guest/stage2.h"

int guest_stage2_parse(struct guest_stage2 *out, const struct nested_rules *rules,
		       const struct s2_guest_root *regs, const char **why)
{
	int err;

	*out = (struct guest_stage2){0};
	switch (rules->format) {
	case S2_EPT4:
	case S2_EPT5: err = nested_parse_ept(out, rules, regs, why); break;
	case S2_NPT4:
	case S2_NPT5: err = nested_parse_npt(out, rules, regs, why); break;
	case S2_ARM64_4K:
	case S2_ARM64_16K:
	case S2_ARM64_64K: err = nested_parse_arm(out, rules, regs, why); break;
	default: err = nested_parse_riscv(out, rules, regs, why);
	}
	if (regs->off) { /* only the VMID counts; the caller says in what pieces */
		out->off = true;
		return 0;
	}
	return err;
}

struct walk_guest {
	const struct guest_stage2 *s;
	const struct guest_stage2_reader *reader;
	uint32_t perm;	/* of the tables so far */
	uint64_t entry; /* gpa of the last one */
	uint64_t accessed;
	enum s2_stage_fault fault;
};

enum { WALK_FAULT = -4096 }; /* in walk_guest.fault: no reader returns that */

static int walk_fault(struct walk_guest *walk, enum s2_stage_fault fault)
{
	walk->fault = fault;
	return WALK_FAULT;
}

/* Sets bits in an entry as hardware does. */
static int set_bits(struct walk_guest *walk, struct walk_entry *w, uint64_t bits)
{
	const struct guest_stage2_reader *r = walk->reader;
	int err;

	if (!(bits & ~w->value))
		return 0;
	err = r->cas(r->opaque, walk->entry, walk->s->geo.entry_size, w->value, w->value | bits);
	if (err < 0)
		return walk_fault(walk, S2_FAULT_TABLE);
	if (!err)
		w->value |= bits;
	return err;
}

static int load_guest(void *opaque, uint64_t table, size_t index, struct walk_entry *w)
{
	struct walk_guest *walk = opaque;
	const struct geometry *g = &walk->s->geo;
	const struct nested_format *n = walk->s->n;
	enum s2_stage_fault fault;
	int err;

	walk->entry = table + index * g->entry_size;
	w->entry = NULL;
	err = walk->reader->load(walk->reader->opaque, walk->entry, g->entry_size, &w->value);
	if (err < 0)
		return walk_fault(walk, S2_FAULT_TABLE);
	if (err > 0)
		return err;
	if (!(w->value & n->f->valid))
		return walk_fault(walk, S2_FAULT_TRANSLATION);
	fault = n->check(g, w->value, w->level);
	if (!fault && format_addr(n->f, g, w->value) >> g->output_bits)
		fault = S2_FAULT_SIZE;
	if (fault)
		return walk_fault(walk, fault);
	if (format_kind(n->f, w->value, w->level) != ENTRY_TABLE)
		return 0;
	if (n->table_perms)
		walk->perm &= n->f->perm(w->value);
	/* Only x86 has an accessed bit in a table's entry; others forbid it. */
	return walk->s->set_ad && n->table_perms ? set_bits(walk, w, n->f->accessed) : 0;
}

/* The walk has ended at a leaf. */
static int finish_leaf(struct walk_guest *walk, struct walk_entry *w, uint64_t ngpa,
		       uint32_t access, struct guest_leaf *out)
{
	const struct nested_format *n = walk->s->n;
	const struct geometry *g = &walk->s->geo;
	uint64_t ad = n->f->accessed | (access & S2_W ? n->f->dirty : 0), mask;
	int err;

	out->shift = format_leaf_shift(n->f, g, w->value, w->level);
	mask = (UINT64_C(1) << out->shift) - 1;
	out->gpa = (format_addr(n->f, g, w->value) & ~mask) | (ngpa & mask);
	out->granted = out->perm = n->f->perm(w->value) & walk->perm;
	if (!walk->s->set_ad && n->a_faults && n->f->accessed & ~w->value)
		out->fault = S2_FAULT_ACCESS_FLAG;
	else if (access & ~out->perm)
		out->fault = S2_FAULT_PERMISSION;
	else if (!walk->s->set_ad && n->d_faults && access & S2_W && n->f->dirty & ~w->value)
		out->fault = S2_FAULT_ACCESS_FLAG;
	if (out->fault)
		return 0;
	if (walk->s->set_ad) {
		err = set_bits(walk, w, ad);
		if (err)
			return err;
	}
	if ((walk->s->set_ad || n->d_faults) && n->f->dirty & ~w->value)
		out->perm &= ~(uint32_t)S2_W;
	return 0;
}

int guest_stage2_walk(const struct guest_stage2 *s, const struct guest_stage2_reader *reader,
		      uint64_t ngpa, uint32_t access, struct guest_leaf *out)
{
	struct walk_guest walk = {.s = s, .reader = reader, .perm = S2_R | S2_W | S2_X};
	struct walk_entry w = {0};
	int err;

	*out = (struct guest_leaf){.level = s->geo.levels};
	if (s->off) {
		unsigned level = s->geo.levels;

		while (!geometry_has_leaf(&s->geo, level))
			level--;
		*out = (struct guest_leaf){.gpa = ngpa,
					   .perm = 7,
					   .granted = 7,
					   .level = level,
					   .shift = geometry_shift(&s->geo, level)};
		return 0;
	}
	if (ngpa > geometry_max(&s->geo)) {
		out->fault = S2_FAULT_TRANSLATION;
		if (s->n->beyond_level)
			out->level = s->n->beyond_level;
		return 0;
	}
	err = walk_down(s->n->f, &s->geo, s->root, ngpa, load_guest, &walk, &w);
	out->level = w.level;
	if (!err)
		err = finish_leaf(&walk, &w, ngpa, access, out);
	if (err)
		out->gpa = walk.entry;
	if (err == WALK_FAULT) {
		out->fault = walk.fault;
		err = 0;
	}
	return err;
}
