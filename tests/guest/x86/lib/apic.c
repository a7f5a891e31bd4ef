/* Local APIC (xAPIC), the two 8259 kept quiet, and time. */
#include "guest.h"

/* Spurious vector 0xff; everything masked (SDM vol. 3A 11.4.7, 11.5.1). */
static void spurious(struct frame *f)
{
	(void)f;
}

void lapic_enable(void)
{
	irq_handler(0xff, spurious);
	lapic_write(LAPIC_SVR, 0x1ff);
	lapic_write(LAPIC_TPR, 0);
	lapic_write(LAPIC_LVTT, BIT(16));
	lapic_write(LAPIC_LINT0, BIT(16));
	lapic_write(LAPIC_LINT1, BIT(16));
	lapic_write(LAPIC_LVTE, BIT(16));
}

void lapic_eoi(void)
{
	lapic_write(LAPIC_EOI, 0);
}

void lapic_ipi(u32 apic_id, u32 icr_low)
{
	while (lapic_read(LAPIC_ICR) & BIT(12))
		cpu_relax();
	lapic_write(LAPIC_ICRH, apic_id << 24);
	lapic_write(LAPIC_ICR, icr_low);
	while (lapic_read(LAPIC_ICR) & BIT(12))
		cpu_relax();
}

void pic_mask_all(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

/*
 * PIT channel 2 (gate and output at port 0x61) counts down 50 ms in mode 0. The longest of three
 * would be wrong on a host that stops us, the shortest is wrong in no case.
 */
static u64 measure_tsc(void)
{
	const u32 count = 1193182 / 20;
	u64 best = ~0ull;

	for (int i = 0; i < 3; i++) {
		u64 t0, t1;

		outb(0x61, (u8)((inb(0x61) & ~2) | 1));
		outb(0x43, 0xb0);
		outb(0x42, count & 0xff);
		outb(0x42, count >> 8);
		t0 = rdtsc();
		while (!(inb(0x61) & 0x20))
			if (rdtsc() - t0 > 100000000000ull)
				panic("PIT channel 2 does not end");
		t1 = rdtsc() - t0;
		if (t1 < best)
			best = t1;
	}
	return best * 1193182 / count;
}

u64 tsc_hz(void)
{
	static u64 hz;

	if (!hz)
		hz = measure_tsc();
	return hz;
}

void delay_us(u64 us)
{
	u64 t0 = rdtsc(), n = tsc_hz() / 1000 * us / 1000;

	while (rdtsc() - t0 < n)
		cpu_relax();
}

bool wait_for(volatile u32 *flag, u32 want, u64 us)
{
	u64 t0 = rdtsc(), n = tsc_hz() / 1000 * us / 1000;

	while (*flag != want) {
		if (rdtsc() - t0 > n)
			return *flag == want;
		cpu_relax();
	}
	return true;
}
