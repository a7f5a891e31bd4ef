/* The programme: `bench [linux]`. Numbers depend on the host; bench_mmu.py makes them comparable.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/mmu/bench.h"

_Thread_local bool bench_permission;

/* ---- measuring ---------------------------------------------------------------------------- */

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void bench_print(const struct bench *b, const char *name, double value, const char *unit)
{
	printf("%s %s %u %s %.4g %s\n", BENCH_SCHEME, b->format, b->threads, name, value, unit);
}

static double slowest;

void bench_begin(struct worker *w)
{
	pthread_barrier_wait(&w->b->barrier);
	w->wall = seconds(CLOCK_MONOTONIC);
	w->cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
}

void bench_end(struct worker *w, const char *name, double operations, const char *unit)
{
	double wall = seconds(CLOCK_MONOTONIC) - w->wall;
	double cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - w->cpu;
	double scale = !strcmp(unit, "ms") ? 1e3 : 1e9;
	double value = (w->b->threads > 1 ? wall : cpu) * scale / operations, most;

	__atomic_load(&slowest, &most, __ATOMIC_RELAXED);
	while (value > most && !__atomic_compare_exchange(&slowest, &most, &value, false,
							  __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	pthread_barrier_wait(&w->b->barrier);
	if (!w->id) {
		bench_print(w->b, name, slowest, unit);
		slowest = 0;
	}
	pthread_barrier_wait(&w->b->barrier);
}

/* ---- threads ------------------------------------------------------------------------------ */

static void (*thread_body)(struct worker *w);

static void *thread_main(void *arg)
{
	struct worker *w = arg;

	if (w->b->s2 && s2_thread_init(&w->t, w->b->s2, "bench"))
		bench_fail("s2_thread_init");
	thread_body(w);
	if (w->t)
		s2_thread_exit(w->t);
	return NULL;
}

void bench_threads(struct bench *b, void (*body)(struct worker *w))
{
	struct worker worker[BENCH_THREADS] = {0};
	pthread_t thread[BENCH_THREADS];

	thread_body = body;
	pthread_barrier_init(&b->barrier, NULL, b->threads);
	for (unsigned i = 0; i < b->threads; i++) {
		worker[i] = (struct worker){.b = b, .id = i, .base = i * b->stride};
		if (pthread_create(&thread[i], NULL, thread_main, &worker[i]))
			bench_fail("no thread");
	}
	for (unsigned i = 0; i < b->threads; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&b->barrier);
}

void bench_create(struct bench *b, uint64_t page_size, unsigned slot_flags)
{
	struct s2_slot ram = {.page_size = page_size, .flags = slot_flags};
	struct s2_thread *t;
	const char *why = "no memory";

	b->config.env = &bench_env;
	if (s2_create(&b->s2, &b->config, &why) || s2_thread_init(&t, b->s2, "main"))
		bench_fail("%s: %s", b->format, why);
	b->page = s2_level_size(b->s2, 1);
	b->block = s2_level_size(b->s2, 2);
	b->stride = UINT64_C(4) << 30;
	ram.page_size = page_size ? page_size : b->page;
	ram.size = b->threads * b->stride;
	if (s2_slot_add(t, &ram))
		bench_fail("%s: s2_slot_add", b->format);
	s2_thread_exit(t);
}

void bench_destroy(struct bench *b)
{
	s2_destroy(b->s2);
	b->s2 = NULL;
}

void bench_touch(struct worker *w, uint64_t gpa, uint32_t access)
{
	struct s2_xlat x;

	while (!s2_translate(w->t, gpa, access, &x)) {
		enum s2_result r = s2_fault(w->t, gpa, access, &x);

		if (r != S2_FIXED && r != S2_SPURIOUS && r != S2_RETRY)
			bench_fail("%s: a fault is %s", w->b->format, s2_result_name(r));
	}
}

/* ---- main --------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
	bool scenarios = argc > 1 && !strcmp(argv[1], "linux");

	bench_arena();
	for (unsigned threads = 1; threads <= 2; threads++) {
		for (unsigned i = 0; i < BENCH_FORMATS; i++) {
			struct bench b = {.format = bench_formats[i].name,
					  .config = {.format = bench_formats[i].format,
						     .input_bits = bench_formats[i].input_bits},
					  .threads = threads,
					  .pages = 32768};

			if (scenarios) {
				/* One format of each family. */
				if (i == 0 || i == 4 || i == 9)
					bench_linux(&b);
				continue;
			}
			bench_operations(&b);
#ifndef BENCH_LOCKS
			if (threads == 1) {
				bench_memory(&b);
				bench_nested(&b);
			}
#endif
			fflush(stdout);
		}
	}
	return 0;
}
