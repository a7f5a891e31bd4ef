/* Sums of the threads' counters, and their names. */
#include "mmu/stats.h"

#include <stdio.h>
#include <string.h>

#include "mmu/internal.h"
#include "mmu/shadow.h"

static const char *const results[S2_NR_RESULTS] = {
	[S2_FIXED] = "fixed",	  [S2_SPURIOUS] = "spurious", [S2_RETRY] = "retry",
	[S2_EMULATE] = "emulate", [S2_INVALID] = "invalid",   [S2_MISSING] = "missing",
	[S2_FORWARD] = "forward", [S2_NOMEM] = "nomem",
};

static const char *const kinds[MMU_FAULT_KINDS] = {
	[MMU_READ_TRANSLATION] = "read.translation",   [MMU_READ_PERMISSION] = "read.permission",
	[MMU_WRITE_TRANSLATION] = "write.translation", [MMU_WRITE_PERMISSION] = "write.permission",
	[MMU_EXEC_TRANSLATION] = "exec.translation",   [MMU_EXEC_PERMISSION] = "exec.permission",
};

const char *s2_result_name(enum s2_result result)
{
	return (unsigned)result < S2_NR_RESULTS ? results[result] : "unknown";
}

/* ---- labels: false for an element that this instance does not have ------------------------ */

typedef bool stats_label(const struct s2 *s2, unsigned i, char *buf, size_t len);

static bool stats_result(const struct s2 *s2, unsigned i, char *buf, size_t len)
{
	(void)s2;
	snprintf(buf, len, "%s", results[i]);
	return true;
}

static bool stats_kind(const struct s2 *s2, unsigned i, char *buf, size_t len)
{
	(void)s2;
	snprintf(buf, len, "%s.%s", kinds[i / S2_NR_RESULTS], results[i % S2_NR_RESULTS]);
	return true;
}

static void size_text(unsigned shift, char *buf, size_t len)
{
	snprintf(buf, len, "%u%c", 1u << shift % 10, " KMGTPE"[shift / 10]);
}

static bool stats_level(const struct s2 *s2, unsigned i, char *buf, size_t len)
{
	const struct geometry *g = &s2->pt.geo;

	if (!i || i > g->levels || !geometry_has_leaf(g, i))
		return false;
	size_text(geometry_shift(g, i), buf, len);
	return true;
}

static bool stats_flush(const struct s2 *s2, unsigned i, char *buf, size_t len)
{
	if (i == MMU_FLUSH_SIZES - 1)
		snprintf(buf, len, "larger");
	else
		size_text(geometry_shift(&s2->pt.geo, 1) + 3 * i, buf, len);
	return true;
}

static bool stats_shadow(const struct s2 *s2, unsigned i, char *buf, size_t len)
{
	static const char *const names[MMU_SHADOW_GAUGES] = {"contexts", "leaves", "tables"};

	(void)s2;
	snprintf(buf, len, "%s", names[i]);
	return true;
}

static bool stats_shadow_change(const struct s2 *s2, unsigned i, char *buf, size_t len)
{
	static const char *const names[MMU_SHADOW_COUNTERS] = {
		"invalidated", "followed", "lost-write", "drops", "recycled", "evictions"};

	(void)s2;
	snprintf(buf, len, "%s", names[i]);
	return true;
}

/* ---- the table ---------------------------------------------------------------------------- */

static const struct {
	const char *name, *help;
	stats_label *label;
	enum s2_counter_kind kind;
	size_t first, n; /* in struct counters, as an array of words */
} rows[] = {
#define MMU_COUNTER(field, dimension, kind_, name_, label_, help_)                                 \
	{.name = (name_),                                                                          \
	 .help = (help_),                                                                          \
	 .label = (label_),                                                                        \
	 .kind = (kind_),                                                                          \
	 .first = offsetof(struct counters, field) / sizeof(uint64_t),                             \
	 .n = sizeof(((struct counters *)NULL)->field) / sizeof(uint64_t)},
	MMU_COUNTERS(MMU_COUNTER)
#undef MMU_COUNTER
};

enum { NR_ROWS = sizeof(rows) / sizeof(*rows) };

bool s2_counter_row(unsigned i, struct s2_counter *out)
{
	if (i >= NR_ROWS)
		return false;
	*out = (struct s2_counter){
		.name = rows[i].name, .help = rows[i].help, .kind = rows[i].kind};
	return true;
}

void counters_sum(struct counters *sum, struct counters *c)
{
	_Atomic uint64_t *to = (_Atomic uint64_t *)sum, *from = (_Atomic uint64_t *)c;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		count(&to[i], atomic_load_explicit(&from[i], memory_order_relaxed));
}

/* With threads_mutex held: they do not go meanwhile. */
static void sum_shadows(struct s2 *s2, struct counters *sum)
{
	struct s2_shadows *set = atomic_load(&s2->shadows);
	struct s2_shadow_stats s;

	if (!set)
		return;
	s2_shadow_get_stats(set, &s);
	count(&sum->shadow[0], s.contexts);
	count(&sum->shadow[1], s.leaves);
	count(&sum->shadow[2], s.tables);
	count(&sum->shadow_changes[0], s.invalidated);
	count(&sum->shadow_changes[1], s.followed);
	count(&sum->shadow_changes[2], s.lost_write);
	count(&sum->shadow_changes[3], s.drops);
	count(&sum->shadow_changes[4], s.recycled);
	count(&sum->shadow_changes[5], s.evictions);
	for (unsigned i = 0; i < S2_NR_RESULTS; i++)
		count(&sum->shadow_faults[i], s.faults[i]);
}

static void sum_all(struct s2 *s2, struct counters *sum)
{
	pthread_mutex_lock(&s2->threads_mutex);
	sum_shadows(s2, sum);
	counters_sum(sum, &s2->gone);
	for (struct s2_thread *t = s2->threads; t; t = t->next)
		counters_sum(sum, &t->stats);
	pthread_mutex_unlock(&s2->threads_mutex);
	count(&sum->tables, 1); /* the root */
	count(&sum->coarse_flushes, s2->tlb.coarse);
	/* Not counted twice, or thrice. */
	for (uint32_t access = 0; access < 8; access++) {
		count_faults(sum, access, false, S2_FIXED, sum->mapped[access]);
		count(&sum->leaves[1], sum->mapped[access]);
	}
	for (unsigned i = 0; i < MMU_FAULT_KINDS * S2_NR_RESULTS; i++)
		count(&sum->faults[i % S2_NR_RESULTS], sum->fault_kinds[i]);
}

void s2_stats_each(struct s2 *s2, void (*show)(void *opaque, const struct s2_counter *counter),
		   void *opaque)
{
	struct counters sum = {0};

	sum_all(s2, &sum);
	for (unsigned r = 0; r < NR_ROWS; r++) {
		const _Atomic uint64_t *value = (_Atomic uint64_t *)&sum + rows[r].first;
		char label[48], name[96];

		for (unsigned i = 0; i < rows[r].n; i++) {
			struct s2_counter counter = {.name = rows[r].name,
						     .help = rows[r].help,
						     .kind = rows[r].kind,
						     .value = value[i]};

			if (rows[r].label) {
				if (!rows[r].label(s2, i, label, sizeof(label)))
					continue;
				snprintf(name, sizeof(name), "%s.%s", rows[r].name, label);
				counter.name = name;
			}
			show(opaque, &counter);
		}
	}
}

void s2_get_stats(struct s2 *s2, struct s2_stats *stats)
{
	struct counters sum = {0};

	sum_all(s2, &sum);
	memset(stats, 0, sizeof(*stats));
	for (unsigned i = 0; i < S2_NR_RESULTS; i++)
		stats->faults[i] = sum.faults[i];
	for (unsigned level = 1; level < sizeof(stats->pages) / sizeof(*stats->pages); level++)
		stats->pages[level] = sum.leaves[level];
	stats->tables = sum.tables;
	stats->splits = sum.splits;
	stats->collapses = sum.collapses;
	stats->invalidations = sum.invalidations;
	stats->retries = sum.retries;
	stats->deferred_frees = sum.deferred_frees;
}

void count_flush(struct counters *c, const struct geometry *g, uint64_t start, uint64_t end)
{
	unsigned size = 0;

	while (size < MMU_FLUSH_SIZES - 1 && (end - 1 - start) >> (geometry_shift(g, 1) + 3 * size))
		size++;
	count(&c->invalidations, 1);
	count(&c->flush_sizes[size], 1);
	if (!start && end - 1 >= geometry_max(g))
		count(&c->full_flushes, 1);
}
