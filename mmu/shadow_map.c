#include "mmu/shadow_map.h"

#include <errno.h>

/* Nodes that one removal brings back of those that were returned. */
enum { RECLAIM = 16 };

static void *array(const struct s2_env *env, size_t bytes, size_t *got)
{
	*got = 4096;
	while (*got < bytes)
		*got *= 2;
	return env->alloc(env->opaque, *got);
}

int shadow_map_init(struct shadow_map *map, const struct s2_env *env, size_t leaves,
		    unsigned contexts)
{
	size_t buckets = 1024;

	*map = (struct shadow_map){.env = env, .bucket_bits = 10};
	for (; buckets < leaves; buckets *= 2)
		map->bucket_bits++;
	map->node = array(env, (leaves + 1) * sizeof(*map->node), &map->node_bytes);
	map->nodes = (uint32_t)leaves + 1;
	for (int chain = 0; chain < SHADOW_CHAINS; chain++)
		map->bucket[chain] =
			array(env, (chain == CHAIN_CONTEXT ? contexts : buckets) * sizeof(uint32_t),
			      &map->bucket_bytes[chain]);
	if (!map->node || !map->bucket[0] || !map->bucket[1] || !map->bucket[2]) {
		shadow_map_free(map);
		return -ENOMEM;
	}
	for (uint32_t i = 1; i < map->nodes; i++)
		map->node[i].link[0].next = i + 1 < map->nodes ? i + 1 : 0;
	map->free = 1;
	return 0;
}

void shadow_map_free(struct shadow_map *map)
{
	const struct s2_env *env = map->env;

	if (map->node)
		env->free(env->opaque, map->node, map->node_bytes);
	for (int chain = 0; chain < SHADOW_CHAINS; chain++) {
		if (map->bucket[chain])
			env->free(env->opaque, (void *)map->bucket[chain],
				  map->bucket_bytes[chain]);
	}
}

uint32_t shadow_map_take(struct shadow_map *map)
{
	uint32_t index = atomic_load(&map->free);

	/* The next one may be stale only if somebody else has taken this one, and then it is not
	 * the first any more: nothing is put back meanwhile. */
	while (index && !atomic_compare_exchange_weak(&map->free, &index,
						      atomic_load(&map->node[index].link[0].next)))
		;
	if (index)
		atomic_fetch_add(&map->used, 1);
	return index;
}

void shadow_map_return(struct shadow_map *map, uint32_t index)
{
	uint32_t first = atomic_load(&map->returned);

	do
		atomic_store(&map->node[index].link[0].next, first);
	while (!atomic_compare_exchange_weak(&map->returned, &first, index));
	atomic_fetch_sub(&map->used, 1);
}

static size_t hash(const struct shadow_map *map, uint64_t address, unsigned context, unsigned shift)
{
	uint64_t key = (address >> shift) * UINT64_C(0x9e3779b97f4a7c15);

	key ^= ((uint64_t)context << 8 | shift) * UINT64_C(0xc2b2ae3d27d4eb4f);
	key *= UINT64_C(0x9e3779b97f4a7c15);
	return (size_t)(key >> (64 - map->bucket_bits));
}

static _Atomic uint32_t *bucket_of(struct shadow_map *map, enum shadow_chain chain,
				   const struct shadow_node *n)
{
	switch (chain) {
	case CHAIN_GPA: return &map->bucket[chain][hash(map, n->gpa, 0, n->shift)];
	case CHAIN_BLOCK:
		return &map->bucket[chain][hash(map, n->ngpa, n->context, n->guest_shift)];
	default: return &map->bucket[chain][n->context];
	}
}

void shadow_map_link(struct shadow_map *map, uint32_t index)
{
	struct shadow_node *n = &map->node[index];

	atomic_fetch_or(&map->shifts[CHAIN_GPA], UINT64_C(1) << n->shift);
	atomic_fetch_or(&map->shifts[CHAIN_BLOCK], UINT64_C(1) << n->guest_shift);
	for (int chain = 0; chain < SHADOW_CHAINS; chain++) {
		_Atomic uint32_t *bucket = bucket_of(map, chain, n);
		uint32_t first = atomic_load(bucket);

		n->link[chain].prev = 0;
		do
			atomic_store(&n->link[chain].next, first);
		while (!atomic_compare_exchange_weak(bucket, &first, index));
		if (first) /* whoever replaces it as the first, and nobody else */
			map->node[first].link[chain].prev = index;
	}
}

uint32_t shadow_map_find(struct shadow_map *map, const struct shadow_node *like, unsigned budget)
{
	uint32_t index = atomic_load(bucket_of(map, CHAIN_GPA, like));

	for (; index && budget--; index = atomic_load(&map->node[index].link[CHAIN_GPA].next)) {
		const struct shadow_node *n = &map->node[index];

		if (n->gpa == like->gpa && n->ngpa == like->ngpa && n->context == like->context &&
		    n->shift == like->shift && n->guest_shift == like->guest_shift)
			return index;
	}
	return 0;
}

void shadow_map_remove(struct shadow_map *map, uint32_t index)
{
	struct shadow_node *n = &map->node[index];
	uint32_t next;

	for (struct shadow_cursor *c = map->stopped; c; c = c->other) {
		if (c->node == index)
			c->node = atomic_load(&n->link[c->chain].next);
	}
	for (int chain = 0; chain < SHADOW_CHAINS; chain++) {
		uint32_t prev = n->link[chain].prev;

		next = atomic_load(&n->link[chain].next);
		if (prev)
			atomic_store(&map->node[prev].link[chain].next, next);
		else
			atomic_store(bucket_of(map, chain, n), next);
		if (next)
			map->node[next].link[chain].prev = prev;
	}
	atomic_fetch_sub(&map->used, 1);
	atomic_store(&n->link[0].next, atomic_load(&map->free));
	atomic_store(&map->free, index);
	shadow_map_reclaim(map, RECLAIM);
}

void shadow_map_reclaim(struct shadow_map *map, unsigned n)
{
	uint32_t index;

	while (n-- && (index = atomic_load(&map->returned))) {
		atomic_store(&map->returned, atomic_load(&map->node[index].link[0].next));
		atomic_store(&map->node[index].link[0].next, atomic_load(&map->free));
		atomic_store(&map->free, index);
	}
}

/* ---- visits: in pieces, and a chain may be longer than one ---- */

void shadow_map_leave(struct shadow_map *map, struct shadow_cursor *cursor)
{
	struct shadow_cursor **link = &map->stopped;

	while (*link && *link != cursor)
		link = &(*link)->other;
	if (*link)
		*link = cursor->other;
	else
		cursor->node = 0; /* it stands in no chain of this map */
}

static bool overlaps(const struct shadow_node *n, enum shadow_chain chain, unsigned context,
		     uint64_t start, uint64_t last)
{
	uint64_t mask = (UINT64_C(1) << (chain == CHAIN_GPA ? n->shift : n->guest_shift)) - 1;
	uint64_t base = (chain == CHAIN_GPA ? n->gpa : n->ngpa) & ~mask;

	return (chain == CHAIN_GPA || n->context == context) && base <= last &&
	       (base | mask) >= start;
}

struct visit {
	struct shadow_map *map;
	enum shadow_chain chain;
	unsigned context, left; /* of the budget */
	uint64_t start, last;
	shadow_visit_fn *visit;
	void *opaque;
};

/* From where the cursor stands in the bucket's chain, if it does. false: the budget is used up, and
 * the cursor stands at the first that was not visited. */
static bool visit_bucket(struct visit *v, struct shadow_cursor *cursor, size_t bucket)
{
	struct shadow_map *map = v->map;
	uint32_t index =
		cursor->stopped ? cursor->node : atomic_load(&map->bucket[v->chain][bucket]);

	cursor->stopped = false;
	v->left -= v->left > 0;
	while (index) {
		uint32_t next = atomic_load(&map->node[index].link[v->chain].next);

		if (!v->left) {
			cursor->stopped = true;
			cursor->node = index;
			cursor->chain = v->chain;
			cursor->other = map->stopped;
			map->stopped = cursor;
			return false;
		}
		if (overlaps(&map->node[index], v->chain, v->context, v->start, v->last))
			v->visit(v->opaque, index);
		v->left--;
		index = next;
	}
	return true;
}

/* How many blocks of all sizes the range has; as many as buckets: all buckets are cheaper. */
static uint64_t blocks(const struct shadow_map *map, uint64_t shifts, uint64_t start, uint64_t last)
{
	const uint64_t all = UINT64_C(1) << map->bucket_bits;
	uint64_t n = 0;

	for (; shifts && n < all; shifts &= shifts - 1) {
		unsigned shift = (unsigned)__builtin_ctzll(shifts);

		n += (last >> shift) - (start >> shift) + 1;
	}
	return n < all ? n : all;
}

bool shadow_map_visit(struct shadow_map *map, enum shadow_chain chain, unsigned context,
		      uint64_t start, uint64_t last, struct shadow_cursor *cursor, unsigned budget,
		      shadow_visit_fn *visit, void *opaque)
{
	const uint64_t all = UINT64_C(1) << map->bucket_bits;
	struct visit v = {map, chain, context, budget, start, last, visit, opaque};
	uint64_t *at = &cursor->at, before = 0;

	if (cursor->stopped)
		shadow_map_leave(map, cursor);
	if (!cursor->shifts)
		cursor->shifts = map->shifts[chain];
	if (blocks(map, cursor->shifts, start, last) == all) {
		for (; *at < all; ++*at) {
			if (!v.left || !visit_bucket(&v, cursor, (size_t)*at))
				return true;
		}
		return false;
	}
	for (uint64_t rest = cursor->shifts; rest; rest &= rest - 1) {
		unsigned shift = (unsigned)__builtin_ctzll(rest);
		uint64_t first = start >> shift, count = (last >> shift) - first + 1;

		for (; *at - before < count; ++*at) {
			uint64_t block = (first + (*at - before)) << shift;

			if (!v.left || !visit_bucket(&v, cursor, hash(map, block, context, shift)))
				return true;
		}
		before += count;
	}
	return false;
}
