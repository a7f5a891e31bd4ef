/* Debug registers and single stepping: SDM vol. 3B 18.2, 18.3. */
#ifndef GUEST_DEBUG_H
#define GUEST_DEBUG_H

#include "guest.h"

#define DR6_BD	BIT(13)
#define DR6_BS	BIT(14)
#define DR6_LOW 0xe00full /* B0-B3, BD, BS, BT */
#define DR7_1	BIT(10)	  /* reads as one */

enum { EXEC, WRITE, IO, RW };

void clear_debug(void);
/* len in bytes; enabled locally for even n, globally for odd. */
u64 dr7_bits(u32 n, u32 type, u32 len);
void set_address(u32 n, u64 va);

extern u64 data[16];
/* RSI and RDI point at it. */
struct ctx context(u8 *code, bool user);
extern u8 w8[];		   /* mov %rax, (%rsi); nop */
extern u8 line[], line2[]; /* registers.c: a few INC %eax, and the second of them */
/* Where a label of the code is. */
u64 at(u8 *label, bool user);
void expect_db(const struct ctx *c, u64 rip, u64 bits);

void test_registers(void);
void test_watch(void);
void test_step(void);

#endif
