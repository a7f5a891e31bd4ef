#include "vmm/boot/bzimage.h"

#include <errno.h>
#include <string.h>

#include "vmm/boot/loader.h"

bool bzimage_is(struct blob file)
{
	return file.len >= HDR_VERSION && get_le16(file.data + HDR_BOOT_FLAG) == 0xaa55 &&
	       !memcmp(file.data + HDR_MAGIC, "HdrS", 4);
}

/* "6.1.0-56-cloud-amd64 (debian-kernel@...) #1 ...": the first word. Optional, only shown. */
static struct blob version_string(struct blob file, size_t setup_len)
{
	size_t at = get_le16(file.data + HDR_KERNEL_VERSION), n = 0;

	if (!at || at + 0x200 >= setup_len)
		return (struct blob){(const uint8_t *)"", 0};
	at += 0x200;
	while (n < 64 && at + n < setup_len && file.data[at + n] > ' ')
		n++;
	return (struct blob){file.data + at, n};
}

int bzimage_open(struct bzimage *bz, struct blob file, struct error *err)
{
	size_t setup_len, end, off, len;
	unsigned sects, version;

	if (file.len < HDR_MIN_END)
		return error_set(err, -EBADMSG, "is truncated: %zu bytes of a bzImage", file.len);
	version = get_le16(file.data + HDR_VERSION);
	if (version < 0x20a)
		return error_set(
			err, -ENOEXEC,
			"speaks boot protocol %u.%02u, at least 2.10 (Linux 2.6.31) is needed",
			version >> 8, version & 0xff);
	sects = file.data[HDR_SETUP_SECTS];
	setup_len = ((sects ? sects : 4) + 1) * 512ul;
	end = HDR_MAGIC + file.data[HDR_JUMP];
	if (end < HDR_MIN_END || end > HDR_MAX_END || setup_len < end)
		return error_set(err, -EBADMSG, "is damaged: its setup header ends at %#zx", end);
	if (file.len <= setup_len)
		return error_set(err, -EBADMSG, "is truncated: %zu bytes, the setup alone has %zu",
				 file.len, setup_len);
	*bz = (struct bzimage){
		.setup = {file.data + HDR_START, end - HDR_START},
		.kernel = {file.data + setup_len, file.len - setup_len},
		.version = version_string(file, setup_len),
	};
	off = get_le32(file.data + HDR_PAYLOAD);
	len = get_le32(file.data + HDR_PAYLOAD_SIZE);
	if (off > bz->kernel.len || len > bz->kernel.len - off)
		return error_set(err, -EBADMSG,
				 "is truncated: it has %zu bytes, its header says at least %zu",
				 file.len, setup_len + off + len);
	bz->payload = (struct blob){bz->kernel.data + off, len};
	return 0;
}

bool bzimage_self_unpacking(const struct bzimage *bz)
{
	const uint8_t *h = bz->setup.data - HDR_START;

	return get_le16(h + HDR_VERSION) >= 0x20c && (get_le16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64);
}
