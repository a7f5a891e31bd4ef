#include "system.h"

volatile u32 count;
volatile u64 last_rip, last_tsc;

void on_irq(struct frame *f)
{
	last_rip = f->rip;
	last_tsc = rdtsc();
	count = count + 1;
	lapic_eoi();
}

bool wait_count(u32 n)
{
	u64 t0 = rdtsc(), limit = 10 * tsc_hz();

	while (count < n && rdtsc() - t0 < limit)
		cpu_relax();
	return count >= n;
}

void test_main(void)
{
	test_features();
	test_clocks();
	test_interrupts();
	test_apic();
	test_lines();
}
