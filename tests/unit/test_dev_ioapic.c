/* IOAPIC: registers, edges, levels and remote IRR, EOI, destinations, ExtINT, state. */
#include "tests/unit/dev_apic.h"

#define IOAPIC 0xfec00000ULL
#define EDGE   0
#define LEVEL  (1u << 15)
#define MASKED (1u << 16)
#define RIRR   (1u << 14)

static struct dev_apics a;

static uint32_t get(unsigned reg)
{
	io_space_write(&a.w.mmio, 0, IOAPIC, 4, reg);
	return (uint32_t)io_space_read(&a.w.mmio, 0, IOAPIC + 0x10, 4);
}

static void put(unsigned reg, uint32_t value)
{
	io_space_write(&a.w.mmio, 0, IOAPIC, 4, reg);
	io_space_write(&a.w.mmio, 0, IOAPIC + 0x10, 4, value);
}

static void route(unsigned pin, uint32_t low, uint32_t dest)
{
	put(0x11 + 2 * pin, dest << 24);
	put(0x10 + 2 * pin, low);
}

static void line(unsigned pin, bool level)
{
	const struct irq_line l = ioapic_line(a.ioapic, pin);

	irq_set(&l, level);
}

static void start(void)
{
	apics_start(&a, 4);
	for (unsigned i = 0; i < 4; i++) {
		enable(&a, i);
		wr(&a, i, R_LDR, 1u << (24 + i));
	}
}

static void test_registers(void)
{
	start();
	CHECK_EQ(get(0), 3u << 24);
	CHECK_EQ(get(1), 0x170011);
	CHECK_EQ(get(2), 3u << 24);
	put(0, 0xff000000);
	CHECK_EQ(get(0), 0x0f000000);
	for (unsigned i = 0; i < 24; i++) {
		CHECK_EQ(get(0x10 + 2 * i), MASKED);
		route(i, 0xffffffff, 0xab);
		CHECK_EQ(get(0x10 + 2 * i), 0x1afff);
		CHECK_EQ(get(0x11 + 2 * i), 0xab000000);
	}
	CHECK_EQ(get(0x40), 0);
	put(0x40, 0xffffffff);
	put(0x03, 0xffffffff);
	CHECK_EQ(get(0xff), 0);
	CHECK_EQ(io_space_read(&a.w.mmio, 0, IOAPIC, 4), 0xff);
	CHECK_EQ(io_space_read(&a.w.mmio, 0, IOAPIC + 0x20, 4), 0);
	apics_stop(&a);
}

static void test_edge(void)
{
	start();
	line(4, true); /* masked: lost */
	route(4, EDGE | 0x50, 1);
	CHECK_EQ(take(&a, 1), -1);
	line(4, true);
	CHECK_EQ(take(&a, 1), -1); /* no edge */
	line(4, false);
	line(4, true);
	CHECK_EQ(take(&a, 1), 0x50);
	CHECK_EQ(take(&a, 1), -1);
	CHECK_EQ(get(0x18) & RIRR, 0);
	/* Two edges before the first is taken are one. */
	line(4, false);
	line(4, true);
	line(4, false);
	line(4, true);
	CHECK_EQ(take(&a, 1), 0x50);
	CHECK_EQ(take(&a, 1), -1);
	line(24, true);
	line(1000, true);
	apics_stop(&a);
}

static void test_level(void)
{
	start();
	route(10, LEVEL | 0x52, 2);
	line(10, true);
	CHECK_EQ(get(0x24), LEVEL | RIRR | 0x52);
	CHECK_EQ(lapic_ack(a.lapic, 2), 0x52);
	line(10, false);
	line(10, true); /* not again before the EOI */
	CHECK_EQ(rd(&a, 2, R_IRR + 0x20), 0);
	wr(&a, 2, R_EOI, 0);
	CHECK(a.cpus.cpu[2].intr); /* still asserted */
	CHECK_EQ(lapic_ack(a.lapic, 2), 0x52);
	line(10, false);
	wr(&a, 2, R_EOI, 0);
	CHECK_EQ(take(&a, 2), -1);
	CHECK_EQ(get(0x24), LEVEL | 0x52);
	/* Masked and unmasked while asserted. */
	route(10, LEVEL | MASKED | 0x52, 2);
	line(10, true);
	CHECK_EQ(take(&a, 2), -1);
	put(0x24, LEVEL | 0x52);
	CHECK_EQ(lapic_ack(a.lapic, 2), 0x52);
	/* mask, edge, level, unmask: Linux's EOI for this version. */
	line(10, false);
	put(0x24, MASKED | 0x52);
	put(0x24, LEVEL | MASKED | 0x52);
	CHECK_EQ(get(0x24) & RIRR, 0);
	wr(&a, 2, R_EOI, 0);
	/* Two pins share a vector: the EOI ends both. */
	route(10, LEVEL | 0x52, 2);
	route(11, LEVEL | 0x52, 2);
	line(10, true);
	line(11, true);
	CHECK_EQ(lapic_ack(a.lapic, 2), 0x52);
	line(10, false);
	wr(&a, 2, R_EOI, 0);
	CHECK_EQ(get(0x24) & RIRR, 0);
	CHECK_EQ(get(0x26) & RIRR, RIRR);
	CHECK_EQ(lapic_ack(a.lapic, 2), 0x52);
	line(11, false);
	/* An edge of the same vector elsewhere: its EOI is not told to the IOAPIC. */
	CHECK_EQ(lapic_msi(a.lapic, APIC | 3 << 12, 0x52), 1);
	CHECK_EQ(take(&a, 3), 0x52);
	CHECK_EQ(get(0x26) & RIRR, RIRR);
	/* x2APIC's EOI comes the same way. */
	CHECK_EQ(wrmsr(&a, 2, MSR_BASE, APIC | 3 << 10), HANDLED);
	CHECK_EQ(wrmsr(&a, 2, X2(R_EOI), 0), HANDLED);
	CHECK_EQ(get(0x26) & RIRR, 0);
	/* Nobody took it: no remote IRR that nobody would ever clear. */
	route(12, LEVEL | 0x53, 9);
	line(12, true);
	CHECK_EQ(get(0x28) & RIRR, 0);
	put(0x29, 1 << 24);
	CHECK_EQ(take(&a, 1), 0x53);
	apics_stop(&a);
}

static void test_destinations(void)
{
	start();
	route(2, 0x800 | 0x60, 0x06); /* logical: 1 and 2 */
	line(2, true);
	CHECK_EQ(take(&a, 0), -1);
	CHECK_EQ(take(&a, 1), 0x60);
	CHECK_EQ(take(&a, 2), 0x60);
	wr(&a, 1, R_TPR, 0x20);
	wr(&a, 2, R_TPR, 0x10);
	wr(&a, 3, R_TPR, 0x30);
	route(2, 0x900 | 0x60, 0x0e); /* lowest priority */
	line(2, false);
	line(2, true);
	CHECK_EQ(take(&a, 2), 0x60);
	CHECK_EQ(take(&a, 1), -1);
	route(2, 0x60, 0xff); /* physical broadcast */
	line(2, false);
	line(2, true);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(take(&a, i), 0x60);
	route(2, 0x400, 3); /* NMI */
	line(2, false);
	line(2, true);
	CHECK_EQ(a.cpus.cpu[3].nmi, 1);
	route(2, 0x500, 3); /* INIT */
	line(2, false);
	line(2, true);
	CHECK_EQ(a.cpus.cpu[3].init, 1);
	/* SMI and the reserved modes. */
	route(2, 0x200, 3);
	line(2, false);
	line(2, true);
	route(2, 0x600, 3);
	line(2, false);
	line(2, true);
	CHECK_EQ(a.cpus.cpu[3].sipi, 0);
	apics_stop(&a);
}

/* The PIC behind pin 0 in ExtINT mode: "through the IOAPIC", the last but one try of check_timer().
 */
static void test_extint(void)
{
	static const uint8_t words[] = {0x11, 0x30, 0x04, 0x01, 0x00};
	struct irq_line irq0;

	start();
	wr(&a, 0, R_LINT0, LVT_MASK | 0x700);
	for (unsigned i = 0; i < 5; i++)
		dev_out(&a.w, i ? 0x21 : 0x20, words[i]);
	route(0, 0x700, 1);
	irq0 = pic_line(a.pic, 0);
	irq_set(&irq0, true);
	line(0, true);
	CHECK(a.cpus.cpu[1].intr);
	CHECK_EQ(lapic_ack(a.lapic, 1), 0x30);
	CHECK(!a.cpus.cpu[1].intr);
	apics_stop(&a);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	for (unsigned i = 0; i < 40; i++) {
		uint64_t r = dev_random(seed);

		line((unsigned)(r % 24), r >> 8 & 1);
		put(0x10 + (unsigned)(r >> 16) % 50, (uint32_t)dev_random(seed));
		wr(&a, r >> 30 & 3, R_EOI, 0);
		lapic_ack(a.lapic, r >> 32 & 3);
	}
	dev_poke(&a.w.mmio, IOAPIC, 0x40, 8, seed, 30);
}

static void test_state(void)
{
	static struct dev_apics b;
	uint64_t seed = 12;
	char err[128];

	start();
	apics_start(&b, 4);
	CHECK_EQ(field_check(a.ioapic->state, err, sizeof(err)), 0);
	route(9, LEVEL | 0x59, 1);
	route(5, EDGE | 0x55, 0);
	line(5, true);
	line(9, true);
	CHECK_EQ(take(&a, 0), 0x55);
	/* In either order: no interrupt is lost or made up. */
	dev_move(a.lapic, b.lapic);
	dev_move(a.ioapic, b.ioapic);
	CHECK(!b.cpus.cpu[0].intr && b.cpus.cpu[1].intr);
	CHECK_EQ(lapic_ack(b.lapic, 1), 0x59);
	wr(&b, 1, R_EOI, 0); /* the line is still up over there too */
	CHECK_EQ(lapic_ack(b.lapic, 1), 0x59);
	b.ioapic->ops->reset(b.ioapic);
	b.lapic->ops->reset(b.lapic);
	dev_move(a.ioapic, b.ioapic);
	dev_move(a.lapic, b.lapic);
	CHECK(!b.cpus.cpu[0].intr && b.cpus.cpu[1].intr);
	/* A device that drives its line again after its own load makes no edge. */
	{
		const struct irq_line l = ioapic_line(b.ioapic, 5);

		irq_set(&l, true);
		CHECK(!b.cpus.cpu[0].intr);
	}
	for (unsigned i = 0; i < 4; i++)
		b.cpus.cpu[i].repeats = 0;
	for (unsigned i = 0; i < 200; i++)
		poke(NULL, &seed);
	printf("ioapic: %u of 1000 damaged states refused\n",
	       dev_corrupt(b.ioapic, a.ioapic, 1000, poke, NULL));
	apics_stop(&b);
	apics_stop(&a);
}

int main(void)
{
	test_registers();
	test_edge();
	test_level();
	test_destinations();
	test_extint();
	test_state();
	return dev_result("ioapic");
}
