/*
 * Description: how a block becomes a table: what stands there while the flush is on its way, one
 * flush per block on arm64 and none elsewhere, and others who come between the two steps: unmap,
 * write-protection, ageing, removal of the slot, the end of the tables around it, other faults.
 */
#include <errno.h>

#include "mmu/internal.h"
#include "tests/unit/test_mmu_configs.h"

enum interference {
	NOTHING,
	UNMAP,
	PROTECT,
	REMOVE,
	UNMAP_ALL,
	FAULT,
	STOP,
	AGE,
	NR_INTERFERENCES
};

static const struct test_config *tc;
static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static struct s2_thread *t, *other;
static enum interference how;
static bool armed, inside;
static uint64_t block, large, page, flush_start, flush_end;
static unsigned flushes;
static bool shadows;   /* there are nested guests */
static unsigned steps; /* bbm_level, and 0 instead of 1 with those */

static void invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	if (inside || !armed)
		s2_tlb_ack(opaque, generation);
	flush_start = start;
	flush_end = end;
	flushes++;
}

/* Between the steps. */
static void look(void)
{
	struct dec_result r = dec_walk(&mem, block + page);
	struct s2_xlat x;

	CHECK(flush_start == block && flush_end == block + large, "%s: flush of %" PRIx64, tc->name,
	      flush_start);
	switch (steps) {
	case 0:
		CHECK(r.outcome == DEC_FAULT && r.size == large, "%s: not broken", tc->name);
		CHECK(!s2_translate(other, block, S2_R, &x), "%s: not broken", tc->name);
		CHECK(s2_fault(other, block, S2_R, &x) == S2_RETRY, "%s: not broken", tc->name);
		break;
	case 1:
		CHECK(r.outcome == DEC_TRANSLATED && r.size == large && r.entry >> 16 & 1,
		      "%s: no nT: %" PRIx64, tc->name, r.entry);
		CHECK(s2_translate(other, block + page, S2_R, &x) && x.level == 2 &&
			      x.hpa == r.address,
		      "%s: not usable", tc->name);
		break;
	default: CHECK(r.outcome == DEC_TRANSLATED && r.size == page, "%s: not split", tc->name);
	}
}

static void wait_for(void *opaque, uint64_t generation)
{
	if (armed && !inside) {
		inside = true;
		look();
		switch (how) {
		case UNMAP: CHECK(!s2_unmap(other, block, block + large), "unmap"); break;
		case PROTECT:
			CHECK(!s2_write_protect(other, block, block + large), "protect");
			break;
		case REMOVE: CHECK(!s2_slot_remove(other, 0), "remove"); break;
		case UNMAP_ALL: CHECK(!s2_unmap(other, 0, 0), "unmap"); break;
		case FAULT: s2_fault(other, block + 3 * page, S2_W, NULL); break;
		case STOP: CHECK(!s2_dirty_stop(other), "stop"); break;
		case AGE: CHECK(s2_age(other, block, block + large, 0, NULL) >= 0, "age"); break;
		default: break;
		}
		inside = false;
	}
	s2_tlb_ack(opaque, generation);
}

static void check_tables(void)
{
	struct dec_census c = dec_census(&mem);
	struct s2_stats stats;

	s2_get_stats(s2, &stats);
	CHECK(!c.marks && !c.bad, "%s, %d: an entry stayed frozen", tc->name, how);
	CHECK(stats.tables == c.tables, "%s, %d: %" PRIu64 " tables", tc->name, how, stats.tables);
	for (int level = 1; level <= 5; level++)
		CHECK(stats.pages[level] == c.leaves[level], "%s, %d: level %d: %" PRIu64, tc->name,
		      how, level, stats.pages[level]);
}

static void no_nt(void)
{
	for (uint64_t at = 0; at < 8 * large; at += large) {
		struct dec_result r = dec_walk(&mem, at);

		CHECK(r.size != large || !(r.entry >> 16 & 1), "%s: nT in %" PRIx64, tc->name,
		      r.entry);
	}
}

static void one(void)
{
	struct s2_tlb_client client = {
		.name = "test", .opaque = &client, .invalidate = invalidate, .wait = wait_for};
	struct s2_slot ram = {0};
	bool arm = tc->decoder == &arm_decoder;
	enum s2_result result;
	struct s2_xlat x = {0};

	if (!test_config_create(tc, &te, &s2, &mem) || s2_thread_init(&t, s2, "test") ||
	    s2_thread_init(&other, s2, "other"))
		exit(1);
	steps = shadows && tc->c.bbm_level == 1 ? 0 : tc->c.bbm_level;
	atomic_store(&s2->contexts, shadows);
	page = s2_level_size(s2, 1);
	large = s2_level_size(s2, 2);
	ram.size = 8 * large;
	ram.page_size = large;
	CHECK(!s2_slot_add(t, &ram), "add");
	for (block = 0; block < ram.size; block += large)
		CHECK(s2_fault(t, block, S2_W, &x) == S2_FIXED && x.level == 2, "map");
	CHECK(!s2_dirty_start(t), "start");
	s2_tlb_client_add(t, &client);

	/* one flush per block, none for the second page of it, none where it is not needed */
	armed = true;
	block = 5 * large;
	flushes = 0;
	result = s2_fault(t, block + page + 1, S2_W, &x);
	armed = false;
	if (!arm) {
		CHECK(result == S2_FIXED && flushes == 0, "%s: a flush", tc->name);
	} else if (how == NOTHING || (steps == 2 && how != REMOVE) || how == STOP ||
		   (how == PROTECT && steps == 1) || (how == AGE && steps != 1)) {
		CHECK(result == S2_FIXED && x.hpa == block + page + 1, "%s, %d: %d", tc->name, how,
		      result);
		/* tracking went off: one permission for all of it */
		CHECK(x.level == (how == STOP && steps < 2 ? 2 : 1), "%s, %d: level %u", tc->name,
		      how, x.level);
	} else if (how == REMOVE) {
		CHECK(result == S2_EMULATE, "%s: %d", tc->name, result);
	} else if (how == FAULT) {
		/* With nT the other fault may come first, and then this one is told. */
		CHECK(result == S2_FIXED || (steps == 1 && result == S2_RETRY), "%s: %d", tc->name,
		      result);
	} else {
		CHECK(result == S2_RETRY, "%s, %d: %d", tc->name, how, result);
	}
	if (arm && how == AGE) {
		/* A block that is not split keeps no nT, for ever. */
		CHECK(!s2_dirty_stop(t), "stop");
		no_nt();
	}
	if (arm && how == NOTHING)
		CHECK(flushes == 1, "%s: %u flushes", tc->name, flushes);
	check_tables();
	if (how == NOTHING || how == FAULT) {
		CHECK(s2_fault(t, block + page, S2_W, &x) != S2_EMULATE, "again");
		flushes = 0;
		CHECK(s2_fault(t, block + 9 * page, S2_W, &x) == S2_FIXED && x.level == 1, "other");
		CHECK(!s2_translate(t, block, S2_W, &x) && s2_translate(t, block, S2_R, &x),
		      "rest");
		CHECK(!flushes, "%s: a flush for nothing", tc->name);
	}
	s2_tlb_client_remove(t, &client);
	s2_thread_exit(other);
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%ld tables leaked", atomic_load(&te.live));
}

int main(void)
{
	const struct s2_config bad[] = {{.format = S2_EPT4, .bbm_level = 1},
					{.format = S2_ARM64_4K, .bbm_level = 3}};
	const char *why = NULL;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK(s2_create(&s2, &bad[i], &why) == -EINVAL && why, "%zu", i);
	for (int i = 0; i < TEST_CONFIGS; i++) {
		unsigned levels = test_configs[i].decoder == &arm_decoder ? 3 : 1;

		for (unsigned level = 0; level < levels; level++) {
			struct test_config config = test_configs[i];

			config.c.bbm_level = level;
			tc = &config;
			for (how = NOTHING; how < NR_INTERFERENCES; how++) {
				for (int with = 0; with < 2; with++) {
					shadows = with;
					one();
				}
			}
		}
	}
	return test_result("bbm");
}
