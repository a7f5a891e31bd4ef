/*
 * Hostile kernels: whole files, the setup header and payload of a bzImage, packed streams, and boot
 * images of a peer. What is accepted is loaded, and must enter the guest where it has memory.
 *
 * The first byte of an input says what the others are (enum shape).
 */
#include <fcntl.h>

#include "tests/unit/test_boot_images.h"
#include "vmm/boot/image.h"
#include "vmm/boot/unpack.h"

enum shape {
	SHAPE_FILE,    /* a kernel file */
	SHAPE_BZIMAGE, /* 9fh bytes of setup header, then the protected-mode part */
	SHAPE_PACKED,  /* a packed stream */
	SHAPE_IMAGE,   /* 80 bytes of a boot image's directory, then its parts */
	SHAPES
};
enum { SETUP_HEADER = 0x290 - 0x1f1, DIRECTORY = 80, MEMORY_MIB = 24, UNPACK_MAX = 4 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max);

static struct machine m;

static void load(struct boot_image *img)
{
	struct error err = {""};

	if (!m.mem.host)
		machine_init(&m, MEMORY_MIB);
	if (boot_load(img, &m.mem, &m.board, &m.cpu, &err)) {
		if (!err.text[0]) /* every refusal has words */
			abort();
		return;
	}
	if (m.cpu.rip >= m.mem.size)
		abort();
}

static void open_file(struct bytes file)
{
	struct boot_image *img = NULL;
	struct error err = {""};
	struct boot_request req = {.initrd = "/proc/self/cmdline", .cmdline = "a=b"};
	char path[64];
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, file.data, file.len) != (ssize_t)file.len) {
		if (fd >= 0)
			close(fd);
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	req.kernel = path;
	if (!boot_open(&img, &req, &err))
		load(img);
	else if (!err.text[0] || strchr(err.text, '\n'))
		abort();
	boot_close(img);
	close(fd);
}

static void bzimage(const uint8_t *data, size_t len)
{
	size_t header = len < SETUP_HEADER ? len : SETUP_HEADER;
	struct bytes b = {0};

	memcpy(bytes_at(&b, 0x1f1, 0x400 - 0x1f1), data, header);
	put_le16(b.data + 0x1fe, 0xaa55);
	memcpy(b.data + 0x202, "HdrS", 4);
	bytes_put(&b, data + header, len - header);
	open_file(b);
	bytes_free(&b);
}

static void packed(const uint8_t *data, size_t len)
{
	struct error err;
	struct sink s;

	if (sink_open_memory(&s, &err))
		return;
	if (!unpack((struct blob){data, len}, &s, UNPACK_MAX, &err) && s.len > UNPACK_MAX)
		abort();
	sink_close(&s);
}

static void image(const uint8_t *data, size_t len)
{
	size_t head = len < DIRECTORY ? len : DIRECTORY;
	struct boot_adoption *adoption = NULL;
	struct boot_image *img = NULL;
	struct bytes b = {0};
	struct error err = {""};

	memcpy(bytes_at(&b, 0, 4096), data, head);
	memcpy(b.data, "ferryimg\1\0\0\0", 12);
	bytes_put(&b, data + head, len - head);
	if (!boot_adopt(&adoption, b.data, b.len, &err) && !boot_adopted(&adoption, &img, &err) &&
	    !boot_look(img, &err))
		load(img);
	boot_adopt_end(&adoption);
	boot_close(img);
	bytes_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 1)
		return 0;
	switch (data[0] % SHAPES) {
	case SHAPE_FILE: open_file((struct bytes){(uint8_t *)(uintptr_t)data + 1, len - 1}); break;
	case SHAPE_BZIMAGE: bzimage(data + 1, len - 1); break;
	case SHAPE_PACKED: packed(data + 1, len - 1); break;
	default: image(data + 1, len - 1); break;
	}
	return 0;
}

/* ---- the corpus: one of each that is right ------------------------------------------------------
 */

static const char *const packers[] = {"gzip", "xz", "lzma", "zstd", "lz4", "bzip2", "none"};
enum { PACKERS = sizeof(packers) / sizeof(packers[0]) };

static const struct elf_spec elfs[] = {
	{.code_size = 256},
	{.code_size = 256, .entry = 0xffffffff81000040, .vaddr = 0xffffffff81000000},
	{.code_size = 256, .pvh = 0x1000040},
	{.code_size = 256, .is32 = true, .pvh = 0x1000040},
	{.code_size = 256, .is32 = true, .multiboot = true},
	{.code_size = 256, .is32 = true, .multiboot = true, .mb_flags = 3},
};
enum { ELFS = sizeof(elfs) / sizeof(elfs[0]) };

static struct bytes seed_bzimage(const char *packer, bool is32)
{
	struct bytes elf = make_elf(elfs[is32 ? 4 : 0]), payload = pack(packer, elf), b = {0};
	struct bytes bz = make_bzimage(payload);
	uint8_t *p;

	bytes_put(&b, bz.data + 0x1f1, SETUP_HEADER);
	p = b.data;
	p[0] = 1;			   /* two sectors of setup */
	put_le16(p + 0x20e - 0x1f1, 0);	   /* no version string */
	put_le32(p + 0x248 - 0x1f1, 0x20); /* payload */
	memset(bytes_at(&b, b.len, 0x20), 0xcc, 0x20);
	bytes_put(&b, payload.data, payload.len);
	bytes_free(&elf);
	bytes_free(&payload);
	bytes_free(&bz);
	return b;
}

static struct bytes seed_image(const struct elf_spec *spec)
{
	static const size_t other[PART_COUNT] = {
		[PART_INITRD] = 16, [PART_CMDLINE] = 8, [PART_NAME] = 8};
	struct bytes elf = make_elf(*spec), b = {0};
	size_t i, at = 4096;

	bytes_at(&b, 0, DIRECTORY);
	for (i = 0; i < PART_COUNT; i++) {
		size_t n = i == PART_KERNEL ? elf.len : other[i];

		put_le64(b.data + 16 + i * 16, at);
		put_le64(b.data + 16 + i * 16 + 8, n);
		if (i == PART_KERNEL)
			bytes_put(&b, elf.data, n);
		else
			memset(bytes_at(&b, b.len, n), 'x', n);
		at += n;
	}
	bytes_free(&elf);
	return b;
}

/* Multiboot with address fields, loaded from 16 bytes before the header on. */
static struct bytes seed_flat(void)
{
	static const uint32_t header[] = {0x1badb002, 1 << 16,	0xe4514ffe, 0x200010,
					  0x200000,   0x200100, 0x200200,   0x200080};
	struct bytes b = {0};
	size_t i;

	bytes_at(&b, 0, 512);
	for (i = 0; i < 8; i++)
		put_le32(b.data + 64 + 4 * i, header[i]);
	return b;
}

static struct bytes make_seed(unsigned n, enum shape *shape)
{
	struct bytes b, elf;

	*shape = SHAPE_FILE;
	if (n < ELFS)
		return make_elf(elfs[n]);
	n -= ELFS;
	if (n == 0)
		return seed_flat();
	n -= 1;
	*shape = SHAPE_BZIMAGE;
	if (n < 2 * PACKERS)
		return seed_bzimage(packers[n / 2], n % 2);
	n -= 2 * PACKERS;
	*shape = SHAPE_PACKED;
	if (n < PACKERS) {
		elf = make_elf(elfs[0]);
		b = pack(packers[n], elf);
		bytes_free(&elf);
		return b;
	}
	n -= PACKERS;
	*shape = SHAPE_IMAGE;
	return n < ELFS ? seed_image(&elfs[n]) : (struct bytes){0};
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	enum shape shape;
	struct bytes b = make_seed(n, &shape);
	size_t len = b.len;

	if (!len)
		return 0;
	if (len > max - 1)
		len = max - 1;
	buf[0] = (uint8_t)shape;
	memcpy(buf + 1, b.data, len);
	bytes_free(&b);
	return len + 1;
}
