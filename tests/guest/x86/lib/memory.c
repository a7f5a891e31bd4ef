/* Page pool and page tables of the one address space (boot.S). */
#include "guest.h"

extern u64 boot_pml4[];
static u64 next = POOL_START;

void *alloc_aligned(size_t bytes, size_t align)
{
	u64 a = (next + align - 1) & ~(align - 1);

	next = a + ((bytes + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1));
	if (next > POOL_END)
		panic("out of pages");
	return memset((void *)a, 0, bytes);
}

void *alloc_pages(size_t n)
{
	return alloc_aligned(n * PAGE_SIZE, PAGE_SIZE);
}

u64 *entry_of(u64 va, int level)
{
	u64 *table = boot_pml4;

	for (int l = 4;; l--) {
		u64 *e = &table[va >> (12 + 9 * (l - 1)) & 511];

		if (l == level)
			return e;
		if (!(*e & PTE_P))
			*e = (u64)alloc_pages(1) | PTE_P | PTE_W | PTE_U;
		table = (u64 *)(*e & PTE_ADDR);
	}
}

u64 *map_page(u64 va, u64 pa, u64 bits)
{
	u64 *e = entry_of(va, 1);

	*e = pa | bits;
	return e;
}
