#include "vmm/board/pc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pci/pci.h"
#include "devices/virtio/devices.h"
#include "vmm/board/board.h"
#include "vmm/boot/acpi.h"
#include "vmm/boot/layout.h"

static const struct {
	uint16_t port;
	uint8_t irq;
	const char *name;
} serials[BOARD_SERIAL_MAX] = {
	{0x3f8, 4, "serial0"}, {0x2f8, 3, "serial1"}, {0x3e8, 4, "serial2"}, {0x2e8, 3, "serial3"}};

static void isa_set(void *opaque, unsigned n, bool level)
{
	struct isa_irq *irq = opaque;

	pthread_mutex_lock(&irq->lock);
	if (level)
		irq->sources |= 1u << n;
	else
		irq->sources &= ~(1u << n);
	irq_set(&irq->pic, irq->sources != 0);
	irq_set(&irq->ioapic, irq->sources != 0);
	pthread_mutex_unlock(&irq->lock);
}

/* source: tells devices apart that share the line. */
static struct irq_line isa(struct board *b, unsigned irq, unsigned source)
{
	return (struct irq_line){.set = isa_set, .opaque = &b->isa[irq], .n = source};
}

static void wire_isa(struct board *b)
{
	for (unsigned n = 0; n < 16; n++) {
		pthread_mutex_init(&b->isa[n].lock, NULL);
		b->isa[n].pic = pic_line(b->pic, n);
		/* GSI 2 is the timer's; the PIC's cascade has no line of its own. */
		if (n != 2)
			b->isa[n].ioapic =
				ioapic_line(b->ioapic, n == PC_TIMER_IRQ ? PC_TIMER_GSI : n);
	}
}

/* Keeps what was made, so that one loop destroys it; returns ret. */
static int keep(struct board *b, int ret, struct device *dev, const char *what, struct error *err)
{
	if (ret)
		return error_set(err, ret, "cannot make the %s: %s", what, strerror(-ret));
	b->devices[b->device_count++] = dev;
	return 0;
}

static int create_interrupt_controllers(struct board *b, const struct board_host *h,
					struct error *err)
{
	const struct lapic_config config = {.vcpus = h->vcpus,
					    .timer_hz = h->timer_hz,
					    .pins = h->pins,
					    .clock = h->clock,
					    .timers = h->timers,
					    .tsc = h->tsc};
	int ret;

	ret = lapic_create(&b->lapic, &b->mmio, &config);
	ret = keep(b, ret, b->lapic, "local APICs", err);
	if (ret)
		return ret;
	ret = ioapic_create(&b->ioapic, &b->mmio, b->lapic, 0);
	ret = keep(b, ret, b->ioapic, "I/O APIC", err);
	if (ret)
		return ret;
	ret = pic_create(&b->pic, &b->ports, lapic_lint0(b->lapic));
	ret = keep(b, ret, b->pic, "PIC", err);
	if (ret)
		return ret;
	lapic_set_pic(b->lapic, b->pic);
	wire_isa(b);
	return 0;
}

static void send_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct board *b = opaque;

	(void)lapic_msi(b->lapic, addr, data);
}

static int create_pci(struct board *b, struct error *err)
{
	struct pci_host_config config = {
		.ports = &b->ports,
		.mmio = &b->mmio,
		.ecam = PC_PCI_ECAM,
		.mmio32 = {PC_PCI_MMIO32, PC_PCI_MMIO32_SIZE},
		.mmio64 = {PC_PCI_MMIO64, PC_PCI_MMIO64_SIZE},
		.msi = {send_msi, b},
	};
	int ret;

	for (unsigned i = 0; i < PCI_INTX_LINES; i++)
		config.line[i] = ioapic_line(b->ioapic, PC_PCI_GSI + i);
	ret = pci_host_create(&b->pci, &config);
	return keep(b, ret, b->pci, "PCI host", err);
}

/* name: kept by reference; "disk" with a number behind it lives in the board. */
static struct virtio_config virtio_at(struct board *b, const struct board_host *h, unsigned slot,
				      const char *name)
{
	return (struct virtio_config){
		.name = name, .pci = b->pci, .slot = slot, .works = h->works, .dma = h->dma};
}

static const char *numbered(struct board *b, const char *name, unsigned n)
{
	char *text = b->names[b->device_count];

	snprintf(text, sizeof(b->names[0]), "%s%u", name, n);
	return text;
}

static int create_disks_and_cards(struct board *b, const struct board_host *h, struct error *err)
{
	struct virtio_config config;
	struct device *dev = NULL;
	int ret = 0;

	for (unsigned i = 0; i < h->disks && !ret; i++) {
		config = virtio_at(b, h, PC_SLOT_DISKS + i, numbered(b, "disk", i));
		ret = virtio_blk_create(&dev, &config, &h->disk[i]);
		ret = keep(b, ret, dev, config.name, err);
		if (!ret)
			b->disks[b->disk_count++] = dev;
	}
	for (unsigned i = 0; i < h->cards && !ret; i++) {
		config = virtio_at(b, h, PC_SLOT_CARDS + i, numbered(b, "net", i));
		ret = virtio_net_create(&dev, &config, &h->card[i]);
		ret = keep(b, ret, dev, config.name, err);
	}
	return ret;
}

static int create_virtio(struct board *b, const struct board_host *h, struct error *err)
{
	struct virtio_config config = virtio_at(b, h, PC_SLOT_RNG, "rng0");
	struct device *dev = NULL;
	int ret = virtio_rng_create(&dev, &config);

	ret = keep(b, ret, dev, "virtio-rng", err);
	if (!ret && h->console) {
		config = virtio_at(b, h, PC_SLOT_CONSOLE, "console0");
		ret = virtio_console_create(&dev, &config, h->console);
		ret = keep(b, ret, dev, "virtio-console", err);
	}
	if (!ret) {
		config = virtio_at(b, h, PC_SLOT_BALLOON, "balloon0");
		ret = virtio_balloon_create(&b->balloon, &config, &h->balloon);
		ret = keep(b, ret, b->balloon, "virtio-balloon", err);
	}
	if (!ret && h->vsock) {
		config = virtio_at(b, h, PC_SLOT_VSOCK, "vsock0");
		ret = virtio_vsock_create(&dev, &config, h->vsock);
		ret = keep(b, ret, dev, "virtio-vsock", err);
	}
	return ret ? ret : create_disks_and_cards(b, h, err);
}

/* serial2 shares serial0's interrupt as on every PC; ISA lines are edges, so drivers of both must
 * poll. */
static int create_serials(struct board *b, const struct board_host *h, struct error *err)
{
	struct device *dev;
	int ret = 0;

	for (unsigned i = 0; i < h->serials && !ret; i++) {
		dev = NULL;
		ret = serial8250_create(&dev, serials[i].name, &b->ports, serials[i].port,
					isa(b, serials[i].irq, i), h->serial[i]);
		ret = keep(b, ret, dev, serials[i].name, err);
	}
	return ret;
}

static int create_rest(struct board *b, const struct board_host *h, struct error *err)
{
	struct device *dev = NULL;
	int ret;

	ret = pit_create(&dev, &b->ports, isa(b, PC_TIMER_IRQ, 0), h->clock, h->timers);
	ret = keep(b, ret, dev, "PIT", err);
	if (ret)
		return ret;
	ret = rtc_cmos_create(&dev, &b->ports, isa(b, PC_RTC_IRQ, 0), h->clock, h->timers);
	ret = keep(b, ret, dev, "RTC", err);
	if (ret)
		return ret;
	ret = i8042_create(&dev, &b->ports, isa(b, PC_KEYBOARD_IRQ, 0), isa(b, PC_MOUSE_IRQ, 0),
			   h->sink);
	ret = keep(b, ret, dev, "i8042", err);
	if (ret)
		return ret;
	ret = acpi_pm_create(&b->pm, &b->ports, PC_ACPI_PM_PORT, isa(b, PC_SCI_IRQ, 0), h->clock,
			     h->sink);
	ret = keep(b, ret, b->pm, "ACPI registers", err);
	if (ret)
		return ret;
	ret = pvpanic_create(&dev, &b->ports, h->sink);
	ret = keep(b, ret, dev, "pvpanic", err);
	if (ret || !h->debug_exit)
		return ret;
	ret = debug_exit_create(&dev, &b->ports, h->debug_exit, h->sink);
	if (ret == -EEXIST)
		return error_set(err, ret,
				 "--debug-exit: port %#x belongs to another device; choose another",
				 h->debug_exit);
	return keep(b, ret, dev, "debug-exit device", err);
}

int board_pc_create(struct board *board, const struct board_host *host, struct error *err)
{
	int ret;

	*board = (struct board){.name = PC_BOARD_NAME};
	ret = create_interrupt_controllers(board, host, err);
	if (!ret)
		ret = create_serials(board, host, err);
	if (!ret)
		ret = create_rest(board, host, err);
	if (!ret)
		ret = create_pci(board, err);
	if (!ret)
		ret = create_virtio(board, host, err);
	if (ret)
		board_destroy(board);
	return ret;
}

static unsigned memory_map(struct board *b, const struct guest_memory *m)
{
	const uint64_t low_end = 0x9fc00,
		       one_mib = 1 << 20; /* an EBDA's kilobyte as firmware leaves it */
	unsigned n = 0;

	b->e820[n++] = (struct boot_e820){0, low_end, BOOT_E820_RAM};
	b->e820[n++] = (struct boot_e820){low_end, 0xa0000 - low_end, BOOT_E820_RESERVED};
	b->e820[n++] = (struct boot_e820){BOOT_ACPI, BOOT_ACPI_SIZE, BOOT_E820_RESERVED};
	b->e820[n++] = (struct boot_e820){one_mib, m->low - one_mib, BOOT_E820_RAM};
	/* Linux looks here for MCFG's range before it can ask ACPI for it. */
	b->e820[n++] = (struct boot_e820){PC_PCI_ECAM, PCI_ECAM_SIZE, BOOT_E820_RESERVED};
	if (m->size > m->low)
		b->e820[n++] = (struct boot_e820){4ull << 30, m->size - m->low, BOOT_E820_RAM};
	return n;
}

int board_pc_describe(struct board *board, const struct board_host *host,
		      struct guest_memory *memory, struct boot_board *boot, struct error *err)
{
	struct acpi_board acpi = {
		.vcpus = host->vcpus,
		.lapic = PC_LAPIC_BASE,
		.ioapic = PC_IOAPIC_BASE,
		.pm_base = PC_ACPI_PM_PORT,
		.sci = PC_SCI_IRQ,
		.serial_count = host->serials,
		.rtc_irq = PC_RTC_IRQ,
		.pvpanic = PC_PVPANIC_PORT,
		.debug_exit = host->debug_exit,
		.pci = {.ecam = PC_PCI_ECAM,
			.mmio32 = PC_PCI_MMIO32,
			.mmio32_size = PC_PCI_MMIO32_SIZE,
			.mmio64 = PC_PCI_MMIO64,
			.mmio64_size = PC_PCI_MMIO64_SIZE,
			.slots = PCI_SLOTS,
			.intx_gsi = PC_PCI_GSI,
			.intx_lines = PCI_INTX_LINES},
	};
	uint8_t *tables;
	size_t len;
	int ret;

	for (unsigned i = 0; i < host->serials; i++) {
		acpi.serial[i].port = serials[i].port;
		acpi.serial[i].irq = serials[i].irq;
	}
	ret = acpi_build(&acpi, BOOT_ACPI, BOOT_ACPI_SIZE, &tables, &len, err);
	if (ret)
		return ret;
	ret = memory_write(memory, NULL, BOOT_ACPI, tables, len);
	free(tables);
	if (ret)
		return error_set(err, ret,
				 "--memory: too little for the ACPI tables; give at least 1M");
	*boot = (struct boot_board){
		.e820 = board->e820, .e820_count = memory_map(board, memory), .rsdp = BOOT_ACPI};
	return 0;
}

void board_destroy(struct board *board)
{
	/* Last made, first gone: a device may drive a line of an older one. */
	while (board->device_count) {
		struct device *dev = board->devices[--board->device_count];

		dev->ops->destroy(dev);
	}
	io_space_free(&board->ports);
	io_space_free(&board->mmio);
}

void board_reset(struct board *board)
{
	for (unsigned i = 0; i < board->device_count; i++)
		board->devices[i]->ops->reset(board->devices[i]);
}
