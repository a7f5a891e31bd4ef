/*
 * Multiboot, version 1 (Multiboot Specification 0.6.96, chapter 3).
 */
#include <errno.h>
#include <inttypes.h>

#include "vmm/boot/entry.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define LOADER_NAME  "ferry"

/* Header flags. Bits 3 to 15 are demands: one that is not known means "cannot load it". A wish for
 * a video mode (bit 2) is answered by an info structure without one. */
enum { WANT_VIDEO = 4, KNOWN_DEMANDS = 7, HAS_ADDRESSES = 1 << 16 };
/* Info flags */
enum { INFO_MEMORY = 1, INFO_CMDLINE = 4, INFO_MODULES = 8, INFO_MMAP = 64, INFO_NAME = 512 };

enum { INFO_SIZE = 116, MODULE_SIZE = 16, RANGE_SIZE = 24, LISTS_NAME = 64, LISTS_MMAP = 128 };

/* Where the loader puts the file, and what is to be cleared behind it. */
struct image {
	uint64_t load, load_end, bss_end, entry, file_off;
};

long multiboot_find(struct blob file)
{
	size_t i, end = file.len < 8192 ? file.len : 8192;

	for (i = 0; i + 12 <= end; i += 4)
		if (get_le32(file.data + i) == HEADER_MAGIC &&
		    !(uint32_t)(HEADER_MAGIC + get_le32(file.data + i + 4) +
				get_le32(file.data + i + 8)))
			return (long)i;
	return -1;
}

bool multiboot_has_addresses(struct blob file)
{
	long at = multiboot_find(file);

	return at >= 0 && (get_le32(file.data + at + 4) & HAS_ADDRESSES) &&
	       file.len - (size_t)at >= 32;
}

/* The address fields (3.1.3): load_end 0 is "the whole file", bss_end 0 "no bss". */
static int read_addresses(struct blob file, size_t at, struct image *img, struct error *err)
{
	const uint8_t *h = file.data + at;
	uint64_t header_addr = get_le32(h + 12), len;

	img->load = get_le32(h + 16);
	img->load_end = get_le32(h + 20);
	img->bss_end = get_le32(h + 24);
	img->entry = get_le32(h + 28);
	if (img->load > header_addr || header_addr - img->load > at)
		return error_set(err, -EBADMSG, "is damaged: multiboot load address %#" PRIx64,
				 img->load);
	img->file_off = at - (header_addr - img->load);
	len = file.len - img->file_off;
	if (!img->load_end)
		img->load_end = img->load + len;
	if (img->load_end < img->load || img->load_end - img->load > len)
		return error_set(err, -EBADMSG, "is truncated: multiboot load end %#" PRIx64,
				 img->load_end);
	if (img->bss_end < img->load_end)
		img->bss_end = img->load_end;
	if (img->entry < img->load || img->entry >= img->load_end)
		return error_set(err, -EBADMSG, "is damaged: multiboot entry %#" PRIx64,
				 img->entry);
	return 0;
}

static int open_multiboot(struct blob file, bool *addresses, struct image *img, struct elf *elf,
			  struct error *err)
{
	long at = multiboot_find(file);
	uint32_t flags;
	int ret;

	if (at < 0)
		return error_set(err, -ENOEXEC, "has no multiboot header");
	flags = get_le32(file.data + at + 4);
	if (flags & 0xffff & ~KNOWN_DEMANDS)
		return error_set(err, -ENOEXEC,
				 "demands multiboot features that ferry does not have (flags %#x)",
				 flags & 0xffff);
	*addresses = multiboot_has_addresses(file);
	if (*addresses)
		return read_addresses(file, (size_t)at, img, err);
	ret = elf_open(elf, file, err);
	if (!ret && elf_physical_entry(elf, &img->entry))
		ret = error_set(err, -EBADMSG,
				"is damaged: its entry %#" PRIx64 " lies in no segment",
				elf->entry);
	if (!ret && img->entry > UINT32_MAX)
		ret = error_set(err, -EINVAL, "is entered at %#" PRIx64 ", above 4 GiB",
				img->entry);
	return ret;
}

/* "NAME ARGUMENTS" is how every multiboot loader passes a command line. */
static struct blob line_prefix(const struct boot_image *img, uint8_t *buf, size_t cap)
{
	const struct blob name = img->part[PART_NAME];
	size_t n = name.len < cap - 1 ? name.len : cap - 1, i;

	for (i = 0; i < n; i++)
		buf[i] = name.data[i] > ' ' ? name.data[i] : '_';
	if (img->part[PART_CMDLINE].len)
		buf[n++] = ' ';
	return (struct blob){buf, n};
}

static int multiboot_check(const struct boot_image *img, struct error *err)
{
	uint8_t buf[256];
	struct image place = {0};
	struct elf elf = {0};
	bool addresses = false;
	int ret = open_multiboot(img->kernel, &addresses, &place, &elf, err);

	if (!ret)
		ret = boot_check_cmdline(img, BOOT_CMDLINE_SIZE,
					 line_prefix(img, buf, sizeof(buf)).len, err);
	return ret;
}

static int put_image(struct boot_job *job, const struct image *img, struct error *err)
{
	const struct blob file = job->img->kernel;
	int ret = place_check(job, img->load, img->bss_end - img->load, "the kernel", err);

	if (!ret)
		ret = place_put(job, img->load, file.data + img->file_off,
				img->load_end - img->load, err);
	if (!ret)
		ret = place_zero(job, img->load_end, img->bss_end - img->load_end, err);
	return ret;
}

/* At BOOT_LISTS: the module, the loader's name, the memory map (3.3). */
static int put_lists(struct boot_job *job, struct error *err)
{
	uint8_t module[MODULE_SIZE] = {0}, range[RANGE_SIZE];
	unsigned i;
	int ret;

	put_le32(module, (uint32_t)job->initrd);
	put_le32(module + 4, (uint32_t)(job->initrd + job->initrd_len));
	ret = place_put(job, BOOT_LISTS, module, sizeof(module), err);
	if (!ret)
		ret = place_put(job, BOOT_LISTS + LISTS_NAME, LOADER_NAME, sizeof(LOADER_NAME),
				err);
	for (i = 0; i < job->board->e820_count && !ret; i++) {
		put_le32(range, RANGE_SIZE - 4);
		put_le64(range + 4, job->board->e820[i].addr);
		put_le64(range + 12, job->board->e820[i].size);
		put_le32(range + 20, job->board->e820[i].type);
		ret = place_put(job, BOOT_LISTS + LISTS_MMAP + i * RANGE_SIZE, range, sizeof(range),
				err);
	}
	return ret;
}

static int put_info(struct boot_job *job, struct error *err)
{
	uint8_t info[INFO_SIZE] = {0};
	uint64_t low = 0, high = 0;
	const struct boot_e820 *e;
	unsigned i;

	for (i = 0; i < job->board->e820_count; i++) {
		e = &job->board->e820[i];
		if (e->type == BOOT_E820_RAM && e->addr == 0)
			low = e->size;
		if (e->type == BOOT_E820_RAM && e->addr == 1u << 20)
			high = e->size;
	}
	put_le32(info, INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_NAME |
			       (job->initrd_len ? INFO_MODULES : 0));
	put_le32(info + 4, (uint32_t)(low < 640u << 10 ? low >> 10 : 640));
	put_le32(info + 8, (uint32_t)(high >> 10));
	put_le32(info + 16, BOOT_CMDLINE);
	put_le32(info + 20, job->initrd_len ? 1 : 0);
	put_le32(info + 24, BOOT_LISTS);
	put_le32(info + 44, job->board->e820_count * RANGE_SIZE);
	put_le32(info + 48, BOOT_LISTS + LISTS_MMAP);
	put_le32(info + 64, BOOT_LISTS + LISTS_NAME);
	return place_put(job, BOOT_INFO, info, sizeof(info), err);
}

static int multiboot_load(struct boot_job *job, struct error *err)
{
	struct image place = {0};
	struct elf elf = {0};
	uint8_t buf[256];
	bool addresses = false;
	int ret = open_multiboot(job->img->kernel, &addresses, &place, &elf, err);

	if (ret)
		return ret;
	ret = addresses ? put_image(job, &place, err) : place_elf(job, &elf, err);
	if (!ret)
		ret = place_initrd(job, UINT32_MAX, err);
	if (!ret)
		ret = place_cmdline(job, line_prefix(job->img, buf, sizeof(buf)), err);
	if (!ret)
		ret = put_lists(job, err);
	if (!ret)
		ret = put_info(job, err);
	if (!ret)
		ret = entry_flat(job, place.entry, err);
	job->cpu->gpr[RAX] = LOADER_MAGIC;
	job->cpu->gpr[RBX] = BOOT_INFO;
	return ret;
}

const struct boot_loader boot_multiboot = {multiboot_check, multiboot_load};
