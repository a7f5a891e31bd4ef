/* Several processors: start, interrupts between them, atomic instructions, TLB shootdown, memory
 * order, time (SDM vol. 3A chapters 9 and 11). "cpus=N" on the command line says how many there
 * must be; "rounds=" scales the loops. */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "guest.h"

extern u32 rounds;
/* Of each processor: how far it is; what it has found wrong. */
extern volatile u32 counters[MAX_CPUS], lost[MAX_CPUS];
extern volatile bool leave_idle; /* ends the loops of the others */
extern u8 *arena;		 /* several pages */
extern volatile u64 *target;	 /* in it, what a test works on */

/* Of all processors. */
void barrier(void);
/* Reads *target all the time, until leave_idle: both halves are the same. */
void tear_reader(void *arg);

void test_start(void);
void test_atomics(void);
void test_order(void);
void test_shootdown(void);
void test_restart(void);
void test_interrupts(void);

#endif
