/*
 * Looking into a second stage from outside, while it is used: the way to one address, what is
 * mapped where, and what threads did last. None of it changes a table, takes the instance's lock or
 * stops anybody; what is returned was there at some moment during the call.
 *
 * Any thread may call; no s2_thread is needed.
 */
#ifndef MMU_INSPECT_H
#define MMU_INSPECT_H

#include "mmu/second_stage.h"

enum { S2_WALK_MAX = 5 };

enum s2_entry_kind { S2_ENTRY_NONE, S2_ENTRY_TABLE, S2_ENTRY_LEAF, S2_ENTRY_FROZEN };
const char *s2_entry_kind_name(enum s2_entry_kind kind);
enum s2_memory_type { S2_MEMORY_WB, S2_MEMORY_NC, S2_MEMORY_IO };
const char *s2_memory_name(enum s2_memory_type type);

/* An entry, decoded. */
struct s2_entry {
	uint64_t raw;
	enum s2_entry_kind kind;
	uint32_t level;
	uint64_t addr; /* of a leaf: hpa; of a table: its pa (of a frozen one, if it is there) */
	/* of a leaf */
	uint32_t perm;	      /* S2_R | S2_W | S2_X */
	bool accessed, dirty; /* accessed: used since it was aged */
	enum s2_memory_type memory;
	uint32_t software; /* software bits */
};

/* One step of a walk: the entry stood at `pa`, entry number `index` of its table, and covers
 * [gpa, gpa + size). */
struct s2_step {
	uint64_t pa, gpa, size;
	uint32_t index;
	struct s2_entry entry;
};

/* From the root to the lowest entry that covers gpa. The number of steps, or -EINVAL: gpa is beyond
 * the input width. */
int s2_inspect_walk(struct s2 *s2, uint64_t gpa, struct s2_step step[S2_WALK_MAX]);

/* Neighbouring leaves that continue each other and are alike in all but their addresses. */
struct s2_mapping {
	uint64_t gpa, hpa, size;
	struct s2_entry entry; /* the first one */
};

/* Fills up to `room` mappings from *gpa on, in order. *gpa: where to go on; *done: nothing follows.
 * A call looks at a bounded number of entries and may so return few, or none, before it is done;
 * a mapping that a call's end cuts goes on in the next. Returns how many, or -EINVAL. */
int s2_inspect_dump(struct s2 *s2, uint64_t *gpa, bool *done, struct s2_mapping *out, size_t room);

/* ---- the trace ---------------------------------------------------------------------------- */

/* X(event, name) */
#define S2_TRACE_EVENTS(X)                                                                         \
	X(S2_TRACE_FAULT, "fault")                                                                 \
	X(S2_TRACE_UNMAP, "unmap")                                                                 \
	X(S2_TRACE_PROTECT, "protect")                                                             \
	X(S2_TRACE_SPLIT, "split")                                                                 \
	X(S2_TRACE_COLLAPSE, "collapse")                                                           \
	X(S2_TRACE_FREE, "free")                                                                   \
	X(S2_TRACE_FLUSH, "flush")                                                                 \
	X(S2_TRACE_AGE, "age")

enum s2_trace_event {
#define S2_TRACE_EVENT(event, name) event,
	S2_TRACE_EVENTS(S2_TRACE_EVENT)
#undef S2_TRACE_EVENT
		S2_TRACE_NR
};
const char *s2_trace_event_name(enum s2_trace_event event);

struct s2_trace_entry {
	char thread[16];
	uint64_t number; /* of this thread's entry, 1 is its first since s2_trace_start */
	uint64_t time;	 /* as the clock said; 0 without one */
	uint64_t gpa;
	uint64_t before, after; /* of the entry; of a flush, `after` is the end of the range */
	enum s2_trace_event event;
	uint32_t level;		/* of the entry; 0: of none */
	uint32_t access;	/* of a fault */
	enum s2_result outcome; /* of a fault; else S2_NR_RESULTS */
};

/* From here on each thread keeps its last 1024 events. clock (may be NULL) is called on the threads
 * that do something, in critical sections: it only reads a clock. -EALREADY; -ENOMEM: some threads
 * are not traced. */
int s2_trace_start(struct s2 *s2, uint64_t (*clock)(void));
/* What was kept can still be read, until the next start. */
void s2_trace_stop(struct s2 *s2);
bool s2_trace_running(struct s2 *s2);
/* The newest `room` entries of all threads, the oldest first (by time, then by number). How many.
 */
size_t s2_trace_read(struct s2 *s2, struct s2_trace_entry *out, size_t room);

#endif
