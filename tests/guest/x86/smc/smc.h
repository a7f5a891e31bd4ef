/* Self-modifying and cross-modifying code (SDM vol. 3A 9.1.3, 12.6). One processor sees its own
 * writes to code at the next taken branch or serialising instruction at the latest, through any
 * linear address of the memory; between processors the protocol of 9.1.3 is followed: the writer
 * stores, then hands over; the reader executes CPUID before it runs what was written. */
#ifndef GUEST_SMC_H
#define GUEST_SMC_H

#include "guest.h"

typedef u32 code_fn(void);

/* mov $imm, %eax; ret */
static inline void put_return(u8 *at, u32 value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static inline u32 call(const void *at)
{
	u32 r;

	asm volatile("call *%1" : "=a"(r) : "r"(at) : "memory", "rcx", "rdx", "cc");
	return r;
}

static inline void serialise(void)
{
	(void)cpuid(0, 0);
}

/* A function of noise, and what it returns. */
u32 jit_compile(u8 *at, u32 seed);
void test_own(void);
void test_cross(u32 rounds);

#endif
