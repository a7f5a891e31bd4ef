/*
 * What an instance and a thread's registration are made of; for mmu/ only.
 *
 * Locks, outermost first: slots_mutex; one of threads_mutex, dirty_mutex and sharing_mutex;
 * s2_shadows.mutex; lock; tlb.mutex. None is held while waiting for a TLB client.
 * docs/mmu-locking.md has the whole protocol.
 */
#ifndef MMU_INTERNAL_H
#define MMU_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "mmu/age.h"
#include "mmu/brlock.h"
#include "mmu/dirty_ring.h"
#include "mmu/fields.h"
#include "mmu/missing.h"
#include "mmu/nx.h"
#include "mmu/rcu.h"
#include "mmu/roots.h"
#include "mmu/second_stage.h"
#include "mmu/slots.h"
#include "mmu/stats.h"
#include "mmu/table_pool.h"
#include "mmu/tlb.h"
#include "mmu/trace.h"
#include "mmu/walker.h"

/* The policy, specialised for one format (stage2_NAME.c). One indirect call per operation. */
struct stage2_ops {
	const struct format *format;
	/* Where table addresses are pointers; anywhere; and of a client's thread, as the first. */
	bool (*translate)(const struct pgtable *pt, uint64_t gpa, uint32_t access,
			  struct s2_xlat *out);
	bool (*translate_other)(const struct pgtable *pt, uint64_t gpa, uint32_t access,
				struct s2_xlat *out);
	bool (*translate_client)(const struct pgtable *pt, uint64_t gpa, uint32_t access,
				 struct s2_xlat *out);
	enum s2_result (*fault)(struct s2_thread *t, uint64_t gpa, uint32_t access,
				struct s2_xlat *out);
	enum s2_result (*fault_other)(struct s2_thread *t, uint64_t gpa, uint32_t access,
				      struct s2_xlat *out);
	/* Change tables; true: something was, or was being, mapped there: flush [*start, *end),
	 * which is widened to the whole of the leaves met. *tables grows by the trees frozen. */
	bool (*freeze)(struct s2_thread *t, uint64_t *start, uint64_t *end, uint64_t *tables);
	/* Takes W, or with `track` what dirty tracking takes (see stage2_protected). */
	bool (*protect)(struct s2_thread *t, uint64_t *start, uint64_t *end, bool track);
	/* After the flush (and a grace period if tables were frozen): frozen becomes empty. */
	void (*thaw)(struct s2_thread *t, uint64_t start, uint64_t end);
	/* The same as with `track`, for the pages whose bits are set; gpa: of bit 0, a multiple of
	 * 64 pages. The level of what was met. The caller holds the lock's read side. */
	unsigned (*protect_word)(struct s2_thread *t, uint64_t gpa, uint64_t bits);
	/* Sets the dirty bits of leaves with D; takes nothing away. */
	void (*gather)(struct s2_thread *t, uint64_t start, uint64_t end);
	void (*age)(struct s2_thread *t, struct age *age);
	/* See stage2_restore.h. */
	bool (*restore)(struct s2_thread *t, uint64_t gpa, uint32_t access, struct walk_entry *w,
			uint64_t *found);
	/* s2_split and s2_collapse, of a valid range: they flush and wait. */
	int (*split)(struct s2_thread *t, uint64_t start, uint64_t end, unsigned level);
	int64_t (*collapse)(struct s2_thread *t, uint64_t start, uint64_t end);
};

extern const struct stage2_ops stage2_ept_ops, stage2_npt_ops, stage2_arm4k_ops, stage2_arm16k_ops,
	stage2_arm64k_ops, stage2_riscv32_ops, stage2_riscv64_ops;

struct s2 {
	/* read on every translation, written at creation only */
	union {
		struct root root;
		struct pgtable pt; /* of it */
	};
	const struct stage2_ops *ops;
	bool use_ad, nx_huge;
	_Atomic bool aged; /* there may be leaves that have been aged */
	uint8_t which;	   /* enum s2_format */
	uint8_t bbm_level; /* see s2_config; acted upon where the format needs it */

	/* What a page's leaf is made of where nothing was mapped, as the caller is told, without
	 * addresses: [slot with S2_SLOT_LOG ? 2 : 0 | for a write ? 1 : 0]. */
	struct s2_xlat fresh[4];

	struct brlock lock; /* read: faults, range operations; write: slots, their flags, fresh */
	struct slots slots;
	struct missing *missing; /* pages may be; under the lock's write side */
	bool sharing;		 /* pages have owners; the same, as are the next two */
	uint8_t sharing_first;	 /* of new slots */
	struct field sharing_field;
	bool logging; /* dirty tracking is on for slots to come; under slots_mutex */

	_Atomic unsigned dirty_flags; /* enum s2_dirty_flags; written under slots_mutex */

	_Alignas(64) pthread_mutex_t slots_mutex; /* one change of slots at a time */
	pthread_mutex_t dirty_mutex;		  /* one fetching of dirty bits at a time */
	struct nx nx;
	struct fields fields;	       /* under slots_mutex */
	pthread_mutex_t sharing_mutex; /* changes of owners; of two instances, by address */
	struct tlb tlb;

	struct s2_shadows
		*_Atomic shadows; /* NULL: no nested guests; under the lock's write side */
	/* Of them, those that stand for a root. Written under the lock's write side: who has
	 * changed an entry under its read side and sees none then, has no shadow of it anywhere. */
	_Atomic unsigned contexts;

	pthread_mutex_t threads_mutex;
	struct s2_thread *threads;
	uint64_t ring_entries, ring_soft; /* of threads to come; 0: no rings; under threads_mutex */
	uint64_t ring_generation;	  /* of the last reset's flush; under threads_mutex */
	struct counters gone;		  /* of threads that have left; under threads_mutex */
	uint64_t owners[FORMAT_MAX_OWNERS / 64]; /* ids in use; under threads_mutex */
	bool tracing;				 /* and the clock; under threads_mutex */
	uint64_t (*trace_clock)(void);
};

struct s2_thread {
	struct s2 *s2;
	const struct stage2_ops *ops;
	/* Through the instance's tables; and through a shadow context's, whose tables go without
	 * being waited for by clients that hold nothing tagged. */
	bool (*translate)(const struct pgtable *pt, uint64_t gpa, uint32_t access,
			  struct s2_xlat *out);
	bool (*translate_shadow)(const struct pgtable *pt, uint64_t gpa, uint32_t access,
				 struct s2_xlat *out);
	enum s2_result (*_Atomic fault)(struct s2_thread *t, uint64_t gpa, uint32_t access,
					struct s2_xlat *out);
	size_t slot_hint;
	unsigned owner; /* of the entries this thread freezes */
	struct table_pool pool;
	struct brlock_slot reader;
	struct counters stats;
	struct dirty_ring ring;
	struct s2_missing_ops demand; /* request: of the fault that has just said S2_MISSING */
	struct trace trace;
	const char *name;
	struct s2_thread *next;
};

/* Of a thread that nobody else knows, or with threads_mutex held: how its faults go from now on.
 * While it is traced, not the short way, which traces nothing. */
static inline void s2_thread_choose(struct s2_thread *t)
{
	bool usual = t->s2->pt.identity && !trace_on(&t->trace);

	atomic_store_explicit(&t->fault, usual ? t->ops->fault : t->ops->fault_other,
			      memory_order_relaxed);
}

/* NULL, or why instances (or guests) of this format cannot have these options: one that it does not
 * know. A text of the calling thread's, until it asks again. */
const char *s2_options_refused(enum s2_format format, unsigned options);

/* Why the first table of a tree is not there: what pgtable_init said. A text as above. */
const char *s2_root_refused(int err, const struct pgtable *pt);

/* Before anybody uses it, or under the lock's write side: s2->fresh, after pt.need has changed. */
void s2_make_fresh(struct s2 *s2);

/* Waits until whoever may have seen a table that is unlinked now has left: walks without the lock
 * (RCU), and the lock's readers. Outside both. */
static inline void s2_synchronize(struct s2 *s2)
{
	rcu_synchronize();
	brlock_synchronize(&s2->lock);
}

/* Dirty bits of hardware track. */
mmu_inline bool stage2_dbit(const struct format *f, const struct s2 *s2)
{
	return f->dirty && atomic_load_explicit(&s2->pt.need, memory_order_relaxed) & f->dirty;
}

#endif
