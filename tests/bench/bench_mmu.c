/*
 * Costs of the MMU core, next to a bare walk written by hand for EPT4:
 *	make libmmu && cc -O2 -I. -o bench_mmu tests/bench/bench_mmu.c build/release/libmmu.a \
 *		-lurcu-memb -lurcu-common -pthread
 *	bench_mmu [threads]
 * Not part of any check: numbers depend on the host. Each line is processor time of
 * thread 0, the best of seven rounds.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mmu/second_stage.h"

enum { PAGE = 4096, ROUNDS = 7, MAX_THREADS = 8 };
#define GiB (UINT64_C(1) << 30)

static struct s2 *s2;
static unsigned nr_threads;
static pthread_barrier_t barrier;
static double results[16][ROUNDS][MAX_THREADS];

enum bench { HAND, HIT, HIT_WIDE, HAND_WIDE, HIT_HUGE, MAP4K, WP_FAULT, HARVEST, MARK, UNMAP, NR };

static const char *const names[NR] = {
	[HAND] = "hand-written walk, 4 KiB leaf, 64 pages",
	[HIT] = "s2_translate hit, 4 KiB leaf, 64 pages",
	[HAND_WIDE] = "hand-written walk, random in 256 MiB of 4 KiB leaves",
	[HIT_WIDE] = "s2_translate hit, random in 256 MiB of 4 KiB leaves",
	[HIT_HUGE] = "s2_translate hit, 2 MiB leaf",
	[MAP4K] = "s2_fault that maps 4 KiB",
	[WP_FAULT] = "s2_fault that gives W back and marks dirty",
	[HARVEST] = "s2_dirty_harvest, per dirty page",
	[MARK] = "s2_dirty_mark of one page",
	[UNMAP] = "s2_unmap, per 4 KiB leaf",
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* What an emulator without this core would write: constants, no RCU, no formats. */
static __attribute__((noinline)) bool hand_walk(uint64_t root, uint64_t gpa, uint32_t access,
						struct s2_xlat *out)
{
	const uint64_t addr = UINT64_C(0xffffffffff000);
	const uint64_t *table = (const uint64_t *)(uintptr_t)(root & addr);
	uint64_t e, size = UINT64_C(1) << 39;
	uint32_t level = 4;

	for (unsigned shift = 39;; shift -= 9, level--, size >>= 9) {
		e = table[gpa >> shift & 511];
		if (!(e & 7))
			return false;
		if (level == 1 || e & 0x80)
			break;
		table = (const uint64_t *)(uintptr_t)(e & addr);
	}
	if (access & ~e)
		return false;
	out->hpa = (e & addr) | (gpa & (size - 1));
	out->perm = e & 7;
	out->level = level;
	out->entry = e;
	return true;
}

static uint64_t sink;

#define TIME(which, count, ...)                                                                    \
	do {                                                                                       \
		pthread_barrier_wait(&barrier);                                                    \
		double begin = now();                                                              \
		__VA_ARGS__;                                                                       \
		results[which][round][id] = (now() - begin) / (double)(count);                     \
	} while (0)

/* Each thread works in a GiB of its own, so that the numbers show sharing and not races. */
static void *run(void *arg)
{
	const unsigned id = (unsigned)(uintptr_t)arg;
	const uint64_t base = (id + 1) * GiB, pages = 256 * (GiB / 1024) / PAGE, hits = 1 << 20;
	uint64_t *bitmap = calloc(pages / 64, 8), x = 88172645463325252u + id, sum = 0;
	struct s2_thread *t;
	struct s2_xlat xlat = {0};
	uint64_t root = s2_root(s2);

	if (!bitmap || s2_thread_init(&t, s2, "bench"))
		exit(1);
	for (int round = 0; round < ROUNDS; round++) {
		s2_unmap(t, base, base + GiB);
		TIME(MAP4K, pages, {
			for (uint64_t i = 0; i < pages; i++)
				sum += s2_fault(t, base + i * PAGE, S2_R, &xlat);
		});
		TIME(HAND, hits, {
			for (uint64_t i = 0; i < hits; i++)
				sum += hand_walk(root, base + (i & 63) * PAGE, S2_R, &xlat);
		});
		TIME(HIT, hits, {
			for (uint64_t i = 0; i < hits; i++)
				sum += s2_translate(t, base + (i & 63) * PAGE, S2_R, &xlat);
		});
		TIME(HAND_WIDE, hits, {
			for (uint64_t i = 0; i < hits; i++) {
				x ^= x << 13, x ^= x >> 7, x ^= x << 17;
				sum += hand_walk(root, base + x % pages * PAGE, S2_R, &xlat);
			}
		});
		TIME(HIT_WIDE, hits, {
			for (uint64_t i = 0; i < hits; i++) {
				x ^= x << 13, x ^= x >> 7, x ^= x << 17;
				sum += s2_translate(t, base + x % pages * PAGE, S2_R, &xlat);
			}
		});
		TIME(HIT_HUGE, hits, {
			for (uint64_t i = 0; i < hits; i++)
				sum += s2_translate(t, GiB / 2 + (i & 63) * PAGE, S2_R, &xlat);
		});
		TIME(WP_FAULT, pages, {
			for (uint64_t i = 0; i < pages; i++)
				sum += s2_fault(t, base + i * PAGE, S2_W, &xlat);
		});
		TIME(HARVEST, pages, {
			if (s2_dirty_harvest(t, base, pages, bitmap) != (int64_t)pages)
				exit(1);
		});
		TIME(MARK, pages, {
			for (uint64_t i = 0; i < pages; i++)
				s2_dirty_mark(t, base + i * PAGE, 1);
		});
		s2_dirty_harvest(t, base, pages, bitmap);
		TIME(UNMAP, pages, s2_unmap(t, base, base + GiB));
	}
	__atomic_fetch_add(&sink, sum + xlat.hpa, __ATOMIC_RELAXED);
	s2_thread_exit(t);
	free(bitmap);
	return NULL;
}

static int ascending(const void *a, const void *b)
{
	return *(const double *)a > *(const double *)b ? 1 : -1;
}

int main(int argc, char **argv)
{
	struct s2_config config = {.format = S2_EPT4, .input_bits = 48};
	struct s2_slot low = {.size = GiB, .page_size = 2 << 20};
	struct s2_slot ram = {.gpa = GiB, .hpa = GiB, .page_size = 2 << 20, .flags = S2_SLOT_LOG};
	pthread_t thread[MAX_THREADS];
	struct s2_thread *t;
	struct s2_xlat xlat;

	nr_threads = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
	if (!nr_threads || nr_threads > MAX_THREADS)
		return 1;
	ram.size = nr_threads * GiB;
	if (s2_create(&s2, &config, NULL) || s2_thread_init(&t, s2, "main") ||
	    s2_slot_add(t, &low) || s2_slot_add(t, &ram) ||
	    s2_fault(t, GiB / 2, S2_R, &xlat) != S2_FIXED || xlat.level != 2)
		return 1;
	pthread_barrier_init(&barrier, NULL, nr_threads);
	for (unsigned i = 0; i < nr_threads; i++)
		pthread_create(&thread[i], NULL, run, (void *)(uintptr_t)i);
	for (unsigned i = 0; i < nr_threads; i++)
		pthread_join(thread[i], NULL);
	printf("%u thread(s), ns per operation (best of %d; thread 0)\n", nr_threads, ROUNDS);
	for (int b = 0; b < NR; b++) {
		double r[ROUNDS];

		for (int round = 0; round < ROUNDS; round++)
			r[round] = results[b][round][0];
		qsort(r, ROUNDS, sizeof(*r), ascending);
		printf("%8.1f  %s\n", r[0], names[b]);
	}
	s2_thread_exit(t);
	s2_destroy(s2);
	return 0;
}
