/*
 * Description: random faults, unmaps, write-protections, ageing, harvests, marks and slot changes
 * on one thread; after each, a decoder reads the tables and compares with what the contract
 * promises: every leaf follows its slot, W while tracking means a set dirty bit, harvests return
 * exactly what was written, and ageing what was used, statistics count what is there, flushes cover
 * what lost a permission. For every configuration of every format.
 *
 * A list of steps that fails is made short and printed (test_shrink.h). Each step has its own
 * randomness, so that it does the same whatever is left out before it, as far as it still can.
 */
#include <errno.h>

#include "tests/unit/test_mmu_configs.h"
#include "tests/unit/test_shrink.h"

#define K4 UINT64_C(0x1000) /* what a dirty bit stands for, whatever the pages */

enum { MAX_PAGES = 16384, MAX_UNITS = MAX_PAGES * 16, SLOTS = 5 };

static uint64_t PAGE, LARGE, APART; /* bytes of leaves of level 1, 2; between slots */
static uint64_t BASE;		    /* such that it crosses an entry of a high level */
static uint64_t PAGES, UNITS;	    /* the range in pages and in dirty bits */
static int slots;

static const struct test_config *tc;
static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static struct s2_thread *t;

static struct s2_slot slot[SLOTS];
static bool present[SLOTS];
static bool tracking;
static bool verbose;		       /* steps say what they do */
static uint8_t used[MAX_PAGES];	       /* the model of what is not old; of what is mapped */
static uint8_t idle_before[MAX_PAGES]; /* as the decoder saw it */
static bool idle_now, idle_flushes;
static uint8_t dirty[MAX_UNITS];       /* the model of the dirty bits, per 4 KiB */
static uint8_t perm_before[MAX_PAGES]; /* what the decoder saw before an operation */
static uint64_t hpa_before[MAX_PAGES];
static uint64_t size_before[MAX_PAGES], size_now; /* of the leaf */
static uint8_t flushed[MAX_PAGES]; /* pages that the operation told the TLB client to forget */
static uint64_t count[9], total[5];

#define SAY(...)                                                                                   \
	do {                                                                                       \
		if (verbose)                                                                       \
			printf(__VA_ARGS__);                                                       \
	} while (0)

static void invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		if (BASE + i * PAGE >= start && (!end || BASE + i * PAGE < end))
			flushed[i] = 1;
	}
	s2_tlb_ack(opaque, generation);
}

static const struct s2_slot *slot_of(uint64_t gpa)
{
	for (int i = 0; i < slots; i++) {
		if (present[i] && gpa - slot[i].gpa < slot[i].size)
			return &slot[i];
	}
	return NULL;
}

static uint8_t perm_at(uint64_t page, uint64_t *hpa)
{
	struct dec_result r = dec_walk(&mem, BASE + page * PAGE);

	CHECK(r.outcome != DEC_MISCONFIG, "page %" PRIu64 ": %s", page, r.why);
	*hpa = r.address;
	size_now = r.size;
	/* EPT without A and D bits says it by what it does not grant. */
	idle_now =
		r.leaf.kind == DEC_IDLE || (r.leaf.kind == DEC_LEAF && !r.leaf.accessed &&
					    (mem.shape.hardware_ad || tc->decoder != &ept_decoder));
	if (r.outcome != DEC_TRANSLATED && r.leaf.kind != DEC_IDLE)
		return 0;
	return (uint8_t)(r.r | r.w << 1 | r.x << 2);
}

static void before(void)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		perm_before[i] = perm_at(i, &hpa_before[i]);
		size_before[i] = size_now;
		idle_before[i] = idle_now;
	}
	memset(flushed, 0, sizeof(flushed));
}

/* All dirty bits of a page, which one write fault sets. */
static bool page_dirty(uint64_t page)
{
	for (uint64_t i = page * (PAGE / K4); i < (page + 1) * (PAGE / K4); i++) {
		if (!dirty[i])
			return false;
	}
	return true;
}

/* What must hold after any operation. */
static void after(const char *what)
{
	struct dec_census c;
	struct s2_stats stats;

	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t gpa = BASE + i * PAGE, hpa;
		uint8_t perm = perm_at(i, &hpa);
		const struct s2_slot *s = slot_of(gpa);

		CHECK(!perm || s, "%s: page %" PRIu64 " is mapped and in no slot", what, i);
		if (perm && s) {
			CHECK(hpa == gpa - s->gpa + s->hpa, "%s: page %" PRIu64, what, i);
			CHECK((perm & 5) == 5, "%s: page %" PRIu64 ": %u", what, i, perm);
			CHECK(!(perm & 2 && s->flags & S2_SLOT_READONLY), "%s: page %" PRIu64, what,
			      i);
			CHECK(!(perm & 2 && tracking) || page_dirty(i),
			      "%s: page %" PRIu64 " is writable and clean", what, i);
			CHECK(idle_now == !used[i], "%s: page %" PRIu64 " is %s", what, i,
			      idle_now ? "idle and was used" : "not idle and was not used");
		}
		if (perm && perm_before[i] && idle_now && !idle_before[i] && idle_flushes)
			CHECK(flushed[i], "%s: page %" PRIu64 " was aged and not flushed", what, i);
		/* A TLB may hold what was there: what it must not use any more was flushed. */
		if (perm_before[i] & ~perm || (perm_before[i] && hpa != hpa_before[i]))
			CHECK(flushed[i], "%s: page %" PRIu64 " was not flushed", what, i);
		/* arm64: nor what it may hold of a leaf of another size. */
		if (tc->decoder == &arm_decoder && perm_before[i] && perm &&
		    size_before[i] != size_now)
			CHECK(flushed[i], "%s: page %" PRIu64 " changed its size", what, i);
	}
	c = dec_census(&mem);
	CHECK(!c.bad, "%s: an entry is no entry", what);
	s2_get_stats(s2, &stats);
	for (int level = 1; level <= 5; level++)
		CHECK(stats.pages[level] == c.leaves[level], "%s: level %d: %" PRIu64 " %" PRIu64,
		      what, level, stats.pages[level], c.leaves[level]);
	CHECK(stats.tables == c.tables, "%s: %" PRIu64 " tables", what, stats.tables);
	CHECK(!c.marks, "%s: an entry stayed frozen", what);
}

static void random_range(uint64_t *seed, uint64_t *first, uint64_t *end)
{
	uint64_t grain = test_random(seed) % 2 ? 1 : LARGE / PAGE;

	*first = test_random(seed) % (PAGES / grain) * grain;
	*end = *first + (1 + test_random(seed) % (grain == 1 ? 700 : 4)) * grain;
	if (*end > PAGES)
		*end = PAGES;
}

static void fault(uint64_t *seed)
{
	uint64_t page = test_random(seed) % PAGES,
		 gpa = BASE + page * PAGE + test_random(seed) % PAGE, hpa;
	uint32_t access = (uint32_t[]){S2_R, S2_W, S2_X, S2_R | S2_W}[test_random(seed) % 4];
	const struct s2_slot *s = slot_of(gpa);
	bool granted = !(access & ~(uint32_t)perm_at(page, &hpa)), had = granted && used[page];
	struct s2_xlat x = {0}, y = {0};
	bool hit = s2_translate(t, gpa, access, &y);
	enum s2_result want, got = s2_fault(t, gpa, access, &x);

	SAY("fault: page %" PRIu64 ", access %u\n", page, access);
	if (!s || (access & S2_W && s->flags & S2_SLOT_READONLY))
		want = S2_EMULATE;
	else
		want = had ? S2_SPURIOUS : S2_FIXED;
	CHECK(hit == had, "translate of page %" PRIu64, page);
	CHECK(got == want, "page %" PRIu64 " access %u: %d not %d", page, access, got, want);
	if (want == S2_EMULATE)
		return;
	CHECK(!(access & ~x.perm) && x.hpa == gpa - s->gpa + s->hpa, "%" PRIx64, x.hpa);
	CHECK(!had || !memcmp(&x, &y, sizeof(x)), "page %" PRIu64, page);
	CHECK(!tracking || x.level == 1 || granted, "a large leaf while tracking");
	/* the whole leaf */
	for (uint64_t i = 0; i < PAGES; i++)
		used[i] |= ((BASE + i * PAGE) ^ gpa) < s2_level_size(s2, x.level);
	count[8] += granted && !had;
	if (tracking && got == S2_FIXED && access & S2_W)
		memset(&dirty[page * (PAGE / K4)], 1, PAGE / K4);
	CHECK(s2_translate(t, gpa, access, &y), "page %" PRIu64, page);
	count[got]++;
}

/* As one range, or in pieces, some of them empty, that may lie under one leaf. */
static void unmap_range(uint64_t *seed, uint64_t start, uint64_t end)
{
	struct s2_range piece[8] = {{start, end}};
	size_t n = 1;

	while (n < 8 && test_random(seed) % 4) {
		uint64_t pages = (end - piece[n - 1].start) / PAGE + 1;

		piece[n].start = piece[n - 1].end =
			piece[n - 1].start + test_random(seed) % pages * PAGE;
		piece[n++].end = end;
	}
	CHECK(s2_unmap_ranges(t, piece, n) == 0, "unmap");
}

static void unmap(uint64_t *seed, bool protect)
{
	uint64_t first, end, hpa, per = LARGE / PAGE;

	random_range(seed, &first, &end);
	SAY("%s: pages %" PRIu64 " to %" PRIu64 "\n", protect ? "protect" : "unmap", first, end);
	if (protect)
		CHECK(s2_write_protect(t, BASE + first * PAGE, BASE + end * PAGE) == 0, "protect");
	else
		unmap_range(seed, BASE + first * PAGE, BASE + end * PAGE);
	for (uint64_t i = first; i < end; i++)
		CHECK(!(perm_at(i, &hpa) & (protect ? 2 : 7)), "page %" PRIu64, i);
	/* What lies around loses something only if a leaf reaches from there into the range. */
	for (uint64_t i = 0; i < PAGES; i++)
		CHECK(perm_at(i, &hpa) == perm_before[i] ||
			      (i / per >= first / per && i / per <= (end - 1) / per),
		      "page %" PRIu64, i);
}

static void harvest(uint64_t *seed)
{
	static uint64_t bitmap[MAX_UNITS / 64 + 1];
	uint64_t first, end;
	int64_t want = 0, got;

	random_range(seed, &first, &end);
	first = first * (PAGE / K4) & ~63ull;
	end = end * (PAGE / K4) - test_random(seed) % (PAGE / K4); /* ends inside a page, too */
	SAY("harvest: units %" PRIu64 " to %" PRIu64 "\n", first, end);
	memset(bitmap, 0xff, sizeof(bitmap));
	got = s2_dirty_harvest(t, BASE + first * K4, end - first, bitmap);
	for (uint64_t i = first; i < end; i++) {
		bool bit = bitmap[(i - first) / 64] >> ((i - first) % 64) & 1;

		CHECK(bit == dirty[i], "unit %" PRIu64 ": %d", i, bit);
		want += dirty[i];
		dirty[i] = 0;
	}
	CHECK(got == want, "%" PRId64 " not %" PRId64, got, want);
	if ((end - first) % 64)
		CHECK(!(bitmap[(end - first) / 64] >> ((end - first) % 64)),
		      "bits beyond the range");
	CHECK(bitmap[(end - first + 63) / 64] == UINT64_MAX, "words beyond the range");
	count[6] += (uint64_t)want;
}

static void mark(uint64_t *seed)
{
	uint64_t gpa = BASE + test_random(seed) % (UNITS * K4), len = test_random(seed) % (9 * K4);

	SAY("mark: %" PRIx64 ", %" PRIu64 " bytes\n", gpa, len);
	s2_dirty_mark(t, gpa, len);
	for (uint64_t i = 0; tracking && i < UNITS; i++) {
		uint64_t page = BASE + i * K4;

		if (len && page + K4 > gpa && page < gpa + len && slot_of(page))
			dirty[i] = 1;
	}
}

/* Each slot has a stretch of its own; neighbours may touch. */
static void change_slot(uint64_t *seed)
{
	int i = (int)(test_random(seed) % (unsigned)slots);
	struct s2_slot *s = &slot[i];
	uint64_t first, skip, pages;

	if (present[i]) {
		if (test_random(seed) % 2)
			return; /* more often there than not */
		SAY("slot %d goes\n", i);
		CHECK(s2_slot_remove(t, s->gpa) == 0, "remove");
		for (uint64_t unit = 0; unit < UNITS; unit++) {
			if (BASE + unit * K4 - s->gpa < s->size)
				dirty[unit] = 0;
		}
		present[i] = false;
		return;
	}
	first = (uint64_t)i * (PAGES / (unsigned)slots);
	skip = test_random(seed) % 3 ? 0 : test_random(seed) % (PAGES / (unsigned)slots / 2);
	pages = PAGES / (unsigned)slots - skip;
	if (test_random(seed) % 2)
		pages -= test_random(seed) % (pages / 2);
	*s = (struct s2_slot){.gpa = BASE + (first + skip) * PAGE,
			      .size = pages * PAGE,
			      .page_size = test_random(seed) % 4 ? LARGE : PAGE,
			      .flags = test_random(seed) % 5 ? 0 : S2_SLOT_READONLY};
	s->hpa = (test_random(seed) % 4 ? s->gpa % LARGE : 0) + (uint64_t)(i + 1) * APART +
		 test_config_hpa(tc);
	SAY("slot %d: %" PRIu64 " pages from %" PRIu64 ", of %" PRIx64 ", flags %u\n", i, pages,
	    first + skip, s->page_size, s->flags);
	CHECK(s2_slot_add(t, s) == 0, "add");
	present[i] = true;
}

static void track(void)
{
	uint64_t hpa;

	SAY("tracking %s\n", tracking ? "off" : "on");
	if (tracking) {
		CHECK(s2_dirty_start(t) == -EALREADY && s2_dirty_stop(t) == 0, "stop");
	} else {
		CHECK(s2_dirty_stop(t) == -EALREADY && s2_dirty_start(t) == 0, "start");
		for (uint64_t i = 0; i < PAGES; i++)
			CHECK(!(perm_at(i, &hpa) & 2), "page %" PRIu64 " is writable", i);
	}
	tracking = !tracking;
	memset(dirty, 0, sizeof(dirty));
}

/* Only looks, or clears, with a flush or without. */
static void age(uint64_t *seed)
{
	static uint64_t bitmap[MAX_UNITS / 64 + 1];
	const uint64_t per = PAGE / K4;
	unsigned flags = (unsigned)test_random(seed) % 4;
	uint64_t first, end, hpa;
	int64_t want = 0, got;

	random_range(seed, &first, &end);
	SAY("age: pages %" PRIu64 " to %" PRIu64 ", flags %u\n", first, end, flags);
	memset(bitmap, 0xff, sizeof(bitmap));
	idle_flushes = flags & S2_AGE_FLUSH || (tc->decoder == &ept_decoder && !tc->c.use_ad);
	got = s2_age(t, BASE + first * PAGE, BASE + end * PAGE, flags, flags == 1 ? NULL : bitmap);
	for (uint64_t i = first; i < end; i++) {
		bool mapped = perm_at(i, &hpa), old = mapped && used[i];

		for (uint64_t unit = (i - first) * per; unit < (i - first + 1) * per; unit++)
			CHECK(flags == 1 || (bitmap[unit / 64] >> (unit % 64) & 1) == old,
			      "page %" PRIu64 ": not %d", i, old);
		want += old ? (int64_t)per : 0;
	}
	CHECK(got == want, "%" PRId64 " not %" PRId64, got, want);
	CHECK(flags == 1 || bitmap[((end - first) * per + 63) / 64] == UINT64_MAX,
	      "words beyond the range");
	/* all of a leaf that has a part in the range */
	for (uint64_t i = 0; !(flags & S2_AGE_TEST) && i < PAGES; i++) {
		uint64_t from, to;

		if (!perm_at(i, &hpa))
			continue;
		from = (BASE + i * PAGE) & ~(size_now - 1);
		to = from + size_now;
		if (from < BASE + end * PAGE && to > BASE + first * PAGE)
			used[i] = 0;
	}
	CHECK(s2_age(t, BASE + first * PAGE, BASE + end * PAGE, S2_AGE_TEST, NULL) ==
		      (flags & S2_AGE_TEST ? want : 0),
	      "asked again");
	if (!(flags & S2_AGE_TEST))
		count[7] += (uint64_t)want;
}

/* ---- steps -------------------------------------------------------------------------------- */

enum kind { FAULT, UNMAP, PROTECT, HARVEST, MARK, SLOT, TRACK, AGE };
static const char *const names[] = {"faults", "unmap", "protect", "harvest",
				    "mark",   "slot",  "track",	  "age"};

struct step {
	enum kind kind;
	bool check; /* all of the tables, afterwards */
	uint64_t seed;
};

enum { FAULTS = 40, MAX_SLOTS = 3 * SLOTS };

struct list {
	struct step *step;
	size_t n;
};

static void add(struct list *list, enum kind kind, bool check, uint64_t *seed)
{
	list->step[list->n++] = (struct step){kind, check, test_random(seed) | 1};
}

static struct list make_list(uint64_t *seed, int steps)
{
	struct list list = {calloc((size_t)steps * FAULTS + MAX_SLOTS, sizeof(struct step)), 0};

	if (!list.step)
		exit(1);
	for (int i = 0; i < MAX_SLOTS; i++)
		add(&list, SLOT, i == MAX_SLOTS - 1, seed);
	for (int step = 0; step < steps; step++) {
		uint64_t what = test_random(seed) % 100;

		/* each kind at least now and then, whatever the seed */
		if (step % 30 == 10)
			what = 99;
		else if (step % 30 == 25)
			what = 75;
		else if (step % 15 == 7)
			what = 65;
		if (what < 55)
			for (int i = 0; i < FAULTS; i++)
				add(&list, FAULT, i == FAULTS - 1, seed);
		else
			add(&list,
			    what < 61	? UNMAP
			    : what < 65 ? PROTECT
			    : what < 71 ? AGE
			    : what < 81 ? HARVEST
			    : what < 86 ? MARK
			    : what < 98 ? SLOT
					: TRACK,
			    true, seed);
	}
	return list;
}

static void take_step(const struct step *step)
{
	uint64_t seed = step->seed;

	switch (step->kind) {
	case FAULT: fault(&seed); break;
	case UNMAP: unmap(&seed, false); break;
	case PROTECT: unmap(&seed, true); break;
	case HARVEST: harvest(&seed); break;
	case MARK: mark(&seed); break;
	case SLOT: change_slot(&seed); break;
	case TRACK: track(); break;
	default: age(&seed);
	}
}

/* Up to the first that fails, whose number (of those in the list) it returns; else n. */
static size_t take_steps(const struct list *list, const size_t *which, size_t n)
{
	/* A look costs more than many steps; a short list has one at each, and needs no step that
	 * only brings one. */
	const bool all = n <= 64;

	before();
	for (size_t i = 0; i < n; i++) {
		const struct step *step = &list->step[which ? which[i] : i];
		const bool check = step->check || all || i == n - 1;

		take_step(step);
		if (check)
			after(names[step->kind]);
		if (atomic_load(&test_failures))
			return i;
		if (check)
			before();
	}
	return n;
}

static void begin(struct s2_tlb_client *client)
{
	memset(count, 0, sizeof(count));
	memset(present, 0, sizeof(present));
	memset(dirty, 0, sizeof(dirty));
	memset(used, 0, sizeof(used));
	tracking = false;
	*client =
		(struct s2_tlb_client){.name = "test", .opaque = client, .invalidate = invalidate};
	if (!test_config_create(tc, &te, &s2, &mem) || s2_thread_init(&t, s2, "test"))
		exit(1);
	PAGE = s2_level_size(s2, 1);
	LARGE = s2_level_size(s2, 2);
	APART = 64 * LARGE;
	slots = LARGE / PAGE > 1024 ? 2 : SLOTS; /* so that a large leaf fits into one */
	PAGES = LARGE / PAGE > 4096 ? MAX_PAGES : MAX_PAGES / 2;
	UNITS = PAGES * (PAGE / K4);
	BASE = test_config_boundary(&mem) - PAGES / 2 * PAGE;
	s2_tlb_client_add(t, client);
}

static bool fails(void *opaque, const size_t *which, size_t n)
{
	struct s2_tlb_client client;

	atomic_store(&test_failures, 0);
	begin(&client);
	return take_steps(opaque, which, n) != n;
}

/* Prints what remains of the first n steps. */
static void shrink(struct list *list, size_t n)
{
	struct shrink s = {.fails = fails, .opaque = list, .seconds = 60};
	size_t *which = calloc(n, sizeof(*which)), left;

	for (size_t i = 0; which && i < n; i++)
		which[i] = i;
	left = which ? shrink_list(&s, which, n) : 0;
	printf("%s: %zu steps fail; after %u tries, of them %zu:\n", tc->name, n, s.tries, left);
	verbose = true;
	shrink_try(&s, which, left, false);
	verbose = false;
	free(which);
}

static void run(uint64_t *seed, int steps)
{
	struct list list = make_list(seed, steps);
	struct s2_tlb_client client;
	struct s2_stats stats;
	size_t done;

	begin(&client);
	done = take_steps(&list, NULL, list.n);
	if (done != list.n) {
		/* what is in the tables by now is not to be trusted with more */
		shrink(&list, done + 1);
		exit(test_result("range"));
	}
	free(list.step);
	s2_get_stats(s2, &stats);
	printf("%s: %zu steps: %" PRIu64 " fixed, %" PRIu64 " spurious, %" PRIu64
	       " splits, %" PRIu64 " flushes, %" PRIu64 " tables freed late, %" PRIu64
	       " dirty units, %" PRIu64 " units aged, %" PRIu64 " used again\n",
	       tc->name, done, count[S2_FIXED], count[S2_SPURIOUS], stats.splits,
	       stats.invalidations, stats.deferred_frees, count[6], count[7], count[8]);
	CHECK(steps < 60 || count[S2_FIXED], "nothing happened");
	total[2] += count[S2_SPURIOUS];
	total[3] += count[6];
	total[4] += count[8];
	total[0] += stats.splits;
	total[1] += stats.deferred_frees;
	s2_tlb_client_remove(t, &client);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%ld tables leaked", atomic_load(&te.live));
}

_Static_assert(TEST_CONFIGS == 21, "mmu-model in tests.mk numbers them");

/* range SEED STEPS [CONFIGURATION]; a step is 40 faults, or one of the rest. */
int main(int argc, char **argv)
{
	int steps = argc > 2 ? atoi(argv[2]) : test_scale(200);
	const unsigned only = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	uint64_t seed = test_seed(argc, argv);

	if (argc > 3) {
		if (only >= TEST_CONFIGS)
			return 2;
		tc = &test_configs[only];
		run(&seed, steps);
		return test_result("range");
	}
	for (int i = (int)(seed % TEST_STEP); i < TEST_CONFIGS; i += TEST_STEP) {
		tc = &test_configs[i];
		run(&seed, steps);
	}
	CHECK(steps < 200 || (total[0] && total[1] && total[2] && total[3] && total[4]),
	      "it never came to that");
	return test_result("range");
}
