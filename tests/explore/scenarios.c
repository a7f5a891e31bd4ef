/*
 * explore [-p PREEMPTIONS] [-s STALE] [-n RUNS] [SCENARIO]: two or three threads on one entry and
 * its parent, in every interleaving. Operations: a processor that reads or writes a page
 * (translates, faults, uses what it got, acknowledges invalidations), unmapping and
 * write-protection of a page or of all that a table covers, ageing, harvest, start of tracking, a
 * device's write.
 *
 * Oracles, at each use: the translation is right, and nothing that it stands on was unmapped or
 * protected by an operation that has returned, or aged without being used again. At the end: every
 * write is in the migrator's copy, what is in the tables is what is counted, nothing stayed frozen
 * or allocated.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mmu/internal.h"
#include "tests/explore/explore.h"
#include "tests/unit/arm_decoder.h"
#include "tests/unit/ept_decoder.h"

#define K4   UINT64_C(0x1000)
#define M2   UINT64_C(0x200000)
#define BASE UINT64_C(0x40000000)
#define HPA  UINT64_C(0x7000000000)

/* WINDOW: the first two entries of each table are all that a scenario is about. */
enum { PAGES = 2, WINDOW = 16 };

/* How the entries are before the threads start. */
enum state { EMPTY, LARGE, SMALL, SPLIT, TRACKED, TRACKED_LARGE };

struct scenario {
	const char *name;
	enum state state;
	void (*thread[EXPLORE_THREADS])(void *arg);
};

static const struct s2_config *format;
static const struct scenario *scenario;
static struct s2 *s2;
static struct s2_thread *main_thread;
static struct s2_thread *thread[EXPLORE_THREADS];
static struct s2_tlb_client client[EXPLORE_THREADS];
static uint64_t pending[EXPLORE_THREADS]; /* generation to acknowledge */
static bool is_client[EXPLORE_THREADS];
static uint64_t data[PAGES], copy[PAGES], written[PAGES];
/* numbers of operations per page */
static unsigned unmap_begun[PAGES], unmap_done[PAGES], protect_begun[PAGES], protect_done[PAGES];
static unsigned age_begun[PAGES], age_done[PAGES];
static unsigned ages_running;
static bool seen_used[PAGES]; /* since the last ageing returned, and none has begun */
static bool tracking, removing, ageing;

static void *env_alloc(void *opaque, size_t bytes)
{
	(void)opaque;
	return explore_alloc(bytes < 4096 ? 4096 : bytes);
}

static void env_free(void *opaque, void *memory, size_t bytes)
{
	(void)opaque;
	explore_free(memory, bytes);
}

static const struct s2_env env = {.alloc = env_alloc, .free = env_free};

/* Calls of the core go through these, so that an instance is usable by the explorer's main part,
 * too. */
static struct s2_thread *me(void)
{
	return explore_self() == EXPLORE_THREADS ? main_thread : thread[explore_self()];
}

/* instrument.h's */
void explore_yield(void);
void explore_sync(const volatile void *at, bool write);

/* ---- what threads do ---- */

static void acknowledge(unsigned i)
{
	explore_sync(&pending[i], false);
	if (is_client[i] && pending[i]) {
		uint64_t generation = pending[i];

		pending[i] = 0;
		s2_tlb_ack(&client[i], generation);
	}
}

static void invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)start;
	(void)end;
	/* A real client's queue has a lock. */
	explore_sync(&pending[(uintptr_t)opaque], true);
	pending[(uintptr_t)opaque] = generation;
}

/* Whoever waits serves its own queue, as processors do. */
static void wait_acked(void *opaque, uint64_t generation)
{
	unsigned i = explore_self();

	while (!s2_tlb_acked(&client[(uintptr_t)opaque], generation)) {
		if (i < EXPLORE_THREADS)
			acknowledge(i);
		explore_yield();
	}
}

static void access_page(unsigned page, bool write)
{
	unsigned i = explore_self(), unmapped, protected, aged;
	uint64_t gpa = BASE + page * K4;
	uint32_t access = write ? S2_W : S2_R;
	struct s2_xlat x;

	for (;;) {
		enum s2_result r;

		acknowledge(i);
		if (s2_translate(me(), gpa, access, &x))
			break;
		r = s2_fault(me(), gpa, access, &x);
		if (r == S2_FIXED || r == S2_SPURIOUS)
			break;
		if (r == S2_EMULATE && removing)
			return;
		if (r != S2_RETRY)
			explore_fail("result %d", r);
		acknowledge(i);
		explore_yield();
	}
	/* After it: what begins later has a higher number. */
	unmapped = unmap_begun[page];
	protected = protect_begun[page];
	aged = age_begun[page];
	if (x.hpa != HPA + page * K4)
		explore_fail("page %u -> %llx", page, (unsigned long long)x.hpa);
	explore_point("uses");
	if (unmap_done[page] > unmapped)
		explore_fail("page %u is used after its unmapping", page);
	if (write && protect_done[page] > protected)
		explore_fail("page %u is written after its protection", page);
	if (age_done[page] > aged)
		explore_fail("page %u is used unseen after its ageing", page);
	if (!ages_running)
		seen_used[page] = true;
	if (write) {
		written[page]++;
		explore_write(&data[page], written[page]);
	}
	acknowledge(i);
}

/* The client goes when its thread ends: it has forgotten everything. */
static void processor_ends(void)
{
	unsigned i = explore_self();

	acknowledge(i);
	is_client[i] = false;
	s2_tlb_client_remove(me(), &client[i]);
}

static void reads(void *arg)
{
	(void)arg;
	access_page(0, false);
	processor_ends();
}

static void writes(void *arg)
{
	(void)arg;
	access_page(0, true);
	processor_ends();
}

static void writes_twice(void *arg)
{
	(void)arg;
	access_page(0, true);
	access_page(0, true);
	processor_ends();
}

static void writes_neighbour(void *arg)
{
	(void)arg;
	access_page(1, true);
	processor_ends();
}

static void reads_twice(void *arg)
{
	(void)arg;
	access_page(0, false);
	access_page(0, false);
	processor_ends();
}

static void change(uint64_t pages, bool protect)
{
	unsigned *begun = protect ? protect_begun : unmap_begun;
	unsigned *done = protect ? protect_done : unmap_done, number[PAGES];

	for (unsigned i = 0; i < PAGES && i < pages; i++)
		number[i] = ++begun[i];
	if (protect ? s2_write_protect(me(), BASE, BASE + pages * K4)
		    : s2_unmap(me(), BASE, BASE + pages * K4))
		explore_fail("range refused");
	for (unsigned i = 0; i < PAGES && i < pages; i++) {
		if (done[i] < number[i])
			done[i] = number[i];
	}
}

static void unmaps(void *arg)
{
	(void)arg;
	change(1, false);
}

/* A table as a whole. */
static void unmaps_all(void *arg)
{
	(void)arg;
	change(512, false);
}

static void protects(void *arg)
{
	(void)arg;
	change(1, true);
}

static void ages(void *arg)
{
	unsigned number = ++age_begun[0];

	(void)arg;
	ageing = true;
	seen_used[0] = false;
	ages_running++;
	if (s2_age(me(), BASE, BASE + K4, S2_AGE_FLUSH, NULL) < 0)
		explore_fail("age");
	ages_running--;
	if (age_done[0] < number)
		age_done[0] = number;
}

/* Nothing of it may come back. */
static void removes(void *arg)
{
	(void)arg;
	removing = true;
	if (s2_slot_remove(me(), BASE))
		explore_fail("remove");
}

static void splits(void *arg)
{
	(void)arg;
	if (s2_split(me(), BASE, BASE + M2, 1))
		explore_fail("split");
}

/* Leaves that another changes meanwhile stay small. */
static void collapses(void *arg)
{
	(void)arg;
	if (s2_collapse(me(), BASE, BASE + M2) < 0)
		explore_fail("collapse");
}

static void copy_dirty(void)
{
	uint64_t bits = 0;
	int64_t n = s2_dirty_harvest(me(), BASE, 64, &bits);

	if (n != __builtin_popcountll(bits))
		explore_fail("harvest: %lld", (long long)n);
	for (unsigned i = 0; i < PAGES; i++) {
		if (bits >> i & 1)
			copy[i] = explore_read(&data[i]);
	}
}

static void harvests(void *arg)
{
	(void)arg;
	copy_dirty();
}

static void starts_tracking(void *arg)
{
	(void)arg;
	if (s2_dirty_start(me()))
		explore_fail("start");
	for (unsigned i = 0; i < PAGES; i++)
		copy[i] = explore_read(&data[i]);
	tracking = true;
}

/* As a device writes: nobody waits for it, so it marks afterwards. */
static void device(void *arg)
{
	struct s2_xlat x;
	enum s2_result r;

	(void)arg;
	while (!s2_translate(me(), BASE, S2_W, &x)) {
		r = s2_fault(me(), BASE, S2_W, &x);
		if (r == S2_FIXED || r == S2_SPURIOUS)
			break;
		if (r != S2_RETRY)
			explore_fail("result %d", r);
		explore_yield();
	}
	if (x.hpa != HPA)
		explore_fail("the device got %llx", (unsigned long long)x.hpa);
	written[0]++;
	explore_write(&data[0], written[0]);
	s2_dirty_mark(me(), BASE, 8);
}

/* ---- scenarios ---- */

static const struct scenario scenarios[] = {
	{"read, unmap", SMALL, {reads, unmaps}},
	{"read twice, unmap", SMALL, {reads_twice, unmaps}},
	{"read, unmap the table", SMALL, {reads, unmaps_all}},
	{"read, unmap a large leaf", LARGE, {reads, unmaps}},
	{"read, read", EMPTY, {reads, reads}},
	{"read, write, empty", EMPTY, {reads, writes}},
	{"write, protect", SMALL, {writes, protects}},
	{"write, protect a large leaf", LARGE, {writes, protects}},
	{"unmap, unmap", SMALL, {unmaps, unmaps}},
	{"unmap, unmap the table", SMALL, {unmaps, unmaps_all}},
	{"unmap the table, twice", SMALL, {unmaps_all, unmaps_all}},
	{"unmap, protect", SMALL, {unmaps, protects}},
	{"write, harvest", TRACKED, {writes, harvests}},
	{"write twice, harvest", TRACKED, {writes_twice, harvests}},
	{"write twice, harvest, large", TRACKED_LARGE, {writes_twice, harvests}},
	{"write, harvest, large", TRACKED_LARGE, {writes, harvests}},
	{"write, write, split", TRACKED_LARGE, {writes, writes_neighbour}},
	{"split, unmap", TRACKED_LARGE, {writes, unmaps}},
	{"split, protect", TRACKED_LARGE, {writes, protects}},
	{"split, unmap all", TRACKED_LARGE, {writes, unmaps_all}},
	{"split on demand, read", LARGE, {splits, reads}},
	{"split on demand, unmap", LARGE, {splits, unmaps}},
	{"split on demand, protect", LARGE, {splits, protects}},
	{"split on demand, write", LARGE, {splits, writes}},
	{"split on demand, twice", LARGE, {splits, splits}},
	{"collapse, read", SPLIT, {collapses, reads}},
	{"collapse, write", SPLIT, {collapses, writes}},
	{"collapse, unmap", SPLIT, {collapses, unmaps}},
	{"collapse, unmap the table", SPLIT, {collapses, unmaps_all}},
	{"collapse, protect", SPLIT, {collapses, protects}},
	{"collapse, collapse", SPLIT, {collapses, collapses}},
	{"collapse, split", SPLIT, {collapses, splits}},
	{"collapse, start", SPLIT, {collapses, starts_tracking}},
	{"age, read", SMALL, {ages, reads}},
	{"age, read twice", SMALL, {ages, reads_twice}},
	{"age, write", SMALL, {ages, writes}},
	{"age, write, large", LARGE, {ages, writes}},
	{"age, write, tracked", TRACKED, {ages, writes_twice}},
	{"age, split by a write", TRACKED_LARGE, {ages, writes}},
	{"age, unmap", SMALL, {ages, unmaps}},
	{"age, protect", SMALL, {ages, protects}},
	{"age, harvest", TRACKED, {ages, harvests}},
	{"age, split", LARGE, {ages, splits}},
	{"age, collapse", SPLIT, {ages, collapses}},
	{"age, age", SMALL, {ages, ages}},
	{"age, remove the slot", SMALL, {ages, removes}},
	{"read, remove the slot", SMALL, {reads, removes}},
	{"write, remove the slot", LARGE, {writes, removes}},
	{"split, remove the slot", TRACKED_LARGE, {writes, removes}},
	{"collapse, remove the slot", SPLIT, {collapses, removes}},
	{"start, write", SMALL, {starts_tracking, writes}},
	{"start, write, large", LARGE, {starts_tracking, writes}},
	{"device, harvest", TRACKED, {device, harvests}},
	{"device, start", SMALL, {device, starts_tracking}},
	{"harvest, harvest", TRACKED, {harvests, harvests}},
	{"harvest, unmap", TRACKED, {harvests, unmaps}},
	{"age, write, harvest", TRACKED, {ages, writes, harvests}},
	{"age, read, unmap", SMALL, {ages, reads, unmaps}},
	{"age, write, protect", SMALL, {ages, writes, protects}},
	{"age, age, read", SMALL, {ages, ages, reads}},
	{"read, read, unmap", SMALL, {reads, reads, unmaps}},
	{"read, unmap, unmap the table", SMALL, {reads, unmaps, unmaps_all}},
	{"read, unmap, unmap", SMALL, {reads, unmaps, unmaps}},
	{"write, protect, protect", SMALL, {writes, protects, protects}},
	{"write, protect, harvest", TRACKED, {writes, protects, harvests}},
	{"write, harvest, harvest", TRACKED, {writes, harvests, harvests}},
	{"write, write, harvest", TRACKED, {writes, writes_neighbour, harvests}},
	{"split, split, unmap", TRACKED_LARGE, {writes, writes_neighbour, unmaps}},
	{"split, harvest, unmap", TRACKED_LARGE, {writes, harvests, unmaps}},
	{"start, write, unmap", SMALL, {starts_tracking, writes, unmaps}},
};

static void fault(uint64_t gpa, uint32_t access)
{
	struct s2_xlat x;
	enum s2_result r = s2_fault(main_thread, gpa, access, &x);

	if (r != S2_FIXED && r != S2_SPURIOUS)
		explore_fail("setup: result %d", r);
}

static bool is_processor(void (*what)(void *))
{
	return what == reads || what == writes || what == writes_neighbour ||
	       what == writes_twice || what == reads_twice;
}

static void setup(void *arg)
{
	struct s2_config c = *format;
	bool large = scenario->state == LARGE || scenario->state == SPLIT ||
		     scenario->state == TRACKED_LARGE;
	const struct s2_slot slot = {
		.gpa = BASE, .size = 2 * M2, .hpa = HPA, .page_size = large ? M2 : K4};

	(void)arg;
	memset(data, 0, sizeof(data));
	memset(copy, 0, sizeof(copy));
	memset(written, 0, sizeof(written));
	memset(unmap_begun, 0, sizeof(unmap_begun));
	memset(unmap_done, 0, sizeof(unmap_done));
	memset(protect_begun, 0, sizeof(protect_begun));
	memset(protect_done, 0, sizeof(protect_done));
	memset(age_begun, 0, sizeof(age_begun));
	memset(age_done, 0, sizeof(age_done));
	memset(seen_used, 0, sizeof(seen_used));
	memset(pending, 0, sizeof(pending));
	ages_running = 0;
	tracking = removing = ageing = false;
	c.env = &env;
	if (s2_create(&s2, &c, NULL) || s2_thread_init(&main_thread, s2, "main") ||
	    s2_slot_add(main_thread, &slot))
		explore_fail("no instance");
	if (scenario->state != EMPTY) {
		fault(BASE, S2_W);
		fault(BASE + K4, S2_R);
	}
	if (scenario->state == SPLIT && s2_split(main_thread, BASE, BASE + M2, 1))
		explore_fail("setup: split");
	if (scenario->state == TRACKED || scenario->state == TRACKED_LARGE) {
		if (s2_dirty_start(main_thread))
			explore_fail("start");
		tracking = true;
	}
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++) {
		if (s2_thread_init(&thread[i], s2, "thread"))
			explore_fail("no thread");
		is_client[i] = is_processor(scenario->thread[i]);
		client[i] = (struct s2_tlb_client){.name = "cpu",
						   .opaque = (void *)(uintptr_t)i,
						   .invalidate = invalidate,
						   .wait = wait_acked};
		if (is_client[i])
			s2_tlb_client_add(thread[i], &client[i]);
	}
}

static const void *table_at(void *opaque, uint64_t pa)
{
	(void)opaque;
	return (const void *)(uintptr_t)pa;
}

static void finish(void *arg)
{
	bool arm = format->format == S2_ARM64_4K;
	struct dec_memory mem = {.decoder = arm ? &arm_decoder : &ept_decoder,
				 .shape = {.pa_bits = arm ? 48 : 52, .levels = 4},
				 .table = table_at};
	struct s2_registers regs;
	struct dec_census census;
	struct s2_stats stats;

	(void)arg;
	if (tracking && !removing) {
		copy_dirty();
		for (unsigned i = 0; i < PAGES; i++) {
			if (copy[i] != data[i])
				explore_fail("a write of page %u is lost", i);
		}
	}
	for (unsigned i = 0; ageing && !removing && i < PAGES; i++) {
		uint64_t gpa = BASE + i * K4;
		bool unmapped = unmap_begun[i];

		if (seen_used[i] && !unmapped &&
		    !s2_age(main_thread, gpa, gpa + K4, S2_AGE_TEST, NULL))
			explore_fail("a use of page %u is lost", i);
	}
	s2_registers(s2, 0, &regs);
	mem.decoder->open(&mem.shape, regs.root, regs.control);
	census = dec_census(&mem);
	if (census.bad || census.marks)
		explore_fail("%d bad, %d frozen entries", (int)census.bad, (int)census.marks);
	if (removing && (census.leaves[1] || census.leaves[2]))
		explore_fail("something is mapped and in no slot");
	s2_get_stats(s2, &stats);
	for (int level = 1; level <= 3; level++) {
		if (stats.pages[level] != census.leaves[level])
			explore_fail("level %d: %lld leaves counted, %lld there", level,
				     (long long)stats.pages[level],
				     (long long)census.leaves[level]);
	}
	if (stats.tables != census.tables)
		explore_fail("%d tables counted, %d there", (int)stats.tables, (int)census.tables);
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++)
		s2_thread_exit(thread[i]);
	s2_thread_exit(main_thread);
	s2_destroy(s2);
	if (explore_live())
		explore_fail("%ld blocks leaked", explore_live());
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		struct s2_config c;
	} formats[] = {
		{"ept4", {.format = S2_EPT4}},
		{"arm64, frozen", {.format = S2_ARM64_4K, .input_bits = 39}},
		{"arm64, nT", {.format = S2_ARM64_4K, .input_bits = 39, .bbm_level = 1}},
	};
	struct explore_config config = {.preemptions = 2, .stale = 1, .window = WINDOW};
	uint64_t runs = 0, steps = 0, cut = 0;
	const char *only = NULL;
	int opt, failed = 0;

	while ((opt = getopt(argc, argv, "p:s:n:")) != -1) {
		uint64_t value = strtoull(optarg, NULL, 0);

		if (opt == 'p')
			config.preemptions = (unsigned)value;
		else if (opt == 's')
			config.stale = (unsigned)value;
		else if (opt == 'n')
			config.max_runs = value;
		else
			return 2;
	}
	if (optind < argc)
		only = argv[optind];
	for (size_t f = 0; f < sizeof(formats) / sizeof(*formats); f++) {
		for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
			struct explore_program program = {.setup = setup, .finish = finish};
			struct explore_result r;

			scenario = &scenarios[i];
			format = &formats[f].c;
			if (only && strcmp(only, scenario->name))
				continue;
			memcpy(program.thread, scenario->thread, sizeof(program.thread));
			r = explore(&program, &config);
			if (r.failed) {
				printf("FAILED %s: %s, after %llu interleavings\n", formats[f].name,
				       scenario->name, (unsigned long long)r.runs);
				return 1;
			}
			runs += r.runs;
			steps += r.steps;
			cut += !r.complete;
		}
	}
	printf("%llu interleavings, %llu steps, %u preemptions, %u stale loads, %llu scenarios cut "
	       "short\n",
	       (unsigned long long)runs, (unsigned long long)steps, config.preemptions,
	       config.stale, (unsigned long long)cut);
	return failed;
}
