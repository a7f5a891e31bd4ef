/* The core as a contestant. */
#include <stdlib.h>

#include "tests/bench/mmu/bench.h"
#include "tests/bench/mmu/pairs/side.h"

_Thread_local bool bench_permission; /* of this copy */

struct place {
	struct s2_thread *t;
	uint64_t page, block;
};

static void *core_create(const struct s2_config *config, uint64_t size)
{
	struct s2_slot ram = {.flags = S2_SLOT_LOG}, large = {0};
	const char *why = "no memory";
	struct s2_thread *t;
	struct s2 *s2;

	if (s2_create(&s2, config, &why) || s2_thread_init(&t, s2, "main"))
		bench_fail("%s: %s", s2_format_name(config->format), why);
	ram.page_size = s2_level_size(s2, 1);
	large.page_size = s2_level_size(s2, 2);
	for (uint64_t base = 0; base < size; base += SIDE_STRIDE) {
		ram.gpa = ram.hpa = base;
		ram.size = SIDE_BLOCKS;
		large.gpa = large.hpa = base + SIDE_BLOCKS;
		large.size = SIDE_STRIDE - SIDE_BLOCKS;
		if (s2_slot_add(t, &ram) || s2_slot_add(t, &large))
			bench_fail("%s: s2_slot_add", s2_name(s2));
	}
	s2_thread_exit(t);
	return s2;
}

static void core_destroy(void *instance)
{
	s2_destroy(instance);
}

static void core_leave(void *thread)
{
	struct place *p = thread;

	s2_thread_exit(p->t);
	free(p);
}

static void faults(const struct place *p, uint64_t base, uint64_t step, uint64_t pages,
		   uint32_t access)
{
	struct s2_xlat x;

	for (uint64_t i = 0; i < pages; i++) {
		enum s2_result r;

		do
			r = s2_fault(p->t, base + i * step, access, &x);
		while (r == S2_RETRY);
		if (r != S2_FIXED)
			bench_fail("a fault is %s", s2_result_name(r));
	}
}

static void *core_enter(void *instance, uint64_t base, uint64_t pages)
{
	struct place *p = malloc(sizeof(*p));

	if (!p || s2_thread_init(&p->t, instance, "bench"))
		bench_fail("no memory");
	p->page = s2_level_size(instance, 1);
	p->block = s2_level_size(instance, 2);
	faults(p, base + SIDE_BLOCKS, p->block, pages * p->page / p->block, S2_R);
	return p;
}

static void hits(const struct place *p, uint64_t base, uint64_t count)
{
	struct s2_xlat x;

	for (uint64_t i = 0; i < count; i++) {
		if (!s2_translate(p->t, base + (i & 63) * p->page, S2_R, &x))
			bench_fail("a page is missing");
	}
}

static void no_invalidation(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)opaque, (void)start, (void)end, (void)generation;
	bench_fail("nobody changes anything now");
}

/* As a processor does it that fills its TLB. */
static void client_hits(const struct place *p, uint64_t base, uint64_t count)
{
	struct s2_tlb_client client = {.invalidate = no_invalidation, .thread = p->t};

	s2_tlb_client_add(p->t, &client);
	hits(p, base, count);
	s2_tlb_client_remove(p->t, &client);
}

static void harvest(const struct place *p, uint64_t base, uint64_t pages)
{
	const uint64_t units = pages * (p->page >> 12);
	uint64_t *bitmap = malloc(units / 8);

	if (!bitmap || s2_dirty_harvest(p->t, base, units, bitmap) != (int64_t)units)
		bench_fail("a dirty page is missing");
	free(bitmap);
}

static bool core_run(void *thread, enum side_op op, uint64_t base, uint64_t pages)
{
	const struct place *p = thread;
	const uint64_t end = base + pages * p->page, blocks = pages * p->page / p->block;

	switch (op) {
	case SIDE_MAP: faults(p, base, p->page, pages, S2_R); break;
	case SIDE_HIT: client_hits(p, base, pages); break;
	case SIDE_HIT_SECTION: hits(p, base, pages); break;
	case SIDE_PERMISSION:
	case SIDE_WRITABLE:
		bench_permission = true;
		faults(p, base, p->page, pages, S2_W);
		bench_permission = false;
		break;
	case SIDE_HARVEST: harvest(p, base, pages); break;
	case SIDE_WRITE_PROTECT: s2_write_protect(p->t, base, end); break;
	case SIDE_SPLIT:
		if (s2_split(p->t, base + SIDE_BLOCKS, end + SIDE_BLOCKS, 1))
			bench_fail("s2_split");
		break;
	case SIDE_COLLAPSE:
		if (s2_collapse(p->t, base + SIDE_BLOCKS, end + SIDE_BLOCKS) != (int64_t)blocks)
			bench_fail("s2_collapse");
		break;
	default: s2_unmap(p->t, base, end); break;
	}
	return true;
}

#ifdef BENCH_EXCLUSIVE
#define SIDE side_exclusive
#elif defined(BENCH_OLDER)
#define SIDE side_older
#else
#define SIDE side_parallel
#endif

const struct side SIDE = {.scheme = BENCH_SCHEME,
			  .create = core_create,
			  .destroy = core_destroy,
			  .enter = core_enter,
			  .leave = core_leave,
			  .run = core_run};
