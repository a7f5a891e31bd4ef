#include "tests/explore/world.h"

#include <string.h>

const struct world_format *format;
const struct scenario *scenario;
struct s2 *s2;
struct s2_thread *main_thread, *thread[EXPLORE_THREADS];
uint64_t data[PAGES], copy[PAGES], written[PAGES];
bool tracking, removing, ageing, given; /* page 0, to the other instance */
unsigned ages_running, busy;
bool seen_used[PAGES];
unsigned begun[OPERATIONS][PAGES], done[OPERATIONS][PAGES];

static struct cpu cpus[EXPLORE_THREADS];

/* ---- processors ---- */

struct s2_thread *me(void)
{
	return explore_self() == EXPLORE_THREADS ? main_thread : thread[explore_self()];
}

static void serve(struct cpu *c)
{
	uint64_t generation = c->pending;

	if (!c->thread || !generation)
		return;
	c->pending = 0;
	c->tagged = false;
	s2_tlb_ack(&c->client, generation);
}

void cpu_acknowledge(struct cpu *c)
{
	explore_sync(&c->pending, false);
	serve(c);
}

void acknowledge(void)
{
	cpu_acknowledge(&cpus[explore_self()]);
}

bool acknowledge_others(void)
{
	struct cpu *c = &cpus[explore_self()];

	/* Others may come here, and not after it. */
	explore_sync(&c->pending, false);
	if (c->tagged)
		return false;
	serve(c);
	return true;
}

static void invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	struct cpu *c = opaque;

	(void)start;
	(void)end;
	/* A real client's queue has a lock. */
	explore_sync(&c->pending, true);
	c->pending = generation;
}

static void invalidate_tag(void *opaque, uint32_t tag, uint64_t start, uint64_t end,
			   uint64_t generation)
{
	struct cpu *c = opaque;

	(void)tag;
	c->tagged = true;
	invalidate(opaque, start, end, generation);
}

/* Whoever waits serves its own queue, as processors do. */
static void wait_acked(void *opaque, uint64_t generation)
{
	struct cpu *c = opaque;

	while (!s2_tlb_acked(&c->client, generation)) {
		if (explore_self() < EXPLORE_THREADS)
			acknowledge();
		explore_yield();
	}
}

void cpu_begins(struct cpu *c, struct s2_thread *t)
{
	*c = (struct cpu){.thread = t,
			  .client = {.name = "cpu",
				     .opaque = c,
				     .invalidate = invalidate,
				     .invalidate_tag = invalidate_tag,
				     .wait = wait_acked,
				     .thread = t}};
	s2_tlb_client_add(t, &c->client);
}

void cpu_ends(struct cpu *c)
{
	struct s2_thread *t = c->thread;

	cpu_acknowledge(c);
	c->thread = NULL;
	s2_tlb_client_remove(t, &c->client);
}

/* The client goes when its thread ends. */
void processor_ends(void)
{
	cpu_ends(&cpus[explore_self()]);
}

/* A translation is one that an operation must see if whoever begins it could know of it: a lock, a
 * message. Without such an order nobody can say which of the two was first. */
static uint64_t told;

struct operating operation_begins(enum operation what, uint64_t pages)
{
	struct operating o = {{0}};

	explore_sync(&told, false);
	for (unsigned i = 0; i < PAGES && i < pages; i++)
		o.number[i] = ++begun[what][i];
	return o;
}

void operation_ends(enum operation what, uint64_t pages, const struct operating *o)
{
	for (unsigned i = 0; i < PAGES && i < pages; i++) {
		if (done[what][i] < o->number[i])
			done[what][i] = o->number[i];
	}
}

struct taken take(uint64_t gpa, unsigned page)
{
	struct taken t = {.gpa = gpa, .page = page};

	explore_sync(&told, true);
	for (unsigned i = 0; i < OPERATIONS; i++)
		t.begun[i] = begun[i][page];
	return t;
}

struct dec_memory memory_of(const struct s2_registers *regs)
{
	struct dec_memory mem = {.decoder = format->decoder,
				 .shape = {.pa_bits = format->pa_bits,
					   .levels = format->levels,
					   .hardware_ad = scenario->state & DBITS},
				 .table = world_table};

	mem.decoder->open(&mem.shape, regs->root, regs->control);
	return mem;
}

/* Where nobody is at work, the tables grant what processors use. */
static void check_granted(const struct taken *t, const struct s2_registers *regs, bool write)
{
	struct dec_memory mem = memory_of(regs);
	struct dec_result r = dec_walk(&mem, t->gpa);

	if (r.outcome != DEC_TRANSLATED || !r.r || (write && !r.w) ||
	    r.address != format->hpa + t->page * K4)
		explore_fail("page %u is used, and the tables do not grant it", t->page);
}

void use(const struct taken *t, const struct s2_registers *tables, bool write)
{
	static const char *const after[OPERATIONS] = {
		[UNMAP] = "its unmapping",
		[PROTECT] = "its protection",
		[AGE] = "its ageing, unseen",
		[INVALIDATE] = "the guest's invalidation",
	};

	explore_point("uses");
	for (unsigned i = 0; i < OPERATIONS; i++) {
		if (done[i][t->page] > t->begun[i] && (i != PROTECT || write))
			explore_fail("page %u is used after %s", t->page, after[i]);
	}
	if (!busy)
		check_granted(t, tables, write);
	if (!ages_running)
		seen_used[t->page] = true;
	if (write)
		explore_write(&data[t->page], ++written[t->page]);
	else if (scenario->state & AWAITED && !explore_read(&data[t->page]))
		explore_fail("page %u is read before it has come", t->page);
}

/* ---- migration ---- */

static void copy_page(unsigned page)
{
	copy[page] = explore_read(&data[page]);
}

void copy_dirty(void)
{
	uint64_t bits = 0;
	int64_t n = s2_dirty_harvest(me(), format->base, 64, &bits);

	if (n != __builtin_popcountll(bits))
		explore_fail("harvest: %lld", (long long)n);
	if (scenario->state & BY_HAND && s2_dirty_reprotect(me(), format->base, 64, &bits) < 0)
		explore_fail("reprotect");
	for (unsigned i = 0; i < PAGES; i++) {
		if (bits >> i & 1)
			copy_page(i);
	}
}

void copy_rings(void)
{
	uint64_t gpa[8];
	int64_t n = s2_ring_harvest(me(), gpa, 8);

	s2_ring_reset(me());
	for (int64_t i = 0; i < n; i++) {
		uint64_t page = (gpa[i] - format->base) / K4;

		if (page >= PAGES || gpa[i] % K4)
			explore_fail("a ring held %#llx", (unsigned long long)gpa[i]);
		copy_page((unsigned)page);
	}
}

/* ---- beginning and end ---- */

static void fault(uint64_t gpa, uint32_t access)
{
	struct s2_xlat x;
	enum s2_result r = s2_fault(main_thread, gpa, access, &x);

	if (r != S2_FIXED && r != S2_SPURIOUS)
		explore_fail("setup: result %d", r);
}

void track(struct s2_thread *t)
{
	const unsigned state = scenario->state;
	const struct s2_dirty_options o = {.ring_entries = state & RINGS ? 64 : 0,
					   .flags = (state & DBITS ? S2_DIRTY_DBIT : 0) |
						    (state & BY_HAND ? S2_DIRTY_MANUAL : 0) |
						    (state & EAGER ? S2_DIRTY_EAGER : 0)};
	const char *why = "no memory";

	if (s2_dirty_start_with(t, &o, &why))
		explore_fail("start: %s", why);
}

static void start_tracking(void)
{
	track(main_thread);
	memcpy(copy, data, sizeof(copy));
	tracking = true;
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++) {
		struct dirty_ring *ring = &thread[i]->ring;

		if (!ring->entry)
			continue;
		if (scenario->state & NARROW)
			ring->entries = 1;
		explore_watch(ring->entry, PAGES * sizeof(*ring->entry));
		explore_watch(&ring->head, sizeof(ring->head));
		explore_watch(&ring->harvested, sizeof(ring->harvested));
		explore_watch(&ring->tail, sizeof(ring->tail));
	}
}

void world_setup(bool (*processor)(thread_fn *what))
{
	struct s2_config c = format->c;
	const struct s2_slot slot = {.gpa = format->base,
				     .size = 2 * format->large,
				     .hpa = format->hpa,
				     .page_size = scenario->state & BIG ? format->large : K4};

	main_thread = NULL; /* the last run's */
	memset(thread, 0, sizeof(thread));
	memset(data, 0, sizeof(data));
	memset(written, 0, sizeof(written));
	memset(begun, 0, sizeof(begun));
	memset(done, 0, sizeof(done));
	memset(cpus, 0, sizeof(cpus));
	memset(seen_used, 0, sizeof(seen_used));
	ages_running = busy = 0;
	tracking = removing = ageing = given = false;
	c.env = world_env();
	c.use_ad = scenario->state & DBITS;
	c.options = scenario->state & NX ? S2_OPT_NX_HUGE : 0;
	if (s2_create(&s2, &c, NULL) || s2_thread_init(&main_thread, s2, "main") ||
	    s2_slot_add(main_thread, &slot))
		explore_fail("no instance");
	if (scenario->state & MAPPED) {
		fault(format->base, S2_W);
		fault(format->base + K4, S2_R);
	}
	if (scenario->state & DIVIDED &&
	    s2_split(main_thread, format->base, format->base + format->large, 1))
		explore_fail("setup: split");
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++) {
		if (s2_thread_init(&thread[i], s2, "thread"))
			explore_fail("no thread");
	}
	if (scenario->state & AWAITED)
		missing_setup();
	if (scenario->state & LENDING) {
		sharing_setup();
		fault(format->base, S2_W); /* that has unmapped it */
	}
	if (scenario->state & TRACK)
		start_tracking();
	if (scenario->state & HOLE && s2_unmap(main_thread, format->base, format->base + K4))
		explore_fail("setup: unmap");
	if (scenario->state & NESTED)
		nested_setup();
	/* Last: nobody acknowledges yet. */
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++) {
		if (processor(scenario->thread[i]))
			cpu_begins(&cpus[i], thread[i]);
	}
}

static void check_copy(void)
{
	copy_dirty();
	if (scenario->state & RINGS) {
		copy_rings();
		copy_dirty(); /* the threads' that have left */
	}
	for (unsigned i = 0; i < PAGES; i++) {
		if (copy[i] != data[i])
			explore_fail("a write of page %u is lost", i);
	}
}

static void check_ages(void)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t gpa = format->base + i * K4;

		if (seen_used[i] && !begun[UNMAP][i] &&
		    !s2_age(main_thread, gpa, gpa + K4, S2_AGE_TEST, NULL))
			explore_fail("a use of page %u is lost", i);
	}
}

static void check_tables(void)
{
	struct dec_memory mem;
	struct s2_registers regs;
	struct dec_census census;
	struct s2_stats stats;

	s2_registers(s2, 0, &regs);
	mem = memory_of(&regs);
	census = dec_census(&mem);
	if (census.bad || census.marks)
		explore_fail("%d bad, %d frozen entries", (int)census.bad, (int)census.marks);
	if (removing && (census.leaves[1] || census.leaves[2]))
		explore_fail("something is mapped and in no slot");
	s2_get_stats(s2, &stats);
	for (int level = 1; level <= 3; level++) {
		if (stats.pages[level] != census.leaves[level])
			explore_fail("level %d: %lld leaves counted, %lld there", level,
				     (long long)stats.pages[level],
				     (long long)census.leaves[level]);
	}
	if (stats.tables != census.tables)
		explore_fail("%d tables counted, %d there", (int)stats.tables, (int)census.tables);
}

void world_finish(void)
{
	if (tracking && !removing)
		check_copy();
	if (ageing && !removing)
		check_ages();
	if (scenario->state & AWAITED)
		missing_finish();
	if (scenario->state & NESTED)
		nested_finish();
	if (scenario->state & LENDING)
		sharing_finish();
	check_tables();
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++) {
		if (thread[i])
			s2_thread_exit(thread[i]);
	}
	s2_thread_exit(main_thread);
	main_thread = NULL;
	s2_destroy(s2);
	if (explore_live())
		explore_fail("%ld pieces of memory leaked", explore_live());
}
