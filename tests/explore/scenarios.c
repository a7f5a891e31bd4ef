/*
 * explore [-p PREEMPTIONS] [-s STALE] [-n RUNS] [-f FORMAT] [-v] [SCENARIO]: two or three threads
 * on one entry and its parent, in every interleaving. Operations: a processor that reads or writes
 * a page (translates, faults, uses what it got, acknowledges invalidations), unmapping and
 * write-protection of a page or of all that a table covers, splitting, collapsing, ageing, tracking
 * and its harvest by bitmap and by rings, a device's write; pages that are missing and come; a page
 * that another instance borrows or gets; a guest's guest, whose own second stage changes. SCENARIO:
 * those whose names begin so. -v: runs of each.
 *
 * Oracles, at each use: the translation is right, and nothing that it stands on was unmapped,
 * protected or invalidated by an operation that has returned, or aged without being used again;
 * data that was missing has come. At the end: every write is in the migrator's copy, what is in the
 * tables is what is counted, nothing stayed frozen or allocated, a shadow stands on what both its
 * stages say.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/explore/world.h"
#include "tests/unit/arm_decoder.h"
#include "tests/unit/ept_decoder.h"
#include "tests/unit/riscv_decoder.h"

static const struct scenario scenarios[] = {
	{"read, unmap", SMALL, {reads, unmaps}},
	{"read twice, unmap", SMALL, {reads_twice, unmaps}},
	{"read, unmap the table", SMALL, {reads, unmaps_all}},
	{"read, unmap a large leaf", LARGE, {reads, unmaps}},
	{"read and look, unmap the table", SMALL, {reads_then_looks, unmaps_all}},
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
	/* Nobody waits for it to acknowledge: the grace period alone keeps what it walks, and what
	 * it changes. */
	{"device, unmap the table", TRACKED, {device, unmaps_all}},
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

	/* A page that goes into a table that is there. */
	{"new page: write, harvest", TRACKED | HOLE, {writes, harvests}},
	{"new page: write twice, harvest", TRACKED | HOLE, {writes_twice, harvests}},
	{"new page: read, write", TRACKED | HOLE, {reads, writes}},
	{"new page: write, start", SMALL | HOLE, {starts_tracking, writes}},
	{"new page: write, remove the slot", SMALL | HOLE, {writes, removes}},

	/* What a split or a collapse holds back meanwhile. */
	{"start, split and write", LARGE, {starts_tracking, splits_then_writes}},
	{"start, collapse and write", SPLIT, {starts_tracking, collapses_then_writes}},
	{"split on demand, remove the slot", LARGE, {splits, removes}},
	{"write, stop tracking", TRACKED, {writes_both, stops_tracking}},

	/* Dirty rings. */
	{"ring: write, harvest", RINGED, {writes, harvests_rings}},
	{"ring: write twice, harvest", RINGED, {writes_twice, harvests_rings}},
	{"ring: write both, harvest, large", RINGED_LARGE, {writes_both, harvests_rings}},
	{"ring of one: write both, harvest", RINGED | NARROW, {writes_both, harvests_rings}},
	{"ring of one: write both and again, harvest",
	 RINGED | NARROW,
	 {writes_both_and_again, harvests_rings}},
	{"ring: write and leave, harvest", RINGED, {writes_then_leaves, harvests_rings}},
	{"ring: device, harvest", RINGED, {device, harvests_rings}},
	{"ring: device twice, harvest", RINGED, {device_twice, harvests_rings}},
	{"ring of one: device twice, harvest", RINGED | NARROW, {device_twice, harvests_rings}},
	{"ring: harvest, harvest", RINGED, {harvests_rings, harvests_rings}},
	{"ring: write, unmap", RINGED, {writes, unmaps}},
	{"ring: write, stop tracking", RINGED, {writes, stops_tracking}},
	{"ring: write, write, harvest", RINGED, {writes, writes, harvests_rings}},
	{"ring: write, harvest, harvest", RINGED, {writes, harvests_rings, harvests_rings}},
	{"ring: write, device, harvest", RINGED, {writes, device, harvests_rings}},

	/* Dirty bits of hardware. */
	{"D: write, harvest", DIRTY, {writes, harvests}},
	{"D: write twice, harvest", DIRTY, {writes_twice, harvests}},
	{"D: write twice, harvest, large", DIRTY_LARGE, {writes_twice, harvests}},
	{"D: write, write, split", DIRTY_LARGE, {writes, writes_neighbour}},
	{"D: read, write", DIRTY, {reads, writes}},
	{"D: new page: write, harvest", DIRTY | HOLE, {writes, harvests}},
	{"D: write, unmap", DIRTY, {writes, unmaps}},
	{"D: write, unmap the table", DIRTY, {writes, unmaps_all}},
	{"D: write, protect", DIRTY, {writes, protects}},
	{"D: write, age", DIRTY, {writes, ages}},
	{"D: device, harvest", DIRTY, {device, harvests}},
	{"D: start, write", SMALL | DBITS, {starts_tracking, writes}},
	{"D: start, write, large", LARGE | DBITS, {starts_tracking, writes}},
	{"D: start, collapse and write", SPLIT | DBITS, {starts_tracking, collapses_then_writes}},
	{"D: write, stop tracking", DIRTY, {writes_both, stops_tracking}},
	{"D: write, remove the slot", DIRTY, {writes, removes}},
	{"D: write, harvest, harvest", DIRTY, {writes, harvests, harvests}},
	{"D: write, harvest, unmap", DIRTY, {writes, harvests, unmaps}},
	{"D: write, write, harvest", DIRTY, {writes, writes_neighbour, harvests}},

	/* Bits that are cleared by hand; large leaves that are split at once. */
	{"by hand: write, harvest", MANUAL, {writes, harvests}},
	{"by hand: write twice, harvest", MANUAL, {writes_twice, harvests}},
	{"by hand: write twice, harvest, large", MANUAL_LARGE, {writes_twice, harvests}},
	{"by hand: device, harvest", MANUAL, {device, harvests}},
	{"by hand: start, write", SMALL | BY_HAND, {starts_tracking, writes}},
	{"by hand: D: write twice, harvest", DIRTY | BY_HAND, {writes_twice, harvests}},
	{"by hand: write, harvest, harvest", MANUAL, {writes, harvests, harvests}},
	{"by hand: write, harvest, unmap", MANUAL, {writes, harvests, unmaps}},
	{"at once: start, write", LARGE | EAGER, {starts_tracking, writes}},
	{"at once: start, unmap", LARGE | EAGER, {starts_tracking, unmaps}},
	{"at once: start, protect", LARGE | EAGER, {starts_tracking, protects}},
	{"at once: start, collapse and write",
	 SPLIT | EAGER,
	 {starts_tracking, collapses_then_writes}},
	{"at once: start, remove the slot", LARGE | EAGER, {starts_tracking, removes}},
	{"at once: start, write, unmap", LARGE | EAGER, {starts_tracking, writes, unmaps}},

	/* Large leaves that are not executable. */
	{"NX: execute, execute", LARGE | NX, {executes, executes}},
	{"NX: execute, write", LARGE | NX, {executes, writes}},
	{"NX: execute, unmap", LARGE | NX, {executes, unmaps}},
	{"NX: execute, protect", LARGE | NX, {executes, protects}},
	{"NX: execute, recover", LARGE | NX, {executes, recovers}},
	{"NX: execute, collapse", SPLIT | NX, {executes, collapses}},
	{"NX: execute, start", LARGE | NX, {executes, starts_tracking}},
	{"NX: execute, remove the slot", LARGE | NX, {executes, removes}},
	{"NX: execute, read, recover", LARGE | NX, {executes, reads, recovers}},

	/* Missing pages. */
	{"missing: read, receive", SMALL | AWAITED, {reads, receives}},
	{"missing: write, receive", SMALL | AWAITED, {writes, receives}},
	{"missing: receive, receive", SMALL | AWAITED, {receives, receives}},
	{"missing: receive, mark again", SMALL | AWAITED, {receives, marks_again}},
	{"missing: read, go", SMALL | LEAVING, {reads, goes_and_comes}},
	{"missing: read, go, empty", LEAVING, {reads, goes_and_comes}},
	{"missing: write, go", SMALL | LEAVING, {writes, goes_and_comes}},
	{"missing: receive, unmap", SMALL | AWAITED, {receives, unmaps}},
	{"missing: receive, ask", SMALL | AWAITED, {receives, asks}},
	{"missing: read, stop", SMALL | AWAITED, {reads, stops_missing}},
	{"missing: stop, ask", SMALL | AWAITED, {stops_missing, asks}},
	{"missing: read, remove the slot", SMALL | AWAITED, {reads, removes}},
	{"missing: receive, remove the slot", SMALL | AWAITED, {receives, removes}},
	{"missing: receive, harvest", TRACKED | AWAITED, {receives, harvests}},
	{"missing: receive, collapse", BIG | AWAITED, {receives, collapses}},
	{"missing: read, write, receive", SMALL | AWAITED, {reads, writes, receives}},
	{"missing: write, receive, receive", SMALL | AWAITED, {writes, receives, receives}},
	{"missing: read, receive, mark again", SMALL | AWAITED, {reads, receives, marks_again}},
	{"missing: go, come, read", LEAVING, {goes, comes, reads}},
	{"missing: go, come, write", SMALL | LEAVING, {goes, comes, writes}},
	{"missing: write, receive, harvest", TRACKED | AWAITED, {writes, receives, harvests}},

	/* Owners of a page. */
	{"owners: write, donate", SMALL | LENDING, {writes, donates}},
	{"owners: write, donate and back", SMALL | LENDING, {writes, donates_and_back}},
	{"owners: write, share", SMALL | LENDING, {writes, shares}},
	{"owners: borrow, share and back", SMALL | LENDING, {borrows, shares_and_back}},
	{"owners: borrow, unshare", SMALL | LENDING | SHARED, {borrows, unshares}},
	{"owners: borrow, donate and back", SMALL | LENDING, {borrows, donates_and_back}},
	{"owners: share, donate", SMALL | LENDING, {shares, donates}},
	{"owners: share, share", SMALL | LENDING, {shares, shares}},
	{"owners: unshare, unshare", SMALL | LENDING | SHARED, {unshares, unshares}},
	{"owners: donate, unmap", SMALL | LENDING, {donates, unmaps}},
	{"owners: write, share, donate", SMALL | LENDING, {writes, shares, donates}},
	{"owners: borrow, unshare, donate", SMALL | LENDING | SHARED, {borrows, unshares, donates}},

	/* Guests of the guest. */
	{"nested: read, unmap", SMALL | NESTED, {nested_reads, unmaps}},
	{"nested: write, protect", SMALL | NESTED, {nested_writes, protects}},
	{"nested: read, read", NESTED, {nested_reads, nested_reads}},
	{"nested: read, write", SMALL | NESTED, {nested_reads, nested_writes}},
	{"nested: write, guest remaps", SMALL | NESTED, {nested_writes, guest_remaps}},
	{"nested: write, guest protects", SMALL | NESTED, {nested_writes, guest_protects}},
	{"nested: read, guest flushes", SMALL | NESTED, {nested_reads, guest_flushes}},
	{"nested: write, guest remaps quietly",
	 SMALL | NESTED,
	 {nested_writes, guest_remaps_quietly}},
	{"nested: write, drop", SMALL | NESTED, {nested_writes, drops_context}},
	{"nested: first read, unmap", SMALL | NESTED | FRESH, {nested_reads, unmaps}},
	{"nested: first write, guest remaps",
	 SMALL | NESTED | FRESH,
	 {nested_writes, guest_remaps}},
	{"nested: look, drop", SMALL | NESTED, {nested_looks, drops_context}},
	{"nested: write, harvest", TRACKED | NESTED, {nested_writes, harvests}},
	{"nested: write twice, harvest", TRACKED | NESTED, {nested_writes_twice, harvests}},
	{"nested: write, start", SMALL | NESTED, {nested_writes, starts_tracking}},
	{"nested: write, split", LARGE | NESTED, {nested_writes, splits}},
	{"nested: write, collapse", SPLIT | NESTED, {nested_writes, collapses}},
	{"nested: read, remove the slot", SMALL | NESTED, {nested_reads, removes}},
	{"nested: unmap, guest remaps", SMALL | NESTED, {unmaps, guest_remaps}},
	{"nested: drop, unmap", SMALL | NESTED, {drops_context, unmaps}},
	{"nested: hold, unmap", SMALL | NESTED, {nested_holds, unmaps}},
	{"nested: hold, guest remaps", SMALL | NESTED, {nested_holds, guest_remaps}},
	{"nested: hold, unmap, unmap", SMALL | NESTED, {nested_holds, unmaps, unmaps}},
	{"nested: first hold, unmap, unmap",
	 SMALL | NESTED | FRESH,
	 {nested_holds, unmaps, unmaps}},
	{"nested: hold written, write, protect",
	 SMALL | NESTED,
	 {nested_holds_written, writes, protects}},
	{"nested: come and go", SMALL | NESTED, {visits, visits_other}},
	{"nested: come and go, unmap", SMALL | NESTED, {visits, unmaps}},
};

#define ARM64(bbm)                                                                                 \
	.c = {.format = S2_ARM64_4K, .input_bits = 39, .bbm_level = (bbm)},                        \
	.decoder = &arm_decoder, .pa_bits = 48, .levels = 3, .entry_bytes = 8, .base = 1 << 30,    \
	.hpa = UINT64_C(7) << 36, .large = 2 << 20

static const struct world_format formats[] = {
	{.name = "ept4",
	 .c = {.format = S2_EPT4},
	 .decoder = &ept_decoder,
	 .pa_bits = 52,
	 .levels = 4,
	 .entry_bytes = 8,
	 .base = 1 << 30,
	 .hpa = UINT64_C(7) << 36,
	 .large = 2 << 20,
	 .nests = true,
	 .dirty_bits = true},
	{.name = "arm64, frozen", ARM64(0)},
	{.name = "arm64, nT", ARM64(1), .nests = true},
	{.name = "arm64, in place", ARM64(2)},
	{.name = "sv32x4",
	 .c = {.format = S2_SV32X4},
	 .decoder = &riscv32_decoder,
	 .pa_bits = 34,
	 .levels = 2,
	 .entry_bytes = 4,
	 .hpa = UINT64_C(1) << 32,
	 .large = 4 << 20,
	 .numbered = true,
	 .dirty_bits = true},
	{.name = "sv39x4",
	 .c = {.format = S2_SV39X4},
	 .decoder = &riscv64_decoder,
	 .pa_bits = 56,
	 .levels = 3,
	 .entry_bytes = 8,
	 .base = 1 << 30,
	 .hpa = UINT64_C(7) << 36,
	 .large = 2 << 20,
	 .dirty_bits = true},
};

static bool is_processor(thread_fn *what)
{
	static thread_fn *const processors[] = {reads,
						reads_then_looks,
						executes,
						writes,
						writes_neighbour,
						writes_twice,
						reads_twice,
						writes_both,
						writes_both_and_again,
						splits_then_writes,
						collapses_then_writes,
						writes_then_leaves,
						nested_reads,
						nested_writes,
						nested_writes_twice,
						nested_holds,
						nested_holds_written,
						visits,
						visits_other};

	for (size_t i = 0; i < sizeof(processors) / sizeof(*processors); i++) {
		if (what == processors[i])
			return true;
	}
	return false;
}

static void setup(void *arg)
{
	(void)arg;
	world_setup(is_processor);
}

/* A processor says itself when it is at work. */
static void part(void *arg)
{
	thread_fn *what = scenario->thread[explore_self()];

	busy += !is_processor(what);
	what(arg);
	busy -= !is_processor(what);
}

static void finish(void *arg)
{
	(void)arg;
	world_finish();
}

struct options {
	struct explore_config config;
	const char *scenario, *format; /* NULL: all */
	bool verbose;
};

struct total {
	uint64_t runs, steps, cut;
};

/* false: it has failed */
static bool explore_one(const struct options *o, struct total *total)
{
	struct explore_program program = {.setup = setup, .finish = finish};
	struct explore_config config = o->config;
	struct explore_result r;

	config.window = PAGES * format->entry_bytes;
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++)
		program.thread[i] = part;
	r = explore(&program, &config);
	if (r.failed) {
		printf("FAILED %s: %s, after %llu interleavings\n", format->name, scenario->name,
		       (unsigned long long)r.runs);
		return false;
	}
	if (o->verbose)
		printf("%8llu %s: %s\n", (unsigned long long)r.runs, format->name, scenario->name);
	total->runs += r.runs;
	total->steps += r.steps;
	total->cut += !r.complete;
	return true;
}

int main(int argc, char **argv)
{
	struct options o = {.config = {.preemptions = 2, .stale = 1}};
	struct total total = {0};
	int opt;

	while ((opt = getopt(argc, argv, "p:s:n:f:v")) != -1) {
		switch (opt) {
		case 'p': o.config.preemptions = (unsigned)strtoul(optarg, NULL, 0); break;
		case 's': o.config.stale = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'n': o.config.max_runs = strtoull(optarg, NULL, 0); break;
		case 'f': o.format = optarg; break;
		case 'v': o.verbose = true; break;
		default: return 2;
		}
	}
	if (optind < argc)
		o.scenario = argv[optind];
	for (size_t f = 0; f < sizeof(formats) / sizeof(*formats); f++) {
		format = &formats[f];
		for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
			scenario = &scenarios[i];
			if ((scenario->state & NESTED && !format->nests) ||
			    (scenario->state & DBITS && !format->dirty_bits) ||
			    (o.format && strcmp(o.format, format->name)) ||
			    (o.scenario && strncmp(o.scenario, scenario->name, strlen(o.scenario))))
				continue;
			if (!explore_one(&o, &total))
				return 1;
		}
	}
	if (!total.runs)
		return 2;
	printf("%llu interleavings, %llu steps, %u preemptions, %u stale loads, %llu scenarios cut "
	       "short\n",
	       (unsigned long long)total.runs, (unsigned long long)total.steps,
	       o.config.preemptions, o.config.stale, (unsigned long long)total.cut);
	return 0;
}
