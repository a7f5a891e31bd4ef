/*
 * Description: entries and registers of every format bit by bit: vectors computed by hand from the
 * manuals, geometries, what must be refused, and every encoding read back by an independent
 * decoder.
 */
#include "tests/unit/test_mmu_format.h"

static struct geometry geometry_of(struct s2_config c)
{
	struct geometry g = {0};
	const char *why = "";

	CHECK(!test_geometry(&c, &g, &why), "%s: %s", s2_format_name(c.format), why);
	return g;
}

/* clang-format off */
#define EPT   {.format = S2_EPT4, .options = S2_OPT_EXEC_ONLY}
#define PLAIN {.format = S2_EPT4}
#define NPT   {.format = S2_NPT4}
#define A4K   {.format = S2_ARM64_4K, .input_bits = 48}
#define A4KW  {.format = S2_ARM64_4K, .input_bits = 52}
#define A16K  {.format = S2_ARM64_16K, .input_bits = 48}
#define A64KW {.format = S2_ARM64_64K, .input_bits = 52}
#define RV    {.format = S2_SV48X4}
#define RV32  {.format = S2_SV32X4}
/* clang-format on */

/*
 * EPT: R 0, W 1, X 2, type 5:3 (WB = 6), large 7. NPT: P 0, RW 1, US 2, A 5, D 6, PS 7, NX 63.
 * arm64: valid 0, page 1, MemAttr 5:2 (WB = 15), S2AP 7:6, SH 9:8 (3), AF 10, XN 54; LPA2: address
 * 51:50 in 9:8; LPA: 51:48 in 15:12. RISC-V: V, R, W, X, U, G, A, D from 0, PPN from 10.
 */
static const struct {
	struct s2_config c;
	uint64_t addr;
	unsigned level;
	uint32_t perm;
	uint64_t entry;
} leaves[] = {
	{EPT, 0x0000000000000000, 1, 7, 0x0000000000000037},
	{EPT, 0x0000123456789000, 1, 7, 0x0000123456789037},
	{EPT, 0x000ffffffffff000, 1, 1, 0x000ffffffffff031},
	{EPT, 0x0000000000001000, 1, 3, 0x0000000000001033},
	{EPT, 0x0000000000001000, 1, 4, 0x0000000000001034},
	{EPT, 0x0000000040000000, 2, 5, 0x00000000400000b5},
	{EPT, 0x000fffffffe00000, 2, 7, 0x000fffffffe000b7},
	{EPT, 0x000fffffc0000000, 3, 1, 0x000fffffc00000b1},
	{NPT, 0x0000123456789000, 1, 7, 0x0000123456789067},
	{NPT, 0x0000123456789000, 1, 1, 0x8000123456789065},
	{NPT, 0x000ffffffffff000, 1, 5, 0x000ffffffffff065},
	{NPT, 0x0000000040000000, 2, 3, 0x80000000400000e7},
	{NPT, 0x000fffffc0000000, 3, 7, 0x000fffffc00000e7},
	{A4K, 0x0000812345678000, 1, 7, 0x00008123456787ff},
	{A4K, 0x0000812345678000, 1, 1, 0x004081234567877f},
	{A4K, 0x0000812345678000, 1, 4, 0x000081234567873f},
	{A4K, 0x0000000040200000, 2, 5, 0x000000004020077d},
	{A4K, 0x00000007c0000000, 3, 3, 0x00400007c00007fd},
	{A4KW, 0x000d23456789f000, 1, 7, 0x000123456789f7ff},
	{A4KW, 0x0008000040200000, 2, 7, 0x00000000402006fd},
	{A16K, 0x0000800000004000, 1, 7, 0x00008000000047ff},
	{A16K, 0x0000000002000000, 2, 2, 0x00400000020007bd},
	{A64KW, 0x000b123456780000, 1, 7, 0x000012345678b7ff},
	{A64KW, 0x000f000020000000, 2, 3, 0x004000002000f7fd},
	{RV, 0x0000123456789000, 1, 7, 0x0000048d159e24df},
	{RV, 0x00f0000000001000, 1, 1, 0x003c0000000004d3},
	{RV, 0x0000000000001000, 1, 4, 0x00000000000004d9},
	{RV, 0x0000000040000000, 2, 3, 0x00000000100000d7},
	{RV, 0x0000008000000000, 4, 5, 0x00000020000000db},
	{RV32, 0x0000000345678000, 1, 7, 0x00000000d159e0df},
	{RV32, 0x0000000000400000, 2, 1, 0x00000000001000d3},
};

/* 0: refused */
static const struct {
	struct s2_config c;
	uint64_t pa, entry;
} tables[] = {
	{EPT, 0xabc000, 0xabc107}, /* A, as in NPT: it need not be set */
	{EPT, 0, 0x107},
	{EPT, 0xabc800, 0},
	{EPT, 1ull << 52, 0},
	{NPT, 0xabc000, 0xabc027},
	{A4K, 0xabc000, 0xabc003},
	{A4K, 1ull << 48, 0},
	{A4KW, 0x000800000000b000, 0xb203},
	{A64KW, 0x000f000000ab0000, 0xabf003},
	{A64KW, 0x000f000000ab8000, 0},
	{RV, 0xabc000, 0x2af001},
	{RV, 1ull << 56, 0},
	{RV32, 0x3fffff000, 0xfffffc01},
	{RV32, 1ull << 34, 0},
};

static const struct {
	struct s2_config c;
	uint64_t addr;
	unsigned level;
	uint32_t perm;
} refused[] = {
	{EPT, 0x1000, 1, 2},	 /* W without R */
	{EPT, 0x1000, 1, 6},	 /* W and X without R */
	{EPT, 0x1000, 1, 0},	 /* nothing: not present */
	{EPT, 0x1000, 1, 8},	 /* no such permission */
	{EPT, 0x1001, 1, 7},	 /* misaligned */
	{EPT, 0x40001000, 2, 7}, /* for 2 MiB */
	{EPT, 0x40200000, 3, 7}, /* for 1 GiB */
	{EPT, 1ull << 52, 1, 7}, /* beyond 52 bits */
	{EPT, 0, 4, 7},		 /* no leaf there */
	{EPT, 0, 5, 7},		 {EPT, 0, 0, 7},
	{PLAIN, 0x1000, 1, 4}, /* execute-only is an option */
	{NPT, 0x1000, 1, 4},   /* what is present can be read */
	{NPT, 0x1000, 1, 2},	 {NPT, 0, 4, 7},
	{A4K, 0x1000, 1, 0},	 {A4K, 1ull << 48, 1, 7},
	{A4K, 0, 4, 7},		 {A16K, 0x1000, 1, 7},
	{A16K, 0, 3, 7},	 {A64KW, 0x8000, 1, 7},
	{A64KW, 0, 3, 7},	 {RV, 0x1000, 1, 2}, /* W without R is reserved */
	{RV, 0x1000, 1, 6},	 {RV, 1ull << 56, 1, 7},
	{RV, 0, 5, 7},		 {RV32, 1ull << 34, 1, 7},
	{RV32, 0x200000, 2, 7}, /* 4 MiB, not 2 */
};

static void hand_vectors(void)
{
	uint64_t pa;

	for (size_t i = 0; i < sizeof(leaves) / sizeof(*leaves); i++) {
		const struct format *f = test_format(leaves[i].c.format);
		const struct geometry g = geometry_of(leaves[i].c);
		uint64_t e =
			format_make_leaf(f, &g, leaves[i].addr, leaves[i].level, leaves[i].perm);

		CHECK(e == leaves[i].entry, "leaf %zu: %" PRIx64, i, e);
		e = leaves[i].entry;
		CHECK(format_kind(f, e, leaves[i].level) == ENTRY_LEAF, "leaf %zu", i);
		CHECK(format_addr(f, &g, e) == leaves[i].addr, "leaf %zu", i);
		CHECK(f->perm(e) == leaves[i].perm, "leaf %zu", i);
		CHECK(leaves[i].level == 1 || !format_points(f, &g, e, &pa), "leaf %zu", i);
	}
	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		const struct format *f = test_format(tables[i].c.format);
		const struct geometry g = geometry_of(tables[i].c);
		uint64_t e = format_make_table(f, &g, tables[i].pa);

		CHECK(e == tables[i].entry, "table %zu: %" PRIx64, i, e);
		if (!tables[i].entry)
			continue;
		CHECK(format_kind(f, e, 2) == ENTRY_TABLE, "table %zu", i);
		CHECK(format_addr(f, &g, e) == tables[i].pa, "table %zu", i);
		/* All that a pointer can be, and no other address. */
		CHECK(format_points(f, &g, e, &pa) ? pa == tables[i].pa : tables[i].pa >> 48,
		      "table %zu", i);
	}
	/* Address 0 is one as any other: an environment may give it out. */
	for (int i = 0; i < TEST_CONFIGS; i++) {
		const struct format *f = test_format(test_configs[i].c.format);
		const struct geometry g = geometry_of(test_configs[i].c);
		uint64_t e = format_make_table(f, &g, 0);

		CHECK(e && format_kind(f, e, 2) == ENTRY_TABLE && format_addr(f, &g, e) == 0,
		      "%s: table at 0: %" PRIx64, test_configs[i].name, e);
		e = format_freeze(f, &g, e, 2, 1);
		CHECK(format_frozen_table(f, &g, e, &pa) && pa == 0, "%s: frozen %" PRIx64,
		      test_configs[i].name, e);
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		const struct format *f = test_format(refused[i].c.format);
		const struct geometry g = geometry_of(refused[i].c);

		CHECK(!format_make_leaf(f, &g, refused[i].addr, refused[i].level, refused[i].perm),
		      "refused %zu", i);
	}
}

/* Changes keep what they do not name. */
static void ept_changes(void)
{
	const struct geometry g = geometry_of((struct s2_config)EPT);
	const struct format *f = &ept_format;
	uint64_t e = 0x00f0123456789337 | 1ull << 57;

	CHECK(format_kind(f, 0, 1) == ENTRY_NONE, "none");
	CHECK(format_kind(f, 0xfff8000000000638, 3) == ENTRY_NONE, "none");
	CHECK(format_set_perm(f, &g, e, 5) == (e & ~7ull) + 5, "perm");
	CHECK(!format_set_perm(f, &g, e, 2) && !format_set_perm(f, &g, e, 0), "perm");
	CHECK(format_ad(f, e) == (FORMAT_A | FORMAT_D), "ad");
	CHECK(format_set_ad(f, e, FORMAT_A) == (e & ~0x200ull), "ad");
	CHECK(format_sw(f, e) == 15, "sw");
	CHECK(format_set_sw(f, e, 6) == ((e & ~(15ull << 52)) | 6ull << 52), "sw");
	CHECK(format_resize(f, &g, 0x00100007c00003b3, 0x7c0201000, 1) == 0x00100007c0201333,
	      "resize");
	CHECK(format_resize(f, &g, 0x00100007c00003b3, 0x7c0200000, 2) == 0x00100007c02003b3,
	      "resize");
}

static void other_changes(void)
{
	const struct format *a = &arm4k_format, *r = &riscv64_format;
	struct geometry g = geometry_of((struct s2_config)A4K);
	uint64_t e;

	CHECK(format_resize(a, &g, 0x07c00007c00007fd, 0x7c0201000, 1) == 0x07c00007c02017ff,
	      "a 1 GiB block becomes a page");
	CHECK(format_set_perm(a, &g, 0x07c00007c02017ff, 5) == 0x07800007c020177f, "RX");
	CHECK(format_sw(a, 0x0500000000000000) == 10, "sw");
	CHECK(format_set_ad(a, 0x7ff, 0) == 0x3ff && format_ad(a, 0x7ff) == FORMAT_A, "AF");
	CHECK(format_set_memory(a, &g, 0x7ff, FORMAT_IO) == 0x7c7, "device");
	CHECK(format_set_memory(a, &g, 0x7ff, FORMAT_NC) == 0x7d7, "not cached");

	/* Svpbmt and Svnapot where the hardware has them */
	g = geometry_of((struct s2_config)RV);
	CHECK(!format_set_memory(r, &g, 0x4d3, FORMAT_IO) && !format_make_napot(r, &g, 0x4d3),
	      "not there");
	CHECK(format_set_memory(r, &g, 0x4d3, FORMAT_WB) == 0x4d3, "WB is nothing special");
	g.options = FORMAT_PBMT | FORMAT_NAPOT;
	CHECK(format_set_memory(r, &g, 0x4d3, FORMAT_NC) == 0x20000000000004d3, "NC");
	CHECK(format_set_memory(r, &g, 0x4d3, FORMAT_IO) == 0x40000000000004d3, "IO");
	e = format_make_napot(r, &g, 0x48d4cd3); /* 0x12353000 is in the 64 KiB at 0x12350000 */
	CHECK(e == 0x80000000048d60d3, "%" PRIx64, e);
	CHECK(format_addr(r, &g, e) == 0x12350000 && format_leaf_shift(r, &g, e, 1) == 16, "64K");
	CHECK(format_sw(r, 0x300) == 3 && r->sw_bits == 2, "sw");
	g = geometry_of((struct s2_config)RV32);
	CHECK(!format_set_memory(&riscv32_format, &g, 0x4d3, FORMAT_IO), "none in Sv32");
	CHECK(!format_make_napot(&riscv32_format, &g, 0x4d3), "none in Sv32");
}

/* Frozen is not present to hardware, keeps its owner and a table's address, and is no leaf's. */
static void frozen(void)
{
	for (int i = 0; i < TEST_CONFIGS; i++) {
		const struct test_config *tc = &test_configs[i];
		const struct format *f = test_format(tc->c.format);
		const struct geometry g = geometry_of(tc->c);
		const uint64_t high = (1ull << g.output_bits) - (1ull << 20),
			       size2 = geometry_size(&g, 2);
		const struct dec_shape shape = {.entry_bytes = g.entry_size,
						.page_shift = g.page_shift};
		struct dec_entry hw;
		uint64_t pa;

		CHECK(f->owner_bits >= 6 && 1 << f->owner_bits <= FORMAT_MAX_OWNERS, "owners");
		for (unsigned owner = 0; owner < 1u << f->owner_bits; owner++) {
			uint64_t e = format_freeze(f, &g, format_make_table(f, &g, high), 2, owner);

			hw = (struct dec_entry){0};
			tc->decoder->entry(&shape, 2, e, &hw);
			CHECK(hw.kind == DEC_NONE && e >> (8 * g.entry_size - 1) <= 1, "%" PRIx64,
			      e);
			CHECK(format_kind(f, e, 2) == ENTRY_FROZEN, "%s: %" PRIx64, tc->name, e);
			CHECK(!format_points(f, &g, e, &pa), "%s: %" PRIx64, tc->name, e);
			CHECK(format_frozen_owner(f, e) == owner, "%s: %" PRIx64, tc->name, e);
			CHECK(format_frozen_table(f, &g, e, &pa) && pa == high, "%s: %" PRIx64,
			      tc->name, e);
			e = format_freeze(f, &g, format_make_leaf(f, &g, high & ~(size2 - 1), 2, 7),
					  2, owner);
			hw = (struct dec_entry){0};
			tc->decoder->entry(&shape, 2, e, &hw);
			CHECK(hw.kind == DEC_NONE, "%" PRIx64, e);
			CHECK(format_kind(f, e, 2) == ENTRY_FROZEN &&
				      format_frozen_owner(f, e) == owner,
			      "%s: %" PRIx64, tc->name, e);
			CHECK(!format_frozen_table(f, &g, e, &pa), "%s: %" PRIx64, tc->name, e);
		}
	}
}

/* Levels 0: refused. */
static void geometries(void)
{
	static const struct {
		struct s2_config c;
		unsigned levels, root_bits, input, output;
	} cases[] = {
		{{.format = S2_EPT4}, 4, 9, 48, 52},
		{{.format = S2_EPT5}, 5, 9, 57, 52},
		{{.format = S2_EPT5, .input_bits = 40}, 5, 9, 40, 52},
		{{.format = S2_EPT4, .input_bits = 13}, 4, 9, 13, 52},
		{{.format = S2_EPT4, .hpa_bits = 36}, 4, 9, 48, 36},
		{{.format = S2_NPT5, .hpa_bits = 48}, 5, 9, 57, 48},
		{{.format = S2_EPT4, .input_bits = 49}, .levels = 0},
		{{.format = S2_EPT5, .input_bits = 58}, .levels = 0},
		{{.format = S2_EPT4, .input_bits = 12}, .levels = 0},
		{{.format = S2_NPT4, .hpa_bits = 53}, .levels = 0},
		{{.format = S2_NPT4, .hpa_bits = 31}, .levels = 0},
		/* arm64: IPA -> levels, index bits of the root */
		{{.format = S2_ARM64_4K}, 3, 10, 40, 48},
		{{.format = S2_ARM64_4K, .input_bits = 32}, 2, 11, 32, 48},
		{{.format = S2_ARM64_4K, .input_bits = 34}, 2, 13, 34, 48},
		{{.format = S2_ARM64_4K, .input_bits = 35}, 3, 5, 35, 48},
		{{.format = S2_ARM64_4K, .input_bits = 43}, 3, 13, 43, 48},
		{{.format = S2_ARM64_4K, .input_bits = 44}, 4, 5, 44, 48},
		{{.format = S2_ARM64_4K, .input_bits = 48}, 4, 9, 48, 48},
		{{.format = S2_ARM64_4K, .input_bits = 49}, 4, 10, 49, 52},
		{{.format = S2_ARM64_4K, .input_bits = 52}, 4, 13, 52, 52},
		{{.format = S2_ARM64_16K, .input_bits = 40}, 2, 15, 40, 48},
		{{.format = S2_ARM64_16K, .input_bits = 41}, 3, 5, 41, 48},
		{{.format = S2_ARM64_16K, .input_bits = 47}, 3, 11, 47, 48},
		{{.format = S2_ARM64_16K, .input_bits = 48}, 3, 12, 48, 48},
		{{.format = S2_ARM64_16K, .input_bits = 51}, 3, 15, 51, 52},
		{{.format = S2_ARM64_16K, .input_bits = 52}, 4, 5, 52, 52},
		{{.format = S2_ARM64_64K, .input_bits = 32}, 2, 3, 32, 48},
		{{.format = S2_ARM64_64K, .input_bits = 33}, 2, 4, 33, 48},
		{{.format = S2_ARM64_64K, .input_bits = 42}, 2, 13, 42, 48},
		{{.format = S2_ARM64_64K, .input_bits = 46}, 2, 17, 46, 48},
		{{.format = S2_ARM64_64K, .input_bits = 47}, 3, 5, 47, 48},
		{{.format = S2_ARM64_64K, .input_bits = 52}, 3, 10, 52, 52},
		{{.format = S2_ARM64_4K, .input_bits = 40, .hpa_bits = 40}, 3, 10, 40, 40},
		{{.format = S2_ARM64_4K, .input_bits = 40, .hpa_bits = 52}, 3, 10, 40, 52},
		{{.format = S2_ARM64_4K, .input_bits = 31}, .levels = 0},
		{{.format = S2_ARM64_4K, .input_bits = 53}, .levels = 0},
		{{.format = S2_ARM64_4K, .input_bits = 40, .hpa_bits = 38},
		 .levels = 0}, /* no such physical size */
		{{.format = S2_ARM64_4K, .input_bits = 48, .hpa_bits = 44},
		 .levels = 0}, /* IPA wider than PA */
		{{.format = S2_ARM64_64K, .input_bits = 52, .hpa_bits = 48}, .levels = 0},
		{{.format = S2_SV32X4}, 2, 12, 34, 34},
		{{.format = S2_SV39X4}, 3, 11, 41, 56},
		{{.format = S2_SV48X4}, 4, 11, 50, 56},
		{{.format = S2_SV57X4}, 5, 11, 59, 56},
		{{.format = S2_SV39X4, .input_bits = 42}, .levels = 0},
		{{.format = S2_SV32X4, .input_bits = 35}, .levels = 0},
		{{.format = S2_SV32X4, .hpa_bits = 35}, .levels = 0},
		{{.format = S2_SV57X4, .hpa_bits = 57}, .levels = 0},
	};
	struct geometry g;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *why = NULL;
		int err = test_geometry(&cases[i].c, &g, &why);

		if (!cases[i].levels) {
			CHECK(err == -EINVAL && why, "case %zu", i);
			continue;
		}
		CHECK(!err && g.levels == cases[i].levels && g.input_bits == cases[i].input &&
			      g.output_bits == cases[i].output && g.root_bits == cases[i].root_bits,
		      "case %zu: %s: %u levels, %u bits", i, why, g.levels, g.root_bits);
		CHECK(geometry_max(&g) == (1ull << g.input_bits) - 1, "case %zu", i);
	}
	g = geometry_of((struct s2_config){.format = S2_EPT5});
	CHECK(geometry_shift(&g, 5) == 48 && geometry_size(&g, 3) == 1 << 30, "shift");
	CHECK(geometry_index(&g, 5, 0x01ff000000000000) == 511, "index");
	g = geometry_of((struct s2_config){.format = S2_SV39X4});
	CHECK(geometry_index(&g, 3, 0x1ffffffffff) == 2047, "the root is four tables");
	CHECK(geometry_table_bytes(&g, 3) == 16384 && geometry_table_bytes(&g, 2) == 4096,
	      "16 KiB");
	g = geometry_of((struct s2_config){.format = S2_SV32X4});
	CHECK(geometry_table_bytes(&g, 2) == 16384 && geometry_table_bytes(&g, 1) == 4096,
	      "16 KiB");
	g = geometry_of((struct s2_config){.format = S2_ARM64_64K, .input_bits = 46});
	CHECK(geometry_table_bytes(&g, 2) == 1 << 20 && geometry_table_bytes(&g, 1) == 65536,
	      "1 MiB");
}

static void registers(void)
{
	static const struct {
		struct s2_config c;
		uint64_t pa;
		unsigned vmid;
		uint64_t root, control; /* root 0: refused */
	} cases[] = {
		{{.format = S2_EPT4}, 0x5000, 0, 0x501e, 0},
		{{.format = S2_EPT5, .use_ad = true}, 0x5000, 0, 0x5066, 0},
		{{.format = S2_EPT4}, 0x5000, 1, 0, 0},
		{{.format = S2_NPT4}, 0x5000, 0, 0x5000, 0},
		{{.format = S2_ARM64_4K}, 0x8000, 0, 0x8000, 0x80053558},
		{{.format = S2_ARM64_4K}, 0x8000, 255, 0x00ff000000008000, 0x80053558},
		{{.format = S2_ARM64_4K}, 0x8000, 256, 0, 0},
		{{.format = S2_ARM64_4K, .input_bits = 52},
		 0x0008000000010000,
		 0,
		 0x10020,
		 0x18006358c},
		{{.format = S2_ARM64_16K,
		  .input_bits = 48,
		  .use_ad = true,
		  .options = S2_OPT_VMID16},
		 0x8000,
		 0xabcd,
		 0xabcd000000008000,
		 0x802db590},
		{{.format = S2_ARM64_64K, .input_bits = 52},
		 0x000b000000040000,
		 0x12,
		 0x001200000004002c,
		 0x8006758c},
		{{.format = S2_SV39X4}, 0x84000, 5, 0x8000500000000084, 0},
		{{.format = S2_SV48X4}, 0x84000, 0, 0x9000000000000084, 0},
		{{.format = S2_SV57X4}, 0x84000, 0x3fff, 0xa3fff00000000084, 0},
		{{.format = S2_SV57X4}, 0x84000, 0x4000, 0, 0},
		{{.format = S2_SV32X4}, 0x84000, 3, 0x80c00084, 0},
		{{.format = S2_SV32X4}, 0x84000, 128, 0, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct geometry g = geometry_of(cases[i].c);
		struct format_registers regs;
		int err = test_format(cases[i].c.format)
				  ->registers(&g, cases[i].pa, cases[i].vmid, &regs);

		if (!cases[i].root) {
			CHECK(err == -EINVAL, "case %zu", i);
			continue;
		}
		CHECK(!err && regs.root == cases[i].root && regs.control == cases[i].control,
		      "case %zu: %" PRIx64 " %" PRIx64, i, regs.root, regs.control);
	}
}

/* Each option in each format: those that it has not are refused, by name. */
static void options(void)
{
	const struct {
		unsigned bit;
		const char *name;
		unsigned formats; /* bit n: format n has it */
	} all[] = {
		{S2_OPT_EXEC_ONLY, "S2_OPT_EXEC_ONLY", 1 << S2_EPT4 | 1 << S2_EPT5},
		{S2_OPT_VMID16, "S2_OPT_VMID16",
		 1 << S2_ARM64_4K | 1 << S2_ARM64_16K | 1 << S2_ARM64_64K},
		{S2_OPT_PBMT, "S2_OPT_PBMT", 1 << S2_SV39X4 | 1 << S2_SV48X4 | 1 << S2_SV57X4},
		{S2_OPT_NAPOT, "S2_OPT_NAPOT", 1 << S2_SV39X4 | 1 << S2_SV48X4 | 1 << S2_SV57X4},
		{S2_OPT_NX_HUGE, "S2_OPT_NX_HUGE", (1 << S2_NR_FORMATS) - 1},
		{1u << 20, "0x100000", 0},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		for (unsigned format = 0; format < S2_NR_FORMATS; format++) {
			struct s2_config c = {.format = format, .options = all[i].bit};
			struct test_env te;
			const char *why = "";
			struct s2 *s2;
			int err;

			test_env_init(&te, format == S2_SV32X4 ? TEST_LOW : 0);
			c.env = &te.env;
			err = s2_create(&s2, &c, &why);
			if (all[i].formats >> format & 1)
				CHECK(!err, "%s, %s: %d %s", all[i].name, s2_format_name(format),
				      err, why);
			else
				CHECK(err == -EINVAL && strstr(why, all[i].name) &&
					      strstr(why, s2_format_name(format)),
				      "%s, %s: %d %s", all[i].name, s2_format_name(format), err,
				      why);
			if (!err)
				s2_destroy(s2);
			CHECK(!test_env_leaked(&te), "leaked");
		}
	}
}

static uint64_t too_high;

static uint64_t high_to_pa(void *opaque, const void *table)
{
	return test_env_to_pa(opaque, table) | too_high;
}

/* Table pages that no entry could lead to: at creation the rule is named, later they are to the
 * fault what no memory is. */
static void tables_too_high(void)
{
	const struct {
		struct s2_config c;
		uint64_t offset;
		int err;
		const char *why;
	} cases[] = {
		{{.format = S2_EPT4, .hpa_bits = 40}, UINT64_C(1) << 40, -ERANGE, "hpa_bits 40"},
		{{.format = S2_NPT5, .hpa_bits = 51}, UINT64_C(1) << 51, -ERANGE, "hpa_bits 51"},
		{{.format = S2_ARM64_4K}, UINT64_C(1) << 48, -ERANGE, "hpa_bits 48"},
		{{.format = S2_ARM64_64K, .hpa_bits = 40}, UINT64_C(1) << 40, -ERANGE, "below"},
		{{.format = S2_SV32X4}, UINT64_C(1) << 34, -ERANGE, "hpa_bits 34"},
		{{.format = S2_SV57X4, .hpa_bits = 32}, UINT64_C(1) << 32, -ERANGE, "env.alloc"},
		{{.format = S2_SV39X4}, 0x800, -EINVAL, "not aligned"},
	};
	const struct s2_config c = {.format = S2_EPT4, .hpa_bits = 50};
	const struct s2_slot ram = {.size = 1 << 21, .page_size = 4096};
	struct s2_config config;
	struct test_env te;
	struct s2_thread *t;
	struct s2 *s2;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *why = NULL;
		int err;

		test_env_init(&te, cases[i].offset);
		config = cases[i].c;
		config.env = &te.env;
		err = s2_create(&s2, &config, &why);
		CHECK(err == cases[i].err && why && strstr(why, cases[i].why) && strstr(why, "0x"),
		      "case %zu: %d %s", i, err, why);
		CHECK(s2_create(&s2, &config, NULL) == err, "case %zu", i);
		CHECK(!test_env_leaked(&te), "case %zu leaks", i);
	}
	test_env_init(&te, UINT64_C(1) << 48);
	te.env.to_pa = high_to_pa;
	config = c;
	config.env = &te.env;
	if (s2_create(&s2, &config, NULL) || s2_thread_init(&t, s2, "t") || s2_slot_add(t, &ram)) {
		CHECK(false, "create");
		return;
	}
	too_high = UINT64_C(1) << 50; /* what is allocated from now on */
	CHECK(s2_fault(t, 0x1000, S2_R, NULL) == S2_NOMEM, "above");
	too_high = 0;
	CHECK(s2_fault(t, 0x1000, S2_R, NULL) == S2_FIXED, "below");
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(!test_env_leaked(&te), "leaks");
}

/* The public way in: rules are named, options and formats that are not known refused. */
static void creation(void)
{
	const struct s2_config bad[] = {
		{.format = S2_NR_FORMATS},
		{.format = (enum s2_format) - 1},
		{.format = S2_EPT4, .options = 1 << 30},
		{.format = S2_ARM64_16K, .input_bits = 53},
		{.format = S2_SV32X4, .options = S2_OPT_NAPOT},
		{.format = S2_NPT4, .input_bits = 49},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const char *why = NULL;
		struct s2 *s2;

		CHECK(s2_create(&s2, &bad[i], &why) == -EINVAL && why && *why, "case %zu", i);
	}
	options();
	tables_too_high();
	for (int format = 0; format < S2_NR_FORMATS; format++)
		CHECK(strcmp(s2_format_name(format), "unknown"), "%d has no name", format);
}

/* One path of tables for the decoder, all made by the encoder: entries of level n stand in area n,
 * which is also bits 22:20 of its address. */
static _Alignas(4096) char area[MMU_MAX_LEVELS + 1][1 << 20];

static const void *area_by_level(void *opaque, uint64_t pa)
{
	(void)opaque;
	return area[pa >> 20 & 7];
}

static void put(const struct geometry *g, unsigned level, uint64_t gpa, uint64_t e)
{
	memcpy(area[level] + geometry_index(g, level, gpa) * g->entry_size, &e, g->entry_size);
}

static void cross_check(const struct test_config *tc, uint64_t *seed)
{
	const struct format *f = test_format(tc->c.format);
	const struct geometry g = geometry_of(tc->c);
	const uint64_t high = tc->offset == TEST_LOW ? 3ull << 32 : tc->offset & ~0x7fffffull;
	struct format_registers regs;
	struct dec_memory mem;
	uint64_t refusals = 0;

	CHECK(1u << (g.root_bits > g.index_bits ? g.root_bits - g.index_bits : 0) == tc->roots,
	      "%s: concatenated tables", tc->name);
	CHECK(g.output_bits == tc->pa_bits, "%s: %u bits", tc->name, g.output_bits);
	CHECK(!f->registers(&g, high | (uint64_t)g.levels << 20, 0, &regs), "registers");
	test_config_memory(tc, NULL, regs.root, regs.control, &mem);
	mem.table = area_by_level;
	for (int i = 0; i < test_scale(6000); i++) {
		unsigned level, type = (unsigned)(test_random(seed) % 3);
		uint64_t gpa = test_random(seed) & geometry_max(&g), size, addr, leaf, typed;
		uint32_t perm = (uint32_t)(test_random(seed) % 8),
			 ad = (uint32_t)(test_random(seed) % 4);
		uint32_t sw = (uint32_t)(test_random(seed) % (1u << f->sw_bits));
		bool napot = test_random(seed) % 4 == 0;
		struct dec_result r;

		do
			level = 1 + (unsigned)(test_random(seed) % g.levels);
		while (!geometry_has_leaf(&g, level));
		size = geometry_size(&g, level);
		addr = test_random(seed) & ~(size - 1) & ((1ull << g.output_bits) - 1);
		leaf = format_make_leaf(f, &g, addr, level, perm);
		if (!leaf) {
			refusals++;
			continue;
		}
		leaf = format_set_sw(f, leaf, sw);
		if (tc->c.use_ad)
			leaf = format_set_ad(f, leaf, ad);
		if (perm & FORMAT_R)
			CHECK((leaf & ~format_write_bits(f)) ==
				      format_forbid(f, &g, leaf, FORMAT_W),
			      "%s: %" PRIx64 " without W", tc->name, leaf);
		typed = format_set_memory(f, &g, leaf, type);
		leaf = typed ? typed : leaf;
		napot = napot && level == 1 && format_make_napot(f, &g, leaf);
		if (napot) {
			leaf = format_make_napot(f, &g, leaf);
			size *= 16;
			addr &= ~(size - 1);
		}
		for (unsigned l = g.levels; l > level; l--)
			put(&g, l, gpa, format_make_table(f, &g, high | (uint64_t)(l - 1) << 20));
		put(&g, level, gpa, leaf);
		r = dec_walk(&mem, gpa);
		CHECK(r.outcome == DEC_TRANSLATED, "%s: %" PRIx64 " level %u: %s", tc->name, leaf,
		      level, r.why);
		CHECK(r.address == addr + (gpa & (size - 1)) && r.size == size && r.level == level,
		      "%s: %" PRIx64 ": %" PRIx64, tc->name, leaf, r.address);
		CHECK((uint32_t)(r.r | r.w << 1 | r.x << 2) == perm, "%s: %" PRIx64, tc->name,
		      leaf);
		CHECK(r.leaf.memory == (typed ? "WND"[type] : 'W'), "%s: %" PRIx64, tc->name, leaf);
		CHECK(format_sw(f, leaf) == sw, "%s: sw", tc->name);
		if (tc->c.use_ad)
			CHECK(r.leaf.accessed == (ad & 1) && (!f->dirty || r.leaf.dirty == ad >> 1),
			      "%s: %" PRIx64, tc->name, leaf);

		put(&g, level, gpa, format_freeze(f, &g, leaf, level, 50));
		r = dec_walk(&mem, gpa);
		CHECK(r.outcome == DEC_FAULT, "%s: a frozen leaf is not present", tc->name);
		for (unsigned l = g.levels; l >= level; l--)
			put(&g, l, gpa, 0);
	}
	CHECK(refusals, "%s: every permission is legal?", tc->name);
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);

	hand_vectors();
	ept_changes();
	other_changes();
	frozen();
	geometries();
	registers();
	creation();
	for (int i = 0; i < TEST_CONFIGS; i++)
		cross_check(&test_configs[i], &seed);
	return test_result("formats");
}
