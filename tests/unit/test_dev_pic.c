/* i8259A pair: priorities, EOI kinds, rotation, special mask, cascade, ELCR, spurious, poll, state.
 */
#include "tests/unit/dev_util.h"

static struct dev_world w;
static struct dev_wire out;
static struct device *dev;

static void init(uint8_t icw4)
{
	/* As Linux: vectors 30h and 38h. */
	dev_out(&w, 0x20, 0x11);
	dev_out(&w, 0x21, 0x30);
	dev_out(&w, 0x21, 0x04);
	dev_out(&w, 0x21, icw4);
	dev_out(&w, 0xa0, 0x11);
	dev_out(&w, 0xa1, 0x38);
	dev_out(&w, 0xa1, 0x02);
	dev_out(&w, 0xa1, icw4);
	dev_out(&w, 0x21, 0);
	dev_out(&w, 0xa1, 0);
}

static void start(uint8_t icw4)
{
	dev_world_init(&w);
	out = (struct dev_wire){0};
	CHECK_EQ(pic_create(&dev, &w.ports, dev_wire_line(&out, 0)), 0);
	init(icw4);
}

static void stop(void)
{
	dev->ops->destroy(dev);
	CHECK_EQ(w.ports.count, 0);
	dev_world_free(&w);
}

static void line(unsigned n, bool level)
{
	const struct irq_line l = pic_line(dev, n);

	irq_set(&l, level);
}

/* An edge; the line stays up, as devices hold it. */
static void pulse(unsigned n)
{
	line(n, false);
	line(n, true);
}

static uint8_t isr(uint16_t port)
{
	dev_out(&w, port, 0x0b);
	return dev_in(&w, port);
}

static uint8_t irr(uint16_t port)
{
	dev_out(&w, port, 0x0a);
	return dev_in(&w, port);
}

static void test_priority(void)
{
	start(1);
	pulse(5);
	CHECK(out.level);
	pulse(3);
	CHECK_EQ(irr(0x20), 0x28);
	CHECK_EQ(pic_ack(dev), 0x33);
	CHECK(!out.level); /* 5 waits */
	pulse(1);
	CHECK(out.level); /* nested */
	CHECK_EQ(pic_ack(dev), 0x31);
	CHECK_EQ(isr(0x20), 0x0a);
	dev_out(&w, 0x20, 0x20); /* non-specific: the highest */
	CHECK_EQ(isr(0x20), 0x08);
	CHECK(!out.level);
	dev_out(&w, 0x20, 0x63); /* specific */
	CHECK_EQ(isr(0x20), 0);
	CHECK(out.level);
	dev_out(&w, 0x21, 0x20);
	CHECK(!out.level);
	CHECK_EQ(dev_in(&w, 0x21), 0x20);
	dev_out(&w, 0x21, 0);
	CHECK_EQ(pic_ack(dev), 0x35);
	stop();
}

static void test_cascade(void)
{
	start(1);
	line(10, true);
	line(9, true);
	CHECK(out.level);
	CHECK_EQ(pic_ack(dev), 0x39);
	CHECK_EQ(isr(0x20), 0x04);
	CHECK_EQ(isr(0xa0), 0x02);
	CHECK(!out.level);
	pulse(8); /* higher, but the master has the slave in service */
	CHECK(!out.level);
	dev_out(&w, 0x20, 0x62);
	CHECK(out.level);
	CHECK_EQ(pic_ack(dev), 0x38);
	dev_out(&w, 0xa0, 0x60);
	dev_out(&w, 0x20, 0x62);
	CHECK(!out.level);
	dev_out(&w, 0xa0, 0x61);
	CHECK_EQ(pic_ack(dev), 0x3a);
	line(2, true); /* there is no such pin */
	stop();

	start(3); /* automatic EOI: the second request is there at once, and needs an edge of its
		     own */
	pulse(9);
	pulse(10);
	CHECK_EQ(pic_ack(dev), 0x39);
	CHECK(out.level);
	CHECK_EQ(pic_ack(dev), 0x3a);
	CHECK(!out.level);
	stop();

	start(0x11); /* special fully nested */
	pulse(10);
	CHECK_EQ(pic_ack(dev), 0x3a);
	pulse(8);
	CHECK(out.level);
	CHECK_EQ(pic_ack(dev), 0x38);
	pulse(4);
	CHECK(!out.level); /* lower than the cascade */
	pulse(0);
	CHECK(out.level);
	stop();
}

static void test_spurious(void)
{
	start(1);
	CHECK_EQ(pic_ack(dev), 0x37);
	CHECK_EQ(isr(0x20), 0);
	/* The line falls, or the mask comes, before INTA: the request is gone. */
	pulse(5);
	line(5, false);
	CHECK(!out.level);
	CHECK_EQ(irr(0x20), 0);
	pulse(12);
	CHECK_EQ(irr(0x20), 0x04);
	dev_out(&w, 0xa1, 0x10);
	CHECK(!out.level);
	CHECK_EQ(irr(0x20), 0);
	dev_out(&w, 0xa1, 0);
	CHECK_EQ(pic_ack(dev), 0x3c);
	stop();
}

static void test_auto_eoi_and_rotation(void)
{
	start(3);
	pulse(4);
	CHECK_EQ(pic_ack(dev), 0x34);
	CHECK_EQ(isr(0x20), 0);
	dev_out(&w, 0x20, 0x80); /* rotate in automatic EOI mode */
	pulse(0);
	CHECK_EQ(pic_ack(dev), 0x30);
	pulse(0);
	pulse(7);
	CHECK_EQ(pic_ack(dev), 0x37); /* 0 has the lowest priority now */
	CHECK_EQ(pic_ack(dev), 0x30);
	stop();

	start(1);
	pulse(2 + 1);
	CHECK_EQ(pic_ack(dev), 0x33);
	dev_out(&w, 0x20, 0xa0); /* rotate on non-specific EOI: 3 is the lowest */
	pulse(3);
	pulse(4);
	CHECK_EQ(pic_ack(dev), 0x34);
	dev_out(&w, 0x20, 0xe4);
	CHECK_EQ(pic_ack(dev), 0x33);
	dev_out(&w, 0x20, 0x63);
	dev_out(&w, 0x20, 0xc7); /* set priority: the default order */
	pulse(0);
	pulse(6);
	CHECK_EQ(pic_ack(dev), 0x30);
	stop();
}

static void test_special_mask(void)
{
	start(1);
	pulse(4);
	CHECK_EQ(pic_ack(dev), 0x34);
	pulse(6);
	CHECK(!out.level);
	dev_out(&w, 0x21, 0x10);
	CHECK(!out.level);
	dev_out(&w, 0x20, 0x68); /* a masked level no longer holds the lower ones back */
	CHECK(out.level);
	CHECK_EQ(pic_ack(dev), 0x36);
	dev_out(&w, 0x20, 0x20); /* ends 6: 4 is masked */
	CHECK_EQ(isr(0x20), 0x10);
	dev_out(&w, 0x20, 0x48);
	pulse(6);
	CHECK(!out.level);
	stop();
}

static void test_elcr(void)
{
	start(1);
	dev_out(&w, 0x4d0, 0xff);
	dev_out(&w, 0x4d1, 0xff);
	CHECK_EQ(io_space_read(&w.ports, 0, 0x4d0, 2), 0xdef8);
	line(11, true);
	CHECK_EQ(pic_ack(dev), 0x3b);
	CHECK_EQ(irr(0xa0), 0x08); /* still there */
	dev_out(&w, 0xa0, 0x20);
	dev_out(&w, 0x20, 0x20);
	CHECK(out.level);
	line(11, false);
	CHECK_EQ(irr(0xa0), 0);
	CHECK(!out.level);
	line(5, true);
	CHECK(out.level);
	line(5, false);
	CHECK(!out.level);
	stop();
}

static void test_poll(void)
{
	start(1);
	dev_out(&w, 0x20, 0x0c);
	CHECK_EQ(dev_in(&w, 0x20), 0);
	pulse(6);
	dev_out(&w, 0x20, 0x0c);
	CHECK_EQ(dev_in(&w, 0x20), 0x86);
	CHECK_EQ(isr(0x20), 0x40);
	CHECK(!out.level);
	stop();
}

static void test_init(void)
{
	start(1);
	line(4, true);
	dev_out(&w, 0x21, 0xff);
	init(1);
	CHECK(!out.level); /* the edge sense is cleared, a line that stays high is no edge */
	line(4, false);
	line(4, true);
	CHECK(out.level);
	/* Without ICW4: operating after ICW3. */
	dev_out(&w, 0x20, 0x10);
	dev_out(&w, 0x21, 0x50);
	dev_out(&w, 0x21, 0x04);
	dev_out(&w, 0x21, 0x77);
	CHECK_EQ(dev_in(&w, 0x21), 0x77);
	stop();
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	for (unsigned i = 0; i < 60; i++) {
		uint64_t r = dev_random(seed);

		line(r % 16, r >> 8 & 1);
		if (r >> 9 & 1)
			pic_ack(dev);
		dev_poke(&w.ports, 0x1f, 4, 4, seed, 4);
		dev_poke(&w.ports, 0x9f, 4, 4, seed, 4);
		dev_poke(&w.ports, 0x4cf, 4, 4, seed, 1);
	}
}

static void test_state(void)
{
	struct dev_wire out2 = {0};
	struct io_space ports2 = {0};
	struct device *to;
	uint64_t seed = 5;
	char err[128];

	start(1);
	CHECK_EQ(field_check(dev->state, err, sizeof(err)), 0);
	CHECK_EQ(pic_create(&to, &ports2, dev_wire_line(&out2, 0)), 0);
	line(12, true);
	pulse(6);
	pulse(1);
	pic_ack(dev);
	dev_out(&w, 0x20, 0x20);
	dev_move(dev, to);
	CHECK(out2.level);
	CHECK_EQ(pic_ack(to), 0x3c);
	io_space_write(&ports2, 0, 0xa0, 1, 0x20);
	io_space_write(&ports2, 0, 0x20, 1, 0x20);
	CHECK_EQ(pic_ack(to), 0x36);
	CHECK(!out2.level);
	for (unsigned i = 0; i < 200; i++)
		poke(NULL, &seed);
	printf("pic: %u of 2000 damaged states refused\n", dev_corrupt(to, dev, 2000, poke, NULL));
	to->ops->destroy(to);
	io_space_free(&ports2);
	stop();
}

int main(void)
{
	test_priority();
	test_cascade();
	test_spurious();
	test_auto_eoi_and_rotation();
	test_special_mask();
	test_elcr();
	test_poll();
	test_init();
	test_state();
	return dev_result("pic");
}
