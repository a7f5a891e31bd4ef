/* Trace rings: see trace.h for the writer's side, inspect.h for the reader's. */
#include "mmu/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/internal.h"

static const char *const names[S2_TRACE_NR] = {
#define S2_TRACE_EVENT(event, name) [event] = (name),
	S2_TRACE_EVENTS(S2_TRACE_EVENT)
#undef S2_TRACE_EVENT
};

const char *s2_trace_event_name(enum s2_trace_event event)
{
	return (unsigned)event < S2_TRACE_NR ? names[event] : "unknown";
}

static uint64_t get(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

/* Release for each: who sees a new word sees that `number` was cleared before it. */
static void put(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

void trace_add(struct trace *trace, enum s2_trace_event event, uint64_t gpa, uint64_t before,
	       uint64_t after, unsigned level, unsigned access, unsigned outcome)
{
	struct trace_ring *ring = atomic_load_explicit(&trace->on, memory_order_acquire);
	uint64_t (*clock)(void);
	struct trace_entry *e;
	uint64_t n;

	if (!ring)
		return;
	n = atomic_load_explicit(&ring->head, memory_order_relaxed);
	e = &ring->entry[n % TRACE_ENTRIES];
	clock = atomic_load_explicit(&ring->clock, memory_order_relaxed);
	atomic_store_explicit(&e->number, 0, memory_order_relaxed);
	put(&e->time, clock ? clock() : 0);
	put(&e->gpa, gpa);
	put(&e->before, before);
	put(&e->after, after);
	put(&e->what, (uint64_t)event | level << 8 | access << 16 | (uint64_t)outcome << 24);
	put(&e->number, n + 1);
	put(&ring->head, n + 1);
}

/* ---- on and off, under threads_mutex ------------------------------------------------------ */

static int start_thread(struct s2_thread *t, uint64_t (*clock)(void))
{
	struct trace *trace = &t->trace;

	if (!trace->ring) {
		trace->ring = aligned_alloc(64, sizeof(*trace->ring));
		if (!trace->ring)
			return -ENOMEM;
		memset(trace->ring, 0, sizeof(*trace->ring));
	}
	put(&trace->ring->from, get(&trace->ring->head));
	atomic_store(&trace->ring->clock, clock);
	atomic_store_explicit(&trace->on, trace->ring, memory_order_release);
	s2_thread_choose(t);
	return 0;
}

void trace_thread_init(struct s2_thread *t)
{
	if (t->s2->tracing)
		start_thread(t, t->s2->trace_clock);
}

void trace_thread_exit(struct s2_thread *t)
{
	free(t->trace.ring);
}

int s2_trace_start(struct s2 *s2, uint64_t (*clock)(void))
{
	int err = -EALREADY;

	pthread_mutex_lock(&s2->threads_mutex);
	if (!s2->tracing) {
		err = 0;
		s2->tracing = true;
		s2->trace_clock = clock;
		for (struct s2_thread *t = s2->threads; t; t = t->next)
			err = start_thread(t, clock) ? -ENOMEM : err;
	}
	pthread_mutex_unlock(&s2->threads_mutex);
	return err;
}

void s2_trace_stop(struct s2 *s2)
{
	pthread_mutex_lock(&s2->threads_mutex);
	s2->tracing = false;
	for (struct s2_thread *t = s2->threads; t; t = t->next) {
		atomic_store_explicit(&t->trace.on, NULL, memory_order_relaxed);
		s2_thread_choose(t);
	}
	pthread_mutex_unlock(&s2->threads_mutex);
}

bool s2_trace_running(struct s2 *s2)
{
	bool running;

	pthread_mutex_lock(&s2->threads_mutex);
	running = s2->tracing;
	pthread_mutex_unlock(&s2->threads_mutex);
	return running;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* false: it is being written, or has been overwritten. */
static bool read_entry(const struct trace_ring *ring, uint64_t n, struct s2_trace_entry *out)
{
	const struct trace_entry *e = &ring->entry[n % TRACE_ENTRIES];
	uint64_t what;

	if (get(&e->number) != n + 1)
		return false;
	out->time = get(&e->time);
	out->gpa = get(&e->gpa);
	out->before = get(&e->before);
	out->after = get(&e->after);
	what = get(&e->what);
	out->event = (enum s2_trace_event)(what & 0xff);
	out->level = what >> 8 & 0xff;
	out->access = what >> 16 & 0xff;
	out->outcome = (enum s2_result)(what >> 24);
	return get(&e->number) == n + 1;
}

static int older(const void *a, const void *b)
{
	const struct s2_trace_entry *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* Of one thread, the newest that fit. */
static size_t read_thread(struct s2_thread *t, struct s2_trace_entry *out, size_t room)
{
	const struct trace_ring *ring = t->trace.ring;
	size_t count = 0;
	uint64_t head, from;

	if (!ring)
		return 0;
	head = get(&ring->head);
	from = get(&ring->from);
	for (uint64_t n = head; n > from && head - n < TRACE_ENTRIES && count < room; n--) {
		if (!read_entry(ring, n - 1, &out[count]))
			continue;
		out[count].number = n - from;
		memset(out[count].thread, 0, sizeof(out[count].thread));
		strncpy(out[count].thread, t->name ? t->name : "", sizeof(out[count].thread) - 1);
		count++;
	}
	return count;
}

size_t s2_trace_read(struct s2 *s2, struct s2_trace_entry *out, size_t room)
{
	struct s2_trace_entry *all;
	size_t count = 0, threads = 0;

	pthread_mutex_lock(&s2->threads_mutex);
	for (struct s2_thread *t = s2->threads; t; t = t->next)
		threads += t->trace.ring != NULL;
	all = calloc(threads * TRACE_ENTRIES + 1, sizeof(*all));
	for (struct s2_thread *t = s2->threads; t && all; t = t->next)
		count += read_thread(t, &all[count], threads * TRACE_ENTRIES - count);
	pthread_mutex_unlock(&s2->threads_mutex);
	if (!all)
		return 0;
	qsort(all, count, sizeof(*all), older);
	if (count > room) {
		memcpy(out, &all[count - room], room * sizeof(*out));
		count = room;
	} else {
		memcpy(out, all, count * sizeof(*out));
	}
	free(all);
	return count;
}
