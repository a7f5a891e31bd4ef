/* What both programmes need and no copy of the core: memory for tables, the formats, failing. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/bench/mmu/bench.h"

/* ---- memory for tables: zeroed pages below 4 GiB, so that every format can hold their addresses.
 * Free ones are kept, as a kernel keeps them; the system's allocator is not what is measured. */

enum { ARENA = 768 << 20, CLASSES = 32 };
static char *arena;
static size_t arena_used;
static void *arena_free[CLASSES];
static pthread_mutex_t arena_mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t arena_live;

static void *env_alloc(void *opaque, size_t bytes)
{
	unsigned class = (unsigned)__builtin_ctzll(bytes);
	void *block;

	(void)opaque;
	pthread_mutex_lock(&arena_mutex);
	block = arena_free[class];
	if (block) {
		arena_free[class] = *(void **)block;
	} else {
		arena_used = (arena_used + bytes - 1) & ~(bytes - 1);
		block = arena_used + bytes <= ARENA ? arena + arena_used : NULL;
		arena_used += block ? bytes : 0;
	}
	arena_live += block ? bytes : 0;
	pthread_mutex_unlock(&arena_mutex);
	return block ? memset(block, 0, bytes) : NULL;
}

static void env_free(void *opaque, void *block, size_t bytes)
{
	unsigned class = (unsigned)__builtin_ctzll(bytes);

	(void)opaque;
	pthread_mutex_lock(&arena_mutex);
	*(void **)block = arena_free[class];
	arena_free[class] = block;
	arena_live -= bytes;
	pthread_mutex_unlock(&arena_mutex);
}

const struct s2_env bench_env = {.alloc = env_alloc, .free = env_free};

uint64_t bench_env_live(void)
{
	return arena_live;
}

void bench_arena(void)
{
	arena = mmap((void *)0x10000000, ARENA, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (arena == MAP_FAILED)
		bench_fail("no memory below 4 GiB for tables");
	memset(arena, 1, 64 << 20); /* there before anything is measured */
}

/* ---- the rest ---- */

void bench_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

const struct bench_format bench_formats[BENCH_FORMATS] = {
	{"ept4", S2_EPT4, 48},		 {"ept5", S2_EPT5, 57},
	{"npt4", S2_NPT4, 48},		 {"npt5", S2_NPT5, 57},
	{"arm64-4k", S2_ARM64_4K, 48},	 {"arm64-16k", S2_ARM64_16K, 48},
	{"arm64-64k", S2_ARM64_64K, 48}, {"sv32x4", S2_SV32X4, 0},
	{"sv39x4", S2_SV39X4, 0},	 {"sv48x4", S2_SV48X4, 0},
	{"sv57x4", S2_SV57X4, 0},
};
