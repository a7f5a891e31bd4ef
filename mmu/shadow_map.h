/*
 * One node for each shadow leaf: which part of the guest's memory it uses, from which leaf of the
 * guest it was made. Found by any of the three: by gpa (unmapping a page of the instance), by the
 * guest's leaf (an invalidation by ngpa takes all that was made of it, however small the pieces and
 * whatever its size was), by context (dropping it).
 *
 * Locking: nodes are taken and linked under the read side of the instance's lock, by many threads;
 * everything else, unlinking above all, happens under the write side. So a free list only shrinks
 * while it is shared, chains only grow, and neither needs more than a compare-and-exchange.
 */
#ifndef MMU_SHADOW_MAP_H
#define MMU_SHADOW_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/second_stage.h"

enum shadow_chain { CHAIN_GPA, CHAIN_BLOCK, CHAIN_CONTEXT, SHADOW_CHAINS };

struct shadow_node {
	uint64_t gpa, ngpa; /* where the leaf begins */
	uint16_t context;
	uint8_t shift;	     /* log2 of the bytes that it maps */
	uint8_t guest_shift; /* the same of the guest's leaf */
	struct {
		_Atomic uint32_t next; /* index of a node; 0: none */
		uint32_t prev;
	} link[SHADOW_CHAINS];
};

struct shadow_map {
	const struct s2_env *env;
	struct shadow_node *node; /* 0 is none */
	_Atomic uint32_t *bucket[SHADOW_CHAINS];
	size_t node_bytes, bucket_bytes[SHADOW_CHAINS];
	unsigned bucket_bits; /* of gpa and block; of contexts: one each */
	uint32_t nodes;
	_Atomic uint32_t free;	   /* shrinks under the read side */
	_Atomic uint32_t returned; /* grows under the read side */
	_Atomic uint32_t used;
	struct shadow_cursor
		*stopped; /* visits that stopped inside a chain; under the write side */
	/* Bit n: leaves of 1 << n bytes have been there: of shadows, of the guest. */
	_Atomic uint64_t shifts[2];
};

int shadow_map_init(struct shadow_map *map, const struct s2_env *env, size_t leaves,
		    unsigned contexts);
void shadow_map_free(struct shadow_map *map);

/* Read side. 0: none is left, but there may be some that were returned (shadow_map_reclaim). */
uint32_t shadow_map_take(struct shadow_map *map);
void shadow_map_return(struct shadow_map *map, uint32_t index); /* was taken, is not linked */
void shadow_map_link(struct shadow_map *map, uint32_t index);
/* The node of this very leaf; or 0, also if it is not among the first `budget` of its chain. */
uint32_t shadow_map_find(struct shadow_map *map, const struct shadow_node *like, unsigned budget);

/* Write side. */
void shadow_map_remove(struct shadow_map *map, uint32_t index);
/* Up to n nodes that were returned can be taken again. shadow_map_remove does it for a few. */
void shadow_map_reclaim(struct shadow_map *map, unsigned n);

/* Where a visit is. All zero at first. A guest may make as many leaves of one page as there are
 * nodes, all in one chain: a visit stops inside, too, and the map knows it then, so that a node
 * that is removed meanwhile moves it on. */
struct shadow_cursor {
	uint64_t at, shifts;
	bool stopped; /* inside a chain, before `node`, or behind its last one (0) */
	uint32_t node;
	enum shadow_chain chain;
	struct shadow_cursor *other; /* that has stopped */
};

/* Visits (write side), for all sizes that there are, the nodes whose part of the guest's memory
 * (CHAIN_GPA; context is 0), or whose guest leaf in `context` (CHAIN_BLOCK), overlaps [start,
 * last]. visit may remove the node it is given, and no other. Stops when `budget` nodes and buckets
 * have been looked at; true: there is more, and the lock may be left before the next call (what is
 * linked meanwhile may be left out), or shadow_map_leave, which ends the visit. */
typedef void shadow_visit_fn(void *opaque, uint32_t index);
bool shadow_map_visit(struct shadow_map *map, enum shadow_chain chain, unsigned context,
		      uint64_t start, uint64_t last, struct shadow_cursor *cursor, unsigned budget,
		      shadow_visit_fn *visit, void *opaque);
void shadow_map_leave(struct shadow_map *map, struct shadow_cursor *cursor);

#endif
