/* Range operations: change the tables, flush the TLB clients, wait, clean up. */
#include <errno.h>

#include "mmu/range.h"
#include "mmu/rcu.h"
#include "mmu/shadow_internal.h"

bool range_valid(const struct s2 *s2, uint64_t start, uint64_t end)
{
	const struct geometry *g = &s2->pt.geo;

	return !((start | end) & (geometry_size(g, 1) - 1)) && start <= end - 1 &&
	       end - 1 <= geometry_max(g);
}

int range_check(const struct s2 *s2, uint64_t start, uint64_t *end)
{
	uint64_t mask = geometry_size(&s2->pt.geo, 1) - 1;

	if (start && start == *end && !(start & mask))
		return 1;
	if (!*end)
		*end = geometry_max(&s2->pt.geo) + 1;
	return range_valid(s2, start, *end) ? 0 : -EINVAL;
}

uint64_t range_post(struct s2_thread *t, uint64_t start, uint64_t end)
{
	count_flush(&t->stats, &t->s2->pt.geo, start, end);
	trace_event(&t->trace, S2_TRACE_FLUSH, start, 0, end, 0);
	if (__builtin_expect(!!atomic_load(&t->s2->contexts), 0))
		shadow_follow(t, start, end);
	return tlb_post(&t->s2->tlb, start, end);
}

void range_flush(struct s2_thread *t, uint64_t start, uint64_t end)
{
	tlb_wait(&t->s2->tlb, range_post(t, start, end));
}

/* All valid or empty. */
static void unmap_ranges(struct s2_thread *t, struct s2_range *range, size_t n)
{
	uint64_t tables = 0, generation = 0;

	for (size_t i = 0; i < n; i++) {
		struct s2_range *r = &range[i];

		if (r->start != r->end && t->ops->freeze(t, &r->start, &r->end, &tables))
			generation = range_post(t, r->start, r->end);
		else
			r->end = r->start;
	}
	if (!generation)
		return;
	count(&t->stats.deferred, tables);
	tlb_wait(&t->s2->tlb, generation);
	/* Tables that were frozen as a whole are unreachable now; whoever was inside leaves. */
	if (tables)
		s2_synchronize(t->s2);
	for (size_t i = 0; i < n; i++) {
		if (range[i].start != range[i].end)
			t->ops->thaw(t, range[i].start, range[i].end);
	}
	count(&t->stats.deferred, -tables);
}

void range_unmap(struct s2_thread *t, uint64_t start, uint64_t end)
{
	unmap_ranges(t, &(struct s2_range){start, end}, 1);
}

int s2_unmap_ranges(struct s2_thread *t, struct s2_range *range, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int err = range_check(t->s2, range[i].start, &range[i].end);

		if (err < 0)
			return err;
	}
	unmap_ranges(t, range, n);
	return 0;
}

int s2_unmap(struct s2_thread *t, uint64_t start, uint64_t end)
{
	return s2_unmap_ranges(t, &(struct s2_range){start, end}, 1);
}

int s2_write_protect(struct s2_thread *t, uint64_t start, uint64_t end)
{
	int err = range_check(t->s2, start, &end);

	if (!err && t->ops->protect(t, &start, &end, false))
		range_flush(t, start, end);
	return err < 0 ? err : 0;
}

int s2_split(struct s2_thread *t, uint64_t start, uint64_t end, uint32_t level)
{
	const struct geometry *g = &t->s2->pt.geo;
	int err = range_check(t->s2, start, &end);

	if (!level || level > g->levels || !geometry_has_leaf(g, level))
		return -EINVAL;
	if (!err)
		err = t->ops->split(t, start, end, level);
	table_pool_trim(&t->pool, g->levels - 1u);
	return err < 0 ? err : 0;
}

int64_t s2_collapse(struct s2_thread *t, uint64_t start, uint64_t end)
{
	int err = range_check(t->s2, start, &end);

	return err ? (err < 0 ? err : 0) : t->ops->collapse(t, start, end);
}
