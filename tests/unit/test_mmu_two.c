/*
 * Description: two instances in one process, as a VM's table and an identity table that isolates a
 * device: other formats, other environments, the same threads. Faults, unmapping, protection and
 * tracking of one go on while the other is used; each translates by its own slots, and each gives
 * back what its own environment gave.
 */
#include <sched.h>

#include "tests/unit/test_mmu_configs.h"

enum { THREADS = 4, PAGES = 2048 };

static const struct test_config *tc;
static struct test_env te, identity_env;
static struct s2 *vm, *identity;
static uint64_t base, page, vm_hpa; /* of both slots; of the VM's */
static atomic_bool stop;
static atomic_ulong faults[2], changes;

struct worker {
	pthread_t thread;
	uint64_t seed;
};

static void use(struct s2_thread *t, int which, uint64_t *seed)
{
	uint64_t offset = test_random(seed) % PAGES * page + test_random(seed) % page;
	uint32_t access = test_random(seed) % 2 ? S2_R : S2_W;
	struct s2_xlat x;

	while (!s2_translate(t, base + offset, access, &x)) {
		enum s2_result r = s2_fault(t, base + offset, access, &x);

		atomic_fetch_add_explicit(&faults[which], 1, memory_order_relaxed);
		CHECK(r == S2_FIXED || r == S2_SPURIOUS || r == S2_RETRY, "instance %d: %d", which,
		      r);
		if (r != S2_RETRY)
			break;
		sched_yield();
	}
	CHECK(x.hpa == (which ? base : vm_hpa) + offset, "instance %d: %" PRIx64 " -> %" PRIx64,
	      which, base + offset, x.hpa);
}

static void change(struct s2_thread *t, uint64_t *seed)
{
	uint64_t first = test_random(seed) % PAGES, n = 1 + test_random(seed) % 600;

	if (n > PAGES - first)
		n = PAGES - first;
	if (test_random(seed) % 2)
		CHECK(!s2_unmap(t, base + first * page, base + (first + n) * page), "unmap");
	else
		CHECK(!s2_write_protect(t, base + first * page, base + (first + n) * page),
		      "protect");
	atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct s2_thread *t[2];

	CHECK(!s2_thread_init(&t[0], vm, "vcpu") && !s2_thread_init(&t[1], identity, "device"),
	      "init");
	/* Once, even if the machine is so busy that it is over by then. */
	do {
		for (int i = 0; i < 64; i++)
			use(t[i % 2], i % 2, &w->seed);
		change(t[test_random(&w->seed) % 2], &w->seed);
	} while (!atomic_load(&stop));
	s2_thread_exit(t[0]);
	s2_thread_exit(t[1]);
	return NULL;
}

static void check_counts(struct s2 *s2, const struct dec_memory *mem)
{
	struct dec_census c = dec_census(mem);
	struct s2_stats stats;

	s2_get_stats(s2, &stats);
	CHECK(!c.bad && !c.marks && stats.tables == c.tables, "%" PRIu64 " tables, not %" PRIu64,
	      stats.tables, c.tables);
	for (int level = 1; level <= 3; level++)
		CHECK(stats.pages[level] == c.leaves[level], "level %d", level);
}

/* The VM's format by turns, beside an identity table of NPT. */
static void run(uint64_t *seed)
{
	const struct test_config *other = test_configs;
	struct dec_memory mem, identity_mem;
	struct worker worker[THREADS];
	struct s2_slot slot;
	struct s2_thread *t[2];

	while (strcmp(other->name, "npt4"))
		other++;
	if (!test_config_create(tc, &te, &vm, &mem) ||
	    !test_config_create(other, &identity_env, &identity, &identity_mem))
		exit(1);
	page = s2_level_size(vm, 1);
	base = test_config_boundary(&mem) - PAGES / 2 * page;
	vm_hpa = test_config_hpa(tc) + (UINT64_C(1) << 32);
	CHECK(!s2_thread_init(&t[0], vm, "main") && !s2_thread_init(&t[1], identity, "main"),
	      "init");
	slot = (struct s2_slot){.gpa = base,
				.size = PAGES * page,
				.hpa = vm_hpa,
				.page_size = s2_level_size(vm, 2)};
	CHECK(!s2_slot_add(t[0], &slot), "slot");
	slot.hpa = base;
	slot.page_size = 2 << 20;
	CHECK(!s2_slot_add(t[1], &slot), "slot");

	atomic_store(&stop, false);
	for (int i = 0; i < THREADS; i++) {
		worker[i].seed = test_random(seed) | 1;
		pthread_create(&worker[i].thread, NULL, work, &worker[i]);
	}
	for (int i = 0; i < 10; i++) {
		CHECK(!s2_dirty_start(t[i % 2]), "start");
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
		CHECK(!s2_dirty_stop(t[i % 2]), "stop");
	}
	atomic_store(&stop, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(worker[i].thread, NULL);
	check_counts(vm, &mem);
	check_counts(identity, &identity_mem);
	s2_thread_exit(t[0]);
	s2_destroy(vm);
	/* One is gone, the other is whole. */
	for (int i = 0; i < 1000; i++)
		use(t[1], 1, seed);
	check_counts(identity, &identity_mem);
	s2_thread_exit(t[1]);
	s2_destroy(identity);
	CHECK(!test_env_leaked(&te) && !test_env_leaked(&identity_env), "leaked");
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);

	for (int i = (int)(seed % 3); i < TEST_CONFIGS; i += 3) {
		tc = &test_configs[i];
		/* Both have the same addresses: the identity's hosts must hold them. */
		if (tc->c.format != S2_SV32X4)
			run(&seed);
	}
	printf("%lu and %lu faults, %lu changes\n", atomic_load(&faults[0]),
	       atomic_load(&faults[1]), atomic_load(&changes));
	CHECK(atomic_load(&faults[0]) && atomic_load(&faults[1]) && atomic_load(&changes),
	      "nothing happened");
	return test_result("two");
}
