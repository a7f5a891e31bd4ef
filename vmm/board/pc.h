/* The numbers of board pc-1.0; docs/memory-map-pc.md draws them. */
#ifndef VMM_BOARD_PC_H
#define VMM_BOARD_PC_H

#define PC_BOARD_NAME "pc-1.0"

enum {
	PC_ACPI_PM_PORT = 0x600, /* PM1 event, PM1 control +4, PM timer +8, reset register +12 */
	PC_SCI_IRQ = 9,
	PC_RTC_IRQ = 8,
	PC_TIMER_IRQ = 0,
	PC_TIMER_GSI = 2, /* interrupt source override */
	PC_KEYBOARD_IRQ = 1,
	PC_MOUSE_IRQ = 12,
	PC_PVPANIC_PORT = 0x505,
	PC_SLOT_RNG = 1,
	PC_SLOT_CONSOLE = 2,
	PC_SLOT_BALLOON = 3,
	PC_SLOT_VSOCK = 4,
	PC_SLOT_DISKS = 8,  /* and the 15 that follow */
	PC_SLOT_CARDS = 24, /* and the 7 that follow */
	PC_PCI_GSI = 16,    /* INTA of slot n: GSI 16 + n % 8 */
};
#define PC_IOAPIC_BASE	   0xfec00000u
#define PC_LAPIC_BASE	   0xfee00000u
#define PC_PCI_MMIO32	   0xc0000000u /* 512 MiB: 16 MiB for each slot */
#define PC_PCI_MMIO32_SIZE 0x20000000u
#define PC_PCI_ECAM	   0xe0000000u	   /* 1 MiB: bus 0 */
#define PC_PCI_MMIO64	   0x8000000000ull /* upper half of 40 bits: 16 GiB for each slot */
#define PC_PCI_MMIO64_SIZE 0x8000000000ull
#define PC_CRYSTAL_HZ	   25000000u   /* of CPUID 15h; drives the APIC timer */
#define PC_TSC_HZ	   1000000000u /* what a machine is created with: a tick is a nanosecond */

#endif
