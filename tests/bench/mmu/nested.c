/* Nested guests: what shadows cost those who use them, and those who do not. The guest's second
 * stage is a second instance over the same memory. One thread. */
#include "mmu/shadow.h"
#include "tests/bench/mmu/bench.h"

#define GiB4 (UINT64_C(4) << 30)

static uint64_t load(void *opaque, uint64_t hpa, unsigned bytes)
{
	(void)opaque;
	return bytes == 4 ? __atomic_load_n((uint32_t *)(uintptr_t)hpa, __ATOMIC_ACQUIRE)
			  : __atomic_load_n((uint64_t *)(uintptr_t)hpa, __ATOMIC_ACQUIRE);
}

enum { UNMAPS = 2048 };

static void unmap_pages(struct worker *w, const char *name)
{
	const uint64_t page = w->b->page;

	bench_begin(w);
	for (uint64_t i = 0; i < UNMAPS; i++)
		s2_unmap(w->t, i * 16 * page, (i * 16 + 1) * page);
	bench_end(w, name, UNMAPS, "ns");
}

static void fault(struct worker *w, struct s2_context *ctx, uint64_t ngpa)
{
	struct s2_xlat x;
	enum s2_result r;

	do
		r = s2_context_fault(w->t, ctx, ngpa, S2_R, &x, NULL);
	while (r == S2_RETRY);
	if (r != S2_FIXED && r != S2_SPURIOUS)
		bench_fail("%s: a nested fault is %s", w->b->format, s2_result_name(r));
}

static void nested(struct worker *w)
{
	const struct s2_shadow_config sc = {
		.guest = w->b->config.format, .leaves = 65536, .memory = {.load = load}};
	const uint64_t pages = w->b->pages, page = w->b->page, hits = 1 << 20;
	struct s2_slot ram = {.size = GiB4, .page_size = page};
	struct s2_guest_root root = {0};
	struct s2_shadows *shadows;
	struct s2_registers regs;
	struct s2_context *ctx;
	struct s2_thread *t;
	struct s2_xlat x = {0};
	struct s2 *guest;
	uint64_t sum = 0;

	if (s2_create(&guest, &w->b->config, NULL) || s2_thread_init(&t, guest, "guest") ||
	    s2_slot_add(t, &ram) || s2_registers(guest, 0, &regs))
		bench_fail("%s: the guest's stage", w->b->format);
	for (uint64_t i = 0; i < pages; i++) {
		bench_touch(w, i * page, S2_R);
		if (s2_fault(t, i * page, S2_R, NULL) != S2_FIXED)
			bench_fail("%s: the guest's fault", w->b->format);
	}
	unmap_pages(w, "unmap-one-page");
	if (s2_shadows_create(&shadows, w->t, &sc, NULL))
		bench_fail("%s: shadows", w->b->format);
	for (uint64_t i = 0; i < pages; i++)
		bench_touch(w, i * page, S2_R);
	unmap_pages(w, "unmap-one-page-empty-shadows");
	for (uint64_t i = 0; i < pages; i++)
		bench_touch(w, i * page, S2_R);
	root.root = regs.root;
	root.control = regs.control;
	if (s2_context_get(&ctx, w->t, shadows, &root, NULL))
		bench_fail("%s: context", w->b->format);
	fault(w, ctx, 0);
	bench_begin(w);
	for (uint64_t i = 0; i < pages; i++)
		fault(w, ctx, i * page);
	bench_end(w, "nested-map", (double)pages, "ns");
	bench_begin(w);
	for (uint64_t i = 0; i < hits; i++)
		sum += s2_context_translate(w->t, ctx, (i & 63) * page, S2_R, &x);
	bench_end(w, "nested-hit", (double)hits, "ns");
	/* each takes one of so many shadow leaves with it */
	unmap_pages(w, "unmap-one-page-shadowed");
	bench_begin(w);
	s2_context_drop(w->t, ctx);
	bench_end(w, "drop-context", (double)(pages - UNMAPS), "ns");
	if (sum != hits)
		bench_fail("%s: a nested translation is missing", w->b->format);
	s2_context_put(ctx);
	s2_shadows_destroy(w->t, shadows);
	s2_thread_exit(t);
	s2_destroy(guest);
}

void bench_nested(struct bench *b)
{
	bench_create(b, 0, 0);
	bench_threads(b, nested);
	bench_destroy(b);
}
