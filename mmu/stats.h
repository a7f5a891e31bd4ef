/*
 * What an instance counts: one table, from which the counters themselves, their names in
 * s2_stats_each and so every print-out follow. A new counter is a new row here and a call of
 * count(); for mmu/ only.
 *
 * Each thread has its own counters, written by it alone, so counting shares no cache line. Gauges
 * are sums of differences: a page may be mapped by one thread and unmapped by another.
 */
#ifndef MMU_STATS_H
#define MMU_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "mmu/geometry.h"
#include "mmu/second_stage.h"

/* What a fault wanted, by what it found: no leaf, or one that does not grant it. */
enum mmu_fault_kind {
	MMU_READ_TRANSLATION,
	MMU_READ_PERMISSION,
	MMU_WRITE_TRANSLATION,
	MMU_WRITE_PERMISSION,
	MMU_EXEC_TRANSLATION,
	MMU_EXEC_PERMISSION,
	MMU_FAULT_KINDS
};

/* Flushed ranges by size: 1 page, up to 8, 64, ... of the smallest pages, and larger ones. */
enum { MMU_FLUSH_SIZES = 10 };

/* Of s2_shadow_get_stats, in its order; set when they are asked for. */
enum { MMU_SHADOW_GAUGES = 3, MMU_SHADOW_COUNTERS = 6 };

/*
 * X(field, dimension, kind, name, label, help): field and dimension as in a structure; name as
 * s2_stats_each gives it, where a dot begins a group; label: the name of each element of an array
 * (stats.c; NULL: this is none).
 */
#define MMU_COUNTERS(X)                                                                            \
	X(faults, [S2_NR_RESULTS], S2_COUNTER, "faults", stats_result, "faults, by outcome")       \
	X(fault_kinds, [MMU_FAULT_KINDS * S2_NR_RESULTS], S2_COUNTER, "fault-kinds", stats_kind,   \
	  "faults, by access, by what was found (no leaf: translation, a leaf that does not "      \
	  "grant it: permission), and by outcome")                                                 \
	X(retries, , S2_COUNTER, "retries", NULL, "races lost, and looked at again")               \
	X(leaves, [MMU_MAX_LEVELS + 1], S2_GAUGE, "pages", stats_level, "leaves, by size")         \
	X(tables, , S2_GAUGE, "tables", NULL, "table pages in use, with the root")                 \
	X(dirtied, , S2_COUNTER, "dirtied", NULL,                                                  \
	  "pages of 4 KiB that writes made dirty, while tracking")                                 \
	X(splits, , S2_COUNTER, "splits", NULL, "leaves that became a table of smaller ones")      \
	X(collapses, , S2_COUNTER, "collapses", NULL, "tables that became one leaf")               \
	X(aged, , S2_COUNTER, "aged", NULL,                                                        \
	  "leaves that had been used and became unused by ageing")                                 \
	X(restored, , S2_COUNTER, "restored", NULL,                                                \
	  "faults that found only that: a leaf is used again after ageing")                        \
	X(invalidations, , S2_COUNTER, "invalidations", NULL, "flushes of the TLB clients")        \
	X(flush_sizes, [MMU_FLUSH_SIZES], S2_COUNTER, "flush-sizes", stats_flush,                  \
	  "flushes, by the size of their range")                                                   \
	X(full_flushes, , S2_COUNTER, "full-flushes", NULL, "flushes of the whole input space")    \
	X(coarse_flushes, , S2_COUNTER, "coarse-flushes", NULL,                                    \
	  "ranges for which a TLB client drops everything")                                        \
	X(shadow, [MMU_SHADOW_GAUGES], S2_GAUGE, "shadow", stats_shadow,                           \
	  "nested guests: contexts in use, shadow leaves and tables")                              \
	X(shadow_faults, [S2_NR_RESULTS], S2_COUNTER, "shadow-faults", stats_result,               \
	  "faults of nested guests, by outcome")                                                   \
	X(shadow_changes, [MMU_SHADOW_COUNTERS], S2_COUNTER, "shadow-changes",                     \
	  stats_shadow_change,                                                                     \
	  "shadow leaves that the guest invalidated, that followed the instance's own changes or " \
	  "lost W with them; contexts emptied, recycled, evicted")                                 \
	X(deferred, , S2_GAUGE, "deferred", NULL,                                                  \
	  "unlinked trees of tables whose acknowledgements and grace period are waited for")       \
	X(deferred_frees, , S2_COUNTER, "deferred-frees", NULL,                                    \
	  "table pages freed after a grace period")

struct counters {
#define MMU_COUNTER(field, dimension, ...) _Atomic uint64_t field dimension;
	MMU_COUNTERS(MMU_COUNTER)
#undef MMU_COUNTER
	/* By access: faults that mapped a page, of which fault_kinds and leaves do not know until
	 * they are asked for. */
	_Atomic uint64_t mapped[8];
};

/* No read-modify-write on the bus: there is one writer. */
mmu_inline void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* n faults that are over. permission: they met a leaf. */
mmu_inline void count_faults(struct counters *c, uint32_t access, bool permission,
			     enum s2_result result, uint64_t n)
{
	unsigned kind = access & S2_W	? MMU_WRITE_TRANSLATION
			: access & S2_X ? MMU_EXEC_TRANSLATION
					: MMU_READ_TRANSLATION;

	count(&c->fault_kinds[(kind + permission) * S2_NR_RESULTS + result], n);
}

mmu_inline void count_fault(struct counters *c, uint32_t access, bool permission,
			    enum s2_result result)
{
	count_faults(c, access, permission, result, 1);
}

/* A flush of [start, end). */
void count_flush(struct counters *c, const struct geometry *g, uint64_t start, uint64_t end);

/* Adds c to *sum. */
void counters_sum(struct counters *sum, struct counters *c);

#endif
