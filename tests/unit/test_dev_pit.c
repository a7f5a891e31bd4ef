/* i8254: modes, latches, port 61h, what Linux's calibration sees, state. */
#include "tests/unit/dev_util.h"

#define HZ 1193182ULL

static struct dev_world w;
static struct dev_wire irq;
static struct device *dev;

static void start(void)
{
	dev_world_init(&w);
	irq = (struct dev_wire){0};
	CHECK_EQ(pit_create(&dev, &w.ports, dev_wire_line(&irq, 0), &w.clock, &w.timers), 0);
}

static void stop(void)
{
	dev->ops->destroy(dev);
	CHECK_EQ(w.ports.count, 0);
	CHECK_EQ(dev_next_deadline(&w), 0);
	dev_world_free(&w);
}

/* ns in which n ticks have passed, and not one more */
static uint64_t ns_of(uint64_t ticks)
{
	return (ticks * NS_PER_S + HZ - 1) / HZ;
}

static unsigned read16(unsigned ch)
{
	unsigned low = dev_in(&w, (uint16_t)(0x40 + ch));

	return low | (unsigned)dev_in(&w, (uint16_t)(0x40 + ch)) << 8;
}

static unsigned latched(unsigned ch)
{
	dev_out(&w, 0x43, ch << 6);
	return read16(ch);
}

static unsigned status(unsigned ch)
{
	dev_out(&w, 0x43, 0xe0 | 2u << ch);
	return dev_in(&w, (uint16_t)(0x40 + ch));
}

static void load(unsigned ch, unsigned mode, unsigned count)
{
	dev_out(&w, 0x43, ch << 6 | 0x30 | mode << 1);
	dev_out(&w, (uint16_t)(0x40 + ch), count & 0xff);
	dev_out(&w, (uint16_t)(0x40 + ch), count >> 8);
}

static void test_periodic(void)
{
	for (unsigned mode = 2; mode <= 3; mode++) {
		start();
		load(0, mode, 11932);			 /* 100 Hz */
		CHECK_EQ(dev_advance(&w, NS_PER_S), 99); /* a little less than 100 Hz */
		CHECK_EQ(irq.rises, 1 + 99);		 /* OUT goes high with the control word */
		CHECK_EQ(dev_advance(&w, 9 * NS_PER_S), 999 - 99);
		stop();
	}
}

/* Linux's one-shot mode: the tick device in mode 4, then shutdown. */
static void test_oneshot(void)
{
	start();
	dev_out(&w, 0x43, 0x38);
	CHECK(irq.level); /* OUT is high in mode 4 */
	irq.rises = 0;
	dev_out(&w, 0x40, 1000 & 0xff);
	dev_out(&w, 0x40, 1000 >> 8);
	CHECK_EQ(dev_advance(&w, ns_of(1000)), 0);
	CHECK_EQ(status(0) & 0x80, 0); /* the strobe lasts one tick */
	CHECK_EQ(dev_advance(&w, 2 * NS_PER_S), 1);
	CHECK_EQ(irq.rises, 1);
	load(0, 0, 0); /* pit_shutdown: fires once more after 55 ms */
	CHECK(!irq.level);
	CHECK_EQ(dev_advance(&w, 2 * NS_PER_S), 1);
	CHECK(irq.level);
	stop();
}

static void test_mode0(void)
{
	start();
	dev_out(&w, 0x61, 1);
	load(2, 0, 1000);
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0);
	w.now += ns_of(10);
	CHECK_EQ(latched(2), 990);
	dev_out(&w, 0x61, 0); /* the gate stops it */
	w.now += ns_of(5000);
	CHECK_EQ(latched(2), 990);
	dev_out(&w, 0x61, 1);
	w.now += ns_of(989);
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0);
	w.now += ns_of(2);
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0x20);
	w.now += ns_of(9);
	CHECK(latched(2) > 65500); /* goes on below 0 */
	dev_out(&w, 0x42, 0x10);   /* the first byte of a new count stops it and lowers OUT */
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0);
	CHECK_EQ(status(2) & 0xc0, 0x40);
	dev_out(&w, 0x42, 0);
	w.now += ns_of(0x10);
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0x20);
	CHECK_EQ(status(2), 0x80 | 0x30);
	stop();
}

/* quick_pit_calibrate(): the high byte counts down every 256 ticks; reads are low byte, high byte.
 */
static void test_quick_calibrate(void)
{
	unsigned msb = 0xff, changes = 0;
	uint64_t since;

	start();
	dev_out(&w, 0x61, 1);
	dev_out(&w, 0x43, 0xb0);
	dev_out(&w, 0x42, 0xff);
	dev_out(&w, 0x42, 0xff);
	since = w.now;
	for (unsigned i = 0; i < 20000; i++) {
		w.now += 1000;
		dev_in(&w, 0x42);
		unsigned now = dev_in(&w, 0x42);

		if (now == msb)
			continue;
		CHECK_EQ(now, msb - 1);
		msb = now;
		changes++;
	}
	CHECK_EQ(changes, (w.now - since) * HZ / NS_PER_S / 256);
	stop();
}

/* pit_calibrate_tsc(): mode 0 on channel 2, the time until OUT 2 rises. */
static void test_calibrate(void)
{
	const unsigned latch = HZ / (1000 / 50);
	uint64_t t;

	start();
	dev_out(&w, 0x61, (dev_in(&w, 0x61) & ~0x02u) | 1);
	dev_out(&w, 0x43, 0xb0);
	dev_out(&w, 0x42, latch & 0xff);
	dev_out(&w, 0x42, latch >> 8);
	t = w.now;
	while (!(dev_in(&w, 0x61) & 0x20))
		w.now += 500;
	t = w.now - t;
	CHECK(t > 49990000 && t < 50010000);
	stop();
}

static void test_square_wave(void)
{
	start();
	dev_out(&w, 0x61, 1);
	load(2, 3, 100);
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0x20);
	w.now += ns_of(10);
	CHECK_EQ(latched(2), 80); /* by twos */
	w.now += ns_of(41);
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0);
	dev_out(&w, 0x61, 0); /* gate low: OUT high */
	CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0x20);
	dev_out(&w, 0x61, 1); /* rising gate: reloads */
	CHECK_EQ(latched(2), 100);

	load(2, 2, 5);
	for (unsigned i = 0, low = 0; i < 5; i++, w.now += ns_of(1)) {
		low += !(dev_in(&w, 0x61) & 0x20);
		CHECK_EQ(low, i == 4);
	}
	stop();
}

static void test_hardware_triggered(void)
{
	start();
	for (unsigned mode = 1; mode <= 5; mode += 4) {
		dev_out(&w, 0x61, 0);
		load(2, mode, 50);
		w.now += ns_of(100);
		CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0x20); /* waits for the gate */
		dev_out(&w, 0x61, 1);
		w.now += ns_of(10);
		CHECK_EQ(latched(2), 40);
		CHECK_EQ(dev_in(&w, 0x61) & 0x20, mode == 1 ? 0 : 0x20);
		dev_out(&w, 0x61, 0);
		dev_out(&w, 0x61, 1); /* again */
		w.now += ns_of(49);
		CHECK_EQ(dev_in(&w, 0x61) & 0x20, mode == 1 ? 0 : 0x20);
		w.now += ns_of(1);
		CHECK_EQ(dev_in(&w, 0x61) & 0x20, mode == 1 ? 0x20 : 0);
		w.now += ns_of(2);
		CHECK_EQ(dev_in(&w, 0x61) & 0x20, 0x20);
	}
	stop();
}

static void test_access(void)
{
	start();
	/* Low byte only, high byte only. */
	dev_out(&w, 0x43, 0x90 | 4);
	dev_out(&w, 0x42, 200);
	dev_out(&w, 0x61, 1);
	CHECK_EQ(dev_in(&w, 0x42), 200);
	CHECK_EQ(dev_in(&w, 0x42), 200);
	dev_out(&w, 0x43, 0xa0 | 4);
	dev_out(&w, 0x42, 2);
	CHECK_EQ(dev_in(&w, 0x42), 2);
	/* A latched count stays until it is read, whatever happens meanwhile. */
	load(2, 2, 1000);
	w.now += ns_of(100);
	dev_out(&w, 0x43, 0x80);
	w.now += ns_of(100);
	dev_out(&w, 0x43, 0x80); /* ignored */
	CHECK_EQ(read16(2), 900);
	CHECK_EQ(read16(2), 800);
	/* Read-back of count and status: the status comes first. */
	dev_out(&w, 0x43, 0xc0 | 8);
	CHECK_EQ(dev_in(&w, 0x42), 0x80 | 0x34);
	CHECK_EQ(read16(2), 800);
	/* BCD */
	dev_out(&w, 0x43, 0xb5);
	dev_out(&w, 0x42, 0x00);
	dev_out(&w, 0x42, 0x10);
	w.now += ns_of(1);
	CHECK_EQ(latched(2), 0x999);
	dev_out(&w, 0x43, 0xb1);
	dev_out(&w, 0x42, 0);
	dev_out(&w, 0x42, 0); /* 10000 */
	w.now += ns_of(1);
	CHECK_EQ(latched(2), 0x9999);
	CHECK_EQ(dev_in(&w, 0x43), 0); /* can't be read */
	stop();
}

/* A count of 1 in mode 2 would be 1.2 million timers per second. */
static void test_hostile_rate(void)
{
	start();
	load(0, 2, 1);
	CHECK(dev_advance(&w, NS_PER_S / 10) <= 2600);
	load(0, 2, 2);
	CHECK(dev_advance(&w, NS_PER_S / 10) <= 2600);
	stop();
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	dev_poke(&w.ports, 0x3f, 0x24, 4, seed, 60);
	dev_advance(&w, dev_random(seed) % 10000000);
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
	CHECK_EQ(pit_create(&to, &ports2, dev_wire_line(&irq2, 0), &w.clock, &w.timers), 0);
	for (unsigned mode = 0; mode < 6; mode++) {
		to->ops->reset(to);
		load(0, mode, 5000);
		dev_out(&w, 0x61, 1);
		load(2, 2, 30000);
		w.now += ns_of(1234);
		dev_out(&w, 0x43, 0x80);
		dev_in(&w, 0x42); /* between two bytes of a latched count */
		dev_move(dev, to);
		CHECK_EQ(irq2.level, irq.level);
		irq.rises = irq2.rises = 0;
		dev_advance(&w, NS_PER_S / 50);
		CHECK_EQ(irq2.rises, irq.rises);
		CHECK_EQ(io_space_read(&ports2, 0, 0x42, 1), dev_in(&w, 0x42));
		CHECK_EQ(io_space_read(&ports2, 0, 0x40, 1), dev_in(&w, 0x40));
		CHECK_EQ(io_space_read(&ports2, 0, 0x61, 1), dev_in(&w, 0x61));
		dev_in(&w, 0x40);
	}
	to->ops->reset(to);
	dev_out(&w, 0x43,
		0x35); /* BCD, and no count yet: the one of before must not be left over */
	dev_move(dev, to);
	for (unsigned i = 0; i < 300; i++)
		poke(NULL, &seed);
	printf("pit: %u of 1500 damaged states refused\n", dev_corrupt(to, dev, 1500, poke, NULL));
	to->ops->destroy(to);
	io_space_free(&ports2);
	stop();
}

int main(void)
{
	test_periodic();
	test_oneshot();
	test_mode0();
	test_quick_calibrate();
	test_calibrate();
	test_square_wave();
	test_hardware_triggered();
	test_access();
	test_hostile_rate();
	test_state();
	return dev_result("pit");
}
