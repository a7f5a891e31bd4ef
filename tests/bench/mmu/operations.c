/* Blocks and first writes; and the memory that tables take. Other operations are in pairs/. */
#include <stdlib.h>
#include <string.h>

#include "tests/bench/mmu/bench.h"

static volatile uint64_t sink;

/* ---- blocks ---- */

static uint64_t invalidations(struct bench *b)
{
	struct s2_stats stats;

	s2_get_stats(b->s2, &stats);
	return stats.invalidations;
}

static void large(struct worker *w)
{
	const uint64_t blocks = w->b->stride / w->b->block;
	struct s2_xlat x = {0};
	uint64_t sum = 0;

	bench_begin(w);
	for (uint64_t i = 0; i < blocks; i++) {
		enum s2_result r;

		/* Two threads may want the same table at first. */
		while ((r = s2_fault(w->t, w->base + i * w->b->block, S2_R, &x)) == S2_RETRY)
			;
		sum += r;
	}
	bench_end(w, "map-block", (double)blocks, "ns");
	sink += sum + x.hpa;
}

/* ---- the first write to each page after tracking has begun ---- */

static const struct first {
	const char *name;
	bool born; /* with small leaves */
	bool eager;
	bool sparse; /* to one page of each block only */
} firsts[] = {{"first-write-born", true, false, false},
	      {"first-write-eager", false, true, false},
	      {"first-write-lazy", false, false, false},
	      {"sparse-write-eager", false, true, true},
	      {"sparse-write-lazy", false, false, true}};
static const struct first *first;

static void first_write(struct worker *w)
{
	const struct s2_dirty_options options = {.flags = first->eager ? S2_DIRTY_EAGER : 0};
	const uint64_t most = w->b->stride / w->b->block, before = invalidations(w->b);
	const uint64_t n = !first->sparse ? w->b->pages : most < 256 ? most : 256;
	const uint64_t step = first->sparse ? w->b->block : w->b->page;
	uint64_t flushes, blocks = n * step / w->b->block, sum = 0;
	struct s2_xlat x = {0};
	int err = 0;

	for (uint64_t i = 0; i < n; i++)
		bench_touch(w, w->base + i * step, S2_W);
	pthread_barrier_wait(&w->b->barrier);
	if (!w->id)
		err = s2_dirty_start_with(w->t, &options, NULL);
	if (err)
		bench_fail("%s: dirty tracking", w->b->format);
	pthread_barrier_wait(&w->b->barrier);
	flushes = invalidations(w->b);
	if (!w->id && w->b->threads == 1 && first->eager && !first->sparse)
		bench_print(w->b, "flushes-at-eager-start", (double)(flushes - before), "flushes");
	bench_permission = true;
	bench_begin(w);
	for (uint64_t i = 0; i < n; i++)
		sum += s2_fault(w->t, w->base + i * step, S2_W, &x);
	bench_end(w, first->name, (double)n, "ns");
	bench_permission = false;
	/* Break-before-make: one for each block, and not one more; without it none at all. */
	flushes = invalidations(w->b) - flushes;
	if (w->b->threads == 1 && !first->born && !first->eager) {
		bool forced = !strncmp(w->b->format, "arm64", 5);

		if (flushes != (forced ? blocks : 0))
			bench_fail("%s: %llu flushes for %llu blocks", w->b->format,
				   (unsigned long long)flushes, (unsigned long long)blocks);
		if (!first->sparse)
			bench_print(w->b, "flushes-per-lazy-split",
				    (double)flushes / (double)blocks, "flushes");
	} else if (w->b->threads == 1 && flushes) {
		bench_fail("%s: %llu flushes of writes to small leaves", w->b->format,
			   (unsigned long long)flushes);
	}
	sink += sum + x.hpa;
}

void bench_operations(struct bench *b)
{
	struct bench first_b = *b;

	bench_create(b, UINT64_C(1) << 29, 0);
	bench_threads(b, large);
	bench_destroy(b);
	for (unsigned i = 0; i < sizeof(firsts) / sizeof(*firsts); i++) {
		first = &firsts[i];
		bench_create(&first_b, first->born ? 0 : UINT64_C(1) << 29, 0);
		bench_threads(&first_b, first_write);
		bench_destroy(&first_b);
	}
}

/* Fully mapped by the smallest pages: what tables take of it. */
static void fill(struct worker *w)
{
	const uint64_t bytes = UINT64_C(1) << 30;
	struct s2_xlat x;

	for (uint64_t at = 0; at < bytes; at += w->b->page)
		s2_fault(w->t, at, S2_R, &x);
	bench_print(w->b, "table-share", 100.0 * (double)bench_env_live() / (double)bytes, "%");
}

static void clean_harvest(struct worker *w)
{
	const uint64_t pages = UINT64_C(1) << (40 - 12);
	struct s2_slot big = {.gpa = UINT64_C(1) << 40,
			      .size = UINT64_C(1) << 40,
			      .page_size = w->b->page,
			      .flags = S2_SLOT_LOG};
	uint64_t *bitmap = malloc(pages / 8);

	if (!bitmap)
		bench_fail("no memory");
	if (s2_slot_add(w->t, &big))
		bench_fail("%s: a slot of 1 TiB", w->b->format);
	s2_dirty_harvest(w->t, big.gpa, pages, bitmap); /* the bitmaps are there now */
	bench_begin(w);
	if (s2_dirty_harvest(w->t, big.gpa, pages, bitmap))
		bench_fail("%s: it is clean", w->b->format);
	bench_end(w, "clean-harvest-1T", 1, "ms");
	free(bitmap);
}

void bench_memory(struct bench *b)
{
	bench_create(b, 0, 0);
	bench_threads(b, fill);
	bench_destroy(b);
	if (b->config.format == S2_EPT4 || b->config.format == S2_ARM64_4K ||
	    b->config.format == S2_SV48X4) {
		bench_create(b, 0, S2_SLOT_LOG);
		bench_threads(b, clean_harvest);
		bench_destroy(b);
	}
}
