/* Description: the life of a small second stage, one thread: slots, faults, dirty tracking, unmap.
 */
#include <errno.h>

#include "tests/unit/test_mmu_util.h"

enum { KiB = 1 << 10, MiB = 1 << 20 };

static int invalidations;
static uint64_t flushed_start, flushed_end;

static void invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	invalidations++;
	flushed_start = start;
	flushed_end = end;
	s2_tlb_ack(opaque, generation);
}

static void life(enum s2_format format, unsigned bits, uint64_t offset)
{
	struct test_env te;
	struct s2_config config = {.format = format, .input_bits = bits, .env = &te.env};
	struct s2_tlb_client client = {.name = "test", .opaque = &client, .invalidate = invalidate};
	struct s2_slot ram = {.gpa = 0, .size = 64 * MiB, .hpa = 0, .page_size = 2 * MiB};
	uint64_t bitmap[64 * MiB / (4 * KiB) / 64];
	const char *why = NULL;
	struct s2_stats stats;
	struct s2_thread *t;
	struct s2_xlat x;
	struct s2 *s2;

	test_env_init(&te, offset);
	CHECK(s2_create(&s2, &config, &why) == 0, "%s", why);
	CHECK(s2_thread_init(&t, s2, "test") == 0, "init");
	s2_tlb_client_add(t, &client);
	CHECK((s2_root(s2) & 0xfff) == (format == S2_EPT5 ? 0x26 : 0x1e), "%" PRIx64, s2_root(s2));

	CHECK(s2_slot_add(t, &ram) == 0, "add");
	CHECK(s2_slot_add(t, &ram) == -EEXIST, "add twice");
	CHECK(!s2_translate(t, 0x1234, S2_R, &x), "nothing mapped yet");
	CHECK(s2_fault(t, 0x1234, S2_R, &x) == S2_FIXED, "fault");
	CHECK(x.hpa == 0x1234 && x.level == 2 && x.perm == 7, "%" PRIx64, x.entry);
	CHECK(s2_translate(t, 0x1fffff, S2_W, &x) && x.hpa == 0x1fffff, "same leaf");
	CHECK(s2_fault(t, 0x1234, S2_W, &x) == S2_SPURIOUS, "spurious");
	CHECK(s2_fault(t, 64 * MiB, S2_R, &x) == S2_EMULATE, "no slot");
	CHECK(s2_fault(t, UINT64_C(1) << bits, S2_R, &x) == S2_INVALID, "too wide");

	/* dirty tracking: protect, split by a write, harvest, harvest again */
	CHECK(s2_dirty_start(t) == 0 && invalidations == 1, "start");
	CHECK(!s2_translate(t, 0x1234, S2_W, &x) && s2_translate(t, 0x1234, S2_R, &x), "read-only");
	CHECK(s2_fault(t, 0x3000, S2_W, &x) == S2_FIXED && x.level == 1 && x.perm == 7, "split");
	CHECK(!s2_translate(t, 0x4000, S2_W, &x) && x.level == 1, "the neighbour stays protected");
	s2_dirty_mark(t, 0x200fff, 2);
	CHECK(s2_dirty_harvest(t, 0, 64 * MiB / (4 * KiB), bitmap) == 3, "harvest");
	CHECK(bitmap[0] == 1 << 3 && bitmap[8] == 3, "%" PRIx64 " %" PRIx64, bitmap[0], bitmap[8]);
	CHECK(!s2_translate(t, 0x3000, S2_W, &x), "protected again");
	CHECK(s2_dirty_harvest(t, 0, 64 * MiB / (4 * KiB), bitmap) == 0, "clean");
	CHECK(s2_fault(t, 0x3000, S2_W, &x) == S2_FIXED, "W again");
	CHECK(s2_dirty_harvest(t, 0, 64, bitmap) == 1 && bitmap[0] == 1 << 3, "dirty again");
	CHECK(s2_dirty_stop(t) == 0 && s2_dirty_stop(t) == -EALREADY, "stop");

	s2_get_stats(s2, &stats);
	CHECK(stats.pages[1] == 512 && stats.pages[2] == 0, "%" PRIu64, stats.pages[1]);
	CHECK(stats.splits == 1 && stats.tables == (format == S2_EPT5 ? 5 : 4), "tables");

	CHECK(s2_unmap(t, 0x3000, 0x5000) == 0, "unmap");
	CHECK(flushed_start == 0x3000 && flushed_end == 0x5000, "range of the flush");
	CHECK(!s2_translate(t, 0x3000, S2_R, &x) && !s2_translate(t, 0x4fff, S2_R, &x), "unmapped");
	CHECK(s2_translate(t, 0x2fff, S2_R, &x) && s2_translate(t, 0x5000, S2_R, &x), "others not");
	CHECK(s2_fault(t, 0x3000, S2_W, &x) == S2_FIXED && x.hpa == 0x3000, "mapped again");
	CHECK(s2_slot_remove(t, 0) == 0 && s2_slot_remove(t, 0) == -ENOENT, "remove");
	CHECK(s2_fault(t, 0x3000, S2_R, &x) == S2_EMULATE, "no slot any more");
	s2_get_stats(s2, &stats);
	CHECK(stats.pages[1] == 0 && stats.deferred_frees >= 1, "%" PRIu64, stats.pages[1]);

	s2_tlb_client_remove(t, &client);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%ld tables leaked", atomic_load(&te.live));
	invalidations = 0;
}

/* Registrations are counted, given back and handed from thread to thread. */
static void registrations(void)
{
	static struct s2_thread *t[512];
	struct s2_config config = {.format = S2_EPT4, .input_bits = 48};
	struct s2_slot ram = {.size = 2 * MiB, .page_size = 4 * KiB};
	struct s2_thread *one_more = NULL;
	struct s2_stats stats;
	struct s2 *s2;

	CHECK(s2_create(&s2, &config, NULL) == 0, "create");
	for (int i = 0; i < 512; i++)
		CHECK(s2_thread_init(&t[i], s2, "many") == 0, "registration %d", i);
	CHECK(s2_thread_init(&one_more, s2, "one more") == -EUSERS, "the 513th");
	CHECK(s2_slot_add(t[3], &ram) == 0, "add");
	for (int i = 0; i < 512; i++)
		CHECK(s2_fault(t[i], (uint64_t)i * 4 * KiB, S2_W, NULL) == S2_FIXED, "%d", i);
	CHECK(s2_unmap(t[511], 0, 1 * MiB) == 0, "unmap");
	for (int i = 0; i < 512; i++)
		s2_thread_exit(t[i]);
	s2_get_stats(s2, &stats);
	CHECK(stats.pages[1] == 256 && stats.faults[S2_FIXED] == 512, "counters outlive threads");
	CHECK(s2_thread_init(&one_more, s2, "one more") == 0, "there is room again");
	CHECK(s2_unmap(one_more, 0, 0) == 0, "unmap");
	s2_get_stats(s2, &stats);
	/* what is below 1 GiB went as a whole */
	CHECK(stats.pages[1] == 0 && stats.tables == 2, "%" PRIu64, stats.tables);
	s2_thread_exit(one_more);
	s2_destroy(s2);
}

int main(void)
{
	registrations();
	life(S2_EPT4, 48, 0);
	life(S2_EPT4, 40, UINT64_C(1) << 50);
	life(S2_EPT5, 57, 0);
	return test_result("smoke");
}
