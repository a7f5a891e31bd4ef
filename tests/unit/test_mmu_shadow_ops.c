/*
 * Description: shadow contexts, one thing at a time, over tables of a guest that are written entry
 * by entry: whose fault it is, at which level and address; entries that the manuals forbid, tables
 * that loop, lie out of memory or are random; A and D bits; what each invalidation takes and
 * leaves; what a change of the host takes and leaves; bounds, eviction, recycling; every allocation
 * failed once; what instructions mean (TLBI, HFENCE.GVMA, INVEPT, TLB_CONTROL).
 */
#include <errno.h>

#include "mmu/guest/invalidate.h"
#include "mmu/missing.h"
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

static const struct test_config *config(const char *name)
{
	const struct test_config *tc = test_configs;

	while (strcmp(tc->name, name))
		tc++;
	return tc;
}

static void put(uint64_t table, uint64_t index, uint64_t value)
{
	memcpy(n.ram + table + 8 * index, &value, 8);
}

static uint64_t get(uint64_t table, uint64_t index)
{
	uint64_t value;

	memcpy(&value, n.ram + table + 8 * index, 8);
	return value;
}

static int create(const char *host, const char *guest, struct s2_shadow_config *sc)
{
	nest_init(&n, config(host), config(guest));
	if (s2_thread_init(&t, n.own, "test"))
		exit(1);
	nest_slots(&n, t, 4 * GiB, M2);
	*sc = nest_shadow_config(&n);
	return 0;
}

static void begin(const char *host, const char *guest)
{
	struct s2_shadow_config sc;

	create(host, guest, &sc);
	if (s2_shadows_create(&n.shadows, t, &sc, NULL))
		exit(1);
}

static void enter(uint64_t value, uint64_t control, uint32_t vmid)
{
	const char *rule = "";

	root = (struct s2_guest_root){.root = value, .control = control, .vmid = vmid};
	CHECK(!s2_context_get(&ctx, t, n.shadows, &root, &rule), "%s", rule);
}

static void end(void)
{
	if (ctx)
		s2_context_put(ctx);
	ctx = NULL;
	s2_shadows_destroy(t, n.shadows);
	s2_thread_exit(t);
	nest_end(&n);
}

static enum s2_result fault(uint64_t ngpa, uint32_t access)
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

static struct s2_shadow_stats stats(void)
{
	struct s2_shadow_stats s;

	s2_shadow_get_stats(n.shadows, &s);
	return s;
}

/* A guest's EPT: 0x100000 -> 0x101000 -> 0x102000 -> 0x103000. */
static void ept_tables(void)
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

static const uint64_t DATA_HPA = 4 * DATA;

static void ept(void)
{
	uint64_t hpa;

	begin("ept4", "ept4");
	hpa = n.table_hpa + DATA_HPA;
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	MAPS(5 * K4 + 7, R, hpa + 8 * M2 + 5 * K4 + 7, R | W | X);
	CHECK(x.level == 1, "level %u", x.level);
	MAPS(M2 + 7 * K4, W, hpa + M2 + 7 * K4, R | W | X);
	CHECK(x.level == 2, "level %u", x.level);
	MAPS(GiB + 9 * M2, R, hpa + 9 * M2, R | W | X); /* the host has 2 MiB at most */
	CHECK(x.level == 2, "level %u", x.level);
	/* the level of the guest's leaf stands in software bits */
	CHECK((x.entry >> 52 & 7) == 3, "%" PRIx64, x.entry);
	MAPS(2 * M2, R, hpa + 2 * M2, R);
	CHECK((x.entry >> 52 & 7) == 2, "%" PRIx64, x.entry);
	end();
}

static void ept_faults(void)
{
	begin("ept4", "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	FORWARDS(2 * M2 + 5, W, S2_FAULT_PERMISSION, 2);
	CHECK(why.perm == R, "%u", why.perm);
	FORWARDS(2 * M2, X, S2_FAULT_PERMISSION, 2);
	FORWARDS(3 * M2, R, S2_FAULT_TRANSLATION, 2);
	FORWARDS(UINT64_C(1) << 40, R, S2_FAULT_TRANSLATION, 4);
	FORWARDS(UINT64_C(1) << 48, R, S2_FAULT_TRANSLATION, 4); /* beyond the input */
	FORWARDS(UINT64_C(1) << 63, R, S2_FAULT_TRANSLATION, 4);
	/* tables take permissions away */
	put(0x100000, 0, 0x101000 | 5);
	FORWARDS(7 * K4, W, S2_FAULT_PERMISSION, 1);
	put(0x100000, 0, 0x101000 | 7);
	/* misconfigurations */
	put(0x103000, 6, (GiB + 8 * M2) | 0x36); /* W without R */
	FORWARDS(6 * K4, R, S2_FAULT_RESERVED, 1);
	put(0x103000, 6, (GiB + 8 * M2) | 0x34); /* X alone, which the guest does not have */
	FORWARDS(6 * K4, X, S2_FAULT_RESERVED, 1);
	put(0x103000, 6, (GiB + 8 * M2) | 0x17); /* memory type 2 */
	FORWARDS(6 * K4, R, S2_FAULT_RESERVED, 1);
	put(0x102000, 3, (GiB + M2 + K4) | 0xb7); /* misaligned */
	FORWARDS(3 * M2, R, S2_FAULT_RESERVED, 2);
	put(0x102000, 3, 0x103000 | 0x17); /* bits 7:3 of a table's */
	FORWARDS(3 * M2, R, S2_FAULT_RESERVED, 2);
	put(0x100000, 3, 0x101000 | 0x87); /* no page of 512 GiB */
	FORWARDS(UINT64_C(3) << 39, R, S2_FAULT_RESERVED, 4);
	put(0x103000, 6, UINT64_C(1) << 50 | 0x37); /* wider than the guest's 48 bits */
	FORWARDS(6 * K4, R, S2_FAULT_SIZE, 1);
	/* a table out of memory, and one in itself: it ends with the levels */
	put(0x102000, 3, (UINT64_C(1) << 40) | 7);
	FORWARDS(3 * M2 + 5 * K4, R, S2_FAULT_TABLE, 1);
	CHECK(why.gpa == (UINT64_C(1) << 40) + 5 * 8, "%" PRIx64, why.gpa);
	put(0x100000, 5, 0x100000 | 7);
	n.loads = 0;
	fault(UINT64_C(5) << 39 | UINT64_C(5) << 30 | 5 * M2 | 5 * K4, R);
	CHECK(n.loads <= 8, "%lu loads", (unsigned long)n.loads);
	/* the guest's devices */
	put(0x103000, 9, (GiB * 7) | 0x37);
	CHECK(fault(9 * K4 + 5, W) == S2_EMULATE && why.gpa == GiB * 7 + 5 && !why.kind, "%d",
	      why.kind);
	end();
}

static void ept_ad(void)
{
	uint64_t hpa;

	begin("ept4", "ept4");
	hpa = n.table_hpa + DATA_HPA;
	ept_tables();
	enter(0x100000 | 0x5e, 0, 0); /* A and D on */
	MAPS(5 * K4, R, hpa + 8 * M2 + 5 * K4, R | X);
	CHECK((get(0x103000, 5) & (A | D)) == A && get(0x100000, 0) & A && get(0x101000, 0) & A &&
		      get(0x102000, 0) & A && !(get(0x102000, 1) & A),
	      "accessed");
	FORWARDS(2 * M2, W, S2_FAULT_PERMISSION, 2);
	CHECK(!(get(0x102000, 2) & (A | D)), "a refused access leaves no trace");
	MAPS(5 * K4, W, hpa + 8 * M2 + 5 * K4, R | W | X);
	CHECK((get(0x103000, 5) & (A | D)) == (A | D), "dirty");
	end();
}

/* Setting A writes to the guest's memory: under tracking it is dirty. */
static void ad_is_a_write(void)
{
	uint64_t bitmap[512];

	begin("npt4", "npt4");
	memset(n.ram + 0x100000, 0, 0x10000);
	put(0x100000, 0, 0x101000 | 7);
	put(0x101000, 0, 0x102000 | 7);
	put(0x102000, 0, 0x103000 | 7);
	put(0x103000, 0, GiB | 7);
	put(0x103000, 1, GiB | 3); /* not a user page */
	put(0x103000, 2, GiB | 5 | UINT64_C(1) << 63);
	enter(0x100000, 0, 5);
	CHECK(!s2_dirty_start(t), "start");
	MAPS(7, R, n.table_hpa + DATA_HPA + 7, R | X);
	CHECK(s2_dirty_harvest(t, 0, 512, bitmap) == 4, "four tables");
	CHECK(bitmap[4] == 0xf, "%" PRIx64, bitmap[4]);
	MAPS(7, W, n.table_hpa + DATA_HPA + 7, R | W | X);
	CHECK(s2_dirty_harvest(t, 0, 512, bitmap) == 1 && bitmap[4] == 8, "the leaf's D");
	CHECK(s2_dirty_harvest(t, GiB, 64, bitmap) == 1, "and the page itself");
	CHECK(THERE(0) && x.perm == (R | X), "harvested: W is gone");
	FORWARDS(K4, R, S2_FAULT_PERMISSION, 1);
	FORWARDS(2 * K4, W, S2_FAULT_PERMISSION, 1);
	FORWARDS(2 * K4, X, S2_FAULT_PERMISSION, 1);
	end();
}

static void arm(void)
{
	/* the guest: 4K, 40 bits from level 1 with two root tables, PS 40 bits */
	const uint64_t vtcr = 24 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 2 << 16 | 1u << 31;
	const uint64_t leaf = 0x7ff;
	struct s2_guest_root bad;

	begin("arm64 4K, 40 bits", "arm64 4K, 40 bits");
	memset(n.ram + 0x100000, 0, 0x10000);
	put(0x100000, 513, 0x102000 | 3); /* in the second of the root tables */
	put(0x102000, 0, 0x103000 | 3);
	put(0x102000, 1, (GiB + M2) | (leaf & ~UINT64_C(2)));
	put(0x103000, 0, GiB | leaf);
	put(0x103000, 1, GiB | (leaf & ~UINT64_C(0x400))); /* AF clear */
	put(0x103000, 2, GiB | (leaf & ~UINT64_C(2)));	   /* no page */
	put(0x103000, 3, GiB | (leaf & ~UINT64_C(0xc0)));  /* no access */
	put(0x103000, 4, GiB | (leaf & ~UINT64_C(0x40)));  /* write only */
	put(0x103000, 5, (UINT64_C(1) << 41) | leaf);
	put(0x103000, 6, GiB | leaf | UINT64_C(2) << 53); /* not executable */
	put(0x102000, 7, 0x2000000000 | 3);
	put(0x100000, 512, GiB | 1); /* 1 GiB without access */
	enter(0x100000 | UINT64_C(7) << 48 | 1, vtcr, 0);
	MAPS(GiB * 513, R, n.table_hpa + DATA_HPA, R | W | X);
	MAPS(GiB * 513 + M2 + 9, W, n.table_hpa + DATA_HPA + M2 + 9, R | W | X);
	CHECK(x.level == 2, "%u", x.level);
	FORWARDS(GiB * 513 + K4, R, S2_FAULT_ACCESS_FLAG, 1);
	FORWARDS(GiB * 513 + 2 * K4, R, S2_FAULT_TRANSLATION, 1);
	FORWARDS(GiB * 513 + 3 * K4, R, S2_FAULT_PERMISSION, 1);
	FORWARDS(GiB * 513 + 4 * K4, R, S2_FAULT_PERMISSION, 1);
	MAPS(GiB * 513 + 4 * K4, W, n.table_hpa + DATA_HPA, W | X);
	FORWARDS(GiB * 513 + 5 * K4, R, S2_FAULT_SIZE, 1);
	FORWARDS(GiB * 513 + 6 * K4, X, S2_FAULT_PERMISSION, 1);
	MAPS(GiB * 513 + 6 * K4, W, n.table_hpa + DATA_HPA, R | W);
	FORWARDS(GiB * 513 + 7 * M2, R, S2_FAULT_TABLE, 1);
	FORWARDS(GiB * 512, R, S2_FAULT_ACCESS_FLAG, 3);
	FORWARDS(UINT64_C(1) << 40, R, S2_FAULT_TRANSLATION, 3);
	/* the same root without CnP is the same context; another VMID is not */
	bad = root;
	bad.root &= ~UINT64_C(1);
	struct s2_context *other;

	CHECK(!s2_context_get(&other, t, n.shadows, &bad, NULL) && other == ctx, "CnP");
	s2_context_put(other);
	bad.root ^= UINT64_C(1) << 48;
	CHECK(!s2_context_get(&other, t, n.shadows, &bad, NULL) && other != ctx, "VMID");
	s2_context_put(other);
	/* registers that are refused */
	const struct {
		uint64_t root, control;
	} wrong[] = {
		{0x100000, vtcr | 3 << 14},		 /* granule */
		{0x101000, vtcr},			 /* two tables are aligned to 8 KiB */
		{0x100000, (vtcr & ~UINT64_C(63)) | 20}, /* 44 bits: wider than the guest's */
		{0x100000, vtcr & ~UINT64_C(0xc0)},	 /* 40 bits from level 2: 1024 tables */
		{0x100000, vtcr | 2 << 6},		 /* level -1 */
		{UINT64_C(1) << 41, vtcr},		 /* beyond memory */
	};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		const char *rule = NULL;

		bad = (struct s2_guest_root){.root = wrong[i].root, .control = wrong[i].control};
		CHECK(s2_context_get(&other, t, n.shadows, &bad, &rule) == -EINVAL && rule,
		      "wrong registers %zu", i);
	}
	/* the stage off: gpa as it is */
	s2_context_put(ctx);
	root.off = true;
	CHECK(!s2_context_get(&ctx, t, n.shadows, &root, NULL), "off");
	MAPS(GiB + M2 + 5, W, n.table_hpa + DATA_HPA + M2 + 5, R | W | X);
	FORWARDS(UINT64_C(1) << 40, R, S2_FAULT_SIZE, 2 + 1);
	CHECK(fault(7 * GiB, R) == S2_EMULATE && why.gpa == 7 * GiB, "device");
	end();
}

static void riscv(void)
{
	const uint64_t leaf = 0xdf, data = GiB >> 2;
	struct s2_shadow_config sc;

	create("sv48x4", "sv39x4", &sc);
	sc.use_ad = false; /* Svade */
	sc.options = S2_OPT_NAPOT;
	CHECK(!s2_shadows_create(&n.shadows, t, &sc, NULL), "create");
	memset(n.ram + 0x100000, 0, 0x10000);
	put(0x100000, 2047, 0x104000 >> 2 | 1);
	put(0x104000, 0, 0x105000 >> 2 | 1);
	put(0x105000, 0, data | leaf);
	put(0x105000, 1, data | (leaf & ~UINT64_C(0x40))); /* A clear */
	put(0x105000, 2, data | (leaf & ~UINT64_C(0x80))); /* D clear */
	put(0x105000, 3, data | (leaf & ~UINT64_C(0x10))); /* not a user page */
	put(0x105000, 4, data | (leaf & ~UINT64_C(0x2)));  /* W without R */
	put(0x105000, 5, data | 1);			   /* a table */
	put(0x105000, 6, data | leaf | UINT64_C(1) << 61); /* no Svpbmt */
	put(0x105000, 7, data | leaf | UINT64_C(1) << 54);
	for (uint64_t i = 16; i < 32; i++)
		put(0x105000, i, data | 8 << 10 | leaf | UINT64_C(1) << 63); /* 64 KiB */
	put(0x105000, 32, data | 4 << 10 | leaf | UINT64_C(1) << 63);
	put(0x104000, 1, data | 1 << 10 | leaf); /* misaligned */
	put(0x104000, 2, 0x105000 >> 2 | 1 | 0x40);
	enter(UINT64_C(8) << 60 | UINT64_C(5) << 44 | 0x100, 0, 0);
	const uint64_t at = UINT64_C(2047) << 30;

	MAPS(at + 5, W, n.table_hpa + DATA_HPA + 5, R | W | X);
	FORWARDS(at + K4, R, S2_FAULT_ACCESS_FLAG, 1);
	FORWARDS(at + 2 * K4, W, S2_FAULT_ACCESS_FLAG, 1);
	MAPS(at + 2 * K4, R, n.table_hpa + DATA_HPA, R | X);
	FORWARDS(at + 3 * K4, R, S2_FAULT_PERMISSION, 1);
	FORWARDS(at + 4 * K4, R, S2_FAULT_RESERVED, 1);
	FORWARDS(at + 5 * K4, R, S2_FAULT_RESERVED, 1);
	FORWARDS(at + 6 * K4, R, S2_FAULT_RESERVED, 1);
	FORWARDS(at + 7 * K4, R, S2_FAULT_RESERVED, 1);
	MAPS(at + 21 * K4, R, n.table_hpa + DATA_HPA + 5 * K4, R | W | X);
	MAPS(at + 22 * K4, R, n.table_hpa + DATA_HPA + 6 * K4, R | W | X);
	FORWARDS(at + 32 * K4, R, S2_FAULT_RESERVED, 1);
	FORWARDS(at + M2, R, S2_FAULT_RESERVED, 2);
	FORWARDS(at + 2 * M2, R, S2_FAULT_RESERVED, 2);
	FORWARDS(UINT64_C(1) << 41, R, S2_FAULT_TRANSLATION, 3);
	/* one address of the 64 KiB takes all that was made of them, and nothing else */
	s2_shadow_invalidate(
		t, n.shadows,
		&(struct s2_inv){.kind = S2_INV_IPA, .vmid = 5, .start = at + 31 * K4});
	CHECK(!THERE(at + 21 * K4) && !THERE(at + 22 * K4) && THERE(at) && THERE(at + 2 * K4),
	      "NAPOT");
	end();
}

/* Post-copy: the page of data is not here yet, then the page with the guest's table. */
static void demand(void *opaque, struct s2_thread *thread, uint64_t gpa)
{
	(void)thread;
	*(uint64_t *)opaque = gpa;
}

static int fill(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes)
{
	(void)opaque;
	(void)gpa;
	(void)hpa;
	(void)bytes;
	return 0;
}

static void missing(void)
{
	uint64_t asked = 0;
	const struct s2_missing_ops ops = {.opaque = &asked, .request = demand};

	begin("ept4", "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	MAPS(5 * K4, R, n.table_hpa + DATA_HPA + 8 * M2 + 5 * K4, R | W | X);
	CHECK(!s2_missing_start(t, &ops), "start");
	CHECK(s2_missing_mark(t, GiB + 8 * M2, 512, NULL) == 512, "mark");
	CHECK(!THERE(5 * K4), "what is marked is in no shadow");
	CHECK(fault(5 * K4, R) == S2_MISSING && asked == GiB + 8 * M2 + 5 * K4, "%" PRIx64, asked);
	CHECK(s2_receive(t, GiB + 8 * M2 + 5 * K4, 1, fill, NULL) == 1, "receive");
	MAPS(5 * K4, R, n.table_hpa + DATA_HPA + 8 * M2 + 5 * K4, R | W | X);
	CHECK(s2_missing_mark(t, 0x103000, 1, NULL) == 1, "mark");
	CHECK(fault(6 * K4, R) == S2_MISSING && asked == 0x103000, "%" PRIx64, asked);
	CHECK(s2_receive(t, 0x103000, 1, fill, NULL) == 1, "receive");
	CHECK(fault(6 * K4, R) == S2_MISSING && asked == GiB + 8 * M2 + 6 * K4, "%" PRIx64, asked);
	CHECK(s2_receive(t, GiB + 8 * M2, 512, fill, NULL) == 511, "receive");
	CHECK(!s2_missing_stop(t), "stop");
	end();
}

/* What each invalidation takes, and what it leaves. */
static void invalidations(void)
{
	struct s2_context *other;
	struct s2_guest_root second;
	struct s2_inv inv = {.kind = S2_INV_IPA, .vmid = 0};

	begin("ept4", "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	/* the host has small pages in one block of the guest's, so that it is in pieces */
	CHECK(!s2_dirty_start(t), "start");
#define FILL()                                                                                     \
	do {                                                                                       \
		for (uint64_t i = 0; i < 8; i++) {                                                 \
			fault(i *K4, W);                                                           \
			fault(M2 + i * K4, W);                                                     \
			fault(GiB + i * M2, R);                                                    \
		}                                                                                  \
	} while (0)
	FILL();
	CHECK(stats().leaves == 24, "%" PRIu64, stats().leaves);
	inv.start = 3 * K4;
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 23 && !THERE(3 * K4), "a small page");
	/* a page of the block that is not in the shadow: all pieces of the block go */
	inv.start = M2 + 100 * K4;
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 15 && !THERE(M2) && THERE(2 * K4) && THERE(GiB), "a block");
	inv.start = GiB + 400 * M2;
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 7 && !THERE(GiB) && THERE(2 * K4), "a large block");
	FILL();
	inv.start = 3 * K4;
	inv.shift = 21; /* a hint */
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 16 && !THERE(0) && THERE(M2) && THERE(GiB), "a hint");
	FILL();
	inv = (struct s2_inv){.kind = S2_INV_RANGE, .start = 6 * K4, .end = M2 + K4};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(THERE(5 * K4) && !THERE(6 * K4) && !THERE(M2) && !THERE(M2 + 7 * K4) && THERE(GiB),
	      "a range, and the whole of the guest's leaves at its ends");
	FILL();
	second = root;
	second.vmid = 9;
	CHECK(!s2_context_get(&other, t, n.shadows, &second, NULL) && other != ctx, "second");
	CHECK(s2_context_fault(t, other, 0, R, &x, &why) == S2_FIXED, "second");
	inv = (struct s2_inv){.kind = S2_INV_STAGE1};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 25, "stage 1 only: no shadow is touched");
	inv = (struct s2_inv){.kind = S2_INV_VMID, .vmid = 9};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(stats().leaves == 24 && THERE(0), "the other VMID");
	CHECK(s2_context_fault(t, other, 0, R, &x, &why) == S2_FIXED, "second");
	inv = (struct s2_inv){.kind = S2_INV_ROOT, .root = 0x100000 | 0x5e};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(!stats().leaves && !stats().tables, "the root, of whatever VMID");
	FILL();
	inv = (struct s2_inv){.kind = S2_INV_ALL};
	s2_shadow_invalidate(t, n.shadows, &inv);
	CHECK(!stats().leaves && !stats().tables, "all");
	s2_context_put(other);
	end();
}

static void look(void *opaque, const struct s2_counter *c)
{
	struct s2_shadow_stats *s = opaque;

	if (!strcmp(c->name, "shadow.leaves"))
		s->leaves = c->value;
	if (!strcmp(c->name, "shadow-changes.followed"))
		s->followed = c->value;
	if (!strcmp(c->name, "shadow-faults.fixed"))
		s->faults[S2_FIXED] = c->value;
}

/* Linux drops every shadow when a page of the host goes. */
static void follows(void)
{
	struct s2_shadow_stats before, after;

	begin("ept4", "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	for (uint64_t i = 0; i < 512; i++)
		fault(i * K4, W);
	for (uint64_t i = 0; i < 16; i++)
		fault(GiB + i * M2, W); /* of them the ninth is the block above once more */
	before = stats();
	CHECK(before.leaves == 528, "%" PRIu64, before.leaves);
	CHECK(!s2_unmap(t, GiB + 3 * M2, GiB + 4 * M2), "unmap");
	after = stats();
	CHECK(after.leaves == 527 && after.followed == 1 && !THERE(GiB + 3 * M2), "one leaf");
	s2_stats_each(n.own, look, &before);
	CHECK(before.leaves == 527 && before.followed == 1 &&
		      before.faults[S2_FIXED] == after.faults[S2_FIXED],
	      "among the instance's counters");
	CHECK(!s2_write_protect(t, GiB + 4 * M2, GiB + 5 * M2), "protect");
	after = stats();
	CHECK(after.leaves == 527 && after.lost_write == 1 && THERE(GiB + 4 * M2) &&
		      x.perm == (R | X),
	      "one leaf");
	/* the block that two parts of the guest's stage use: the host's leaf goes as a whole */
	CHECK(!s2_unmap(t, GiB + 8 * M2 + 5 * K4, GiB + 8 * M2 + 6 * K4), "unmap");
	after = stats();
	CHECK(after.leaves == 527 - 513, "%" PRIu64, after.leaves);
	CHECK(!s2_unmap(t, 0, 0), "unmap");
	after = stats();
	CHECK(!after.leaves, "%" PRIu64, after.leaves);
	end();
}

/* Whatever ages a page of the host, with A bits or without, sees a nested use of it. */
static void ages(const char *host)
{
	begin(host, "ept4");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	CHECK(fault(GiB + 3 * M2, W) == S2_FIXED, "nested");
	CHECK(fault(GiB + 4 * M2, W) == S2_FIXED, "nested");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, S2_AGE_TEST, NULL) == 512 &&
		      THERE(GiB + 3 * M2),
	      "only a look");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, 0, NULL) == 512, "aged");
	CHECK(!THERE(GiB + 3 * M2) && THERE(GiB + 4 * M2), "its shadow goes, no other");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, S2_AGE_TEST, NULL) == 0, "not used");
	CHECK(fault(GiB + 3 * M2, R) == S2_FIXED, "nested");
	CHECK(s2_age(t, GiB + 3 * M2, GiB + 4 * M2, S2_AGE_TEST, NULL) == 512, "used again");
	end();
}

static void bounds(void)
{
	struct s2_shadow_config sc;
	struct s2_context *held[4], *one_more;

	create("ept4", "ept4", &sc);
	sc.leaves = 100;
	sc.tables = 12;
	CHECK(!s2_shadows_create(&n.shadows, t, &sc, NULL), "create");
	ept_tables();
	enter(0x100000 | 0x1e, 0, 0);
	for (uint64_t i = 0; i < 512; i++) {
		CHECK(fault(i * K4, W) == S2_FIXED, "leaf %" PRIu64, i);
		CHECK(stats().leaves <= 100 && stats().tables <= 12, "bounds");
	}
	CHECK(stats().evictions >= 4, "%" PRIu64, stats().evictions);
	put(0x101000, 2, 0x102000 | 7);
	put(0x101000, 3, 0x102000 | 7);
	for (uint64_t i = 4; i < 64; i++) {
		put(0x100000, i, 0x101000 | 7);
		CHECK(fault(i << 39, W) == S2_FIXED, "table %" PRIu64, i);
		CHECK(stats().tables <= 12, "bounds");
	}
	/* all contexts referenced */
	for (unsigned i = 0; i < 4; i++) {
		root.vmid = 10 + i;
		if (i < 3)
			CHECK(!s2_context_get(&held[i], t, n.shadows, &root, NULL), "get");
		else
			CHECK(s2_context_get(&one_more, t, n.shadows, &root, NULL) == -EBUSY,
			      "busy");
	}
	s2_context_put(held[1]);
	CHECK(!s2_context_get(&one_more, t, n.shadows, &root, NULL) && one_more == held[1],
	      "recycled");
	CHECK(stats().recycled == 1 && stats().contexts == 4, "%" PRIu64, stats().recycled);
	s2_context_put(held[0]);
	s2_context_put(held[2]);
	s2_context_put(one_more);
	end();
}

/* Every allocation fails once: the call says so or does without; nothing is lost. */
static bool nomem_once(long after)
{
	struct s2_shadow_config sc;
	unsigned failed = 0;
	bool done;
	int err;

	create("ept4", "ept4", &sc);
	sc.contexts = 2;
	ept_tables();
	root = (struct s2_guest_root){.root = 0x100000 | 0x1e};
	atomic_store(&n.te.fail_after, after);
#define AGAIN(call, nomem)                                                                         \
	do {                                                                                       \
		err = (int)(call);                                                                 \
		if (err == (nomem)) {                                                              \
			failed++;                                                                  \
			atomic_store(&n.te.fail_after, -1);                                        \
			err = (int)(call);                                                         \
		}                                                                                  \
		CHECK(!err, "%s: %d", #call, err);                                                 \
	} while (0)
	AGAIN(s2_shadows_create(&n.shadows, t, &sc, NULL), -ENOMEM);
	for (unsigned i = 0; i < 3; i++) {
		root.vmid = i;
		AGAIN(s2_context_get(&ctx, t, n.shadows, &root, NULL), -ENOMEM);
		for (uint64_t j = 0; j < 3; j++) {
			AGAIN(fault(j * M2, R), S2_NOMEM);
			AGAIN(fault(GiB + j * M2, R), S2_NOMEM);
		}
		if (i < 2)
			s2_context_put(ctx);
	}
	AGAIN(s2_unmap(t, GiB, GiB + M2), -ENOMEM);
	s2_context_drop(t, ctx);
	AGAIN(fault(0, R), S2_NOMEM);
	done = atomic_load(&n.te.fail_after) > 0;
	CHECK(done || failed || after, "%ld", after);
	end();
	return done;
}

static void refused(void)
{
	const struct {
		const char *host;
		struct s2_shadow_config c;
	} wrong[] = {
		{"ept4", {.guest = S2_NPT4}},
		{"ept4", {.guest = S2_EPT4, .options = S2_OPT_EXEC_ONLY}},
		{"ept4", {.guest = S2_EPT4, .gpa_bits = 49}},
		{"sv39x4", {.guest = S2_SV32X4}},
		{"sv39x4", {.guest = S2_SV39X4, .use_ad = true}},
		{"arm64 4K, 40 bits", {.guest = S2_SV39X4}},
	};
	struct s2_shadow_config sc;
	struct s2_shadows *other;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		const char *rule = NULL;

		create(wrong[i].host, wrong[i].host, &sc);
		sc = wrong[i].c;
		sc.memory = (struct s2_guest_memory){.opaque = &n, .load = nest_load};
		CHECK(s2_shadows_create(&other, t, &sc, &rule) == -EINVAL && rule, "%zu", i);
		s2_thread_exit(t);
		nest_end(&n);
	}
	begin("ept4", "ept4");
	sc = nest_shadow_config(&n);
	CHECK(s2_shadows_create(&other, t, &sc, NULL) == -EALREADY, "one set");
	root = (struct s2_guest_root){.root = 0x100000 | 0x1c};
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "memory type 4");
	root.root = 0x100000 | 0x26;
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "five levels");
	root.root = UINT64_C(1) << 48 | 0x1e;
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "beyond");
	ctx = NULL;
	end();
	/* a granule smaller than the host's */
	begin("arm64 16K, 40 bits", "arm64 4K, 40 bits");
	root = (struct s2_guest_root){.root = 0x100000, .control = 24 | 1 << 6 | 2 << 16};
	CHECK(s2_context_get(&ctx, t, n.shadows, &root, NULL) == -EINVAL, "granule");
	ctx = NULL;
	end();
}

/* Anything in memory: it ends, within the levels, and leads nowhere but into slots. */
static void random_tables(const char *name, uint64_t value, uint64_t control, uint64_t *seed)
{
	struct dec_memory shadow;
	struct dec_census c;

	begin(name, name);
	n.guest = config(name);
	enter(value, control, 1);
	for (int i = 0; i < test_scale(3000); i++) {
		uint64_t ngpa = test_random(seed) >> (16 + test_random(seed) % 40);
		enum s2_result r;

		if (i % 100 == 0) {
			for (uint64_t w = 0; w < 0x40000 / 8; w++)
				put(0x100000, w,
				    test_random(seed) &
					    (test_random(seed) % 4 ? UINT64_C(0x40cf) << 16 | 0xffff
								   : UINT64_MAX));
			s2_shadow_invalidate(t, n.shadows, &(struct s2_inv){.kind = S2_INV_ALL});
		}
		atomic_store(&n.loads, 0);
		r = fault(ngpa, 1u << test_random(seed) % 3);
		CHECK(r != S2_INVALID && r != S2_NOMEM, "%d", r);
		CHECK(atomic_load(&n.loads) <= 5 * 12, "%lu", (unsigned long)n.loads);
		if (r == S2_FIXED)
			CHECK(x.hpa - n.table_hpa < TABLES ||
				      x.hpa - n.table_hpa - DATA_HPA < 4 * GiB,
			      "%" PRIx64, x.hpa);
	}
	nest_context(&n, ctx, &shadow);
	c = dec_census(&shadow);
	CHECK(!c.bad && !c.marks, "bad entries");
	end();
}

static void instructions(void)
{
	struct s2_inv i;
	const uint64_t one = 16;

	for (unsigned crn = 8; crn <= 9; crn++) { /* and nXS */
		/* IPAS2E1IS, IPAS2LE1OS, local; 4K, level 2 */
		CHECK(s2_inv_tlbi(&i, 4, crn, 0, 1, 0x12345 | UINT64_C(6) << 44, 7) &&
			      i.kind == S2_INV_IPA && i.vmid == 7 && i.start == 0x12345000 &&
			      i.shift == 21,
		      "%u", i.shift);
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 4, 0x12345, 7) && i.kind == S2_INV_IPA && !i.shift,
		      "IPAS2LE1OS");
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 1, UINT64_C(10) << 44, 7) && i.shift == 25,
		      "16K, level 2: %u", i.shift);
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 5, UINT64_C(9) << 44, 7) && !i.shift, "level 1");
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 5, UINT64_C(15) << 44, 7) && i.shift == 16, "64K");
		/* RIPAS2E1IS: 4K, scale 1, num 2: 3 << 6 pages */
		CHECK(s2_inv_tlbi(&i, 4, crn, 0, 2,
				  UINT64_C(1) << 46 | UINT64_C(1) << 44 | UINT64_C(2) << 39 | 5,
				  7) &&
			      i.kind == S2_INV_RANGE && i.start == 5 * K4 &&
			      i.end == (5 + 192) * K4,
		      "%" PRIx64, i.end);
		CHECK(s2_inv_tlbi(&i, 4, crn, 4, 2, 0, 7) && i.end == 2 * 0x10000, "granule 0");
		CHECK(s2_inv_tlbi(&i, 4, crn, 3, 4, 0, 7) && i.kind == S2_INV_ALL, "ALLE1IS");
		CHECK(s2_inv_tlbi(&i, 4, crn, 7, 6, 0, 7) && i.kind == S2_INV_VMID, "VMALLS12E1");
		CHECK(s2_inv_tlbi(&i, 0, crn, 3, 0, 0, 7) && i.kind == S2_INV_STAGE1, "VMALLE1IS");
		CHECK(s2_inv_tlbi(&i, 0, crn, 6, 1, 0, 7) && i.kind == S2_INV_STAGE1, "RVAE1");
		CHECK(!s2_inv_tlbi(&i, 4, crn, 3, 0, 0, 7), "ALLE2IS is not ours");
	}
	CHECK(!s2_inv_tlbi(&i, 4, 7, 3, 4, 0, 7), "no TLBI");
	s2_inv_hfence_gvma(&i, NULL, NULL);
	CHECK(i.kind == S2_INV_ALL, "all");
	s2_inv_hfence_gvma(&i, &one, NULL);
	CHECK(i.kind == S2_INV_ALL, "an address of all VMIDs");
	s2_inv_hfence_gvma(&i, NULL, &one);
	CHECK(i.kind == S2_INV_VMID && i.vmid == 16, "VMID");
	s2_inv_hfence_gvma(&i, &one, &one);
	CHECK(i.kind == S2_INV_IPA && i.start == 64, "address");
	CHECK(s2_inv_invept(&i, 1, 0x1e) && i.kind == S2_INV_ROOT && i.root == 0x1e, "single");
	CHECK(s2_inv_invept(&i, 2, 0) && i.kind == S2_INV_ALL && !s2_inv_invept(&i, 3, 0), "all");
	CHECK(s2_inv_tlb_control(&i, 3, 4) && i.kind == S2_INV_VMID && i.vmid == 4, "ASID");
	CHECK(s2_inv_tlb_control(&i, 1, 4) && i.kind == S2_INV_ALL, "all");
	CHECK(!s2_inv_tlb_control(&i, 0, 4), "nothing");
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);

	ept();
	ept_faults();
	ept_ad();
	ad_is_a_write();
	arm();
	riscv();
	missing();
	invalidations();
	follows();
	ages("ept4");
	ages("ept4, 40 bits");
	bounds();
	for (long after = 0; !nomem_once(after);)
		after += test_scale(30) == 30 ? 1 : 3;
	refused();
	random_tables("ept4", 0x100000 | 0x5e, 0, &seed);
	random_tables("npt4", 0x100000, 0, &seed);
	random_tables("arm64 4K, 40 bits", 0x100000,
		      24 | 1 << 6 | 2 << 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1u << 31, &seed);
	random_tables("sv39x4", UINT64_C(8) << 60 | 0x100, 0, &seed);
	instructions();
	return test_result("shadow ops");
}
