/*
 * Description: in each format, every allocation of a scenario fails once: the call says so, the
 * tables are what they were before it, the same call succeeds when there is memory again, and
 * nothing leaks.
 */
#include <errno.h>

#include "tests/unit/test_mmu_configs.h"

#define K4  UINT64_C(0x1000)
#define M2  UINT64_C(0x200000)
#define GiB UINT64_C(0x40000000)

static struct test_env te;
static struct dec_memory mem;
static const struct test_config *tc;
static struct s2 *s2;
static struct s2_thread *t;
static unsigned failed; /* calls that reported the failure */

/* Runs the call; if it reports lack of memory, checks that it changed nothing, and runs it again
 * with memory. */
#define STEP(call, nomem, fine)                                                                    \
	do {                                                                                       \
		struct dec_census was = dec_census(&mem), is;                                      \
		int got = (int)(call);                                                             \
		if (got == (nomem)) {                                                              \
			is = dec_census(&mem);                                                     \
			CHECK(atomic_load(&te.fail_after) == 0, "%s: no failure was injected",     \
			      #call);                                                              \
			CHECK(!memcmp(&was, &is, sizeof(is)), "%s: changed something", #call);     \
			atomic_store(&te.fail_after, -1);                                          \
			failed++;                                                                  \
			got = (int)(call);                                                         \
		}                                                                                  \
		CHECK(got == (fine), "%s: %d", #call, got);                                        \
	} while (0)

static void scenario(void)
{
	const struct s2_slot ram = {.gpa = 0, .size = 4 * GiB, .hpa = 0, .page_size = GiB};
	const struct s2_slot far = {.gpa = UINT64_C(1) << (mem.shape.input_bits - 1),
				    .size = GiB,
				    .hpa = 4 * GiB,
				    .page_size = M2};
	struct s2_slot more = {.size = K4, .hpa = 8 * GiB, .page_size = K4};
	uint64_t bitmap[512];
	struct s2_xlat x;

	STEP(s2_slot_add(t, &ram), -ENOMEM, 0);
	STEP(s2_slot_add(t, &far), -ENOMEM, 0);
	STEP(s2_fault(t, 0x1234567, S2_W, &x), S2_NOMEM, S2_FIXED);
	CHECK(x.level == 3 && x.hpa == 0x1234567, "%" PRIx64, x.entry);
	STEP(s2_fault(t, far.gpa + 5 * M2, S2_W, &x), S2_NOMEM, S2_FIXED);
	CHECK(x.level == 2 && x.hpa == far.hpa + 5 * M2, "%" PRIx64, x.entry);
	STEP(s2_dirty_start(t), -ENOMEM, 0);
	STEP(s2_fault(t, 0x1234567, S2_W, &x), S2_NOMEM, S2_FIXED); /* splits 1 GiB to 4 KiB */
	CHECK(x.level == 1 && x.hpa == 0x1234567, "%" PRIx64, x.entry);
	STEP(s2_fault(t, 0x5234567, S2_W, &x), S2_NOMEM, S2_FIXED);	 /* splits 2 MiB */
	STEP(s2_fault(t, 0x5234567 + K4, S2_W, &x), S2_NOMEM, S2_FIXED); /* needs no table */
	STEP(s2_fault(t, far.gpa + 9 * M2, S2_R, &x), S2_NOMEM, S2_FIXED);
	STEP(s2_dirty_harvest(t, 0, 32768, bitmap), -ENOMEM, 3);
	for (uint64_t i = 0; i < 100; i++) { /* the array of slots grows */
		more.gpa = 8 * GiB + 2 * i * K4;
		STEP(s2_slot_add(t, &more), -ENOMEM, 0);
	}
	STEP(s2_unmap(t, 0, 3 * GiB), -ENOMEM, 0);
	STEP(s2_write_protect(t, 0, 0), -ENOMEM, 0);
	STEP(s2_slot_remove(t, far.gpa), -ENOMEM, 0);
	STEP(s2_dirty_stop(t), -ENOMEM, 0);
	STEP(s2_fault(t, 0x1234567, S2_R, &x), S2_NOMEM, S2_FIXED);
	CHECK(x.level == 3, "level %u", x.level);
}

static bool once(long n)
{
	struct s2_config config = tc->c;
	struct s2_registers regs;
	const char *why = NULL;
	struct s2_stats stats;
	struct dec_census c;
	bool done;
	int err;

	test_env_init(&te, tc->offset);
	config.env = &te.env;
	atomic_store(&te.fail_after, n);
	err = s2_create(&s2, &config, &why);
	if (err) {
		CHECK(err == -ENOMEM && !atomic_load(&te.live), "create");
		failed++;
		return false;
	}
	CHECK(!s2_registers(s2, 0, &regs), "registers");
	test_config_memory(tc, &te, regs.root, regs.control, &mem);
	CHECK(s2_thread_init(&t, s2, "test") == 0, "thread");
	scenario();
	done = atomic_load(&te.fail_after) > 0; /* the scenario has fewer allocations than that */
	c = dec_census(&mem);
	s2_get_stats(s2, &stats);
	for (int level = 1; level <= 3; level++)
		CHECK(stats.pages[level] == c.leaves[level], "level %d: %" PRIu64, level,
		      stats.pages[level]);
	CHECK(stats.tables == c.tables && !c.marks && !c.bad, "%" PRIu64 " tables", stats.tables);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "failure %ld: %ld tables leaked", n,
	      atomic_load(&te.live));
	return done;
}

int main(void)
{
	static const char *const some[] = {"ept5", "npt4", "arm64 4K, 40 bits", "sv57x4"};

	for (int i = 0; i<TEST_CONFIGS; i += TEST_STEP> 1 ? 2 : 1) {
		long n = 0;

		tc = &test_configs[i];
		for (size_t j = 0; j < sizeof(some) / sizeof(*some); j++) {
			if (strcmp(tc->name, some[j]))
				continue;
			failed = 0;
			/* a sanitizer's run skips some, but not the last */
			while (!once(n))
				n += test_scale(30) == 30 ? 1 : 5;
			printf("%s: up to %ld allocations until a failure; %u calls reported one\n",
			       tc->name, n, failed);
			/* the others only topped up a cache that held enough */
			CHECK(failed > (unsigned)test_scale(110), "%u", failed);
		}
	}
	return test_result("nomem");
}
