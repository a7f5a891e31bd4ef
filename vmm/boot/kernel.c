/* From the bytes of a kernel file to something that a loader can place. */
#include <errno.h>
#include <stdio.h>

#include "vmm/boot/layout.h"
#include "vmm/boot/loader.h"
#include "vmm/boot/unpack.h"

const struct boot_loader *const boot_loaders[BOOT_PROTOCOLS] = {
	[BOOT_LINUX_ELF] = &boot_linux_elf,
	[BOOT_LINUX_RAW] = &boot_linux_raw,
	[BOOT_PVH] = &boot_pvh,
	[BOOT_MULTIBOOT] = &boot_multiboot,
};

/* passing: only to know that it can be done. */
static int unpack_into(struct sink *s, struct blob in, bool passing, struct blob *out,
		       struct error *err)
{
	int ret = sink_open_memory(s, err);

	s->passing = passing;
	if (!ret)
		ret = unpack(in, s, UNPACK_LIMIT, err);
	*out = (struct blob){s->map, s->len};
	return ret;
}

static void describe_bzimage(struct boot_image *img, struct blob version, const char *packer)
{
	char *p;

	snprintf(img->what, sizeof(img->what), "Linux bzImage%s%.*s (%s)", version.len ? " " : "",
		 (int)version.len, (const char *)version.data, packer ? packer : "not packed");
	for (p = img->what; *p; p++) /* printed on terminals, and the file is anybody's */
		if (*p < ' ' || *p > '~')
			*p = '?';
}

/* Unpacks the payload; what ferry cannot unpack is left to the kernel itself. */
static int open_bzimage(struct boot_image *img, struct blob file, struct error *err)
{
	struct error why = {""};
	struct bzimage bz;
	int ret = bzimage_open(&bz, file, err);

	if (ret)
		return ret;
	describe_bzimage(img, bz.version, unpack_name(bz.payload));
	img->setup = bz.setup;
	img->protocol = BOOT_LINUX_ELF;
	img->kernel = bz.payload;
	if (elf_is(bz.payload)) /* CONFIG_KERNEL_UNCOMPRESSED */
		return 0;
	ret = unpack_into(&img->plain, bz.payload, img->looking, &img->kernel, &why);
	if ((ret == -ENOTSUP || ret == -EINVAL) && bzimage_self_unpacking(&bz)) {
		img->protocol = BOOT_LINUX_RAW;
		img->kernel = bz.kernel;
		return 0;
	}
	return ret ? error_set(err, ret, "cannot be unpacked: its payload %s", why.text) : 0;
}

static int open_elf(struct boot_image *img, struct blob file, struct error *err)
{
	const char *what;
	struct elf elf;
	uint32_t entry;
	int ret = elf_open(&elf, file, err);

	if (ret)
		return ret;
	if (pvh_find(&elf, &entry)) {
		img->protocol = BOOT_PVH;
		what = "ELF, PVH";
	} else if (multiboot_find(file) >= 0) {
		img->protocol = BOOT_MULTIBOOT;
		what = "ELF, multiboot";
	} else if (elf.machine == ELF_EM_X86_64) {
		img->protocol = BOOT_LINUX_ELF;
		what = "ELF, Linux 64-bit protocol";
	} else {
		return error_set(err, -ENOEXEC,
				 "is an i386 ELF with neither a PVH note nor a multiboot header");
	}
	img->kernel = file;
	snprintf(img->what, sizeof(img->what), "%s", what);
	return 0;
}

int boot_check_cmdline(const struct boot_image *img, size_t limit, size_t before, struct error *err)
{
	const size_t len = img->part[PART_CMDLINE].len, room = BOOT_CMDLINE_SIZE - 1 - before;

	if (limit > room)
		limit = room;
	if (len > limit)
		return error_set(err, -E2BIG,
				 "takes a command line of at most %zu bytes, this one has %zu",
				 limit, len);
	return 0;
}

/* A file that is packed as a whole (vmlinux.gz) is unpacked first. */
static int recognise(struct boot_image *img, struct error *err)
{
	struct blob file = img->part[PART_KERNEL];
	int ret = 0;

	img->setup = (struct blob){0};
	if (unpack_name(file))
		ret = unpack_into(&img->outer, file, false, &file, err);
	if (ret)
		return ret;
	if (bzimage_is(file))
		return open_bzimage(img, file, err);
	if (elf_is(file))
		return open_elf(img, file, err);
	if (multiboot_has_addresses(file)) {
		img->protocol = BOOT_MULTIBOOT;
		img->kernel = file;
		snprintf(img->what, sizeof(img->what), "multiboot");
		return 0;
	}
	return error_set(err, -ENOEXEC, "%s", foreign_kind(file));
}

int kernel_open(struct boot_image *img, struct error *err)
{
	int ret;

	if (img->opened)
		return 0;
	ret = recognise(img, err);
	if (!ret)
		ret = boot_loaders[img->protocol]->check(img, err);
	img->opened = !ret;
	if (ret)
		kernel_close(img);
	return ret;
}

void kernel_close(struct boot_image *img)
{
	sink_close(&img->outer);
	sink_close(&img->plain);
	img->kernel = img->setup = (struct blob){0};
	img->opened = false;
}
