/*
 * The programme: `pairs [ROUNDS [FORMAT [THREADS]]]`. For each format, on one thread and on two,
 * ROUNDS times: each operation by every contestant in turn, each for PAGES pages, a millisecond or
 * less. Prints every piece, as bench.h says; the n-th figures of two contestants belong together.
 *
 * On two threads the first format once more, NAME-apart: each thread with instances of its own, so
 * that they share nothing but the machine.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/mmu/bench.h"
#include "tests/bench/mmu/pairs/side.h"

enum { PAGES = 32768, MAX_THREADS = 2 };

static const struct side *const sides[] = {&side_floor, &side_parallel, &side_exclusive,
					   &side_older};
enum { SIDES = sizeof(sides) / sizeof(*sides) };

static const char *const names[SIDE_OPS] = {
	[SIDE_MAP] = "map",
	[SIDE_HIT] = "hit",
	[SIDE_HIT_SECTION] = "hit-section",
	[SIDE_PERMISSION] = "permission-fault",
	[SIDE_HARVEST] = "harvest",
	[SIDE_WRITE_PROTECT] = "write-protect",
	[SIDE_UNMAP] = "unmap",
	[SIDE_SPLIT] = "eager-split",
	[SIDE_COLLAPSE] = "collapse",
};

static unsigned rounds, threads;
static bool apart;
static void *instance[MAX_THREADS][SIDES];
static const char *format;

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Threads wait for each other without sleeping, so that they begin within less than a microsecond;
 * but others get the processor if it takes longer. */
static void meet(void)
{
	static atomic_uint came, turn;
	unsigned mine = atomic_load(&turn);

	if (atomic_fetch_add(&came, 1) + 1 == threads) {
		atomic_store(&came, 0);
		atomic_fetch_add(&turn, 1);
		return;
	}
	for (unsigned spins = 0; atomic_load(&turn) == mine; spins++) {
		if (spins > 1000)
			sched_yield();
	}
}

static double took[MAX_THREADS];

static void piece(unsigned id, unsigned side, void *thread, enum side_op op)
{
	double start, slowest = 0;
	bool any;

	meet();
	start = seconds();
	any = sides[side]->run(thread, op, id * SIDE_STRIDE, PAGES);
	took[id] = seconds() - start;
	meet();
	for (unsigned i = 0; i < threads; i++)
		slowest = took[i] > slowest ? took[i] : slowest;
	if (!id && any && names[op])
		printf("%s %s %u %s%s %.4g ns\n", sides[side]->scheme, format, threads, names[op],
		       apart ? "-apart" : "", slowest * 1e9 / PAGES);
}

static void *worker(void *arg)
{
	const unsigned id = *(const unsigned *)arg;
	void *thread[SIDES];

	for (unsigned s = 0; s < SIDES; s++)
		thread[s] = sides[s]->enter(instance[apart ? id : 0][s], id * SIDE_STRIDE, PAGES);
	for (unsigned n = 0; n < rounds; n++) {
		for (enum side_op op = 0; op < SIDE_OPS; op++) {
			/* Each in each place, and after each of its neighbours. */
			for (unsigned i = 0; i < SIDES; i++) {
				unsigned s = ((n & 1 ? SIDES - 1 - i : i) + n / 2) % SIDES;

				piece(id, s, thread[s], op);
			}
		}
	}
	for (unsigned s = 0; s < SIDES; s++)
		sides[s]->leave(thread[s]);
	return NULL;
}

static void measure(const struct bench_format *f)
{
	const struct s2_config config = {
		.format = f->format, .input_bits = f->input_bits, .env = &bench_env};
	static const unsigned id[MAX_THREADS] = {0, 1};
	pthread_t thread[MAX_THREADS];

	format = f->name;
	for (unsigned i = 0; i < (apart ? threads : 1); i++)
		for (unsigned s = 0; s < SIDES; s++)
			instance[i][s] = sides[s]->create(&config, threads * SIDE_STRIDE);
	for (unsigned i = 0; i < threads; i++) {
		if (pthread_create(&thread[i], NULL, worker, (void *)&id[i]))
			bench_fail("no thread");
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < (apart ? threads : 1); i++)
		for (unsigned s = 0; s < SIDES; s++)
			sides[s]->destroy(instance[i][s]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *only = argc > 2 ? argv[2] : NULL;
	unsigned most = argc > 3 ? (unsigned)atoi(argv[3]) : MAX_THREADS;

	rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 50;
	bench_arena();
	for (threads = 1; threads <= most && threads <= MAX_THREADS; threads++) {
		for (unsigned i = 0; i < BENCH_FORMATS; i++) {
			if (only && strcmp(only, bench_formats[i].name))
				continue;
			measure(&bench_formats[i]);
			apart = threads > 1 && i == 0;
			if (apart)
				measure(&bench_formats[i]);
			apart = false;
		}
	}
	return 0;
}
