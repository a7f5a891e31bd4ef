#include "mmu/walker.h"

int pgtable_init(struct pgtable *pt, const struct geometry *geo, const struct s2_env *env)
{
	*pt = (struct pgtable){
		.geo = *geo, .env = env, .max = geometry_max(geo), .identity = !env->from_pa};
	return table_alloc(env, geometry_table_bytes(geo, geo->levels), geo->output_bits, &pt->root,
			   &pt->root_pa);
}

/* Leaves of a table of the smallest: most of what a tree consists of, so without calls through the
 * format. In our own tables what is valid there is a leaf. */
static uint64_t count_smallest(const struct format *f, const struct geometry *g, void *table)
{
	const uint64_t hidden = f->hide_shift ? f->perm_bits << f->hide_shift : 0;
	const size_t entries = geometry_entries(g, 1);
	uint64_t leaves = 0;

	for (size_t i = 0; i < entries; i++) {
		const uint64_t value = entry_load(g, entry_at(g, table, i));

		leaves += value & f->valid || (value & hidden && !(value & f->frozen));
	}
	return leaves;
}

/* One copy for all formats, with calls through the format. */
void walk_free_tree(const struct format *f, const struct pgtable *pt, void *table, unsigned level,
		    struct walk_count *count)
{
	const struct geometry *g = &pt->geo;
	void *tables[MMU_MAX_LEVELS + 1];
	size_t index[MMU_MAX_LEVELS + 1];
	const unsigned top = level;

	tables[level] = table;
	index[level] = 0;
	for (;;) {
		uint64_t value, pa;
		enum entry_kind kind;

		if (level == 1)
			count->leaves[1] += count_smallest(f, g, tables[1]);
		if (level == 1 || index[level] == geometry_entries(g, level)) {
			pt->env->free(pt->env->opaque, tables[level],
				      geometry_table_bytes(g, level));
			count->tables++;
			if (level++ == top)
				return;
			continue;
		}
		value = entry_load(g, entry_at(g, tables[level], index[level]++));
		kind = format_kind(f, value, level);
		if (kind == ENTRY_LEAF)
			count->leaves[level]++;
		else if (kind == ENTRY_TABLE)
			pa = format_addr(f, g, value);
		if (kind == ENTRY_TABLE ||
		    (kind == ENTRY_FROZEN && format_frozen_table(f, g, value, &pa))) {
			level--;
			tables[level] = pgtable_at(pt, pa);
			index[level] = 0;
		}
	}
}
