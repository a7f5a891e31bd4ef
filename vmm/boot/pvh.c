/*
 * PVH: Xen's 32-bit entry for guests without firmware (xen/docs/misc/pvh.pandoc;
 * xen/include/public/arch-x86/hvm/start_info.h).
 */
#include <errno.h>
#include <string.h>

#include "vmm/boot/entry.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"

#define NOTE_PHYS32_ENTRY 18u
#define START_MAGIC	  0x336ec578u

enum { START_SIZE = 56, MODULE_SIZE = 32, MEMMAP_SIZE = 24 };

static bool is_entry(void *arg, struct blob name, uint32_t type, struct blob desc)
{
	uint32_t *entry = arg;

	/* The descriptor is 4 bytes long in 32-bit, 8 in 64-bit files; the address has 32 bits. */
	if (type != NOTE_PHYS32_ENTRY || name.len != 4 || memcmp(name.data, "Xen", 4) != 0 ||
	    desc.len < 4)
		return false;
	*entry = get_le32(desc.data);
	return true;
}

bool pvh_find(const struct elf *elf, uint32_t *entry)
{
	return elf_notes(elf, is_entry, entry);
}

static int open_pvh(const struct boot_image *img, struct elf *elf, uint32_t *entry,
		    struct error *err)
{
	int ret = elf_open(elf, img->kernel, err);

	if (!ret && !pvh_find(elf, entry))
		ret = error_set(err, -ENOEXEC, "is an ELF without a PVH note");
	return ret;
}

static int pvh_check(const struct boot_image *img, struct error *err)
{
	struct elf elf;
	uint32_t entry;
	int ret = open_pvh(img, &elf, &entry, err);

	return ret ? ret : boot_check_cmdline(img, BOOT_CMDLINE_SIZE, 0, err);
}

/* At BOOT_LISTS: the one module, then the memory map, whose types are those of e820. */
static int put_lists(struct boot_job *job, struct error *err)
{
	uint8_t module[MODULE_SIZE] = {0}, range[MEMMAP_SIZE] = {0};
	const struct boot_board *board = job->board;
	unsigned i;
	int ret;

	put_le64(module, job->initrd);
	put_le64(module + 8, job->initrd_len);
	ret = place_put(job, BOOT_LISTS, module, sizeof(module), err);
	for (i = 0; i < board->e820_count && !ret; i++) {
		put_le64(range, board->e820[i].addr);
		put_le64(range + 8, board->e820[i].size);
		put_le32(range + 16, board->e820[i].type);
		ret = place_put(job, BOOT_LISTS + MODULE_SIZE + i * MEMMAP_SIZE, range,
				sizeof(range), err);
	}
	return ret;
}

static int put_start_info(struct boot_job *job, struct error *err)
{
	uint8_t info[START_SIZE] = {0};

	put_le32(info, START_MAGIC);
	put_le32(info + 4, 1); /* version: has a memory map */
	put_le32(info + 12, job->initrd_len ? 1 : 0);
	put_le64(info + 16, job->initrd_len ? BOOT_LISTS : 0);
	put_le64(info + 24, BOOT_CMDLINE);
	put_le64(info + 32, job->board->rsdp);
	put_le64(info + 40, BOOT_LISTS + MODULE_SIZE);
	put_le32(info + 48, job->board->e820_count);
	return place_put(job, BOOT_INFO, info, sizeof(info), err);
}

static int pvh_load(struct boot_job *job, struct error *err)
{
	struct elf elf;
	uint32_t entry = 0;
	int ret = open_pvh(job->img, &elf, &entry, err);

	if (ret)
		return ret;
	ret = place_elf(job, &elf, err);
	if (!ret)
		ret = place_initrd(job, UINT32_MAX, err);
	if (!ret)
		ret = place_cmdline(job, (struct blob){NULL, 0}, err);
	if (!ret)
		ret = put_lists(job, err);
	if (!ret)
		ret = put_start_info(job, err);
	if (!ret)
		ret = entry_flat(job, entry, err);
	job->cpu->gpr[RBX] = BOOT_INFO;
	return ret;
}

const struct boot_loader boot_pvh = {pvh_check, pvh_load};
