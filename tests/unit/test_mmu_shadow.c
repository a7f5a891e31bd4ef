/*
 * Description: shadow contexts of nested guests, every format on both levels: random nested faults,
 * unmaps, protections and slot changes of either stage, harvests, drops and recycling. After each,
 * independent decoders read the guest's tables, the host's, and the shadow's: what the shadow maps
 * is exactly the composition of the other two, and grants no more than both; what lost a permission
 * was flushed under its tag; what an operation has not touched is still there.
 *
 * "The nested guest" is a software walker: there is no engine for one yet.
 *
 * On failure the steps are halved until it passes: the shortest failing run is printed.
 */
#include "tests/unit/test_mmu_shadow_util.h"

enum { REGIONS = 4, PER = 12, SAMPLES = REGIONS * PER, GUESTS = 2 };

static struct nest n;
static struct s2_thread *t; /* of the host's instance */
static uint64_t page, large, data_size, base[GUESTS];

static struct guest {
	struct s2 *s2;
	struct s2_thread *t;
	struct s2_tlb_client client;
	struct s2_guest_root root;
	struct dec_memory mem, shadow;
	struct s2_context *ctx;
	struct s2_slot slot[REGIONS];
	unsigned vmid;
	/* what the decoder saw before, and what has been flushed since */
	uint32_t had[SAMPLES];
	uint64_t had_hpa[SAMPLES];
	bool flushed[SAMPLES];
} guest[GUESTS];

static struct s2_slot data;
static bool tracking, dbit;
static uint64_t total[8]; /* fixed, forwarded, emulated, retries, followed, ipa, recycled, kept */

static uint64_t sample(const struct guest *g, unsigned i)
{
	static const uint64_t at[PER] = {0, 1, 2, 3, 7, 16, 255, 256, 511, 512, 0, 0};
	uint64_t pages = large / page, offset = at[i % PER];

	if (i % PER == PER - 2)
		offset = pages / 2;
	else if (i % PER == PER - 1)
		offset = pages - 1;
	return base[g - guest] + i / PER * large + offset % pages * page;
}

/* What both stages grant: W only where a write has been marked, if D tells. */
static uint32_t composed(struct guest *g, uint64_t ngpa, uint64_t *gpa, uint64_t *hpa,
			 uint32_t *guest_perm)
{
	struct dec_result outer = dec_walk(&g->mem, ngpa), inner;

	*guest_perm = nest_perm(&outer);
	*gpa = outer.address;
	if (outer.outcome != DEC_TRANSLATED)
		return 0;
	inner = dec_walk(&n.own_mem, outer.address);
	*hpa = inner.address;
	return nest_perm(&inner) & nest_perm(&outer) &
	       ~(uint32_t)(dbit && !inner.leaf.dirty ? S2_W : 0);
}

static uint32_t shadow_at(struct guest *g, uint64_t ngpa, uint64_t *hpa)
{
	struct dec_result r = dec_walk(&g->shadow, ngpa);

	CHECK(r.outcome != DEC_MISCONFIG, "%s in %s: %s", n.guest->name, n.host->name, r.why);
	*hpa = r.address;
	return nest_perm(&r);
}

/* ---- TLB clients: the host's, and what the guest does where it would flush ---- */

static void host_invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)start;
	(void)end;
	s2_tlb_ack(opaque, generation);
}

static void host_invalidate_tag(void *opaque, uint32_t tag, uint64_t start, uint64_t end,
				uint64_t generation)
{
	for (int i = 0; i < GUESTS; i++) {
		for (unsigned s = 0; guest[i].ctx && s < SAMPLES; s++) {
			uint64_t at = sample(&guest[i], s);

			if (s2_context_tag(guest[i].ctx) == tag && at + page > start &&
			    (!end || at < end))
				guest[i].flushed[s] = true;
		}
	}
	s2_tlb_ack(opaque, generation);
}

static struct {
	uint64_t start, end;
	unsigned n;
} wanted;
static uint64_t *random_state;

static void guest_invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)generation;
	(void)opaque;
	wanted.start = wanted.n ? (start < wanted.start ? start : wanted.start) : start;
	wanted.end = wanted.n ? (end > wanted.end ? end : wanted.end) : end;
	wanted.n++;
}

/* The guest's hypervisor invalidates what it has changed, in one of the ways that hardware has. */
static void guest_wait(void *opaque, uint64_t generation)
{
	struct guest *g = opaque;
	struct s2_inv inv = {.vmid = g->vmid, .start = wanted.start, .end = wanted.end};
	bool x86 = n.guest->decoder == &ept_decoder || n.guest->decoder == &npt_decoder;

	switch (test_random(random_state) % 8) {
	case 0: inv.kind = S2_INV_ALL; break;
	case 1: inv.kind = S2_INV_VMID; break;
	case 2:
		inv.kind = x86 ? S2_INV_ROOT : S2_INV_VMID;
		inv.root = g->root.root;
		break;
	case 3:
	case 4:
		/* One by one, as far as that goes: one address of each leaf is enough. */
		inv.kind = S2_INV_IPA;
		if (wanted.end - wanted.start <= 2 * large) {
			for (unsigned s = 0; s < SAMPLES; s++) {
				uint64_t at = sample(g, s);

				if (at < wanted.start || at >= wanted.end)
					continue;
				inv.start = at + test_random(random_state) % page;
				inv.shift = 0;
				s2_shadow_invalidate(t, n.shadows, &inv);
				total[5]++;
			}
			s2_tlb_ack(&g->client, generation);
			wanted.n = 0;
			return;
		}
		/* fall through */
	default: inv.kind = S2_INV_RANGE;
	}
	s2_shadow_invalidate(t, n.shadows, &inv);
	s2_tlb_ack(&g->client, generation);
	wanted.n = 0;
}

/* ---- what holds after each operation ---- */

static void remember(void)
{
	for (int i = 0; i < GUESTS; i++) {
		for (unsigned s = 0; s < SAMPLES; s++)
			guest[i].had[s] =
				shadow_at(&guest[i], sample(&guest[i], s), &guest[i].had_hpa[s]);
		memset(guest[i].flushed, 0, sizeof(guest[i].flushed));
	}
}

static void verify(const char *what)
{
	struct s2_shadow_stats stats;
	uint64_t leaves = 0, tables = 0;

	for (int i = 0; i < GUESTS; i++) {
		struct guest *g = &guest[i];
		struct dec_census c = dec_census(&g->shadow);

		for (unsigned s = 0; s < SAMPLES; s++) {
			uint64_t at = sample(g, s), gpa, hpa = 0, is_hpa;
			uint32_t outer, may = composed(g, at, &gpa, &hpa, &outer),
					is = shadow_at(g, at, &is_hpa);

			CHECK(!is || is_hpa == hpa,
			      "%s in %s, %s: guest %d, sample %u: %" PRIx64 ", not %" PRIx64,
			      n.guest->name, n.host->name, what, i, s, is_hpa, hpa);
			CHECK(!(is & ~may), "%s in %s, %s: guest %d, sample %u grants %u of %u",
			      n.guest->name, n.host->name, what, i, s, is, may);
			CHECK(!(g->had[s] & ~is) || g->flushed[s],
			      "%s in %s, %s: guest %d, sample %u had %u, has %u, no flush",
			      n.guest->name, n.host->name, what, i, s, g->had[s], is);
			CHECK(!g->had[s] || !is || is_hpa == g->had_hpa[s] || g->flushed[s],
			      "%s: sample %u moved without a flush", what, s);
		}
		CHECK(!c.bad && !c.marks, "%s: %" PRIu64 " bad entries", what, c.bad);
		for (int level = 1; level < 6; level++)
			leaves += c.leaves[level];
		tables += c.tables - 1;
	}
	s2_shadow_get_stats(n.shadows, &stats);
	CHECK(stats.leaves == leaves && stats.tables == tables,
	      "%s in %s, %s: %" PRIu64 " leaves, %" PRIu64 " tables, not %" PRIu64 ", %" PRIu64,
	      n.guest->name, n.host->name, what, stats.leaves, stats.tables, leaves, tables);
}

/* ---- operations ---- */

static const struct s2_slot *guest_slot(const struct guest *g, uint64_t ngpa)
{
	for (int i = 0; i < REGIONS; i++) {
		if (g->slot[i].size && ngpa - g->slot[i].gpa < g->slot[i].size)
			return &g->slot[i];
	}
	return NULL;
}

static void fault(uint64_t *seed)
{
	struct guest *g = &guest[test_random(seed) % GUESTS];
	uint64_t ngpa =
		sample(g, (unsigned)(test_random(seed) % SAMPLES)) + test_random(seed) % page;
	uint32_t access = (uint32_t[]){S2_R, S2_W, S2_X, S2_R | S2_W}[test_random(seed) % 4];
	enum s2_result r = S2_RETRY;
	struct s2_syndrome why = {0};
	struct s2_xlat x = {0};

	for (int tries = 0; tries < 20; tries++) {
		uint64_t gpa, hpa = 0;
		uint32_t outer;

		r = s2_context_fault(t, g->ctx, ngpa, access, &x, &why);
		composed(g, ngpa, &gpa, &hpa, &outer);
		if (r == S2_RETRY) {
			total[3]++;
			continue;
		}
		if (r == S2_FORWARD) {
			enum s2_result own;

			total[1]++;
			CHECK(access & ~outer, "forwarded, though the guest grants it");
			CHECK(why.kind == (outer ? S2_FAULT_PERMISSION : S2_FAULT_TRANSLATION) &&
				      why.ngpa == ngpa && why.access == access,
			      "kind %d, guest grants %u", why.kind, outer);
			/* the guest's hypervisor: gives it, or not */
			own = s2_fault(g->t, ngpa, access, NULL);
			if (own == S2_EMULATE) {
				const struct s2_slot *s = guest_slot(g, ngpa);

				CHECK(!s || (access & S2_W && s->flags & S2_SLOT_READONLY),
				      "the guest's instance");
				return;
			}
			CHECK(own == S2_FIXED || own == S2_SPURIOUS, "the guest's fault: %d", own);
			continue;
		}
		if (r == S2_EMULATE) {
			total[2]++;
			CHECK(why.gpa == gpa && !(access & ~outer), "gpa %" PRIx64, why.gpa);
			CHECK(gpa - data.gpa >= data.size ||
				      (access & S2_W && data.flags & S2_SLOT_READONLY),
			      "%" PRIx64 " is memory", gpa);
			return;
		}
		break;
	}
	CHECK(r == S2_FIXED || r == S2_SPURIOUS, "%s in %s: result %d", n.guest->name, n.host->name,
	      r);
	if (r == S2_FIXED || r == S2_SPURIOUS) {
		const struct s2_slot *s = guest_slot(g, ngpa);

		CHECK(!(access & ~x.perm) && s &&
			      x.hpa == ngpa - s->gpa + s->hpa - data.gpa + data.hpa,
		      "%" PRIx64, x.hpa);
		total[0]++;
	}
}

static void random_range(uint64_t *seed, uint64_t from, uint64_t grain, uint64_t size,
			 uint64_t *start, uint64_t *end)
{
	uint64_t units = size / grain, first = test_random(seed) % units;
	uint64_t count = 1 + test_random(seed) % (test_random(seed) % 3 ? 4 : units);

	*start = from + first * grain;
	*end = from + (first + count > units ? units : first + count) * grain;
}

static void guest_change(uint64_t *seed, bool protect)
{
	struct guest *g = &guest[test_random(seed) % GUESTS];
	uint64_t start, end;

	random_range(seed, base[g - guest], test_random(seed) % 2 ? page : large, REGIONS * large,
		     &start, &end);
	if (protect)
		CHECK(!s2_write_protect(g->t, start, end), "protect");
	else
		CHECK(!s2_unmap(g->t, start, end), "unmap");
}

static void guest_region(struct guest *g, int i, uint64_t *seed)
{
	struct s2_slot *s = &g->slot[i];

	if (s->size) {
		CHECK(!s2_slot_remove(g->t, s->gpa), "remove");
		s->size = 0;
		if (test_random(seed) % 8 == 0)
			return;
	}
	*s = (struct s2_slot){.gpa = base[g - guest] + (uint64_t)i * large,
			      .size = large,
			      .hpa = DATA + test_random(seed) % 6 * large,
			      .page_size = test_random(seed) % 3 ? large : page,
			      .flags = test_random(seed) % 5 ? 0 : S2_SLOT_READONLY};
	if (test_random(seed) % 3 == 0)
		s->hpa += test_random(seed) % (large / page) * page;
	CHECK(!s2_slot_add(g->t, s), "guest slot");
}

static void host_data(uint64_t *seed)
{
	uint64_t own = s2_level_size(n.own, 2);

	if (data.size)
		CHECK(!s2_slot_remove(t, DATA), "remove");
	data = (struct s2_slot){.gpa = DATA,
				.size = data_size,
				.hpa = n.table_hpa + (4 + test_random(seed) % 3) * DATA +
				       (test_random(seed) % 3 ? 0 : s2_level_size(n.own, 1)),
				.page_size = (uint64_t[]){s2_level_size(n.own, 1), own,
							  1 << 30}[test_random(seed) % 3],
				.flags = test_random(seed) % 6 ? 0 : S2_SLOT_READONLY};
	if (n.te.arena) /* 34 bits of host addresses */
		data.hpa = 2 * DATA + test_random(seed) % 4 * own;
	if (test_random(seed) % 6 == 0)
		data.size = data_size / 2; /* the rest is devices */
	CHECK(!s2_slot_add(t, &data), "data");
}

/* What lies outside the range, and outside leaves that reach into it, keeps its shadow. */
static void host_change(uint64_t *seed, bool protect)
{
	uint64_t start, end, grain = s2_level_size(n.own, test_random(seed) % 3 ? 1 : 2), widest;

	random_range(seed, DATA, grain, data_size, &start, &end);
	widest = s2_level_size(n.own, nest_page_shift(n.host) > 12 ? 2 : 3); /* leaf */
	if (protect)
		CHECK(!s2_write_protect(t, start, end), "protect");
	else
		CHECK(!s2_unmap(t, start, end), "unmap");
	for (int i = 0; i < GUESTS; i++) {
		for (unsigned s = 0; s < SAMPLES; s++) {
			struct guest *g = &guest[i];
			uint64_t gpa, hpa = 0, at = sample(g, s), is_hpa;
			uint32_t outer, is;

			composed(g, at, &gpa, &hpa, &outer);
			is = shadow_at(g, at, &is_hpa);
			if (gpa >= start && gpa < end)
				CHECK(!(is & (protect ? S2_W : 7)), "still there");
			else if (g->had[s] &&
				 ((gpa | (widest - 1)) < start || (gpa & ~(widest - 1)) >= end)) {
				CHECK(is == g->had[s], "sample %u lost %u to another page's change",
				      s, g->had[s] & ~is);
				total[7]++;
			}
		}
	}
}

static void harvest(uint64_t *seed)
{
	static uint64_t bitmap[(UINT64_C(8) << 30) / 4096 / 64];
	uint64_t start = DATA + test_random(seed) % 8 * (data_size / 8 & ~UINT64_C(0x3ffff)),
		 pages = data_size / 8 / 4096;

	CHECK(s2_dirty_harvest(t, start, pages, bitmap) >= 0, "harvest");
	for (int i = 0; tracking && i < GUESTS; i++) {
		for (unsigned s = 0; s < SAMPLES; s++) {
			uint64_t gpa, hpa = 0, is_hpa, at = sample(&guest[i], s);
			uint32_t outer, is = shadow_at(&guest[i], at, &is_hpa);

			composed(&guest[i], at, &gpa, &hpa, &outer);
			CHECK(!is || gpa < start || gpa - start >= pages * 4096 || !(is & S2_W),
			      "a harvested page may be written by a nested guest");
		}
	}
}

static void track(uint64_t *seed)
{
	struct s2_dirty_options o = {.flags = (test_random(seed) % 2 ? S2_DIRTY_EAGER : 0) |
					      (test_random(seed) % 2 ? S2_DIRTY_COLLAPSE : 0)};
	const char *why = "";

	if (n.host->c.use_ad && n.host->decoder != &arm_decoder && test_random(seed) % 2)
		o.flags |= S2_DIRTY_DBIT;
	if (tracking)
		dbit = false; /* before the bits are dropped: what a test may demand shrinks */
	CHECK(!(tracking ? s2_dirty_stop(t) : s2_dirty_start_with(t, &o, &why)), "track: %s", why);
	tracking = !tracking;
	dbit = tracking && o.flags & S2_DIRTY_DBIT;
}

/* What is in the instance's leaves stays, and so does what shadows hold of it, or goes. */
static void host_sizes(uint64_t *seed)
{
	uint64_t start, end;

	random_range(seed, DATA, s2_level_size(n.own, 2), data_size, &start, &end);
	if (test_random(seed) % 2)
		CHECK(!s2_split(t, start, end, 1), "split");
	else
		CHECK(s2_collapse(t, start, end) >= 0, "collapse");
}

static void get(struct guest *g)
{
	const char *why = "";
	int err = s2_context_get(&g->ctx, t, n.shadows, &g->root, &why);

	CHECK(!err, "%s in %s: %d %s", n.guest->name, n.host->name, err, why);
	if (err)
		exit(1);
	nest_context(&n, g->ctx, &g->shadow);
}

/* Others come and go: contexts are recycled, and come back empty. */
static void recycle(struct guest *g)
{
	struct s2_guest_root other = g->root;
	struct s2_context *ctx, *was = g->ctx, *same;

	CHECK(!s2_context_get(&same, t, n.shadows, &g->root, NULL) && same == was, "found again");
	s2_context_put(same);
	s2_context_put(g->ctx);
	for (int i = 0; i < 8; i++) {
		other.off = i % 2;
		other.vmid = 100u + (unsigned)i;
		if (n.guest->decoder == &arm_decoder)
			other.root = (g->root.root & UINT64_C(0xffffffffffff)) |
				     (uint64_t)other.vmid << 48;
		else if (n.guest->decoder == &riscv64_decoder)
			other.root = (g->root.root & ~(UINT64_C(0x3fff) << 44)) |
				     (uint64_t)other.vmid << 44;
		else if (n.guest->decoder == &riscv32_decoder)
			other.root = (g->root.root & 0x803fffff) | (uint64_t)other.vmid << 22;
		CHECK(!s2_context_get(&ctx, t, n.shadows, &other, NULL), "another");
		CHECK(ctx != guest[!(g - guest)].ctx, "one that is referenced was recycled");
		s2_context_put(ctx);
	}
	get(g);
	total[6]++;
}

static void step(uint64_t *seed)
{
	uint64_t what = test_random(seed) % 100;
	const char *name = "faults";

	remember();
	if (what < 55)
		for (int i = 0; i < 12; i++)
			fault(seed);
	else if (what < 64)
		name = "guest unmap", guest_change(seed, false);
	else if (what < 70)
		name = "guest protect", guest_change(seed, true);
	else if (what < 76)
		name = "guest slot", guest_region(&guest[test_random(seed) % GUESTS],
						  (int)(test_random(seed) % REGIONS), seed);
	else if (what < 82)
		name = "host unmap", host_change(seed, false);
	else if (what < 88)
		name = "host protect", host_change(seed, true);
	else if (what < 89)
		name = "host slot", host_data(seed);
	else if (what < 91)
		name = "split or collapse", host_sizes(seed);
	else if (what < 94)
		name = "harvest", harvest(seed);
	else if (what < 96)
		name = "track", track(seed);
	else if (what < 98)
		name = "drop", s2_context_drop(t, guest[test_random(seed) % GUESTS].ctx);
	else {
		name = "recycle";
		recycle(&guest[test_random(seed) % GUESTS]);
		remember();
	}
	verify(name);
}

static void run(const struct test_config *host, const struct test_config *nested, uint64_t seed,
		int steps)
{
	struct s2_tlb_client client = {.name = "host",
				       .opaque = &client,
				       .invalidate = host_invalidate,
				       .invalidate_tag = host_invalidate_tag};
	struct s2_shadow_config sc;
	struct s2_shadow_stats stats;
	const char *why = "";
	int err;

	nest_init(&n, host, nested);
	memset(guest, 0, sizeof(guest));
	memset(&data, 0, sizeof(data));
	tracking = dbit = false;
	random_state = &seed;
	CHECK(!s2_thread_init(&t, n.own, "host"), "thread");
	s2_tlb_client_add(t, &client);
	nest_slots(&n, t, s2_level_size(n.own, 1), s2_level_size(n.own, 1));
	CHECK(!s2_slot_remove(t, DATA), "remove");
	sc = nest_shadow_config(&n);
	err = s2_shadows_create(&n.shadows, t, &sc, &why);
	CHECK(!err, "%s in %s: %d %s", nested->name, host->name, err, why);
	if (err)
		exit(1);
	for (int i = 0; i < GUESTS; i++) {
		struct guest *g = &guest[i];

		g->vmid = 3u + (unsigned)i;
		nest_guest(&n, &g->s2, g->vmid, &g->root, &g->mem);
		page = s2_level_size(g->s2, 1);
		large = s2_level_size(g->s2, 2);
		data_size = 8 * large;
		base[i] = (test_config_boundary(&g->mem) & ~(large - 1)) - 2 * large;
		CHECK(!s2_thread_init(&g->t, g->s2, "guest"), "thread");
		g->client = (struct s2_tlb_client){
			.opaque = g, .invalidate = guest_invalidate, .wait = guest_wait};
		s2_tlb_client_add(g->t, &g->client);
		for (int r = 0; r < REGIONS; r++)
			guest_region(g, r, &seed);
		get(g);
	}
	host_data(&seed);
	for (int i = 0; i < steps; i++)
		step(&seed);
	s2_shadow_get_stats(n.shadows, &stats);
	total[4] += stats.followed + stats.lost_write;
	for (int i = 0; i < GUESTS; i++) {
		s2_context_put(guest[i].ctx);
		guest[i].ctx = NULL;
	}
	s2_shadows_destroy(t, n.shadows);
	for (int i = 0; i < GUESTS; i++) {
		s2_tlb_client_remove(guest[i].t, &guest[i].client);
		s2_thread_exit(guest[i].t);
		s2_destroy(guest[i].s2);
	}
	s2_tlb_client_remove(t, &client);
	s2_thread_exit(t);
	nest_end(&n);
}

/* All pairs of formats that can be nested, or each TEST_STEP-th of them. */
static void all_pairs(uint64_t seed, int steps, unsigned round)
{
	unsigned pairs = round;

	for (int h = 0; h < TEST_CONFIGS; h++) {
		for (int g = 0; g < TEST_CONFIGS; g++) {
			uint64_t own = seed + (uint64_t)(h * TEST_CONFIGS + g);
			unsigned long failures = atomic_load(&test_failures);
			int shortest = steps;

			if (!nest_possible(&test_configs[h], &test_configs[g]) ||
			    pairs++ % TEST_STEP)
				continue;
			run(&test_configs[h], &test_configs[g], own, steps);
			while (atomic_load(&test_failures) != failures && shortest > 1) {
				failures = atomic_load(&test_failures);
				run(&test_configs[h], &test_configs[g], own, shortest / 2);
				if (atomic_load(&test_failures) != failures)
					shortest /= 2;
				else
					printf("%s in %s, seed %" PRIu64 ": fails in %d steps\n",
					       test_configs[g].name, test_configs[h].name, own,
					       shortest);
			}
		}
	}
}

static bool all_seen(void)
{
	for (unsigned i = 0; i < sizeof(total) / sizeof(*total); i++)
		if (!total[i])
			return false;
	return true;
}

/* shadow SEED STEPS */
int main(int argc, char **argv)
{
	int steps = argc > 2 ? atoi(argv[2]) : test_scale(60);
	uint64_t seed = test_seed(argc, argv);
	unsigned rounds = 0;

	/* Retries come only where arm64 splits: of few steps there may be none. */
	do
		all_pairs(seed + rounds * 1000, steps * (int)(rounds + 1), rounds);
	while (++rounds < 30 && !all_seen());
	printf("%u rounds: %" PRIu64 " nested faults fixed, %" PRIu64 " forwarded, %" PRIu64
	       " to devices, %" PRIu64 " retries, %" PRIu64 " leaves followed the host, %" PRIu64
	       " invalidations by address, %" PRIu64 " recycled, %" PRIu64
	       " kept beside a change\n",
	       rounds, total[0], total[1], total[2], total[3], total[4], total[5], total[6],
	       total[7]);
	CHECK(steps < 5 || all_seen(), "something never came");
	return test_result("shadow");
}
