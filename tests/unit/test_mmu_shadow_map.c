/*
 * Description: the map of shadow leaves: a visit of nodes that are all in one chain (a guest that
 * maps one page everywhere) looks at no more than its budget in each piece, and at every node once,
 * with others removed and linked and other visits in between.
 */
#include "mmu/shadow_map.h"
#include "tests/unit/test_mmu_util.h"

enum { NODES = 20000, BUDGET = 128, PAGE_SHIFT = 12 };

static struct shadow_map map;
static struct test_env te;
static uint32_t node_of[NODES];
static uint8_t seen[NODES]; /* by ngpa */
static unsigned visited;    /* in this piece */
static bool removes;

static uint64_t gpa_of(enum shadow_chain chain, uint64_t i)
{
	return chain == CHAIN_GPA ? UINT64_C(5) << PAGE_SHIFT : i << PAGE_SHIFT;
}

/* Of one page, in leaves all over; or of one leaf of the guest, in small pieces. */
static void link_node(enum shadow_chain chain, uint64_t i)
{
	uint32_t index = shadow_map_take(&map);

	CHECK(index, "take");
	node_of[i] = index;
	map.node[index].gpa = gpa_of(chain, i);
	map.node[index].ngpa = i << PAGE_SHIFT;
	map.node[index].context = 1;
	map.node[index].shift = PAGE_SHIFT;
	map.node[index].guest_shift = chain == CHAIN_GPA ? PAGE_SHIFT : 30;
	shadow_map_link(&map, index);
}

static void visit(void *opaque, uint32_t index)
{
	uint64_t i = map.node[index].ngpa >> PAGE_SHIFT;

	(void)opaque;
	visited++;
	seen[i]++;
	if (removes && i % 3 == 0) {
		node_of[i] = 0;
		shadow_map_remove(&map, index);
	}
}

static void visits(enum shadow_chain chain, bool meanwhile, uint64_t *state)
{
	struct shadow_cursor cursor = {0}, other = {0}, left = {0};
	const uint64_t start = chain == CHAIN_GPA ? gpa_of(chain, 0) : 0;
	const uint64_t last = chain == CHAIN_GPA ? start : (UINT64_C(1) << 30) - 1;
	const unsigned half = meanwhile ? NODES / 2 : NODES;
	uint8_t gone[NODES] = {0};
	uint64_t next = half;
	unsigned pieces = 0;
	bool more;

	CHECK(!shadow_map_init(&map, &te.env, NODES, 2), "init");
	memset(seen, 0, sizeof(seen));
	for (uint64_t i = 0; i < half; i++)
		link_node(chain, i);
	do {
		visited = 0;
		removes = meanwhile;
		more = shadow_map_visit(&map, chain, chain == CHAIN_GPA ? 0 : 1, start, last,
					&cursor, BUDGET, visit, NULL);
		CHECK(visited <= BUDGET, "%u nodes in one piece", visited);
		pieces++;
		for (unsigned k = 0; meanwhile && k < 16; k++) {
			uint64_t i = test_random(state) % half;

			/* above all the one at which the cursor stands */
			if (k < 3 && more && cursor.stopped && cursor.node)
				i = map.node[cursor.node].ngpa >> PAGE_SHIFT;
			if (i < half && node_of[i]) {
				gone[i] = 1;
				shadow_map_remove(&map, node_of[i]);
				node_of[i] = 0;
			}
			if (next < NODES)
				link_node(chain, next++);
		}
		/* others begin, and one of them gives up */
		if (meanwhile && pieces == 3) {
			uint8_t was[NODES];

			memcpy(was, seen, sizeof(was));
			removes = false;
			shadow_map_visit(&map, chain, chain == CHAIN_GPA ? 0 : 1, start, last,
					 &left, BUDGET, visit, NULL);
			shadow_map_visit(&map, chain, chain == CHAIN_GPA ? 0 : 1, start, last,
					 &other, BUDGET, visit, NULL);
			shadow_map_leave(&map, &left);
			while (shadow_map_visit(&map, chain, chain == CHAIN_GPA ? 0 : 1, start,
						last, &other, BUDGET, visit, NULL))
				;
			memcpy(seen, was, sizeof(seen));
		}
	} while (more);
	for (unsigned i = 0; i < half; i++)
		CHECK(seen[i] == 1 || (gone[i] && !seen[i]), "node %u: %u visits", i, seen[i]);
	CHECK(!map.stopped, "nobody is inside");
	CHECK(pieces >= (meanwhile ? 20 : NODES / BUDGET), "%u pieces", pieces);
	shadow_map_free(&map);
}

/* What was taken and given back comes back bit by bit, whatever removes. */
static void returned(void)
{
	uint32_t taken[1000];

	CHECK(!shadow_map_init(&map, &te.env, 1100, 2), "init");
	for (uint64_t i = 0; i < 100; i++)
		link_node(CHAIN_GPA, i);
	for (unsigned i = 0; i < 1000; i++)
		taken[i] = shadow_map_take(&map);
	CHECK(!shadow_map_take(&map), "all taken");
	for (unsigned i = 0; i < 1000; i++)
		shadow_map_return(&map, taken[i]);
	for (uint64_t i = 0; i < 100; i++)
		shadow_map_remove(&map, node_of[i]);
	for (unsigned i = 0; i < 1100; i++)
		CHECK(shadow_map_take(&map), "%u are back", i);
	CHECK(!shadow_map_take(&map), "and no more");
	shadow_map_free(&map);
}

/* A search is given up after so many. */
static void finds(void)
{
	struct shadow_node like;

	CHECK(!shadow_map_init(&map, &te.env, NODES, 2), "init");
	for (uint64_t i = 0; i < 1000; i++)
		link_node(CHAIN_GPA, i);
	memset(&like, 0, sizeof(like));
	like.gpa = gpa_of(CHAIN_GPA, 0);
	like.context = 1;
	like.shift = PAGE_SHIFT;
	like.guest_shift = PAGE_SHIFT;
	like.ngpa = UINT64_C(999) << PAGE_SHIFT; /* the newest */
	CHECK(shadow_map_find(&map, &like, 1) == node_of[999], "first");
	like.ngpa = UINT64_C(990) << PAGE_SHIFT;
	CHECK(shadow_map_find(&map, &like, 10) == node_of[990], "tenth");
	CHECK(!shadow_map_find(&map, &like, 9), "given up");
	shadow_map_free(&map);
}

int main(int argc, char **argv)
{
	uint64_t state = test_seed(argc, argv);

	test_env_init(&te, 0);
	visits(CHAIN_GPA, false, &state);
	visits(CHAIN_GPA, true, &state);
	visits(CHAIN_BLOCK, false, &state);
	visits(CHAIN_BLOCK, true, &state);
	returned();
	finds();
	CHECK(!test_env_leaked(&te), "leaks");
	return test_result("shadow map");
}
