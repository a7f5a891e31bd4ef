/*
 * Description: slots: what is refused, and which leaf a fault maps, at all alignments of gpa, hpa,
 * size and page size, against a rule written down separately and read back by a decoder; slots that
 * are being removed, or read-only.
 */
#include <errno.h>

#include "tests/unit/test_mmu_configs.h"

#define K4  UINT64_C(0x1000)
#define M2  UINT64_C(0x200000)
#define GiB UINT64_C(0x40000000)

static struct test_env te;
static struct dec_memory mem;
static struct s2 *s2;
static struct s2_thread *t;

static void setup(enum s2_format format, unsigned bits, unsigned hpa_bits)
{
	const struct test_config config = {
		.name = "slots",
		.c = {.format = format, .input_bits = bits, .hpa_bits = hpa_bits},
		.decoder = &ept_decoder,
		.levels = format == S2_EPT5 ? 5 : 4,
		.pa_bits = hpa_bits ? hpa_bits : 52};

	if (!test_config_create(&config, &te, &s2, &mem) || s2_thread_init(&t, s2, "test"))
		exit(1);
}

static void teardown(void)
{
	s2_thread_exit(t);
	s2_destroy(s2);
	CHECK(test_env_leaked(&te) == 0, "%ld tables leaked", atomic_load(&te.live));
}

/* The rule, the slow way: the largest of three sizes that passes every condition. */
static uint64_t expected_size(const struct s2_slot *s, uint64_t gpa)
{
	uint64_t best = K4;

	for (uint64_t size = M2; size <= GiB; size *= 512) {
		uint64_t first = gpa - gpa % size, hpa = first - s->gpa + s->hpa;

		if (size <= s->page_size && first >= s->gpa && first + size <= s->gpa + s->size &&
		    hpa % size == 0)
			best = size;
	}
	return best;
}

static void check_leaf(const struct s2_slot *s, uint64_t gpa, uint64_t *sizes)
{
	uint64_t size = expected_size(s, gpa);
	struct dec_result r;
	struct s2_xlat x, again;

	CHECK(s2_fault(t, gpa, S2_R, &x) == S2_FIXED, "fault at %" PRIx64, gpa);
	r = dec_walk(&mem, gpa);
	CHECK(r.outcome == DEC_TRANSLATED, "%" PRIx64 ": %s", gpa, r.why);
	CHECK(r.size == size, "%" PRIx64 " in %" PRIx64 "+%" PRIx64 "->%" PRIx64 ": %" PRIx64, gpa,
	      s->gpa, s->size, s->hpa, r.size);
	CHECK(r.address == gpa - s->gpa + s->hpa && x.hpa == r.address, "%" PRIx64, r.address);
	CHECK(r.r && r.x && r.w == !(s->flags & S2_SLOT_READONLY), "%" PRIx64, r.entry);
	CHECK(r.leaf.memory == 'W', "write-back");
	CHECK(s2_translate(t, gpa, S2_R, &again) && !memcmp(&x, &again, sizeof(x)), "translate");
	sizes[size == K4 ? 0 : size == M2 ? 1 : 2]++;
}

/* Every third hpa under a sanitizer. */
static int test_step(void)
{
	return test_scale(30) == 30 ? 1 : 3;
}

static void alignments(void)
{
	static const uint64_t offsets[] = {0,	     K4,       M2 - K4, M2,	 M2 + K4,
					   GiB - M2, GiB - K4, GiB,	GiB + M2};
	static const uint64_t lengths[] = {K4,	     M2 - K4, M2,	    M2 + K4, 2 * M2,
					   GiB - M2, GiB,     2 * GiB - K4, 2 * GiB, 3 * GiB + K4};
	static const uint64_t page_sizes[] = {K4, M2, GiB, 4 * GiB};
	const int n = sizeof(offsets) / sizeof(*offsets);
	uint64_t sizes[3] = {0}, slots = 0;

	setup(S2_EPT4, 48, 0);
	for (int g = 0; g < n; g++)
		for (int h = g % test_step(); h < n; h += test_step())
			for (int l = 0; l < 10; l++)
				for (int p = 0; p < 4; p++) {
					struct s2_slot s = {
						.gpa = 8 * GiB + offsets[g],
						.hpa = offsets[h],
						.size = lengths[l],
						.page_size = page_sizes[p],
						.flags = slots % 3 == 2 ? S2_SLOT_READONLY : 0};
					uint64_t at[] = {s.gpa, s.gpa + s.size / 2,
							 s.gpa + s.size - 1};

					CHECK(s2_slot_add(t, &s) == 0, "add");
					slots++;
					for (int i = 0; i < 3; i++) {
						/* each alone, so that the rule decides and not
						 * what is there */
						CHECK(s2_unmap(t, 0, 0) == 0, "unmap");
						check_leaf(&s, at[i], sizes);
					}
					CHECK(s2_fault(t, s.gpa - 1, S2_R, NULL) == S2_EMULATE,
					      "before");
					CHECK(s2_fault(t, s.gpa + s.size, S2_R, NULL) == S2_EMULATE,
					      "after");
					CHECK(s2_slot_remove(t, s.gpa) == 0, "remove");
				}
	printf("%" PRIu64 " slots; leaves of 4 KiB, 2 MiB, 1 GiB: %" PRIu64 " %" PRIu64 " %" PRIu64
	       "\n",
	       slots, sizes[0], sizes[1], sizes[2]);
	CHECK(sizes[0] && sizes[1] && sizes[2], "every size occurs");
	teardown();
}

static void refused(void)
{
	const uint64_t top = UINT64_C(1) << 40;
	const struct s2_slot bad[] = {
		{.gpa = 0, .size = 0, .page_size = K4},
		{.gpa = 1, .size = K4, .page_size = K4},
		{.gpa = 0, .size = K4 + 1, .page_size = K4},
		{.gpa = 0, .size = K4, .hpa = 0x800, .page_size = K4},
		{.gpa = top, .size = K4, .page_size = K4},
		{.gpa = top - K4, .size = 2 * K4, .page_size = K4},
		{.gpa = 0, .size = 2 * top, .page_size = K4},
		{.gpa = -K4, .size = 2 * K4, .page_size = K4},
		{.gpa = 0, .size = -K4, .page_size = K4},
		{.gpa = 0, .size = K4, .hpa = UINT64_C(1) << 48, .page_size = K4},
		{.gpa = 0, .size = 2 * K4, .hpa = (UINT64_C(1) << 48) - K4, .page_size = K4},
		{.gpa = 0, .size = K4, .hpa = -K4, .page_size = K4},
		{.gpa = 0, .size = K4, .page_size = 0},
		{.gpa = 0, .size = K4, .page_size = K4 + M2},
		{.gpa = 0, .size = K4, .page_size = 512},
		{.gpa = 0, .size = K4, .page_size = K4, .flags = 4},
	};
	const struct s2_slot ends = {
		.gpa = top - K4, .size = K4, .page_size = K4, .hpa = (UINT64_C(1) << 48) - K4};
	struct s2_xlat x;

	setup(S2_EPT5, 40, 48);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK(s2_slot_add(t, &bad[i]) == -EINVAL, "slot %zu", i);
	CHECK(s2_slot_add(t, &ends) == 0, "the last page of both spaces");
	CHECK(s2_fault(t, top - 1, S2_R | S2_W | S2_X, &x) == S2_FIXED, "last byte");
	CHECK(x.hpa == (UINT64_C(1) << 48) - 1, "%" PRIx64, x.hpa);
	CHECK(dec_walk(&mem, top - 1).outcome == DEC_TRANSLATED, "last byte");
	CHECK(s2_fault(t, top, S2_R, &x) == S2_INVALID, "beyond");
	CHECK(s2_fault(t, UINT64_MAX, S2_R, &x) == S2_INVALID, "beyond");
	CHECK(!s2_translate(t, top, S2_R, &x) && !s2_translate(t, UINT64_MAX, S2_R, &x), "beyond");
	CHECK(s2_unmap(t, 0, top + K4) == -EINVAL && s2_unmap(t, 1, K4) == -EINVAL, "unmap");
	CHECK(s2_unmap(t, K4, 0) == 0 && !s2_translate(t, top - 1, S2_R, &x), "to the end");
	CHECK(s2_unmap(t, 2 * K4, K4) == -EINVAL && s2_unmap(t, K4, K4) == 0, "backwards, empty");
	CHECK(s2_write_protect(t, K4, 3) == -EINVAL, "protect");
	CHECK(s2_slot_remove(t, 0) == -ENOENT && s2_slot_remove(t, top - K4) == 0, "remove");
	teardown();
}

/* Many slots: every neighbour, every overlap, removal in another order. */
static void many(void)
{
	enum { N = 300 };
	struct s2_xlat x;

	setup(S2_EPT4, 48, 0);
	for (uint64_t i = 0; i < N; i++) {
		uint64_t k = i * 7 % N; /* not in order */
		struct s2_slot s = {
			.gpa = k * 3 * K4, .size = 2 * K4, .hpa = k * M2, .page_size = K4};

		CHECK(s2_slot_add(t, &s) == 0, "slot %" PRIu64, k);
		s.gpa += K4;
		CHECK(s2_slot_add(t, &s) == -EEXIST, "overlap at the end");
		s.gpa -= 2 * K4;
		CHECK(k == 0 || s2_slot_add(t, &s) == -EEXIST, "overlap at the start");
	}
	for (uint64_t k = 0; k < N; k++) {
		uint64_t gpa = k * 3 * K4;

		CHECK(s2_fault(t, gpa + K4 + 9, S2_W, &x) == S2_FIXED && x.hpa == k * M2 + K4 + 9,
		      "slot %" PRIu64 ": %" PRIx64, k, x.hpa);
		CHECK(s2_fault(t, gpa + 2 * K4, S2_R, &x) == S2_EMULATE, "hole");
	}
	for (uint64_t i = 0; i < N; i++) {
		uint64_t k = i * 11 % N;

		CHECK(s2_slot_remove(t, k * 3 * K4) == 0, "remove");
		CHECK(!s2_translate(t, k * 3 * K4 + K4, S2_R, &x), "gone");
		CHECK(s2_fault(t, k * 3 * K4 + K4, S2_R, &x) == S2_EMULATE, "gone");
	}
	teardown();
}

static void configurations(void)
{
	static const struct {
		struct s2_config c;
		int result;
	} cases[] = {
		{{.format = S2_EPT4, .input_bits = 49}, -EINVAL},
		{{.format = S2_EPT5, .input_bits = 58}, -EINVAL},
		{{.format = S2_EPT4, .input_bits = 3}, -EINVAL},
		{{.format = S2_EPT4, .input_bits = 48, .hpa_bits = 53}, -EINVAL},
		{{.format = (enum s2_format)77, .input_bits = 48}, -EINVAL},
		{{.format = S2_EPT4}, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *why = NULL;
		struct s2 *made = NULL;
		int err = s2_create(&made, &cases[i].c, &why);

		CHECK(err == cases[i].result, "case %zu: %d", i, err);
		CHECK(!err || why, "case %zu says why", i);
		CHECK(!err || s2_create(&made, &cases[i].c, NULL) == err, "case %zu", i);
		if (!err)
			s2_destroy(made);
	}
}

/* A processor that faults while it is waited for. */
static struct {
	struct s2_tlb_client client;
	struct s2_thread *t;
	uint64_t gpa;
	enum s2_result result;
	bool asked;
} late;

static void late_invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	(void)opaque;
	(void)start;
	(void)end;
	(void)generation;
}

static void late_wait(void *opaque, uint64_t generation)
{
	(void)opaque;
	late.result = s2_fault(late.t, late.gpa, S2_R, NULL);
	late.asked = true;
	s2_tlb_ack(&late.client, generation);
}

/* In a slot that goes nothing is mapped any more, also where its table stays. */
static void dying(bool table)
{
	struct s2_slot stays = {.gpa = GiB, .size = M2, .hpa = 2 * GiB, .page_size = K4},
		       goes = {.gpa = GiB + M2, .size = 2 * K4, .hpa = 3 * GiB, .page_size = K4};

	setup(S2_EPT4, 48, 0);
	if (table)
		goes.gpa = stays.gpa + stays.size - goes.size;
	stays.size = goes.gpa - stays.gpa;
	CHECK(!s2_slot_add(t, &stays) && !s2_slot_add(t, &goes), "add");
	CHECK(!s2_thread_init(&late.t, s2, "late"), "thread");
	if (table)
		CHECK(s2_fault(t, stays.gpa, S2_R, NULL) == S2_FIXED, "the table");
	/* it found the slot last; the neighbour is not mapped yet */
	CHECK(s2_fault(late.t, goes.gpa, S2_R, NULL) == S2_FIXED, "fault");
	late.gpa = goes.gpa + K4;
	late.asked = false;
	late.client = (struct s2_tlb_client){.invalidate = late_invalidate, .wait = late_wait};
	s2_tlb_client_add(t, &late.client);
	CHECK(!s2_slot_remove(t, goes.gpa) && late.asked, "remove");
	CHECK(late.result == S2_EMULATE, "result %d", late.result);
	CHECK(dec_walk(&mem, late.gpa).outcome == DEC_FAULT, "nothing comes back");
	s2_tlb_client_remove(t, &late.client);
	s2_thread_exit(late.t);
	teardown();
}

static void read_only(void)
{
	const struct s2_slot s = {
		.gpa = GiB, .size = M2, .hpa = GiB, .page_size = K4, .flags = S2_SLOT_READONLY};

	setup(S2_EPT4, 48, 0);
	CHECK(!s2_slot_add(t, &s), "add");
	CHECK(s2_fault(t, GiB, S2_W, NULL) == S2_EMULATE, "before it has a table");
	CHECK(s2_fault(t, GiB, S2_R, NULL) == S2_FIXED, "read");
	CHECK(s2_fault(t, GiB, S2_W, NULL) == S2_EMULATE, "mapped");
	CHECK(s2_fault(t, GiB + K4, S2_W, NULL) == S2_EMULATE, "its neighbour");
	CHECK(s2_fault(t, GiB + K4, S2_R, NULL) == S2_FIXED && !dec_walk(&mem, GiB + K4).w, "read");
	teardown();
}

int main(void)
{
	dying(true);
	dying(false);
	read_only();
	configurations();
	refused();
	many();
	alignments();
	return test_result("slots");
}
