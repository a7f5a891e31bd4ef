/* Linux on x86: boot_params and the 64-bit and 32-bit entry (Documentation/x86/boot.rst). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/boot/bzimage.h"
#include "vmm/boot/entry.h"
#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"

#define CMDLINE_DEFAULT 2047u /* COMMAND_LINE_SIZE - 1 of x86 */
#define INITRD_MAX	0x7fffffffu
#define SETUP_RNG_SEED	9u
#define SEED_SIZE	32u

/* The setup header of the file the kernel came from, or one made up for a bare vmlinux, in a zeroed
 * boot_params page. */
static void fill_header(const struct boot_image *img, uint8_t *bp)
{
	const struct blob *setup = &img->setup;

	if (setup->len) {
		memcpy(bp + HDR_START, setup->data, setup->len);
		return;
	}
	put_le16(bp + HDR_BOOT_FLAG, 0xaa55);
	put_chars(bp + HDR_MAGIC, "HdrS", 4);
	put_le16(bp + HDR_VERSION, 0x20f);
	put_le32(bp + HDR_ALIGNMENT, 0x1000000);
	put_le32(bp + HDR_INITRD_MAX, INITRD_MAX);
	put_le32(bp + HDR_CMDLINE_SIZE, CMDLINE_DEFAULT);
}

static int check_header(const struct boot_image *img, struct error *err)
{
	uint8_t bp[BP_SIZE] = {0};

	fill_header(img, bp);
	return boot_check_cmdline(img, get_le32(bp + HDR_CMDLINE_SIZE), 0, err);
}

/* A seed spares the guest the wait for entropy, and system calls the slow path until then (Linux
 * mixes it in and wipes it; a fresh one at each start). */
static int put_seed(struct boot_job *job, uint8_t *bp, struct error *err)
{
	uint8_t data[16 + SEED_SIZE] = {0};

	put_le32(data + 8, SETUP_RNG_SEED);
	put_le32(data + 12, SEED_SIZE);
	if (getrandom(data + 16, SEED_SIZE, GRND_NONBLOCK) != SEED_SIZE)
		return 0; /* the guest finds entropy by itself, later */
	put_le64(bp + HDR_SETUP_DATA, BOOT_SETUP);
	return place_put(job, BOOT_SETUP, data, sizeof(data), err);
}

static int put_boot_params(struct boot_job *job, struct error *err)
{
	const struct boot_board *board = job->board;
	uint8_t bp[BP_SIZE] = {0}, *e = bp + BP_E820;
	unsigned i;
	int ret;

	fill_header(job->img, bp);
	ret = place_initrd(job, get_le32(bp + HDR_INITRD_MAX), err);
	if (!ret)
		ret = place_cmdline(job, (struct blob){NULL, 0}, err);
	put_le64(bp + HDR_SETUP_DATA, 0);
	if (!ret)
		ret = put_seed(job, bp, err);
	if (ret)
		return ret;

	put_le64(bp + BP_RSDP, board->rsdp);
	put_le16(bp + HDR_VID_MODE, 0xffff); /* "normal": there is no screen */
	bp[HDR_LOADER] = 0xff;		     /* no number is assigned */
	bp[HDR_LOADFLAGS] = LOADED_HIGH;
	put_le32(bp + HDR_CMDLINE, BOOT_CMDLINE);
	put_le32(bp + HDR_RAMDISK, (uint32_t)job->initrd);
	put_le32(bp + HDR_RAMDISK_SIZE, (uint32_t)job->initrd_len);
	bp[BP_E820_COUNT] = (uint8_t)board->e820_count;
	for (i = 0; i < board->e820_count; i++, e += 20) {
		put_le64(e, board->e820[i].addr);
		put_le64(e + 8, board->e820[i].size);
		put_le32(e + 16, board->e820[i].type);
	}
	return place_put(job, BOOT_INFO, bp, sizeof(bp), err);
}

static int open_vmlinux(const struct boot_image *img, struct elf *elf, uint64_t *entry,
			struct error *err)
{
	int ret = elf_open(elf, img->kernel, err);

	if (ret)
		return ret;
	if (elf_physical_entry(elf, entry))
		return error_set(err, -EBADMSG,
				 "is damaged: its entry %#" PRIx64 " lies in no segment",
				 elf->entry);
	if (*entry >= 1ull << 32)
		return error_set(err, -EINVAL, "is entered at %#" PRIx64 ", above 4 GiB", *entry);
	return 0;
}

static int elf_check(const struct boot_image *img, struct error *err)
{
	struct elf elf;
	uint64_t entry;
	int ret = open_vmlinux(img, &elf, &entry, err);

	return ret ? ret : check_header(img, err);
}

/* A vmlinux is linked for physical address 1000000h and runs there without any relocation. */
static int elf_load(struct boot_job *job, struct error *err)
{
	uint64_t entry = 0;
	struct elf elf;
	int ret = open_vmlinux(job->img, &elf, &entry, err);

	if (ret)
		return ret;
	ret = place_elf(job, &elf, err);
	if (!ret)
		ret = put_boot_params(job, err);
	if (!ret && elf.machine == ELF_EM_X86_64)
		ret = entry_long(job, entry, err);
	else if (!ret)
		ret = entry_flat(job, entry, err);
	job->cpu->gpr[RSI] = BOOT_INFO;
	return ret;
}

const struct boot_loader boot_linux_elf = {elf_check, elf_load};

/* The kernel unpacks itself, within init_size bytes from where it lies. */
static int raw_load(struct boot_job *job, struct error *err)
{
	const uint8_t *h = job->img->setup.data - HDR_START;
	const struct blob kernel = job->img->kernel;
	uint64_t at = get_le64(h + HDR_PREF_ADDRESS), size = get_le32(h + HDR_INIT_SIZE);
	int ret;

	if (size < kernel.len + 0x201)
		size = kernel.len + 0x201;
	ret = place_check(job, at, size, "the kernel", err);
	if (!ret && at + 0x200 >= 1ull << 32)
		ret = error_set(err, -EINVAL, "the kernel wants to lie above 4 GiB");
	if (!ret)
		ret = place_put(job, at, kernel.data, kernel.len, err);
	if (!ret)
		ret = put_boot_params(job, err);
	if (!ret)
		ret = entry_long(job, at + 0x200, err);
	job->cpu->gpr[RSI] = BOOT_INFO;
	return ret;
}

const struct boot_loader boot_linux_raw = {check_header, raw_load};
