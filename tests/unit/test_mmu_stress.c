/*
 * Description: 2 to 8 threads at once: vCPUs with software TLBs, a device mapper that acknowledges
 * late, changers that unmap, protect, split, collapse and move slots, a migrator that starts
 * tracking under load, in one mode or another, harvests, and at the end compares what it copied
 * with memory.
 *
 * The policy under test is the same code, compiled once more with delays where races are.
 *
 * Oracles. (1) A TLB entry filled before an unmap began is not used after it returned (numbers per
 * page: begun, done); the same for W and write-protection, and for ageing, since a use that it does
 * not see would not be counted. (2) While a slot stands still, its pages translate to where it lies
 * now. (3) Every write is in the migrator's copy: no lost dirty bit.
 */
#include <errno.h>

#include "tests/unit/test_mmu_race.h"

#include "mmu/stage2_ops.h"
#include "tests/unit/test_mmu_format.h"

#define K4   UINT64_C(0x1000)
#define M2   UINT64_C(0x200000)
#define GiB  UINT64_C(0x40000000)
#define MOVE (BASE + RAM * K4) /* the slot that moves */

enum { RAM = 4 * 512, MOVING = 512, PAGES = RAM + MOVING, PLACES = 4, MAX_THREADS = 8 };

static uint64_t BASE; /* an entry of a high level ends within the slots */
static const struct test_config *tc;
static struct dec_memory mem;
static struct s2 *s2;
static struct test_env te;
static atomic_uint memory[PAGES]; /* by gpa page, as only RAM is compared: what was written */
static unsigned copy[RAM];
/* What takes something from pages; numbers of operations per page. */
enum taker { UNMAP, PROTECT, AGE, TAKERS };
static const char *const taken[TAKERS] = {"used after unmap", "written after write-protection",
					  "used unseen after ageing"};
static atomic_ulong begun[TAKERS][PAGES], done[TAKERS][PAGES], takes[TAKERS];
static atomic_ulong version; /* of the moving slot's place; odd: it moves */
static atomic_bool stop;
static atomic_int running;
static atomic_ulong fills, faults, retries, uses, moves, harvested, rounds, emulated, splits,
	collapses, recovered, ring_pages, full, aged;

/* How the migrator tracks, by turns. */
static const struct mode {
	const char *name;
	struct s2_dirty_options o;
} modes[] = {
	{"lazy", {0}},
	{"rings", {.flags = S2_DIRTY_EAGER, .ring_entries = 128, .ring_soft = 96}},
	{"dirty bits", {.flags = S2_DIRTY_DBIT | S2_DIRTY_EAGER | S2_DIRTY_COLLAPSE}},
	{"by hand", {.flags = S2_DIRTY_EAGER | S2_DIRTY_MANUAL | S2_DIRTY_COLLAPSE}},
	{"small rings", {.ring_entries = 64}},
	{"dirty bits by hand", {.flags = S2_DIRTY_DBIT | S2_DIRTY_MANUAL}},
	{"eager", {.flags = S2_DIRTY_EAGER}},
};
enum { MODES = sizeof(modes) / sizeof(*modes) };
static atomic_ulong mode_rounds[MODES];

/* A copy of the policy of its own, which loses its processor where it hurts: between reading an
 * entry and acting on it. */
extern const struct stage2_ops racy_ept, racy_npt, racy_arm4k, racy_riscv64, racy_riscv32;
STAGE2_DEFINE_OPS(ept, racy_ept);
STAGE2_DEFINE_OPS(npt, racy_npt);
STAGE2_DEFINE_OPS(arm4k, racy_arm4k);
STAGE2_DEFINE_OPS(riscv64, racy_riscv64);
STAGE2_DEFINE_OPS(riscv32, racy_riscv32);

static const struct {
	const char *config;
	const struct stage2_ops *ops;
} races[] = {
	{"ept4", &racy_ept}, {"arm64 4K, 40 bits", &racy_arm4k}, {"sv39x4", &racy_riscv64},
	{"npt5", &racy_npt}, {"sv32x4", &racy_riscv32},		 {"ept4, 40 bits", &racy_ept},
};
enum { RACES = sizeof(races) / sizeof(*races) };

static uint64_t place(unsigned long v)
{
	return test_config_hpa(tc) + (4 + (v / 2) % PLACES) * GiB + (v / 2 % 3 == 2 ? K4 : 0);
}

/* ---- a TLB ---- */

struct tlb_entry {
	bool valid;
	uint64_t hpa;
	uint32_t perm;
	unsigned long begun[TAKERS];
};

struct cpu {
	struct race_client client; /* first */
	struct s2_thread *t;
	uint64_t seed;
	bool moves_slot;
	struct tlb_entry tlb[PAGES];
};

static void forget(struct race_client *client, uint32_t tag, uint64_t start, uint64_t end)
{
	struct cpu *c = (struct cpu *)client;

	(void)tag;
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t gpa = BASE + page * K4;

		if (gpa >= start && (!end || gpa < end))
			c->tlb[page].valid = false;
	}
}

static void forget_all(struct race_client *client)
{
	struct cpu *c = (struct cpu *)client;

	memset(c->tlb, 0, sizeof(c->tlb));
}

/* ---- operations that anybody may do ---- */

static void random_range(uint64_t *seed, uint64_t *first, uint64_t *end)
{
	switch (test_random(seed) % 4) {
	case 0: /* a large leaf or a table as a whole */
		*first = test_random(seed) % (PAGES / 512) * 512;
		*end = *first + 512;
		break;
	case 1:
		*first = 0;
		*end = PAGES;
		break;
	default: *first = test_random(seed) % PAGES; *end = *first + 1 + test_random(seed) % 64;
	}
	if (*end > PAGES)
		*end = PAGES;
}

static void change(struct s2_thread *t, uint64_t *seed, enum taker what)
{
	unsigned long number[PAGES];
	uint64_t first, end, from, to;

	random_range(seed, &first, &end);
	from = BASE + first * K4;
	to = BASE + end * K4;
	if (end - first == PAGES) { /* tables of tables, which hold what others have frozen */
		from &= ~(GiB - 1);
		to = from + 2 * GiB;
	}
	for (uint64_t i = first; i < end; i++)
		number[i] = atomic_fetch_add(&begun[what][i], 1) + 1;
	if (what == PROTECT) {
		CHECK(!s2_write_protect(t, from, to), "protect");
	} else if (what == UNMAP) {
		CHECK(!s2_unmap(t, from, to), "unmap");
	} else {
		int64_t n = s2_age(t, from, to, S2_AGE_FLUSH, NULL);

		CHECK(n >= 0, "age: %" PRId64, n);
		atomic_fetch_add(&aged, (unsigned long)n);
	}
	for (uint64_t i = first; i < end; i++) {
		unsigned long old = atomic_load(&done[what][i]);

		while (old < number[i] &&
		       !atomic_compare_exchange_weak(&done[what][i], &old, number[i]))
			;
	}
	atomic_fetch_add(&takes[what], 1);
}

/* A large leaf, to pieces and back, if nobody comes between and nothing tracks. */
static void fold(struct s2_thread *t, uint64_t *seed)
{
	uint64_t gpa = BASE + test_random(seed) % (PAGES / 512) * M2;
	int64_t n;

	CHECK(!s2_unmap(t, gpa, gpa + M2), "unmap");
	s2_fault(t, gpa, S2_W, NULL);
	CHECK(!s2_split(t, gpa, gpa + M2, 1), "split");
	atomic_fetch_add(&splits, 1);
	n = s2_collapse(t, gpa & ~(2 * M2 - 1), (gpa | (2 * M2 - 1)) + 1);
	CHECK(n >= 0, "collapse: %" PRId64, n);
	atomic_fetch_add(&collapses, (unsigned long)n);
}

/* Neither changes what may be written. */
static void resize(struct s2_thread *t, uint64_t *seed)
{
	uint64_t first, end;

	random_range(seed, &first, &end);
	switch (test_random(seed) % 5) {
	case 0: fold(t, seed); break;
	case 1: {
		int err = s2_split(t, BASE + first * K4, BASE + end * K4, 1);

		CHECK(!err, "split: %d", err);
		atomic_fetch_add(&splits, 1);
		break;
	}
	case 2: atomic_fetch_add(&recovered, (unsigned long)s2_nx_recover(t, 3)); break;
	default: {
		int64_t n = s2_collapse(t, end - first == PAGES ? 0 : BASE, 0);

		CHECK(n >= 0, "collapse: %" PRId64, n);
		atomic_fetch_add(&collapses, (unsigned long)n);
	}
	}
}

/* Translates as a client or a device does. false: no slot (the moving one, while it moves). */
static bool translate(struct s2_thread *t, struct cpu *c, uint64_t page, uint32_t access,
		      struct s2_xlat *x)
{
	uint64_t gpa = BASE + page * K4;

	while (!s2_translate(t, gpa, access, x)) {
		enum s2_result r = s2_fault(t, gpa, access, x);

		atomic_fetch_add_explicit(&faults, 1, memory_order_relaxed);
		if (r == S2_FIXED || r == S2_SPURIOUS)
			return true;
		if (r == S2_EMULATE) {
			atomic_fetch_add_explicit(&emulated, 1, memory_order_relaxed);
			CHECK(page >= RAM, "page %" PRIu64 " of RAM has no slot", page);
			return false;
		}
		CHECK(r == S2_RETRY, "page %" PRIu64 ": result %d", page, r);
		atomic_fetch_add_explicit(&retries, 1, memory_order_relaxed);
		if (c)
			race_serve(&c->client);
		sched_yield();
	}
	return true;
}

/* ---- threads ---- */

static void use(struct cpu *c, uint64_t page, bool write)
{
	struct tlb_entry *e = &c->tlb[page];
	unsigned long v;

	if (!e->valid || (write && !(e->perm & S2_W))) {
		struct s2_xlat x;

		e->valid = false;
		if (!translate(c->t, c, page,
			       write						   ? S2_W
			       : !c->client.tlb.wait || test_random(&c->seed) % 64 ? S2_R
										   : S2_X,
			       &x))
			return;
		*e = (struct tlb_entry){.valid = true, .hpa = x.hpa, .perm = x.perm};
		/* after the translation: an operation with a higher number began later */
		for (int i = 0; i < TAKERS; i++)
			e->begun[i] = atomic_load(&begun[i][page]);
		atomic_fetch_add_explicit(&fills, 1, memory_order_relaxed);
	}
	for (int i = 0; i < TAKERS; i++)
		CHECK((i == PROTECT && !write) || atomic_load(&done[i][page]) <= e->begun[i],
		      "page %" PRIu64 " %s", page, taken[i]);
	v = atomic_load(&version);
	if (page < RAM)
		CHECK(e->hpa == page * K4, "page %" PRIu64 " -> %" PRIx64, page, e->hpa);
	else if (v % 2 == 0)
		CHECK(e->hpa == place(v) + (page - RAM) * K4, "page %" PRIu64 " -> %" PRIx64, page,
		      e->hpa);
	/* every eighth page is the device's: nobody else's dirty bit covers its writes */
	if (write && page % 8 != 7)
		atomic_fetch_add_explicit(&memory[page], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&uses, 1, memory_order_relaxed);
}

static void *run_cpu(void *arg)
{
	struct cpu *c = arg;

	race_self = &c->client;
	CHECK(!s2_thread_init(&c->t, s2, "vcpu"), "init");
	c->client.tlb.thread = c->t;
	s2_tlb_client_add(c->t, &c->client.tlb);
	atomic_fetch_add(&running, 1);
	while (!atomic_load(&stop)) {
		/* a little locality, so that TLB entries live long enough to be wrong */
		uint64_t at = test_random(&c->seed) % PAGES;

		race_park_here(&c->client);
		for (int i = 0; i < 64; i++) {
			race_serve(&c->client);
			use(c, (at + test_random(&c->seed) % 8) % PAGES,
			    test_random(&c->seed) % 3 == 0);
		}
		while (s2_ring_full(c->t) && !atomic_load(&stop) && !atomic_load(&race_park)) {
			atomic_fetch_add_explicit(&full, 1, memory_order_relaxed);
			race_serve(&c->client);
			sched_yield();
		}
		if (test_random(&c->seed) % 64 == 0)
			change(c->t, &c->seed, (enum taker)(test_random(&c->seed) % TAKERS));
		if (test_random(&c->seed) % 64 == 0)
			resize(c->t, &c->seed);
	}
	s2_tlb_client_remove(c->t, &c->client.tlb);
	s2_thread_exit(c->t);
	return NULL;
}

/* Writes as a device does: with nothing cached, so that nobody waits for it. A harvest between the
 * translation and the write must not make the write a clean one. */
static void device_write(struct cpu *c, bool slow)
{
	uint64_t page = test_random(&c->seed) % RAM | 7;
	struct s2_xlat x;

	if (!translate(c->t, NULL, page, S2_W, &x))
		return;
	CHECK(x.hpa == page * K4, "page %" PRIu64, page);
	if (slow)
		nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
	atomic_fetch_add(&memory[page], 1);
	lose_time();
	s2_dirty_mark(c->t, BASE + page * K4 + 77, 1);
}

/* By turns a device without a TLB, and a client without `wait` that acknowledges when it comes
 * round: clients come and go. It does not execute: a fault that splits a block of arm64 would wait
 * for it, and it for itself. */
static void *run_device(void *arg)
{
	struct cpu *c = arg;

	CHECK(!s2_thread_init(&c->t, s2, "device"), "init");
	c->client.tlb.wait = NULL;
	c->client.tlb.thread = c->t;
	atomic_fetch_add(&running, 1);
	while (!atomic_load(&stop)) {
		race_park_here(NULL);
		for (int i = 0; i < 8; i++)
			device_write(c, i == 0);
		s2_tlb_client_add(c->t, &c->client.tlb);
		for (int i = 0; i < 100; i++) {
			race_serve(&c->client);
			use(c, test_random(&c->seed) % PAGES, false);
		}
		s2_tlb_client_remove(c->t, &c->client.tlb);
		memset(c->tlb, 0, sizeof(c->tlb));
		race_client_reset(&c->client);
		sched_yield();
	}
	s2_thread_exit(c->t);
	return NULL;
}

static void move(struct s2_thread *t)
{
	struct s2_slot s = {.gpa = MOVE, .size = MOVING * K4, .page_size = M2};

	atomic_fetch_add(&version, 1);
	CHECK(!s2_slot_remove(t, MOVE), "remove");
	s.hpa = place(atomic_load(&version) + 1);
	CHECK(!s2_slot_add(t, &s), "add");
	atomic_fetch_add(&version, 1);
	atomic_fetch_add(&moves, 1);
}

/* The first changer moves the slot, too. */
static void *run_changer(void *arg)
{
	struct cpu *c = arg;

	CHECK(!s2_thread_init(&c->t, s2, "changer"), "init");
	atomic_fetch_add(&running, 1);
	while (!atomic_load(&stop)) {
		race_park_here(NULL);
		switch (test_random(&c->seed) % 8) {
		case 0:
			if (c->moves_slot) {
				move(c->t);
				break;
			}
			/* fall through */
		case 1: change(c->t, &c->seed, PROTECT); break;
		case 2:
		case 3:
		case 4: resize(c->t, &c->seed); break;
		case 5: change(c->t, &c->seed, AGE); break;
		default: change(c->t, &c->seed, UNMAP);
		}
		for (int i = 0; i < 3; i++)
			sched_yield();
	}
	s2_thread_exit(c->t);
	return NULL;
}

static void take(const uint64_t *bitmap, int64_t n)
{
	for (uint64_t i = 0; i < RAM; i++) {
		if (bitmap[i / 64] >> (i % 64) & 1) {
			copy[i] = atomic_load(&memory[i]);
			n--;
		}
	}
	CHECK(n == 0, "the count is the number of bits");
}

static void harvest(struct s2_thread *t, const struct mode *mode)
{
	uint64_t bitmap[RAM / 64], page[100];
	int64_t n;

	while (mode->o.ring_entries && (n = s2_ring_harvest(t, page, 100)) > 0) {
		CHECK(s2_ring_reset(t) == n, "reset");
		atomic_fetch_add(&ring_pages, (unsigned long)n);
		for (int64_t i = 0; i < n; i++) {
			uint64_t at = (page[i] - BASE) / K4;

			CHECK(at < PAGES, "page %" PRIx64, page[i]);
			if (at < RAM)
				copy[at] = atomic_load(&memory[at]);
		}
	}
	n = s2_dirty_harvest(t, BASE, RAM, bitmap);
	CHECK(n >= 0, "harvest: %" PRId64, n);
	if (mode->o.flags & S2_DIRTY_MANUAL)
		CHECK(s2_dirty_reprotect(t, BASE, RAM, bitmap) == n, "reprotect");
	take(bitmap, n);
	atomic_fetch_add(&harvested, 1);
}

static void check_tables(void)
{
	struct dec_census c = dec_census(&mem);
	struct s2_stats stats;

	s2_get_stats(s2, &stats);
	CHECK(stats.tables == c.tables, "%" PRIu64 " tables, not %" PRIu64, stats.tables, c.tables);
	for (int level = 1; level <= 3; level++)
		CHECK(stats.pages[level] == c.leaves[level], "level %d: %" PRIu64 " not %" PRIu64,
		      level, stats.pages[level], c.leaves[level]);
	CHECK(c.marks == 0 && c.bad == 0, "%" PRIu64 " entries stayed frozen", c.marks);
}

static bool all_happened(int threads)
{
	return atomic_load(&rounds) && atomic_load(&takes[UNMAP]) && atomic_load(&takes[PROTECT]) &&
	       atomic_load(&aged) && atomic_load(&fills) && (threads < 3 || atomic_load(&moves));
}

static void stress(int race, int threads, uint64_t ms, uint64_t *seed)
{
	static struct cpu cpus[MAX_THREADS];
	struct s2_slot ram = {.size = RAM * K4, .page_size = 2 * M2};
	struct s2_slot moving = {.size = MOVING * K4, .page_size = M2};
	int vcpus = threads > 2 ? threads / 2 : 1, others = threads - vcpus - 1;
	uint64_t turn = test_random(seed) % MODES, end;
	pthread_t thread[MAX_THREADS];
	const struct mode *mode;
	struct s2_thread *t;

	for (tc = test_configs; strcmp(tc->name, races[race].config);)
		tc++;
	atomic_store(&version, 0);
	atomic_store(&stop, false);
	atomic_store(&running, 0);
	memset(cpus, 0, sizeof(cpus));
	if (!test_config_create(tc, &te, &s2, &mem))
		exit(1);
	s2->ops = races[race].ops;
	s2->nx_huge = test_random(seed) % 2;
	if (test_random(seed) % 2)
		atomic_fetch_or(&s2->lock.state, BRLOCK_FENCED); /* as without membarrier */
	BASE = test_config_boundary(&mem) - 2 * M2;
	ram.gpa = BASE;
	moving.gpa = MOVE;
	moving.hpa = place(0);
	CHECK(!s2_thread_init(&t, s2, "migrator"), "init");
	CHECK(!s2_slot_add(t, &ram) && !s2_slot_add(t, &moving), "slots");
	for (int i = 0; i < threads - 1; i++) {
		struct cpu *c = &cpus[i];
		bool changer = i >= vcpus && (i - vcpus) % 2 == 0;

		race_client_init(&c->client);
		c->client.forget = forget;
		c->client.forget_all = forget_all;
		c->moves_slot = i == vcpus;
		c->seed = test_random(seed) | 1;
		pthread_create(&thread[i], NULL,
			       i < vcpus ? run_cpu
			       : changer ? run_changer
					 : run_device,
			       c);
	}
	while (atomic_load(&running) < threads - 1)
		sched_yield();

	/* A machine that is busy may need longer, for what is rare. */
	for (end = test_now_ms() + ms;
	     test_now_ms() < end || (!all_happened(threads) && test_now_ms() < end + 60000);) {
		uint64_t until = test_now_ms() + 20;

		/* large leaves come back, some after they have been in pieces */
		fold(t, seed);
		while (test_now_ms() < until) {
			if (!others)
				change(t, seed, (enum taker)(test_random(seed) % TAKERS));
			sched_yield();
		}
		/* those without dirty bits take the next mode */
		do
			mode = &modes[turn++ % MODES];
		while (mode->o.flags & S2_DIRTY_DBIT && !(s2->use_ad && s2->ops->format->dirty));
		CHECK(!s2_dirty_start_with(t, &mode->o, NULL), "start: %s", mode->name);
		atomic_fetch_add(&mode_rounds[mode - modes], 1);
		for (uint64_t i = 0; i < RAM; i++)
			copy[i] = atomic_load(&memory[i]);
		for (until = test_now_ms() + 60; test_now_ms() < until;) {
			harvest(t, mode);
			if (!others)
				change(t, seed, (enum taker)(test_random(seed) % TAKERS));
			sched_yield();
		}
		race_stop_all(threads - 1);
		harvest(t, mode);
		for (uint64_t i = 0; i < RAM; i++)
			CHECK(copy[i] == atomic_load(&memory[i]),
			      "page %" PRIu64 ": a write is lost: %u %u (%s)", i, copy[i],
			      atomic_load(&memory[i]), mode->name);
		check_tables();
		CHECK(!s2_dirty_stop(t), "stop");
		race_go_on();
		atomic_fetch_add(&rounds, 1);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < threads - 1; i++)
		pthread_join(thread[i], NULL);
	check_tables();
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%ld tables leaked", atomic_load(&te.live));
}

/* stress SEED MILLISECONDS FORMAT THREADS; FORMAT: of the first number of threads, in races[];
 * THREADS: none but that. */
int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv), ms = argc > 2 ? strtoull(argv[2], NULL, 0) : 700;
	uint64_t race = argc > 3 ? strtoull(argv[3], NULL, 0) : seed >> 32;
	int only = argc > 4 ? atoi(argv[4]) : 0, most = only ? only : MAX_THREADS;

	if (most < 2 || most > MAX_THREADS)
		return 2;
	/* by turns, another format for each number of threads */
	for (int threads = only ? only : 2; threads <= most; threads += threads < 4 ? 1 : 2)
		stress((int)(race++ % RACES), threads, ms, &seed);
	printf("%lu rounds, %lu harvests, %lu unmaps, %lu protects, %lu slot moves, %lu uses, %lu "
	       "TLB "
	       "fills, %lu faults, %lu retries, %lu in no slot\n",
	       atomic_load(&rounds), atomic_load(&harvested), atomic_load(&takes[UNMAP]),
	       atomic_load(&takes[PROTECT]), atomic_load(&moves), atomic_load(&uses),
	       atomic_load(&fills), atomic_load(&faults), atomic_load(&retries),
	       atomic_load(&emulated));
	printf("%lu splits, %lu collapsed, %lu recovered, %lu pages in rings, %lu times full;",
	       atomic_load(&splits), atomic_load(&collapses), atomic_load(&recovered),
	       atomic_load(&ring_pages), atomic_load(&full));
	for (int i = 0; i < MODES; i++)
		printf(" %s %lu%s", modes[i].name, atomic_load(&mode_rounds[i]),
		       i < MODES - 1 ? "," : "\n");
	printf("%lu times aged, %lu pages in use\n", atomic_load(&takes[AGE]), atomic_load(&aged));
	CHECK(all_happened(most), "something never happened");
	return test_result("stress");
}
