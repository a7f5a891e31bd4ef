/*
 * Description: the walker against a flat model: random ranges are mapped and unmapped exactly, with
 * leaves of all sizes, and an independent decoder reads the same out of the tables. The iterator
 * visits what the decoder sees, whatever the places where it restarts.
 */
#include "tests/unit/test_mmu_format.h"
#include "tests/unit/walk_range.h"

enum { PAGES = 3 << 18 };   /* 3 GiB of 4 KiB pages */
static uint64_t PAGE, BASE; /* BASE: such that it crosses an entry of a high level */
static const struct format *f;
static unsigned top;	     /* level of the largest leaves that fit */
static uint64_t per_page[4]; /* pages in a leaf, by level; as much as the last has, above */

static uint64_t model[PAGES]; /* address | perm, 0: nothing */
static struct test_env te;
static struct pgtable pt;
static struct table_pool pool;
static struct dec_memory mem;
static uint64_t high; /* of host addresses */

static void check_page(uint64_t i)
{
	struct dec_result r = dec_walk(&mem, BASE + i * PAGE + 5);
	struct walk_entry w = walk_lookup(f, &pt, BASE + i * PAGE + 5);

	CHECK(r.outcome != DEC_MISCONFIG, "page %" PRIu64 ": %s", i, r.why);
	CHECK(w.value == r.entry, "page %" PRIu64 ": %" PRIx64, i, r.entry);
	if (!model[i]) {
		CHECK(r.outcome == DEC_FAULT && w.kind == ENTRY_NONE, "page %" PRIu64, i);
		return;
	}
	CHECK(r.outcome == DEC_TRANSLATED && w.kind == ENTRY_LEAF, "page %" PRIu64, i);
	CHECK(r.address == (model[i] & ~7ull) + 5, "page %" PRIu64 ": %" PRIx64, i, r.address);
	CHECK((r.r | r.w << 1 | r.x << 2) == (int)(model[i] & 7), "page %" PRIu64, i);
	CHECK(w.level == r.level, "page %" PRIu64, i);
}

/* The iterator over a range, restarting at random: entries rise without gap or overlap, leaves are
 * what the model says. Returns leaves seen. */
static void iterate(uint64_t *seed, uint64_t first, uint64_t n)
{
	uint64_t start = BASE + first * PAGE, end = start + n * PAGE, next = start, mapped = 0,
		 want = 0;
	struct walk_iter it;

	for (walk_begin(&it, &pt, start, end, 1); walk_next(f, &it);) {
		uint64_t size = geometry_size(&pt.geo, it.at.level), to;

		if (test_random(seed) % 64 == 0) {
			uint64_t at = it.gpa;

			walk_restart(&it);
			CHECK(walk_next(f, &it) && it.gpa == at, "restart");
			CHECK(it.at.level == pt.geo.levels, "restart begins at the root");
		}
		if (it.at.kind == ENTRY_TABLE)
			continue;
		size = geometry_size(&pt.geo, it.at.level);
		CHECK(it.gpa == next, "%" PRIx64 " after %" PRIx64, it.gpa, next);
		to = (it.gpa | (size - 1)) < end - 1 ? (it.gpa | (size - 1)) + 1 : end;
		CHECK(walk_covers(f, &it) == (to - it.gpa == size), "covers");
		if (it.at.kind == ENTRY_LEAF)
			mapped += (to - it.gpa) / PAGE;
		next = to;
	}
	CHECK(next == end, "the walk ended at %" PRIx64 " not %" PRIx64, next, end);
	for (uint64_t i = first; i < first + n; i++)
		want += model[i] != 0;
	CHECK(mapped == want, "%" PRIu64 " pages mapped, not %" PRIu64, mapped, want);
}

static void random_range(uint64_t *seed, uint64_t *first, uint64_t *n)
{
	const unsigned grain[] = {1, 2, 2, 3, 3};
	unsigned level = grain[test_random(seed) % 5];
	uint64_t g = per_page[level];

	*first = test_random(seed) % (PAGES / g) * g;
	*n = (1 + test_random(seed) % (level == 1 ? 3000 : PAGES / g < 600 ? PAGES / g : 600)) * g;
	if (test_random(seed) % 4 == 0)
		*n = 1 + test_random(seed) % *n; /* an end that is aligned to nothing */
	if (*n > PAGES - *first)
		*n = PAGES - *first;
}

static void map(uint64_t *seed, uint64_t *counts)
{
	uint64_t first, n, done, hpa, taken = 0;
	uint32_t perm = (uint32_t[]){1, 3, 5, 7}[test_random(seed) % 4];
	unsigned max_level = 1 + (unsigned)(test_random(seed) % 4);
	int err;

	random_range(seed, &first, &n);
	/* congruent to leaves of level 3, 2 or 1 */
	hpa = high + BASE + first * PAGE +
	      per_page[(unsigned[]){3, 3, 2, 1}[test_random(seed) % 4]] * PAGE * 7;
	while (taken < n && !model[first + taken])
		taken++;
	err = walk_map(f, &pt, &pool, BASE + first * PAGE, BASE + (first + n) * PAGE, hpa, perm,
		       max_level, &done);
	done = (done - BASE) / PAGE - first;
	CHECK(err == (taken < n ? -EEXIST : 0), "map: %d", err);
	/* It stops where something is, or before a leaf that would cover it. */
	CHECK(done <= taken && (err || done == n), "%" PRIu64 " of %" PRIu64, done, taken);
	for (uint64_t i = 0; i < done; i++)
		model[first + i] = (hpa + i * PAGE) | perm;
	counts[err ? 1 : 0]++;
}

static void unmap(uint64_t *seed, struct walk_count *gone)
{
	uint64_t first, n;

	random_range(seed, &first, &n);
	CHECK(walk_unmap(f, &pt, &pool, BASE + first * PAGE, BASE + (first + n) * PAGE, gone) == 0,
	      "unmap");
	memset(&model[first], 0, n * sizeof(*model));
}

/* One leaf of each size for certain, and its refusal where one is. */
static void each_size(struct walk_count *gone)
{
	uint64_t at = BASE + (PAGE << 18), end = at + (PAGE << 18);

	for (unsigned level = 1; level <= top; level++) {
		uint64_t to = at + geometry_size(&pt.geo, level), before = gone->leaves[level];

		CHECK(!walk_map(f, &pt, &pool, at, to, at, 7, level, NULL), "map");
		CHECK(walk_lookup(f, &pt, at).level == level, "level %u", level);
		CHECK(walk_map(f, &pt, &pool, at, to, at, 7, level, NULL) == -EEXIST, "twice");
		CHECK(!walk_unmap(f, &pt, &pool, at, end, gone), "unmap");
		CHECK(gone->leaves[level] == before + 1, "level %u", level);
	}
}

static void run(const struct test_config *tc, uint64_t *seed)
{
	struct walk_count gone = {0}, rest = {0};
	struct format_registers regs;
	uint64_t counts[2] = {0}, before;
	struct geometry geo;
	const char *why;

	test_env_init(&te, tc->offset);
	f = test_format(tc->c.format);
	CHECK(test_geometry(&tc->c, &geo, &why) == 0, "%s", why);
	CHECK(pgtable_init(&pt, &geo, &te.env) == 0, "init");
	CHECK(f->registers(&geo, pt.root_pa, 0, &regs) == 0, "registers");
	test_config_memory(tc, &te, regs.root, regs.control, &mem);
	pool = (struct table_pool){.env = &te.env,
				   .bytes = geometry_table_bytes(&geo, 1),
				   .output_bits = geo.output_bits};
	PAGE = geometry_size(&geo, 1);
	for (unsigned level = 1; level <= 3; level++) {
		if (geometry_has_leaf(&geo, level) && geometry_size(&geo, level) <= PAGE << 18)
			top = level;
		per_page[level] = geometry_size(&geo, top) / PAGE;
	}
	BASE = test_config_boundary(&mem) - (PAGE << 19);
	high = test_config_hpa(tc);
	memset(model, 0, sizeof(model));
	each_size(&gone);
	for (int step = 0; step < test_scale(100); step++) {
		uint64_t first, n;

		if (!counts[0] || test_random(seed) % 2)
			map(seed, counts);
		else
			unmap(seed, &gone);
		for (int i = 0; i < 100; i++)
			check_page(test_random(seed) % PAGES);
		random_range(seed, &first, &n);
		iterate(seed, first, n);
		for (int i = 0; i < 20; i++) { /* the edges of what may have changed */
			check_page(first);
			check_page(first + n - 1);
			random_range(seed, &first, &n);
		}
	}
	for (uint64_t i = 0; i < PAGES; i += 37)
		check_page(i);
	before = (uint64_t)atomic_load(&te.live) - pool.count;
	table_pool_trim(&pool, 0);
	walk_free_tree(f, &pt, pt.root, geo.levels, &rest);
	CHECK(rest.tables == before, "%" PRIu64 " tables of %" PRIu64, rest.tables, before);
	CHECK(test_env_leaked(&te) == 0, "%ld tables leaked", atomic_load(&te.live));
	printf("%s: %" PRIu64 " maps, %" PRIu64 " refused; unmapped %" PRIu64 "/%" PRIu64
	       "/%" PRIu64 " leaves and %" PRIu64 " tables\n",
	       tc->name, counts[0], counts[1], gone.leaves[1], gone.leaves[2], gone.leaves[3],
	       gone.tables);
	for (unsigned level = 1; level <= top; level++)
		CHECK(gone.leaves[level], "%s: no leaf of level %u", tc->name, level);
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);

	for (int i = (int)(seed % TEST_STEP); i < TEST_CONFIGS; i += TEST_STEP)
		run(&test_configs[i], &seed);
	return test_result("walker");
}
