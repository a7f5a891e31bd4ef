/* Segmentation where long mode still has it (compatibility mode), and control transfers between
 * privilege levels and modes: SDM vol. 3A chapters 3, 5 and 6, vol. 2 for each instruction. */
#ifndef GUEST_SEGMENTS_H
#define GUEST_SEGMENTS_H

#include "insn.h"

#define SLOT(i) (SEL_TEST + 8 * (i))

static inline void slot(u32 i, u64 desc)
{
	this_cpu()->gdt[SLOT(i) / 8] = desc;
}

extern u8 mode_probe[]; /* iret.c: EAX += 2, or in a 32-bit segment 1 */

void test_limits(void);
void test_verify(void);
void test_iret(void);
void test_far(void);
void test_syscall(void);
void test_stacks(void);
void test_programs(void);

#endif
