/*
 * Named processor models: exactly what a guest's CPUID says. A model is a promise that every engine
 * can keep, so that a guest may move between them.
 */
#ifndef CPU_X86_MODEL_H
#define CPU_X86_MODEL_H

#include <stdint.h>

/* MAXPHYADDR of every model: what the emulator checks reserved bits against, and what every
 * processor with hardware paging for guests has at least but for a few that have 39. */
enum { X86_PHYSICAL_BITS = 40 };

struct x86_model {
	const char *name, *help;
	uint32_t leaf1_ecx, leaf1_edx, leaf7_ebx, leaf7_ecx, leaf7_edx, ext1_ecx, ext1_edx;
};

/* Ends with name == NULL; the first is the default. */
extern const struct x86_model x86_models[];
const struct x86_model *x86_model_find(const char *name); /* NULL: none of that name */

struct x86_cpuid_context {
	const struct x86_model *model;
	unsigned vcpus;
	uint64_t tsc_hz, crystal_hz; /* CPUID 15h; the crystal also drives the APIC timer */
};
/* Leaf and subleaf of one vCPU (its APIC id is its number). out: eax ebx ecx edx. SDM vol. 2A
 * CPUID. */
void x86_cpuid(const struct x86_cpuid_context *ctx, unsigned vcpu, uint32_t leaf, uint32_t subleaf,
	       uint32_t out[4]);

#endif
