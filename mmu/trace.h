/*
 * The trace ring of one thread, for mmu/ only: what it did last, written by it alone, without locks
 * and without waiting; readers (s2_trace_read) copy entries and drop those that changed meanwhile.
 * While tracing is off an event costs one load and one branch that is never taken; s2_translate and
 * the usual fault have none.
 */
#ifndef MMU_TRACE_H
#define MMU_TRACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/inspect.h"

enum { TRACE_ENTRIES = 1024 };

/* One cache line. Everything is atomic, since a reader may look at any time: it loads `number`
 * first and last, the writer clears it before and sets it after. */
struct trace_entry {
	_Alignas(64) _Atomic uint64_t number; /* 1 for the ring's first; 0: being written */
	_Atomic uint64_t time, gpa, before, after, what;
};

struct trace_ring {
	_Atomic uint64_t head; /* entries written, ever */
	_Atomic uint64_t from; /* the first one since tracing was started */
	uint64_t (*_Atomic clock)(void);
	struct trace_entry entry[TRACE_ENTRIES];
};

struct trace {
	struct trace_ring *_Atomic on; /* the ring, or NULL: off */
	struct trace_ring *ring;       /* once it was on; under threads_mutex */
};

void trace_add(struct trace *trace, enum s2_trace_event event, uint64_t gpa, uint64_t before,
	       uint64_t after, unsigned level, unsigned access, unsigned outcome);

static inline bool trace_on(const struct trace *trace)
{
	return atomic_load_explicit(&trace->on, memory_order_relaxed) != NULL;
}

/* before, after: of the entry; of a flush, the end of its range is `after`. */
static inline void trace_event(struct trace *trace, enum s2_trace_event event, uint64_t gpa,
			       uint64_t before, uint64_t after, unsigned level)
{
	if (__builtin_expect(trace_on(trace), 0))
		trace_add(trace, event, gpa, before, after, level, 0, S2_NR_RESULTS);
}

static inline void trace_fault(struct trace *trace, uint64_t gpa, uint64_t before, uint64_t after,
			       unsigned level, uint32_t access, enum s2_result result)
{
	if (__builtin_expect(trace_on(trace), 0))
		trace_add(trace, S2_TRACE_FAULT, gpa, before, after, level, access, result);
}

struct s2_thread;
/* With threads_mutex held, for one that comes while tracing is on, and for one that leaves. */
void trace_thread_init(struct s2_thread *t);
void trace_thread_exit(struct s2_thread *t);

#endif
