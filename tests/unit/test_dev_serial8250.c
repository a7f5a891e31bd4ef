/* 16550A: registers, interrupts, back-pressure, loopback, state. */
#include "tests/unit/dev_util.h"

#define COM 0x3f8

enum { RBR = COM, IER, IIR, LCR, MCR, LSR, MSR, SCR, THR = COM, FCR = IIR };

static struct dev_world w;
static struct dev_wire irq;
static struct dev_chardev chr;
static struct device *dev;

static void start(void)
{
	dev_world_init(&w);
	dev_chardev_init(&chr);
	irq = (struct dev_wire){0};
	CHECK_EQ(
		serial8250_create(&dev, "serial0", &w.ports, COM, dev_wire_line(&irq, 0), &chr.chr),
		0);
}

static void stop(void)
{
	dev->ops->destroy(dev);
	CHECK_EQ(w.ports.count, 0);
	dev_world_free(&w);
}

/* What Linux's autoconfig() asks before it believes in a 16550A. */
static void test_identity(void)
{
	start();
	dev_out(&w, IER, 0);
	CHECK_EQ(dev_in(&w, IER), 0);
	dev_out(&w, IER, 0xff);
	CHECK_EQ(dev_in(&w, IER), 0x0f);
	dev_out(&w, IER, 0);
	dev_out(&w, SCR, 0x5a);
	CHECK_EQ(dev_in(&w, SCR), 0x5a);
	dev_out(&w, MCR, 0x10 | 0x0a);
	CHECK_EQ(dev_in(&w, MSR) & 0xf0, 0x90);
	dev_out(&w, MCR, 0);
	CHECK_EQ(dev_in(&w, IIR) & 0xc0, 0);
	dev_out(&w, FCR, 1);
	CHECK_EQ(dev_in(&w, IIR) & 0xe0, 0xc0);
	dev_out(&w, LCR, 0x80);
	dev_out(&w, RBR, 0x0c);
	dev_out(&w, IER, 0x34);
	CHECK_EQ(io_space_read(&w.ports, 0, COM, 2), 0x340c);
	dev_out(&w, LCR, 0x03);
	CHECK_EQ(dev_in(&w, IER), 0);
	CHECK_EQ(dev_in(&w, LSR), 0x60);
	stop();
}

static void test_transmit(void)
{
	start();
	for (const char *s = "hello"; *s; s++) {
		size_t before = chr.out_len;

		dev_out(&w, THR, (unsigned)*s);
		CHECK_EQ(chr.out_len, before + 1); /* at once: nothing is kept back */
	}
	CHECK(!memcmp(chr.out, "hello", 5));
	CHECK(!irq.level);

	dev_out(&w, IER, 2); /* enabling while empty raises it */
	CHECK(irq.level);
	CHECK_EQ(dev_in(&w, IIR), 0x02);
	CHECK(!irq.level); /* reading the IIR has cleared it */
	CHECK_EQ(dev_in(&w, IIR), 0x01);
	dev_out(&w, IER, 2); /* no change: no new one */
	CHECK(!irq.level);
	dev_out(&w, IER, 0);
	dev_out(&w, IER, 2);
	CHECK(irq.level);
	dev_out(&w, THR, 'x'); /* cleared by the write, set again when the byte has left */
	CHECK_EQ(dev_in(&w, IIR), 0x02);
	CHECK_EQ(dev_in(&w, IIR), 0x01);
	stop();
}

static void test_back_pressure(void)
{
	start();
	chr.room = 2;
	dev_out(&w, FCR, 1);
	dev_out(&w, IER, 2);
	CHECK_EQ(dev_in(&w, IIR) & 0x0f, 0x02);
	for (unsigned i = 0; i < 17; i++)
		dev_out(&w, THR, 'a' + i);
	CHECK_EQ(chr.out_len, 2);
	CHECK_EQ(dev_in(&w, LSR), 0); /* neither THRE nor TEMT */
	CHECK_EQ(dev_in(&w, IIR) & 0x0f, 0x01);
	CHECK(!irq.level);
	chr.room = 3;
	chr.client.writable(chr.client.opaque);
	CHECK_EQ(chr.out_len, 5);
	CHECK_EQ(dev_in(&w, LSR), 0);
	chr.room = 100;
	chr.client.writable(chr.client.opaque);
	CHECK_EQ(chr.out_len, 17);
	CHECK(!memcmp(chr.out, "abcdefghijklmnopq", 17));
	CHECK_EQ(dev_in(&w, LSR), 0x60);
	CHECK(irq.level);
	CHECK_EQ(dev_in(&w, IIR) & 0x0f, 0x02);

	/* A FIFO of 16 is full: the next byte is lost, as on the chip, and no more than that. */
	chr.room = 0;
	for (unsigned i = 0; i < 20; i++)
		dev_out(&w, THR, 'A' + i);
	chr.room = 100;
	chr.client.writable(chr.client.opaque);
	CHECK_EQ(chr.out_len, 17 + 16);
	/* Clearing the transmit FIFO makes it empty. */
	chr.room = 0;
	dev_out(&w, THR, 'z');
	CHECK_EQ(dev_in(&w, LSR), 0);
	dev_out(&w, FCR, 5);
	CHECK_EQ(dev_in(&w, LSR), 0x60);
	stop();
}

static void test_receive(void)
{
	static const uint8_t levels[4] = {1, 4, 8, 14};

	start();
	CHECK_EQ(chr.client.can_receive(chr.client.opaque), 1);
	CHECK_EQ(dev_chardev_feed(&chr, "ab", 2), 1);
	CHECK_EQ(chr.client.can_receive(chr.client.opaque), 0);
	CHECK(!irq.level);
	dev_out(&w, IER, 1);
	CHECK(irq.level);
	CHECK_EQ(dev_in(&w, IIR), 0x04);
	CHECK_EQ(dev_in(&w, LSR), 0x61);
	chr.kicks = 0;
	CHECK_EQ(dev_in(&w, RBR), 'a');
	CHECK_EQ(chr.kicks, 1);
	CHECK(!irq.level);
	CHECK_EQ(dev_in(&w, LSR), 0x60);

	for (unsigned i = 0; i < 4; i++) {
		dev_out(&w, FCR, 1 | i << 6 | 2);
		for (unsigned n = 1; n <= 16; n++) {
			CHECK_EQ(dev_chardev_feed(&chr, "c", 1), 1);
			/* Below the level the character timeout says it. */
			CHECK_EQ(dev_in(&w, IIR), n < levels[i] ? 0xcc : 0xc4);
			CHECK(irq.level);
		}
		CHECK_EQ(dev_chardev_feed(&chr, "c", 1), 0);
		CHECK_EQ(dev_in(&w, LSR) & 0x02, 0);
	}
	for (unsigned n = 0; n < 16; n++)
		CHECK_EQ(dev_in(&w, RBR), 'c');
	CHECK(!irq.level);
	CHECK_EQ(dev_in(&w, RBR), 0);
	stop();
}

/* The FIFO is switched off between the back end's question and its bytes. */
static void test_fifo_off_race(void)
{
	start();
	dev_out(&w, FCR, 1);
	CHECK_EQ(chr.client.can_receive(chr.client.opaque), 16);
	dev_out(&w, FCR, 0);
	chr.client.receive(chr.client.opaque, (const uint8_t *)"abc", 3);
	CHECK_EQ(chr.client.can_receive(chr.client.opaque), 0);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(dev_in(&w, LSR), 0x61);
		CHECK_EQ(dev_in(&w, RBR), "abc"[i]);
	}
	CHECK_EQ(dev_in(&w, LSR), 0x60);
	stop();
}

/* The guest reads like Linux's handler while a back end pushes 64 KB: all arrives, in order. */
static void test_paste(void)
{
	static uint8_t in[65536], got[65536];
	size_t fed = 0, n = 0;
	uint64_t seed = 1;

	start();
	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)dev_random(&seed);
	dev_out(&w, FCR, 0x81);
	dev_out(&w, IER, 1);
	chr.kicks = 1;
	while (n < sizeof(in)) {
		if (chr.kicks) {
			chr.kicks = 0;
			fed += dev_chardev_feed(&chr, in + fed, sizeof(in) - fed);
		}
		if (!irq.level)
			break;
		while (n < sizeof(in) && (dev_in(&w, LSR) & 1))
			got[n++] = dev_in(&w, RBR);
	}
	CHECK_EQ(n, sizeof(in));
	CHECK(!memcmp(in, got, sizeof(in)));
	stop();
}

static void test_loopback(void)
{
	start();
	dev_out(&w, FCR, 1);
	dev_out(&w, MCR, 0x10);
	CHECK_EQ(chr.client.can_receive(chr.client.opaque), 0);
	dev_out(&w, THR, 'q');
	CHECK_EQ(chr.out_len, 0);
	CHECK_EQ(dev_in(&w, RBR), 'q');
	for (unsigned i = 0; i < 17; i++)
		dev_out(&w, THR, i);
	dev_out(&w, IER, 4);
	CHECK_EQ(dev_in(&w, IIR) & 0x0f, 0x06);
	CHECK_EQ(dev_in(&w, LSR), 0x63); /* overrun */
	CHECK_EQ(dev_in(&w, LSR), 0x61);
	/* The four outputs are the four inputs; deltas are reported once. */
	dev_out(&w, IER, 8);
	dev_in(&w, MSR);
	dev_out(&w, MCR, 0x1f);
	CHECK(irq.level);
	CHECK_EQ(dev_in(&w, IIR) & 0x0f, 0x00);
	CHECK_EQ(dev_in(&w, MSR), 0xfb); /* RI rose: no TERI */
	CHECK(!irq.level);
	dev_out(&w, MCR, 0x10);
	CHECK_EQ(dev_in(&w, MSR), 0x0f);
	chr.kicks = 0;
	dev_out(&w, FCR, 3);
	dev_out(&w, MCR, 0);
	CHECK(chr.kicks); /* the outside may send again */
	CHECK_EQ(dev_in(&w, MSR), 0xbb);
	stop();
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	chr.room = dev_random(seed) % 40;
	dev_poke(&w.ports, COM - 4, 16, 4, seed, 200);
	dev_chardev_feed(&chr, "0123456789abcdefghij", dev_random(seed) % 20);
	chr.client.writable(chr.client.opaque);
	chr.out_len = 0;
}

static void test_state(void)
{
	struct dev_world w2;
	struct dev_wire irq2 = {0};
	static struct dev_chardev chr2;
	struct device *to;
	char err[128];

	start();
	dev_world_init(&w2);
	dev_chardev_init(&chr2);
	CHECK_EQ(field_check(dev->state, err, sizeof(err)), 0);
	CHECK_EQ(serial8250_create(&to, "serial0", &w2.ports, COM, dev_wire_line(&irq2, 0),
				   &chr2.chr),
		 0);
	dev_out(&w, FCR, 0x41);
	dev_out(&w, IER, 3);
	dev_in(&w, IIR);
	chr.room = 0;
	dev_out(&w, THR, 'T');
	dev_out(&w, THR, 'U');
	dev_chardev_feed(&chr, "rst", 3);
	CHECK(irq.level);
	dev_move(dev, to);
	CHECK(irq2.level);
	CHECK_EQ(dev_in(&w2, LSR), 0x01);
	CHECK_EQ(chr2.out_len, 0);
	to->ops->acquire(to); /* the new side's back end takes what waited */
	CHECK(chr2.out_len == 2 && !memcmp(chr2.out, "TU", 2));
	CHECK_EQ(dev_in(&w2, IIR), 0xcc);
	CHECK_EQ(dev_in(&w2, RBR), 'r');
	CHECK_EQ(dev_in(&w2, RBR), 's');
	CHECK_EQ(dev_in(&w2, RBR), 't');
	CHECK_EQ(dev_in(&w2, IIR), 0xc2);

	/* Quiesced: nothing comes in or goes out. */
	dev->ops->prepare(dev);
	CHECK_EQ(chr.client.can_receive(chr.client.opaque), 0);
	chr.room = 10;
	chr.client.writable(chr.client.opaque);
	CHECK_EQ(chr.out_len, 0);
	dev->ops->abort(dev);
	CHECK_EQ(chr.out_len, 2);

	printf("serial8250: %u of 3000 damaged states refused\n",
	       dev_corrupt(to, dev, 3000, poke, NULL));
	to->ops->destroy(to);
	dev_world_free(&w2);
	stop();
}

static void test_pokes(void)
{
	uint64_t seed = 7;

	start();
	for (unsigned i = 0; i < 500; i++)
		poke(NULL, &seed);
	dev->ops->reset(dev);
	CHECK(!irq.level);
	CHECK_EQ(dev_in(&w, LSR), 0x60);
	stop();
}

int main(void)
{
	test_identity();
	test_transmit();
	test_back_pressure();
	test_receive();
	test_fifo_off_race();
	test_paste();
	test_loopback();
	test_state();
	test_pokes();
	return dev_result("serial8250");
}
