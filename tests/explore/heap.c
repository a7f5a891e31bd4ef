/* The heap of a run: blocks that are never used again after they are freed, and what is watched. */
#include <string.h>

#include "tests/explore/explore_internal.h"

enum { WATCHES = 16 };

_Alignas(16384) char heap_blocks[EXPLORE_BLOCKS][4096];
bool heap_freed[EXPLORE_BLOCKS];

static unsigned nr_blocks;
static long live;
static struct {
	const char *at;
	size_t bytes;
} watched[WATCHES];
static unsigned nr_watched;

void heap_begins(void)
{
	nr_blocks = nr_watched = 0;
	live = 0;
}

bool heap_watched(const volatile void *at)
{
	for (unsigned i = 0; i < nr_watched; i++) {
		if ((size_t)((const char *)at - watched[i].at) < watched[i].bytes)
			return true;
	}
	return false;
}

/* An allocator may take its time, and a grace period must not wait for it. */
static void check_outside(void)
{
	if (rcu_in_section())
		explore_fail("allocates or frees inside a read section");
}

void *explore_alloc(size_t bytes)
{
	unsigned n = (unsigned)(bytes / 4096), first = (nr_blocks + n - 1) & ~(n - 1);

	check_outside();
	if (bytes % 4096 || n & (n - 1) || first + n > EXPLORE_BLOCKS)
		explore_fail("no block of %zu bytes", bytes);
	live++;
	memory_fills(first, n);
	for (unsigned i = first; i < first + n; i++)
		heap_freed[i] = false;
	nr_blocks = first + n;
	return memset(heap_blocks[first], 0, bytes);
}

void explore_free(void *memory, size_t bytes)
{
	int block = heap_block(memory);

	check_outside();
	if (block < 0 || heap_freed[block])
		explore_fail("freed twice, or never allocated");
	for (size_t i = 0; i < bytes / 4096; i++)
		heap_freed[(size_t)block + i] = true;
	memset(memory, 0xa7, bytes);
	live--;
}

long explore_live(void)
{
	return live;
}

uint64_t explore_address(const void *memory)
{
	return (uint64_t)((const char *)memory - heap_blocks[0]);
}

void *explore_memory(uint64_t address)
{
	if (address >= sizeof(heap_blocks))
		explore_fail("an address that no table has: %#llx", (unsigned long long)address);
	return heap_blocks[0] + address;
}

void explore_watch(const volatile void *at, size_t bytes)
{
	if (nr_watched == WATCHES)
		explore_fail("more to watch than room");
	watched[nr_watched].at = (const char *)at;
	watched[nr_watched++].bytes = bytes;
}
