/* Which pages have been used: ranges, bitmaps, flushes. */
#include "mmu/age.h"

#include <errno.h>
#include <string.h>

#include "mmu/range.h"

enum { AGE_SHIFT = 12 };

void age_used(struct age *age, uint64_t gpa, uint64_t last)
{
	uint64_t first, n;

	if (last > age->end - 1)
		last = age->end - 1;
	first = (gpa - age->start) >> AGE_SHIFT;
	n = ((last - gpa) >> AGE_SHIFT) + 1;
	age->used += (int64_t)n;
	age->leaves++;
	while (age->bitmap && n) {
		uint64_t bit = first % 64, now = n < 64 - bit ? n : 64 - bit;

		age->bitmap[first / 64] |= ((UINT64_C(2) << (now - 1)) - 1) << bit;
		first += now;
		n -= now;
	}
}

int64_t s2_age(struct s2_thread *t, uint64_t start, uint64_t end, unsigned flags, uint64_t *bitmap)
{
	struct s2 *s2 = t->s2;
	struct age age = {.start = start, .test = flags & S2_AGE_TEST, .bitmap = bitmap};
	bool flush = flags & S2_AGE_FLUSH || format_hides(s2->ops->format, &s2->pt.geo);
	int err = flags & ~(unsigned)(S2_AGE_TEST | S2_AGE_FLUSH) ? -EINVAL
								  : range_check(s2, start, &end);

	if (err)
		return err < 0 ? err : 0;
	age.end = end;
	if (bitmap)
		memset(bitmap, 0, (size_t)((((end - 1 - start) >> AGE_SHIFT) + 64) / 64 * 8));
	if (!age.test)
		atomic_store(&s2->aged, true);
	t->ops->age(t, &age);
	if (age.test)
		return age.used;
	count(&t->stats.aged, age.leaves);
	/* A leaf of a shadow stands on one that has been used, so shadows always follow. */
	if (age.met && (flush || atomic_load(&s2->shadows)))
		range_flush(t, age.flush, age.flush_end);
	return age.used;
}
