/*
 * Description: EPT entries bit by bit: vectors computed by hand from the SDM, what the encoder must
 * refuse, and every encoding read back by an independent decoder.
 */
#include "mmu/format/ept.h"
#include "tests/unit/ept_decoder.h"
#include "tests/unit/test_mmu_util.h"

static struct geometry geo4, geo5;

/* From tables 29-1 to 29-7: R 0, W 1, X 2, type 5:3 (WB = 6), large 7, A 8, D 9, address 51:12. */
static void hand_vectors(void)
{
	static const struct {
		uint64_t addr;
		unsigned level;
		uint32_t perm;
		uint64_t entry;
	} leaf[] = {
		{0x0000000000000000, 1, 7, 0x0000000000000037},
		{0x0000123456789000, 1, 7, 0x0000123456789037},
		{0x000ffffffffff000, 1, 1, 0x000ffffffffff031},
		{0x0000000000001000, 1, 3, 0x0000000000001033},
		{0x0000000000001000, 1, 4, 0x0000000000001034}, /* execute-only */
		{0x0000000040000000, 2, 5, 0x00000000400000b5},
		{0x000fffffffe00000, 2, 7, 0x000fffffffe000b7},
		{0x00000007c0000000, 3, 3, 0x00000007c00000b3},
		{0x000fffffc0000000, 3, 1, 0x000fffffc00000b1},
	};
	static const struct {
		uint64_t addr;
		unsigned level;
		uint32_t perm;
	} refused[] = {
		{0x1000, 1, 2},	    /* W without R */
		{0x1000, 1, 6},	    /* W and X without R */
		{0x1000, 1, 0},	    /* nothing: not present */
		{0x1000, 1, 8},	    /* no such permission */
		{0x1001, 1, 7},	    /* misaligned */
		{0x40001000, 2, 7}, /* for 2 MiB */
		{0x40200000, 3, 7}, /* for 1 GiB */
		{1ull << 52, 1, 7}, /* beyond 52 bits */
		{0, 4, 7},	    /* no leaf there */
		{0, 5, 7},	    {0, 0, 7},
	};
	uint64_t e, pa;

	for (size_t i = 0; i < sizeof(leaf) / sizeof(*leaf); i++) {
		e = ept_make_leaf(&geo4, leaf[i].addr, leaf[i].level, leaf[i].perm);
		CHECK(e == leaf[i].entry, "leaf %zu: %" PRIx64, i, e);
		CHECK(ept_kind(leaf[i].entry, leaf[i].level) == ENTRY_LEAF, "leaf %zu", i);
		CHECK(ept_leaf_addr(leaf[i].entry, leaf[i].level) == leaf[i].addr, "leaf %zu", i);
		CHECK(ept_perm(leaf[i].entry) == leaf[i].perm, "leaf %zu", i);
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		CHECK(!ept_make_leaf(&geo4, refused[i].addr, refused[i].level, refused[i].perm),
		      "refused %zu", i);
	CHECK(ept_make_table(&geo4, 0xabc000) == 0xabc007, "table");
	CHECK(ept_kind(0xabc007, 4) == ENTRY_TABLE && ept_kind(0xabc007, 2) == ENTRY_TABLE,
	      "table");
	CHECK(!ept_make_table(&geo4, 0) && !ept_make_table(&geo4, 0xabc800), "table");
	CHECK(!ept_make_table(&geo4, 1ull << 52), "table");
	CHECK(ept_kind(0, 1) == ENTRY_NONE && ept_kind(0xfff8000000000638, 3) == ENTRY_NONE,
	      "none");
	CHECK(ept_root(&geo4, 0x5000, false) == 0x501e, "EPTP, 4 levels, WB");
	CHECK(ept_root(&geo5, 0x5000, true) == 0x5066, "EPTP, 5 levels, A/D");

	/* changes keep what they do not name */
	e = 0x00f0123456789337 | 1ull << 57;
	CHECK(ept_set_perm(e, 5) == (e & ~7ull) + 5, "perm");
	CHECK(!ept_set_perm(e, 2) && !ept_set_perm(e, 0) && !ept_set_perm(e, 6), "perm");
	CHECK(ept_ad(e) == (FORMAT_A | FORMAT_D) && ept_set_ad(e, FORMAT_A) == (e & ~0x200ull),
	      "ad");
	CHECK(ept_sw(e) == 15 && ept_set_sw(e, 6) == ((e & ~(15ull << 52)) | 6ull << 52), "sw");
	CHECK(ept_resize(0x00100007c00003b3, 0x7c0201000, 1) == 0x00100007c0201333, "resize");
	CHECK(ept_resize(0x00100007c00003b3, 0x7c0200000, 2) == 0x00100007c02003b3, "resize");

	/* frozen is not present, keeps its owner and a table's address */
	for (unsigned owner = 0; owner < FORMAT_MAX_OWNERS; owner += 73) {
		e = ept_freeze(0xabcdef000007, 3, owner);
		CHECK(!(e & 7) && ept_kind(e, 3) == ENTRY_FROZEN, "%" PRIx64, e);
		CHECK(ept_frozen_owner(e) == owner, "%" PRIx64, e);
		CHECK(ept_frozen_table(e, &pa) && pa == 0xabcdef000000, "%" PRIx64, e);
		e = ept_freeze(0xabcdef0000b7, 2, owner);
		CHECK(ept_kind(e, 2) == ENTRY_FROZEN && ept_frozen_owner(e) == owner, "leaf");
		CHECK(!ept_frozen_table(e, &pa), "leaf");
	}
}

static void geometries(void)
{
	static const struct {
		struct format_config c;
		unsigned levels, input, output; /* levels 0: refused */
	} cases[] = {
		{{0}, 4, 48, 52},
		{{.levels = 5}, 5, 57, 52},
		{{.input_bits = 49}, 5, 49, 52},
		{{.input_bits = 40, .levels = 5}, 5, 40, 52},
		{{.input_bits = 13}, 4, 13, 52},
		{{.output_bits = 36}, 4, 48, 36},
		{{.input_bits = 49, .levels = 4}, 0, 0, 0},
		{{.input_bits = 58}, 0, 0, 0},
		{{.input_bits = 12}, 0, 0, 0},
		{{.output_bits = 53}, 0, 0, 0},
		{{.output_bits = 31}, 0, 0, 0},
		{{.levels = 3}, 0, 0, 0},
		{{.levels = 6}, 0, 0, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *why = NULL;
		struct geometry g = {0};
		int err = ept_geometry(&g, &cases[i].c, &why);

		if (!cases[i].levels) {
			CHECK(err == -EINVAL && why, "case %zu", i);
			continue;
		}
		CHECK(!err && g.levels == cases[i].levels && g.input_bits == cases[i].input &&
			      g.output_bits == cases[i].output,
		      "case %zu: %s", i, why);
		CHECK(g.page_shift == 12 && g.index_bits == 9 && g.root_bits == 9, "case %zu", i);
		CHECK(geometry_max(&g) == (1ull << g.input_bits) - 1, "case %zu", i);
	}
	CHECK(geometry_shift(&geo5, 5) == 48 && geometry_size(&geo4, 3) == 1 << 30, "shift");
	CHECK(geometry_index(&geo5, 5, 0x01ff000000000000) == 511, "index");
	CHECK(geometry_next(&geo4, 2, 0x201000, 0x500000) == 0x400000, "next");
	CHECK(geometry_next(&geo4, 2, 0x401000, 0x500000) == 0x500000, "next");
	CHECK(geometry_next(&geo4, 3, UINT64_MAX - 5, 0) == 0, "next at the end");
}

/* One path of tables for the decoder, all made by the encoder. */
static _Alignas(4096) uint64_t table[6][512];

static const void *table_by_level(void *opaque, uint64_t pa)
{
	(void)opaque;
	return table[pa >> 12];
}

static void cross_check(uint64_t *seed)
{
	for (int i = 0; i < 20000; i++) {
		const struct geometry *g = test_random(seed) & 1 ? &geo5 : &geo4;
		struct ept_memory mem = {.table = table_by_level, .maxphyaddr = 52};
		unsigned level = 1 + (unsigned)(test_random(seed) % 3);
		uint64_t size = 1ull << (12 + 9 * (level - 1));
		uint64_t addr = test_random(seed) & ~(size - 1) & ((1ull << 52) - 1);
		uint64_t gpa = test_random(seed) & geometry_max(g);
		uint32_t perm = (uint32_t)(test_random(seed) % 8),
			 ad = (uint32_t)(test_random(seed) % 4);
		uint64_t leaf = ept_make_leaf(g, addr, level, perm);
		bool legal = perm && !((perm & 2) && !(perm & 1));
		struct ept_result r;

		CHECK(legal == (leaf != 0), "perm %u", perm);
		if (!leaf)
			continue;
		leaf = ept_set_sw(ept_set_ad(leaf, ad), (uint32_t)(test_random(seed) % 16));
		for (unsigned l = g->levels; l > level; l--)
			table[l][geometry_index(g, l, gpa)] = ept_make_table(g, (l - 1) * 4096ull);
		table[level][geometry_index(g, level, gpa)] = leaf;
		r = ept_decode(&mem, ept_root(g, g->levels * 4096ull, ad != 0), gpa);
		CHECK(r.outcome == EPT_TRANSLATED, "%" PRIx64 ": %s", leaf, r.why);
		CHECK(r.address == addr + (gpa & (size - 1)) && r.size == size, "%" PRIx64, leaf);
		CHECK(r.r == (perm & 1) && r.w == (perm >> 1 & 1) && r.x == (perm >> 2 & 1),
		      "perm");
		CHECK(r.memory_type == 6 && !r.ignore_pat, "type");
		CHECK(r.accessed == (ad & 1) && r.dirty == (ad >> 1), "ad");

		table[level][geometry_index(g, level, gpa)] = ept_freeze(leaf, level, 300);
		r = ept_decode(&mem, ept_root(g, g->levels * 4096ull, false), gpa);
		CHECK(r.outcome == EPT_VIOLATION, "a frozen leaf is not present");
		for (unsigned l = g->levels; l >= level; l--)
			table[l][geometry_index(g, l, gpa)] = 0;
	}
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);
	const char *why;

	CHECK(!ept_geometry(&geo4, &(struct format_config){.levels = 4}, &why), "EPT4");
	CHECK(!ept_geometry(&geo5, &(struct format_config){.levels = 5}, &why), "EPT5");
	hand_vectors();
	geometries();
	cross_check(&seed);
	return test_result("ept");
}
