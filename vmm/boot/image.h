/*
 * The boot image: one sealed memfd with all that a start needs, and what was found out about it.
 *
 * Its first page is a directory (little endian): magic "ferryimg", version, and offset and length
 * of each part. The kernel lies there as it was given, which is a third of its unpacked size: that
 * is what a migration sends, and what memory it costs while the guest runs.
 *
 * Inside vmm/boot only; others include boot.h.
 */
#ifndef VMM_BOOT_IMAGE_H
#define VMM_BOOT_IMAGE_H

#include "vmm/boot/boot.h"
#include "vmm/boot/bytes.h"
#include "vmm/boot/sink.h"

/* name: the kernel file's, without folders. cmdline: without NUL. */
enum boot_part { PART_KERNEL, PART_INITRD, PART_CMDLINE, PART_NAME, PART_COUNT };

enum boot_protocol {
	BOOT_LINUX_ELF, /* vmlinux, 64 or 32 bits, and its setup header if it came from a bzImage */
	BOOT_LINUX_RAW, /* the protected-mode part of a bzImage, which unpacks itself */
	BOOT_PVH,
	BOOT_MULTIBOOT,
	BOOT_PROTOCOLS
};

struct boot_image {
	int fd;
	const uint8_t *map;
	size_t size;
	struct blob part[PART_COUNT];

	/* Found in PART_KERNEL by kernel_open. */
	bool opened;
	bool looking; /* only to know that it can be opened: what is unpacked is not kept */
	enum boot_protocol protocol;
	struct blob kernel;	  /* unpacked */
	struct blob setup;	  /* bytes 1f1h.. of a bzImage, or empty */
	struct sink outer, plain; /* what they point into if the file, the payload is packed */
	char what[128];		  /* describes the kernel to a person */
};

/* Limits: a kernel file and its unpacked form (UNPACK_LIMIT), an initrd. */
#define BOOT_KERNEL_MAX (1ul << 30)
#define BOOT_INITRD_MAX (2ul << 30)

/* What is being written: the sink holds the directory page and the parts so far. */
struct image_writer {
	struct sink sink;
	size_t off[PART_COUNT], len[PART_COUNT];
};
int image_begin(struct image_writer *w, struct error *err);
/* Between these two, what is added to w->sink is the part. Parts start at page boundaries. */
int image_part_begin(struct image_writer *w, enum boot_part part, struct error *err);
void image_part_end(struct image_writer *w, enum boot_part part);
int image_part(struct image_writer *w, enum boot_part part, const void *data, size_t len,
	       struct error *err);
/* Writes the directory, seals, maps, and parses it again. Closes the writer in any case. */
int image_finish(struct image_writer *w, struct boot_image **out, struct error *err);
void image_abandon(struct image_writer *w);

/* What is said where an image would be needed that is lost: -ENODATA. */
int image_lost(struct error *err);

/* What the memfd holds, sealed, as an image; only the directory is checked. Closes it in any case.
 */
int image_from_sink(struct sink *s, struct boot_image **out, struct error *err);

/* Unpacks the kernel, finds out how it is entered, and checks all that needs no guest memory. Texts
 * of errors are predicates about the kernel ("is truncated"). kernel_close gives the memory back;
 * once more is fine. */
int kernel_open(struct boot_image *img, struct error *err);
void kernel_close(struct boot_image *img);

#endif
