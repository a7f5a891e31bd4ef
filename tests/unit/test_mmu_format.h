/* The format behind a test configuration, for tests below the policy. */
#ifndef TEST_MMU_FORMAT_H
#define TEST_MMU_FORMAT_H

#include "mmu/format/arm_s2.h"
#include "mmu/format/ept.h"
#include "mmu/format/npt.h"
#include "mmu/format/riscv_gstage.h"
#include "tests/unit/test_mmu_configs.h"

ARM_FORMAT(arm4k, 12);
ARM_FORMAT(arm16k, 14);
ARM_FORMAT(arm64k, 16);

static inline const struct format *test_format(enum s2_format format)
{
	static const struct format *const formats[S2_NR_FORMATS] = {
		&ept_format,	 &ept_format,	  &npt_format,	  &npt_format,
		&arm4k_format,	 &arm16k_format,  &arm64k_format, &riscv32_format,
		&riscv64_format, &riscv64_format, &riscv64_format};

	return formats[format];
}

static inline int test_geometry(const struct s2_config *c, struct geometry *g, const char **why)
{
	static const uint8_t levels[S2_NR_FORMATS] = {4, 5, 4, 5, 0, 0, 0, 2, 3, 4, 5};
	const struct format *f = test_format(c->format);
	const struct format_config fc = {.input_bits = c->input_bits,
					 .output_bits = c->hpa_bits,
					 .levels = levels[c->format],
					 .page_shift = f->page_shift,
					 .options = c->options | (c->use_ad ? FORMAT_AD : 0)};

	return f->geometry(g, &fc, why);
}

#endif
