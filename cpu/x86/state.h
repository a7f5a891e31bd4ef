/*
 * The canonical state of one x86-64 processor: architectural, complete, bit-exact, the same from
 * every engine. It is what is saved, sent and compared; an engine converts at its border.
 */
#ifndef CPU_X86_STATE_H
#define CPU_X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "migration/field.h"

enum x86_gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum x86_segment { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDT, SEG_TR, SEG_COUNT };

/* attr as in a VMCS (SDM vol. 3C 25.4.1): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15,
 * unusable 16. limit in bytes. */
struct x86_seg {
	uint64_t base;
	uint32_t limit, attr;
	uint16_t selector;
};

/* Where an INIT left a processor (SDM vol. 3A 9.4). */
enum x86_run_state { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI };

struct x86_state {
	uint64_t gpr[16], rip, rflags;
	struct x86_seg seg[SEG_COUNT];
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
	uint64_t cr0, cr2, cr3, cr4, xcr0;
	uint64_t dr[8]; /* 4 and 5 unused */
	uint64_t efer, star, lstar, cstar, fmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t tsc_aux, pat, misc_enable, mtrr_def_type;
	uint8_t fxsave[512];
	uint8_t run_state; /* enum x86_run_state */
	uint8_t shadow;	   /* bit 0: after STI, bit 1: after MOV SS */
	bool nmi_pending, nmi_masked;
	/* An event whose delivery has begun: type as in a VMCS (0 external, 2 NMI, 3 hardware
	 * exception, 4 software interrupt, 6 software exception). */
	bool event_valid, event_has_error;
	uint8_t event_vector, event_type, event_insn_len;
	uint32_t event_error;
	/* Registers that ferry keeps for every engine (cpu/x86/msr.c). */
	uint64_t tsc_adjust; /* guest TSC = scaled machine clock + tsc_adjust (IA32_TSC_ADJUST) */
	uint64_t spec_ctrl, feat_ctl;
	uint64_t mtrr_fixed[11], mtrr_base[8], mtrr_mask[8];
};

extern const struct state_desc x86_state_desc;

/* Power-on state of SDM vol. 3A table 9-1 (bsp: starts at the reset vector; others wait for a
 * SIPI). */
void x86_state_reset(struct x86_state *s, bool bsp);
/* What a SIPI does (SDM vol. 3A 8.4.4.1): real mode at vector << 12. */
void x86_state_sipi(struct x86_state *s, uint8_t vector);

#endif
