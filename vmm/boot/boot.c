#include "vmm/boot/boot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/boot/bzimage.h"
#include "vmm/boot/loader.h"

static int add_file(struct image_writer *w, enum boot_part part, const char *what, const char *path,
		    size_t max, struct error *err)
{
	int ret = image_part_begin(w, part, err);

	if (!ret)
		ret = sink_read_file(&w->sink, path, what, max, err);
	image_part_end(w, part);
	return ret;
}

static int add_text(struct image_writer *w, enum boot_part part, const char *text,
		    struct error *err)
{
	return image_part(w, part, text, strlen(text), err);
}

static int read_files(struct image_writer *w, const struct boot_request *req, struct error *err)
{
	const char *slash = strrchr(req->kernel, '/');
	int ret;

	ret = add_file(w, PART_KERNEL, "kernel", req->kernel, BOOT_KERNEL_MAX, err);
	if (!ret && req->initrd)
		ret = add_file(w, PART_INITRD, "initrd", req->initrd, BOOT_INITRD_MAX, err);
	if (!ret)
		ret = add_text(w, PART_CMDLINE, req->cmdline ? req->cmdline : "", err);
	if (!ret)
		ret = add_text(w, PART_NAME, slash ? slash + 1 : req->kernel, err);
	return ret;
}

static int open_files(struct boot_image **out, const struct boot_request *req, struct error *err)
{
	struct image_writer w;
	int ret;

	*out = NULL;
	if (!req->kernel || !*req->kernel)
		return error_set(err, -EINVAL, "no kernel is given: ferry run [options] KERNEL");
	ret = image_begin(&w, err);
	if (ret)
		return ret;
	ret = read_files(&w, req, err);
	if (ret) {
		image_abandon(&w);
		return ret;
	}
	return image_finish(&w, out, err);
}

int boot_open(struct boot_image **out, const struct boot_request *req, struct error *err)
{
	struct error why = {""};
	int ret = open_files(out, req, err);

	if (ret)
		return ret;
	ret = kernel_open(*out, &why);
	if (ret) {
		boot_close(*out);
		*out = NULL;
		return error_set(err, ret, "kernel %s %s", req->kernel, why.text);
	}
	return 0;
}

static void describe_adopted(struct boot_image *img)
{
	snprintf(img->what, sizeof(img->what), "%s", boot_describe(NULL));
}

/* Whoever sends the machine chooses the names: nothing is opened that could block, or whose reading
 * has effects. */
static int plain_file(const char *path, struct error *err)
{
	struct stat st;

	if (!path)
		return 0;
	if (stat(path, &st))
		return error_set(err, -errno, "%s: %m", path);
	return S_ISREG(st.st_mode) && st.st_size
		       ? 0
		       : error_set(err, -EINVAL, "%s is no plain file", path);
}

int boot_find(struct boot_image **out, const struct boot_request *req, struct error *err)
{
	int ret;

	*out = NULL;
	ret = plain_file(req->kernel, err);
	if (!ret)
		ret = plain_file(req->initrd, err);
	if (!ret)
		ret = open_files(out, req, err);
	if (!ret)
		describe_adopted(*out);
	return ret;
}

struct boot_adoption {
	struct sink sink;
};

int boot_adopt(struct boot_adoption **a, const void *data, size_t len, struct error *err)
{
	if (!*a) {
		struct boot_adoption *fresh = malloc(sizeof(*fresh));
		int ret = fresh ? sink_open_memfd(&fresh->sink, err)
				: error_set(err, -ENOMEM, "boot image: no memory");

		if (ret) {
			free(fresh);
			return ret;
		}
		*a = fresh;
	}
	return sink_put(&(*a)->sink, data, len, err);
}

int boot_adopted(struct boot_adoption **a, struct boot_image **out, struct error *err)
{
	int ret;

	if (!*a)
		return error_set(err, -EBADMSG, "boot image: is empty");
	ret = image_from_sink(&(*a)->sink, out, err);
	free(*a);
	*a = NULL;
	if (!ret)
		describe_adopted(*out);
	return ret;
}

void boot_adopt_end(struct boot_adoption **a)
{
	if (*a)
		sink_close(&(*a)->sink);
	free(*a);
	*a = NULL;
}

int boot_look(const struct boot_image *img, struct error *err)
{
	struct boot_image look = *img;
	struct error why = {""};
	int ret;

	/* What it unpacks is its own. */
	look.outer = look.plain = (struct sink)SINK_CLOSED;
	look.opened = false;
	look.looking = true;
	ret = kernel_open(&look, &why);
	kernel_close(&look);
	return ret ? error_set(err, ret, "the kernel %s", why.text) : 0;
}

/* The unpacked kernel is kept from boot_open to the first start, and then made again for each
 * reset: a guest runs for longer than it boots. */
int boot_load(struct boot_image *img, struct guest_memory *mem, const struct boot_board *board,
	      struct x86_state *bsp, struct error *err)
{
	struct boot_job job = {.img = img, .mem = mem, .board = board, .cpu = bsp};
	struct error why = {""};
	int ret;

	if (!img)
		return image_lost(err);
	ret = kernel_open(img, &why);
	if (ret)
		return error_set(err, ret, "the kernel %s", why.text);
	if (board->e820_count > BP_E820_MAX)
		ret = error_set(err, -EINVAL, "boot: a memory map of %u ranges", board->e820_count);
	else
		ret = boot_loaders[img->protocol]->load(&job, err);
	kernel_close(img);
	return ret;
}
