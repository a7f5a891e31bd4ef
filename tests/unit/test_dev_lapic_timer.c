/* The APIC timer: one-shot, periodic, TSC-deadline, divider, masking (SDM vol. 3A 11.5.4). */
#include "tests/unit/dev_apic.h"

#define NS_PER_TICK 40 /* of TIMER_HZ */

static struct dev_apics a;

static void start(void)
{
	apics_start(&a, 2);
	enable(&a, 0);
	enable(&a, 1);
	wr(&a, 0, R_TDCR, 0x0b); /* divide by 1 */
}

static void test_divider(void)
{
	static const uint8_t code[8] = {0x0b, 0x00, 0x01, 0x02, 0x03, 0x08, 0x09, 0x0a};

	start();
	wr(&a, 0, R_TIMER, 0x60);
	for (unsigned i = 0; i < 8; i++) {
		uint64_t ns = 1000ULL * (1u << i) * NS_PER_TICK;

		wr(&a, 0, R_TDCR, code[i]);
		CHECK_EQ(rd(&a, 0, R_TDCR), code[i]);
		wr(&a, 0, R_TMICT, 1000);
		dev_advance(&a.w, ns / 2);
		CHECK_EQ(rd(&a, 0, R_TMCCT), 500);
		dev_advance(&a.w, ns / 2 - 1);
		CHECK_EQ(rd(&a, 0, R_TMCCT), 1);
		CHECK_EQ(take(&a, 0), -1);
		dev_advance(&a.w, 1);
		CHECK_EQ(take(&a, 0), 0x60);
		CHECK_EQ(rd(&a, 0, R_TMCCT), 0);
		CHECK_EQ(rd(&a, 0, R_TMICT), 1000);
		CHECK_EQ(dev_advance(&a.w, 10 * ns), 0);
	}
	/* Changed on the way: the count stays, its rate changes. */
	wr(&a, 0, R_TDCR, 0x0b);
	wr(&a, 0, R_TMICT, 1000);
	dev_advance(&a.w, 400 * NS_PER_TICK);
	wr(&a, 0, R_TDCR, 0x00);
	CHECK_EQ(rd(&a, 0, R_TMCCT), 600);
	dev_advance(&a.w, 1199 * NS_PER_TICK);
	CHECK_EQ(take(&a, 0), -1);
	dev_advance(&a.w, NS_PER_TICK);
	CHECK_EQ(take(&a, 0), 0x60);
	apics_stop(&a);
}

static void test_periodic(void)
{
	unsigned n = 0;

	start();
	wr(&a, 0, R_TIMER, 0x20060);
	wr(&a, 0, R_TMICT, 100000); /* 4 ms */
	for (unsigned i = 0; i < 250; i++) {
		dev_advance(&a.w, 4000000);
		n += take(&a, 0) == 0x60;
	}
	CHECK_EQ(n, 250);
	dev_advance(&a.w, 1000000);
	CHECK_EQ(rd(&a, 0, R_TMCCT), 75000);
	/* The event loop was away for 10 periods: one interrupt, and the phase is kept. */
	a.w.now += 40000000;
	CHECK_EQ(dev_advance(&a.w, 0), 1);
	CHECK_EQ(take(&a, 0), 0x60);
	CHECK_EQ(take(&a, 0), -1);
	CHECK_EQ(rd(&a, 0, R_TMCCT), 75000);
	CHECK_EQ(dev_advance(&a.w, 2999999), 0);
	CHECK_EQ(dev_advance(&a.w, 1), 1);
	CHECK_EQ(take(&a, 0), 0x60);
	/* Masked: counts, says nothing. One-shot: ends after this period. */
	wr(&a, 0, R_TIMER, 0x30060);
	dev_advance(&a.w, 4000000);
	CHECK_EQ(take(&a, 0), -1);
	wr(&a, 0, R_TIMER, 0x00060);
	dev_advance(&a.w, 4000000);
	CHECK_EQ(take(&a, 0), 0x60);
	CHECK_EQ(dev_advance(&a.w, 40000000), 0);
	wr(&a, 0, R_TMICT, 0);
	CHECK_EQ(dev_next_deadline(&a.w), 0);
	/* A hostile rate does not keep the event loop busy; the count is still exact. */
	wr(&a, 0, R_TIMER, 0x20060);
	wr(&a, 0, R_TMICT, 7);
	CHECK(dev_advance(&a.w, 10000000) <= 502);
	CHECK_EQ(take(&a, 0), 0x60);
	for (unsigned i = 0; i < 20; i++, a.w.now += 33)
		CHECK(rd(&a, 0, R_TMCCT) - 1 < 7);
	apics_stop(&a);
}

static uint64_t tsc(void)
{
	return dev_tsc_read(&a.cpus, 0);
}

static void test_deadline(void)
{
	start();
	CHECK_EQ(wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000), HANDLED);
	CHECK_EQ(rdmsr(&a, 0, MSR_DEADLINE), 0); /* not in that mode */
	CHECK_EQ(dev_next_deadline(&a.w), 0);
	wr(&a, 0, R_TIMER, 0x400ec);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 100000);
	CHECK_EQ(rdmsr(&a, 0, MSR_DEADLINE), tsc() + 100000);
	dev_advance(&a.w, 49999);
	CHECK_EQ(take(&a, 0), -1);
	dev_advance(&a.w, 1);
	CHECK_EQ(take(&a, 0), 0xec);
	CHECK_EQ(rdmsr(&a, 0, MSR_DEADLINE), 0);
	/* In the past: at once, without the timer. */
	wrmsr(&a, 0, MSR_DEADLINE, tsc() - 1);
	CHECK_EQ(dev_next_deadline(&a.w), 0);
	CHECK_EQ(take(&a, 0), 0xec);
	wrmsr(&a, 0, MSR_DEADLINE, 1);
	CHECK_EQ(take(&a, 0), 0xec);
	/* Disarmed, moved. */
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	wrmsr(&a, 0, MSR_DEADLINE, 0);
	CHECK_EQ(dev_advance(&a.w, 10000), 0);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 3000);
	CHECK_EQ(dev_advance(&a.w, 1499), 0);
	dev_advance(&a.w, 1);
	CHECK_EQ(take(&a, 0), 0xec);
	/* The count registers are dead in this mode. */
	wr(&a, 0, R_TMICT, 100);
	CHECK_EQ(rd(&a, 0, R_TMICT), 0);
	CHECK_EQ(rd(&a, 0, R_TMCCT), 0);
	/* Leaving the mode disarms. */
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	wr(&a, 0, R_TIMER, 0x000ec);
	CHECK_EQ(dev_next_deadline(&a.w), 0);
	CHECK_EQ(rdmsr(&a, 0, MSR_DEADLINE), 0);
	wr(&a, 0, R_TMICT, 100);
	wr(&a, 0, R_TIMER, 0x400ec);
	CHECK_EQ(dev_next_deadline(&a.w), 0);
	/* Mode 11b is reserved: nothing runs. */
	wr(&a, 0, R_TIMER, 0x600ec);
	wr(&a, 0, R_TMICT, 100);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	CHECK_EQ(dev_next_deadline(&a.w), 0);
	/* Masked while armed: the deadline passes silently. */
	wr(&a, 0, R_TIMER, 0x500ec);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	dev_advance(&a.w, 1000);
	CHECK_EQ(take(&a, 0), -1);
	CHECK_EQ(rdmsr(&a, 0, MSR_DEADLINE), 0);
	apics_stop(&a);
}

static void test_tsc_moved(void)
{
	start();
	wr(&a, 0, R_TIMER, 0x400ec);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 100000);
	a.cpus.tsc_offset += 60000;
	lapic_tsc_changed(a.lapic, 0);
	dev_advance(&a.w, 20000);
	CHECK_EQ(take(&a, 0), 0xec);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	a.cpus.tsc_offset += 5000; /* beyond */
	lapic_tsc_changed(a.lapic, 0);
	CHECK_EQ(take(&a, 0), 0xec);
	lapic_tsc_changed(a.lapic, 0); /* nothing armed */
	CHECK_EQ(take(&a, 0), -1);
	a.cpus.tsc_offset = UINT64_MAX - 1000000; /* about to wrap */
	wrmsr(&a, 0, MSR_DEADLINE, UINT64_MAX);
	dev_advance(&a.w, 1000000);
	take(&a, 0);
	apics_stop(&a);
}

/* A callback that comes late or once too often changes nothing. */
static void test_stale_callback(void)
{
	start();
	wr(&a, 0, R_TIMER, 0x400ec);
	for (unsigned i = 0; i < DEV_TIMERS; i++)
		if (a.w.timer[i].fn)
			a.w.timer[i].fn(a.w.timer[i].arg);
	CHECK_EQ(take(&a, 0), -1);
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	for (unsigned i = 0; i < DEV_TIMERS; i++) {
		a.w.timer[i].deadline = 0;
		if (a.w.timer[i].fn)
			a.w.timer[i].fn(a.w.timer[i].arg);
	}
	CHECK_EQ(take(&a, 0), -1);
	dev_advance(&a.w, 500); /* an early one has armed it again */
	CHECK_EQ(take(&a, 0), 0xec);

	/* The event loop is late: whoever looks sees it all the same, once. */
	wrmsr(&a, 0, MSR_DEADLINE, tsc() + 1000);
	a.w.now += 600;
	CHECK_EQ(rdmsr(&a, 0, MSR_DEADLINE), 0);
	CHECK_EQ(take(&a, 0), 0xec);
	CHECK_EQ(dev_advance(&a.w, 1000), 0);
	wr(&a, 0, R_TIMER, 0x00060);
	wr(&a, 0, R_TMICT, 100);
	a.w.now += 5000;
	CHECK_EQ(rd(&a, 0, R_IRR + 0x30), 1);
	CHECK_EQ(take(&a, 0), 0x60);
	wr(&a, 0, R_TMICT, 100);
	a.w.now += 5000;
	CHECK_EQ(rd(&a, 0, R_TMCCT), 0);
	CHECK_EQ(take(&a, 0), 0x60);
	apics_stop(&a);
}

int main(void)
{
	test_divider();
	test_periodic();
	test_deadline();
	test_tsc_moved();
	test_stale_callback();
	return dev_result("lapic timer");
}
