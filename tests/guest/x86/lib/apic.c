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

/* A counter and the TSC at the same moment, however often the host takes the processor away: of
 * some tries the one that took the shortest time. */
u64 sample(u32 (*read)(void), u32 *value)
{
	u64 best = ~0ull, when = 0;

	for (int i = 0; i < 12; i++) {
		u64 t0 = rdtsc(), t1;
		u32 v = read();

		t1 = rdtsc();
		if (t1 - t0 >= best)
			continue;
		best = t1 - t0;
		when = t0 + best / 2;
		*value = v;
	}
	return when;
}

static u32 read_pit2(void)
{
	u32 v;

	outb(0x43, 0x80); /* latch channel 2 */
	v = inb(0x42);
	return v | (u32)inb(0x42) << 8;
}

/* PIT channel 2 (gate and output at port 0x61) counts down 55 ms in mode 0; again if that was not
 * enough. */
static u64 measure_tsc(void)
{
	for (int i = 0; i < 100; i++) {
		u64 t0, t1;
		u32 a = 0, b = 0;

		outb(0x61, (u8)((inb(0x61) & ~2) | 1));
		outb(0x43, 0xb0);
		outb(0x42, 0xff);
		outb(0x42, 0xff);
		while (read_pit2() > 0xfff0)
			cpu_relax();
		t0 = sample(read_pit2, &a);
		while (read_pit2() > 0x6000 && !(inb(0x61) & 0x20))
			cpu_relax();
		t1 = sample(read_pit2, &b);
		if (inb(0x61) & 0x20)
			continue;
		return (t1 - t0) * 1193182 / (a - b);
	}
	panic("PIT channel 2 cannot be measured");
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
