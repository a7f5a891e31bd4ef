/*
 * Description: faults of nested guests, over tables of a guest that are written entry by entry:
 * whose fault it is, at which level and address; entries that the manuals forbid, tables that loop,
 * lie out of memory or are random; A and D bits; memory that is missing.
 */
#include <errno.h>

#include "mmu/missing.h"
#include "tests/unit/test_mmu_shadow_entries.h"

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
	FORWARDS(6 * K4, R, S2_FAULT_RESERVED, 1);
	put(0x102000, 3, UINT64_C(1) << 51 | 0x103000 | 7); /* so is a table's */
	FORWARDS(3 * M2, R, S2_FAULT_RESERVED, 2);
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
	put(0x103000, 3, UINT64_C(1) << 48 | 7); /* wider than the guest's 48 bits: RSV */
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
	FORWARDS(3 * K4, R, S2_FAULT_RESERVED, 1);
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
	/* beyond the input: Arm's level 0, wherever the walk begins */
	FORWARDS(UINT64_C(1) << 40, R, S2_FAULT_TRANSLATION, 4);
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
	CHECK(why.gpa == GiB + 8 * M2 + 5 * K4, "which page: %" PRIx64, why.gpa);
	CHECK(s2_receive(t, GiB + 8 * M2 + 5 * K4, 1, fill, NULL) == 1, "receive");
	MAPS(5 * K4, R, n.table_hpa + DATA_HPA + 8 * M2 + 5 * K4, R | W | X);
	CHECK(s2_missing_mark(t, 0x103000, 1, NULL) == 1, "mark");
	CHECK(fault(6 * K4, R) == S2_MISSING && asked == 0x103000, "%" PRIx64, asked);
	CHECK(why.gpa == 0x103000 + 6 * 8, "which entry of a table: %" PRIx64, why.gpa);
	CHECK(s2_receive(t, 0x103000, 1, fill, NULL) == 1, "receive");
	CHECK(fault(6 * K4, R) == S2_MISSING && asked == GiB + 8 * M2 + 6 * K4, "%" PRIx64, asked);
	CHECK(s2_receive(t, GiB + 8 * M2, 512, fill, NULL) == 511, "receive");
	CHECK(!s2_missing_stop(t), "stop");
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
	random_tables("ept4", 0x100000 | 0x5e, 0, &seed);
	random_tables("npt4", 0x100000, 0, &seed);
	random_tables("arm64 4K, 40 bits", 0x100000,
		      24 | 1 << 6 | 2 << 16 | 1 << 8 | 1 << 10 | 3 << 12 | 1u << 31, &seed);
	random_tables("sv39x4", UINT64_C(8) << 60 | 0x100, 0, &seed);
	return test_result("shadow walk");
}
