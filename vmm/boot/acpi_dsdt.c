/* The DSDT of board pc: what no register can be asked for. */
#include <stdio.h>

#include "vmm/boot/acpi.h"
#include "vmm/boot/aml.h"

/* \_S5: the SLP_TYP that acpi_pm takes for "off" (ACPI 6.3, 7.4.2). */
enum { S5_SLP_TYP = 5 };

static size_t device(struct aml *a, const char *name, const char *hid)
{
	size_t mark = aml_device(a, name);

	aml_name(a, "_HID");
	aml_eisaid(a, hid);
	return mark;
}

static void sleep_states(struct aml *a)
{
	size_t mark;
	int i;

	aml_name(a, "_S5");
	mark = aml_package(a, 4);
	aml_int(a, S5_SLP_TYP);
	for (i = 0; i < 3; i++)
		aml_int(a, 0);
	aml_end(a, mark);
}

/* Each processor of the MADT has a device with the same _UID (ACPI 6.3, 5.2.12.2). */
static void processors(struct aml *a, unsigned vcpus)
{
	char name[5];
	size_t mark;
	unsigned i;

	for (i = 0; i < vcpus; i++) {
		snprintf(name, sizeof(name), "C%03X", i & 0xfff);
		mark = aml_device(a, name);
		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name(a, "_UID");
		aml_int(a, i);
		aml_end(a, mark);
	}
}

/* What answers at fixed places and has no device of its own: nothing may be put on top of it. */
static void motherboard(struct aml *a, const struct acpi_board *b)
{
	size_t mark = device(a, "MBRD", "PNP0C02"), crs;

	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_io(a, 0x20, 2); /* PIC, PIT, system control ports, ELCR */
	aml_io(a, 0xa0, 2);
	aml_io(a, 0x40, 4);
	aml_io(a, 0x61, 1);
	aml_io(a, 0x92, 1);
	aml_io(a, 0x4d0, 2);
	aml_io(a, b->pm_base, 16);
	if (b->debug_exit)
		aml_io(a, b->debug_exit, 4);
	aml_memory32(a, b->ioapic, 0x1000);
	aml_memory32(a, b->lapic, 0x1000);
	if (b->pci.ecam) /* or Linux ignores MCFG */
		aml_memory32(a, b->pci.ecam, 1 << 20);
	aml_resources_end(a, crs);
	aml_end(a, mark);
}

static void rtc(struct aml *a, const struct acpi_board *b)
{
	size_t mark = device(a, "RTC", "PNP0B00"), crs;

	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_io(a, 0x70, 2);
	aml_irq(a, b->rtc_irq, false);
	aml_resources_end(a, crs);
	aml_end(a, mark);
}

static void serial(struct aml *a, const struct acpi_board *b, unsigned i)
{
	bool shared = false;
	size_t mark, crs;
	char name[5];
	unsigned k;

	for (k = 0; k < b->serial_count; k++)
		shared |= k != i && b->serial[k].irq == b->serial[i].irq;

	snprintf(name, sizeof(name), "COM%u", (i + 1) % 10);
	mark = device(a, name, "PNP0501");
	aml_name(a, "_UID");
	aml_int(a, i + 1);
	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_io(a, b->serial[i].port, 8);
	aml_irq(a, b->serial[i].irq, shared);
	aml_resources_end(a, crs);
	aml_end(a, mark);
}

static void keyboard(struct aml *a)
{
	size_t mark = device(a, "KBD", "PNP0303"), crs;

	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_io(a, 0x60, 1);
	aml_io(a, 0x64, 1);
	aml_irq(a, 1, false);
	aml_resources_end(a, crs);
	aml_end(a, mark);

	mark = device(a, "MOU", "PNP0F13");
	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_irq(a, 12, false);
	aml_resources_end(a, crs);
	aml_end(a, mark);
}

static void pvpanic(struct aml *a, uint16_t port)
{
	size_t mark = aml_device(a, "PEVT"), crs;

	aml_name(a, "_HID"); /* four letters: no EISA id */
	aml_string(a, "QEMU0001");
	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_io(a, port, 1);
	aml_resources_end(a, crs);
	aml_end(a, mark);
}

/* INTA of each slot at a pin of the IOAPIC; without a link device it is level, active low (ACPI
 * 6.3, 6.2.13; PCI 3.0, 2.2.6). */
static void pci_routing(struct aml *a, const struct acpi_board *b)
{
	size_t prt, entry;
	unsigned slot;

	aml_name(a, "_PRT");
	prt = aml_package(a, (uint8_t)(b->pci.slots - 1));
	for (slot = 1; slot < b->pci.slots; slot++) { /* the host bridge has no interrupt */
		entry = aml_package(a, 4);
		aml_int(a, (uint64_t)slot << 16 | 0xffff);
		aml_int(a, 0);
		aml_int(a, 0);
		aml_int(a, b->pci.intx_gsi + slot % b->pci.intx_lines);
		aml_end(a, entry);
	}
	aml_end(a, prt);
}

static void pci(struct aml *a, const struct acpi_board *b)
{
	size_t mark = device(a, "PCI0", "PNP0A08"), crs;

	aml_name(a, "_CID");
	aml_eisaid(a, "PNP0A03");
	aml_name(a, "_UID");
	aml_int(a, 0);
	aml_name(a, "_CRS");
	crs = aml_resources(a);
	aml_bus_range(a, 0, 0);
	aml_io(a, 0xcf8, 8);
	aml_io_range(a, 0, 0xcf7);
	aml_io_range(a, 0xd00, 0xffff);
	aml_memory32_range(a, b->pci.mmio32, b->pci.mmio32_size);
	aml_memory64_range(a, b->pci.mmio64, b->pci.mmio64_size);
	aml_resources_end(a, crs);
	pci_routing(a, b);
	/* _OSC (6.2.11): the guest may control what it asks for; nothing here does it instead. */
	aml_method_echo(a, "_OSC", 4, 3);
	aml_end(a, mark);
}

void acpi_dsdt(struct aml *a, const struct acpi_board *b)
{
	size_t sb;
	unsigned i;

	sleep_states(a);
	sb = aml_scope(a, "_SB");
	processors(a, b->vcpus);
	motherboard(a, b);
	rtc(a, b);
	for (i = 0; i < b->serial_count; i++)
		serial(a, b, i);
	if (b->keyboard)
		keyboard(a);
	if (b->pvpanic)
		pvpanic(a, b->pvpanic);
	if (b->pci.ecam)
		pci(a, b);
	aml_end(a, sb);
}
