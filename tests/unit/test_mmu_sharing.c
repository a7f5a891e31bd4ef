/*
 * Description: who owns a page. Software bits are reserved by name, and overlap is refused, in each
 * format; every operation from every pair of states of the two sides; leaves carry the state where
 * the format has room, and none reaches over two states; random operations between three instances
 * against a model of who owns what; threads that fight for the same pages.
 */
#include <errno.h>

#include "mmu/fields.h"
#include "mmu/sharing.h"
#include "tests/unit/test_mmu_format.h"

enum { MACHINES = 3, MODEL = 64 };

static const struct test_config *tc;
static struct test_env te[MACHINES];
static struct dec_memory mem[MACHINES];
static struct s2 *s2[MACHINES];
static struct s2_thread *t[MACHINES];
static uint64_t base[MACHINES], page, pages;

/* ---- fields ---- */

static void fields(void)
{
	for (int i = 0; i < S2_NR_FORMATS; i++) {
		const struct format *f = test_format(i);
		struct fields all = {0};
		struct field a, b, c;
		uint64_t leaf = 0;

		CHECK(!field_reserve(&all, f, FIELD_CANONICAL, "a", 2, 0, false, &a), "a");
		CHECK(a.bits == 2 && a.shift == 0, "a");
		CHECK(field_reserve(&all, f, FIELD_CANONICAL, "a", 1, 2, true, &b) == -EEXIST, "a");
		CHECK(field_reserve(&all, f, FIELD_CANONICAL, "b", 2, 1, false, &b) ==
			      (f->sw_bits > 2 ? -EBUSY : -ENOSPC),
		      "overlap");
		CHECK(field_reserve(&all, f, FIELD_CANONICAL, "b", 1, 1, false, &b) == -EBUSY,
		      "overlap");
		CHECK(field_reserve(&all, f, FIELD_CANONICAL, "b", 1, f->sw_bits, false, &b) ==
			      -ENOSPC,
		      "beyond");
		/* another kind of root has bits of its own */
		CHECK(!field_reserve(&all, f, FIELD_SHADOW, "a", 2, 0, false, &b) && !b.shift, "a");
		CHECK(!field_reserve(&all, f, FIELD_CANONICAL, "b", 2, FIELD_ANYWHERE, true, &b),
		      "b");
		CHECK(f->sw_bits == 4 ? b.bits == 2 && b.shift == 2 : b.bits == 0, "%u", b.bits);
		CHECK(field_reserve(&all, f, FIELD_CANONICAL, "c", 1, FIELD_ANYWHERE, false, &c) ==
			      -ENOSPC,
		      "full");
		for (uint32_t x = 0; x < 4; x++) {
			leaf = field_put(f, &a, field_put(f, &b, leaf, 3 - x), x);
			CHECK(field_get(f, &a, leaf) == x, "%u", x);
			CHECK(field_get(f, &b, leaf) == (b.bits ? 3 - x : 0), "%u", x);
			CHECK(!(leaf & ~format_sw_mask(f)), "other bits");
		}
		field_release(&all, FIELD_CANONICAL, "a");
		CHECK(!field_reserve(&all, f, FIELD_CANONICAL, "c", 2, FIELD_ANYWHERE, false, &c) &&
			      c.shift == 0,
		      "released");
	}
}

/* ---- machines ---- */

static void begin(void)
{
	for (int i = 0; i < MACHINES; i++) {
		struct s2_slot slot = {.hpa = 0, .page_size = UINT64_C(1) << 40};

		if (!test_config_create(tc, &te[i], &s2[i], &mem[i]))
			exit(1);
		page = s2_level_size(s2[i], 1);
		pages = 2 * s2_level_size(s2[i], 2) / page;
		base[i] = test_config_boundary(&mem[i]) - (1 + (unsigned)i) * pages * page;
		slot.gpa = base[i];
		slot.size = pages * page;
		CHECK(!s2_thread_init(&t[i], s2[i], "machine"), "thread");
		CHECK(!s2_slot_add(t[i], &slot), "slot");
		CHECK(s2_sharing_state(t[i], slot.gpa) == S2_OWNED, "before");
		CHECK(!s2_sharing_start(t[i], i ? S2_NONE : S2_OWNED), "start");
		CHECK(s2_sharing_start(t[i], S2_OWNED) == -EALREADY, "start again");
	}
}

static void end(void)
{
	for (int i = 0; i < MACHINES; i++) {
		s2_thread_exit(t[i]);
		s2_destroy(s2[i]);
		CHECK(!test_env_leaked(&te[i]), "%s: leak", tc->name);
	}
}

typedef int (*operation)(struct s2_thread *, uint64_t, struct s2_thread *, uint64_t, uint64_t);

static const struct {
	operation run;
	enum s2_share_state from, from_after, to, to_after;
} operations[] = {
	{s2_share, S2_OWNED, S2_SHARED, S2_NONE, S2_BORROWED},
	{s2_unshare, S2_SHARED, S2_OWNED, S2_BORROWED, S2_NONE},
	{s2_donate, S2_OWNED, S2_NONE, S2_NONE, S2_OWNED},
	{s2_reclaim, S2_NONE, S2_OWNED, S2_OWNED, S2_NONE},
};
enum { OPERATIONS = sizeof(operations) / sizeof(*operations) };

/* What a fault says, and what the leaf carries. */
static void look(int m, uint64_t n, enum s2_share_state state)
{
	uint64_t gpa = base[m] + n * page;
	enum s2_result result;
	struct s2_xlat x;

	CHECK(s2_sharing_state(t[m], gpa) == state, "machine %d, page %" PRIu64 ": %d", m, n,
	      s2_sharing_state(t[m], gpa));
	if (state == S2_NONE) {
		CHECK(!s2_translate(t[m], gpa, S2_R, &x), "mapped");
		CHECK(s2_fault(t[m], gpa, S2_R, &x) == S2_EMULATE, "fault");
		return;
	}
	result = s2_fault(t[m], gpa, S2_W, &x);
	CHECK(result == S2_FIXED || result == S2_SPURIOUS, "%d", result);
	CHECK(x.hpa == n * page, "%" PRIx64, x.hpa);
	CHECK(s2_sharing_of(s2[m], &x) == state, "the leaf carries %d, not %d",
	      s2_sharing_of(s2[m], &x), state);
	for (uint64_t i = 0; i < s2_level_size(s2[m], x.level) / page; i++)
		CHECK(s2_sharing_state(t[m], (gpa & ~(s2_level_size(s2[m], x.level) - 1)) +
						     i * page) == state,
		      "a leaf over two states");
}

/* The pairs that can come about: brought about on page n of machines 0 and 1. */
static bool bring_about(uint64_t n, enum s2_share_state a, enum s2_share_state b)
{
	uint64_t x = base[0] + n * page, y = base[1] + n * page, z = base[2] + n * page;

	if (a == S2_OWNED && b == S2_NONE)
		return true;
	if (a == S2_SHARED && b == S2_BORROWED)
		return !s2_share(t[0], x, t[1], y, 1);
	if (a == S2_NONE && b == S2_OWNED)
		return !s2_donate(t[0], x, t[1], y, 1);
	if (a == S2_SHARED && b == S2_NONE)
		return !s2_share(t[0], x, t[2], z, 1);
	if (a == S2_BORROWED && b == S2_SHARED)
		return !s2_donate(t[0], x, t[1], y, 1) && !s2_share(t[1], y, t[0], x, 1);
	if (a == S2_NONE && b == S2_SHARED)
		return !s2_donate(t[0], x, t[1], y, 1) && !s2_share(t[1], y, t[2], z, 1);
	if (a == S2_NONE && b == S2_NONE)
		return !s2_donate(t[0], x, t[2], z, 1);
	if (a == S2_BORROWED && b == S2_NONE)
		return !s2_donate(t[0], x, t[2], z, 1) && !s2_share(t[2], z, t[0], x, 1);
	if (a == S2_NONE && b == S2_BORROWED)
		return !s2_donate(t[0], x, t[2], z, 1) && !s2_share(t[2], z, t[1], y, 1);
	return false; /* two owners, or two borrowers: cannot be */
}

static void all_pairs(void)
{
	unsigned legal = 0, refused = 0;
	uint64_t n = 0;

	for (int op = 0; op < OPERATIONS; op++) {
		for (int a = 0; a < 4; a++) {
			for (int b = 0; b < 4; b++) {
				bool fits = operations[op].from == (unsigned)a &&
					    operations[op].to == (unsigned)b;
				int got;

				n += 2;
				if (!bring_about(n, a, b))
					continue;
				look(0, n, a);
				look(1, n, b);
				got = operations[op].run(t[0], base[0] + n * page, t[1],
							 base[1] + n * page, 1);
				CHECK(got == (fits ? 0 : -EPERM), "%d: %d %d: %d", op, a, b, got);
				look(0, n, fits ? operations[op].from_after : (unsigned)a);
				look(1, n, fits ? operations[op].to_after : (unsigned)b);
				look(0, n + 1, S2_OWNED);
				look(1, n + 1, S2_NONE);
				legal += fits;
				refused += !fits;
			}
		}
	}
	CHECK(legal == 4 && refused == 4 * 9 - 4, "%u, %u", legal, refused);
}

static void edges(void)
{
	struct s2_xlat x;

	/* One page in the way: nothing is changed, on either side. */
	CHECK(!s2_share(t[0], base[0] + 5 * page, t[1], base[1] + 5 * page, 1), "share");
	CHECK(s2_donate(t[0], base[0], t[1], base[1], 8) == -EPERM, "in the way");
	for (uint64_t i = 0; i < 8; i++) {
		look(0, i, i == 5 ? S2_SHARED : S2_OWNED);
		look(1, i, i == 5 ? S2_BORROWED : S2_NONE);
	}
	CHECK(!s2_unshare(t[0], base[0] + 5 * page, t[1], base[1] + 5 * page, 1), "unshare");
	CHECK(s2_share(t[0], base[0], t[1], base[1] + page, 1) == -EINVAL, "other memory");
	CHECK(s2_share(t[0], base[0], t[0], base[0], 1) == -EINVAL, "with itself");
	CHECK(s2_share(t[0], base[0] + 1, t[1], base[1] + 1, 1) == -EINVAL, "misaligned");
	CHECK(s2_share(t[0], base[0], t[1], base[1], 0) == -EINVAL, "nothing");
	CHECK(s2_share(t[0], base[0], t[1], base[1], pages + 1) == -EINVAL, "no slot");
	/* Whole blocks stay blocks, on both sides. */
	CHECK(!s2_donate(t[0], base[0], t[1], base[1], pages), "all");
	CHECK(s2_fault(t[1], base[1], S2_R, &x) == S2_FIXED && x.level > 1, "level %u", x.level);
	CHECK(s2_fault(t[0], base[0], S2_R, &x) == S2_EMULATE, "gone");
	CHECK(!s2_reclaim(t[0], base[0], t[1], base[1], pages), "back");
	CHECK(s2_fault(t[0], base[0], S2_R, &x) == S2_FIXED && x.level > 1, "level %u", x.level);
	CHECK(!s2_slot_remove(t[1], base[1]), "remove");
	CHECK(s2_share(t[0], base[0], t[1], base[1], 1) == -EINVAL, "no slot");
}

/* A slot with pages lent or borrowed stays; one that goes while a page is on its way gets none. */
static void remove_receiver(void *opaque, uint64_t generation)
{
	CHECK(!s2_slot_remove(t[1], base[1]), "%s: nothing is lent yet", tc->name);
	s2_tlb_ack(opaque, generation);
}

static void nothing(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)opaque;
	(void)start;
	(void)end;
	(void)generation;
}

static void removals(void)
{
	struct s2_tlb_client client = {
		.name = "test", .opaque = &client, .invalidate = nothing, .wait = remove_receiver};
	const uint64_t at = 3 * page;

	CHECK(!s2_share(t[0], base[0] + at, t[1], base[1] + at, 2), "share");
	CHECK(s2_slot_remove(t[0], base[0]) == -EBUSY, "%s: lent", tc->name);
	CHECK(s2_slot_remove(t[1], base[1]) == -EBUSY, "%s: borrowed", tc->name);
	look(0, 3, S2_SHARED);
	look(1, 4, S2_BORROWED);
	CHECK(!s2_unshare(t[0], base[0] + at, t[1], base[1] + at, 2), "unshare");
	look(0, 3, S2_OWNED);
	s2_tlb_client_add(t[0], &client);
	CHECK(s2_share(t[0], base[0] + at, t[1], base[1] + at, 1) == -EINVAL, "%s: gone", tc->name);
	s2_tlb_client_remove(t[0], &client);
	look(0, 3, S2_OWNED);
	CHECK(!s2_share(t[0], base[0] + at, t[2], base[2] + at, 1), "to another one");
	CHECK(!s2_unshare(t[0], base[0] + at, t[2], base[2] + at, 1), "and back");
	CHECK(!s2_slot_remove(t[0], base[0]), "%s: nothing is lent any more", tc->name);
}

static void fault_all(int m, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		s2_fault(t[m], base[m] + i * page, S2_R, NULL);
}

/* A split hands the state down, permissions leave it alone, and a collapse wants it equal. */
static void splits(void)
{
	uint64_t big = s2_level_size(s2[0], 2), n = big / page;
	struct s2_xlat x;

	CHECK(!s2_share(t[0], base[0], t[1], base[1], n), "share");
	CHECK(s2_fault(t[0], base[0], S2_W, &x) == S2_FIXED && x.level == 2, "a block");
	CHECK(s2_sharing_of(s2[0], &x) == S2_SHARED, "a block");
	CHECK(!s2_split(t[0], base[0], base[0] + big, 1), "split");
	for (uint64_t i = 0; i < n; i++) {
		CHECK(s2_translate(t[0], base[0] + i * page, S2_R, &x) && x.level == 1, "split");
		CHECK(s2_sharing_of(s2[0], &x) == S2_SHARED, "page %" PRIu64, i);
	}
	CHECK(!s2_write_protect(t[0], base[0], base[0] + big), "protect");
	CHECK(s2_translate(t[0], base[0] + page, S2_R, &x) && !(x.perm & S2_W), "protect");
	CHECK(s2_sharing_of(s2[0], &x) == S2_SHARED, "protected");
	CHECK(s2_fault(t[0], base[0] + page, S2_W, &x) == S2_FIXED, "relax");
	CHECK(s2_sharing_of(s2[0], &x) == S2_SHARED, "relaxed");
	CHECK(!s2_unshare(t[0], base[0] + 3 * page, t[1], base[1] + 3 * page, 1), "unshare");
	fault_all(0, n);
	CHECK(s2_collapse(t[0], base[0], base[0] + big) == 0, "two states in a leaf");
	look(0, 3, S2_OWNED);
	CHECK(!s2_share(t[0], base[0] + 3 * page, t[1], base[1] + 3 * page, 1), "share");
	fault_all(0, n);
	CHECK(s2_collapse(t[0], base[0], base[0] + big) == 1, "collapse");
	CHECK(s2_translate(t[0], base[0], S2_R, &x) && x.level == 2, "collapse");
	CHECK(s2_sharing_of(s2[0], &x) == S2_SHARED, "collapsed");
}

/* ---- random operations against a model: one owner, perhaps a borrower ---- */

static void model(uint64_t *seed, int steps)
{
	int owner[MODEL] = {0}, borrower[MODEL];
	int done = 0;

	for (int i = 0; i < MODEL; i++)
		borrower[i] = -1;
	/* Most are refused: of few steps all may be. */
	for (int step = 0; step < steps || (done < 3 && step < 1000); step++) {
		unsigned op = test_random(seed) % OPERATIONS;
		int a = (int)(test_random(seed) % MACHINES),
		    b = (int)(test_random(seed) % MACHINES);
		uint64_t from = test_random(seed) % MODEL, n = 1 + test_random(seed) % 3;
		int got, expect = 0;

		if (n > MODEL - from)
			n = MODEL - from;
		for (uint64_t i = from; i < from + n; i++) {
			bool free = borrower[i] < 0;
			bool fits = op == 0   ? owner[i] == a && free
				    : op == 1 ? owner[i] == a && borrower[i] == b
				    : op == 2 ? owner[i] == a && free
					      : owner[i] == b && free;

			if (!fits)
				expect = -EPERM;
		}
		if (a == b)
			expect = -EINVAL;
		got = operations[op].run(t[a], base[a] + from * page, t[b], base[b] + from * page,
					 n);
		CHECK(got == expect, "operation %u: %d, not %d", op, got, expect);
		for (uint64_t i = from; !got && i < from + n; i++) {
			if (op == 0)
				borrower[i] = b;
			else if (op == 1)
				borrower[i] = -1;
			else
				owner[i] = op == 2 ? b : a;
		}
		done += !got;
		from = test_random(seed) % MODEL;
		for (int m = 0; m < MACHINES; m++)
			look(m, from,
			     owner[from] == m	   ? borrower[from] < 0 ? S2_OWNED : S2_SHARED
			     : borrower[from] == m ? S2_BORROWED
						   : S2_NONE);
	}
	CHECK(done >= 3, "%d of %d", done, steps);
}

/* ---- threads that fight for the same pages ---- */

static atomic_ulong wins, losses;

static void *fight(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg * UINT64_C(0x9e3779b97f4a7c15) | 1;
	struct s2_thread *own[MACHINES];

	for (int i = 0; i < MACHINES; i++)
		CHECK(!s2_thread_init(&own[i], s2[i], "fighter"), "thread");
	for (int steps = test_scale(3000); steps; steps--) {
		uint64_t n = test_random(&seed) % MODEL;
		int a = (int)(test_random(&seed) % MACHINES);
		int b = (a + 1 + (int)(test_random(&seed) % (MACHINES - 1))) % MACHINES;
		int err = s2_donate(own[a], base[a] + n * page, own[b], base[b] + n * page, 1);
		struct s2_xlat x;

		CHECK(!err || err == -EPERM, "%d", err);
		atomic_fetch_add(err ? &losses : &wins, 1);
		/* somebody looks */
		if (!s2_translate(own[a], base[a] + n * page, S2_R, &x))
			s2_fault(own[a], base[a] + n * page, S2_R, NULL);
	}
	for (int i = 0; i < MACHINES; i++)
		s2_thread_exit(own[i]);
	return NULL;
}

static void fighters(void)
{
	pthread_t thread[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, fight, (void *)(i + 1));
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	for (uint64_t n = 0; n < MODEL; n++) {
		int found = 0;

		for (int m = 0; m < MACHINES; m++) {
			enum s2_share_state state = s2_sharing_state(t[m], base[m] + n * page);

			CHECK(state == S2_OWNED || state == S2_NONE, "%d", state);
			found += state == S2_OWNED;
			look(m, n, state);
		}
		CHECK(found == 1, "page %" PRIu64 " has %d owners", n, found);
	}
	CHECK(atomic_load(&wins) && atomic_load(&losses), "no fight");
}

static void nomem(void)
{
	struct s2_slot slot = {.gpa = 0, .size = page, .hpa = 0, .page_size = page};
	struct s2_thread *own;
	struct s2 *one;
	int failed = 0;

	if (!test_config_create(tc, &te[0], &one, &mem[0]))
		exit(1);
	slot.size = slot.page_size = s2_level_size(one, 1);
	CHECK(!s2_thread_init(&own, one, "test") && !s2_slot_add(own, &slot), "slot");
	for (long n = 0;; n++) {
		long live = atomic_load(&te[0].live);
		int err;

		atomic_store(&te[0].fail_after, n);
		err = s2_sharing_start(own, S2_NONE);
		if (!err)
			break;
		CHECK(err == -ENOMEM && live == atomic_load(&te[0].live), "%d", err);
		CHECK(s2_sharing_state(own, 0) == S2_OWNED, "started");
		failed++;
	}
	CHECK(failed == 2 && s2_sharing_state(own, 0) == S2_NONE, "%d", failed);
	atomic_store(&te[0].fail_after, -1);
	s2_thread_exit(own);
	s2_destroy(one);
	CHECK(!test_env_leaked(&te[0]), "leak");
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);

	fields();
	for (int i = 0; i < TEST_CONFIGS; i += TEST_STEP) {
		tc = &test_configs[i];
		begin();
		all_pairs();
		end();
		begin();
		edges();
		end();
		begin();
		splits();
		end();
		begin();
		removals();
		end();
		begin();
		model(&seed, test_scale(600));
		end();
		nomem();
	}
	tc = &test_configs[0];
	begin();
	fighters();
	end();
	printf("%lu donations, %lu refused\n", atomic_load(&wins), atomic_load(&losses));
	return test_result("sharing");
}
