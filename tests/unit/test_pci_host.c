/* PCI: both configuration mechanisms, BAR sizing and moving, INTx, MSI-X, hostile accesses, state.
 */
#include <errno.h>

#include "devices/pci/pci.h"
#include "tests/unit/dev_util.h"

#define ECAM   0xe0000000ULL
#define MMIO32 0xc0000000ULL
#define MMIO64 0x20000000000ULL
#define SLOT   3

struct card {
	struct device dev;
	struct pci_function fn;
	uint64_t last_off, last_value;
	unsigned reads, writes, window_reads, window_writes, bar;
};

static struct world {
	struct dev_world w;
	struct dev_wire wires[PCI_INTX_LINES];
	struct device *host;
	struct card card;
	uint64_t msi_addr;
	uint32_t msi_data;
	unsigned msis;
} a, b;

static void send_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct world *x = opaque;

	x->msi_addr = addr;
	x->msi_data = data;
	x->msis++;
}

static uint64_t card_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct card *c = opaque;

	(void)vcpu;
	c->reads++;
	c->last_off = off;
	return 0x8877665544332211 & all_ones(size);
}

static void card_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct card *c = opaque;

	(void)vcpu, (void)size;
	c->writes++;
	c->last_off = off;
	c->last_value = value;
}

static uint64_t window_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	(void)vcpu, (void)size;
	((struct card *)opaque)->window_reads++;
	return 0xa0 + off;
}

static void window_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	(void)vcpu, (void)off, (void)size, (void)value;
	((struct card *)opaque)->window_writes++;
}

static const struct io_region_ops card_ops = {card_read, card_write};
static const struct io_region_ops window_ops = {window_read, window_write};
static const struct field card_fields[] = {
	FIELD_SUB(struct card, fn, &pci_function_state, 1),
	FIELD_END,
};
static const struct state_desc card_state = {.name = "card", .version = 1, .fields = card_fields};

static void card_reset(struct device *dev)
{
	pci_function_reset(&((struct card *)dev)->fn);
}
static const struct device_ops card_dev_ops = {.reset = card_reset};

/* BAR 0: 8 KiB with MSI-X behind; BAR 2: 64 bits in the upper window. */
static void start(struct world *x)
{
	static const struct pci_ids ids = {.vendor = 0x1234,
					   .device = 0x5678,
					   .subvendor = 0x9abc,
					   .subsystem = 0xdef0,
					   .class_code = 0xff0001,
					   .revision = 7,
					   .intx = true};
	static const uint8_t body[6] = {1, 2, 3, 4, 5, 6}, mask[6] = {0, 0xff};
	struct pci_host_config config = {.ports = &x->w.ports,
					 .mmio = &x->w.mmio,
					 .ecam = ECAM,
					 .mmio32 = {MMIO32, 0x20000000},
					 .mmio64 = {MMIO64, 0x10000000000},
					 .msi = {send_msi, x}};
	struct pci_function *fn = &x->card.fn;

	*x = (struct world){0};
	dev_world_init(&x->w);
	for (unsigned i = 0; i < PCI_INTX_LINES; i++)
		config.line[i] = dev_wire_line(x->wires, i);
	x->card.dev = (struct device){.name = "card", .ops = &card_dev_ops, .state = &card_state};
	CHECK_EQ(pci_host_create(&x->host, &config), 0);
	CHECK_EQ(pci_function_init(fn, x->host, SLOT, "card", &ids), 0);
	CHECK_EQ(pci_bar_add(fn, 0, 0, 8192, &card_ops, &x->card), 0);
	CHECK_EQ(pci_bar_add(fn, 2, PCI_BAR_64BIT | PCI_BAR_PREFETCH | PCI_BAR_HIGH, 1 << 16,
			     &card_ops, &x->card),
		 0);
	CHECK_EQ(pci_cap_add(fn, PCI_CAP_VENDOR, body, mask, sizeof(body)), 0x40);
	pci_window_add(fn, 0x44, &window_ops, &x->card);
	CHECK_EQ(pci_msix_add(fn, 0, 5, 4096, 6144), 0);
	pci_function_reset(fn);
}

static void stop(struct world *x)
{
	pci_function_exit(&x->card.fn);
	x->host->ops->destroy(x->host);
	CHECK_EQ(x->w.mmio.count + x->w.ports.count, 0);
	dev_world_free(&x->w);
}

static uint64_t cfg(unsigned reg, unsigned size)
{
	uint64_t value;

	io_space_write(&a.w.ports, 0, 0xcf8, 4, 0x80000000 | SLOT << 11 | (reg & ~3u));
	value = io_space_read(&a.w.ports, 0, 0xcfc + (reg & 3), size);
	CHECK_EQ(io_space_read(&a.w.mmio, 0, ECAM + (SLOT << 15) + reg, size), value);
	return value;
}

static void set(unsigned reg, unsigned size, uint32_t value)
{
	io_space_write(&a.w.mmio, 0, ECAM + (SLOT << 15) + reg, size, value);
}

static uint32_t mmio(uint64_t addr)
{
	return (uint32_t)io_space_read(&a.w.mmio, 0, addr, 4);
}

static void put(uint64_t addr, uint32_t value)
{
	io_space_write(&a.w.mmio, 0, addr, 4, value);
}

static void test_config(void)
{
	start(&a);
	CHECK_EQ(cfg(0, 4), 0x56781234);
	CHECK_EQ(cfg(8, 4), 0xff000107);
	CHECK_EQ(cfg(0x2c, 4), 0xdef09abc);
	CHECK_EQ(cfg(0x3d, 1), 1);
	CHECK_EQ(cfg(6, 2), 0x10);
	CHECK_EQ(cfg(1, 1), 0x12);
	/* The list of capabilities. */
	CHECK_EQ(cfg(0x34, 1), 0x40);
	CHECK_EQ(cfg(0x40, 2), 0x4809);
	CHECK_EQ(cfg(0x48, 2), 0x0011);
	CHECK_EQ(cfg(0x4a, 2), 4);
	CHECK_EQ(cfg(0x4c, 4), 4096);
	CHECK_EQ(cfg(0x50, 4), 6144);
	/* Read-only, writable, and the bytes that are the device's own. */
	set(0, 4, 0xffffffff);
	set(8, 4, 0);
	set(0x3c, 2, 0xffff);
	set(0x42, 2, 0xffff);
	CHECK_EQ(cfg(0, 4), 0x56781234);
	CHECK_EQ(cfg(8, 4), 0xff000107);
	CHECK_EQ(cfg(0x3c, 2), 0x1ff);
	CHECK_EQ(cfg(0x42, 2), 0xff01);
	CHECK_EQ(cfg(0x45, 1), 0xa1);
	CHECK_EQ(a.card.window_reads, 2);
	set(0x44, 4, 1);
	CHECK_EQ(a.card.window_writes, 1);
	set(4, 2, 0xffff);
	CHECK_EQ(cfg(4, 2), 0x546);
	/* Nobody: other functions, slots, buses, extended space, a switched off mechanism. */
	CHECK_EQ(mmio(ECAM + (SLOT << 15) + 0x1000), 0xffffffff);
	CHECK_EQ(mmio(ECAM + (4 << 15)), 0xffffffff);
	CHECK_EQ(mmio(ECAM + (SLOT << 15) + 0x100), 0xffffffff);
	CHECK_EQ(mmio(ECAM), 0x00081b36);
	io_space_write(&a.w.ports, 0, 0xcf8, 4, 0x80010000 | SLOT << 11);
	CHECK_EQ(io_space_read(&a.w.ports, 0, 0xcfc, 4), 0xffffffff);
	io_space_write(&a.w.ports, 0, 0xcf8, 4, SLOT << 11);
	CHECK_EQ(io_space_read(&a.w.ports, 0, 0xcfc, 4), 0xffffffff);
	io_space_write(&a.w.ports, 0, 0xcf9, 1, 6);
	CHECK_EQ(io_space_read(&a.w.ports, 0, 0xcf8, 4), SLOT << 11);
	CHECK_EQ(io_space_read(&a.w.mmio, 0, ECAM + (SLOT << 15), 8),
		 0x0010000056781234 | 0x546ULL << 32);
	stop(&a);
}

static void test_bars(void)
{
	const uint64_t bar0 = MMIO32 + SLOT * 0x1000000,
		       bar2 = MMIO64 + SLOT * 0x800000000 + 0x200000000;

	start(&a);
	CHECK_EQ(cfg(0x10, 4), bar0);
	CHECK_EQ(cfg(0x18, 4), (uint32_t)bar2 | 12);
	CHECK_EQ(cfg(0x1c, 4), bar2 >> 32);
	CHECK_EQ(mmio(bar0), 0xffffffff); /* decoding is off */
	set(4, 2, 2);
	CHECK_EQ(mmio(bar0 + 8), 0x44332211);
	CHECK_EQ(a.card.last_off, 8);
	CHECK_EQ(io_space_read(&a.w.mmio, 0, bar2 + 0x8000, 8), 0x8877665544332211);
	CHECK_EQ(a.card.last_off, 0x8000);
	/* Sizing: nothing answers meanwhile. */
	set(0x10, 4, 0xffffffff);
	CHECK_EQ(cfg(0x10, 4), 0xffffe000);
	CHECK_EQ(mmio(bar0), 0xffffffff);
	set(0x18, 4, 0xffffffff);
	set(0x1c, 4, 0xffffffff);
	CHECK_EQ(cfg(0x18, 4), 0xffff000c);
	CHECK_EQ(cfg(0x1c, 4), 0xffffffff);
	set(0x24, 4, 0xffffffff);
	CHECK_EQ(cfg(0x24, 4), 0);
	/* Elsewhere in the windows, the end of one, outside of them. */
	set(0x10, 4, MMIO32 + 0x1fffe000);
	put(MMIO32 + 0x1fffe004, 77);
	CHECK_EQ(a.card.last_value, 77);
	CHECK_EQ(a.card.last_off, 4);
	set(0x10, 4, 0xfee00000);
	CHECK_EQ(mmio(MMIO32 + 0x1fffe004), 0xffffffff);
	set(0x18, 4, (uint32_t)MMIO32); /* a wide one in the low window */
	set(0x1c, 4, 0);
	CHECK_EQ(mmio(MMIO32 + 12), 0x44332211);
	/* An access across the end of a BAR. */
	a.card.writes = 0;
	io_space_write(&a.w.mmio, 0, MMIO32 + 0xfffe, 4, 0x01020304);
	CHECK_EQ(a.card.writes, 2);
	stop(&a);
}

static void test_intx(void)
{
	start(&a);
	pci_intx_set(&a.card.fn, true);
	CHECK(a.wires[SLOT].level);
	CHECK_EQ(cfg(6, 2), 0x18);
	set(4, 2, 0x400);
	CHECK(!a.wires[SLOT].level);
	CHECK_EQ(cfg(6, 2), 0x18);
	set(4, 2, 0);
	CHECK(a.wires[SLOT].level);
	set(0x4a, 2, 0x8000); /* MSI-X takes its place */
	CHECK(!a.wires[SLOT].level);
	set(0x4a, 2, 0);
	CHECK(a.wires[SLOT].level);
	card_reset(&a.card.dev);
	CHECK(!a.wires[SLOT].level);
	CHECK_EQ(a.wires[SLOT].rises, 3);
	stop(&a);
}

static void test_msix(void)
{
	const uint64_t bar0 = MMIO32 + SLOT * 0x1000000, table = bar0 + 4096, pba = bar0 + 6144;

	start(&a);
	set(4, 2, 6);
	CHECK_EQ(mmio(table + 12), 1);
	put(table + 16, 0xfee01003);
	put(table + 20, 0);
	io_space_write(&a.w.mmio, 0, table + 24, 8, 0xffffffff00004041);
	CHECK_EQ(mmio(table + 16), 0xfee01000);
	CHECK_EQ(io_space_read(&a.w.mmio, 0, table + 24, 8), 0x100004041);
	pci_msix_notify(&a.card.fn, 1);
	CHECK_EQ(mmio(pba), 0); /* MSI-X is off: nothing is kept */
	set(0x4a, 2, 0xc000);
	pci_msix_notify(&a.card.fn, 1);
	CHECK_EQ(mmio(pba), 2);
	put(table + 28, 0);
	CHECK_EQ(a.msis, 0); /* the function is masked */
	set(0x4a, 2, 0x8000);
	CHECK_EQ(a.msis, 1);
	CHECK_EQ(a.msi_addr, 0xfee01000);
	CHECK_EQ(a.msi_data, 0x4041);
	CHECK_EQ(mmio(pba), 0);
	put(table + 28, 1);
	pci_msix_notify(&a.card.fn, 1);
	put(pba, 0xff);
	CHECK_EQ(mmio(pba), 2);
	CHECK_EQ(io_space_read(&a.w.mmio, 0, pba, 1), 2);
	io_space_write(&a.w.mmio, 0, table + 28, 1, 0); /* too narrow */
	CHECK_EQ(a.msis, 1);
	put(table + 28, 0);
	CHECK_EQ(a.msis, 2);
	set(4, 2, 2);
	pci_msix_notify(&a.card.fn, 1);
	CHECK_EQ(a.msis, 2); /* no bus master */
	set(4, 2, 6);
	CHECK_EQ(a.msis, 3);
	pci_msix_notify(&a.card.fn, 5);
	pci_msix_notify(&a.card.fn, 1000);
	CHECK_EQ(a.msis, 3);
	CHECK_EQ(a.card.reads + a.card.writes, 0);
	stop(&a);
}

static void poke(void *opaque, uint64_t *seed)
{
	struct world *x = opaque;

	dev_poke(&x->w.ports, 0xcf8, 8, 4, seed, 30);
	dev_poke(&x->w.mmio, ECAM + (SLOT << 15), 0x120, 8, seed, 60);
	dev_poke(&x->w.mmio, MMIO32 + SLOT * 0x1000000, 8192, 8, seed, 60);
	pci_msix_notify(&x->card.fn, (unsigned)dev_random(seed) % 8);
	pci_intx_set(&x->card.fn, dev_random(seed) & 1);
}

static void test_state(void)
{
	uint64_t seed = 5;
	char err[128];

	start(&a);
	start(&b);
	CHECK_EQ(field_check(a.host->state, err, sizeof(err)), 0);
	CHECK_EQ(field_check(&card_state, err, sizeof(err)), 0);
	set(4, 2, 6);
	set(0x10, 4, MMIO32 + 0x4000);
	pci_intx_set(&a.card.fn, true);
	dev_move(&a.card.dev, &b.card.dev);
	CHECK(b.wires[SLOT].level);
	CHECK_EQ(io_space_read(&b.w.mmio, 0, MMIO32 + 0x4000, 4), 0x44332211);
	for (unsigned i = 0; i < 300; i++) {
		poke(&a, &seed);
		dev_move(a.host, b.host);
		dev_move(&a.card.dev, &b.card.dev);
	}
	printf("pci: %u of 1000 damaged states refused\n",
	       dev_corrupt(&b.card.dev, &a.card.dev, 1000, poke, &a));
	stop(&b);
	stop(&a);
}

static void test_refusals(void)
{
	static const struct pci_ids ids = {.vendor = 1};
	static struct pci_function fn;
	struct pci_function *card = &a.card.fn;

	start(&a);
	CHECK_EQ(pci_function_init(&fn, a.host, SLOT, "x", &ids), -EEXIST);
	CHECK_EQ(pci_function_init(&fn, a.host, PCI_SLOTS, "x", &ids), -EINVAL);
	CHECK_EQ(pci_bar_add(card, 0, 0, 4096, &card_ops, NULL), -EEXIST);
	CHECK_EQ(pci_bar_add(card, 3, 0, 4096, &card_ops, NULL), -EEXIST); /* upper half of 2 */
	CHECK_EQ(pci_bar_add(card, 1, PCI_BAR_64BIT, 4096, &card_ops, NULL), -EEXIST);
	CHECK_EQ(pci_bar_add(card, 4, 0, 4097, &card_ops, NULL), -EINVAL);
	CHECK_EQ(pci_bar_add(card, 4, 0, 1 << 22, &card_ops, NULL), -EINVAL);
	CHECK_EQ(pci_bar_add(card, 5, PCI_BAR_64BIT, 4096, &card_ops, NULL), -EINVAL);
	CHECK_EQ(pci_bar_add(card, 4, PCI_BAR_HIGH, 4096, &card_ops, NULL), -EINVAL);
	CHECK_EQ(pci_cap_add(card, 9, a.wires, NULL, 200), -ENOSPC);
	stop(&a);
}

int main(void)
{
	test_config();
	test_bars();
	test_intx();
	test_msix();
	test_state();
	test_refusals();
	return dev_result("pci");
}
