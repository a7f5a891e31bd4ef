/*
 * A host, and a guest that runs guests: the host's instance, and the guest's own second stage,
 * which is a second instance whose tables lie in the host's guest memory. "Its guest" is a software
 * walker here: there is no nested engine yet.
 *
 * Guest memory: [0, TABLES) is real, and holds the guest's tables; behind it there is data that
 * nobody reads (leaves of any size fit).
 */
#ifndef TEST_MMU_SHADOW_UTIL_H
#define TEST_MMU_SHADOW_UTIL_H

#include "mmu/shadow.h"
#include "tests/unit/test_mmu_configs.h"

#define TABLES (UINT64_C(64) << 20)
#define DATA   (UINT64_C(1) << 30) /* gpa where data begins */

struct nest {
	const struct test_config *host, *guest;
	struct test_env te;
	struct s2 *own; /* the host's */
	struct dec_memory own_mem;
	uint64_t table_hpa; /* of gpa 0 */
	char *ram;
	/* the guest's */
	pthread_mutex_t arena_mutex;
	size_t arena_used;
	void *arena_free[64];
	atomic_long live;
	struct s2_env guest_env;
	struct s2_shadows *shadows;
	atomic_ulong loads;
};

/* ---- the guest's tables ---- */

static inline void *nest_alloc(void *opaque, size_t bytes)
{
	struct nest *n = opaque;
	void **list = &n->arena_free[__builtin_ctzll(bytes)], *block;

	pthread_mutex_lock(&n->arena_mutex);
	block = *list;
	if (block) {
		*list = ((void **)block)[1];
	} else {
		n->arena_used = (n->arena_used + bytes - 1) & ~(bytes - 1);
		block = n->ram + n->arena_used;
		n->arena_used += bytes;
		if (n->arena_used > TABLES)
			block = NULL;
	}
	pthread_mutex_unlock(&n->arena_mutex);
	if (!block)
		return NULL;
	atomic_fetch_add(&n->live, 1);
	/* Word by word: somebody may be walking through what this was before. */
	for (size_t i = 0; i < bytes / 8; i++)
		__atomic_store_n((uint64_t *)block + i, 0, __ATOMIC_RELAXED);
	return block;
}

static inline void nest_free(void *opaque, void *block, size_t bytes)
{
	struct nest *n = opaque;
	void **list = &n->arena_free[__builtin_ctzll(bytes)];

	pthread_mutex_lock(&n->arena_mutex);
	__atomic_store_n((void **)block + 1, *list, __ATOMIC_RELAXED);
	*list = block;
	pthread_mutex_unlock(&n->arena_mutex);
	atomic_fetch_sub(&n->live, 1);
}

static inline uint64_t nest_to_pa(void *opaque, const void *table)
{
	return (uint64_t)((const char *)table - ((struct nest *)opaque)->ram);
}

static inline void *nest_from_pa(void *opaque, uint64_t pa)
{
	return ((struct nest *)opaque)->ram + pa;
}

static inline const void *nest_table(void *opaque, uint64_t pa)
{
	return ((struct nest *)opaque)->ram + pa % TABLES;
}

static inline uint64_t nest_load(void *opaque, uint64_t hpa, unsigned bytes)
{
	struct nest *n = opaque;
	const char *at = n->ram + (hpa - n->table_hpa);

	atomic_fetch_add_explicit(&n->loads, 1, memory_order_relaxed);
	if (hpa - n->table_hpa >= TABLES) /* data: nobody writes there */
		return 0;
	if (bytes == 4)
		return __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
	return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
}

static inline bool nest_cas(void *opaque, uint64_t hpa, unsigned bytes, uint64_t old,
			    uint64_t value)
{
	struct nest *n = opaque;
	char *at = n->ram + (hpa - n->table_hpa);
	uint32_t old32 = (uint32_t)old;

	if (hpa - n->table_hpa >= TABLES)
		return old == 0;
	if (bytes == 4)
		return __atomic_compare_exchange_n((uint32_t *)at, &old32, (uint32_t)value, false,
						   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	return __atomic_compare_exchange_n((uint64_t *)at, &old, value, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}

/* ---- both stages ---- */

static inline bool nest_family(const struct test_config *host, const struct test_config *guest)
{
	return host->decoder == guest->decoder;
}

static inline unsigned nest_page_shift(const struct test_config *tc)
{
	return tc->c.format == S2_ARM64_64K ? 16 : tc->c.format == S2_ARM64_16K ? 14 : 12;
}

/* Whether this guest can be nested in this host, by the rules of the manuals. */
static inline bool nest_possible(const struct test_config *host, const struct test_config *guest)
{
	unsigned host_bits = host->c.input_bits ? host->c.input_bits : 40;
	unsigned guest_bits = guest->c.input_bits ? guest->c.input_bits : 40;

	if (!nest_family(host, guest))
		return false;
	if (host->decoder == &arm_decoder)
		return nest_page_shift(guest) >= nest_page_shift(host) && guest_bits <= host_bits &&
		       /* wide descriptors need a guest that has 52 bits */
		       (guest_bits <= 48 || host_bits == 52);
	if (host->decoder == &npt_decoder && guest->levels > host->levels)
		return false; /* one width for all on a machine */
	return !(guest->c.options & S2_OPT_EXEC_ONLY) || host->c.options & S2_OPT_EXEC_ONLY;
}

static inline void nest_init(struct nest *n, const struct test_config *host,
			     const struct test_config *guest)
{
	memset(n, 0, sizeof(*n));
	n->host = host;
	n->guest = guest;
	pthread_mutex_init(&n->arena_mutex, NULL);
	n->ram = mmap(NULL, 2 * TABLES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (n->ram == MAP_FAILED)
		exit(1);
	n->ram = (char *)(((uintptr_t)n->ram + TABLES - 1) & ~(uintptr_t)(TABLES - 1));
	n->arena_used = 1 << 20;
	n->guest_env = (struct s2_env){.opaque = n,
				       .alloc = nest_alloc,
				       .free = nest_free,
				       .to_pa = nest_to_pa,
				       .from_pa = nest_from_pa};
	n->table_hpa = test_config_hpa(host);
	if (!test_config_create(host, &n->te, &n->own, &n->own_mem))
		exit(1);
}

static inline void nest_slots(struct nest *n, struct s2_thread *t, uint64_t data_size,
			      uint64_t page_size)
{
	struct s2_slot tables = {.size = TABLES, .hpa = n->table_hpa, .page_size = 2 << 20};
	struct s2_slot data = {.gpa = DATA,
			       .size = data_size,
			       .hpa = n->table_hpa + 4 * DATA,
			       .page_size = page_size};

	CHECK(!s2_slot_add(t, &tables) && !s2_slot_add(t, &data), "slots of %s", n->host->name);
}

static inline struct s2_shadow_config nest_shadow_config(struct nest *n)
{
	/* Widths of the guest's physical addresses follow from the host's input. */
	return (struct s2_shadow_config){
		.guest = n->guest->c.format,
		.options = n->guest->c.options,
		.use_ad = true,
		.contexts = 4,
		.leaves = 4096,
		.first_tag = 1,
		.memory = {.opaque = n, .load = nest_load, .cas = nest_cas},
	};
}

/* The guest's hypervisor makes a second stage. */
static inline bool nest_guest(struct nest *n, struct s2 **s2, unsigned vmid,
			      struct s2_guest_root *root, struct dec_memory *mem)
{
	struct s2_config c = n->guest->c;
	struct s2_registers regs;
	const char *why = NULL;

	c.env = &n->guest_env;
	/* No options are lost; A/D as the configuration has it. */
	if (n->host->decoder == &arm_decoder && n->guest->pa_bits == 48)
		c.hpa_bits = 48;
	CHECK(!s2_create(s2, &c, &why), "%s: %s", n->guest->name, why ? why : "");
	CHECK(!s2_registers(*s2,
			    n->guest->decoder == &ept_decoder || n->guest->decoder == &npt_decoder
				    ? 0
				    : vmid,
			    &regs),
	      "registers");
	*root = (struct s2_guest_root){.root = regs.root, .control = regs.control, .vmid = vmid};
	test_config_memory(n->guest, &n->te, regs.root, regs.control, mem);
	mem->table = nest_table;
	mem->opaque = n;
	return true;
}

/* How hardware reads a context's tables: an NPT root has the machine's levels. */
static inline void nest_context(struct nest *n, const struct s2_context *ctx,
				struct dec_memory *mem)
{
	struct s2_registers regs = {0};
	const struct test_config *h = n->host;

	CHECK(!s2_context_registers(ctx, &regs), "registers of a context");
	*mem = (struct dec_memory){
		.decoder = h->decoder,
		.shape = {.pa_bits = h->pa_bits,
			  .levels = h->decoder == &npt_decoder ? h->levels : n->guest->levels,
			  .exec_only = h->c.options & S2_OPT_EXEC_ONLY,
			  .pbmt = h->c.options & S2_OPT_PBMT,
			  .napot = h->c.options & S2_OPT_NAPOT,
			  .hardware_ad = h->c.use_ad},
		.table = test_config_table,
		.opaque = &n->te,
	};
	h->decoder->open(&mem->shape, regs.root, regs.control);
	CHECK(!mem->shape.why, "%s in %s: %s", n->guest->name, h->name, mem->shape.why);
}

static inline uint32_t nest_perm(const struct dec_result *r)
{
	return r->outcome == DEC_TRANSLATED ? (uint32_t)(r->r * S2_R | r->w * S2_W | r->x * S2_X)
					    : 0;
}

static inline void nest_end(struct nest *n)
{
	s2_destroy(n->own);
	CHECK(test_env_leaked(&n->te) == 0, "%s: %ld tables leaked", n->host->name,
	      atomic_load(&n->te.live));
	CHECK(atomic_load(&n->live) == 0, "%s: the guest lost %ld tables", n->guest->name,
	      atomic_load(&n->live));
	munmap(n->ram, TABLES);
}

#endif
