/*
 * The ACPI tables of board pc (ACPI 6.3): RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT, MCFG.
 */
#ifndef VMM_BOOT_ACPI_H
#define VMM_BOOT_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/error.h"

enum { ACPI_MAX_SERIAL = 4 };

/* Numbers of the board; APIC ids are 0..vcpus-1. */
struct acpi_board {
	unsigned vcpus;
	uint32_t lapic;	 /* FEE00000h */
	uint32_t ioapic; /* FEC00000h, 24 pins from GSI 0 */
	uint8_t ioapic_id;
	uint16_t pm_base; /* acpi_pm_create: PM1 events +0, PM1 control +4, timer +8, reset +12 */
	uint8_t sci;	  /* IRQ and GSI of the SCI: level, active high */
	struct {
		uint16_t port;
		uint8_t irq;
	} serial[ACPI_MAX_SERIAL];
	unsigned serial_count;
	uint8_t rtc_irq;     /* 8 */
	bool keyboard;	     /* a PS/2 keyboard or mouse is there: see below */
	uint16_t pvpanic;    /* its port, or 0 */
	uint16_t debug_exit; /* its port (4 ports), or 0 */
	/* The PCI host with its one bus; ecam 0: there is none. */
	struct {
		uint32_t ecam, mmio32, mmio32_size;
		uint64_t mmio64, mmio64_size;
		unsigned slots, intx_gsi, intx_lines; /* INTA of slot n: intx_gsi + n % lines */
	} pci;
};

/* Builds the tables as they are to lie at guest address `base` (a multiple of 64, below 4 GiB); the
 * RSDP comes first. *data is malloc'ed, the caller frees it. -EINVAL (the board's numbers are
 * impossible), -ENOMEM, -E2BIG (longer than max).
 *
 * `keyboard` decides IAPC_BOOT_ARCH bit 1 (FADT, table 5-10) and whether the DSDT has PNP0303 and
 * PNP0F13. The board's i8042 without a keyboard leaves it clear: Linux then does not probe the
 * controller (tens of port accesses with timeouts, each an exit), and "reboot=k" works all the
 * same, for it writes FEh to port 64h without asking ACPI (arch/x86/kernel/reboot.c). */
int acpi_build(const struct acpi_board *board, uint32_t base, size_t max, uint8_t **data,
	       size_t *len, struct error *err);

/* Inside vmm/boot: the DSDT's AML. */
struct aml;
void acpi_dsdt(struct aml *a, const struct acpi_board *board);

#endif
