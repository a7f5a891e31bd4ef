/*
 * What the programs of the exploration share: an instance with one slot, threads, processors that
 * hold translations and acknowledge when they have dropped them, and what must be true of data.
 * Made anew for every interleaving; one format and one scenario at a time.
 */
#ifndef EXPLORE_WORLD_H
#define EXPLORE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/internal.h"
#include "mmu/missing.h"
#include "mmu/shadow.h"
#include "tests/explore/explore.h"
#include "tests/unit/decoder.h"

/* PAGES: the first entries of each table, which are all that a scenario is about. */
enum { PAGES = 2 };
#define K4 UINT64_C(0x1000)

struct world_format {
	const char *name;
	struct s2_config c;
	const struct decoder *decoder;
	unsigned pa_bits, levels, entry_bytes;
	uint64_t base, hpa; /* of the slot */
	uint64_t large;	    /* bytes of a leaf of level 2; the slot has two of them */
	bool numbered;	    /* tables have small addresses, not pointers */
	bool nests;	    /* scenarios with shadows are for it, too */
	bool dirty_bits;    /* and those with dirty bits of hardware */
};

/* How things are before the threads start. */
enum state {
	EMPTY = 0,
	MAPPED = 1, /* page 0 with W, page 1 perhaps without */
	BIG = 2,    /* leaves may be large */
	DIVIDED = 4,
	TRACK = 8,
	RINGS = 16,
	NARROW = 32,  /* rings hold one page */
	AWAITED = 64, /* page 0 is missing */
	NESTED = 128, /* there are contexts, and a guest's tables: nested.c */
	HERE = 256,   /* with AWAITED: it is not missing yet */
	FRESH = 512,  /* with NESTED: nothing is in the shadow yet */
	HOLE = 1024,  /* with MAPPED: page 0 is not any more */
	/* How tracking is done, here and by starts_tracking: */
	DBITS = 2048,	/* dirty bits of hardware tell, which sets A and D */
	BY_HAND = 4096, /* bits are cleared by hand */
	EAGER = 8192,	/* large leaves are split at once */
	NX = 16384,	/* large leaves are not executable */
	/* There is another instance over the same memory, which may get page 0: sharing.c */
	LENDING = 32768,
	SHARED = 65536, /* it has it, lent */

	SMALL = MAPPED,
	LARGE = MAPPED | BIG,
	SPLIT = MAPPED | BIG | DIVIDED,
	TRACKED = MAPPED | TRACK,
	TRACKED_LARGE = MAPPED | BIG | TRACK,
	DIRTY = MAPPED | TRACK | DBITS,
	DIRTY_LARGE = MAPPED | BIG | TRACK | DBITS,
	MANUAL = MAPPED | TRACK | BY_HAND,
	MANUAL_LARGE = MAPPED | BIG | TRACK | BY_HAND,
	RINGED = MAPPED | TRACK | RINGS,
	RINGED_LARGE = MAPPED | BIG | TRACK | RINGS,
	LEAVING = AWAITED | HERE,
};

typedef void thread_fn(void *arg);

struct scenario {
	const char *name;
	unsigned state;
	thread_fn *thread[EXPLORE_THREADS];
};

extern const struct world_format *format;
extern const struct scenario *scenario;
extern struct s2 *s2;
extern struct s2_thread *main_thread, *thread[EXPLORE_THREADS]; /* NULL: has gone */
extern uint64_t data[PAGES], copy[PAGES], written[PAGES];
extern bool tracking, removing, ageing, given;
extern unsigned ages_running;
extern bool seen_used[PAGES]; /* since the last ageing returned, and none has begun */

/* Operations on each page, by kind: how many have begun and ended. */
enum operation { UNMAP, PROTECT, AGE, INVALIDATE, OPERATIONS };
extern unsigned begun[OPERATIONS][PAGES], done[OPERATIONS][PAGES];
/* Around an operation on the first `pages` pages. */
struct operating {
	unsigned number[PAGES];
};
struct operating operation_begins(enum operation what, uint64_t pages);
void operation_ends(enum operation what, uint64_t pages, const struct operating *o);

/* Calls of the core that are under way, but for translations' and faults' of the asking thread. */
extern unsigned busy;

/* The calling thread's registration. */
struct s2_thread *me(void);

/* Somebody who holds translations of an instance, and is waited for. thread: NULL: not (any more).
 */
struct cpu {
	struct s2_tlb_client client;
	struct s2_thread *thread;
	uint64_t pending; /* generation to acknowledge */
	bool tagged;	  /* of nested translations */
};
void cpu_begins(struct cpu *c, struct s2_thread *t);
void cpu_acknowledge(struct cpu *c);
void cpu_ends(struct cpu *c);
/* A processor between two translations; at its end it has forgotten everything. */
void acknowledge(void);
void processor_ends(void);
/* The same, unless nested translations are to be dropped (false): others are not held. */
bool acknowledge_others(void);
/* A translation of a page is taken; it is used. In between nothing may end that began later. */
struct taken {
	uint64_t gpa; /* or nested */
	unsigned page, begun[OPERATIONS];
};
struct taken take(uint64_t gpa, unsigned page);
void use(const struct taken *taken, const struct s2_registers *tables, bool write);

/* Copies what tracking says, as a migration does. */
/* Tracking, as the scenario says. */
void track(struct s2_thread *t);
void copy_dirty(void);
void copy_rings(void);

/* For explore(): `processor` says who is a TLB client. */
void world_setup(bool (*processor)(thread_fn *what));
void world_finish(void);
/* tables.c: where tables come from, for this format; the table with an address, for decoders. */
const struct s2_env *world_env(void);
const void *world_table(void *opaque, uint64_t pa);
/* How hardware reads tables. */
struct dec_memory memory_of(const struct s2_registers *regs);

/* missing.c: */
void missing_setup(void);
void missing_finish(void);
/* A fault found page 0 missing: waits until it has come. */
void wait_for_page(unsigned page);
/* sharing.c: */
void sharing_setup(void);
void sharing_finish(void);
/* nested.c: */
void nested_setup(void);
void nested_finish(void);

thread_fn ages, reads, reads_then_looks, executes, recovers, executes, recovers, writes,
	writes_twice, writes_neighbour, reads_twice, unmaps, unmaps_all, protects, removes, splits,
	splits_then_writes, collapses, collapses_then_writes, harvests, starts_tracking,
	stops_tracking, device;
thread_fn harvests_rings, writes_then_leaves, device_twice, writes_both, writes_both_and_again;
thread_fn borrows, shares, unshares, shares_and_back, donates, reclaims, donates_and_back;
thread_fn receives, marks_again, goes, comes, goes_and_comes, stops_missing, asks;
thread_fn nested_holds, nested_holds_written, nested_looks, nested_reads, nested_writes,
	nested_writes_twice, guest_remaps, guest_remaps_quietly, guest_protects, guest_flushes,
	drops_context, visits, visits_other;

/* instrument.h's */
void explore_yield(void);
void explore_sync(const volatile void *at, unsigned how);

#endif
