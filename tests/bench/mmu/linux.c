/*
 * What five of Linux's KVM selftests measure, with their words, on this core: demand_paging_test,
 * dirty_log_perf_test, access_tracking_perf_test, kvm_page_table_test,
 * memslot_modification_stress_test. A vCPU is a thread that touches one word of every page: a
 * translation, and a fault if there is none.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mmu/missing.h"
#include "tests/bench/mmu/bench.h"

enum { PASSES = 2 };

static void touch_all(struct worker *w, uint32_t access)
{
	for (uint64_t i = 0; i < w->b->pages; i++)
		bench_touch(w, w->base + i * w->b->page, access);
}

static void pass(struct worker *w, const char *name, uint32_t access)
{
	bench_permission = access & S2_W;
	bench_begin(w);
	touch_all(w, access);
	bench_end(w, name, 1, "ms");
	bench_permission = false;
}

/* ---- dirty_log_perf_test ------------------------------------------------------------------ */

static unsigned dirty_flags;
static const char *dirty_name;

static const char *named(char *buf, size_t len, const char *phase)
{
	snprintf(buf, len, "dirty-log%s.%s", dirty_name, phase);
	return buf;
}

static void dirty_enable(struct worker *w)
{
	const struct s2_dirty_options options = {.flags = dirty_flags};
	int err = s2_dirty_start_with(w->t, &options, NULL);

	if (err)
		bench_fail("%s: dirty tracking: %d", w->b->format, err);
}

static void dirty_log(struct worker *w)
{
	const uint64_t units = (w->b->stride * w->b->threads) >> 12;
	uint64_t *bitmap = calloc(units / 64, 8);
	char name[64], phase[32];

	if (!bitmap)
		bench_fail("no memory");
	pass(w, named(name, sizeof(name), "populate"), S2_W);
	bench_begin(w);
	if (!w->id)
		dirty_enable(w);
	bench_end(w, named(name, sizeof(name), "enable"), 1, "ms");
	for (int n = 1; n <= PASSES; n++) {
		snprintf(phase, sizeof(phase), "pass-%d", n);
		pass(w, named(name, sizeof(name), phase), S2_W);
		bench_begin(w);
		if (!w->id && s2_dirty_harvest(w->t, 0, units, bitmap) <= 0)
			bench_fail("%s: nothing is dirty", w->b->format);
		snprintf(phase, sizeof(phase), "get-%d", n);
		bench_end(w, named(name, sizeof(name), phase), 1, "ms");
		if (!(dirty_flags & S2_DIRTY_MANUAL))
			continue;
		bench_begin(w);
		if (!w->id)
			s2_dirty_reprotect(w->t, 0, units, bitmap);
		snprintf(phase, sizeof(phase), "clear-%d", n);
		bench_end(w, named(name, sizeof(name), phase), 1, "ms");
	}
	bench_begin(w);
	if (!w->id)
		s2_dirty_stop(w->t);
	bench_end(w, named(name, sizeof(name), "disable"), 1, "ms");
	pass(w, named(name, sizeof(name), "afterwards"), S2_W);
	free(bitmap);
}

/* ---- access_tracking_perf_test ------------------------------------------------------------ */

/* With an A bit, or where a format has none for software (EPT as it is here), by permissions. */
static void mark_idle(struct worker *w)
{
	const uint64_t size = w->b->pages * w->b->page;

	bench_begin(w);
	if (s2_age(w->t, w->base, w->base + size, 0, NULL) != (int64_t)(size >> 12))
		bench_fail("%s: not all pages were in use", w->b->format);
	bench_end(w, "access-tracking.mark-idle", 1, "ms");
}

static void access_tracking(struct worker *w)
{
	pass(w, "access-tracking.populate", S2_W);
	pass(w, "access-tracking.write-populated", S2_W);
	pass(w, "access-tracking.read-populated", S2_R);
	mark_idle(w);
	pass(w, "access-tracking.write-idle", S2_W);
	mark_idle(w);
	pass(w, "access-tracking.read-idle", S2_R);
}

/* ---- kvm_page_table_test ------------------------------------------------------------------ */

/* CREATE: blocks. UPDATE: logging, a write to each block. ADJUST: no logging, blocks again. */
static void page_table(struct worker *w)
{
	const uint64_t blocks = w->b->stride / w->b->block / 8 + 1;

	bench_begin(w);
	for (uint64_t i = 0; i < blocks; i++)
		bench_touch(w, w->base + i * w->b->block, S2_W);
	bench_end(w, "page-table.create", 1, "ms");
	bench_begin(w);
	if (!w->id && s2_dirty_start(w->t))
		bench_fail("%s: dirty tracking", w->b->format);
	bench_end(w, "page-table.enable", 1, "ms");
	bench_begin(w);
	for (uint64_t i = 0; i < blocks; i++)
		bench_touch(w, w->base + i * w->b->block, S2_W);
	bench_end(w, "page-table.update", 1, "ms");
	bench_begin(w);
	if (!w->id)
		s2_dirty_stop(w->t);
	bench_end(w, "page-table.disable", 1, "ms");
	for (uint64_t i = 0; i < blocks; i++)
		for (uint64_t at = 0; at < w->b->block; at += w->b->page)
			bench_touch(w, w->base + i * w->b->block + at, S2_W);
	bench_begin(w);
	if (s2_collapse(w->t, w->base, w->base + blocks * w->b->block) < (int64_t)blocks)
		bench_fail("%s: not all blocks came back", w->b->format);
	bench_end(w, "page-table.adjust", 1, "ms");
}

/* ---- memslot_modification_stress_test ----------------------------------------------------- */

static _Atomic bool stirring;

static void *stir(void *arg)
{
	struct bench *b = arg;
	const struct s2_slot dummy = {
		.gpa = b->threads * b->stride, .size = b->block, .page_size = b->block};
	struct s2_thread *t;

	if (s2_thread_init(&t, b->s2, "memslots"))
		bench_fail("s2_thread_init");
	while (stirring) {
		if (s2_slot_add(t, &dummy) || s2_slot_remove(t, dummy.gpa))
			bench_fail("%s: the dummy slot", b->format);
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	}
	s2_thread_exit(t);
	return NULL;
}

static const char *slots_name;

static void slots_load(struct worker *w)
{
	bench_begin(w);
	touch_all(w, S2_R);
	bench_end(w, slots_name, (double)w->b->pages, "ns");
}

static void memslots(struct bench *b)
{
	pthread_t thread;

	bench_create(b, 0, 0);
	slots_name = "memslots.quiet";
	bench_threads(b, slots_load);
	bench_destroy(b);
	bench_create(b, 0, 0);
	stirring = true;
	if (pthread_create(&thread, NULL, stir, b))
		bench_fail("no thread");
	slots_name = "memslots.modified";
	bench_threads(b, slots_load);
	stirring = false;
	pthread_join(thread, NULL);
	bench_destroy(b);
}

/* ---- demand_paging_test ------------------------------------------------------------------- */

#ifndef BENCH_LOCKS

/* One server for each vCPU, as one userfaultfd for each in Linux's test; it copies a page. */
struct server {
	struct bench *b;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	uint64_t gpa;
	bool wanted, end;
	struct s2_page_waiter waiter;
	bool woken;
};

static struct server servers[BENCH_THREADS];

static void request(void *opaque, struct s2_thread *t, uint64_t gpa)
{
	const struct bench *b = opaque;
	struct server *s = &servers[gpa / b->stride];

	(void)t;
	pthread_mutex_lock(&s->mutex);
	s->gpa = gpa;
	s->wanted = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->mutex);
}

static int fill(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes)
{
	static _Thread_local char page[1 << 16];

	(void)hpa;
	memset(page, (int)(gpa >> 12), bytes);
	__asm__ volatile("" : : "r"(page), "r"(opaque) : "memory");
	return 0;
}

static void *serve(void *arg)
{
	struct server *s = arg;
	struct s2_thread *t;

	if (s2_thread_init(&t, s->b->s2, "server"))
		bench_fail("s2_thread_init");
	pthread_mutex_lock(&s->mutex);
	while (!s->end) {
		uint64_t gpa = s->gpa;

		if (!s->wanted) {
			pthread_cond_wait(&s->cond, &s->mutex);
			continue;
		}
		s->wanted = false;
		pthread_mutex_unlock(&s->mutex);
		if (s2_receive(t, gpa, 1, fill, NULL) < 0)
			bench_fail("s2_receive");
		pthread_mutex_lock(&s->mutex);
	}
	pthread_mutex_unlock(&s->mutex);
	s2_thread_exit(t);
	return NULL;
}

static void wake(struct s2_page_waiter *waiter)
{
	struct server *s = (struct server *)((char *)waiter - offsetof(struct server, waiter));

	pthread_mutex_lock(&s->mutex);
	s->woken = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->mutex);
}

static void touch_missing(struct worker *w, uint64_t gpa)
{
	struct server *s = &servers[w->id];
	struct s2_xlat x;

	while (!s2_translate(w->t, gpa, S2_W, &x)) {
		if (s2_fault(w->t, gpa, S2_W, &x) != S2_MISSING)
			continue;
		s->woken = false;
		if (s2_page_wait(w->t, gpa, &s->waiter)) {
			pthread_mutex_lock(&s->mutex);
			while (!s->woken)
				pthread_cond_wait(&s->cond, &s->mutex);
			pthread_mutex_unlock(&s->mutex);
		}
		s2_page_wait_end(w->t, &s->waiter);
	}
}

static void demand(struct worker *w)
{
	const struct s2_missing_ops ops = {.opaque = w->b, .request = request};
	const uint64_t pages = w->b->pages / 8; /* each wakes two threads */
	struct server *s = &servers[w->id];
	pthread_t thread;

	bench_begin(w);
	for (uint64_t i = 0; i < w->b->pages; i++)
		bench_touch(w, w->base + i * w->b->page, S2_W);
	bench_end(w, "demand-paging.none", (double)w->b->pages, "ns");
	pthread_barrier_wait(&w->b->barrier);
	if (!w->id && s2_missing_start(w->t, &ops))
		bench_fail("s2_missing_start");
	pthread_barrier_wait(&w->b->barrier);
	if (!w->id)
		for (unsigned i = 0; i < w->b->threads; i++)
			if (s2_missing_mark(w->t, i * w->b->stride, w->b->pages, NULL) < 0)
				bench_fail("s2_missing_mark");
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->cond, NULL);
	s->b = w->b;
	s->waiter.wake = wake;
	if (pthread_create(&thread, NULL, serve, s))
		bench_fail("no thread");
	bench_begin(w);
	for (uint64_t i = 0; i < pages; i++)
		touch_missing(w, w->base + i * w->b->page);
	bench_end(w, "demand-paging.missing", (double)pages, "ns");
	pthread_mutex_lock(&s->mutex);
	s->end = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->mutex);
	pthread_join(thread, NULL);
}

#endif

void bench_linux(struct bench *b)
{
	static const struct {
		const char *name;
		unsigned flags;
	} modes[] = {{"", 0},
		     {"-eager", S2_DIRTY_EAGER},
		     {"-eager-manual", S2_DIRTY_EAGER | S2_DIRTY_MANUAL},
		     {"-collapse", S2_DIRTY_COLLAPSE}};

	for (unsigned i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		dirty_flags = modes[i].flags;
		dirty_name = modes[i].name;
		bench_create(b, UINT64_C(1) << 29, 0);
		bench_threads(b, dirty_log);
		bench_destroy(b);
	}
	bench_create(b, 0, 0);
	bench_threads(b, access_tracking);
	bench_destroy(b);
	bench_create(b, UINT64_C(1) << 29, 0);
	b->block = s2_level_size(b->s2, 2);
	bench_threads(b, page_table);
	bench_destroy(b);
	memslots(b);
#ifndef BENCH_LOCKS
	bench_create(b, 0, 0);
	bench_threads(b, demand);
	bench_destroy(b);
#endif
}
