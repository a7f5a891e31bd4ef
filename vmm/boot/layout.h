/*
 * Where the loaders of board pc put what they hand to a kernel (docs/memory-map-pc.md draws it).
 * All of it is read once by the kernel's first instructions, and is RAM in the e820 map afterwards.
 *
 * Everything lies between 7000h and 30000h: Linux takes the trampoline of its other processors from
 * the top of low memory (below 9F000h), and leaves the first page alone.
 */
#ifndef VMM_BOOT_LAYOUT_H
#define VMM_BOOT_LAYOUT_H

#define BOOT_LOW_START	  0x07000u
#define BOOT_INFO	  0x07000u /* boot_params, hvm_start_info or multiboot info: one page */
#define BOOT_GDT	  0x08000u
#define BOOT_TSS	  0x08100u /* 104 zero bytes: VMX wants a TR that is there */
#define BOOT_SETUP	  0x08800u /* setup_data of Linux: a seed for its random numbers */
#define BOOT_PML4	  0x09000u
#define BOOT_PDPT	  0x0a000u
#define BOOT_PD		  0x0b000u /* four pages: 4 GiB of identity in 2 MiB pages */
#define BOOT_STACK	  0x10000u /* grows down to f000h */
#define BOOT_CMDLINE	  0x10000u
#define BOOT_CMDLINE_SIZE 0x10000u /* bytes, with the closing NUL */
#define BOOT_LISTS	  0x20000u /* module and memory lists of PVH and multiboot */
#define BOOT_LISTS_SIZE	  0x10000u
#define BOOT_LOW_END	  0x30000u

/* Where the board puts the ACPI tables: the RSDP comes first, so that a guest which searches the
 * BIOS area (ACPI 6.3, 5.2.5.1) finds it, too. */
#define BOOT_ACPI      0xe0000u
#define BOOT_ACPI_SIZE 0x20000u

#endif
