/* ACPI fixed hardware, pvpanic and the exit device. */
#include "tests/unit/dev_util.h"

#define PM 0x600

static struct dev_world w;
static struct dev_wire sci;
static struct dev_events events;
static struct device *dev;

static uint64_t in(uint16_t port, unsigned size)
{
	return io_space_read(&w.ports, 0, port, size);
}

static void out(uint16_t port, unsigned size, uint64_t value)
{
	io_space_write(&w.ports, 0, port, size, value);
}

static void start(void)
{
	const struct machine_sink sink = {dev_event, &events};

	dev_world_init(&w);
	sci = (struct dev_wire){0};
	events = (struct dev_events){0};
	CHECK_EQ(acpi_pm_create(&dev, &w.ports, PM, dev_wire_line(&sci, 0), &w.clock, &sink), 0);
}

static void stop(void)
{
	dev->ops->destroy(dev);
	CHECK_EQ(w.ports.count, 0);
	dev_world_free(&w);
}

static void test_button(void)
{
	start();
	CHECK_EQ(in(PM + 4, 2) & 1, 1); /* SCI_EN */
	out(PM + 4, 2, 0);
	CHECK_EQ(in(PM + 4, 2) & 1, 1);
	acpi_pm_power_button(dev);
	CHECK(!sci.level);
	CHECK_EQ(in(PM, 2), 0x100);
	out(PM + 2, 2, 0x120);
	CHECK(sci.level);
	CHECK_EQ(in(PM + 2, 2), 0x120);
	out(PM, 2, 0x001); /* another bit */
	CHECK(sci.level);
	out(PM + 1, 1, 0x01);
	CHECK(!sci.level);
	CHECK_EQ(in(PM, 4), 0x01200000);
	stop();
}

static void test_sleep_and_reset(void)
{
	start();
	out(PM + 4, 2, 3 << 10 | 1 << 13); /* S3 does not exist */
	CHECK_EQ(events.count[MACHINE_POWEROFF], 0);
	out(PM + 4, 2, 5 << 10); /* ACPICA writes the type first */
	CHECK_EQ(events.count[MACHINE_POWEROFF], 0);
	out(PM + 4, 2, 5 << 10 | 1 << 13);
	CHECK_EQ(events.count[MACHINE_POWEROFF], 1);
	CHECK_EQ(in(PM + 4, 2), 5 << 10 | 1); /* SLP_EN reads 0 */
	out(PM + 5, 1, (5 << 10 | 1 << 13) >> 8);
	CHECK_EQ(events.count[MACHINE_POWEROFF], 2);
	out(PM + 12, 1, 0);
	CHECK_EQ(events.count[MACHINE_RESET], 0);
	out(PM + 12, 1, 1);
	CHECK_EQ(events.count[MACHINE_RESET], 1);
	stop();
}

static void test_timer(void)
{
	uint64_t a, b;

	start();
	a = in(PM + 8, 4);
	w.now += NS_PER_S;
	b = in(PM + 8, 4);
	CHECK_EQ(b - a, 3579545);
	CHECK_EQ(in(PM + 8, 2), b & 0xffff);
	CHECK_EQ(in(PM, 2) & 1, 0);
	w.now += 700 * NS_PER_S; /* past 2^31 ticks */
	CHECK_EQ(in(PM, 2) & 1, 1);
	out(PM, 2, 1);
	CHECK_EQ(in(PM, 2) & 1, 0);
	w.now += 700 * NS_PER_S; /* and past 2^32 */
	CHECK(in(PM + 8, 4) < 1ULL << 32);
	stop();
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	w.now += dev_random(seed) % NS_PER_S;
	dev_poke(&w.ports, PM - 2, 20, 4, seed, 50);
	acpi_pm_power_button(dev);
}

static void test_state(void)
{
	const struct machine_sink sink = {dev_event, &events};
	struct dev_wire sci2 = {0};
	struct io_space ports2 = {0};
	struct device *to;
	char err[128];

	start();
	CHECK_EQ(field_check(dev->state, err, sizeof(err)), 0);
	CHECK_EQ(acpi_pm_create(&to, &ports2, PM, dev_wire_line(&sci2, 0), &w.clock, &sink), 0);
	out(PM + 2, 2, 0x100);
	acpi_pm_power_button(dev);
	dev_move(dev, to);
	CHECK(sci2.level);
	CHECK_EQ(io_space_read(&ports2, 0, PM, 4), 0x01000100);
	printf("acpi-pm: %u of 1000 damaged states refused\n",
	       dev_corrupt(to, dev, 1000, poke, NULL));
	to->ops->destroy(to);
	io_space_free(&ports2);
	stop();
}

static void test_small_ones(void)
{
	const struct machine_sink sink = {dev_event, &events};
	struct device *panic, *debug;

	dev_world_init(&w);
	events = (struct dev_events){0};
	CHECK_EQ(pvpanic_create(&panic, &w.ports, &sink), 0);
	CHECK_EQ(debug_exit_create(&debug, &w.ports, 0xf4, &sink), 0);
	CHECK_EQ(in(0x505, 1), 1);
	out(0x505, 1, 1);
	CHECK_EQ(events.count[MACHINE_PANIC], 1);
	out(0x505, 1, 2);
	CHECK_EQ(events.count[MACHINE_PANIC], 1);
	out(0xf4, 4, 0x12345);
	CHECK_EQ(events.count[MACHINE_DEBUG_EXIT], 1);
	CHECK_EQ(events.code, 0x12345);
	dev_move(panic, panic);
	dev_move(debug, debug);
	panic->ops->reset(panic);
	panic->ops->destroy(panic);
	debug->ops->destroy(debug);
	CHECK_EQ(w.ports.count, 0);
	dev_world_free(&w);
}

int main(void)
{
	test_button();
	test_sleep_and_reset();
	test_timer();
	test_state();
	test_small_ones();
	return dev_result("acpi_pm");
}
