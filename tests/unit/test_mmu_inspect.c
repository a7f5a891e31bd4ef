/* Description: looking into a second stage: walks and dumps against what was mapped, in every
 * format; a dump in small pieces says the same as one call; trace rings while threads write them.
 */
#include <errno.h>

#include "mmu/inspect.h"
#include "tests/unit/test_mmu_configs.h"
#include "tests/unit/test_mmu_util.h"

enum { MAX = 64 };

static int dump_all(struct s2 *s2, struct s2_mapping *out, size_t room, size_t step)
{
	uint64_t gpa = 0;
	bool done = false;
	size_t count = 0;

	while (!done && count < room) {
		int n = s2_inspect_dump(s2, &gpa, &done, out + count,
					room - count < step ? room - count : step);

		CHECK(n >= 0, "%d", n);
		if (n < 0)
			break;
		count += (size_t)n;
	}
	return (int)count;
}

static void looks(const struct test_config *tc)
{
	struct s2_mapping all[MAX], pieces[MAX];
	struct s2_step step[S2_WALK_MAX];
	struct s2_config config = tc->c;
	struct test_env te;
	uint64_t page, block, gpa;
	struct s2_thread *t;
	const char *why = "";
	struct s2_xlat x;
	unsigned up = 2;
	struct s2 *s2;
	bool done;
	int n;

	test_env_init(&te, tc->offset);
	config.env = &te.env;
	CHECK(!s2_create(&s2, &config, &why), "%s: %s", tc->name, why);
	CHECK(!s2_thread_init(&t, s2, "a name that is longer than a trace's"), "%s", tc->name);
	page = s2_level_size(s2, 1);
	block = s2_level_size(s2, up);
	const struct s2_slot ram = {.size = 4 * block, .hpa = block, .page_size = block};
	const struct s2_slot log = {.gpa = 8 * block,
				    .size = block,
				    .hpa = 16 * block,
				    .page_size = block,
				    .flags = S2_SLOT_LOG};

	CHECK(!s2_slot_add(t, &ram) && !s2_slot_add(t, &log), "%s: slots", tc->name);
	CHECK(dump_all(s2, all, MAX, MAX) == 0, "%s: nothing is mapped", tc->name);
	n = s2_inspect_walk(s2, 5 * page, step);
	CHECK(n == 1 && step[0].entry.kind == S2_ENTRY_NONE && !step[0].entry.raw, "%s: %d",
	      tc->name, n);

	s2_fault(t, 0, S2_R, NULL);
	s2_fault(t, block, S2_R, NULL);
	s2_fault(t, 3 * block, S2_R, NULL);
	s2_fault(t, 8 * block, S2_R, NULL);
	s2_fault(t, 8 * block + page, S2_R, NULL);
	s2_fault(t, 8 * block + 2 * page, S2_W, NULL);
	n = dump_all(s2, all, MAX, MAX);
	CHECK(n == 4, "%s: %d mappings", tc->name, n);
	CHECK(all[0].gpa == 0 && all[0].hpa == block && all[0].size == 2 * block &&
		      all[0].entry.level == up && all[0].entry.perm == (S2_R | S2_W | S2_X),
	      "%s: two blocks are one mapping", tc->name);
	CHECK(all[1].gpa == 3 * block && all[1].size == block, "%s", tc->name);
	CHECK(all[2].gpa == 8 * block && all[2].size == 2 * page && all[2].entry.level == 1 &&
		      !(all[2].entry.perm & S2_W) && all[2].hpa == 16 * block,
	      "%s: pages", tc->name);
	CHECK(all[3].gpa == 8 * block + 2 * page && all[3].size == page && all[3].entry.perm & S2_W,
	      "%s: the writable one", tc->name);
	CHECK(all[3].entry.memory == S2_MEMORY_WB && !all[3].entry.software, "%s", tc->name);
	for (size_t room = 1; room < 4; room++) {
		CHECK(dump_all(s2, pieces, MAX, room) == n, "%s: by %zu", tc->name, room);
		for (int i = 0; i < n; i++)
			CHECK(pieces[i].gpa == all[i].gpa && pieces[i].size == all[i].size,
			      "%s: by %zu, %d", tc->name, room, i);
	}

	gpa = 8 * block + 2 * page + 7;
	CHECK(s2_translate(t, gpa, S2_W, &x), "%s", tc->name);
	n = s2_inspect_walk(s2, gpa, step);
	CHECK(n >= 2 && step[n - 1].entry.kind == S2_ENTRY_LEAF &&
		      step[n - 1].entry.raw == x.entry && step[n - 1].entry.addr == x.hpa - 7 &&
		      step[n - 1].entry.perm == x.perm && step[n - 1].gpa == gpa - 7 &&
		      step[n - 1].size == page,
	      "%s: the leaf", tc->name);
	for (int i = 0; i < n - 1; i++)
		CHECK(step[i].entry.kind == S2_ENTRY_TABLE &&
			      step[i + 1].pa - step[i].entry.addr < page &&
			      step[i].entry.level == step[i + 1].entry.level + 1,
		      "%s: step %d", tc->name, i);

	CHECK(s2_inspect_walk(s2, UINT64_MAX, step) == -EINVAL, "%s", tc->name);
	gpa = 1;
	CHECK(s2_inspect_dump(s2, &gpa, &done, all, MAX) == -EINVAL, "%s", tc->name);
	gpa = UINT64_MAX & ~(page - 1);
	CHECK(s2_inspect_dump(s2, &gpa, &done, all, MAX) == -EINVAL, "%s", tc->name);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%s", tc->name);
}

/* More entries than one call looks at. */
static void large(void)
{
	const struct s2_config config = {.format = S2_EPT4};
	struct s2_slot ram = {.size = UINT64_C(1) << 30, .page_size = 4096};
	struct s2_mapping m[4];
	uint64_t gpa = 0, size = 0;
	unsigned calls = 0;
	struct s2_thread *t;
	bool done = false;
	struct s2 *s2;

	CHECK(!s2_create(&s2, &config, NULL) && !s2_thread_init(&t, s2, "t"), "create");
	CHECK(!s2_slot_add(t, &ram), "slot");
	for (uint64_t i = 0; i < ram.size; i += 4096)
		s2_fault(t, i, S2_R, NULL);
	while (!done && calls < 10) {
		int n = s2_inspect_dump(s2, &gpa, &done, m, 4);

		CHECK(n >= 0 && n <= 1, "%d", n);
		for (int i = 0; i < n; i++) {
			CHECK(m[i].gpa == size && m[i].hpa == size, "%" PRIx64, m[i].gpa);
			size += m[i].size;
		}
		calls++;
	}
	CHECK(size == ram.size && calls == 3, "%" PRIx64 " in %u calls", size, calls);
	s2_thread_exit(t);
	s2_destroy(s2);
}

/* ---- traces ------------------------------------------------------------------------------- */

static _Atomic uint64_t ticks;

static uint64_t tick(void)
{
	return atomic_fetch_add(&ticks, 1) + 1;
}

static void trace_life(void)
{
	static struct s2_trace_entry e[2000];
	const struct s2_config config = {.format = S2_EPT4};
	const struct s2_slot ram = {.size = 64 << 20, .page_size = 4096};
	struct s2_thread *t, *late;
	struct s2 *s2;
	size_t n;

	CHECK(!s2_create(&s2, &config, NULL) && !s2_thread_init(&t, s2, "one"), "create");
	CHECK(!s2_slot_add(t, &ram), "slot");
	s2_fault(t, 0, S2_R, NULL);
	CHECK(s2_trace_read(s2, e, 2000) == 0 && !s2_trace_running(s2), "off");
	CHECK(!s2_trace_start(s2, tick) && s2_trace_start(s2, tick) == -EALREADY, "start");
	CHECK(!s2_thread_init(&late, s2, "two"), "a thread that comes later");
	s2_fault(t, 0x1000, S2_W, NULL);
	s2_fault(late, 0x1000, S2_R, NULL);
	s2_unmap(t, 0x1000, 0x2000);
	s2_fault(late, UINT64_C(1) << 48, S2_X, NULL);
	n = s2_trace_read(s2, e, 2000);
	CHECK(n == 5, "%zu events", n);
	CHECK(e[0].event == S2_TRACE_FAULT && e[0].outcome == S2_FIXED && e[0].access == S2_W &&
		      e[0].gpa == 0x1000 && !e[0].before && e[0].after && e[0].level == 1 &&
		      !strcmp(e[0].thread, "one") && e[0].number == 1 && e[0].time,
	      "a fault");
	CHECK(e[1].outcome == S2_SPURIOUS && !strcmp(e[1].thread, "two") &&
		      e[1].before == e[0].after,
	      "another's");
	CHECK(e[2].event == S2_TRACE_UNMAP && e[2].before == e[0].after &&
		      e[2].outcome == S2_NR_RESULTS,
	      "unmap");
	CHECK(e[3].event == S2_TRACE_FLUSH && e[3].gpa == 0x1000 && e[3].after == 0x2000, "flush");
	CHECK(e[4].outcome == S2_INVALID && e[4].access == S2_X, "invalid");
	CHECK(s2_trace_read(s2, e, 2) == 2 && e[1].outcome == S2_INVALID, "the newest two");
	s2_thread_exit(late);
	for (int i = 0; i < 3000; i++)
		s2_fault(t, (uint64_t)i * 4096, S2_R, NULL);
	n = s2_trace_read(s2, e, 2000);
	CHECK(n >= 1000 && n <= 1024 && e[n - 1].gpa == 2999 * 4096 && e[n - 1].number == 3003,
	      "%zu of a full ring", n);
	s2_trace_stop(s2);
	s2_fault(t, 0x5000, S2_R, NULL);
	CHECK(s2_trace_read(s2, e, 1) == 1 && e[0].gpa == 2999 * 4096, "kept after the stop");
	CHECK(!s2_trace_start(s2, NULL) && s2_trace_read(s2, e, 1) == 0, "a new start");
	s2_fault(t, 0x5000, S2_R, NULL);
	CHECK(s2_trace_read(s2, e, 1) == 1 && e[0].number == 1 && !e[0].time, "without a clock");
	s2_thread_exit(t);
	s2_destroy(s2);
}

enum { WRITERS = 3, FAULTS = 60000 };
static struct s2 *shared;
static atomic_uint writing;

/* Each fault's gpa is told by its access, so that a torn entry would be seen. */
static void *writer(void *arg)
{
	const uint64_t id = (uint64_t)(uintptr_t)arg;
	struct s2_thread *t;

	CHECK(!s2_thread_init(&t, shared, "writer"), "init");
	for (uint64_t i = 0; i < (uint64_t)test_scale(FAULTS); i++)
		s2_fault(t, UINT64_C(1) << 48 | i << 12 | id, i % 2 ? S2_R : S2_X, NULL);
	s2_thread_exit(t);
	atomic_fetch_sub(&writing, 1);
	return NULL;
}

static void race(void)
{
	static struct s2_trace_entry e[4096];
	const struct s2_config config = {.format = S2_EPT4};
	pthread_t thread[WRITERS];
	size_t most = 0;

	CHECK(!s2_create(&shared, &config, NULL), "create");
	atomic_store(&writing, WRITERS);
	CHECK(!s2_trace_start(shared, NULL), "start");
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&thread[i], NULL, writer, (void *)i);
	while (atomic_load(&writing)) {
		size_t n = s2_trace_read(shared, e, 4096);

		most = n > most ? n : most;
		for (size_t i = 0; i < n; i++)
			CHECK(e[i].event == S2_TRACE_FAULT && e[i].outcome == S2_INVALID &&
				      e[i].access == (e[i].gpa >> 12 & 1 ? S2_R : S2_X) &&
				      (e[i].gpa & 0xfff) < WRITERS,
			      "%zu: %" PRIx64 " %u", i, e[i].gpa, e[i].access);
		if (most % 7 == 0) {
			s2_trace_stop(shared);
			s2_trace_start(shared, tick);
		}
	}
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	s2_destroy(shared);
}

int main(void)
{
	for (int i = 0; i < TEST_CONFIGS; i++)
		looks(&test_configs[i]);
	large();
	trace_life();
	race();
	return test_result("inspect");
}
