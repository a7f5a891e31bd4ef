/*
 * What a loader is to boot.c, and what the loaders and boot.c tell each other. Inside vmm/boot
 * only.
 */
#ifndef VMM_BOOT_LOADER_H
#define VMM_BOOT_LOADER_H

#include "vmm/boot/elf.h"
#include "vmm/boot/place.h"

struct boot_loader {
	/* Everything about the parts of an image that needs no guest memory. Errors are sentences.
	 */
	int (*check)(const struct boot_image *img, struct error *err);
	/* Called with an image that passed check. */
	int (*load)(struct boot_job *job, struct error *err);
};
extern const struct boot_loader boot_linux_elf, boot_linux_raw, boot_pvh, boot_multiboot;

/* Texts about a file are predicates ("is truncated"); this makes a sentence of one. Returns code.
 */
int boot_subject(struct error *err, int code, const char *subject, const struct error *predicate);

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
