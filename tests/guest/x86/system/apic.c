/* LAPIC timer, x2APIC. */
#include "system.h"

/* ---- LAPIC timer: 11.5.4
 * -------------------------------------------------------------------------------- */

static void test_lapic_timer(void)
{
	u64 t0;
	u32 a, b;

	irq_handler(VEC, on_irq);
	test_begin("system: LAPIC timer, one-shot");
	lapic_write(LAPIC_TDCR, 0xb); /* divide by 1 */
	lapic_write(LAPIC_LVTT, VEC);
	count = 0;
	lapic_write(LAPIC_TMICT, 1000000);
	a = lapic_read(LAPIC_TMCCT);
	b = lapic_read(LAPIC_TMCCT);
	expect("counts down", true, a <= 1000000 && b <= a);
	irq_enable();
	expect("fires", true, wait_count(1));
	delay_us(20000);
	irq_disable();
	expect("once", 1, count);
	expect("count at the end", 0, lapic_read(LAPIC_TMCCT));
	test_end();

	test_begin("system: LAPIC timer, divider");
	/* By the count that is left after a time: an interrupt may be late by any amount. */
	u32 rate[2] = {0, 0};

	lapic_write(LAPIC_LVTT, BIT(16));
	for (u32 i = 0; i < 2; i++) {
		lapic_write(LAPIC_TDCR, i ? 3 : 0xb);
		lapic_write(LAPIC_TMICT, 0xffffffff);
		t0 = sample(read_tmcct, &a);
		delay_us(20000);
		t0 = sample(read_tmcct, &b) - t0;
		rate[i] = (u32)((u64)(a - b) * 1000000 / (t0 ? t0 : 1));
	}
	lapic_write(LAPIC_TMICT, 0);
	test_context("rates %u and %u per million TSC ticks", rate[0], rate[1]);
	expect("sixteenth of the rate", true, about(rate[0], 16ull * rate[1], 5));
	test_context(NULL);
	test_end();

	test_begin("system: LAPIC timer, periodic");
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_LVTT, VEC | 0x20000);
	count = 0;
	irq_enable();
	lapic_write(LAPIC_TMICT, 100000);
	expect("ten ticks", true, wait_count(10));
	lapic_write(LAPIC_TMICT, 0); /* stops */
	delay_us(1000);
	count = 0;
	delay_us(20000);
	expect("stopped", 0, count);
	/* Masked: it counts, no interrupt. */
	lapic_write(LAPIC_LVTT, VEC | 0x20000 | BIT(16));
	lapic_write(LAPIC_TMICT, 10000);
	delay_us(20000);
	expect("masked", 0, count);
	lapic_write(LAPIC_TMICT, 0);
	irq_disable();
	test_end();

	if (!(cpuid(1, 0).c & BIT(24))) {
		test_skip("system: LAPIC timer, TSC deadline", "not advertised");
		return;
	}
	test_begin("system: LAPIC timer, TSC deadline");
	lapic_write(LAPIC_LVTT, VEC | 0x40000);
	asm volatile("mfence"); /* 11.5.4.1 */
	irq_enable();
	for (u32 i = 0; i < 20; i++) {
		u64 deadline = rdtsc() + tsc_hz() / 1000 * (i & 3);

		count = 0;
		wrmsr(MSR_TSC_DEADLINE, deadline);
		expect("fires", true, wait_count(1));
		expect("not early", true, last_tsc >= deadline);
		expect("once", 1, count);
		expect("disarmed", 0, rdmsr(MSR_TSC_DEADLINE));
	}
	count = 0;
	wrmsr(MSR_TSC_DEADLINE, 1); /* long past: at once */
	expect("past", true, wait_count(1));
	count = 0;
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + tsc_hz() / 100);
	wrmsr(MSR_TSC_DEADLINE, 0);
	delay_us(30000);
	expect("disarmed by 0", 0, count);
	lapic_write(LAPIC_TMICT, 1000); /* ignored in this mode */
	delay_us(5000);
	expect("initial count does nothing", 0, count);
	irq_disable();
	lapic_write(LAPIC_LVTT, BIT(16));
	test_end();
}

/* ---- x2APIC
 * -------------------------------------------------------------------------------------------------
 */

SNIPPET(rdmsr_insn, "rdmsr");
SNIPPET(wrmsr_insn, "wrmsr");

static struct ctx try_wrmsr(u32 msr, u64 v)
{
	struct ctx c = ctx_kernel(wrmsr_insn);

	c.gpr[RCX] = msr;
	c.gpr[RAX] = (u32)v;
	c.gpr[RDX] = v >> 32;
	exec(&c);
	return c;
}

static void test_x2apic(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);
	struct ctx c;

	if (!(cpuid(1, 0).c & BIT(21))) {
		test_skip("system: x2APIC", "not advertised");
		return;
	}
	test_begin("system: x2APIC");
	c = ctx_kernel(rdmsr_insn);
	c.gpr[RCX] = 0x802;
	exec(&c);
	expect_trap(&c, GP, 0); /* in xAPIC mode the MSRs are not there (11.12.1.2) */
	wrmsr(MSR_APIC_BASE, base | BIT(10));
	expect("id", this_cpu()->apic_id, rdmsr(0x802));
	expect("logical id",
	       (u64)(this_cpu()->apic_id >> 4) << 16 | 1ull << (this_cpu()->apic_id & 15),
	       rdmsr(0x80d));
	wrmsr(0x808, 0x20);
	expect("TPR", 2, read_cr8());
	wrmsr(0x808, 0);
	c = try_wrmsr(0x802, 0); /* read-only */
	expect_trap(&c, GP, 0);
	c = try_wrmsr(0x80e, 0); /* DFR: not there */
	expect_trap(&c, GP, 0);
	c = try_wrmsr(0x80b, 1); /* EOI: only 0 */
	expect_trap(&c, GP, 0);
	c = try_wrmsr(MSR_APIC_BASE, base & ~BIT(10)); /* x2APIC to xAPIC: only through off */
	expect_trap(&c, GP, 0);
	/* Self IPI (MSR 83Fh): pending in IRR, taken by exec() as an unexpected vector. */
	wrmsr(0x83f, 0x62);
	expect("IRR", 4, rdmsr(0x823) & 4);
	c = ctx_kernel(sti_inc);
	exec(&c);
	expect_trap(&c, 0x62, NO_ERROR);
	wrmsr(0x80b, 0);
	expect("ISR after EOI", 0, rdmsr(0x813));
	wrmsr(0x830, (u64)this_cpu()->apic_id << 32 | ICR_FIXED | ICR_ASSERT | 0x63);
	c = ctx_kernel(sti_inc);
	exec(&c);
	expect_trap(&c, 0x63, NO_ERROR);
	wrmsr(0x80b, 0);
	wrmsr(MSR_APIC_BASE, base & ~(BIT(10) | BIT(11)));
	expect("APIC bit of CPUID while disabled", 0, cpuid(1, 0).d & BIT(9));
	wrmsr(MSR_APIC_BASE, base);
	lapic_enable();
	expect("xAPIC again", this_cpu()->apic_id, lapic_read(LAPIC_ID) >> 24);
	test_end();
}

void test_apic(void)
{
	test_lapic_timer();
	test_x2apic();
}
