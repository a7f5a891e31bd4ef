/*
 * Description: large leaves: split eagerly, collapse in place, the NX policy; what the pieces keep,
 * how many flushes it takes, what is refused, others who come while a flush is on its way, and
 * every allocation failed once. In all formats, and all ways of break-before-make.
 */
#include <errno.h>

#include "mmu/internal.h"
#include "tests/unit/test_mmu_format.h"

enum { BLOCKS = 8 };

static const struct test_config *tc;
static const struct format *f;
static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static struct s2_thread *t, *other;
static struct s2_slot ram;
static struct s2_tlb_client client;
static uint64_t page, large;
static unsigned flushes;

/* What somebody else does while a flush is on its way. */
static void (*interfere)(void);

static void invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)start;
	(void)end;
	flushes++;
	if (!interfere)
		s2_tlb_ack(opaque, generation);
}

static void wait_for(void *opaque, uint64_t generation)
{
	void (*now)(void) = interfere;

	interfere = NULL;
	if (now)
		now();
	s2_tlb_ack(opaque, generation);
}

static void open_instance(unsigned options, uint64_t gpa)
{
	struct test_config config = *tc;

	config.c.options |= options;
	if (!test_config_create(&config, &te, &s2, &mem) || s2_thread_init(&t, s2, "test") ||
	    s2_thread_init(&other, s2, "other"))
		exit(1);
	f = s2->ops->format;
	page = s2_level_size(s2, 1);
	large = s2_level_size(s2, 2);
	ram = (struct s2_slot){.gpa = gpa * large,
			       .size = BLOCKS * large,
			       .hpa = test_config_hpa(tc) + 16 * large,
			       .page_size = large};
	CHECK(!s2_slot_add(t, &ram), "add");
	client = (struct s2_tlb_client){
		.name = "test", .opaque = &client, .invalidate = invalidate, .wait = wait_for};
	s2_tlb_client_add(t, &client);
	flushes = 0;
	interfere = NULL;
}

static void check_tables(const char *what)
{
	struct dec_census c = dec_census(&mem);
	struct s2_stats stats;

	s2_get_stats(s2, &stats);
	CHECK(!c.marks && !c.bad, "%s, %s: an entry stayed frozen", tc->name, what);
	CHECK(stats.tables == c.tables, "%s, %s: %" PRIu64 " tables", tc->name, what, stats.tables);
	for (int level = 1; level <= 5; level++)
		CHECK(stats.pages[level] == c.leaves[level], "%s, %s: level %d: %" PRIu64, tc->name,
		      what, level, stats.pages[level]);
}

static void close_instance(const char *what)
{
	check_tables(what);
	s2_tlb_client_remove(t, &client);
	s2_thread_exit(other);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%s, %s: %ld tables leaked", tc->name, what,
	      atomic_load(&te.live));
}

static void map(uint64_t gpa, uint64_t size, uint32_t access, unsigned level)
{
	struct s2_xlat x = {0};

	for (uint64_t at = gpa; at < gpa + size; at += s2_level_size(s2, level)) {
		enum s2_result r = s2_fault(t, at, access, &x);

		CHECK((r == S2_FIXED || r == S2_SPURIOUS) && x.level == level,
		      "%s: map %" PRIx64 ": %d, level %u", tc->name, at, r, x.level);
	}
}

/* [gpa, gpa + size) translates as the slot says, in leaves of `level` that grant just `perm`. */
static void look(const char *what, uint64_t gpa, uint64_t size, unsigned level, uint32_t perm)
{
	uint64_t bad = 0;

	for (uint64_t at = gpa; at < gpa + size; at += page) {
		struct s2_xlat x = {0};
		bool good = s2_translate(t, at + 7, perm, &x) && x.level == level &&
			    x.perm == perm && x.hpa == at + 7 - ram.gpa + ram.hpa;
		struct dec_result r = dec_walk(&mem, at + 7);

		bad += !good || r.outcome != DEC_TRANSLATED || r.address != x.hpa ||
		       r.size != s2_level_size(s2, level);
	}
	CHECK(!bad, "%s, %s: %" PRIu64 " pages at %" PRIx64, tc->name, what, bad, gpa);
}

/* Changes the leaf at gpa behind the policy's back. */
static uint64_t leaf_at(uint64_t gpa, void **entry)
{
	struct walk_entry w = walk_lookup(f, &s2->pt, gpa);

	*entry = w.entry;
	return w.value;
}

static void set_sw(uint64_t gpa, uint32_t sw)
{
	void *entry;
	uint64_t e = leaf_at(gpa, &entry);

	entry_store(&s2->pt.geo, entry, format_set_sw(f, e, sw));
}

static bool all_sw(uint64_t gpa, uint64_t size, uint32_t sw)
{
	void *entry;

	for (uint64_t at = gpa; at < gpa + size; at += page) {
		if (format_sw(f, leaf_at(at, &entry)) != sw)
			return false;
	}
	return true;
}

/* ---- split and back ---- */

static void test_round_trip(void)
{
	const bool arm = f->break_before_make;
	struct s2_stats was, is;

	map(ram.gpa, ram.size, S2_W, 2);
	set_sw(ram.gpa + 3 * large, 2);
	s2_get_stats(s2, &was);
	CHECK(s2_split(t, ram.gpa, ram.gpa, 1) == 0, "empty range");
	CHECK(s2_split(t, ram.gpa + 1, ram.gpa + large, 1) == -EINVAL, "misaligned");
	CHECK(s2_split(t, ram.gpa, ram.gpa + large, 0) == -EINVAL, "level");
	CHECK(s2_split(t, ram.gpa, ram.gpa + large, 6) == -EINVAL, "level");
	/* the fifth block only in part */
	CHECK(!flushes && s2_split(t, ram.gpa, ram.gpa + 4 * large + page, 1) == 0, "split");
	look("split", ram.gpa, 5 * large, 1, 7);
	look("rest", ram.gpa + 5 * large, 3 * large, 2, 7);
	CHECK(all_sw(ram.gpa + 3 * large, large, 2) && all_sw(ram.gpa + 4 * large, large, 0) &&
		      all_sw(ram.gpa, 3 * large, 0),
	      "%s: software bits", tc->name);
	/* as many tables as the thread's cache held, and then eight at once */
	CHECK(arm ? flushes == 1 || flushes == 2 : !flushes, "%s: %u flushes", tc->name, flushes);
	s2_get_stats(s2, &is);
	CHECK(is.splits == was.splits + 5 && is.tables == was.tables + 5, "%s: splits", tc->name);
	check_tables("split");
	flushes = 0;
	CHECK(s2_split(t, 0, 0, 2) == 0 && !flushes, "nothing to do");

	CHECK(s2_collapse(t, ram.gpa, ram.gpa + 2 * large + page) == 2, "%s: two", tc->name);
	CHECK(s2_collapse(t, ram.gpa + 3 * large + page, 0) == 1, "%s: one", tc->name);
	CHECK(s2_collapse(t, 0, 0) == 2, "%s: the rest", tc->name);
	CHECK(flushes == 3, "%s: %u flushes", tc->name, flushes);
	look("collapsed", ram.gpa, ram.size, 2, 7);
	CHECK(all_sw(ram.gpa + 3 * large, large, 2) && all_sw(ram.gpa, large, 0), "%s: sw",
	      tc->name);
	s2_get_stats(s2, &is);
	CHECK(is.collapses == 5 && is.tables == was.tables, "%s: collapses", tc->name);
	flushes = 0;
	CHECK(s2_collapse(t, 0, 0) == 0 && !flushes, "again");
	CHECK(s2_collapse(t, 1, 0) == -EINVAL, "misaligned");
}

/* From the third level down and up, where there are such leaves. */
static void test_third_level(void)
{
	struct s2_slot more = {.page_size = UINT64_C(1) << 62};
	uint64_t size, gpa;

	if (s2->pt.geo.levels < 3 || !geometry_has_leaf(&s2->pt.geo, 3))
		return;
	size = s2_level_size(s2, 3);
	gpa = 3 * size;
	more.gpa = gpa;
	more.hpa = 5 * size;
	more.size = size;
	CHECK(!s2_slot_add(t, &more), "add");
	map(gpa, size, S2_W, 3);
	CHECK(s2_split(t, gpa + 3 * large, gpa + 4 * large + page, 1) == 0, "split");
	{
		struct s2_xlat x;

		CHECK(s2_translate(t, gpa + 2 * large, S2_W, &x) && x.level == 2, "below");
		CHECK(s2_translate(t, gpa + 3 * large, S2_W, &x) && x.level == 1, "in");
		CHECK(s2_translate(t, gpa + 5 * large - 1, S2_W, &x) && x.level == 1 &&
			      x.hpa == more.hpa + 5 * large - 1,
		      "in");
		CHECK(s2_translate(t, gpa + 5 * large, S2_W, &x) && x.level == 2, "above");
		check_tables("third level");
		CHECK(s2_collapse(t, 0, 0) == 3, "%s: third level", tc->name);
		CHECK(s2_translate(t, gpa + 5 * large, S2_W, &x) && x.level == 3 &&
			      x.hpa == more.hpa + 5 * large,
		      "whole");
	}
	CHECK(!s2_slot_remove(t, gpa), "remove");
}

/* ---- what does not collapse ---- */

static int64_t collapse_first(const char *what, uint64_t want)
{
	int64_t made = s2_collapse(t, ram.gpa, ram.gpa + large);

	CHECK(made == (int64_t)want, "%s, %s: %" PRId64, tc->name, what, made);
	check_tables(what);
	return made;
}

static void test_refusals(void)
{
	const uint64_t gpa = ram.gpa, some = gpa + 3 * page;
	struct s2_xlat x;
	void *entry;
	uint64_t e;

	map(gpa, large, S2_W, 2);
	CHECK(!s2_split(t, gpa, gpa + large, 1), "split");
	CHECK(!s2_unmap(t, some, some + page), "unmap");
	collapse_first("a hole", 0);
	map(some, page, S2_W, 1);
	set_sw(some, 1);
	collapse_first("software bits", 0);
	set_sw(some, 0);
	e = leaf_at(some, &entry);
	entry_store(&s2->pt.geo, entry, format_set_perm(f, &s2->pt.geo, e, S2_R | S2_W));
	collapse_first("one is not executable", 0);
	entry_store(&s2->pt.geo, entry,
		    format_resize(f, &s2->pt.geo, e, format_addr(f, &s2->pt.geo, e) + page, 1));
	collapse_first("addresses", 0);
	if (f->memory_bits && !f->memory_option) {
		entry_store(&s2->pt.geo, entry, format_set_memory(f, &s2->pt.geo, e, FORMAT_NC));
		collapse_first("memory type", 0);
	}
	entry_store(&s2->pt.geo, entry, e);
	CHECK(!s2_dirty_start(t), "start");
	collapse_first("tracking", 0);
	CHECK(s2_fault(t, some, S2_W, &x) == S2_FIXED, "write");
	CHECK(!s2_dirty_stop(t), "stop");
	flushes = 0;
	collapse_first("W differs", 1);
	CHECK(flushes == 1, "%u flushes", flushes);
	look("W in one of them", gpa, large, 2, S2_R | S2_X);
	CHECK(s2_fault(t, gpa, S2_W, &x) == S2_FIXED && x.level == 2, "W for all");

	/* the slot does not let it be one */
	for (int i = 0; i < 3; i++) {
		CHECK(!s2_slot_remove(t, gpa), "remove");
		ram.page_size = i == 0 ? page : large;
		ram.hpa += i == 1 ? page : 0;
		ram.size = i == 2 ? large - page : BLOCKS * large;
		CHECK(!s2_slot_add(t, &ram), "add");
		map(gpa, ram.size < large ? ram.size : large, S2_W, 1);
		collapse_first("slot", 0);
	}
}

/* ---- between freezing and the leaf ---- */

static void do_nothing(void)
{
	struct s2_xlat x;

	CHECK(!s2_translate(other, ram.gpa, S2_R, &x), "frozen");
	CHECK(s2_fault(other, ram.gpa, S2_R, &x) == S2_RETRY, "frozen");
}
static void do_unmap_page(void)
{
	CHECK(!s2_unmap(other, ram.gpa + page, ram.gpa + 2 * page), "unmap");
}
static void do_unmap_all(void)
{
	CHECK(!s2_unmap(other, 0, 0), "unmap");
}
static void do_protect(void)
{
	CHECK(!s2_write_protect(other, ram.gpa, ram.gpa + page), "protect");
}
static void do_remove(void)
{
	CHECK(!s2_slot_remove(other, ram.gpa), "remove");
}
static void do_start(void)
{
	CHECK(!s2_dirty_start(other), "start");
}
static void do_start_split(void)
{
	const struct s2_dirty_options o = {.flags = S2_DIRTY_EAGER};

	CHECK(!s2_dirty_start_with(other, &o, NULL), "start");
}
static void do_collapse(void)
{
	s2_collapse(other, 0, 0);
}
static void do_split(void)
{
	CHECK(!s2_split(other, 0, 0, 1), "split");
}

static void test_interference(void (*what)(void), bool collapse)
{
	struct s2_xlat x;
	unsigned lost = 0, writable = 0;

	open_instance(0, 4);
	map(ram.gpa, ram.size, S2_W, 2);
	if (collapse)
		CHECK(!s2_split(t, ram.gpa, ram.gpa + 3 * large, 1), "split");
	interfere = what;
	if (collapse)
		CHECK(s2_collapse(t, 0, 0) >= 0 && !interfere, "%s: collapse", tc->name);
	else
		CHECK(!s2_split(t, ram.gpa, ram.gpa + 3 * large, 1), "%s: split", tc->name);
	interfere = NULL;
	check_tables("interference");
	for (uint64_t at = ram.gpa; at < ram.gpa + ram.size; at += page) {
		lost += !s2_translate(t, at, S2_R, &x);
		writable += s2_translate(t, at, S2_W, &x);
	}
	if (what == do_unmap_page)
		CHECK(!s2_translate(t, ram.gpa + page, S2_R, &x), "%s: it came back", tc->name);
	else if (what == do_unmap_all || what == do_remove)
		CHECK(lost == ram.size / page, "%s: it came back", tc->name);
	else if (what == do_protect)
		CHECK(!s2_translate(t, ram.gpa, S2_W, &x), "%s: W came back", tc->name);
	else if (what == do_start || what == do_start_split)
		CHECK(!writable, "%s: W while tracking", tc->name);
	else if (what == do_nothing)
		CHECK(!lost, "%s: %u pages lost", tc->name, lost);
	if (what != do_remove) {
		for (uint64_t at = ram.gpa; at < ram.gpa + ram.size; at += large) {
			enum s2_result r = s2_fault(t, at, S2_W, &x);

			CHECK(r == S2_FIXED || r == S2_SPURIOUS, "%s: %d", tc->name, r);
		}
	}
	close_instance("interference");
}

/* ---- memory ---- */

static void test_nomem(void)
{
	const struct s2_dirty_options eager = {.flags = S2_DIRTY_EAGER};
	bool enough = false;
	int failures = 0;

	for (long n = 0; !enough; n++) {
		int err;

		open_instance(0, 2);
		map(ram.gpa, ram.size, S2_W, 2);
		atomic_store(&te.fail_after, n);
		err = s2_split(t, 0, 0, 1);
		enough = atomic_load(&te.fail_after) > 0;
		atomic_store(&te.fail_after, -1);
		CHECK(!err || (err == -ENOMEM && !enough), "%s: %d", tc->name, err);
		failures += err == -ENOMEM;
		check_tables("no memory");
		for (uint64_t at = ram.gpa; at < ram.gpa + ram.size; at += page) {
			struct s2_xlat x = {0};

			if (!s2_translate(t, at, S2_R | S2_W, &x) ||
			    x.hpa != at - ram.gpa + ram.hpa)
				CHECK(false, "%s: page %" PRIx64, tc->name, at);
		}
		CHECK(!s2_split(t, 0, 0, 1), "with memory");
		look("with memory", ram.gpa, large, 1, 7);
		close_instance("no memory");

		/* tracking starts whether or not all could be split */
		open_instance(0, 2);
		map(ram.gpa, ram.size, S2_W, 2);
		atomic_store(&te.fail_after, n + 3);
		err = s2_dirty_start_with(t, &eager, NULL);
		atomic_store(&te.fail_after, -1);
		CHECK(!err, "%s: start: %d", tc->name, err);
		for (uint64_t at = ram.gpa; at < ram.gpa + ram.size; at += large) {
			struct s2_xlat x;

			CHECK(!s2_translate(t, at, S2_W, &x) && s2_translate(t, at, S2_R, &x),
			      "start");
		}
		close_instance("start without memory");
	}
	CHECK(failures, "%s: never without memory", tc->name);
}

/* ---- NX ---- */

static void test_nx(void)
{
	struct s2_xlat x;

	open_instance(S2_OPT_NX_HUGE, 3);
	map(ram.gpa, 6 * large, S2_W, 2);
	look("data", ram.gpa, 6 * large, 2, S2_R | S2_W);
	CHECK(!s2_nx_splits(s2), "none yet");
	for (uint64_t i = 0; i < 5; i++) {
		map(ram.gpa + i * large + 5 * page, page, S2_X, 1);
		CHECK(s2_nx_splits(s2) == i + 1, "%s: on the list", tc->name);
	}
	look("executed", ram.gpa + 5 * page, page, 1, 7);
	look("its neighbours", ram.gpa, 5 * page, 1, S2_R | S2_W);
	map(ram.gpa + 6 * page, page, S2_X, 1);
	/* not mapped before: a small page at once, and on the list as well */
	map(ram.gpa + 6 * large, page, S2_X, 1);
	CHECK(s2_nx_splits(s2) == 6, "%" PRIu64, s2_nx_splits(s2));
	CHECK(s2_collapse(t, 0, 0) == 0, "%s: a page of a block is executable", tc->name);
	map(ram.gpa, large, S2_X, 1);
	CHECK(s2_collapse(t, 0, 0) == 0, "%s: each page of a block is executable", tc->name);
	CHECK(s2_nx_recover(t, 0) == 0, "off");
	CHECK(!s2_dirty_start(t) && s2_nx_recover(t, 1) == 0 && !s2_dirty_stop(t), "tracking");
	flushes = 0;
	CHECK(s2_nx_recover(t, 4) == 2 && flushes == 2, "%s: a share, rounded up", tc->name);
	CHECK(s2_nx_splits(s2) == 4, "left");
	map(ram.gpa, 2 * large, S2_R, 2); /* the oldest two are large again */
	look("recovered", ram.gpa, 2 * large, 2, S2_R | S2_W);
	CHECK(s2_translate(t, ram.gpa + 2 * large + 5 * page, S2_X, &x) && x.level == 1, "not yet");
	CHECK(s2_nx_recover(t, 1) == 4 && !s2_nx_splits(s2), "all");
	CHECK(s2_nx_recover(t, 1) == 0, "none");
	/* without memory for the list: small, and no harm */
	map(ram.gpa + 4 * large, page, S2_R, 2);
	close_instance("nx");
}

/* The list grows; one format will do. */
static void test_nx_list(void)
{
	struct s2_slot many;

	open_instance(S2_OPT_NX_HUGE, 3);
	many = (struct s2_slot){
		.gpa = 64 * large, .size = 1500 * large, .hpa = 64 * large, .page_size = large};
	CHECK(!s2_slot_add(t, &many), "add");
	for (uint64_t i = 0; i < 1500; i++) {
		if (i == 1024)
			atomic_store(&te.fail_after, 4); /* for the list, or a table */
		s2_fault(t, many.gpa + i * large, S2_X, NULL);
		atomic_store(&te.fail_after, -1);
	}
	CHECK(s2_nx_splits(s2) >= 1498, "%" PRIu64, s2_nx_splits(s2));
	CHECK(s2_nx_recover(t, 60) == 25, "a sixtieth");
	/* gone with another slot, and the order stays */
	CHECK(!s2_slot_remove(t, ram.gpa) && s2_nx_splits(s2) >= 1473, "another slot's");
	while (s2_nx_recover(t, 2))
		;
	CHECK(!s2_nx_splits(s2), "all");
	close_instance("nx list");
}

/* A block is on it once; what is not small any more costs no share; it goes with its slot. */
static void test_nx_bound(void)
{
	struct s2_xlat x;

	open_instance(S2_OPT_NX_HUGE, 3);
	for (unsigned i = 0; i < 1000; i++) {
		map(ram.gpa + 3 * page, page, S2_X, 1);
		s2_unmap(t, ram.gpa, ram.gpa + large);
	}
	CHECK(s2_nx_splits(s2) == 1, "%s: %" PRIu64 " entries", tc->name, s2_nx_splits(s2));
	map(ram.gpa, large, S2_R, 2); /* large again: stale */
	for (uint64_t i = 1; i < 5; i++)
		map(ram.gpa + i * large, page, S2_X, 1);
	CHECK(s2_nx_splits(s2) == 5, "%" PRIu64, s2_nx_splits(s2));
	CHECK(s2_nx_recover(t, 5) == 1 && s2_nx_splits(s2) == 3, "%s: the stale one is free",
	      tc->name);
	CHECK(s2_translate(t, ram.gpa, S2_R, &x) && x.level == 2, "%s: the large one stays",
	      tc->name);
	CHECK(!s2_translate(t, ram.gpa + large, S2_R, &x), "%s: the oldest small one", tc->name);
	/* and once more by who is on it already */
	map(ram.gpa + 2 * large + page, page, S2_X, 1);
	CHECK(s2_nx_splits(s2) == 3, "%" PRIu64, s2_nx_splits(s2));
	CHECK(!s2_slot_remove(t, ram.gpa) && !s2_nx_splits(s2), "%s: with the slot", tc->name);
	close_instance("nx bound");
}

static void test_relax(void)
{
	struct geometry g;

	CHECK(!test_geometry(&tc->c, &g, NULL), "geometry");
	for (uint32_t perm = 1; perm < 8; perm++) {
		uint64_t e = format_make_leaf(test_format(tc->c.format), &g, 0, 1, perm);

		if (!e)
			continue;
		e = format_set_sw(test_format(tc->c.format), e, 3);
		for (uint32_t more = 0; more < 64; more++) {
			const struct format *form = test_format(tc->c.format);
			uint64_t relaxed = format_relax(form, &g, e, more);

			if (more > 7)
				CHECK(!relaxed, "%s: %u is no permission", tc->name, more);
			else if (relaxed)
				CHECK(!((relaxed ^ e) & ~form->perm_bits) &&
					      form->perm(relaxed) == (perm | more),
				      "%s: %u and %u", tc->name, perm, more);
			else
				CHECK(!format_perm_legal(form, &g, perm | more), "%s: refused",
				      tc->name);
		}
	}
}

int main(void)
{
	static void (*const others[])(void) = {do_nothing,  do_unmap_page, do_unmap_all,
					       do_protect,  do_remove,	   do_start,
					       do_collapse, do_split,	   do_start_split};

	for (int i = 0; i < TEST_CONFIGS; i += TEST_STEP) {
		unsigned ways = test_configs[i].decoder == &arm_decoder ? 3 : 1;

		for (unsigned level = 0; level < ways; level++) {
			struct test_config config = test_configs[i];

			config.c.bbm_level = level;
			tc = &config;
			test_relax();
			open_instance(0, 4);
			test_round_trip();
			test_third_level();
			close_instance("round trip");
			open_instance(0, 4);
			test_refusals();
			close_instance("refusals");
			for (size_t j = 0; j < sizeof(others) / sizeof(*others); j++) {
				test_interference(others[j], true);
				if (level < 2 && ways > 1 && others[j] != do_nothing)
					test_interference(others[j], false);
			}
			/* tables of 64 KiB and larger: enough once */
			if (level == 0)
				test_nomem();
			test_nx();
			test_nx_bound();
			if (i == 0)
				test_nx_list();
		}
	}
	return test_result("huge");
}
