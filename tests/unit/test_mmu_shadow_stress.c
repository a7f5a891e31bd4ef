/*
 * Description: 3 to 6 threads: processors that run a nested guest in software TLBs, a guest
 * hypervisor that unmaps, protects and moves what is in its second stage and invalidates, a host
 * that unmaps, protects and drops contexts, a migrator that tracks and harvests.
 *
 * Oracles. (1) A TLB entry filled before an operation of either stage began is not used after it
 * has returned (numbers per page: begun, done); the same for W and protection. (2) Translations
 * lead where both stages say. (3) Every write is in the migrator's copy. (4) When all stand still,
 * decoders find nothing in the shadows that is not in both stages.
 *
 * The shadow code under test is compiled once more, with delays where races are.
 */
#include <errno.h>

#include "tests/unit/test_mmu_race.h"

#include "mmu/shadow_change.c"
#include "mmu/shadow_fault.c"
#include "tests/unit/test_mmu_shadow_util.h"

enum { UNITS = 16384, MAX_CPUS = 3, CONTEXTS = 3 };
#define K4 UINT64_C(4096)

static struct nest n;
static struct s2 *inner; /* the guest's second stage */
static struct s2_guest_root root;
static struct dec_memory inner_mem;
static uint64_t page, large, base, data_hpa, units; /* units of 4 KiB in both large leaves */
static atomic_uint memory[UNITS];
static unsigned copy[UNITS];
static atomic_ulong unmap_begun[2][UNITS], unmap_done[2][UNITS], protect_begun[2][UNITS],
	protect_done[2][UNITS]; /* 0: by ngpa, the guest's; 1: by gpa, the host's */
static atomic_ulong version;	/* of where the second leaf's region lies; odd: it moves */
static atomic_bool stop;
static atomic_int running;
static atomic_ulong uses, fills, forwards, retries, guest_changes, host_changes, drops, moves,
	harvests, rounds, switches;

/* ---- a processor: what it holds of the nested guest ---- */

struct tlb_entry {
	bool valid;
	uint32_t perm;
	uint64_t hpa;
	unsigned long unmap[2], protect[2];
};

struct cpu {
	struct race_client client; /* first; its mutex also holds ctx */
	struct s2_thread *t, *guest_t;
	struct s2_context *ctx;
	uint64_t seed;
	struct tlb_entry *tlb; /* by unit; of the context it runs in */
};

static _Thread_local struct s2_thread *host_thread;

static void drop(struct race_client *client, uint32_t tag, uint64_t start, uint64_t end)
{
	struct cpu *c = (struct cpu *)client;

	/* It holds nothing of the guest itself. */
	if (tag == RACE_NO_TAG || !c->ctx || tag != s2_context_tag(c->ctx))
		return;
	for (uint64_t u = 0; u < units; u++) {
		uint64_t at = base + u * K4;

		if (at >= start && (!end || at < end))
			c->tlb[u].valid = false;
	}
}

static void drop_all(struct race_client *client)
{
	struct cpu *c = (struct cpu *)client;

	memset(c->tlb, 0, units * sizeof(*c->tlb));
}

/* ---- the guest's hypervisor flushes: its "TLB" is the shadows ---- */

static struct {
	struct s2_tlb_client client;
	pthread_mutex_t mutex;
	uint64_t start, last, generation;
	bool any;
} hypervisor = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void hypervisor_post(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)opaque;
	pthread_mutex_lock(&hypervisor.mutex);
	if (!hypervisor.any || start < hypervisor.start)
		hypervisor.start = start;
	if (!hypervisor.any || end - 1 > hypervisor.last)
		hypervisor.last = end - 1;
	hypervisor.any = true;
	hypervisor.generation = generation;
	pthread_mutex_unlock(&hypervisor.mutex);
}

static void hypervisor_wait(void *opaque, uint64_t generation)
{
	struct s2_inv inv = {.kind = S2_INV_RANGE, .vmid = root.vmid};
	bool any;

	(void)opaque;
	(void)generation;
	pthread_mutex_lock(&hypervisor.mutex);
	any = hypervisor.any;
	inv.start = hypervisor.start;
	inv.end = hypervisor.last + 1;
	generation = hypervisor.generation;
	hypervisor.any = false;
	pthread_mutex_unlock(&hypervisor.mutex);
	if (!any)
		return; /* somebody else is at it */
	if (inv.end - inv.start <= page)
		inv.kind = S2_INV_IPA;
	else if (inv.end % 7 == 0)
		inv.kind = S2_INV_VMID;
	s2_shadow_invalidate(host_thread, n.shadows, &inv);
	s2_tlb_ack(&hypervisor.client, generation);
}

/* ---- what threads do ---- */

static uint64_t place(unsigned long v, uint64_t unit)
{
	/* the first region stands still; the second is where it says, or lies on the first */
	return unit < units / 2 || v / 2 % 2 ? unit % (units / 2) : unit;
}

static void change(struct s2_thread *t, int stage, uint64_t *seed)
{
	bool protect = test_random(seed) % 2;
	atomic_ulong *begun = protect ? protect_begun[stage] : unmap_begun[stage];
	atomic_ulong *done = protect ? protect_done[stage] : unmap_done[stage];
	uint64_t grain = test_random(seed) % 4 ? page : large, from, end;
	unsigned long number[UNITS / 4];

	from = test_random(seed) % (2 * large / grain) * grain;
	end = from + grain * (grain == page ? 1 + test_random(seed) % 16 : 1);
	if (end > 2 * large)
		end = 2 * large;
	if (end - from > UNITS / 4 * K4)
		end = from + UNITS / 4 * K4;
	for (uint64_t u = from / K4; u < end / K4; u++)
		number[u - from / K4] = atomic_fetch_add(&begun[u], 1) + 1;
	from += stage ? DATA : base;
	end += stage ? DATA : base;
	CHECK(!(protect ? s2_write_protect(t, from, end) : s2_unmap(t, from, end)), "change");
	from -= stage ? DATA : base;
	end -= stage ? DATA : base;
	for (uint64_t u = from / K4; u < end / K4; u++) {
		unsigned long old = atomic_load(&done[u]), mine = number[u - from / K4];

		while (old < mine && !atomic_compare_exchange_weak(&done[u], &old, mine))
			;
	}
	atomic_fetch_add(stage ? &host_changes : &guest_changes, 1);
}

static bool translate(struct cpu *c, uint64_t unit, uint32_t access, struct s2_xlat *x)
{
	uint64_t ngpa = base + unit * K4;
	struct s2_syndrome why;

	while (!s2_context_translate(c->t, c->ctx, ngpa, access, x)) {
		enum s2_result r = s2_context_fault(c->t, c->ctx, ngpa, access, x, &why);

		if (r == S2_FIXED || r == S2_SPURIOUS)
			return true;
		if (atomic_load(&stop))
			return false;
		if (r == S2_FORWARD) {
			atomic_fetch_add_explicit(&forwards, 1, memory_order_relaxed);
			r = s2_fault(c->guest_t, ngpa, access, NULL);
			if (r == S2_EMULATE) { /* the region moves */
				CHECK(unit >= units / 2, "unit %" PRIu64 " has no slot", unit);
				race_serve(&c->client);
				return false;
			}
		}
		CHECK(r == S2_RETRY || r == S2_FIXED || r == S2_SPURIOUS, "result %d", r);
		atomic_fetch_add_explicit(&retries, 1, memory_order_relaxed);
		race_serve(&c->client);
		sched_yield();
	}
	return true;
}

static void use(struct cpu *c, uint64_t unit, bool write)
{
	struct tlb_entry *e = &c->tlb[unit];
	unsigned long v;
	uint64_t own;

	if (!e->valid || (write && !(e->perm & S2_W))) {
		struct s2_xlat x;

		e->valid = false;
		if (!translate(c, unit, write ? S2_W : S2_R, &x))
			return;
		*e = (struct tlb_entry){.valid = true, .hpa = x.hpa, .perm = x.perm};
		own = (x.hpa - data_hpa) / K4;
		CHECK(own < units, "hpa %" PRIx64, x.hpa);
		if (own >= units) {
			e->valid = false;
			return;
		}
		/* after the translation: an operation with a higher number began later */
		e->unmap[0] = atomic_load(&unmap_begun[0][unit]);
		e->protect[0] = atomic_load(&protect_begun[0][unit]);
		e->unmap[1] = atomic_load(&unmap_begun[1][own]);
		e->protect[1] = atomic_load(&protect_begun[1][own]);
		atomic_fetch_add_explicit(&fills, 1, memory_order_relaxed);
	}
	own = (e->hpa - data_hpa) / K4;
	for (int stage = 0; stage < 2; stage++) {
		uint64_t u = stage ? own : unit;

		CHECK(atomic_load(&unmap_done[stage][u]) <= e->unmap[stage],
		      "stage %d: unit %" PRIu64 " used after unmap", stage, u);
		CHECK(!write || atomic_load(&protect_done[stage][u]) <= e->protect[stage],
		      "stage %d: unit %" PRIu64 " written after protection", stage, u);
	}
	v = atomic_load(&version);
	CHECK(v % 2 || own == place(v, unit), "unit %" PRIu64 " is at %" PRIu64, unit, own);
	if (write)
		atomic_fetch_add_explicit(&memory[own], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&uses, 1, memory_order_relaxed);
}

/* Out of the context and into it again, which may be another one by then. */
static void enter(struct cpu *c, bool leave)
{
	struct s2_guest_root other = {.off = true, .vmid = root.vmid + 1};
	struct s2_context *ctx;

	if (leave) {
		s2_context_put(c->ctx);
		if (n.host->decoder == &arm_decoder)
			other.root = UINT64_C(9) << 48;
		if (!s2_context_get(&ctx, c->t, n.shadows, &other, NULL))
			s2_context_put(ctx);
	}
	pthread_mutex_lock(&c->client.mutex);
	c->ctx = NULL;
	pthread_mutex_unlock(&c->client.mutex);
	for (;;) {
		int err = s2_context_get(&ctx, c->t, n.shadows, &root, NULL);

		CHECK(!err || err == -EBUSY || err == -EAGAIN, "get: %d", err);
		if (!err)
			break;
		race_serve(&c->client);
		sched_yield();
	}
	pthread_mutex_lock(&c->client.mutex);
	c->ctx = ctx;
	memset(c->tlb, 0, units * sizeof(*c->tlb));
	pthread_mutex_unlock(&c->client.mutex);
	atomic_fetch_add(&switches, 1);
}

static void *run_cpu(void *arg)
{
	struct cpu *c = arg;

	race_self = &c->client;
	CHECK(!s2_thread_init(&c->t, n.own, "vcpu") && !s2_thread_init(&c->guest_t, inner, "vcpu"),
	      "init");
	host_thread = c->t;
	c->client.tlb.thread = c->t;
	s2_tlb_client_add(c->t, &c->client.tlb);
	enter(c, false);
	atomic_fetch_add(&running, 1);
	while (!atomic_load(&stop)) {
		uint64_t at = test_random(&c->seed) % units;

		race_park_here(&c->client);
		for (int i = 0; i < 48 && !atomic_load(&race_park); i++) {
			race_serve(&c->client);
			use(c, (at + test_random(&c->seed) % 8) % units,
			    test_random(&c->seed) % 3 == 0);
		}
		if (test_random(&c->seed) % 64 == 0)
			enter(c, true);
	}
	s2_context_put(c->ctx);
	pthread_mutex_lock(&c->client.mutex);
	c->ctx = NULL;
	pthread_mutex_unlock(&c->client.mutex);
	s2_tlb_client_remove(c->t, &c->client.tlb);
	s2_thread_exit(c->t);
	s2_thread_exit(c->guest_t);
	return NULL;
}

static void move(struct s2_thread *t)
{
	struct s2_slot s = {.gpa = base + large, .size = large, .page_size = large};

	atomic_fetch_add(&version, 1);
	CHECK(!s2_slot_remove(t, s.gpa), "remove");
	s.hpa = DATA + place(atomic_load(&version) + 1, units / 2) * K4;
	CHECK(!s2_slot_add(t, &s), "add");
	atomic_fetch_add(&version, 1);
	atomic_fetch_add(&moves, 1);
}

static void *run_hypervisor(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct s2_thread *t;

	CHECK(!s2_thread_init(&host_thread, n.own, "hypervisor") &&
		      !s2_thread_init(&t, inner, "hypervisor"),
	      "init");
	atomic_fetch_add(&running, 1);
	while (!atomic_load(&stop)) {
		race_park_here(NULL);
		if (test_random(&seed) % 8 == 0)
			move(t);
		else
			change(t, 0, &seed);
		for (int i = 0; i < 8; i++)
			sched_yield();
	}
	s2_thread_exit(host_thread);
	s2_thread_exit(t);
	return NULL;
}

static void *run_host(void *arg)
{
	uint64_t seed = *(uint64_t *)arg;
	struct s2_context *ctx;
	struct s2_thread *t;

	CHECK(!s2_thread_init(&t, n.own, "host"), "init");
	atomic_fetch_add(&running, 1);
	while (!atomic_load(&stop)) {
		race_park_here(NULL);
		if (test_random(&seed) % 8) {
			change(t, 1, &seed);
		} else if (!s2_context_get(&ctx, t, n.shadows, &root, NULL)) {
			s2_context_drop(t, ctx);
			s2_context_put(ctx);
			atomic_fetch_add(&drops, 1);
		}
		for (int i = 0; i < 8; i++)
			sched_yield();
	}
	s2_thread_exit(t);
	return NULL;
}

static void harvest(struct s2_thread *t)
{
	static uint64_t bitmap[UNITS / 64];

	CHECK(s2_dirty_harvest(t, DATA, units, bitmap) >= 0, "harvest");
	for (uint64_t u = 0; u < units; u++) {
		if (bitmap[u / 64] >> (u % 64) & 1)
			copy[u] = atomic_load(&memory[u]);
	}
	atomic_fetch_add(&harvests, 1);
}

/* Nobody moves: what the shadow says is what both stages say. */
static void check_tables(struct s2_thread *t)
{
	struct s2_context *ctx;
	struct dec_memory shadow;
	struct s2_shadow_stats stats;

	if (s2_context_get(&ctx, t, n.shadows, &root, NULL))
		return; /* all are in use: by another root */
	nest_context(&n, ctx, &shadow);
	for (uint64_t u = 0; u < units; u++) {
		struct dec_result r = dec_walk(&shadow, base + u * K4),
				  outer = dec_walk(&inner_mem, base + u * K4), own = {0};

		if (outer.outcome == DEC_TRANSLATED)
			own = dec_walk(&n.own_mem, outer.address);
		CHECK(!nest_perm(&r) ||
			      (r.address == own.address && outer.outcome == DEC_TRANSLATED &&
			       !(nest_perm(&r) & ~(nest_perm(&own) & nest_perm(&outer)))),
		      "unit %" PRIu64 ": %" PRIx64 " %u; %" PRIx64 " %u %u", u, r.address,
		      nest_perm(&r), own.address, nest_perm(&own), nest_perm(&outer));
	}
	s2_context_put(ctx);
	s2_shadow_get_stats(n.shadows, &stats);
	CHECK(stats.leaves <= 4096 && stats.contexts <= CONTEXTS, "bounds");
}

static bool all_happened(void)
{
	return atomic_load(&rounds) && atomic_load(&guest_changes) && atomic_load(&host_changes) &&
	       atomic_load(&drops) && atomic_load(&moves) && atomic_load(&fills);
}

static void stress(const char *host, const char *guest, int cpus, uint64_t ms, uint64_t *seed)
{
	static struct cpu cpu[MAX_CPUS];
	const struct test_config *h = test_configs, *g = test_configs;
	struct s2_shadow_config sc;
	struct s2_slot s = {.page_size = UINT64_C(1) << 30};
	pthread_t thread[MAX_CPUS + 2];
	uint64_t seeds[2] = {test_random(seed) | 1, test_random(seed) | 1}, end;
	struct s2_thread *t, *guest_t;

	while (strcmp(h->name, host))
		h++;
	while (strcmp(g->name, guest))
		g++;
	nest_init(&n, h, g);
	atomic_store(&version, 0);
	atomic_store(&stop, false);
	atomic_store(&running, 0);
	memset(cpu, 0, sizeof(cpu));
	memset((void *)memory, 0, sizeof(memory));
	CHECK(!s2_thread_init(&t, n.own, "migrator"), "thread");
	host_thread = t;
	data_hpa = n.te.arena ? 2 * DATA : n.table_hpa + 4 * DATA;
	CHECK(!s2_slot_add(t, &(struct s2_slot){.size = TABLES,
						.hpa = n.te.arena ? DATA : n.table_hpa,
						.page_size = K4}),
	      "tables");
	n.table_hpa = n.te.arena ? DATA : n.table_hpa;
	sc = nest_shadow_config(&n);
	sc.contexts = CONTEXTS;
	CHECK(!s2_shadows_create(&n.shadows, t, &sc, NULL), "shadows");
	nest_guest(&n, &inner, 3, &root, &inner_mem);
	page = s2_level_size(inner, 1);
	large = s2_level_size(inner, 2);
	units = 2 * large / K4;
	base = (test_config_boundary(&inner_mem) & ~(large - 1)) - large;
	s.gpa = DATA;
	s.size = 2 * large;
	s.hpa = data_hpa;
	CHECK(!s2_slot_add(t, &s), "data");
	CHECK(!s2_thread_init(&guest_t, inner, "guest"), "thread");
	hypervisor.client = (struct s2_tlb_client){
		.opaque = &hypervisor, .invalidate = hypervisor_post, .wait = hypervisor_wait};
	s2_tlb_client_add(guest_t, &hypervisor.client);
	for (uint64_t i = 0; i < 2; i++) {
		s.gpa = base + i * large;
		s.size = large;
		s.hpa = DATA + i * large;
		CHECK(!s2_slot_add(guest_t, &s), "guest slot");
	}
	for (int i = 0; i < cpus; i++) {
		race_client_init(&cpu[i].client);
		cpu[i].client.tlb.invalidate_tag = race_post_tag;
		cpu[i].client.forget = drop;
		cpu[i].client.forget_all = drop_all;
		cpu[i].seed = test_random(seed) | 1;
		cpu[i].tlb = calloc(units, sizeof(*cpu[i].tlb));
		pthread_create(&thread[i], NULL, run_cpu, &cpu[i]);
	}
	pthread_create(&thread[cpus], NULL, run_hypervisor, &seeds[0]);
	pthread_create(&thread[cpus + 1], NULL, run_host, &seeds[1]);
	while (atomic_load(&running) < cpus + 2)
		sched_yield();
	/* A machine that is busy may need longer, for what is rare. */
	for (end = test_now_ms() + ms;
	     test_now_ms() < end || (!all_happened() && test_now_ms() < end + 60000);) {
		uint64_t until = test_now_ms() + 20;

		while (test_now_ms() < until)
			sched_yield();
		const struct s2_dirty_options how = {
			.flags = (test_random(seed) % 2 ? S2_DIRTY_EAGER : 0) |
				 (test_random(seed) % 2 ? S2_DIRTY_COLLAPSE : 0) |
				 (h->c.use_ad && h->decoder != &arm_decoder && test_random(seed) % 2
					  ? S2_DIRTY_DBIT
					  : 0)};
		CHECK(!s2_dirty_start_with(t, &how, NULL), "start");
		for (uint64_t u = 0; u < units; u++)
			copy[u] = atomic_load(&memory[u]);
		for (until = test_now_ms() + 60; test_now_ms() < until;) {
			harvest(t);
			sched_yield();
		}
		race_stop_all(cpus + 2);
		harvest(t);
		for (uint64_t u = 0; u < units; u++)
			CHECK(copy[u] == atomic_load(&memory[u]),
			      "unit %" PRIu64 ": a write is lost: %u %u", u, copy[u],
			      atomic_load(&memory[u]));
		check_tables(t);
		CHECK(!s2_dirty_stop(t), "stop");
		race_go_on();
		atomic_fetch_add(&rounds, 1);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < cpus + 2; i++)
		pthread_join(thread[i], NULL);
	check_tables(t);
	s2_shadows_destroy(t, n.shadows);
	s2_tlb_client_remove(guest_t, &hypervisor.client);
	s2_thread_exit(guest_t);
	s2_destroy(inner);
	s2_thread_exit(t);
	for (int i = 0; i < cpus; i++)
		free(cpu[i].tlb);
	nest_end(&n);
}

/* shadow_stress SEED MILLISECONDS */
int main(int argc, char **argv)
{
	static const char *const pairs[][2] = {
		{"ept4", "ept4"}, {"arm64 4K, 40 bits", "arm64 4K, 40 bits"},  {"sv39x4", "sv48x4"},
		{"npt5", "npt4"}, {"arm64 4K, 48 bits", "arm64 16K, 40 bits"}, {"sv32x4", "sv32x4"},
	};
	uint64_t seed = test_seed(argc, argv), ms = argc > 2 ? strtoull(argv[2], NULL, 0) : 600;
	uint64_t first = seed >> 32;

	for (uint64_t i = 0; i < 4; i++)
		stress(pairs[(first + i) % 6][0], pairs[(first + i) % 6][1], 1 + (int)i % MAX_CPUS,
		       ms, &seed);
	printf("%lu rounds, %lu harvests, %lu changes by guests, %lu by the host, %lu drops, %lu "
	       "moves, %lu switches, %lu uses, %lu fills, %lu forwarded, %lu retries\n",
	       atomic_load(&rounds), atomic_load(&harvests), atomic_load(&guest_changes),
	       atomic_load(&host_changes), atomic_load(&drops), atomic_load(&moves),
	       atomic_load(&switches), atomic_load(&uses), atomic_load(&fills),
	       atomic_load(&forwards), atomic_load(&retries));
	CHECK(all_happened(), "something never happened");
	return test_result("shadow stress");
}
