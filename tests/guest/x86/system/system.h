/* What surrounds the instructions: TSC, interrupt windows, NMI, HLT, LAPIC and its timer, PIC, PIT,
 * IOAPIC, RTC, ACPI PM timer. Times are judged so that a slow host cannot fail them: nothing may
 * come too early, and it must come within seconds. */
#ifndef GUEST_SYSTEM_H
#define GUEST_SYSTEM_H

#include "guest.h"

#define VEC 0x40

/* What on_irq() has seen. */
extern volatile u32 count;
extern volatile u64 last_rip, last_tsc;

void on_irq(struct frame *f);
/* Waits until there were n, for seconds. */
bool wait_count(u32 n);

static inline bool about(u64 want, u64 got, u64 percent)
{
	u64 d = want > got ? want - got : got - want;

	return d * 100 <= want * percent;
}

static inline u32 read_tmcct(void)
{
	return lapic_read(LAPIC_TMCCT);
}

extern u8 sti_inc[]; /* interrupts.c: a window for one interrupt */
void test_features(void);

void test_clocks(void);
void test_interrupts(void);
void test_apic(void);
void test_lines(void);

#endif
