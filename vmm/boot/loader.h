/*
 * What a loader is to boot.c, and what the loaders and boot.c tell each other. Inside vmm/boot
 * only.
 */
#ifndef VMM_BOOT_LOADER_H
#define VMM_BOOT_LOADER_H

#include "vmm/boot/elf.h"
#include "vmm/boot/place.h"

/* An image whose kernel is unpacked (kernel_open). */
struct boot_loader {
	/* Everything that needs no guest memory. Texts of errors are predicates about the kernel.
	 */
	int (*check)(const struct boot_image *img, struct error *err);
	/* Called with an image that passed check. Texts are sentences. */
	int (*load)(struct boot_job *job, struct error *err);
};
extern const struct boot_loader boot_linux_elf, boot_linux_raw, boot_pvh, boot_multiboot;
extern const struct boot_loader *const boot_loaders[BOOT_PROTOCOLS];

/* The command line has at most `limit` bytes, and finds room behind `before` others. -E2BIG. */
int boot_check_cmdline(const struct boot_image *img, size_t limit, size_t before,
		       struct error *err);

/* A bzImage taken apart (Documentation/x86/boot.rst). */
struct bzimage {
	struct blob setup;   /* setup header: bytes 1f1h.. of the file */
	struct blob kernel;  /* protected-mode part */
	struct blob payload; /* packed vmlinux in it; empty if the header says none */
	struct blob version; /* "6.1.0-56-cloud-amd64": what uname would say */
};
bool bzimage_is(struct blob file);
int bzimage_open(struct bzimage *bz, struct blob file, struct error *err);
/* Can it be started by the 64-bit protocol and unpack itself? */
bool bzimage_self_unpacking(const struct bzimage *bz);

/* The entry that a PVH note names. */
bool pvh_find(const struct elf *elf, uint32_t *entry);

/* Where a multiboot header lies (4-byte aligned, in the first 8 KiB), or -1. */
long multiboot_find(struct blob file);
/* Does the header carry load addresses, so that the file's format does not matter? */
bool multiboot_has_addresses(struct blob file);

/* What a file is that is no kernel for this machine: a predicate. */
const char *foreign_kind(struct blob file);

#endif
