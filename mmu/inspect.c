/* Walks and dumps for people. Not hot: one copy for all formats, with calls through the format. */
#include "mmu/inspect.h"

#include "mmu/internal.h"
#include "mmu/rcu.h"

_Static_assert((int)S2_WALK_MAX == (int)MMU_MAX_LEVELS, "a step per level");
_Static_assert((int)S2_ENTRY_FROZEN == (int)ENTRY_FROZEN && (int)S2_MEMORY_IO == (int)FORMAT_IO,
	       "the same");

static const char *const kinds[] = {"none", "table", "leaf", "frozen"};
static const char *const types[] = {"write-back", "not-cached", "device"};

const char *s2_entry_kind_name(enum s2_entry_kind kind)
{
	return (unsigned)kind <= S2_ENTRY_FROZEN ? kinds[kind] : "unknown";
}

const char *s2_memory_name(enum s2_memory_type type)
{
	return (unsigned)type <= S2_MEMORY_IO ? types[type] : "unknown";
}

static enum s2_memory_type memory_type(const struct format *f, uint64_t value)
{
	for (unsigned type = FORMAT_WB; f->memory_bits && type < FORMAT_MEMORY_TYPES; type++) {
		if ((value & f->memory_bits) == f->memory[type])
			return (enum s2_memory_type)type;
	}
	return S2_MEMORY_WB;
}

static struct s2_entry decode(const struct format *f, const struct geometry *g,
			      const struct walk_entry *w)
{
	struct s2_entry e = {
		.raw = w->value, .level = w->level, .kind = (enum s2_entry_kind)w->kind};
	uint64_t pa;

	if (w->kind == ENTRY_TABLE || w->kind == ENTRY_LEAF)
		e.addr = format_addr(f, g, w->value);
	else if (w->kind == ENTRY_FROZEN && format_frozen_table(f, g, w->value, &pa))
		e.addr = pa;
	if (w->kind == ENTRY_LEAF) {
		uint64_t young = format_young(f, g, w->value);

		e.perm = f->perm(young);
		e.accessed = young == w->value;
		e.dirty = format_ad(f, w->value) & FORMAT_D;
		e.memory = memory_type(f, w->value);
		e.software = format_sw(f, w->value);
	}
	return e;
}

int s2_inspect_walk(struct s2 *s2, uint64_t gpa, struct s2_step step[S2_WALK_MAX])
{
	const struct format *f = s2->ops->format;
	const struct pgtable *pt = &s2->pt;
	const struct geometry *g = &pt->geo;
	struct walk_entry w = {.level = g->levels, .kind = ENTRY_TABLE};
	uint64_t table_pa = pt->root_pa;
	int steps = 0;

	if (gpa > geometry_max(g))
		return -EINVAL;
	rcu_enter();
	for (;;) {
		size_t index = geometry_index(g, w.level, gpa);

		w.entry = entry_at(g, steps ? pgtable_at(pt, table_pa) : pt->root, index);
		w.value = entry_load(g, w.entry);
		w.kind = format_kind(f, w.value, w.level);
		step[steps++] = (struct s2_step){.pa = table_pa + index * g->entry_size,
						 .gpa = gpa & ~(geometry_size(g, w.level) - 1),
						 .size = geometry_size(g, w.level),
						 .index = (uint32_t)index,
						 .entry = decode(f, g, &w)};
		if (w.kind != ENTRY_TABLE)
			break;
		table_pa = format_addr(f, g, w.value);
		w.level--;
	}
	rcu_exit();
	return steps;
}

static bool continues(const struct s2_mapping *m, uint64_t gpa, const struct s2_entry *e)
{
	return m->gpa + m->size == gpa && m->hpa + m->size == e->addr &&
	       m->entry.level == e->level && m->entry.perm == e->perm &&
	       m->entry.accessed == e->accessed && m->entry.dirty == e->dirty &&
	       m->entry.memory == e->memory && m->entry.software == e->software;
}

/* Entries that one call looks at: a few milliseconds. A read section is left after each piece. */
enum { DUMP_ENTRIES = 1 << 17, DUMP_PIECE = 2048 };

int s2_inspect_dump(struct s2 *s2, uint64_t *gpa, bool *done, struct s2_mapping *out, size_t room)
{
	const struct format *f = s2->ops->format;
	const struct geometry *g = &s2->pt.geo;
	unsigned left = DUMP_ENTRIES;
	struct walk_iter it;
	int count = 0;

	if (*gpa & (geometry_size(g, 1) - 1) || *gpa > geometry_max(g) || room > INT32_MAX)
		return -EINVAL;
	*done = false;
	walk_begin(&it, &s2->pt, *gpa, 0, 1);
	rcu_enter();
	for (;;) {
		struct s2_entry e;
		uint64_t at, size;

		if (!walk_next(f, &it)) {
			*done = true;
			break;
		}
		*gpa = it.gpa;
		if (!--left)
			break;
		if (left % DUMP_PIECE == 0) {
			rcu_exit();
			rcu_enter();
			walk_restart(&it); /* to this entry, which was not looked at */
			continue;
		}
		if (it.at.kind != ENTRY_LEAF)
			continue;
		e = decode(f, g, &it.at);
		size = geometry_size(g, it.at.level);
		at = it.gpa & ~(size - 1);
		if (count && continues(&out[count - 1], at, &e)) {
			out[count - 1].size += size;
		} else if ((size_t)count < room) {
			out[count++] = (struct s2_mapping){
				.gpa = at, .hpa = e.addr, .size = size, .entry = e};
		} else {
			break;
		}
	}
	rcu_exit();
	return count;
}
