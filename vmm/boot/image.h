/*
 * The boot image: one sealed memfd with all that a start needs.
 *
 * Its first page is a directory (little endian): magic "ferryimg", version, protocol, and offset
 * and length of each part. A file of a peer is accepted after the same checks as one made here.
 *
 * Inside vmm/boot only; others include boot.h.
 */
#ifndef VMM_BOOT_IMAGE_H
#define VMM_BOOT_IMAGE_H

#include "vmm/boot/boot.h"
#include "vmm/boot/bytes.h"
#include "vmm/boot/sink.h"

enum boot_protocol {
	BOOT_LINUX_ELF =
		1, /* vmlinux, 64 or 32 bits (kernel), and its setup header (setup) if it had one */
	BOOT_LINUX_RAW, /* the protected-mode part of a bzImage, which unpacks itself */
	BOOT_PVH,
	BOOT_MULTIBOOT,
	BOOT_PROTOCOLS
};

/* Parts. setup: bytes 1f1h.. of a bzImage; name: the file's name without folders; what: describes
 * the kernel to a person. */
enum boot_part {
	PART_KERNEL,
	PART_SETUP,
	PART_INITRD,
	PART_CMDLINE, /* without NUL */
	PART_NAME,
	PART_WHAT,
	PART_COUNT
};

struct boot_image {
	int fd;
	const uint8_t *map;
	size_t size;
	enum boot_protocol protocol;
	struct blob part[PART_COUNT];
	char what[128];
};

/* Limits: a kernel file and its unpacked form, an initrd. */
#define BOOT_KERNEL_MAX (1ul << 30)
#define BOOT_INITRD_MAX (2ul << 30)

/* What is being written: the sink holds the directory page and the parts so far. */
struct image_writer {
	struct sink sink;
	enum boot_protocol protocol;
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

/* A copy of `data` as an image; only the directory is checked. */
int image_adopt(struct boot_image **out, const void *data, size_t len, struct error *err);

#endif
