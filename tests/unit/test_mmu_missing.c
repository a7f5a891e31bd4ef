/*
 * Description: missing pages, one thread, all configurations: every pair of states, a scenario with
 * leaves of all sizes, random operations against a flat array of states, and every allocation
 * failed once.
 */
#include <errno.h>

#include "mmu/missing.h"
#include "mmu/states.h"
#include "tests/unit/test_mmu_configs.h"

static const struct test_config *tc;
static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static struct s2_thread *t;
static uint64_t page;	      /* bytes */
static uint64_t asked, times; /* what was requested last, and how often */
static unsigned woken;

static void request(void *opaque, struct s2_thread *thread, uint64_t gpa)
{
	CHECK(opaque == &asked && thread == t, "request");
	asked = gpa;
	times++;
}

static const struct s2_missing_ops ops = {.opaque = &asked, .request = request};

static void wake(struct s2_page_waiter *waiter)
{
	(void)waiter;
	woken++;
}

struct filled {
	uint64_t gpa, hpa, count;
	int result;
};

static int fill(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes)
{
	struct filled *f = opaque;

	CHECK(bytes == page, "%" PRIu64, bytes);
	f->gpa = gpa;
	f->hpa = hpa;
	f->count++;
	return f->result;
}

/* ---- the table of changes ---- */

static void pairs(void)
{
	struct s2_env env;
	struct states s;

	test_env_init(&te, 0);
	env = te.env;
	CHECK(!states_alloc(&s, 100, &env), "alloc");
	/* any set of rules */
	for (unsigned set = 0; set < 1 << 16; set += 257) {
		struct states_rules rules;

		for (unsigned to = 0; to < STATES_COUNT; to++)
			rules.from[to] = set >> (4 * to) & 15;
		for (unsigned from = 0; from < STATES_COUNT; from++) {
			for (unsigned to = 0; to < STATES_COUNT; to++) {
				const struct states_rules any = {{15, 15, 15, 15}};
				bool legal = rules.from[to] >> from & 1;
				unsigned at = (set / 257 + from) % 100, was = 9;
				uint32_t bits = UINT32_C(1) << at % 32, got;

				states_change(&s, &any, at, from, NULL);
				CHECK(states_change(&s, &rules, at, to, &was) == legal, "%u -> %u",
				      from, to);
				CHECK(was == from && states_get(&s, at) == (legal ? to : from),
				      "%u -> %u: %u", from, to, states_get(&s, at));
				states_change(&s, &any, at, from, NULL);
				got = states_change_word(&s, &rules, at / 32 * 32, bits, to);
				CHECK(got == (legal ? bits : 0), "word: %u -> %u: %x", from, to,
				      got);
				CHECK(states_get(&s, at) == (legal ? to : from), "word");
				CHECK(!!(states_match(&s, at / 32 * 32, 1u << to) & bits) ==
					      (legal || from == to),
				      "match");
				states_change(&s, &any, at, 0, NULL);
			}
		}
	}
	for (uint64_t i = 0; i < 100; i++)
		CHECK(!states_get(&s, i), "a neighbour was changed");
	states_free(&s, &env);
	CHECK(!test_env_leaked(&te), "leak");
}

/* From each state, each operation: what the contract says of it. Page 0 of the slot. */
static void put_into(enum s2_page_state state, uint64_t gpa)
{
	struct filled f = {0};

	CHECK(s2_missing_mark(t, gpa, 1, NULL) == 1, "mark");
	if (state == S2_PAGE_REQUESTED)
		CHECK(s2_fault(t, gpa, S2_R, NULL) == S2_MISSING, "fault");
	if (state == S2_PAGE_RECEIVED)
		CHECK(s2_receive(t, gpa, 1, fill, &f) == 1, "receive");
	CHECK(s2_page_state(t, gpa) == state, "%d", s2_page_state(t, gpa));
}

static void each_operation(uint64_t base)
{
	struct s2_xlat x;

	for (int state = S2_PAGE_PRESENT; state <= S2_PAGE_RECEIVED; state++) {
		bool awaited = S2_PAGES_AWAITED >> state & 1;
		uint64_t gpa = base + (unsigned)state * 3 * page;
		struct filled f = {0};

		/* fault */
		if (state)
			put_into(state, gpa);
		times = 0;
		CHECK(s2_fault(t, gpa, S2_W, &x) == (awaited ? S2_MISSING : S2_FIXED), "%d", state);
		CHECK(times == (state == S2_PAGE_MISSING), "%d: %" PRIu64, state, times);
		CHECK(s2_translate(t, gpa, S2_R, &x) == !awaited, "%d", state);
		/* mark */
		if (state) {
			gpa += page;
			put_into(state, gpa);
			CHECK(s2_missing_mark(t, gpa, 1, NULL) == 0, "%d", state);
			CHECK((int)s2_page_state(t, gpa) == state, "%d", state);
		}
		/* receive; with a failure first */
		gpa = base + (unsigned)state * 3 * page + 2 * page;
		if (state)
			put_into(state, gpa);
		f.result = -EIO;
		CHECK(s2_receive(t, gpa, 1, fill, &f) == (awaited ? -EIO : 0), "%d", state);
		CHECK((int)s2_page_state(t, gpa) == state, "%d", state);
		f.result = 0;
		CHECK(s2_receive(t, gpa, 1, fill, &f) == awaited, "%d", state);
		CHECK(f.count == 2 * awaited && s2_receive(t, gpa, 1, fill, &f) == 0, "%d", state);
	}
}

/* ---- a scenario ---- */

static void scenario(uint64_t base, uint64_t hpa)
{
	const uint64_t big = s2_level_size(s2, 2), pages = big / page;
	const struct s2_slot slot = {
		.gpa = base, .size = 2 * big, .hpa = hpa, .page_size = UINT64_C(1) << 40};
	struct s2_slot more = {.gpa = base + 4 * big, .size = big, .page_size = page};
	struct s2_page_waiter a = {.wake = wake}, b = {.wake = wake};
	struct s2_missing_stats stats;
	struct filled f = {0};
	struct s2_xlat x;
	uint64_t *bitmap = calloc(pages / 16, 8);

	CHECK(!s2_slot_add(t, &slot), "slot");
	CHECK(s2_missing_stop(t) == -ENOENT && s2_missing_mark(t, base, 1, NULL) == -EINVAL,
	      "not started");
	CHECK(s2_receive(t, base, 1, fill, &f) == 0 && !f.count, "nothing is missing");
	CHECK(s2_fault(t, base, S2_W, &x) == S2_FIXED, "fault");
	CHECK(!s2_missing_start(t, &ops) && s2_missing_start(t, &ops) == -EALREADY, "start");
	CHECK(s2_missing_next(t, 0, S2_PAGES_AWAITED) == UINT64_MAX, "next");
	CHECK(s2_translate(t, base, S2_W, &x) && x.level == 2, "started: nothing has changed");

	/* One page of the first block: the block goes, and comes back in small leaves. */
	CHECK(s2_missing_mark(t, base + 3 * page, 1, NULL) == 1, "mark");
	CHECK(!s2_translate(t, base, S2_R, &x), "still mapped");
	CHECK(s2_fault(t, base, S2_R, &x) == S2_FIXED && x.level == 1 && x.hpa == hpa, "small");
	times = 0;
	CHECK(s2_fault(t, base + 3 * page + 5, S2_R, &x) == S2_MISSING, "missing");
	CHECK(times == 1 && asked == base + 3 * page, "%" PRIx64, asked);
	CHECK(s2_fault(t, base + 3 * page, S2_W, NULL) == S2_MISSING && times == 1, "asked twice");
	CHECK(s2_fault(t, base + big, S2_R, &x) == S2_FIXED && x.level == 2, "the other block");
	CHECK(s2_missing_next(t, base + big, S2_PAGES_AWAITED) == base + 3 * page, "next wraps");
	CHECK(s2_missing_next(t, 0, 1 << S2_PAGE_MISSING) == UINT64_MAX, "requested, not missing");
	CHECK(s2_missing_stop(t) == -EBUSY, "stop");
	for (uint64_t i = 0; i < pages; i++)
		s2_fault(t, base + i * page, S2_R, NULL);
	CHECK(s2_collapse(t, base, base + big) == 0, "a leaf over what is missing");

	/* Two wait; it comes; it comes again. */
	woken = 0;
	CHECK(!s2_page_wait(t, base, &a), "page 0 is here");
	CHECK(s2_page_wait(t, base + 3 * page, &a), "wait");
	CHECK(s2_page_wait(t, base + 3 * page + 8, &b), "wait");
	s2_page_wait_end(t, &b);
	CHECK(s2_page_wait(t, base + 3 * page + 8, &b) && !woken, "wait");
	CHECK(s2_receive(t, base, 8, fill, &f) == 1 && f.count == 1, "%" PRIu64, f.count);
	CHECK(f.gpa == base + 3 * page && f.hpa == hpa + 3 * page && woken == 2, "%u", woken);
	s2_page_wait_end(t, &a);
	CHECK(s2_receive(t, base + 3 * page, 1, fill, &f) == 0 && f.count == 1, "late");
	CHECK(s2_fault(t, base + 3 * page, S2_W, &x) == S2_FIXED && x.hpa == f.hpa, "here");
	CHECK(s2_collapse(t, base, base + big) == 1, "all is here");
	CHECK(s2_translate(t, base + 3 * page, S2_R, &x) && x.level == 2, "collapsed");
	s2_missing_stats(t, &stats);
	CHECK(!stats.awaited && stats.requested == 1 && stats.received == 1 && stats.dropped == 8 &&
		      stats.waits == 3,
	      "%" PRIu64 " dropped", stats.dropped);
	CHECK(s2_missing_mark(t, base + 3 * page, 1, NULL) == 0, "what has come stays");

	/* By bitmap, at an odd offset, over the end of the slot. */
	for (uint64_t i = 0; i < pages; i += 5)
		bitmap[i / 64] |= UINT64_C(1) << i % 64;
	CHECK(s2_missing_mark(t, base + big + 7 * page, pages, bitmap) ==
		      (int64_t)(pages - 7 + 4) / 5,
	      "bitmap");
	for (uint64_t i = 0; i < pages; i++)
		CHECK(s2_page_state(t, base + big + i * page) ==
			      (i >= 7 && (i - 7) % 5 == 0 ? S2_PAGE_MISSING : S2_PAGE_PRESENT),
		      "page %" PRIu64, i);
	CHECK(s2_missing_export(t, base + big + 7 * page, 2 * pages, S2_PAGES_AWAITED, bitmap) ==
		      (int64_t)(pages - 7 + 4) / 5,
	      "export");
	for (uint64_t i = 0; i < 2 * pages; i++)
		CHECK((bitmap[i / 64] >> i % 64 & 1) == (i < pages - 7 && i % 5 == 0),
		      "bit %" PRIu64, i);
	/* A slot that comes has its pages; one that goes takes what was awaited. */
	CHECK(!s2_slot_add(t, &more), "slot");
	CHECK(s2_fault(t, more.gpa, S2_R, &x) == S2_FIXED, "new");
	CHECK(s2_missing_mark(t, more.gpa, pages, NULL) == (int64_t)pages, "mark");
	CHECK(s2_page_wait(t, more.gpa + page, &a), "wait");
	woken = 0;
	CHECK(!s2_slot_remove(t, more.gpa) && woken == 1, "remove");
	CHECK(s2_receive(t, more.gpa, 1, fill, &f) == -EINVAL, "in no slot");
	CHECK(s2_receive(t, base, 2 * pages + 1, fill, &f) == -EINVAL, "beyond the slot");
	s2_missing_stats(t, &stats);
	CHECK(!stats.awaited, "%" PRIu64, stats.awaited);
	CHECK(!s2_missing_stop(t) && s2_page_state(t, base + 3 * page) == S2_PAGE_PRESENT, "stop");
	CHECK(!s2_unmap(t, 0, 0) && s2_fault(t, base, S2_R, &x) == S2_FIXED && x.level == 2,
	      "large leaves are back");

	/* A page that comes while writes are tracked is a written one. */
	CHECK(!s2_missing_start(t, &ops) && s2_missing_mark(t, base, pages, NULL) > 0, "again");
	CHECK(!s2_dirty_start(t), "track");
	CHECK(s2_receive(t, base + page, 1, fill, &f) == 1, "receive");
	CHECK(s2_dirty_harvest(t, base, 64 * page / 4096, bitmap) == (int64_t)page / 4096, "dirty");
	CHECK(!s2_dirty_stop(t) && s2_fault(t, base, S2_R, NULL) == S2_MISSING, "both");
	CHECK(s2_receive(t, base, pages, fill, &f) == (int64_t)pages - 1, "the rest");
	each_operation(base + big);
	CHECK(!s2_slot_remove(t, base), "remove");
	CHECK(!s2_missing_stop(t), "stop");
	free(bitmap);
}

/* ---- random operations against a flat array ---- */

enum { MODEL = 300 };

static void model(uint64_t base, uint64_t *seed, int steps)
{
	const struct s2_slot slots[] = {
		{.gpa = base, .size = 100 * page, .page_size = page},
		{.gpa = base + 150 * page, .size = 150 * page, .page_size = UINT64_C(1) << 40}};
	unsigned char state[MODEL] = {0};
	unsigned requests = 0;
	struct filled f = {0};

	CHECK(!s2_slot_add(t, &slots[0]) && !s2_slot_add(t, &slots[1]), "slots");
	CHECK(!s2_missing_start(t, &ops), "start");
	times = 0;
	while (steps--) {
		uint64_t from = test_random(seed) % MODEL, n = 1 + test_random(seed) % 70;
		uint64_t bitmap[2] = {test_random(seed), test_random(seed)}, got[2];
		unsigned mask = test_random(seed) & 15;
		int64_t expect = 0, ret;
		bool use = test_random(seed) & 1;

		if (n > MODEL - from)
			n = MODEL - from;
#define IN_SLOT(i) ((i) < 100 || ((i) >= 150))
		switch (test_random(seed) % 5) {
		case 0:
			for (uint64_t i = 0; i < n; i++) {
				unsigned char *s = &state[from + i];

				if (IN_SLOT(from + i) && *s == S2_PAGE_PRESENT &&
				    (!use || bitmap[i / 64] >> i % 64 & 1)) {
					*s = S2_PAGE_MISSING;
					expect++;
				}
			}
			ret = s2_missing_mark(t, base + from * page, n, use ? bitmap : NULL);
			CHECK(ret == expect, "mark: %" PRId64 " %" PRId64, ret, expect);
			break;
		case 1:
			if (!IN_SLOT(from))
				break;
			ret = s2_fault(t, base + from * page, S2_W, NULL);
			if (S2_PAGES_AWAITED >> state[from] & 1) {
				requests += state[from] == S2_PAGE_MISSING;
				state[from] = S2_PAGE_REQUESTED;
				CHECK(ret == S2_MISSING && times == requests, "fault");
			} else {
				CHECK(ret == S2_FIXED || ret == S2_SPURIOUS, "fault");
			}
			break;
		case 2:
			for (uint64_t i = 0; i < n && IN_SLOT(from + i); i++) {
				unsigned char *s = &state[from + i];

				if (S2_PAGES_AWAITED >> *s & 1) {
					*s = S2_PAGE_RECEIVED;
					expect++;
				}
				if (i + 1 < n && !IN_SLOT(from + i + 1))
					expect = -EINVAL;
			}
			if (!IN_SLOT(from))
				expect = -EINVAL;
			ret = s2_receive(t, base + from * page, n, fill, &f);
			CHECK(ret == expect || (ret == -EINVAL && expect < 0), "receive");
			break;
		case 3:
			ret = s2_missing_export(t, base + from * page, n, mask, got);
			for (uint64_t i = 0; i < n; i++) {
				bool is = IN_SLOT(from + i) && mask >> state[from + i] & 1;

				expect += is;
				CHECK((got[i / 64] >> i % 64 & 1) == is, "bit %" PRIu64, i);
			}
			CHECK(ret == expect, "export");
			break;
		case 4: {
			uint64_t i = from, left = MODEL;

			while (left && !(IN_SLOT(i) && mask >> state[i] & 1)) {
				i = (i + 1) % MODEL;
				left--;
			}
			CHECK(s2_missing_next(t, base + from * page, mask) ==
				      (left ? base + i * page : UINT64_MAX),
			      "next from %" PRIu64, from);
			break;
		}
		}
	}
	for (uint64_t i = 0; i < MODEL; i++) {
		if (IN_SLOT(i))
			s2_receive(t, base + i * page, 1, fill, &f);
	}
	CHECK(!s2_missing_stop(t), "stop");
	CHECK(!s2_slot_remove(t, slots[0].gpa) && !s2_slot_remove(t, slots[1].gpa), "remove");
}

/* ---- every allocation fails once ---- */

static void nomem(uint64_t base)
{
	struct s2_slot slot = {.gpa = base, .size = 100 * page, .page_size = page};
	int failed = 0;

	CHECK(!s2_slot_add(t, &slot), "slot");
	slot.gpa += 200 * page;
	CHECK(!s2_slot_add(t, &slot), "slot");
	for (long n = 0;; n++) {
		long live = atomic_load(&te.live);
		int err;

		atomic_store(&te.fail_after, n);
		err = s2_missing_start(t, &ops);
		if (!err)
			break;
		CHECK(err == -ENOMEM && atomic_load(&te.live) == live, "%d", err);
		CHECK(s2_missing_mark(t, base, 1, NULL) == -EINVAL, "not started");
		failed++;
	}
	CHECK(failed == 4, "%d", failed);
	slot.gpa += 200 * page;
	for (long n = 0;; n++) {
		long live = atomic_load(&te.live);
		int err;

		atomic_store(&te.fail_after, n);
		err = s2_slot_add(t, &slot);
		if (!err)
			break;
		CHECK(err == -ENOMEM && atomic_load(&te.live) == live, "%d", err);
		failed++;
	}
	CHECK(failed == 6, "%d", failed);
	CHECK(s2_missing_mark(t, base, 100, NULL) == 100, "mark");
	/* nothing that a fault or an arrival does needs memory of its own */
	atomic_store(&te.fail_after, 0);
	CHECK(s2_fault(t, base, S2_R, NULL) == S2_MISSING, "fault");
	CHECK(s2_receive(t, base, 50, fill, &(struct filled){0}) == 50, "receive");
	atomic_store(&te.fail_after, -1);
	/* the instance may go with pages missing */
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);

	pairs();
	for (int i = 0; i < TEST_CONFIGS; i += TEST_STEP) {
		uint64_t base;

		tc = &test_configs[i];
		if (!test_config_create(tc, &te, &s2, &mem))
			return 1;
		page = s2_level_size(s2, 1);
		base = test_config_boundary(&mem) - s2_level_size(s2, 2);
		CHECK(!s2_thread_init(&t, s2, "test"), "thread");
		scenario(base, test_config_hpa(tc) + s2_level_size(s2, 2));
		model(base, &seed, test_scale(5000));
		nomem(base);
		s2_thread_exit(t);
		s2_destroy(s2);
		CHECK(!test_env_leaked(&te), "%s: leak", tc->name);
	}
	return test_result("missing");
}
