/*
 * Starting a kernel: files in, a loaded guest and the registers of its first processor out.
 *
 * A boot image holds the kernel file, the initrd and the command line in one sealed memfd. It is
 * made once, from the files; a reset loads from it again and needs no path any more, and a
 * migration sends its bytes. Nothing writes to it after boot_open. The kernel is unpacked in memory
 * of its own, which boot_load gives back.
 *
 * Recognised kernels, in this order; each may be packed by gzip, xz, lzma, zstd or lz4 as a whole:
 * - bzImage: entered by the 64-bit boot protocol of Linux (Documentation/x86/boot.rst). The payload
 *   is unpacked here, on the host; one that only the kernel's own code can unpack (bzip2, lzo) is
 *   unpacked by it. A payload for i386 is entered by the 32-bit protocol.
 * - ELF with a PVH note (XEN_ELFNOTE_PHYS32_ENTRY), whatever else it is: its author wrote down
 *   where and how it is to be entered.
 * - multiboot, version 1: in an ELF, or with the address fields in the header.
 * - ELF for x86-64 with neither: vmlinux, entered by the 64-bit boot protocol of Linux.
 */
#ifndef VMM_BOOT_BOOT_H
#define VMM_BOOT_BOOT_H

#include <stddef.h>
#include <stdint.h>

#include "cpu/x86/state.h"
#include "vmm/error.h"
#include "vmm/memory.h"

struct boot_image;

struct boot_request {
	const char *kernel;  /* path */
	const char *initrd;  /* path, or NULL */
	const char *cmdline; /* or NULL: empty */
};

enum boot_e820_type { BOOT_E820_RAM = 1, BOOT_E820_RESERVED = 2, BOOT_E820_ACPI = 3 };
struct boot_e820 {
	uint64_t addr, size; /* bytes */
	uint32_t type;	     /* enum boot_e820_type */
};
struct boot_board {
	const struct boot_e820 *e820; /* sorted, disjoint, at most 128 */
	unsigned e820_count;
	uint64_t rsdp; /* gpa; 0: the board has no ACPI */
};

/* Reads the files and checks all that needs no VM: missing, empty, truncated, of another
 * architecture, not unpackable, command line too long. On success *out is the caller's
 * (boot_close). Errors: the system's (-ENOENT, -EACCES...), -ENOEXEC (not a kernel of this
 * machine), -EBADMSG (truncated or damaged), -EFBIG, -E2BIG (command line), -ENOMEM. */
int boot_open(struct boot_image **out, const struct boot_request *req, struct error *err);

/* The same without a look at the kernel, of a guest that runs already; hostile names: of plain
 * files only (-EINVAL). */
int boot_find(struct boot_image **out, const struct boot_request *req, struct error *err);

/* The image as bytes, to be sent; valid until boot_close. img NULL: it was in a file that turned
 * out to be damaged: -ENODATA, here and in boot_load(). */
int boot_bytes(const struct boot_image *img, const void **data, size_t *len, struct error *err);
/* SHA-256 of these bytes. From the same files the same image is made, wherever. 0, -ENODATA, or
 * -ENOTSUP: there is no SHA-256 here. */
enum { BOOT_DIGEST = 32 };
int boot_digest(const struct boot_image *img, uint8_t digest[BOOT_DIGEST], struct error *err);
/* The reverse: an image from bytes that come from a peer, piece by piece. They are copied, and
 * trusted as little as a kernel file is; of the whole only the directory is looked at, the kernel
 * itself when it is needed: the guest runs already. */
struct boot_adoption; /* NULL: not begun */
int boot_adopt(struct boot_adoption **a, const void *data, size_t len, struct error *err);
/* All is here. Ends the adoption in any case; on success *out is the caller's (boot_close). */
int boot_adopted(struct boot_adoption **a, struct boot_image **out, struct error *err);
void boot_adopt_end(struct boot_adoption **a); /* without an image; again is fine */
/* Whether the kernel can be started: unpacks it once. Any thread; the image stays as it is. */
int boot_look(const struct boot_image *img, struct error *err);

void boot_close(struct boot_image *img); /* NULL is fine */

/* "Linux 6.1.0 (bzImage, lz4)": for messages; lives as long as the image. NULL: one that is not
 * here yet, and has started before. */
const char *boot_describe(const struct boot_image *img);

/* Writes kernel, initrd, command line and tables to guest memory, through mem->vmm (main thread, no
 * vCPU runs), and changes in *bsp what the protocol fixes: the caller has put it into its power-on
 * state (x86_state_reset) before. At start and after each reset. Errors: -ENOMEM (guest memory too
 * small: the text says how much is needed), -ENODATA, -EINVAL (wants to lie where this board has no
 * RAM), -EFAULT. */
int boot_load(struct boot_image *img, struct guest_memory *mem, const struct boot_board *board,
	      struct x86_state *bsp, struct error *err);

#endif
