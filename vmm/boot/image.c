#include "vmm/boot/image.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE	  4096u
#define MAGIC	  "ferryimg"
#define VERSION	  1u
#define DIRECTORY 16u /* offset of the parts' offsets and lengths */

int image_begin(struct image_writer *w, struct error *err)
{
	int ret;

	*w = (struct image_writer){0};
	ret = sink_open_memfd(&w->sink, err);
	if (ret)
		return ret;
	memset(w->sink.map, 0, PAGE);
	w->sink.len = PAGE;
	return 0;
}

int image_part_begin(struct image_writer *w, enum boot_part part, struct error *err)
{
	int ret = sink_align(&w->sink, PAGE, err);

	w->off[part] = w->sink.len;
	return ret;
}

void image_part_end(struct image_writer *w, enum boot_part part)
{
	w->len[part] = w->sink.len - w->off[part];
}

int image_part(struct image_writer *w, enum boot_part part, const void *data, size_t len,
	       struct error *err)
{
	int ret = image_part_begin(w, part, err);

	if (!ret)
		ret = sink_put(&w->sink, data, len, err);
	image_part_end(w, part);
	return ret;
}

void image_abandon(struct image_writer *w)
{
	sink_close(&w->sink);
}

static int parse(struct boot_image *img, struct error *err)
{
	const uint8_t *p = img->map + DIRECTORY;
	uint64_t off, len;
	int i;

	if (img->size < PAGE || memcmp(img->map, MAGIC, 8) != 0)
		return error_set(err, -EBADMSG, "boot image: not one of ferry");
	if (get_le32(img->map + 8) != VERSION)
		return error_set(err, -EBADMSG, "boot image: version %u, this ferry knows %u",
				 get_le32(img->map + 8), VERSION);
	for (i = 0; i < PART_COUNT; i++, p += 16) {
		off = get_le64(p);
		len = get_le64(p + 8);
		if (off > img->size || len > img->size - off)
			return error_set(err, -EBADMSG, "boot image: is truncated");
		img->part[i] = (struct blob){img->map + off, len};
	}
	return 0;
}

int image_from_sink(struct sink *s, struct boot_image **out, struct error *err)
{
	struct boot_image *img = s->len < PAGE ? NULL : calloc(1, sizeof(*img));
	int ret;

	if (!img) {
		ret = s->len < PAGE ? error_set(err, -EBADMSG, "boot image: is truncated")
				    : error_set(err, -ENOMEM, "boot image: no memory");
		sink_close(s);
		return ret;
	}
	img->outer = img->plain = (struct sink)SINK_CLOSED;
	ret = sink_seal(s, &img->fd, &img->map, &img->size, err);
	if (ret) {
		free(img);
		sink_close(s);
		return ret;
	}
	ret = parse(img, err);
	if (ret) {
		boot_close(img);
		return ret;
	}
	*out = img;
	return 0;
}

int image_finish(struct image_writer *w, struct boot_image **out, struct error *err)
{
	uint8_t *p = w->sink.map;
	int i;

	put_chars(p, MAGIC, 8);
	put_le32(p + 8, VERSION);
	for (i = 0, p += DIRECTORY; i < PART_COUNT; i++, p += 16) {
		put_le64(p, w->off[i]);
		put_le64(p + 8, w->len[i]);
	}
	return image_from_sink(&w->sink, out, err);
}

int image_lost(struct error *err)
{
	return error_set(err, -ENODATA,
			 "the kernel that the guest would start again is lost: the file it was "
			 "restored from is damaged");
}

int boot_bytes(const struct boot_image *img, const void **data, size_t *len, struct error *err)
{
	if (!img)
		return image_lost(err);
	*data = img->map;
	*len = img->size;
	return 0;
}

int boot_digest(const struct boot_image *img, uint8_t digest[BOOT_DIGEST], struct error *err)
{
	if (!img)
		return image_lost(err);
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, img->map, img->size, digest))
		return error_set(err, -ENOTSUP, "boot image: no SHA-256 here");
	return 0;
}

const char *boot_describe(const struct boot_image *img)
{
	return img ? img->what : "a kernel that has started before";
}

void boot_close(struct boot_image *img)
{
	if (!img)
		return;
	kernel_close(img);
	munmap((void *)(uintptr_t)img->map, img->size);
	close(img->fd);
	free(img);
}
