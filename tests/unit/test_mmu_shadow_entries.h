/*
 * One nested guest whose second stage is written entry by entry, and what its faults lead to: for
 * tests of shadow contexts, one thing at a time. Included once.
 */
#ifndef TEST_MMU_SHADOW_ENTRIES_H
#define TEST_MMU_SHADOW_ENTRIES_H

#include "tests/unit/test_mmu_shadow_util.h"

#define K4  UINT64_C(0x1000)
#define M2  UINT64_C(0x200000)
#define GiB UINT64_C(0x40000000)
enum { R = S2_R, W = S2_W, X = S2_X, A = 0x100, D = 0x200 };

static struct nest n;
static struct s2_thread *t;
static struct s2_context *ctx;
static struct s2_syndrome why;
static struct s2_xlat x;
static struct s2_guest_root root;

static inline const struct test_config *config(const char *name)
{
	const struct test_config *tc = test_configs;

	while (strcmp(tc->name, name))
		tc++;
	return tc;
}

static inline void put(uint64_t table, uint64_t index, uint64_t value)
{
	memcpy(n.ram + table + 8 * index, &value, 8);
}

static inline uint64_t get(uint64_t table, uint64_t index)
{
	uint64_t value;

	memcpy(&value, n.ram + table + 8 * index, 8);
	return value;
}

static inline int create(const char *host, const char *guest, struct s2_shadow_config *sc)
{
	nest_init(&n, config(host), config(guest));
	if (s2_thread_init(&t, n.own, "test"))
		exit(1);
	nest_slots(&n, t, 4 * GiB, M2);
	*sc = nest_shadow_config(&n);
	return 0;
}

static inline void begin(const char *host, const char *guest)
{
	struct s2_shadow_config sc;

	create(host, guest, &sc);
	if (s2_shadows_create(&n.shadows, t, &sc, NULL))
		exit(1);
}

static inline void enter(uint64_t value, uint64_t control, uint32_t vmid)
{
	const char *rule = "";

	root = (struct s2_guest_root){.root = value, .control = control, .vmid = vmid};
	CHECK(!s2_context_get(&ctx, t, n.shadows, &root, &rule), "%s", rule);
}

static inline void end(void)
{
	if (ctx)
		s2_context_put(ctx);
	ctx = NULL;
	s2_shadows_destroy(t, n.shadows);
	s2_thread_exit(t);
	nest_end(&n);
}

static inline enum s2_result fault(uint64_t ngpa, uint32_t access)
{
	enum s2_result r;
	int tries = 0;

	memset(&why, 0, sizeof(why));
	do
		r = s2_context_fault(t, ctx, ngpa, access, &x, &why);
	while (r == S2_RETRY && tries++ < 5);
	return r;
}

#define MAPS(ngpa, access, to, what)                                                               \
	do {                                                                                       \
		enum s2_result got = fault(ngpa, access);                                          \
		CHECK((got == S2_FIXED || got == S2_SPURIOUS) && x.hpa == (to) &&                  \
			      x.perm == (uint32_t)(what),                                          \
		      "%" PRIx64 ": %d, %" PRIx64 ", %u", (uint64_t)(ngpa), got, x.hpa, x.perm);   \
	} while (0)
#define FORWARDS(at, acc, what, lev)                                                               \
	do {                                                                                       \
		enum s2_result got = fault(at, acc);                                               \
		CHECK(got == S2_FORWARD && why.kind == (what) && why.level == (lev) &&             \
			      why.ngpa == (at) && why.access == (acc),                             \
		      "%" PRIx64 ": %d, kind %d, level %u", (uint64_t)(at), got, why.kind,         \
		      why.level);                                                                  \
	} while (0)
#define THERE(ngpa) s2_context_translate(t, ctx, ngpa, 0, &x)

static inline struct s2_shadow_stats stats(void)
{
	struct s2_shadow_stats s;

	s2_shadow_get_stats(n.shadows, &s);
	return s;
}

/* A guest's EPT: 0x100000 -> 0x101000 -> 0x102000 -> 0x103000. */
static inline void ept_tables(void)
{
	memset(n.ram + 0x100000, 0, 0x10000);
	put(0x100000, 0, 0x101000 | 7);
	put(0x101000, 0, 0x102000 | 7);
	put(0x101000, 1, GiB | 0xb7); /* 1 GiB of data */
	put(0x102000, 0, 0x103000 | 7);
	put(0x102000, 1, (GiB + M2) | 0xb7);	 /* 2 MiB */
	put(0x102000, 2, (GiB + 2 * M2) | 0xb1); /* read-only */
	for (uint64_t i = 0; i < 512; i++)
		put(0x103000, i, (GiB + 8 * M2 + i * K4) | 0x37);
}

#define DATA_HPA (4 * DATA)

#endif
