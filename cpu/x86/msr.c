#include "cpu/x86/msr.h"

#include "cpu/x86/model.h"

enum {
	MSR_TSC = 0x10,
	MSR_PLATFORM_ID = 0x17,
	MSR_FEAT_CTL = 0x3a,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_UCODE_WRITE = 0x79,
	MSR_UCODE_REV = 0x8b,
	MSR_MTRRCAP = 0xfe,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_MTRR_BASE0 = 0x200,
	MSR_MTRR_LAST = 0x20f,
	MSR_MTRR_FIX64K = 0x250,
	MSR_MTRR_FIX16K_80000 = 0x258,
	MSR_MTRR_FIX16K_A0000 = 0x259,
	MSR_MTRR_FIX4K_FIRST = 0x268,
	MSR_MTRR_FIX4K_LAST = 0x26f,
	MSR_MTRR_DEF_TYPE = 0x2ff,
};

/* An interpreter and a translator of blocks do not speculate past a check: the processor that the
 * guest sees has none of the known leaks. Bits of SDM vol. 4, IA32_ARCH_CAPABILITIES: RDCL_NO 0,
 * IBRS_ALL 1, SKIP_L1DFL 3, SSB_NO 4, MDS_NO 5, PSCHANGE_MC_NO 6, TAA_NO 8, SBDR/FBSDP/PSDP_NO
 * 13-15, BHI_NO 20, PBRSB_NO 24, GDS_NO 26, RFDS_NO 27, ITS_NO 62. */
#define ARCH_CAPABILITIES                                                                          \
	((1ull << 0) | (1ull << 1) | (1ull << 3) | (1ull << 4) | (1ull << 5) | (1ull << 6) |       \
	 (1ull << 8) | (7ull << 13) | (1ull << 20) | (1ull << 24) | (1ull << 26) | (1ull << 27) |  \
	 (1ull << 62))

static uint64_t *mtrr(struct x86_state *s, uint32_t msr)
{
	if (msr >= MSR_MTRR_BASE0 && msr <= MSR_MTRR_LAST) {
		unsigned n = (msr - MSR_MTRR_BASE0) / 2;

		return msr & 1 ? &s->mtrr_mask[n] : &s->mtrr_base[n];
	}
	if (msr == MSR_MTRR_FIX64K)
		return &s->mtrr_fixed[0];
	if (msr == MSR_MTRR_FIX16K_80000 || msr == MSR_MTRR_FIX16K_A0000)
		return &s->mtrr_fixed[1 + msr - MSR_MTRR_FIX16K_80000];
	if (msr >= MSR_MTRR_FIX4K_FIRST && msr <= MSR_MTRR_FIX4K_LAST)
		return &s->mtrr_fixed[3 + msr - MSR_MTRR_FIX4K_FIRST];
	if (msr == MSR_MTRR_DEF_TYPE)
		return &s->mtrr_def_type;
	return NULL;
}

static bool memory_type(uint64_t type)
{
	return type == 0 || type == 1 || type == 4 || type == 5 || type == 6;
}

/* Reserved bits are #GP (SDM vol. 3A 12.11.2). */
static bool mtrr_valid(uint32_t msr, uint64_t value)
{
	const uint64_t above = ~((1ull << X86_PHYSICAL_BITS) - 1);

	if (msr == MSR_MTRR_DEF_TYPE)
		return memory_type(value & 0xff) && !(value & ~0xcffull);
	if (msr >= MSR_MTRR_BASE0 && msr <= MSR_MTRR_LAST) {
		if (msr & 1)
			return !(value & (above | 0x7ff));
		return memory_type(value & 0xff) && !(value & (above | 0xf00));
	}
	for (int i = 0; i < 64; i += 8)
		if (!memory_type((value >> i) & 0xff))
			return false;
	return true;
}

int x86_rdmsr(struct x86_state *s, const struct x86_msr_ops *ops, unsigned vcpu, uint32_t msr,
	      uint64_t *value)
{
	const uint64_t *m;

	switch (msr) {
	case MSR_TSC: *value = ops->tsc(ops->opaque, vcpu); return 0;
	case MSR_TSC_ADJUST: *value = s->tsc_adjust; return 0;
	case MSR_SPEC_CTRL: *value = s->spec_ctrl; return 0;
	case MSR_FEAT_CTL: *value = s->feat_ctl; return 0;
	case MSR_ARCH_CAPABILITIES: *value = ARCH_CAPABILITIES; return 0;
	case MSR_MTRRCAP: *value = 0x508; return 0; /* 8 variable, fixed, write-combining */
	case MSR_UCODE_REV: *value = 1ull << 32; return 0;
	case MSR_PLATFORM_ID:
	case MSR_MCG_CAP: /* no banks: nothing of a machine that is not there can break */
	case MSR_MCG_STATUS: *value = 0; return 0;
	default: break;
	}
	m = mtrr(s, msr);
	if (!m)
		return 1;
	*value = *m;
	return 0;
}

int x86_wrmsr(struct x86_state *s, const struct x86_msr_ops *ops, unsigned vcpu, uint32_t msr,
	      uint64_t value)
{
	uint64_t *m;

	switch (msr) {
	case MSR_TSC:
		/* A write to the TSC moves TSC_ADJUST by the same amount (SDM vol. 3B 18.17.3). */
		s->tsc_adjust += value - ops->tsc(ops->opaque, vcpu);
		ops->tsc_moved(ops->opaque, vcpu);
		return 0;
	case MSR_TSC_ADJUST:
		s->tsc_adjust = value;
		ops->tsc_moved(ops->opaque, vcpu);
		return 0;
	case MSR_SPEC_CTRL:
		if (value & ~0x401ull) /* IBRS, BHI_DIS_S; STIBP and SSBD are not offered */
			return 2;
		s->spec_ctrl = value;
		return 0;
	case MSR_PRED_CMD: return value & ~1ull ? 2 : 0;
	case MSR_MCG_STATUS: return value ? 2 : 0;
	case MSR_FEAT_CTL: return 2; /* locked at reset */
	case MSR_UCODE_REV:
	case MSR_UCODE_WRITE: return 0;
	case MSR_ARCH_CAPABILITIES:
	case MSR_MTRRCAP:
	case MSR_MCG_CAP:
	case MSR_PLATFORM_ID: return 2;
	default: break;
	}
	m = mtrr(s, msr);
	if (!m)
		return 1;
	if (!mtrr_valid(msr, value))
		return 2;
	*m = value;
	return 0;
}
