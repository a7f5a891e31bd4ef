/*
 * Description: memory that arrives while 1 to 4 vCPUs use it: faults, demands, two threads that
 * bring pages (each may bring what the other has brought), unmaps and write-protection at once; and
 * again, since all of it goes missing under the running vCPUs, too.
 *
 * Oracles. Nobody sees a page before its data, nor after it has gone missing (it holds rubbish
 * then). Each page is asked for at most once and filled once. No write is lost: a late copy never
 * overwrites (counted per page). Whoever waits for a page is woken by it.
 *
 * The policy under test is compiled once more with delays where races are.
 */
#include <errno.h>

#include "tests/unit/test_mmu_race.h"

#include "mmu/stage2_ops.h"
#include "tests/unit/test_mmu_format.h"

enum { MAX_VCPUS = 4, BLOCKS = 2, MAX_PAGES = BLOCKS * 512, RUBBISH = 0x7fffffff };

extern const struct stage2_ops racy_ept, racy_arm4k;
STAGE2_DEFINE_OPS(ept, racy_ept);
STAGE2_DEFINE_OPS(arm4k, racy_arm4k);

static const struct {
	const char *config;
	const struct stage2_ops *ops;
} races[] = {{"ept4", &racy_ept}, {"arm64 4K, 48 bits", &racy_arm4k}};

static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static uint64_t BASE, HPA, PAGE, PAGES;
static atomic_uint memory[MAX_PAGES], hits[MAX_PAGES], asked[MAX_PAGES], filled[MAX_PAGES];
static atomic_bool stop, feeding;
static atomic_int active; /* feeders that bring something */
static atomic_ulong uses, missed, waits, woken, gave_up, demands, brought, late;

/* What a page holds when it comes; its users count from there. */
static unsigned data(uint64_t page)
{
	return (unsigned)page * 100000;
}

/* ---- demands ---- */

static pthread_mutex_t queue_mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t queue[MAX_PAGES];
static unsigned queued;

static void request(void *opaque, struct s2_thread *t, uint64_t gpa)
{
	uint64_t page = (gpa - BASE) / PAGE;

	(void)opaque, (void)t;
	CHECK(atomic_fetch_add(&asked[page], 1) == 0, "page %" PRIu64 " is asked for again", page);
	atomic_fetch_add(&demands, 1);
	pthread_mutex_lock(&queue_mutex);
	queue[queued++] = gpa;
	pthread_mutex_unlock(&queue_mutex);
}

static int fill(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes)
{
	uint64_t page = (gpa - BASE) / PAGE;

	(void)opaque, (void)bytes;
	CHECK(hpa == HPA + page * PAGE, "%" PRIx64, hpa);
	CHECK(atomic_fetch_add(&filled[page], 1) == 0, "page %" PRIu64 " is filled again", page);
	CHECK(atomic_load(&memory[page]) == RUBBISH, "page %" PRIu64 " was written early", page);
	lose_time();
	/* relaxed: that others see it in time is what is tested */
	atomic_store_explicit(&memory[page], data(page), memory_order_relaxed);
	return 0;
}

static void *run_feeder(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)&seed | 1;
	struct s2_thread *t;

	(void)arg;
	CHECK(!s2_thread_init(&t, s2, "feeder"), "thread");
	while (!atomic_load(&stop)) {
		uint64_t gpa = UINT64_MAX, n = 1;
		int64_t got;

		atomic_fetch_add(&active, 1);
		if (!atomic_load(&feeding)) {
			atomic_fetch_sub(&active, 1);
			sched_yield();
			continue;
		}
		pthread_mutex_lock(&queue_mutex);
		if (queued)
			gpa = queue[--queued];
		pthread_mutex_unlock(&queue_mutex);
		if (gpa == UINT64_MAX && test_random(&seed) % 8 == 0)
			gpa = s2_missing_next(t, BASE, S2_PAGES_AWAITED);
		if (gpa == UINT64_MAX) {
			uint64_t page = test_random(&seed) % PAGES;

			gpa = BASE + page * PAGE;
			n = 1 + test_random(&seed) % 8;
			if (n > PAGES - page)
				n = PAGES - page;
		}
		got = s2_receive(t, gpa, n, fill, NULL);
		CHECK(got >= 0, "%" PRId64, got);
		atomic_fetch_add(&brought, (unsigned long)got);
		atomic_fetch_add(&late, n - (unsigned long)got);
		atomic_fetch_sub(&active, 1);
		sched_yield();
	}
	s2_thread_exit(t);
	return NULL;
}

/* ---- vCPUs ---- */

struct cpu {
	struct race_client client; /* it holds nothing */
	struct s2_page_waiter waiter;
	atomic_bool arrived;
	struct s2_thread *t;
	uint64_t seed;
};

static void wake(struct s2_page_waiter *waiter)
{
	struct cpu *c = (struct cpu *)((char *)waiter - offsetof(struct cpu, waiter));

	atomic_store(&c->arrived, true);
}

static bool awaited(struct cpu *c, uint64_t gpa)
{
	return S2_PAGES_AWAITED >> s2_page_state(c->t, gpa) & 1;
}

static void wait_page(struct cpu *c, uint64_t gpa)
{
	bool kicked = test_random(&c->seed) % 4 == 0;

	atomic_store(&c->arrived, false);
	if (!s2_page_wait(c->t, gpa, &c->waiter)) {
		s2_page_wait_end(c->t, &c->waiter);
		return;
	}
	atomic_fetch_add(&waits, 1);
	for (unsigned i = 0; !atomic_load(&c->arrived) && awaited(c, gpa); i++) {
		race_serve(&c->client); /* as one that sleeps is served by others */
		if ((kicked && i > 3) || atomic_load(&stop))
			break;
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	}
	kicked |= atomic_load(&stop) || awaited(c, gpa);
	s2_page_wait_end(c->t, &c->waiter);
	CHECK(kicked || atomic_load(&c->arrived), "nobody was woken");
	atomic_fetch_add(atomic_load(&c->arrived) ? &woken : &gave_up, 1);
}

static void use(struct cpu *c, uint64_t page)
{
	uint64_t gpa = BASE + page * PAGE;
	struct s2_xlat x;
	unsigned was;

	while (!s2_translate(c->t, gpa, S2_W, &x)) {
		enum s2_result r = s2_fault(c->t, gpa, S2_W, &x);

		if (r == S2_FIXED || r == S2_SPURIOUS)
			break;
		if (r == S2_MISSING) {
			atomic_fetch_add(&missed, 1);
			if (test_random(&c->seed) % 3 == 0)
				return; /* a device turns to something else */
			wait_page(c, gpa);
		} else {
			CHECK(r == S2_RETRY, "page %" PRIu64 ": result %d", page, r);
		}
		if (atomic_load(&stop))
			return;
		race_serve(&c->client);
		sched_yield();
	}
	CHECK(x.hpa == HPA + page * PAGE, "%" PRIx64, x.hpa);
	lose_time();
	was = atomic_fetch_add_explicit(&memory[page], 1, memory_order_relaxed);
	CHECK(was - data(page) < 100000, "page %" PRIu64 " holds %u", page, was);
	atomic_fetch_add_explicit(&hits[page], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&uses, 1, memory_order_relaxed);
}

static void *run_cpu(void *arg)
{
	struct cpu *c = arg;

	race_self = &c->client;
	CHECK(!s2_thread_init(&c->t, s2, "vcpu"), "thread");
	c->client.tlb.thread = c->t;
	s2_tlb_client_add(c->t, &c->client.tlb);
	while (!atomic_load(&stop)) {
		race_serve(&c->client);
		use(c, test_random(&c->seed) % PAGES);
		if (test_random(&c->seed) % 512 == 0) {
			uint64_t from = BASE + test_random(&c->seed) % PAGES * PAGE;

			if (test_random(&c->seed) % 2)
				CHECK(!s2_unmap(c->t, from, BASE + PAGES * PAGE), "unmap");
			else
				CHECK(!s2_write_protect(c->t, from, from + PAGE), "protect");
		}
	}
	s2_tlb_client_remove(c->t, &c->client.tlb);
	s2_thread_exit(c->t);
	return NULL;
}

/* ---- rounds ---- */

static void begin(struct s2_thread *t)
{
	const struct s2_missing_ops ops = {.request = request};

	CHECK(!s2_missing_start(t, &ops), "start");
	/* Under running vCPUs. */
	CHECK(s2_missing_mark(t, BASE, PAGES, NULL) == (int64_t)PAGES, "mark");
	for (uint64_t i = 0; i < PAGES; i++) {
		CHECK(atomic_load(&memory[i]) - data(i) == atomic_load(&hits[i]),
		      "page %" PRIu64 ": %u writes, %u there", i, atomic_load(&hits[i]),
		      atomic_load(&memory[i]) - data(i));
		CHECK(atomic_load(&filled[i]) == 1, "filled");
		atomic_store(&memory[i], RUBBISH);
		atomic_store(&hits[i], 0);
		atomic_store(&filled[i], 0);
	}
	atomic_store(&feeding, true);
}

static void end(struct s2_thread *t)
{
	struct s2_missing_stats stats;

	do {
		s2_missing_stats(t, &stats);
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	} while (stats.awaited);
	CHECK(stats.received == PAGES, "%" PRIu64, stats.received);
	atomic_store(&feeding, false);
	while (atomic_load(&active))
		sched_yield();
	CHECK(!s2_missing_stop(t), "stop");
	CHECK(s2_missing_stop(t) == -ENOENT, "stop again");
	/* vCPUs acknowledge outside of s2_fault: no demand is on its way afterwards. */
	CHECK(!s2_unmap(t, BASE, BASE + PAGES * PAGE), "unmap");
	queued = 0;
	for (uint64_t i = 0; i < PAGES; i++)
		atomic_store(&asked[i], 0);
}

static bool all_happened(void)
{
	return atomic_load(&demands) && atomic_load(&woken) && atomic_load(&gave_up) &&
	       atomic_load(&late);
}

static void postcopy(int race, int vcpus, uint64_t ms, uint64_t *seed)
{
	static struct cpu cpus[MAX_VCPUS];
	pthread_t cpu[MAX_VCPUS], feeder[2];
	const struct test_config *tc = test_configs;
	uint64_t until;
	struct s2_slot ram;
	struct s2_thread *t;

	while (strcmp(tc->name, races[race].config))
		tc++;
	if (!test_config_create(tc, &te, &s2, &mem))
		exit(1);
	s2->ops = races[race].ops;
	PAGE = s2_level_size(s2, 1);
	PAGES = BLOCKS * (s2_level_size(s2, 2) / PAGE);
	BASE = test_config_boundary(&mem) - PAGES / 2 * PAGE;
	HPA = test_config_hpa(tc);
	ram = (struct s2_slot){
		.gpa = BASE, .size = PAGES * PAGE, .hpa = HPA, .page_size = UINT64_C(1) << 40};
	CHECK(!s2_thread_init(&t, s2, "main") && !s2_slot_add(t, &ram), "slot");
	atomic_store(&stop, false);
	for (uint64_t i = 0; i < PAGES; i++) {
		atomic_store(&memory[i], data(i));
		atomic_store(&hits[i], 0);
		atomic_store(&filled[i], 1);
		atomic_store(&asked[i], 0);
	}
	memset(cpus, 0, sizeof(cpus));
	for (int i = 0; i < 2; i++)
		pthread_create(&feeder[i], NULL, run_feeder, NULL);
	for (int i = 0; i < vcpus; i++) {
		race_client_init(&cpus[i].client);
		cpus[i].waiter.wake = wake;
		cpus[i].seed = test_random(seed) | 1;
		pthread_create(&cpu[i], NULL, run_cpu, &cpus[i]);
	}
	/* A machine that is busy may need longer, for what is rare. */
	until = test_now_ms() + ms;
	do {
		begin(t);
		end(t);
		/* all of it is here, and in large leaves */
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	} while (test_now_ms() < until || (!all_happened() && test_now_ms() < until + 60000));
	atomic_store(&stop, true);
	for (int i = 0; i < vcpus; i++)
		pthread_join(cpu[i], NULL);
	for (int i = 0; i < 2; i++)
		pthread_join(feeder[i], NULL);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(!test_env_leaked(&te), "leak");
}

/* postcopy SEED MILLISECONDS */
int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv), ms = argc > 2 ? strtoull(argv[2], NULL, 0) : 300;

	for (int vcpus = 1; vcpus <= MAX_VCPUS; vcpus *= 2)
		for (int race = 0; race < 2; race++)
			postcopy(race, vcpus, ms, &seed);
	printf("%lu uses, %lu missing, %lu asked for, %lu waits, %lu woken, %lu gave up, %lu "
	       "brought, "
	       "%lu late\n",
	       atomic_load(&uses), atomic_load(&missed), atomic_load(&demands), atomic_load(&waits),
	       atomic_load(&woken), atomic_load(&gave_up), atomic_load(&brought),
	       atomic_load(&late));
	CHECK(all_happened(), "something never happened");
	return test_result("postcopy");
}
