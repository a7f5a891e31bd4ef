/*
 * Description: ageing, one thing at a time, in all formats: what an aged leaf looks like to a
 * decoder and to a software TLB, what it gets back and what it does not, how many flushes it takes,
 * that getting it back needs no lock; large leaves, ranges, bitmaps, dirty tracking, splits,
 * collapse, the NX policy. Ageing under nested guests: test_mmu_shadow_ops.c.
 */
#include <errno.h>

#include "mmu/inspect.h"
#include "mmu/internal.h"
#include "tests/unit/test_mmu_configs.h"

static const struct test_config *tc;
static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static struct s2_thread *t;
static struct s2_tlb_client client;
static uint64_t page, large, base;
static unsigned flushes;
static bool hides; /* ageing takes permissions */

static void invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)start, (void)end;
	flushes++;
	s2_tlb_ack(opaque, generation);
}

static void begin(unsigned options, bool large_pages, unsigned flags)
{
	struct test_config config = *tc;
	struct s2_slot slot;

	config.c.options |= options;
	if (!test_config_create(&config, &te, &s2, &mem) || s2_thread_init(&t, s2, "test"))
		exit(1);
	page = s2_level_size(s2, 1);
	large = s2_level_size(s2, 2);
	base = 4 * large;
	slot = (struct s2_slot){.gpa = base,
				.size = 2 * large,
				.hpa = test_config_hpa(tc) + 8 * large,
				.page_size = large_pages ? large : page,
				.flags = flags};
	CHECK(!s2_slot_add(t, &slot), "%s: add", tc->name);
	client =
		(struct s2_tlb_client){.name = "test", .opaque = &client, .invalidate = invalidate};
	s2_tlb_client_add(t, &client);
	flushes = 0;
	hides = tc->decoder == &ept_decoder && !tc->c.use_ad;
}

static void end(void)
{
	s2_tlb_client_remove(t, &client);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(!test_env_leaked(&te), "%s: leaked", tc->name);
}

static bool grants(uint64_t gpa, uint32_t access)
{
	struct s2_xlat x;

	return s2_translate(t, gpa, access, &x);
}

static uint32_t fault(uint64_t gpa, uint32_t access)
{
	struct s2_xlat x = {0};
	enum s2_result r = s2_fault(t, gpa, access, &x);

	CHECK(r == S2_FIXED, "%s: %" PRIx64 ", access %u: %s", tc->name, gpa, access,
	      s2_result_name(r));
	return x.perm;
}

static int64_t age(uint64_t pages, unsigned flags)
{
	return s2_age(t, base, base + pages * page, flags, NULL) / (int64_t)(page >> 12);
}

/* As hardware would see it. */
static bool idle(uint64_t gpa)
{
	struct dec_result r = dec_walk(&mem, gpa);

	CHECK(r.outcome != DEC_MISCONFIG, "%s: %s", tc->name, r.why);
	if (tc->c.use_ad || tc->decoder == &npt_decoder) /* it would set A */
		return r.outcome == DEC_TRANSLATED && !r.leaf.accessed;
	return r.outcome == DEC_FAULT && r.leaf.kind == DEC_IDLE;
}

static void small_leaves(void)
{
	struct s2_step step[S2_WALK_MAX];
	uint64_t bitmap[3];
	int n;

	begin(0, false, 0);
	fault(base, S2_R);
	fault(base + page, S2_W);
	fault(base + 3 * page, S2_X);
	CHECK(age(8, S2_AGE_TEST) == 3 && age(8, S2_AGE_TEST) == 3 && !flushes, "only a look");
	CHECK(grants(base, S2_R | S2_W | S2_X), "as it was");
	CHECK(age(2, 0) == 2 && flushes == hides, "%s: %u flushes", tc->name, flushes);
	CHECK(age(8, S2_AGE_TEST) == 1 && age(2, 0) == 0, "the third");
	flushes = 0;
	CHECK(idle(base) && idle(base + page) && !idle(base + 3 * page), "%s", tc->name);
	CHECK(!grants(base, 0) || !grants(base, S2_R), "a software TLB gets nothing");
	n = s2_inspect_walk(s2, base, step);
	CHECK(n > 0 && step[n - 1].entry.perm == 7 && !step[n - 1].entry.accessed,
	      "%s: for people: its permissions", tc->name);
	/* with the lock held for writing by somebody: nobody waits */
	brlock_write_lock(&s2->lock);
	CHECK(fault(base, S2_R) == 7 && fault(base + page, S2_X) == 7, "all it had");
	brlock_write_unlock(&s2->lock);
	CHECK(grants(base, S2_R | S2_W | S2_X) && !idle(base) && !idle(base + page), "again");
	CHECK(s2_fault(t, base, S2_W, NULL) == S2_SPURIOUS, "spurious");
	CHECK(!flushes, "giving back flushes nothing");
	CHECK(age(8, S2_AGE_FLUSH) == 3 && flushes == 1, "one flush");
	CHECK(age(8, S2_AGE_FLUSH) == 0 && flushes == 2, "who has aged may not have flushed");
	CHECK(s2_age(t, base + 6 * page, base + 8 * page, S2_AGE_FLUSH, NULL) == 0 && flushes == 2,
	      "nothing is there");

	/* what else may happen to an aged leaf */
	CHECK(!s2_write_protect(t, base, base + page), "protect");
	CHECK(fault(base, S2_R) == (S2_R | S2_X), "%s: W does not come back", tc->name);
	CHECK(fault(base, S2_W) == 7, "but by a write");
	CHECK(age(8, 0) == 1 && !s2_unmap(t, base, base + page), "unmap");
	CHECK(!dec_walk(&mem, base).entry && fault(base, S2_R) == 7, "mapped anew");
	fault(base + page, S2_R);
	CHECK(t->stats.restored == 4, "%s: each that was given back is counted", tc->name);

	memset(bitmap, 0xff, sizeof(bitmap));
	CHECK(s2_age(t, base, base + (64 << 12), 0, bitmap) >= 1, "bitmap");
	CHECK(bitmap[0] == (page == 4096    ? 3
			    : page == 16384 ? 0xff
					    : UINT32_MAX) &&
		      bitmap[1] == UINT64_MAX,
	      "%s: %" PRIx64, tc->name, bitmap[0]);
	CHECK(s2_age(t, base, base + page, 8, NULL) == -EINVAL, "flags");
	CHECK(s2_age(t, base + 1, base + page, 0, NULL) == -EINVAL, "misaligned");
	CHECK(s2_age(t, base, base, 0, NULL) == 0, "empty");
	CHECK(s2_age(t, 0, 0, S2_AGE_TEST, NULL) == 0, "everything");
	end();
}

static void large_leaves(void)
{
	begin(0, true, 0);
	fault(base + 5 * page, S2_W);
	CHECK(age(1, 0) == 1, "the part in the range");
	CHECK(idle(base + 7 * page) && age(2 * large / page, S2_AGE_TEST) == 0, "all of it");
	/* its pieces are as old as it was, and one is used */
	CHECK(!s2_split(t, base, base + large, 1), "split");
	CHECK(idle(base) && idle(base + large - page), "%s: pieces", tc->name);
	CHECK(fault(base + 2 * page, S2_W) == 7, "one of them");
	CHECK(s2_age(t, base, base + 2 * large, S2_AGE_TEST, NULL) == (int64_t)(page >> 12),
	      "only that");
	/* used in part is used */
	CHECK(s2_collapse(t, base, base + large) == 1, "%s: collapse", tc->name);
	CHECK(grants(base + 9 * page, S2_R | S2_W | S2_X), "%s: used", tc->name);
	CHECK(s2_age(t, base, base + 2 * large, 0, NULL) == (int64_t)(large >> 12), "all of it");
	/* unused in all is unused, with W where all have it */
	CHECK(!s2_split(t, base, base + large, 1), "split");
	CHECK(s2_collapse(t, base, base + large) == 1 && idle(base), "%s: idle", tc->name);
	CHECK(fault(base, S2_R) == 7, "%s: all it had", tc->name);
	end();
}

static void tracked(bool eager)
{
	uint64_t bits[2] = {0};

	begin(0, true, 0);
	fault(base, S2_W);
	CHECK(!s2_dirty_start_with(
		      t, &(struct s2_dirty_options){.flags = eager ? S2_DIRTY_EAGER : 0}, NULL),
	      "start");
	CHECK(age(4, 0) == 4, "%s: used before", tc->name);
	CHECK(fault(base, S2_R) == (S2_R | S2_X), "%s: no W", tc->name);
	CHECK(s2_dirty_harvest(t, base, 64, bits) == 0, "a read is no write");
	CHECK(fault(base + page, S2_W) == 7, "W, dirty, young");
	CHECK(age(4, 0) > 0, "aged");
	/* W was given, and its bit is set: it may come back as long as that is not taken */
	CHECK(fault(base + page, S2_W) == 7, "%s: W", tc->name);
	CHECK(age(4, 0) > 0, "aged");
	CHECK(s2_dirty_harvest(t, base, 64, bits) == (int64_t)(page >> 12), "%s: dirty", tc->name);
	CHECK(fault(base + page, S2_R) == (S2_R | S2_X), "%s: harvested", tc->name);
	CHECK(s2_dirty_harvest(t, base, 64, bits) == 0, "clean");
	CHECK(fault(base + page, S2_W) == 7 &&
		      s2_dirty_harvest(t, base, 64, bits) == (int64_t)(page >> 12),
	      "%s: dirty again", tc->name);
	/* a write to an old page without W: both at once */
	age(4, 0);
	CHECK(fault(base + page, S2_W) == 7 && s2_dirty_harvest(t, base, 64, bits) > 0, "both");
	CHECK(!s2_dirty_stop(t), "stop");
	end();
}

static void dirty_bits(void)
{
	uint64_t bits[2] = {0};

	if (!tc->c.use_ad || tc->decoder == &arm_decoder)
		return;
	begin(0, false, 0);
	CHECK(!s2_dirty_start_with(t, &(struct s2_dirty_options){.flags = S2_DIRTY_DBIT}, NULL),
	      "start");
	fault(base, S2_W);
	CHECK(age(1, 0) == 1, "aged");
	CHECK(dec_walk(&mem, base).leaf.dirty && !grants(base, S2_W), "D stays");
	CHECK(fault(base, S2_R) == 7, "W with D");
	CHECK(age(1, 0) == 1 && s2_dirty_harvest(t, base, 64, bits) == 1, "harvest of an old one");
	CHECK(fault(base, S2_R) == (S2_R | S2_X) && s2_dirty_harvest(t, base, 64, bits) == 0,
	      "read");
	CHECK(age(1, 0) == 1 && fault(base, S2_W) == 7, "written");
	CHECK(s2_dirty_harvest(t, base, 64, bits) == 1, "dirty");
	CHECK(!s2_dirty_stop(t), "stop");
	end();
}

static void policies(void)
{
	begin(0, false, S2_SLOT_READONLY);
	fault(base, S2_R);
	age(1, 0);
	CHECK(s2_fault(t, base, S2_W, NULL) == S2_EMULATE && idle(base), "read-only");
	CHECK(fault(base, S2_X) == (S2_R | S2_X), "%s: read-only", tc->name);
	end();
	begin(S2_OPT_NX_HUGE, true, 0);
	fault(base, S2_R);
	age(1, 0);
	CHECK(fault(base + page, S2_W) == (S2_R | S2_W), "%s: no X", tc->name);
	age(1, 0);
	CHECK(fault(base + page, S2_X) == 7 && idle(base) && !idle(base + page), "%s: executed",
	      tc->name);
	CHECK(fault(base, S2_R) == (S2_R | S2_W), "%s: its neighbours", tc->name);
	end();
}

/* Values from the manuals: what is cleared in which entry. */
static void vectors(void)
{
	static const struct {
		struct s2_config c;
		uint64_t young, old;
	} v[] = {
		/* 2 MiB at 0xa00000: EPT without A and D: RWX go to 63:61; with: bit 8 */
		{{.format = S2_EPT4}, 0xa000b7, 0xe000000000a000b0},
		{{.format = S2_EPT4, .use_ad = true}, 0xa001b7, 0xa000b7},
		{{.format = S2_NPT4}, 0xa000e7, 0xa000c7},     /* bit 5 */
		{{.format = S2_ARM64_4K}, 0xa007fd, 0xa003fd}, /* bit 10 */
		{{.format = S2_SV39X4}, 0x2800df, 0x28009f},   /* bit 6 */
	};

	for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) {
		struct s2_slot slot = {.size = 16 << 20, .page_size = 4 << 20};
		uint64_t gpa = 10 << 20;
		struct s2_step step[S2_WALK_MAX];
		int n;

		CHECK(!s2_create(&s2, &v[i].c, NULL) && !s2_thread_init(&t, s2, "test") &&
			      !s2_slot_add(t, &slot) && s2_fault(t, gpa, S2_R, NULL) == S2_FIXED,
		      "%zu", i);
		n = s2_inspect_walk(s2, gpa, step);
		CHECK(step[n - 1].entry.raw == v[i].young, "%zu: %" PRIx64, i,
		      step[n - 1].entry.raw);
		CHECK(s2_age(t, 0, 0, 0, NULL) == (int64_t)(step[n - 1].size >> 12), "%zu", i);
		n = s2_inspect_walk(s2, gpa, step);
		CHECK(step[n - 1].entry.raw == v[i].old, "%zu: %" PRIx64, i, step[n - 1].entry.raw);
		s2_thread_exit(t);
		s2_destroy(s2);
	}
}

int main(void)
{
	vectors();
	for (int i = 0; i<TEST_CONFIGS; i += TEST_STEP> 1 ? 2 : 1) {
		tc = &test_configs[i];
		small_leaves();
		large_leaves();
		tracked(false);
		tracked(true);
		dirty_bits();
		policies();
	}
	return test_result("age");
}
