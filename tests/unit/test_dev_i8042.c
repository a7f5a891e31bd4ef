/* i8042: what Linux's driver asks, resets, port 92h, state. */
#include "tests/unit/dev_util.h"

static struct dev_world w;
static struct dev_wire irq[2];
static struct dev_events events;
static struct device *dev;

static struct device *make(struct dev_world *world, struct dev_wire *wires, struct dev_events *e)
{
	const struct machine_sink sink = {dev_event, e};
	struct device *d;

	dev_world_init(world);
	memset(wires, 0, 2 * sizeof(*wires));
	*e = (struct dev_events){0};
	CHECK_EQ(i8042_create(&d, &world->ports, dev_wire_line(wires, 0), dev_wire_line(wires, 1),
			      &sink),
		 0);
	return d;
}

static void stop(struct device *d, struct dev_world *world)
{
	d->ops->destroy(d);
	CHECK_EQ(world->ports.count, 0);
	dev_world_free(world);
}

/* A command; its answer, -1: none. */
static int command(unsigned cmd)
{
	dev_out(&w, 0x64, cmd);
	return dev_in(&w, 0x64) & 1 ? dev_in(&w, 0x60) : -1;
}

static void test_commands(void)
{
	dev = make(&w, irq, &events);
	CHECK_EQ(dev_in(&w, 0x64) & 0x03, 0);
	CHECK_EQ(command(0xaa), 0x55);
	CHECK(dev_in(&w, 0x64) & 0x04);
	CHECK(command(0xab) != 0);
	CHECK(command(0xa9) != 0 && command(0xa9) != 0xfa && command(0xa9) != 0xff);
	CHECK_EQ(command(0x60), -1);
	dev_out(&w, 0x60, 0x47);
	CHECK_EQ(command(0x20), 0x47);
	command(0xa7);
	command(0xad);
	CHECK_EQ(command(0x20), 0x77);
	command(0xa8);
	command(0xae);
	CHECK_EQ(command(0x20), 0x47);
	CHECK_EQ(command(0xd0) & 0x03, 0x03);
	/* i8042_check_aux: the loop answers something else, so the port is given up. */
	CHECK_EQ(command(0xd3), -1);
	dev_out(&w, 0x60, 0x5a);
	CHECK(dev_in(&w, 0x64) & 0x20);
	CHECK(dev_in(&w, 0x60) != 0x5a);
	CHECK_EQ(events.count[MACHINE_RESET], 0);
	stop(dev, &w);
}

static void test_missing_devices(void)
{
	dev = make(&w, irq, &events);
	dev_out(&w, 0x64, 0x60);
	dev_out(&w, 0x60, 0x47);
	dev_out(&w, 0x60, 0xf2); /* identify, to a keyboard */
	CHECK_EQ(dev_in(&w, 0x64) & 0x61, 0x41);
	CHECK(irq[0].level && !irq[1].level);
	CHECK_EQ(dev_in(&w, 0x60), 0xfe);
	CHECK(!irq[0].level);
	dev_out(&w, 0x64, 0xd4);
	dev_out(&w, 0x60, 0xf2);
	CHECK_EQ(dev_in(&w, 0x64) & 0x61, 0x61);
	CHECK(irq[1].level && !irq[0].level);
	CHECK_EQ(dev_in(&w, 0x60), 0xfe);
	CHECK_EQ(dev_in(&w, 0x64) & 1, 0);
	/* Two bytes: two edges. */
	irq[0].rises = 0;
	dev_out(&w, 0x60, 1);
	dev_out(&w, 0x60, 2);
	dev_in(&w, 0x60);
	CHECK_EQ(irq[0].rises, 2);
	stop(dev, &w);
}

static void test_resets(void)
{
	dev = make(&w, irq, &events);
	dev_out(&w, 0x64, 0xfe);
	CHECK_EQ(events.count[MACHINE_RESET], 1);
	dev_out(&w, 0x64, 0xff);
	CHECK_EQ(events.count[MACHINE_RESET], 1);
	dev_out(&w, 0x64, 0xd1);
	dev_out(&w, 0x60, 0xdf);
	CHECK_EQ(events.count[MACHINE_RESET], 1);
	dev_out(&w, 0x64, 0xd1);
	dev_out(&w, 0x60, 0xfe);
	CHECK_EQ(events.count[MACHINE_RESET], 2);
	CHECK_EQ(dev_in(&w, 0x92), 0x02);
	dev_out(&w, 0x92, 0x02);
	CHECK_EQ(events.count[MACHINE_RESET], 2);
	dev_out(&w, 0x92, 0x01);
	dev_out(&w, 0x92, 0x01); /* no edge */
	CHECK_EQ(events.count[MACHINE_RESET], 3);
	CHECK_EQ(dev_in(&w, 0x92), 0x03);
	stop(dev, &w);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	dev_poke(&w.ports, 0x5f, 0x40, 4, seed, 300);
}

static void test_state(void)
{
	struct dev_world w2;
	struct dev_wire irq2[2];
	struct dev_events events2;
	struct device *to = make(&w2, irq2, &events2);
	uint64_t seed = 3;
	char err[128];

	dev = make(&w, irq, &events);
	CHECK_EQ(field_check(dev->state, err, sizeof(err)), 0);
	dev_out(&w, 0x64, 0x60);
	dev_out(&w, 0x60, 0x03);
	dev_out(&w, 0x60, 0xff);
	dev_out(&w, 0x64, 0xd4);
	dev_out(&w, 0x60, 0xff);
	dev_out(&w, 0x64, 0xd1); /* waits for its parameter */
	dev_move(dev, to);
	CHECK(irq2[0].level);
	CHECK_EQ(dev_in(&w2, 0x60), 0xfe);
	CHECK(irq2[1].level);
	CHECK_EQ(dev_in(&w2, 0x60), 0xfe);
	dev_out(&w2, 0x60, 0x00);
	CHECK_EQ(events2.count[MACHINE_RESET], 1);
	for (unsigned i = 0; i < 300; i++)
		poke(NULL, &seed);
	dev->ops->reset(dev);
	CHECK(!irq[0].level && !irq[1].level);
	printf("i8042: %u of 2000 damaged states refused\n",
	       dev_corrupt(to, dev, 2000, poke, NULL));
	stop(to, &w2);
	stop(dev, &w);
}

int main(void)
{
	test_commands();
	test_missing_devices();
	test_resets();
	test_state();
	return dev_result("i8042");
}
