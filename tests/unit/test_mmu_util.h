/*
 * What the tests of the MMU core share: checks that count, a seed that can be given as an argument,
 * and an environment that counts tables and fails on demand.
 */
#ifndef TEST_MMU_UTIL_H
#define TEST_MMU_UTIL_H

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "mmu/second_stage.h"

static atomic_ulong test_checks, test_failures;

/* A failed check is printed (the first twenty of them) and makes the test fail; it goes on. */
#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		atomic_fetch_add_explicit(&test_checks, 1, memory_order_relaxed);                  \
		if (!(cond)) {                                                                     \
			if (atomic_fetch_add(&test_failures, 1) < 20) {                            \
				fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);         \
				fprintf(stderr, __VA_ARGS__);                                      \
				fputc('\n', stderr);                                               \
			}                                                                          \
		}                                                                                  \
	} while (0)

/* Sanitizers slow checks down more than code, emulators both: tests of one thread do less there. */
static inline int test_scale(int n)
{
#if defined(__SANITIZE_THREAD__)
	return n / 10;
#elif defined(__SANITIZE_ADDRESS__)
	return n / 3;
#elif defined(TEST_SHARE)
	return n / TEST_SHARE;
#else
	return n;
#endif
}

static inline int test_result(const char *what)
{
	printf("%s: %lu checks, %lu failures\n", what, atomic_load(&test_checks),
	       atomic_load(&test_failures));
	return atomic_load(&test_failures) || !atomic_load(&test_checks);
}

/* xorshift64*: small, seeded, the same everywhere */
static inline uint64_t test_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint64_t test_seed(int argc, char **argv)
{
	uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);

	printf("seed %" PRIu64 " (give it as the argument to repeat)\n", seed);
	return seed ? seed * UINT64_C(0x9e3779b97f4a7c15) | 1 : 1;
}

static inline uint64_t test_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Environment: counts what is allocated, fails the n-th allocation from now when told, and can make
 * table addresses differ from pointers. */
enum { TEST_QUARANTINE = 64 };

struct test_env {
	struct s2_env env;
	atomic_long live, bytes;
	atomic_long fail_after; /* 0: the next one fails; negative: none does */
	uint64_t offset;	/* pa = pointer + offset */
	_Atomic(void *) quarantine[TEST_QUARANTINE];
	atomic_uint freed;
	/* with offset TEST_LOW, for formats whose addresses are narrow: memory of our own */
	pthread_mutex_t arena_mutex;
	char *arena;
	size_t arena_used;
	void *arena_free[64]; /* by log2 of the size; linked through their second word */
};

#define TEST_LOW   UINT64_MAX		 /* instead of an offset: addresses are low */
#define TEST_ARENA (UINT64_C(256) << 20) /* its size, alignment and physical address */

static inline void *test_arena_alloc(struct test_env *te, size_t bytes)
{
	void **free_list = &te->arena_free[__builtin_ctzll(bytes)], *block;

	pthread_mutex_lock(&te->arena_mutex);
	block = *free_list;
	if (block) {
		*free_list = ((void **)block)[1];
	} else {
		te->arena_used = (te->arena_used + bytes - 1) & ~(bytes - 1);
		block = te->arena + te->arena_used;
		te->arena_used += bytes;
		if (te->arena_used > TEST_ARENA)
			block = NULL;
	}
	pthread_mutex_unlock(&te->arena_mutex);
	return block;
}

static inline void test_arena_free(struct test_env *te, void *block, size_t bytes)
{
	void **free_list = &te->arena_free[__builtin_ctzll(bytes)];

	pthread_mutex_lock(&te->arena_mutex);
	((void **)block)[1] = *free_list;
	*free_list = block;
	pthread_mutex_unlock(&te->arena_mutex);
}

static inline void *test_env_alloc(void *opaque, size_t bytes)
{
	struct test_env *te = opaque;
	void *table;

	if (atomic_load(&te->fail_after) >= 0 && atomic_fetch_sub(&te->fail_after, 1) == 0) {
		atomic_store(&te->fail_after, 0);
		return NULL;
	}
	table = te->arena ? test_arena_alloc(te, bytes) : aligned_alloc(bytes, bytes);
	if (!table)
		return NULL;
	atomic_fetch_add(&te->live, 1);
	atomic_fetch_add(&te->bytes, (long)bytes);
	return memset(table, 0, bytes);
}

/* Freed tables are kept for a while, full of leaves that lead nowhere: whoever still reads them
 * translates to nonsense, and whoever still writes them is found. */
enum { TEST_POISON = 0xa7 };

static inline void test_env_check_poison(const unsigned char *table, size_t bytes)
{
	size_t i = 0;

	while (i < bytes && table[i] == TEST_POISON)
		i++;
	CHECK(i == bytes, "a freed table was written at %zu", i);
}

static inline void test_env_free(void *opaque, void *table, size_t bytes)
{
	struct test_env *te = opaque;
	unsigned at = atomic_fetch_add(&te->freed, 1) % TEST_QUARANTINE;
	void *old;

	memset(table, TEST_POISON, bytes);
	atomic_fetch_sub(&te->live, 1);
	atomic_fetch_sub(&te->bytes, (long)bytes);
	if (te->arena) {
		test_arena_free(te, table, bytes);
		return;
	}
	if (bytes != 4096) {
		free(table);
		return;
	}
	old = atomic_exchange(&te->quarantine[at], table);
	if (old)
		test_env_check_poison(old, 4096);
	free(old);
}

/* At the end of a test: empties the quarantine. What is live then has leaked. */
static inline long test_env_leaked(struct test_env *te)
{
	for (int i = 0; i < TEST_QUARANTINE; i++) {
		void *old = atomic_exchange(&te->quarantine[i], NULL);

		if (old)
			test_env_check_poison(old, 4096);
		free(old);
	}
	if (te->arena)
		munmap(te->arena, TEST_ARENA);
	te->arena = NULL;
	return atomic_load(&te->live);
}

static inline uint64_t test_env_to_pa(void *opaque, const void *table)
{
	return (uint64_t)(uintptr_t)table + ((struct test_env *)opaque)->offset;
}

static inline void *test_env_from_pa(void *opaque, uint64_t pa)
{
	return (void *)(uintptr_t)(pa - ((struct test_env *)opaque)->offset);
}

static inline void test_env_init(struct test_env *te, uint64_t offset)
{
	memset(te, 0, sizeof(*te));
	te->env = (struct s2_env){.opaque = te,
				  .alloc = test_env_alloc,
				  .free = test_env_free,
				  .to_pa = test_env_to_pa,
				  .from_pa = test_env_from_pa};
	/* Then addresses are pointers, and threads take the shorter paths. */
	if (!offset)
		te->env.to_pa = NULL, te->env.from_pa = NULL;
	atomic_store(&te->fail_after, -1);
	te->offset = offset;
	if (offset == TEST_LOW) {
		char *area = mmap(NULL, 2 * TEST_ARENA, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		size_t skip = -(uintptr_t)area & (TEST_ARENA - 1);

		if (area == MAP_FAILED)
			exit(1);
		te->arena = area + skip;
		munmap(area, skip);
		munmap(te->arena + TEST_ARENA, TEST_ARENA - skip);
		te->offset = TEST_ARENA - (uintptr_t)te->arena;
		pthread_mutex_init(&te->arena_mutex, NULL);
	}
}

#endif
