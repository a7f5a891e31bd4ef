/*
 * The shape of a tree of tables: how an address is cut into indices, and where leaves may stand.
 * Levels are counted from the leaves: level 1 holds the smallest pages, the root has the highest.
 *
 * A root may be wider than the other tables (RISC-V: two more bits), several tables side by side
 * (arm64: up to 16), or cut short by a narrow input: root_bits covers all three.
 */
#ifndef MMU_GEOMETRY_H
#define MMU_GEOMETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define mmu_inline static inline __attribute__((always_inline))

enum { MMU_MAX_LEVELS = 5 };

struct geometry {
	uint8_t levels;	     /* of the tree, and the level of the root */
	uint8_t page_shift;  /* log2 of the bytes a level-1 leaf maps */
	uint8_t index_bits;  /* of every table but the root */
	uint8_t root_bits;   /* index bits of the root */
	uint8_t entry_size;  /* bytes: 8, or 4 */
	uint8_t leaf_levels; /* bit n: level n may hold leaves */
	uint8_t input_bits;  /* width of an address that goes in */
	uint8_t output_bits; /* entries with address bits at or above are refused */
	uint8_t options;     /* enum format_options */
};

/* log2 of the bytes one entry of `level` covers */
mmu_inline unsigned geometry_shift(const struct geometry *g, unsigned level)
{
	return g->page_shift + g->index_bits * (level - 1u);
}

mmu_inline uint64_t geometry_size(const struct geometry *g, unsigned level)
{
	return UINT64_C(1) << geometry_shift(g, level);
}

mmu_inline size_t geometry_entries(const struct geometry *g, unsigned level)
{
	return (size_t)1 << (level == g->levels ? g->root_bits : g->index_bits);
}

mmu_inline size_t geometry_index(const struct geometry *g, unsigned level, uint64_t addr)
{
	return (size_t)(addr >> geometry_shift(g, level)) & (geometry_entries(g, level) - 1);
}

/* A table takes a page at least (the root of a narrow input may need less). */
mmu_inline size_t geometry_table_bytes(const struct geometry *g, unsigned level)
{
	size_t bytes = geometry_entries(g, level) * g->entry_size;

	return bytes < 4096 ? 4096 : bytes;
}

mmu_inline bool geometry_has_leaf(const struct geometry *g, unsigned level)
{
	return (g->leaf_levels >> level) & 1;
}

/* Last address that goes in. */
mmu_inline uint64_t geometry_max(const struct geometry *g)
{
	return (UINT64_C(2) << (g->input_bits - 1u)) - 1;
}

#endif
