/*
 * Guest memory that is not here yet: post-copy, and restoring lazily from a file.
 *
 * Each page of a slot (a page is the format's smallest, s2_level_size(s2, 1)) is in one state:
 *
 *	present -> missing -> requested -> received -> present
 *	              \____________________^    (s2_missing_stop)
 *
 * kept in a side array of two bits a page, made by s2_missing_start and gone after s2_missing_stop:
 * tables need no entry for what is missing, and an instance that misses nothing has no array.
 * s2_fault says S2_MISSING for a missing or requested page, whoever faults; leaves are as large as
 * what is here allows. Whoever gets it waits for that page, or turns to something else and looks
 * again.
 *
 * Threads: as second_stage.h; every function may run in parallel with every other and with faults,
 * but start, stop and mark are for one thread at a time.
 */
#ifndef MMU_MISSING_H
#define MMU_MISSING_H

#include "mmu/second_stage.h"

enum s2_page_state {
	S2_PAGE_PRESENT,   /* here; also: nothing is missing in this instance, or no slot */
	S2_PAGE_MISSING,   /* not here, and nobody has wanted it */
	S2_PAGE_REQUESTED, /* not here, and `request` has been, or is just being, called */
	S2_PAGE_RECEIVED,  /* has come since s2_missing_start */
};

struct s2_missing_ops {
	void *opaque;
	/* A fault met a missing page: exactly once per page, on the thread that faulted, with no
	 * lock and no read section held. It sends or queues the demand; it must not wait for the
	 * page. */
	void (*request)(void *opaque, struct s2_thread *t, uint64_t gpa);
};

/* From here on pages may be missing; none is yet. Slots to come are all present. -EALREADY,
 * -ENOMEM. `ops` is copied. */
int s2_missing_start(struct s2_thread *t, const struct s2_missing_ops *ops);
/* Those of the `pages` pages from gpa that are present and whose bit is set in `bitmap` (as of
 * s2_dirty_harvest: bit n = page n; NULL: all) become missing, are unmapped, and are in no TLB when
 * it returns. Others stay as they are. What is there now is worth nothing any more: with a running
 * guest, it is lost. Returns how many have become missing, or -EINVAL (misaligned, not started). */
int64_t s2_missing_mark(struct s2_thread *t, uint64_t gpa, uint64_t pages, const uint64_t *bitmap);
/* All are here: the state is dropped. -EBUSY: some are not; -ENOENT: not started. */
int s2_missing_stop(struct s2_thread *t);

/*
 * Pages arrive. For each of the `pages` pages from gpa that is not here, `fill` writes its data to
 * hpa (never through the tables); then the page becomes received, a page under dirty tracking is
 * marked, and whoever waits for it is woken. Nobody sees it before, and nobody else fills it at the
 * same time: of two that bring the same page, the later one's is dropped, however much newer what
 * the guest has written since. A page that is here stays as it is.
 * fill: 0, or -errno: the page stays as it was, and this is returned at once. It must not call the
 * core. Returns how many pages were filled, or -EINVAL (misaligned; not all in slots).
 */
typedef int (*s2_fill_fn)(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes);
int64_t s2_receive(struct s2_thread *t, uint64_t gpa, uint64_t pages, s2_fill_fn fill,
		   void *opaque);

enum s2_page_state s2_page_state(struct s2_thread *t, uint64_t gpa);
/* The first page at or after gpa whose state's bit (1 << S2_PAGE_...) is in `states`, going on at
 * the beginning of memory after its end; UINT64_MAX: none. For background transfer near the last
 * demand: S2_PAGES_AWAITED. For asking again after a link was dead: 1 << S2_PAGE_REQUESTED. */
enum { S2_PAGES_AWAITED = 1 << S2_PAGE_MISSING | 1 << S2_PAGE_REQUESTED };
uint64_t s2_missing_next(struct s2_thread *t, uint64_t gpa, unsigned states);
/* Bit n of `bitmap` (pages/64 words, rounded up): page n from gpa is in one of `states`; pages of
 * no slot: 0. What is here is 1 << S2_PAGE_PRESENT | 1 << S2_PAGE_RECEIVED. Returns how many, or
 * -EINVAL. */
int64_t s2_missing_export(struct s2_thread *t, uint64_t gpa, uint64_t pages, unsigned states,
			  uint64_t *bitmap);

struct s2_missing_stats {
	uint64_t awaited;   /* pages that are not here: missing or requested */
	uint64_t requested; /* pages that were asked for, ever */
	uint64_t received;  /* pages filled */
	uint64_t dropped;   /* pages that came again */
	uint64_t waits;	    /* waits that began */
};
/* All zero: not started. `awaited` 0 while started: s2_missing_stop will do. */
void s2_missing_stats(struct s2_thread *t, struct s2_missing_stats *stats);

/*
 * Waiting for one page. wake is called once: when the page has been received, or cannot come any
 * more (its slot goes). On the thread that received it, with a lock of the core held: it posts,
 * rings or kicks; it calls nothing of the core and does not wait.
 */
struct s2_page_waiter {
	void (*wake)(struct s2_page_waiter *waiter);
	/* private to the core */
	uint64_t gpa;
	bool queued;
	struct s2_page_waiter *next;
};
/* true: wake will be called (it may have been before this returns). false: the page is here, or
 * there is none: fault again. */
bool s2_page_wait(struct s2_thread *t, uint64_t gpa, struct s2_page_waiter *waiter);
/* After it the waiter is nobody's: wake is not running and will not be called. May be called
 * whether it has been woken or not. */
void s2_page_wait_end(struct s2_thread *t, struct s2_page_waiter *waiter);

#endif
