/*
 * make_image MACHINE SEED PROBES TABLES LIST [break]: lets libmmu build tables of every format of
 * that machine, as it does for a guest (slots, faults, write-protection, tracking, unmapping) and,
 * through the walker, with every set of permissions in leaves of every size; and writes them down
 * as memory, with a list of accesses and of what must become of them. That is said by a flat model
 * of what was mapped, and by the decoders of the unit tests for levels. With `break`, one leaf of
 * each set is then changed, which the machine must find.
 */
#include <errno.h>

#include "mmu/internal.h"
#include "tests/decoders/image.h"
#include "tests/unit/test_mmu_format.h"
#include "tests/unit/walk_range.h"

static const struct machine {
	const char *name;
	uint64_t tables;      /* where they lie */
	uint64_t memory, end; /* what the guest is given; the stub at its begin */
	unsigned gpa_bits;    /* that the processor can use at all */
	unsigned lost_bits;   /* at the top of the input, which it takes for something else */
	bool translates;      /* can be asked without an access */
} machines[] = {
	{"arm64", 0x50000000, 0x80000000, 0x100000000, 52, 0, true},
	/* QEMU 7.2 wants a guest-physical address sign-extended, with 32 bits cut to 32. */
	{"riscv64", 0x90000000, 0xc0000000, 0x140000000, 64, 1, false},
	{"riscv32", 0x84000000, 0x98000000, 0xc0000000, 32, 0, false},
	{"svm4", 0x08000000, 0x40000000, 0x7f000000, 40, 0, false},
	{"svm5", 0x08000000, 0x40000000, 0x7f000000, 40, 0, false},
	{"vmx", 0x08000000, 0x40000000, 0x7f000000, 40, 0, false},
};

/* Beside those of the unit tests: what hardware of the machine is asked for. */
static const struct {
	const char *machine, *name;
	struct s2_config c;
} sets[] = {
	{"arm64", "arm64 4K, 32 bits", {.format = S2_ARM64_4K, .input_bits = 32}},
	{"arm64", "arm64 4K, 34 bits", {.format = S2_ARM64_4K, .input_bits = 34}},
	{"arm64", "arm64 4K, 35 bits", {.format = S2_ARM64_4K, .input_bits = 35}},
	{"arm64", "arm64 4K, 40 bits", {.format = S2_ARM64_4K}},
	{"arm64", "arm64 4K, 43 bits", {.format = S2_ARM64_4K, .input_bits = 43}},
	{"arm64", "arm64 4K, 44 bits", {.format = S2_ARM64_4K, .input_bits = 44, .bbm_level = 1}},
	{"arm64", "arm64 4K, 48 bits", {.format = S2_ARM64_4K, .input_bits = 48, .bbm_level = 2}},
	{"arm64", "arm64 4K, LPA2", {.format = S2_ARM64_4K, .input_bits = 52}},
	{"arm64", "arm64 4K, LPA2, 40", {.format = S2_ARM64_4K, .input_bits = 40, .hpa_bits = 52}},
	{"arm64", "arm64 16K, 32 bits", {.format = S2_ARM64_16K, .input_bits = 32}},
	{"arm64", "arm64 16K, 40 bits", {.format = S2_ARM64_16K}},
	{"arm64", "arm64 16K, 41 bits", {.format = S2_ARM64_16K, .input_bits = 41}},
	{"arm64", "arm64 16K, 48 bits", {.format = S2_ARM64_16K, .input_bits = 48}},
	{"arm64", "arm64 16K, LPA2", {.format = S2_ARM64_16K, .input_bits = 51}},
	{"arm64", "arm64 64K, 33 bits", {.format = S2_ARM64_64K, .input_bits = 33}},
	{"arm64", "arm64 64K, 42 bits", {.format = S2_ARM64_64K, .input_bits = 42}},
	{"arm64", "arm64 64K, 46 bits", {.format = S2_ARM64_64K, .input_bits = 46}},
	{"arm64", "arm64 64K, 48 bits", {.format = S2_ARM64_64K, .input_bits = 48, .bbm_level = 1}},
	{"arm64", "arm64 64K, LPA", {.format = S2_ARM64_64K, .input_bits = 52}},
	{"riscv64", "sv39x4", {.format = S2_SV39X4}},
	{"riscv64", "sv48x4", {.format = S2_SV48X4, .options = S2_OPT_PBMT | S2_OPT_NAPOT}},
	{"riscv64", "sv57x4", {.format = S2_SV57X4, .use_ad = true}},
	{"riscv32", "sv32x4", {.format = S2_SV32X4}},
	{"svm4", "npt4", {.format = S2_NPT4, .hpa_bits = 40}},
	{"svm4", "npt4, A and D", {.format = S2_NPT4, .hpa_bits = 40, .use_ad = true}},
	{"svm5", "npt5", {.format = S2_NPT5, .hpa_bits = 40}},
	{"vmx", "ept4", {.format = S2_EPT4, .hpa_bits = 40}},
	{"vmx", "ept4, A and D", {.format = S2_EPT4, .hpa_bits = 40, .use_ad = true}},
	{"vmx",
	 "ept4, execute-only",
	 {.format = S2_EPT4, .hpa_bits = 40, .options = S2_OPT_EXEC_ONLY}},
};

/* What is mapped, exactly: [start, end) to hpa. */
struct piece {
	uint64_t start, end, hpa;
	uint32_t perm;
	bool policy; /* a slot: the policy decides what of it is mapped */
};

enum { MAX_PIECES = 400 };

static const struct machine *machine;
static struct test_env te;
static uint64_t seed;
static struct image *image;
static uint32_t probes;

static const struct format *f;
static struct s2 *s2;
static struct s2_thread *thread;
static struct table_pool pool;
static struct geometry g;
static struct dec_memory mem;
static struct piece piece[MAX_PIECES];
static int pieces;

static uint64_t below(uint64_t n)
{
	return test_random(&seed) % n;
}

static bool is_free(uint64_t start, uint64_t end)
{
	for (int i = 0; i < pieces; i++) {
		if (start < piece[i].end && piece[i].start < end)
			return false;
	}
	return end - 1 <= geometry_max(&g) && start < end;
}

static struct piece *piece_add(uint64_t start, uint64_t end, uint64_t hpa, uint32_t perm)
{
	if (pieces == MAX_PIECES)
		return NULL;
	piece[pieces] = (struct piece){.start = start, .end = end, .hpa = hpa, .perm = perm};
	return &piece[pieces++];
}

/* Bits of an address that goes in and that the processor can use. */
static unsigned gpa_width(void)
{
	unsigned width = g.input_bits - machine->lost_bits;

	return width < machine->gpa_bits ? width : machine->gpa_bits;
}

/* Aligned to size; low and high ones. */
static uint64_t random_gpa(uint64_t size)
{
	unsigned width = gpa_width();
	unsigned bits = width - (unsigned)below(width > 34 ? width - 32 : 2);

	return test_random(&seed) & ((UINT64_C(2) << (bits - 1)) - 1) & ~(size - 1);
}

/* Memory for leaves of this size: within what the guest is given, or, where leaves are larger, so
 * that what the guest is given lies inside; where the processor only translates, anywhere at all.
 */
static uint64_t random_hpa(uint64_t size, uint64_t bytes)
{
	uint64_t room = machine->end - machine->memory;

	if (machine->translates && below(4) == 0)
		return test_random(&seed) & ((UINT64_C(1) << g.output_bits) - 1) & ~(size - 1) &
		       ~(bytes - 1);
	if (size > room || bytes > room)
		return machine->memory & ~(size - 1);
	return machine->memory + below((room - bytes) / size + 1) * size;
}

static unsigned random_level(void)
{
	unsigned level;

	do
		level = 1 + (unsigned)below(g.levels);
	while (!geometry_has_leaf(&g, level));
	return level;
}

/* Leaves with any permissions, through the walker. */
static void map_piece(void)
{
	unsigned level = random_level();
	uint64_t size = geometry_size(&g, level), start = random_gpa(size);
	uint64_t n = size >= UINT64_C(1) << 30 ? 1 : 1 + below(level == 1 ? 40 : 4);
	uint64_t bytes = UINT64_C(1) << (64 - __builtin_clzll(n * size - 1)), hpa;
	uint32_t perm = (uint32_t)below(8);
	int err;

	hpa = random_hpa(size, bytes);
	if (!format_perm_legal(f, &g, perm) || !is_free(start, start + n * size))
		return;
	err = walk_map(f, &s2->pt, &pool, start, start + n * size, hpa, perm, level, NULL);
	CHECK(!err, "map %" PRIx64 " level %u: %d", start, level, err);
	piece_add(start, start + n * size, hpa, perm);
}

/* Out of the middle of one, so that leaves are split. */
static void unmap_some(void)
{
	struct piece *p = &piece[below((uint64_t)pieces)];
	uint64_t page = geometry_size(&g, 1), total = (p->end - p->start) / page, first, n;
	struct walk_count gone = {0};
	struct piece old = *p;

	if (p->policy || p == piece || total < 2)
		return;
	first = below(total);
	n = 1 + below(total - first < 40 ? total - first : 40);
	CHECK(!walk_unmap(f, &s2->pt, &pool, p->start + first * page, p->start + (first + n) * page,
			  &gone),
	      "unmap");
	p->end = p->start + first * page;
	if (p->end == p->start)
		*p = piece[--pieces];
	if (first + n < total)
		piece_add(old.start + (first + n) * page, old.end, old.hpa + (first + n) * page,
			  old.perm);
}

/* A run of 16 pages that say together how they are translated. */
static void map_napot(void)
{
	uint64_t size = geometry_size(&g, 1) * 16, start = random_gpa(size);
	uint64_t hpa = random_hpa(size, size), leaf;

	if (!(g.options & FORMAT_NAPOT) || !is_free(start, start + size))
		return;
	CHECK(!walk_map(f, &s2->pt, &pool, start, start + size, hpa, 7, 1, NULL), "napot");
	for (uint64_t gpa = start; gpa < start + size; gpa += size / 16) {
		struct walk_entry w = walk_lookup(f, &s2->pt, gpa);

		leaf = format_make_napot(f, &g, w.value);
		CHECK(leaf && walk_replace(f, &s2->pt, &w, leaf), "napot");
	}
	piece_add(start, start + size, hpa, 7);
}

static uint64_t slot_page(const struct s2_slot *s)
{
	uint64_t page = geometry_size(&g, 1);

	return s->gpa + below(s->size / page) * page;
}

/* What the policy does with a slot: faults, protection, tracking, unmapping. */
static void run_slot(const struct s2_slot *s)
{
	uint64_t page = geometry_size(&g, 1);

	for (int i = 0; i < 30; i++) {
		uint64_t gpa = slot_page(s), end = gpa + (1 + below(20)) * page;
		uint32_t access = 1u << below(3);
		enum s2_result r;

		if (end > s->gpa + s->size)
			end = s->gpa + s->size;
		if (i % 8 == 6) {
			CHECK(!s2_write_protect(thread, gpa, end), "protect");
		} else if (i % 8 == 7 && below(2)) {
			CHECK(!s2_unmap(thread, gpa, end), "unmap");
		} else {
			r = s2_fault(thread, gpa, access, NULL);
			CHECK(r == S2_FIXED || r == S2_SPURIOUS || r == S2_EMULATE, "fault: %d", r);
		}
	}
}

static void add_slots(void)
{
	struct s2_slot slot[5];
	int slots = 0;

	for (int tries = 0; slots < 5 && tries < 200; tries++) {
		uint64_t page = geometry_size(&g, 1), large = geometry_size(&g, 2);
		uint64_t room = machine->end - machine->memory, size = room / 4 & ~(large - 1), gpa;
		struct s2_slot *s = &slot[slots];

		if (size > large * 4)
			size = large * 4;
		gpa = random_gpa(large);
		*s = (struct s2_slot){
			.gpa = gpa + (below(2) ? page : 0),
			.size = size - 2 * page,
			.page_size = below(3) ? large : page,
			.flags = below(4) ? 0 : S2_SLOT_READONLY,
		};
		s->hpa = machine->memory + below(room / size - 1) * size / large * large +
			 (s->gpa - gpa);
		if (below(4) == 0)
			s->hpa += page; /* not congruent: small leaves only */
		if (!is_free(s->gpa, s->gpa + s->size) || s2_slot_add(thread, s))
			continue;
		piece_add(s->gpa, s->gpa + s->size, s->hpa, 0)->policy = true;
		slots++;
	}
	CHECK(slots, "%s: no slot", machine->name);
	for (int round = 0; round < 3; round++) {
		uint64_t bitmap[8];

		if (round == 1)
			CHECK(!s2_dirty_start(thread), "start");
		for (int i = 0; i < slots; i++) {
			run_slot(&slot[i]);
			if (round == 1)
				CHECK(s2_dirty_harvest(thread, slot_page(&slot[i]) & ~0x3ffffull,
						       512, bitmap) >= 0,
				      "harvest");
		}
		if (round == 1)
			CHECK(!s2_dirty_stop(thread), "stop");
	}
}

static const struct piece *piece_at(uint64_t gpa)
{
	for (int i = 0; i < pieces; i++) {
		if (gpa >= piece[i].start && gpa < piece[i].end)
			return &piece[i];
	}
	return NULL;
}

static uint64_t interesting_gpa(void)
{
	const struct piece *p = &piece[below((uint64_t)pieces)];
	uint64_t page = geometry_size(&g, 1), size = p->end - p->start, at;

	switch (below(8)) {
	case 0: at = p->start - page; break;
	case 1: at = p->end; break;
	case 2: at = p->end - page; break;
	case 3: at = p->start; break;
	case 4: return random_gpa(16);
	case 5:
		/* Where large leaves hold the guest's memory. */
		at = p->start + (machine->memory - p->hpa) + below(machine->end - machine->memory);
		if (at < p->start || at >= p->end)
			at = p->start + below(size);
		break;
	default: at = p->start + below(size);
	}
	return (at & ~(page - 1)) + below(page / 16) * 16;
}

/* One access and its outcome; false: it would say nothing. */
static bool make_probe(struct probe *p)
{
	uint64_t gpa = interesting_gpa();
	uint32_t access = 1u << below(3), perm;
	const struct piece *in;
	struct dec_result r;

	if (below(16) == 0) {
		unsigned beyond = machine->gpa_bits - g.input_bits;

		if (machine->gpa_bits <= g.input_bits)
			return false;
		gpa = (gpa & geometry_max(&g)) | UINT64_C(1) << (g.input_bits + below(beyond));
		*p = (struct probe){.gpa = gpa, .access = (uint8_t)access, .outcome = PROBE_BEYOND};
		if (machine->translates && access != PROBE_X && below(2))
			p->access |= PROBE_TRANSLATE;
		return true;
	}
	if (gpa >> gpa_width())
		return false;
	if (gpa - image->set[image->sets].stub_gpa < STUB_BYTES)
		return false;
	in = piece_at(gpa);
	r = dec_walk(&mem, gpa);
	perm = (uint32_t)(r.r | r.w << 1 | r.x << 2);
	CHECK(r.outcome != DEC_MISCONFIG, "%" PRIx64 ": %s", gpa, r.why);
	/* The model and the decoder agree on what the walker was told. */
	if (!in)
		CHECK(r.outcome == DEC_FAULT, "%" PRIx64 " is in no piece", gpa);
	else if (r.outcome == DEC_TRANSLATED || !in->policy)
		CHECK(r.outcome == DEC_TRANSLATED && r.address == in->hpa + (gpa - in->start) &&
			      (in->policy || perm == in->perm),
		      "%" PRIx64 " -> %" PRIx64 " %u", gpa, r.address, perm);
	*p = (struct probe){.gpa = gpa, .access = (uint8_t)access, .level = (uint8_t)r.level};
	if (r.outcome == DEC_FAULT) {
		p->outcome = PROBE_ABSENT;
	} else if (access & ~perm) {
		p->outcome = PROBE_REFUSED;
	} else {
		p->outcome = PROBE_OK;
		p->hpa = r.address;
	}
	if (p->outcome == PROBE_OK &&
	    (p->hpa < machine->memory + (1 << 20) || p->hpa >= machine->end)) {
		if (!machine->translates || access == PROBE_X)
			return false;
		p->access |= PROBE_TRANSLATE;
	}
	if (machine->translates && access != PROBE_X && below(3) == 0)
		p->access |= PROBE_TRANSLATE;
	return true;
}

static const struct decoder *decoder_of(enum s2_format format)
{
	switch (format) {
	case S2_EPT4:
	case S2_EPT5: return &ept_decoder;
	case S2_NPT4:
	case S2_NPT5: return &npt_decoder;
	case S2_SV32X4: return &riscv32_decoder;
	case S2_SV39X4:
	case S2_SV48X4:
	case S2_SV57X4: return &riscv64_decoder;
	default: return &arm_decoder;
	}
}

static bool broken;

/* The negative control: another page behind an address that is read, or nothing. */
static void break_set(const struct image_set *set)
{
	for (uint32_t i = set->first; i < set->first + set->count; i++) {
		const struct probe *p = &image->probe[i];
		struct walk_entry w;

		if (p->outcome != PROBE_OK || p->access & PROBE_TRANSLATE)
			continue;
		w = walk_lookup(f, &s2->pt, p->gpa);
		CHECK(walk_replace(f, &s2->pt, &w,
				   set->count % 2
					   ? 0
					   : format_resize(f, &g, w.value,
							   format_addr(f, &g, w.value) ^
								   geometry_size(&g, w.level),
							   w.level)),
		      "break");
		return;
	}
}

static void make_set(const char *name, struct s2_config c, uint32_t wanted)
{
	struct image_set *set = &image->set[image->sets];
	struct s2_registers regs;
	const char *why = "no memory";

	f = test_format(c.format);
	c.env = &te.env;
	if (s2_create(&s2, &c, &why) || s2_thread_init(&thread, s2, "image")) {
		fprintf(stderr, "make_image: %s: %s\n", name, why);
		exit(1);
	}
	g = s2->pt.geo;
	pool = (struct table_pool){
		.env = &te.env, .bytes = geometry_table_bytes(&g, 1), .output_bits = g.output_bits};
	CHECK(!s2_registers(s2, c.format >= S2_ARM64_4K ? 5 : 0, &regs), "registers");
	mem = (struct dec_memory){
		.decoder = decoder_of(c.format),
		.shape = {.pa_bits = g.output_bits,
			  .levels = g.levels,
			  .exec_only = c.options & S2_OPT_EXEC_ONLY,
			  .pbmt = c.options & S2_OPT_PBMT,
			  .napot = c.options & S2_OPT_NAPOT,
			  .hardware_ad = c.use_ad},
		.table = test_config_table,
		.opaque = &te,
	};
	mem.decoder->open(&mem.shape, regs.root, regs.control);
	CHECK(!mem.shape.why, "%s: %s", name, mem.shape.why);

	pieces = 0;
	snprintf(set->name, sizeof(set->name), "%s", name);
	set->root = regs.root;
	set->control = regs.control;
	set->levels = g.levels;
	/* Aligned to 4 MiB for the windows of Sv32. */
	set->stub_gpa = random_gpa(4 << 20);
	CHECK(!walk_map(f, &s2->pt, &pool, set->stub_gpa, set->stub_gpa + STUB_BYTES,
			machine->memory, 7, 1, NULL),
	      "stub");
	piece_add(set->stub_gpa, set->stub_gpa + STUB_BYTES, machine->memory, 7);
	add_slots();
	/* Tracking has protected everything. */
	for (uint64_t at = 0; at < STUB_BYTES; at += geometry_size(&g, 1)) {
		struct walk_entry w = walk_lookup(f, &s2->pt, set->stub_gpa + at);

		CHECK(walk_replace(f, &s2->pt, &w, format_set_perm(f, &g, w.value, 7)), "stub");
	}
	for (int i = 0; i < 100; i++) {
		map_piece();
		if (i % 4 == 0)
			unmap_some();
		if (i % 16 == 0)
			map_napot();
	}
	set->first = probes;
	while (set->count < wanted) {
		if (make_probe(&image->probe[probes])) {
			probes++;
			set->count++;
		}
	}
	image->sets++;
	if (broken)
		break_set(set);
}

static bool put(const char *path, const void *data, size_t bytes)
{
	FILE *file = fopen(path, "wb");
	bool ok = file && fwrite(data, 1, bytes, file) == bytes;

	if (!file || fclose(file) || !ok) {
		perror(path);
		return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	uint32_t wanted;
	size_t bytes;

	if (argc < 6) {
		fprintf(stderr, "usage: make_image MACHINE SEED PROBES TABLES LIST [break]\n");
		return 2;
	}
	broken = argc > 6;
	for (machine = machines; strcmp(machine->name, argv[1]);)
		machine++;
	seed = strtoull(argv[2], NULL, 0) * UINT64_C(0x9e3779b97f4a7c15) | 1;
	wanted = (uint32_t)strtoul(argv[3], NULL, 0);
	bytes = sizeof(*image) + (size_t)wanted * IMAGE_MAX_SETS * sizeof(struct probe);
	image = calloc(1, bytes);
	if (!image)
		return 1;
	image->magic = IMAGE_MAGIC;
	image->seed = strtoull(argv[2], NULL, 0);
	image->stub = machine->memory;
	test_env_init(&te, TEST_LOW);
	te.offset = machine->tables - (uint64_t)(uintptr_t)te.arena;
	for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
		if (!strcmp(sets[i].machine, machine->name))
			make_set(sets[i].name, sets[i].c, wanted);
	}
	if (!put(argv[4], te.arena, te.arena_used) ||
	    !put(argv[5], image, sizeof(*image) + probes * sizeof(struct probe)))
		return 1;
	return atomic_load(&test_failures) != 0;
}
