/*
 * What shadow contexts are made of; for mmu/ only.
 *
 * Locks: `mutex` (which context stands for which root; nobody waits for a TLB client with it), then
 * the instance's lock. Its read side: faults build leaves. Its write side: leaves go or lose
 * permissions, nodes are unlinked, trees detached, `seq` grows. docs/mmu-locking.md says why that
 * is enough.
 */
#ifndef MMU_SHADOW_INTERNAL_H
#define MMU_SHADOW_INTERNAL_H

#include "mmu/guest/stage2.h"
#include "mmu/internal.h"
#include "mmu/shadow.h"
#include "mmu/shadow_map.h"

struct s2_context {
	struct root root; /* refs 0: free, or being taken down */
	struct s2_shadows *set;
	/* Under both locks' write sides to change. */
	struct s2_guest_root key;
	struct guest_stage2 guest;
	bool made; /* the above is valid */
	bool busy; /* somebody takes it down or makes it anew; under mutex */
	uint16_t index;
	_Atomic uint64_t tables; /* its share of the set's */
};

struct s2_shadows {
	struct s2 *s2;
	struct s2_shadow_config config;
	struct nested_rules rules;
	struct s2_context *context;
	size_t context_bytes;
	size_t max_tables;
	/* The level of the guest's leaf in the shadow's, for whoever reads tables; where it does
	 * not fit (RISC-V), only the node has it, as a size. */
	struct field level_field;

	/* How many invalidations of either stage have begun. A fault samples it before it reads
	 * any table, and builds nothing if it has changed since. */
	_Alignas(64) _Atomic uint64_t seq;
	pthread_mutex_t mutex;
	unsigned next; /* where the search for a free context goes on; under mutex */
	struct shadow_map map;
	_Atomic uint64_t tables; /* without roots */

	_Alignas(64) _Atomic uint64_t faults[S2_NR_RESULTS];
	_Atomic uint64_t invalidated, followed, lost_write, drops, recycled, evictions;
};

/* Nodes and buckets that are looked at before the lock is left for a moment, or a search is given
 * up: however many leaves a guest makes of one page. */
enum { SHADOW_BUDGET = 1024 };

/* What TLBs must forget, gathered under the lock: a range for each tag, or everything. */
struct shadow_flush {
	unsigned n;
	bool all;
	struct {
		uint32_t tag;
		uint64_t start, last;
	} range[16];
};
void shadow_flush_add(struct shadow_flush *flush, uint32_t tag, uint64_t start, uint64_t last);

/* Range operations of the instance call it after they have changed [start, end) and before they
 * flush: brings the shadows in line with the tables, and tells the TLB clients (but does not wait:
 * the flush does). With no lock held. */
void shadow_follow(struct s2_thread *t, uint64_t start, uint64_t end);

/* Empties a context that stays what it is: the caller has a reference, or has retired it. Waits. */
void shadow_empty(struct s2_thread *t, struct s2_context *ctx);
/* Takes all that was made of the guest's leaves around [start, last] out of one context. Waits. */
void shadow_forget(struct s2_thread *t, struct s2_context *ctx, uint64_t start, uint64_t last);
/* A bound is reached: empties a context that holds something, one that nobody uses if there is. */
void shadow_evict(struct s2_thread *t, struct s2_context *own);

/* Counts tables of a context (not its root): how many all have now. */
static inline uint64_t shadow_tables(struct s2_context *ctx, uint64_t n)
{
	atomic_fetch_add(&ctx->tables, n);
	return atomic_fetch_add(&ctx->set->tables, n) + n;
}

/* What a shadow may grant of what a leaf of the instance does. */
static inline uint32_t shadow_may(const struct s2 *s2, uint64_t entry)
{
	return pgtable_perm(s2->ops->format, &s2->pt, entry);
}

#endif
