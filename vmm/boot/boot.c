#include "vmm/boot/boot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/boot/loader.h"
#include "vmm/boot/unpack.h"

static const struct boot_loader *const loaders[BOOT_PROTOCOLS] = {
	[BOOT_LINUX_ELF] = &boot_linux_elf,
	[BOOT_LINUX_RAW] = &boot_linux_raw,
	[BOOT_PVH] = &boot_pvh,
	[BOOT_MULTIBOOT] = &boot_multiboot,
};

int boot_subject(struct error *err, int code, const char *subject, const struct error *predicate)
{
	return error_set(err, code, "%s %s", subject, predicate->text);
}

static int describe(struct image_writer *w, const char *what, struct blob version,
		    const char *packer, struct error *err)
{
	char text[128];
	int n = snprintf(text, sizeof(text), "%s%s%.*s%s%s%s", what, version.len ? " " : "",
			 (int)version.len, version.len ? (const char *)version.data : "",
			 packer ? " (" : "", packer ? packer : "", packer ? ")" : "");

	return image_part(w, PART_WHAT, text, n < (int)sizeof(text) ? (size_t)n : sizeof(text) - 1,
			  err);
}

/* Unpacks the payload into the image; what ferry cannot unpack is left to the kernel itself. */
static int add_bzimage(struct image_writer *w, struct blob file, struct error *err)
{
	const char *packer;
	struct bzimage bz;
	struct error why;
	int ret;

	ret = bzimage_open(&bz, file, err);
	if (ret)
		return ret;
	packer = unpack_name(bz.payload);
	w->protocol = BOOT_LINUX_ELF;
	ret = image_part_begin(w, PART_KERNEL, err);
	if (ret)
		return ret;
	if (elf_is(bz.payload)) /* CONFIG_KERNEL_UNCOMPRESSED */
		ret = sink_put(&w->sink, bz.payload.data, bz.payload.len, &why);
	else
		ret = unpack(bz.payload, &w->sink, UNPACK_LIMIT, &why);
	if ((ret == -ENOTSUP || ret == -EINVAL) && bzimage_self_unpacking(&bz)) {
		w->protocol = BOOT_LINUX_RAW;
		ret = sink_put(&w->sink, bz.kernel.data, bz.kernel.len, &why);
	}
	image_part_end(w, PART_KERNEL);
	if (ret)
		return error_set(err, ret, "cannot be unpacked: its payload %s", why.text);
	ret = image_part(w, PART_SETUP, bz.setup.data, bz.setup.len, err);
	return ret ? ret : describe(w, "Linux bzImage", bz.version, packer, err);
}

static int add_elf(struct image_writer *w, struct blob file, struct error *err)
{
	const char *what;
	struct elf elf;
	uint32_t entry;
	int ret = elf_open(&elf, file, err);

	if (ret)
		return ret;
	if (pvh_find(&elf, &entry)) {
		w->protocol = BOOT_PVH;
		what = "ELF, PVH";
	} else if (multiboot_find(file) >= 0) {
		w->protocol = BOOT_MULTIBOOT;
		what = "ELF, multiboot";
	} else if (elf.machine == ELF_EM_X86_64) {
		w->protocol = BOOT_LINUX_ELF;
		what = "ELF, Linux 64-bit protocol";
	} else {
		return error_set(err, -ENOEXEC,
				 "is an i386 ELF with neither a PVH note nor a multiboot header");
	}
	ret = image_part(w, PART_KERNEL, file.data, file.len, err);
	return ret ? ret : describe(w, what, (struct blob){0}, NULL, err);
}

static int add_kernel(struct image_writer *w, struct blob file, struct error *err)
{
	int ret;

	if (bzimage_is(file))
		return add_bzimage(w, file, err);
	if (elf_is(file))
		return add_elf(w, file, err);
	if (multiboot_has_addresses(file)) {
		w->protocol = BOOT_MULTIBOOT;
		ret = image_part(w, PART_KERNEL, file.data, file.len, err);
		return ret ? ret : describe(w, "multiboot", (struct blob){0}, NULL, err);
	}
	return error_set(err, -ENOEXEC, "%s", foreign_kind(file));
}

/* A kernel file that is packed as a whole (vmlinux.gz) is unpacked first. */
static int add_kernel_file(struct image_writer *w, const char *path, struct error *err)
{
	struct sink file, plain = {.fd = -1};
	struct error why = {""};
	struct blob b;
	int ret;

	ret = sink_open(&file, err);
	if (ret)
		return ret;
	ret = sink_read_file(&file, path, "kernel", BOOT_KERNEL_MAX, err);
	if (ret) {
		sink_close(&file);
		return ret;
	}
	b = (struct blob){file.map, file.len};
	if (unpack_name(b)) {
		ret = sink_open(&plain, &why);
		if (!ret)
			ret = unpack(b, &plain, UNPACK_LIMIT, &why);
		b = (struct blob){plain.map, plain.len};
	}
	if (!ret)
		ret = add_kernel(w, b, &why);
	sink_close(&plain);
	sink_close(&file);
	return ret ? error_set(err, ret, "kernel %s %s", path, why.text) : 0;
}

static int add_initrd_file(struct image_writer *w, const char *path, struct error *err)
{
	int ret = image_part_begin(w, PART_INITRD, err);

	if (!ret)
		ret = sink_read_file(&w->sink, path, "initrd", BOOT_INITRD_MAX, err);
	image_part_end(w, PART_INITRD);
	return ret;
}

static int check(struct boot_image **img, struct error *err)
{
	int ret = loaders[(*img)->protocol]->check(*img, err);

	if (ret) {
		boot_close(*img);
		*img = NULL;
	}
	return ret;
}

int boot_open(struct boot_image **out, const struct boot_request *req, struct error *err)
{
	const char *cmdline = req->cmdline ? req->cmdline : "", *name;
	struct image_writer w;
	int ret;

	*out = NULL;
	if (!req->kernel || !*req->kernel)
		return error_set(err, -EINVAL, "no kernel is given: ferry run [options] KERNEL");
	name = strrchr(req->kernel, '/');
	name = name ? name + 1 : req->kernel;
	ret = image_begin(&w, err);
	if (ret)
		return ret;
	ret = add_kernel_file(&w, req->kernel, err);
	if (!ret && req->initrd)
		ret = add_initrd_file(&w, req->initrd, err);
	if (!ret)
		ret = image_part(&w, PART_CMDLINE, cmdline, strlen(cmdline), err);
	if (!ret)
		ret = image_part(&w, PART_NAME, name, strlen(name), err);
	if (ret) {
		image_abandon(&w);
		return ret;
	}
	ret = image_finish(&w, out, err);
	return ret ? ret : check(out, err);
}

int boot_adopt(struct boot_image **out, const void *data, size_t len, struct error *err)
{
	int ret;

	*out = NULL;
	ret = image_adopt(out, data, len, err);
	return ret ? ret : check(out, err);
}

int boot_load(struct boot_image *img, struct guest_memory *mem, const struct boot_board *board,
	      struct x86_state *bsp, struct error *err)
{
	struct boot_job job = {.img = img, .mem = mem, .board = board, .cpu = bsp};

	return loaders[img->protocol]->load(&job, err);
}
