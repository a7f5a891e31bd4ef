/*
 * Description: shadow contexts, one thing at a time: what each invalidation takes and leaves; what
 * a change of the host takes and leaves; bounds, eviction, recycling; every allocation failed once;
 * what is refused; what instructions mean (TLBI, HFENCE.GVMA, INVEPT, TLB_CONTROL).
 */
#include <errno.h>

#include "mmu/guest/invalidate.h"
#include "mmu/shadow_internal.h"
#include "tests/unit/test_mmu_shadow_entries.h"

/* What each invalidation takes, and what it leaves. */
static void invalidations(void)
{
	struct s2_context *other;
	struct s2_guest_root second;
	struct s2_inv inv = {.kind = S2_INV_IPA, .vmid = 0};

	begin("ept4", "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	/* the host has small pages in one block of the guest's, so that it is in pieces */
	CHECK(!s2_dirty_start(t), "start");
#define FILL()                                                                                     \
	do {                                                                                       \
		for (uint64_t i = 0; i < 8; i++) {                                                 \
			fault(i *K4, W);                                                           \
			fault(M2 + i * K4, W);                                                     \
			fault(GiB + i * M2, R);                                                    \
		}                                                                                  \
	} while (0)
	FILL();
	CHECK(stats().leaves == 24, "%" PRIu64, stats().leaves);
	inv.start = 3 * K4;
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 23 && !THERE(3 * K4), "a small page");
	/* a page of the block that is not in the shadow: all pieces of the block go */
	inv.start = M2 + 100 * K4;
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 15 && !THERE(M2) && THERE(2 * K4) && THERE(GiB), "a block");
	inv.start = GiB + 400 * M2;
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 7 && !THERE(GiB) && THERE(2 * K4), "a large block");
	FILL();
	inv.start = 3 * K4;
	inv.shift = 21; /* a hint */
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 16 && !THERE(0) && THERE(M2) && THERE(GiB), "a hint");
	FILL();
	inv = (struct s2_inv){.kind = S2_INV_RANGE, .start = 6 * K4, .end = M2 + K4};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(THERE(5 * K4) && !THERE(6 * K4) && !THERE(M2) && !THERE(M2 + 7 * K4) && THERE(GiB),
	      "a range, and the whole of the guest's leaves at its ends");
	FILL();
	second = root;
	second.vmid = 9;
	CHECK(!s2_context_get(&other, t, n.shadows, &second, NULL) && other != ctx, "second");
	CHECK(s2_context_fault(t, other, 0, R, &x, &why) == S2_FIXED, "second");
	inv = (struct s2_inv){.kind = S2_INV_STAGE1};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 25, "stage 1 only: no shadow is touched");
	inv = (struct s2_inv){.kind = S2_INV_VMID, .vmid = 9};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 24 && THERE(0), "the other VMID");
	CHECK(s2_context_fault(t, other, 0, R, &x, &why) == S2_FIXED, "second");
	inv = (struct s2_inv){.kind = S2_INV_ROOT, .root = 0x100000 | 0x5e};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(!stats().leaves && !stats().tables, "the root, of whatever VMID");
	FILL();
	inv = (struct s2_inv){.kind = S2_INV_ALL};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(!stats().leaves && !stats().tables, "all");
	s2_context_put(other);
	end();
}

static void look(void *opaque, const struct s2_counter *c)
{
	struct s2_shadow_stats *s = opaque;

	if (!strcmp(c->name, "shadow.leaves"))
		s->leaves = c->value;
	if (!strcmp(c->name, "shadow-changes.followed"))
		s->followed = c->value;
	if (!strcmp(c->name, "shadow-faults.fixed"))
		s->faults[S2_FIXED] = c->value;
}

/* Linux drops every shadow when a page of the host goes. */
static void follows(void)
{
	struct s2_shadow_stats before, after;

	begin("ept4", "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	for (uint64_t i = 0; i < 512; i++)
		fault(i * K4, W);
	for (uint64_t i = 0; i < 16; i++)
		fault(GiB + i * M2, W); /* of them the ninth is the block above once more */
	before = stats();
	CHECK(before.leaves == 528, "%" PRIu64, before.leaves);
	CHECK(!s2_unmap(t, GiB + 3 * M2, GiB + 4 * M2), "unmap");
	after = stats();
	CHECK(after.leaves == 527 && after.followed == 1 && !THERE(GiB + 3 * M2), "one leaf");
	s2_stats_each(n.own, look, &before);
	CHECK(before.leaves == 527 && before.followed == 1 &&
		      before.faults[S2_FIXED] == after.faults[S2_FIXED],
	      "among the instance's counters");
	CHECK(!s2_write_protect(t, GiB + 4 * M2, GiB + 5 * M2), "protect");
	after = stats();
	CHECK(after.leaves == 527 && after.lost_write == 1 && THERE(GiB + 4 * M2) &&
		      x.perm == (R | X),
	      "one leaf");
	/* the block that two parts of the guest's stage use: the host's leaf goes as a whole */
	CHECK(!s2_unmap(t, GiB + 8 * M2 + 5 * K4, GiB + 8 * M2 + 6 * K4), "unmap");
	after = stats();
	CHECK(after.leaves == 527 - 513, "%" PRIu64, after.leaves);
	CHECK(!s2_unmap(t, 0, 0), "unmap");
	after = stats();
	CHECK(!after.leaves, "%" PRIu64, after.leaves);
	end();
}

/* Whatever ages a page of the host, with A bits or without, sees a nested use of it. */
static void ages(const char *host)
{
	begin(host, "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	CHECK(fault(GiB + 3 * M2, W) == S2_FIXED, "nested");
	CHECK(fault(GiB + 4 * M2, W) == S2_FIXED, "nested");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, S2_AGE_TEST, NULL) == 512 &&
		      THERE(GiB + 3 * M2),
	      "only a look");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, 0, NULL) == 512, "aged");
	CHECK(!THERE(GiB + 3 * M2) && THERE(GiB + 4 * M2), "its shadow goes, no other");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, S2_AGE_TEST, NULL) == 0, "not used");
	CHECK(fault(GiB + 3 * M2, R) == S2_FIXED, "nested");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, S2_AGE_TEST, NULL) == 512, "used again");
	end();
}

/* One page that the guest has mapped 4000 times: all its leaves are in one chain. The lock is left
 * in between: whoever flushes by tag is told once for each piece. */
static unsigned pieces;

static void told(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)start;
	(void)end;
	s2_tlb_ack(opaque, generation);
}

static void told_tag(void *opaque, uint32_t tag, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)tag;
	pieces++;
	told(opaque, start, end, generation);
}

static void one_page(void)
{
	struct s2_tlb_client client = {
		.name = "tlb", .opaque = &client, .invalidate = told, .invalidate_tag = told_tag};

	begin("ept4", "ept4");
	s2_tlb_client_add(t, &client);
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	for (uint64_t i = 0; i < 8; i++)
		put(0x102000, i, 0x103000 | 7);
	for (uint64_t i = 0; i < 512; i++)
		put(0x103000, i, (GiB + 8 * M2) | 0x37);
	CHECK(!s2_dirty_start(t), "small pages");
	for (uint64_t i = 0; i < 4000; i++)
		fault(i * K4, W);
	CHECK(stats().leaves == 4000, "%" PRIu64, stats().leaves);
	/* the oldest is too far back to be sought: it is made anew */
	CHECK(!s2_write_protect(t, GiB + 8 * M2, GiB + 8 * M2 + K4), "protect");
	CHECK(stats().leaves == 4000 && stats().lost_write == 4000 && fault(0, W) == S2_FIXED,
	      "written again");
	pieces = 0;
	CHECK(!s2_unmap(t, GiB + 8 * M2, GiB + 8 * M2 + K4), "unmap");
	CHECK(!stats().leaves, "%" PRIu64, stats().leaves);
	CHECK(pieces >= 4000 / SHADOW_BUDGET + 1, "%u pieces", pieces);
	s2_tlb_client_remove(t, &client);
	end();
}

static void bounds(void)
{
	struct s2_shadow_config sc;
	struct s2_context *held[4], *one_more;

	create("ept4", "ept4", &sc);
	sc.leaves = 100;
	sc.tables = 12;
	CHECK(!s2_shadows_create(&n.shadows, t, &sc, NULL), "create");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	for (uint64_t i = 0; i < 512; i++) {
		CHECK(fault(i * K4, W) == S2_FIXED, "leaf %" PRIu64, i);
		CHECK(stats().leaves <= 100 && stats().tables <= 12, "bounds");
	}
	CHECK(stats().evictions >= 4, "%" PRIu64, stats().evictions);
	put(0x101000, 2, 0x102000 | 7);
	put(0x101000, 3, 0x102000 | 7);
	for (uint64_t i = 4; i < 64; i++) {
		put(0x100000, i, 0x101000 | 7);
		CHECK(fault(i << 39, W) == S2_FIXED, "table %" PRIu64, i);
		CHECK(stats().tables <= 12, "bounds");
	}
	/* all contexts referenced */
	for (unsigned i = 0; i < 4; i++) {
		root.vmid = 10 + i;
		if (i < 3)
			CHECK(!s2_context_get(&held[i], t, n.shadows, &root, NULL), "get");
		else
			CHECK(s2_context_get(&one_more, t, n.shadows, &root, NULL) == -EBUSY,
			      "busy");
	}
	s2_context_put(held[1]);
	CHECK(!s2_context_get(&one_more, t, n.shadows, &root, NULL) && one_more == held[1],
	      "recycled");
	CHECK(stats().recycled == 1 && stats().contexts == 4, "%" PRIu64, stats().recycled);
	s2_context_put(held[0]);
	s2_context_put(held[2]);
	s2_context_put(one_more);
	end();
}

/* What others hold goes when a bound is reached: tables that have no leaf any more, and what
 * belongs to contexts that somebody runs in. */
static void bounds_between_contexts(void)
{
	struct s2_shadow_config sc;
	struct s2_context *other;

	create("ept4", "ept4", &sc);
	sc.contexts = 2;
	sc.leaves = 8;
	sc.tables = 3;
	CHECK(s2_shadows_create(&n.shadows, t, &sc, NULL) == -EINVAL, "room for no leaf");
	sc.tables = 12;
	CHECK(!s2_shadows_create(&n.shadows, t, &sc, NULL), "create");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	for (uint64_t i = 1; i < 4; i++) {
		put(0x100000, i, 0x101000 | 7);
		CHECK(fault(i << 39, W) == S2_FIXED, "table %" PRIu64, i);
	}
	CHECK(fault(0, W) == S2_FIXED && stats().tables == 12, "%" PRIu64, stats().tables);
	CHECK(!s2_unmap(t, 0, 0) && !stats().leaves && stats().tables == 12, "leaves only");
	s2_context_put(ctx);
	enter(0x100000 | 0x1e, 0, 1);
	CHECK(fault(0, W) == S2_FIXED, "tables without leaves");
	CHECK(stats().evictions == 1 && stats().tables == 3, "%" PRIu64, stats().tables);
	/* this one holds all leaves, and is referenced */
	for (uint64_t i = 0; i < 8; i++)
		CHECK(fault(i * K4, W) == S2_FIXED || i == 0, "leaf %" PRIu64, i);
	CHECK(stats().leaves == 8, "%" PRIu64, stats().leaves);
	other = ctx;
	enter(0x100000 | 0x1e, 0, 2);
	CHECK(fault(0, W) == S2_FIXED && fault(K4, W) == S2_FIXED, "leaves of another");
	CHECK(stats().leaves == 2 && THERE(0) && THERE(K4), "%" PRIu64, stats().leaves);
	s2_context_put(other);
	end();
}

/* Every allocation fails once: the call says so or does without; nothing is lost. */
static bool nomem_once(long after)
{
	struct s2_shadow_config sc;
	unsigned failed = 0;
	bool done;
	int err;

	create("ept4", "ept4", &sc);
	sc.contexts = 2;
	ept_tables();
	root = (struct s2_guest_root){.root = 0x100000 | 0x1e};
	atomic_store(&n.te.fail_after, after);
#define AGAIN(call, nomem)                                                                         \
	do {                                                                                       \
		err = (int)(call);                                                                 \
		if (err == (nomem)) {                                                              \
			failed++;                                                                  \
			atomic_store(&n.te.fail_after, -1);                                        \
			err = (int)(call);                                                         \
		}                                                                                  \
		CHECK(!err, "%s: %d", #call, err);                                                 \
	} while (0)
	AGAIN(s2_shadows_create(&n.shadows, t, &sc, NULL), -ENOMEM);
	for (unsigned i = 0; i < 3; i++) {
		root.vmid = i;
		AGAIN(s2_context_get(&ctx, t, n.shadows, &root, NULL), -ENOMEM);
		for (uint64_t j = 0; j < 3; j++) {
			AGAIN(fault(j * M2, R), S2_NOMEM);
			AGAIN(fault(GiB + j * M2, R), S2_NOMEM);
		}
		if (i < 2)
			s2_context_put(ctx);
	}
	AGAIN(s2_unmap(t, GiB, GiB + M2), -ENOMEM);
	s2_context_drop(t, ctx);
	AGAIN(fault(0, R), S2_NOMEM);
	done = atomic_load(&n.te.fail_after) > 0;
	CHECK(done || failed || after, "%ld", after);
	end();
	return done;
}

static void refused(void)
{
	const struct {
		const char *host;
		struct s2_shadow_config c;
	} wrong[] = {
		{"ept4", {.guest = S2_NPT4}},
		{"ept4", {.guest = S2_EPT4, .options = S2_OPT_EXEC_ONLY}},
		{"ept4", {.guest = S2_EPT4, .options = S2_OPT_VMID16}},
		{"sv32x4", {.guest = S2_SV32X4, .options = S2_OPT_NAPOT}},
		{"ept4", {.guest = S2_EPT4, .gpa_bits = 49}},
		{"npt4", {.guest = S2_NPT5}},
		{"sv39x4", {.guest = S2_SV32X4}},
		{"sv39x4", {.guest = S2_SV39X4, .use_ad = true}},
		{"arm64 4K, 40 bits", {.guest = S2_SV39X4}},
	};
	struct s2_shadow_config sc;
	struct s2_shadows *other;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		const char *rule = NULL;

		create(wrong[i].host, wrong[i].host, &sc);
		sc = wrong[i].c;
		sc.memory = (struct s2_guest_memory){.opaque = &n, .load = nest_load};
		CHECK(s2_shadows_create(&other, t, &sc, &rule) == -EINVAL && rule, "%zu", i);
		s2_thread_exit(t);
		nest_end(&n);
	}
	begin("ept4", "ept4");
	sc = nest_shadow_config(&n);
	CHECK(s2_shadows_create(&other, t, &sc, NULL) == -EALREADY, "one set");
	root = (struct s2_guest_root){.root = 0x100000 | 0x1c};
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "memory type 4");
	root.root = 0x100000 | 0x26;
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "five levels");
	root.root = UINT64_C(1) << 48 | 0x1e;
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "beyond");
	ctx = NULL;
	end();
	/* a granule smaller than the host's */
	begin("arm64 16K, 40 bits", "arm64 4K, 40 bits");
	root = (struct s2_guest_root){.root = 0x100000, .control = 24 | 1 << 6 | 2 << 16};
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "granule");
	ctx = NULL;
	end();
}

/* The guest's registers ask for what the guest was told of, and for nothing more; what the shadow's
 * registers say then. */
static void levels(void)
{
	const struct {
		const char *host, *guest;
		uint64_t root, control;
		int result;
		unsigned shift; /* the shadow's root register from there: must be mode */
		uint64_t mode;
	} c[] = {
		{"ept4", "ept4", 0x100000 | 0x26, 0, -EINVAL, 0, 0},
		{"ept4", "ept5", 0x100000 | 0x26, 0, 0, 3, 8 | 4}, /* A and D on */
		{"ept4", "ept5", 0x100000 | 0x1e, 0, 0, 3, 8 | 3},
		{"ept5", "ept4", 0x100000 | 0x26, 0, -EINVAL, 0, 0},
		{"sv39x4", "sv39x4", UINT64_C(8) << 60 | 0x100, 0, 0, 60, 8},
		{"sv39x4", "sv39x4", UINT64_C(9) << 60 | 0x100, 0, -EINVAL, 0, 0},
		{"sv39x4", "sv39x4", UINT64_C(10) << 60 | 0x100, 0, -EINVAL, 0, 0},
		{"sv48x4", "sv48x4", UINT64_C(8) << 60 | 0x100, 0, 0, 60, 8},
		{"sv48x4", "sv48x4", UINT64_C(10) << 60 | 0x100, 0, -EINVAL, 0, 0},
		{"sv39x4", "sv57x4", UINT64_C(10) << 60 | 0x100, 0, 0, 60, 10},
		{"sv57x4", "sv57x4", UINT64_C(11) << 60 | 0x100, 0, -EINVAL, 0, 0},
		/* 4K, 40 bits: LPA2, and a PS of 52 bits, which means no more than the guest's */
		{"arm64 4K, 40 bits", "arm64 4K, 40 bits", 0x100000,
		 24 | 1 << 6 | 2 << 16 | UINT64_C(1) << 32, -EINVAL, 0, 0},
		{"arm64 4K, 40 bits", "arm64 4K, 40 bits", 0x100000, 24 | 1 << 6 | 6 << 16, 0, 0,
		 0},
		/* 64K, 40 bits */
		{"arm64 64K, 48 bits", "arm64 64K, 48 bits", 0x100000 | 0x3c,
		 24 | 1 << 6 | 1 << 14 | 6 << 16, -EINVAL, 0, 0},
		{"arm64 4K, LPA2", "arm64 4K, LPA2", 0x100000,
		 24 | 1 << 6 | 6 << 16 | UINT64_C(1) << 32, 0, 0, 0},
	};

	for (size_t i = 0; i < sizeof(c) / sizeof(*c); i++) {
		const struct s2_guest_root regs = {.root = c[i].root, .control = c[i].control};
		struct s2_shadow_config sc;
		struct s2_registers shadow = {0};
		const char *rule = NULL;
		int err;

		create(c[i].host, c[i].guest, &sc);
		sc.options = 0;
		CHECK(!s2_shadows_create(&n.shadows, t, &sc, NULL), "%zu", i);
		err = s2_context_get(&ctx, t, n.shadows, &regs, &rule);
		CHECK(err == c[i].result && !rule == !err, "%zu: %d %s", i, err, rule ? rule : "");
		if (err)
			ctx = NULL;
		else
			CHECK(!s2_context_registers(ctx, &shadow) &&
				      (!c[i].mode || (shadow.root >> c[i].shift & 15) == c[i].mode),
			      "%zu: %" PRIx64, i, shadow.root);
		end();
	}
}

static void instructions(void)
{
	struct s2_inv i;
	const uint64_t one = 16, ones = UINT64_MAX;
	/* VMID 7, and more where it has 16 bits; LPA2 */
	const struct s2_guest_root now = {.root = UINT64_C(0x207) << 48};
	const struct s2_guest_root wide = {.root = now.root,
					   .control = 1 << 19 | UINT64_C(1) << 32};

	for (unsigned crn = 8; crn <= 9; crn++) { /* and nXS */
		/* IPAS2E1IS, IPAS2LE1OS, local; 4K, level 2 */
		CHECK(s2_inv_tlbi(&i, 4, crn, 0, 1, 0x12345 | UINT64_C(6) << 44, &now) &&
			      i.kind == S2_INV_IPA && i.vmid == 7 && i.start == 0x12345000 &&
			      i.shift == 21,
		      "%u", i.shift);
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 4, 0x12345, &now) && i.kind == S2_INV_IPA &&
			      !i.shift,
		      "IPAS2LE1OS");
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 0, UINT64_C(0x8000012345) | UINT64_C(12) << 44,
				  &now) &&
			      i.start == UINT64_C(0x8000012345000) && !i.shift,
		      "IPA[51:48]: %" PRIx64, i.start);
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 1, UINT64_C(10) << 44, &now) && i.shift == 25,
		      "16K, level 2: %u", i.shift);
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 5, UINT64_C(9) << 44, &now) && !i.shift,
		      "level 1");
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 5, UINT64_C(15) << 44, &now) && i.shift == 16,
		      "64K");
		/* RIPAS2E1IS: 4K, scale 1, num 2: 3 << 6 pages */
		CHECK(s2_inv_tlbi(&i, 4, crn, 0, 2,
				  UINT64_C(1) << 46 | UINT64_C(1) << 44 | UINT64_C(2) << 39 | 5,
				  &now) &&
			      i.kind == S2_INV_RANGE && i.start == 5 * K4 &&
			      i.end == (5 + 192) * K4,
		      "%" PRIx64, i.end);
		/* the same with LPA2: the base is in units of 64 KiB, the pages are of 4 KiB */
		CHECK(s2_inv_tlbi(&i, 4, crn, 0, 2,
				  UINT64_C(1) << 46 | UINT64_C(1) << 44 | UINT64_C(2) << 39 | 5,
				  &wide) &&
			      i.kind == S2_INV_RANGE && i.vmid == 0x207 && i.start == 5 * 0x10000 &&
			      i.end == 5 * 0x10000 + 192 * K4,
		      "%" PRIx64 "..%" PRIx64, i.start, i.end);
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 2, 0, &now) && i.end == 2 * 0x10000, "granule 0");
		CHECK(s2_inv_tlbi(&i, 4, crn, 3, 4, 0, &now) && i.kind == S2_INV_ALL, "ALLE1IS");
		CHECK(s2_inv_tlbi(&i, 4, crn, 7, 6, 0, &now) && i.kind == S2_INV_VMID,
		      "VMALLS12E1");
		CHECK(s2_inv_tlbi(&i, 0, crn, 3, 0, 0, &now) && i.kind == S2_INV_STAGE1,
		      "VMALLE1IS");
		CHECK(s2_inv_tlbi(&i, 0, crn, 6, 1, 0, &now) && i.kind == S2_INV_STAGE1, "RVAE1");
		CHECK(!s2_inv_tlbi(&i, 4, crn, 3, 0, 0, &now), "ALLE2IS is not ours");
	}
	CHECK(!s2_inv_tlbi(&i, 4, 7, 3, 4, 0, &now), "no TLBI");
	s2_inv_hfence_gvma(&i, NULL, NULL, false);
	CHECK(i.kind == S2_INV_ALL, "all");
	s2_inv_hfence_gvma(&i, &one, NULL, false);
	CHECK(i.kind == S2_INV_ALL, "an address of all VMIDs");
	s2_inv_hfence_gvma(&i, NULL, &one, false);
	CHECK(i.kind == S2_INV_VMID && i.vmid == 16, "VMID");
	s2_inv_hfence_gvma(&i, &one, &one, false);
	CHECK(i.kind == S2_INV_IPA && i.start == 64, "address");
	s2_inv_hfence_gvma(&i, NULL, &ones, false);
	CHECK(i.vmid == 0x3fff, "14 bits of VMID");
	s2_inv_hfence_gvma(&i, NULL, &ones, true);
	CHECK(i.vmid == 0x7f, "7 bits of VMID");
	CHECK(s2_inv_invept(&i, 1, 0x1e) && i.kind == S2_INV_ROOT && i.root == 0x1e, "single");
	CHECK(s2_inv_invept(&i, 2, 0) && i.kind == S2_INV_ALL && !s2_inv_invept(&i, 3, 0), "all");
	CHECK(s2_inv_tlb_control(&i, 3, 4) && i.kind == S2_INV_VMID && i.vmid == 4, "ASID");
	CHECK(s2_inv_tlb_control(&i, 1, 4) && i.kind == S2_INV_ALL, "all");
	CHECK(!s2_inv_tlb_control(&i, 0, 4), "nothing");
}

/* A guest of 64K pages with 52 bits of addresses: what lies at 2^51 goes by its own address. */
static void high_address(void)
{
	const uint64_t at = UINT64_C(1) << 51;
	/* 52 bits from level 1, PS 52 bits */
	const uint64_t vtcr = 12 | 2 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 14 | 6 << 16;
	const struct s2_guest_root other = {.root = UINT64_C(6) << 48};
	struct s2_inv inv;

	begin("arm64 64K, LPA", "arm64 64K, LPA");
	memset(n.ram + 0x100000, 0, 0x40000);
	put(0x100000, at >> 42, 0x110000 | 3);
	put(0x110000, 0, 0x120000 | 3);
	put(0x120000, 0, GiB | 0x7ff);
	enter(0x100000 | UINT64_C(7) << 48, vtcr, 0);
	CHECK(fault(at, R) == S2_FIXED && THERE(at), "there");
	/* IPAS2E1IS: of another VMID, of an address that differs in the highest bit, of this one */
	CHECK(s2_inv_tlbi(&inv, 4, 8, 0, 1, at >> 12, &other), "IPAS2E1IS");
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(s2_inv_tlbi(&inv, 4, 8, 0, 1, 0, &root), "IPAS2E1IS");
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(THERE(at), "none of these");
	CHECK(s2_inv_tlbi(&inv, 4, 8, 0, 1, at >> 12, &root), "IPAS2E1IS");
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(!THERE(at), "this one");
	end();
}

int main(void)
{
	invalidations();
	high_address();
	follows();
	ages("ept4");
	ages("ept4, 40 bits");
	one_page();
	bounds();
	bounds_between_contexts();
	for (long after = 0; !nomem_once(after);)
		after += test_scale(30) == 30 ? 1 : 3;
	refused();
	levels();
	instructions();
	return test_result("shadow ops");
}
