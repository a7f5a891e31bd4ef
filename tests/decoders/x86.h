/*
 * What the programs for SVM and VMX share. Their guest runs in long mode; its own tables lie in the
 * stub, so that the processor walks them through the second stage, too, and map two pages: what it
 * runs and where the probe is.
 */
#ifndef DECODERS_X86_H
#define DECODERS_X86_H

#include "tests/decoders/bare.h"

enum { GUEST_CODE = 0x1000, GUEST_PROBE = 0x2000 };

/* `call`: the instruction that leaves the guest, 3 bytes. */
void x86_stub_init(const struct image *image, const uint8_t call[3]);
void x86_stub_set(const struct image_set *set);
/* Maps the probe; what to run. */
uint64_t x86_stub_probe(const struct probe *p);
void x86_console_init(void);
/* From a disk, where the machine loads no files (ata.c). */
bool x86_load(const char **why);
/* The guest's CR3. */
uint64_t x86_guest_root(const struct image_set *set);

static inline uint64_t x86_rdmsr(uint32_t msr)
{
	uint32_t low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

static inline void x86_wrmsr(uint32_t msr, uint64_t value)
{
	asm volatile("wrmsr" ::"c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline void x86_cpuid(uint32_t leaf, uint32_t out[4])
{
	asm volatile("cpuid"
		     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
		     : "a"(leaf), "c"(0));
}

#define X86_READ_CR(n)                                                                             \
	({                                                                                         \
		uint64_t v_;                                                                       \
		asm volatile("mov %%cr" #n ", %0" : "=r"(v_));                                     \
		v_;                                                                                \
	})

#endif
