/* TSC, RTC, ACPI PM timer. */
#include "system.h"

/* ---- TSC
 * --------------------------------------------------------------------------------------------- */

static void test_tsc(void)
{
	u64 last = rdtsc(), t;
	u32 back = 0, same = 0;

	test_begin("system: the TSC grows");
	for (u32 i = 0; i < 20000; i++) {
		t = rdtsc();
		back += t < last;
		same += t == last;
		last = t;
	}
	expect("backwards", 0, back);
	expect("stands still", true, same < 20000);
	test_end();

	test_begin("system: WRMSR of the TSC, TSC_ADJUST");
	t = rdmsr(MSR_TSC);
	expect("MSR and RDTSC agree", true, rdtsc() - t < tsc_hz() * 10);
	wrmsr(MSR_TSC, 0x1000000000000);
	t = rdtsc();
	expect("written", true, t >= 0x1000000000000 && t - 0x1000000000000 < tsc_hz() * 60);
	if (cpuid(0, 0).a >= 7 && (cpuid(7, 0).b & BIT(1))) {
		u64 adj = rdmsr(MSR_TSC_ADJUST), before;

		/* 18.17.3: a write of the TSC moves TSC_ADJUST by the same; a write of TSC_ADJUST
		 * moves the TSC. */
		expect("moved along", true, adj != 0);
		before = rdtsc();
		wrmsr(MSR_TSC_ADJUST, adj + 0x100000000000);
		t = rdtsc() - before;
		expect("TSC moved", true,
		       t >= 0x100000000000 && t - 0x100000000000 < tsc_hz() * 60);
		expect("reads back", adj + 0x100000000000, rdmsr(MSR_TSC_ADJUST));
		wrmsr(MSR_TSC_ADJUST, 0);
		expect("back to the start", true, rdtsc() < 0x1000000000000);
	} else {
		wrmsr(MSR_TSC, t - 0x1000000000000);
	}
	test_end();

	if (cpuid(0x80000001, 0).d & BIT(27)) {
		u32 lo, hi, aux;

		test_begin("system: RDTSCP and TSC_AUX");
		wrmsr(MSR_TSC_AUX, 0x12345678);
		asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		expect("aux", 0x12345678, aux);
		expect("time", true, rdtsc() - ((u64)hi << 32 | lo) < tsc_hz() * 10);
		wrmsr(MSR_TSC_AUX, 0);
		test_end();
	} else {
		test_skip("system: RDTSCP and TSC_AUX", "no RDTSCP");
	}
}

/* ---- RTC, PM timer
 * ------------------------------------------------------------------------------------------ */

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static u32 bcd(u8 v)
{
	return (v >> 4) * 10u + (v & 15);
}

static void test_rtc(void)
{
	u8 s, first;
	u64 t0, t = rdtsc(), limit;

	test_begin("system: RTC");
	while (cmos(0x0a) & 0x80)
		;
	bool binary = cmos(0x0b) & 4;

#define FIELD(r) (binary ? cmos(r) : bcd(cmos(r)))
	expect("valid RAM and time", 0x80, cmos(0x0d) & 0x80);
	expect("seconds", true, FIELD(0) < 60);
	expect("minutes", true, FIELD(2) < 60);
	expect("day", true, FIELD(7) >= 1 && FIELD(7) <= 31);
	expect("month", true, FIELD(8) >= 1 && FIELD(8) <= 12);
	/* A second begins after the last look at the one before it: nothing below 0.9 s can be
	 * right, late is possible. */
	s = cmos(0);
	limit = rdtsc() + 10 * tsc_hz();
	do {
		t0 = t;
		t = rdtsc();
		first = cmos(0);
	} while (first == s && t < limit);
	while (cmos(0) == first && rdtsc() < limit)
		;
	t = rdtsc() - t0;
	test_context("second of %lu thousandths", t / (tsc_hz() / 1000));
	expect("a second", true, t >= tsc_hz() / 100 * 90 && rdtsc() < limit);
	test_context(NULL);
	test_end();
}

/* PM_TMR_BLK of the FADT; the RSDP lies between 0xe0000 and 0xfffff (ACPI 5.2.5.1). */
static u16 pm_timer_port(void)
{
	for (u64 a = 0xe0000; a < 0x100000; a += 16) {
		const u8 *rsdt;
		u32 n;

		if (memcmp((void *)a, "RSD PTR ", 8))
			continue;
		rsdt = (const u8 *)(u64) * (const u32 *)(a + 16);
		n = (*(const u32 *)(rsdt + 4) - 36) / 4;
		for (u32 i = 0; i < n; i++) {
			const u8 *t = (const u8 *)(u64) * (const u32 *)(rsdt + 36 + 4 * i);

			if (!memcmp(t, "FACP", 4))
				return (u16) * (const u32 *)(t + 76);
		}
	}
	return 0;
}

static u16 pm_port;

static u32 read_pm_timer(void)
{
	return inl(pm_port);
}

static void test_pm_timer(void)
{
	u16 port = pm_port = pm_timer_port();
	u32 a, b, back = 0, last;
	u64 t0, t, want;

	if (!port) {
		test_skip("system: ACPI PM timer", "no ACPI tables found");
		return;
	}
	test_begin("system: ACPI PM timer at 3.579545 MHz");
	last = inl(port) & 0xffffff;
	for (u32 i = 0; i < 1000; i++) {
		u32 v = inl(port) & 0xffffff;

		back += ((v - last) & 0xffffff) > 0x800000;
		last = v;
	}
	expect("backwards", 0, back);
	t0 = sample(read_pm_timer, &a);
	delay_us(200000);
	t = sample(read_pm_timer, &b) - t0;
	want = t * 3579545ull / tsc_hz();
	test_context("%u ticks, %lu by the TSC", (b - a) & 0xffffff, want & 0xffffff);
	expect("rate", true, about(want, (b - a) & 0xffffff, 2) || t > 4 * tsc_hz());
	test_context(NULL);
	test_end();
}

void test_clocks(void)
{
	test_tsc();
	test_rtc();
	test_pm_timer();
}
