/*
 * Model-specific registers that ferry keeps itself, the same for every engine: what the emulator
 * does not know or what belongs to the machine (clock, MTRRs, capabilities). SDM vol. 4.
 */
#ifndef CPU_X86_MSR_H
#define CPU_X86_MSR_H

#include "cpu/x86/state.h"

struct x86_msr_ops {
	void *opaque;
	uint64_t (*tsc)(void *opaque, unsigned vcpu); /* with the adjustment */
	void (*tsc_moved)(void *opaque, unsigned vcpu);
};

/* `state`: the vCPU's registers of this kind (tsc_adjust, spec_ctrl, feat_ctl, mtrr_*). 0 done, 1
 * not known here, 2 #GP. On the vCPU's thread. */
int x86_rdmsr(struct x86_state *state, const struct x86_msr_ops *ops, unsigned vcpu, uint32_t msr,
	      uint64_t *value);
int x86_wrmsr(struct x86_state *state, const struct x86_msr_ops *ops, unsigned vcpu, uint32_t msr,
	      uint64_t value);

#endif
