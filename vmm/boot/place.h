/*
 * Placing things in guest memory: what may lie where on this board, and words for the case that it
 * does not fit. Inside vmm/boot only.
 */
#ifndef VMM_BOOT_PLACE_H
#define VMM_BOOT_PLACE_H

#include "vmm/boot/elf.h"
#include "vmm/boot/image.h"

/* One boot_load in progress. */
struct boot_job {
	const struct boot_image *img;
	struct guest_memory *mem;
	const struct boot_board *board;
	struct x86_state *cpu;
	uint64_t kernel_start, kernel_end; /* what place_check has granted so far */
	uint64_t initrd, initrd_len;	   /* 0: none */
};

/* [start, start+len) is RAM, and clear of the loader's own structures: remembered as the kernel's.
 * 0, -ENOMEM or -EINVAL. what: subject of the error. */
int place_check(struct boot_job *job, uint64_t start, uint64_t len, const char *what,
		struct error *err);
/* Writes; -EFAULT. */
int place_put(struct boot_job *job, uint64_t gpa, const void *data, size_t len, struct error *err);
int place_zero(struct boot_job *job, uint64_t gpa, size_t len, struct error *err);
/* Loads every PT_LOAD segment at its physical address, zeroing the rest of it. The unpacked kernel
 * may be gone afterwards: its memory is given back on the way. */
int place_elf(struct boot_job *job, const struct elf *elf, struct error *err);
/* The initrd as high as possible with its last byte at or below `max`, above nothing of the kernel;
 * fills job->initrd. No initrd: does nothing. */
int place_initrd(struct boot_job *job, uint64_t max, struct error *err);
/* The command line with its NUL at BOOT_CMDLINE; prefix goes before it (may be empty). */
int place_cmdline(struct boot_job *job, struct blob prefix, struct error *err);

#endif
