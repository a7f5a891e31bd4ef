/* MC146818: the calendar against libc, set and read, flags, alarm, periodic interrupt, state. */
#include <time.h>

#include "devices/rtc_time.h"
#include "tests/unit/dev_util.h"

enum { SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WDAY, MDAY, MON, YEAR, A, B, C, D };

static struct dev_world w;
static struct dev_wire irq;
static struct device *dev;

static void start(void)
{
	dev_world_init(&w);
	irq = (struct dev_wire){0};
	CHECK_EQ(rtc_cmos_create(&dev, &w.ports, dev_wire_line(&irq, 0), &w.clock, &w.timers), 0);
}

static void stop(void)
{
	dev->ops->destroy(dev);
	CHECK_EQ(w.ports.count, 0);
	dev_world_free(&w);
}

static uint8_t get(unsigned index)
{
	dev_out(&w, 0x70, index | 0x80); /* with the NMI mask that Linux keeps there */
	return dev_in(&w, 0x71);
}

static void put(unsigned index, unsigned value)
{
	dev_out(&w, 0x70, index);
	dev_out(&w, 0x71, value);
}

static void test_calendar(void)
{
	uint8_t regs[128] = {0};
	uint64_t seed = 9;

	for (unsigned i = 0; i < 20000; i++) {
		/* 1970 to 9999, each in one of the four encodings */
		time_t t = (time_t)(dev_random(&seed) % 253402300800ULL);
		uint8_t b = (uint8_t)(dev_random(&seed) & 0x06);
		struct tm tm;

		gmtime_r(&t, &tm);
		rtc_time_encode(t, regs, b);
		CHECK_EQ(rtc_time_decode(regs, b), t);
		if (b == 0x06) {
			CHECK(regs[SEC] == tm.tm_sec && regs[MIN] == tm.tm_min &&
			      regs[HOUR] == tm.tm_hour && regs[MDAY] == tm.tm_mday &&
			      regs[MON] == tm.tm_mon + 1 && regs[WDAY] == tm.tm_wday + 1);
			CHECK_EQ(regs[0x32] * 100 + regs[YEAR], tm.tm_year + 1900);
		}
	}
	/* Noise decodes to something that encodes again. */
	for (unsigned i = 0; i < 20000; i++) {
		for (unsigned n = 0; n < 128; n++)
			regs[n] = (uint8_t)dev_random(&seed);
		rtc_time_encode(rtc_time_decode(regs, regs[B]), regs, regs[B]);
		rtc_alarm_next((int64_t)(dev_random(&seed) % 1000000000), regs, regs[B]);
	}
	rtc_time_encode(1700000000, regs, 0); /* 2023-11-14 22:13:20, a Tuesday */
	CHECK_EQ(regs[HOUR], 0x90);	      /* 10 PM */
	rtc_time_encode(1700000000 + 2 * 3600, regs, 0);
	CHECK_EQ(regs[HOUR], 0x12); /* 12 AM */
	CHECK_EQ(regs[WDAY], 4);
}

static void test_read_and_set(void)
{
	start();
	CHECK_EQ(get(D), 0x80);
	CHECK_EQ(get(A), 0x26);
	CHECK_EQ(get(B), 0x02);
	CHECK_EQ(get(YEAR), 0x23);
	CHECK_EQ(get(0x32), 0x20);
	CHECK_EQ(get(MON), 0x11);
	CHECK_EQ(get(MDAY), 0x14);
	CHECK_EQ(get(HOUR), 0x22);
	CHECK_EQ(get(MIN), 0x13);
	CHECK_EQ(get(SEC), 0x20);
	w.now += 41 * NS_PER_S;
	CHECK_EQ(get(MIN), 0x14);
	CHECK_EQ(get(SEC), 0x01);

	/* mc146818_set_time(): SET, divider reset, registers, back. The second begins half one
	 * later. */
	put(B, 0x82);
	put(A, 0x76);
	put(YEAR, 0x24);
	put(MON, 0x02);
	put(MDAY, 0x28);
	put(HOUR, 0x23);
	put(MIN, 0x59);
	put(SEC, 0x59);
	w.now += 100 * NS_PER_S;
	CHECK_EQ(get(SEC), 0x59); /* held */
	put(B, 0x02);
	put(A, 0x26);
	CHECK_EQ(get(SEC), 0x59);
	w.now += NS_PER_S / 2 - 1000;
	CHECK_EQ(get(SEC), 0x59);
	w.now += 2000;
	CHECK_EQ(get(SEC), 0x00);
	CHECK_EQ(get(MDAY), 0x29); /* a leap year */
	w.now += 86400 * NS_PER_S;
	CHECK_EQ(get(MDAY), 0x01);
	CHECK_EQ(get(MON), 0x03);
	/* The wall clock stepped (the VM was asleep): the guest's clock follows, with its offset.
	 */
	w.wall += 3600;
	get(B);
	w.now += NS_PER_S;
	CHECK_EQ(get(HOUR), 0x01);
	stop();
}

static void test_cmos(void)
{
	start();
	for (unsigned i = 14; i < 128; i++)
		if (i != 0x32)
			put(i, i ^ 0xa5);
	put(B, 0x7a);
	dev_advance(&w, NS_PER_S);
	CHECK(irq.level);
	dev->ops->reset(dev);
	CHECK_EQ(get(B), 0x02); /* what can interrupt is off */
	CHECK(!irq.level);
	CHECK_EQ(dev_next_deadline(&w), 0);
	for (unsigned i = 14; i < 128; i++)
		if (i != 0x32)
			CHECK_EQ(get(i), i ^ 0xa5); /* the battery keeps it */
	CHECK_EQ(dev_in(&w, 0x70), 0xff);
	stop();
}

/* UIP is high before each update, and the time never changes while it was seen low within 244 us.
 */
static void test_uip(void)
{
	unsigned seen = 0;
	uint8_t sec;

	start();
	sec = get(SEC);
	for (unsigned i = 0; i < 30000; i++) {
		bool uip = get(A) & 0x80;

		seen += uip;
		w.now += 100000;
		if (get(SEC) != sec) {
			CHECK(uip);
			sec = get(SEC);
		}
	}
	CHECK(seen >= 6 && seen <= 12);
	stop();
}

static void test_update_interrupt(void)
{
	start();
	CHECK_EQ(get(C), 0);
	w.now += NS_PER_S;
	CHECK_EQ(get(C) & 0x10, 0x10); /* the flag comes without the interrupt too */
	CHECK_EQ(dev_next_deadline(&w), 0);
	put(B, 0x12);
	CHECK(dev_next_deadline(&w));
	dev_advance(&w, 5 * NS_PER_S);
	CHECK_EQ(irq.rises, 1); /* nobody read C */
	CHECK(irq.level);
	CHECK_EQ(get(C), 0x80 | 0x50); /* UF, and PF as the divider runs */
	CHECK(!irq.level);
	CHECK_EQ(get(C), 0);
	dev_advance(&w, NS_PER_S);
	CHECK_EQ(irq.rises, 2);
	put(B, 0x92); /* SET clears UIE */
	CHECK_EQ(get(B), 0x82);
	stop();
}

static void test_periodic(void)
{
	start();
	put(B, 0x42); /* 1024 Hz */
	get(C);
	for (unsigned i = 0; i < 1024; i++) {
		uint64_t next = dev_next_deadline(&w);

		CHECK(next > w.now && next - w.now <= 976563);
		dev_advance_to(&w, next);
		CHECK(irq.level);
		CHECK_EQ(get(C) & 0xc0, 0xc0);
	}
	CHECK(irq.rises == 1024 && w.now > 999000000 && w.now < 1001000000);
	put(A, 0x21); /* rate 1: 256 Hz */
	irq.rises = 0;
	for (uint64_t end = w.now + NS_PER_S; w.now < end;) {
		dev_advance_to(&w, dev_next_deadline(&w));
		get(C);
	}
	CHECK(irq.rises >= 256 && irq.rises <= 257);
	put(A, 0x20);
	CHECK_EQ(dev_next_deadline(&w), 0);
	stop();
}

static void test_alarm(void)
{
	uint64_t t;

	start();
	/* 22:13:20 now; at 22:15:00 */
	put(HOUR_ALARM, 0x22);
	put(MIN_ALARM, 0x15);
	put(SEC_ALARM, 0x00);
	put(B, 0x22);
	t = w.now;
	dev_advance(&w, 99 * NS_PER_S);
	CHECK(!irq.level);
	dev_advance_to(&w, t + 100 * NS_PER_S);
	CHECK(irq.level);
	CHECK_EQ(get(C) & 0xa0, 0xa0);
	dev_advance(&w, 86399 * NS_PER_S);
	CHECK(!irq.level);
	dev_advance(&w, NS_PER_S);
	CHECK(irq.level); /* the next day again */
	get(C);
	put(HOUR_ALARM, 0xff); /* every hour, every minute, at second 30 */
	put(MIN_ALARM, 0xc0);
	put(SEC_ALARM, 0x30);
	irq.rises = 0;
	for (unsigned i = 0; i < 10; i++) {
		dev_advance(&w, 60 * NS_PER_S);
		get(C);
	}
	CHECK_EQ(irq.rises, 10);
	put(SEC_ALARM, 0x77); /* never */
	dev_advance(&w, 200000 * NS_PER_S);
	CHECK(!irq.level);
	CHECK_EQ(dev_next_deadline(&w), 0);
	stop();
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	for (unsigned i = 0; i < 40; i++) {
		dev_out(&w, 0x70, (unsigned)(dev_random(seed) % 16 ? dev_random(seed) % 14 : 0x32));
		if (dev_random(seed) & 1)
			dev_out(&w, 0x71, (unsigned)dev_random(seed) & 0xff);
		dev_in(&w, 0x71);
		dev_advance(&w, dev_random(seed) % (NS_PER_S / 8));
	}
	dev_poke(&w.ports, 0x6f, 4, 4, seed, 20);
}

static void test_state(void)
{
	struct dev_wire irq2 = {0};
	struct io_space ports2 = {0};
	struct device *to;
	uint64_t seed = 5;
	char err[128];

	start();
	CHECK_EQ(field_check(dev->state, err, sizeof(err)), 0);
	CHECK_EQ(rtc_cmos_create(&to, &ports2, dev_wire_line(&irq2, 0), &w.clock, &w.timers), 0);
	put(HOUR, 0x05); /* an offset of its own */
	put(SEC_ALARM, 0xff);
	put(MIN_ALARM, 0xff);
	put(HOUR_ALARM, 0xff);
	w.now += 123456789;
	put(B, 0x22);
	get(C);
	dev_move(dev, to);
	irq2.rises = irq.rises = 0;
	dev_advance(&w, NS_PER_S);
	CHECK_EQ(irq.rises, 1);
	CHECK_EQ(irq2.rises, 1);
	for (unsigned i = 0; i < 128; i++) {
		io_space_write(&ports2, 0, 0x70, 1, i);
		CHECK_EQ(io_space_read(&ports2, 0, 0x71, 1), get(i));
	}
	for (unsigned i = 0; i < 100; i++)
		poke(NULL, &seed);
	printf("rtc-cmos: %u of 500 damaged states refused\n",
	       dev_corrupt(to, dev, 500, poke, NULL));
	to->ops->destroy(to);
	io_space_free(&ports2);
	stop();
}

int main(void)
{
	test_calendar();
	test_read_and_set();
	test_cmos();
	test_uip();
	test_update_interrupt();
	test_periodic();
	test_alarm();
	test_state();
	return dev_result("rtc_cmos");
}
