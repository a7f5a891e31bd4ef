/*
 * The formats and configurations over which the tests of the MMU core run, each with the decoder
 * that reads it and an environment: table addresses are as high as the format allows, so that every
 * address bit is used (Sv32x4: below 34 bits).
 */
#ifndef TEST_MMU_CONFIGS_H
#define TEST_MMU_CONFIGS_H

#include "tests/unit/arm_decoder.h"
#include "tests/unit/ept_decoder.h"
#include "tests/unit/npt_decoder.h"
#include "tests/unit/riscv_decoder.h"
#include "tests/unit/test_mmu_util.h"

struct test_config {
	const char *name;
	struct s2_config c;
	const struct decoder *decoder;
	unsigned levels, roots; /* expected; roots: tables side by side */
	unsigned pa_bits;	/* the expected width of host addresses */
	uint64_t offset;	/* of table addresses; and a place for slots */
};

#define TEST_HIGH (UINT64_C(5) << 49) /* sets bits 51 and 49 */
#define TEST_MID  (UINT64_C(1) << 47) /* sets bit 47 */

static const struct test_config test_configs[] = {
	{"ept4", {.format = S2_EPT4, .use_ad = true}, &ept_decoder, 4, 1, 52, TEST_HIGH},
	{"ept4, 40 bits",
	 {.format = S2_EPT4, .input_bits = 40, .hpa_bits = 48},
	 &ept_decoder,
	 4,
	 1,
	 48,
	 0},
	{"ept5",
	 {.format = S2_EPT5, .options = S2_OPT_EXEC_ONLY},
	 &ept_decoder,
	 5,
	 1,
	 52,
	 TEST_HIGH},
	{"npt4", {.format = S2_NPT4}, &npt_decoder, 4, 1, 52, TEST_HIGH},
	{"npt4, as they lie", {.format = S2_NPT4, .use_ad = true}, &npt_decoder, 4, 1, 52, 0},
	{"npt5", {.format = S2_NPT5, .use_ad = true}, &npt_decoder, 5, 1, 52, TEST_HIGH},
	{"arm64 4K, 40 bits", {.format = S2_ARM64_4K}, &arm_decoder, 3, 2, 48, 0},
	{"arm64 4K, 35 bits", {.format = S2_ARM64_4K, .input_bits = 35}, &arm_decoder, 3, 1, 48, 0},
	{"arm64 4K, 48 bits",
	 {.format = S2_ARM64_4K, .input_bits = 48, .bbm_level = 1, .use_ad = true},
	 &arm_decoder,
	 4,
	 1,
	 48,
	 TEST_MID},
	{"arm64 4K, LPA2",
	 {.format = S2_ARM64_4K, .input_bits = 52},
	 &arm_decoder,
	 4,
	 16,
	 52,
	 TEST_HIGH},
	{"arm64 16K, 40 bits", {.format = S2_ARM64_16K}, &arm_decoder, 2, 16, 48, 0},
	{"arm64 16K, 48 bits",
	 {.format = S2_ARM64_16K, .input_bits = 48, .bbm_level = 2},
	 &arm_decoder,
	 3,
	 2,
	 48,
	 TEST_MID},
	{"arm64 16K, LPA2",
	 {.format = S2_ARM64_16K, .input_bits = 52},
	 &arm_decoder,
	 4,
	 1,
	 52,
	 TEST_HIGH},
	{"arm64 64K, 42 bits",
	 {.format = S2_ARM64_64K, .input_bits = 42},
	 &arm_decoder,
	 2,
	 1,
	 48,
	 0},
	{"arm64 64K, 48 bits",
	 {.format = S2_ARM64_64K, .input_bits = 48, .bbm_level = 1},
	 &arm_decoder,
	 3,
	 1,
	 48,
	 TEST_MID},
	{"arm64 64K, LPA",
	 {.format = S2_ARM64_64K, .input_bits = 52},
	 &arm_decoder,
	 3,
	 1,
	 52,
	 TEST_HIGH},
	{"sv32x4", {.format = S2_SV32X4}, &riscv32_decoder, 2, 4, 34, TEST_LOW},
	{"sv39x4", {.format = S2_SV39X4}, &riscv64_decoder, 3, 4, 56, UINT64_C(5) << 53},
	{"sv48x4",
	 {.format = S2_SV48X4, .use_ad = true, .options = S2_OPT_PBMT | S2_OPT_NAPOT},
	 &riscv64_decoder,
	 4,
	 4,
	 56,
	 TEST_HIGH},
	{"sv39x4, as they lie", {.format = S2_SV39X4}, &riscv64_decoder, 3, 4, 56, 0},
	{"sv57x4", {.format = S2_SV57X4}, &riscv64_decoder, 5, 4, 56, 0},
};

enum { TEST_CONFIGS = sizeof(test_configs) / sizeof(*test_configs) };

/* Tests of one thread run over all of them, but where the thread sanitizer makes that slow. */
#if defined(__SANITIZE_THREAD__)
enum { TEST_STEP = 6 };
#else
enum { TEST_STEP = 1 };
#endif

/* Where slots of a test may lie: host addresses with high bits, too. */
static inline uint64_t test_config_hpa(const struct test_config *tc)
{
	return tc->offset == TEST_LOW ? 0 : tc->offset;
}

static inline const void *test_config_table(void *opaque, uint64_t pa)
{
	return test_env_from_pa(opaque, pa);
}

/* How hardware would read the tables with these registers. */
static inline void test_config_memory(const struct test_config *tc, struct test_env *te,
				      uint64_t root, uint64_t control, struct dec_memory *mem)
{
	*mem = (struct dec_memory){
		.decoder = tc->decoder,
		.shape = {.pa_bits = tc->pa_bits,
			  .levels = tc->levels,
			  .exec_only = tc->c.options & S2_OPT_EXEC_ONLY,
			  .pbmt = tc->c.options & S2_OPT_PBMT,
			  .napot = tc->c.options & S2_OPT_NAPOT,
			  .hardware_ad = tc->c.use_ad},
		.table = test_config_table,
		.opaque = te,
	};
	tc->decoder->open(&mem->shape, root, control);
	CHECK(!mem->shape.why, "%s: %s", tc->name, mem->shape.why);
	CHECK(mem->shape.levels == tc->levels, "%s: %u levels", tc->name, mem->shape.levels);
	if (tc->c.input_bits && tc->decoder == &arm_decoder)
		CHECK(mem->shape.input_bits == tc->c.input_bits, "%s: %u bits", tc->name,
		      mem->shape.input_bits);
}

/* An instance, its environment and its reader. */
static inline bool test_config_create(const struct test_config *tc, struct test_env *te,
				      struct s2 **s2, struct dec_memory *mem)
{
	struct s2_config c = tc->c;
	struct s2_registers regs;
	const char *why = NULL;
	int err;

	test_env_init(te, tc->offset);
	c.env = &te->env;
	err = s2_create(s2, &c, &why);
	CHECK(!err, "%s: %d %s", tc->name, err, why ? why : "");
	if (err)
		return false;
	CHECK(!s2_registers(*s2, 0, &regs), "%s: registers", tc->name);
	test_config_memory(tc, te, regs.root, regs.control, mem);
	return true;
}

/* An address in the middle of the tree where an entry of a high level ends. */
static inline uint64_t test_config_boundary(const struct dec_memory *mem)
{
	unsigned bits = mem->shape.input_bits - 1;

	return UINT64_C(1) << (bits < 39 ? bits : 39);
}

#endif
