/*
 * The registers with which kernels are entered, and the descriptor and page tables that belong to
 * them. Both change only what the protocols fix in a processor that was just reset.
 */
#ifndef VMM_BOOT_ENTRY_H
#define VMM_BOOT_ENTRY_H

#include "vmm/boot/place.h"

/* Selectors: __BOOT_CS and __BOOT_DS of the Linux protocol, fine for the others. */
enum { ENTRY_CS = 0x10, ENTRY_DS = 0x18, ENTRY_TR = 0x20 };

/* Long mode, first 4 GiB mapped to themselves (Documentation/x86/boot.rst, "64-bit Boot Protocol").
 */
int entry_long(struct boot_job *job, uint64_t rip, struct error *err);
/* Flat protected mode without paging (PVH, multiboot, Linux for i386). */
int entry_flat(struct boot_job *job, uint64_t eip, struct error *err);

#endif
