/*
 * Description: the modes of dirty tracking: by hand, by hardware's dirty bits, by rings; the
 * summary above the bitmap, soft-full rings, what a leaving thread leaves, rates. In all formats.
 */
#include <errno.h>
#include <unistd.h>

#include "mmu/internal.h"
#include "tests/unit/test_mmu_format.h"

enum { PAGES = 512 }; /* of 4 KiB: bits */

static const struct test_config *tc;
static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static struct s2_thread *t, *vcpu;
static struct s2_slot ram;
static uint64_t page, units; /* the smallest page; bits of it */
static uint64_t bitmap[PAGES / 64];

static void open_instance(void)
{
	if (!test_config_create(tc, &te, &s2, &mem) || s2_thread_init(&t, s2, "test") ||
	    s2_thread_init(&vcpu, s2, "vcpu"))
		exit(1);
	page = s2_level_size(s2, 1);
	units = page / 4096;
	/* begins and ends inside a word of bits where pages are small */
	ram = (struct s2_slot){.gpa = s2_level_size(s2, 2) - 3 * page,
			       .size = (uint64_t)PAGES * 4096 - 64 * 4096,
			       .hpa = test_config_hpa(tc),
			       .page_size = page};
	CHECK(!s2_slot_add(t, &ram), "add");
}

static void close_instance(void)
{
	s2_thread_exit(vcpu);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%s: %ld leaked", tc->name, atomic_load(&te.live));
}

static uint64_t at(uint64_t n)
{
	return ram.gpa + n * page;
}

static void write_page(uint64_t n)
{
	struct s2_xlat x;

	while (!s2_translate(vcpu, at(n), S2_W, &x)) {
		enum s2_result r = s2_fault(vcpu, at(n), S2_W, &x);

		CHECK(r == S2_FIXED, "%s: %d", tc->name, r);
		if (r != S2_FIXED)
			return;
	}
}

static int64_t harvest(void)
{
	return s2_dirty_harvest(t, ram.gpa & ~UINT64_C(0x3ffff), PAGES, bitmap);
}

/* All bits of page n in what was harvested last. */
static bool in_bitmap(uint64_t n)
{
	bool all = true;

	for (uint64_t i = 0; i < units; i++) {
		uint64_t bit = (at(n) - (ram.gpa & ~UINT64_C(0x3ffff))) / 4096 + i;

		all = all && bitmap[bit / 64] >> (bit % 64) & 1;
	}
	return all;
}

static void test_refused(void)
{
	const struct {
		struct s2_dirty_options o;
		const char *part;
	} bad[] = {
		{{.flags = 0x80}, "unknown"},
		{{.ring_entries = 32}, "64"},
		{{.ring_entries = 100}, "power"},
		{{.ring_entries = 1u << 21}, "1048576"},
		{{.ring_entries = 64, .ring_soft = 65}, "soft"},
		{{.flags = S2_DIRTY_DBIT, .ring_entries = 64}, "ring"},
		{{.flags = S2_DIRTY_DBIT}, "use_ad"},
	};
	bool can = s2->use_ad && s2->ops->format->dirty;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const char *why = "";
		bool last_two = i >= sizeof(bad) / sizeof(*bad) - 2;

		if (can && bad[i].o.flags == S2_DIRTY_DBIT && !bad[i].o.ring_entries)
			continue;
		CHECK(s2_dirty_start_with(t, &bad[i].o, &why) == -EINVAL, "%s: %zu", tc->name, i);
		if (last_two && !s2->ops->format->dirty)
			CHECK(strstr(why, "DBM"), "%s: %s", tc->name, why);
		else if (!(last_two && !can))
			CHECK(strstr(why, bad[i].part), "%s: %s", tc->name, why);
	}
	CHECK(s2_dirty_stop(t) == -EALREADY, "nothing was started");
}

static void test_manual(void)
{
	const struct s2_dirty_options o = {.flags = S2_DIRTY_MANUAL};
	uint64_t chosen[PAGES / 64] = {0}, bit;
	struct s2_xlat x;

	CHECK(!s2_dirty_start_with(t, &o, NULL), "start");
	write_page(1);
	write_page(9);
	for (int i = 0; i < 2; i++) { /* harvest takes nothing away */
		CHECK(harvest() == (int64_t)(2 * units) && in_bitmap(1) && in_bitmap(9), "%s",
		      tc->name);
		CHECK(s2_translate(t, at(1), S2_W, &x), "%s: protected", tc->name);
	}
	bit = (at(9) - (ram.gpa & ~UINT64_C(0x3ffff))) / 4096;
	for (uint64_t i = bit; i < bit + units + 1; i++) /* one more, which is clean */
		chosen[i / 64] |= UINT64_C(1) << (i % 64);
	CHECK(s2_dirty_reprotect(t, ram.gpa & ~UINT64_C(0x3ffff), PAGES, chosen) == (int64_t)units,
	      "%s", tc->name);
	CHECK(s2_translate(t, at(1), S2_W, &x) && !s2_translate(t, at(9), S2_W, &x), "%s: chosen",
	      tc->name);
	CHECK(harvest() == (int64_t)units && in_bitmap(1), "%s: the other stays", tc->name);
	write_page(9);
	CHECK(harvest() == (int64_t)(2 * units) && in_bitmap(9), "%s: again", tc->name);
	CHECK(!s2_dirty_stop(t), "stop");
}

/* As hardware: D in a leaf that grants W. */
static void hardware_write(uint64_t n)
{
	const struct format *f = s2->ops->format;
	struct walk_entry w = walk_lookup(f, &s2->pt, at(n));

	CHECK(w.kind == ENTRY_LEAF && f->perm(w.value) & S2_W, "%s: a fault at %" PRIu64, tc->name,
	      n);
	entry_store(&s2->pt.geo, w.entry, w.value | f->dirty);
}

static void test_dbit(bool manual)
{
	const struct s2_dirty_options o = {.flags = S2_DIRTY_DBIT | S2_DIRTY_EAGER |
						    (manual ? S2_DIRTY_MANUAL : 0)};
	uint64_t all[PAGES / 64];
	struct s2_xlat x;

	memset(all, 0xff, sizeof(all));
	for (uint64_t n = 0; n < 64; n++)
		write_page(n);
	CHECK(!s2_dirty_start_with(t, &o, NULL), "%s: start", tc->name);
	CHECK(harvest() == 0, "%s: clean at first", tc->name);
	CHECK(!s2_translate(t, at(3), S2_W, &x), "%s: a software TLB would not set D", tc->name);
	CHECK(s2_translate(t, at(3), S2_R, &x) && !(x.perm & S2_W), "%s: W without D", tc->name);
	hardware_write(3); /* no fault: W stayed */
	hardware_write(40);
	CHECK(s2_translate(t, at(3), S2_W, &x), "%s: D", tc->name);
	CHECK(s2_fault(t, at(70), S2_R, &x) == S2_FIXED && !(x.perm & S2_W), "%s: map", tc->name);
	hardware_write(70); /* mapped by a read, and written without a fault */
	write_page(20);	    /* a software TLB */
	s2_dirty_mark(t, at(50) + 5, 1);
	CHECK(harvest() == 5 && in_bitmap(3) && in_bitmap(40) && in_bitmap(70) && in_bitmap(20) &&
		      in_bitmap(50),
	      "%s: D and marks", tc->name);
	if (manual)
		CHECK(harvest() == 5 &&
			      s2_dirty_reprotect(t, ram.gpa & ~UINT64_C(0x3ffff), PAGES, all) == 5,
		      "%s: by hand", tc->name);
	CHECK(harvest() == 0, "%s: clean again", tc->name);
	hardware_write(3);
	/* unmapping does not lose it */
	hardware_write(4);
	CHECK(!s2_unmap(t, at(4), at(5)), "unmap");
	CHECK(!s2_unmap(t, 0, 0), "unmap");
	CHECK(harvest() == 2 && in_bitmap(3) && in_bitmap(4), "%s: unmapped", tc->name);
	CHECK(!s2_dirty_stop(t), "stop");
	CHECK(s2_fault(t, at(3), S2_R, &x) == S2_FIXED && x.perm & S2_W, "%s: off", tc->name);

	/* a tracking without D: W comes with a write, also into a table that is there */
	CHECK(!s2_dirty_start(t) && !s2_unmap(t, 0, 0), "%s: start again", tc->name);
	for (uint64_t n = 3; n < 6; n++)
		CHECK(s2_fault(t, at(n), S2_R, &x) == S2_FIXED && !(x.perm & S2_W) &&
			      !s2_translate(t, at(n), S2_W, &x),
		      "%s: W too early", tc->name);
	CHECK(!s2_dirty_stop(t), "stop");
}

static bool in_list(const uint64_t *gpa, int64_t count, uint64_t n)
{
	for (int64_t i = 0; i < count; i++) {
		if (gpa[i] == (at(n) & ~(page - 1)))
			return true;
	}
	return false;
}

static void test_rings(void)
{
	const struct s2_dirty_options o = {.ring_entries = 64, .ring_soft = 16};
	struct s2_thread *late;
	uint64_t gpa[256], n;
	struct s2_xlat x;

	CHECK(!s2_dirty_start_with(t, &o, NULL), "%s: start", tc->name);
	for (n = 0; n < 15; n++)
		write_page(n % 5);
	CHECK(!s2_ring_full(vcpu), "five pages, not fifteen");
	CHECK(s2_ring_harvest(t, gpa, 3) == 3 && in_list(gpa, 3, 0) && in_list(gpa, 3, 2), "some");
	CHECK(s2_ring_harvest(t, gpa, 256) == 2 && in_list(gpa, 2, 4), "the rest");
	CHECK(s2_ring_harvest(t, gpa, 256) == 0, "none");
	CHECK(s2_translate(t, at(1), S2_W, &x), "%s: not protected yet", tc->name);
	write_page(1);
	CHECK(s2_ring_harvest(t, gpa, 256) == 0, "no fault, no entry");
	CHECK(s2_ring_reset(t) == 5 && !s2_translate(t, at(1), S2_W, &x), "%s: reset", tc->name);
	CHECK(s2_ring_reset(t) == 0, "once");
	write_page(1);
	CHECK(s2_ring_harvest(t, gpa, 256) == 1 && in_list(gpa, 1, 1), "%s: again", tc->name);
	CHECK(harvest() == 0, "%s: the bitmap has none of it", tc->name);

	/* a device: its own ring, and each page once until it is harvested */
	s2_dirty_mark(t, at(7) + 1, 1);
	s2_dirty_mark(t, at(7) + 2, 1);
	s2_dirty_mark(t, at(7) + page - 1, 2);
	CHECK(s2_ring_harvest(t, gpa, 256) == 2 && in_list(gpa, 2, 7) && in_list(gpa, 2, 8), "%s",
	      tc->name);
	s2_dirty_mark(t, at(8), 1);
	CHECK(s2_ring_harvest(t, gpa, 256) == 1 && in_list(gpa, 1, 8), "%s: after", tc->name);
	CHECK(s2_ring_reset(t) == 4, "%s: four", tc->name);

	/* soft-full, full, and over the edge into the bitmap */
	if (ram.size / page > 100) {
		for (n = 0; n < 16; n++)
			write_page(20 + n);
		CHECK(s2_ring_full(vcpu) && !s2_ring_full(t), "%s: soft-full", tc->name);
		for (; n < 70; n++)
			write_page(20 + n);
		CHECK(harvest() == (int64_t)(6 * units) && in_bitmap(20 + 64) && in_bitmap(89),
		      "%s: the bitmap has what was too much", tc->name);
		CHECK(s2_ring_harvest(t, gpa, 256) == 64, "%s: a ring full", tc->name);
		CHECK(s2_ring_full(vcpu), "until it is reset");
		CHECK(s2_ring_reset(t) == 64 && !s2_ring_full(vcpu), "%s: reset", tc->name);
		for (n = 0; n < 70; n++)
			CHECK(!s2_translate(t, at(20 + n), S2_W, &x), "%s: W left", tc->name);
	}

	/* a thread that comes late, and leaves */
	CHECK(!s2_thread_init(&late, s2, "late"), "init");
	CHECK(s2_fault(late, at(11), S2_W, NULL) == S2_FIXED, "fault");
	CHECK(s2_fault(late, at(12), S2_W, NULL) == S2_FIXED, "fault");
	CHECK(s2_ring_harvest(t, gpa, 1) == 1 && gpa[0] == (at(11) & ~(page - 1)), "harvested");
	s2_thread_exit(late);
	CHECK(s2_ring_harvest(t, gpa, 256) == 0, "its ring went with it");
	CHECK(harvest() == (int64_t)(2 * units) && in_bitmap(11) && in_bitmap(12),
	      "%s: what it left", tc->name);
	write_page(13);
	CHECK(!s2_dirty_stop(t) && !s2_ring_full(vcpu), "stop");
	CHECK(s2_ring_harvest(t, gpa, 256) == 0 && s2_ring_reset(t) == 0, "off");
}

/* ---- two that collect ---- */

static atomic_uint_least64_t posted; /* generation */
static atomic_int back;

static void take_note(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)opaque, (void)start, (void)end;
	atomic_store(&posted, generation);
}

static int64_t reset_rings(void)
{
	struct s2_thread *own;
	int64_t n;

	CHECK(!s2_thread_init(&own, s2, "collector"), "thread");
	n = s2_ring_reset(own);
	s2_thread_exit(own);
	return n;
}

static int64_t reprotect(void)
{
	struct s2_thread *own;
	int64_t n;

	CHECK(!s2_thread_init(&own, s2, "collector"), "thread");
	n = s2_dirty_reprotect(own, ram.gpa & ~UINT64_C(0x3ffff), PAGES, bitmap);
	s2_thread_exit(own);
	return n;
}

static void *collect(void *arg)
{
	const int64_t n = arg ? reset_rings() : reprotect();

	atomic_fetch_add(&back, 1);
	return (void *)(intptr_t)n;
}

/* Both have seen a page; the second to protect it finds it protected, and comes back no earlier
 * than the first: not before the clients have let go of it. */
static void test_two_collect(bool rings)
{
	struct s2_dirty_options options = {.flags = rings ? 0 : S2_DIRTY_MANUAL,
					   .ring_entries = rings ? 64 : 0};
	struct s2_tlb_client client = {.name = "late", .invalidate = take_note};
	pthread_t first, second;
	uint64_t gpa[8];
	void *n[2];

	open_instance();
	CHECK(!s2_dirty_start_with(t, &options, NULL), "start");
	write_page(5);
	CHECK(rings ? s2_ring_harvest(t, gpa, 8) == 1 : harvest() == (int64_t)units, "harvest");
	s2_tlb_client_add(t, &client);
	atomic_store(&posted, 0);
	atomic_store(&back, 0);
	pthread_create(&first, NULL, collect, rings ? &options : NULL);
	while (!atomic_load(&posted))
		usleep(100);
	pthread_create(&second, NULL, collect, rings ? &options : NULL);
	usleep(20000);
	CHECK(atomic_load(&back) == 0, "%s: %d back before the clients were", tc->name,
	      atomic_load(&back));
	while (atomic_load(&back) < 2) {
		s2_tlb_ack(&client, atomic_load(&posted));
		usleep(100);
	}
	pthread_join(first, &n[0]);
	pthread_join(second, &n[1]);
	CHECK((intptr_t)n[0] > 0 && n[1] == NULL, "%s: %d and %d", tc->name, (int)(intptr_t)n[0],
	      (int)(intptr_t)n[1]);
	s2_tlb_client_remove(t, &client);
	CHECK(!s2_dirty_stop(t), "stop");
	close_instance();
}

static void test_ring_nomem(void)
{
	const struct s2_dirty_options o = {.ring_entries = 4096};
	int err = -ENOMEM, failures = 0;

	for (long n = 0; err == -ENOMEM; n++) {
		atomic_store(&te.fail_after, n);
		err = s2_dirty_start_with(t, &o, NULL);
		atomic_store(&te.fail_after, -1);
		failures += err == -ENOMEM;
	}
	/* slots, bitmap, summary, two rings */
	CHECK(!err && failures == 5, "%s: %d after %d", tc->name, err, failures);
	CHECK(!s2_dirty_stop(t), "stop");
}

static void test_rate(void)
{
	const uint64_t ms = 1000000;
	struct s2_dirty_rate rate = {0};

	CHECK(!s2_dirty_start(t), "start");
	CHECK(s2_dirty_rate(vcpu, &rate, 5 * ms) == 0, "the first call only begins");
	for (uint64_t n = 0; n < 10; n++)
		write_page(n);
	CHECK(s2_dirty_rate(vcpu, &rate, 15 * ms) == 1000 * units, "%" PRIu64, rate.rate);
	CHECK(s2_dirty_rate(vcpu, &rate, 15 * ms + 10) == 1000 * units, "too early");
	CHECK(s2_dirty_rate(vcpu, &rate, 20 * ms) == 0, "nothing since");
	write_page(3);
	CHECK(s2_dirty_rate(vcpu, &rate, 30 * ms) == 0, "dirty already");
	CHECK(harvest() == (int64_t)(10 * units), "harvest");
	write_page(3);
	CHECK(s2_dirty_rate(vcpu, &rate, 130 * ms) == 10 * units, "%" PRIu64, rate.rate);
	CHECK(!s2_dirty_stop(t), "stop");
}

/* What the summary says: far apart, harvested in pieces that end anywhere. */
static void test_summary(uint64_t *seed)
{
	enum { BITS = 64 * 64 * 3 + 100 };
	static uint64_t found[BITS / 64 + 1];
	static bool dirty[BITS];
	struct s2_slot big = {.gpa = s2_level_size(s2, 2) * 8 + 5 * page,
			      .size = (uint64_t)BITS / units * page,
			      .hpa = test_config_hpa(tc),
			      .page_size = page};
	uint64_t base = big.gpa & ~UINT64_C(0x3ffff), skip = (big.gpa - base) / 4096;

	memset(dirty, 0, sizeof(dirty));
	CHECK(!s2_slot_add(t, &big) && !s2_dirty_start(t), "start");
	for (int round = 0; round < 60; round++) {
		uint64_t from = test_random(seed) % (BITS / 64) * 64;
		uint64_t n = 1 + test_random(seed) % (BITS - from);

		for (uint64_t i = test_random(seed) % 20; i; i--) {
			uint64_t bit = test_random(seed) % (BITS / units * units);

			s2_dirty_mark(t, big.gpa + bit * 4096, 1);
			dirty[bit] = true;
		}
		CHECK(s2_dirty_harvest(t, base + from * 4096, n, found) >= 0, "harvest");
		for (uint64_t i = 0; i < n; i++) {
			uint64_t bit = from + i - skip;
			bool is = found[i / 64] >> (i % 64) & 1;

			if (from + i < skip || bit >= BITS)
				continue;
			CHECK(is == dirty[bit], "%s: bit %" PRIu64 ": %d", tc->name, bit, is);
			dirty[bit] = false;
		}
	}
	CHECK(!s2_dirty_stop(t) && !s2_slot_remove(t, big.gpa), "stop");
}

/* A slot that is tracked from its beginning, alone. */
static void test_slot_log(void)
{
	const struct s2_slot log = {.gpa = 64 * s2_level_size(s2, 2),
				    .size = 128 * page,
				    .hpa = ram.hpa + 64 * s2_level_size(s2, 2),
				    .page_size = page,
				    .flags = S2_SLOT_LOG};
	const uint64_t pages = log.size / 4096;
	uint64_t *bits = calloc(pages / 64, 8);
	struct s2_xlat x;

	CHECK(bits && !s2_slot_add(t, &log), "add");
	write_page(0);
	CHECK(s2_fault(vcpu, log.gpa + 5 * page, S2_W, &x) == S2_FIXED, "write");
	CHECK(s2_fault(vcpu, log.gpa + 6 * page, S2_R, &x) == S2_FIXED && !(x.perm & S2_W), "read");
	CHECK(s2_dirty_harvest(t, log.gpa, pages, bits) == (int64_t)units, "%s: one page",
	      tc->name);
	CHECK(bits[5 * units / 64] >> (5 * units % 64) & 1, "this one");
	CHECK(!s2_translate(vcpu, log.gpa + 5 * page, S2_W, &x), "protected again");
	CHECK(s2_dirty_stop(t) == -EALREADY && !s2_dirty_start(t), "start");
	CHECK(s2_fault(vcpu, log.gpa + 5 * page, S2_W, &x) == S2_FIXED, "write");
	CHECK(s2_dirty_harvest(t, log.gpa, pages, bits) == (int64_t)units, "again");
	CHECK(!s2_dirty_stop(t), "stop");
	CHECK(s2_fault(vcpu, log.gpa + 6 * page, S2_R, &x) == S2_SPURIOUS &&
		      s2_fault(vcpu, log.gpa + 7 * page, S2_R, &x) == S2_FIXED && x.perm & S2_W,
	      "no more");
	CHECK(!s2_slot_remove(t, log.gpa), "remove");
	free(bits);
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);
	int dbit = 0;

	for (int i = 0; i < TEST_CONFIGS; i++) {
		tc = &test_configs[i];
		open_instance();
		test_refused();
		test_manual();
		test_rings();
		test_ring_nomem();
		test_rate();
		test_summary(&seed);
		test_slot_log();
		close_instance();
		test_two_collect(false);
		test_two_collect(true);
		for (int manual = 0; manual < 2; manual++) {
			open_instance();
			if (s2->use_ad && s2->ops->format->dirty) {
				test_dbit(manual);
				dbit++;
			}
			close_instance();
		}
	}
	CHECK(dbit == 8, "%d instances with dirty bits", dbit);
	return test_result("dirty");
}
