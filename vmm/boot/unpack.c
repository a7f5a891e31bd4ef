#include "vmm/boot/unpack.h"

#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define CHUNK (1u << 20)

/* Room for the next piece of output, at most one byte beyond the limit: that byte is the proof that
 * the stream is too long. */
static int next_chunk(struct sink *out, size_t start, size_t limit, size_t *room, struct error *err)
{
	size_t used = out->len - start;

	if (used > limit)
		return error_set(err, -EFBIG, "unpacks to more than %zu MiB", limit >> 20);
	*room = limit - used < CHUNK ? limit - used + 1 : CHUNK;
	sink_pass(out);
	return sink_reserve(out, *room, err);
}

static int damaged(struct error *err, const char *name)
{
	return error_set(err, -EBADMSG, "%s data is damaged", name);
}

static int truncated(struct error *err, const char *name)
{
	return error_set(err, -EBADMSG, "%s data is truncated", name);
}

static int unpack_gzip(struct blob in, struct sink *out, size_t limit, struct error *err)
{
	size_t start = out->len, room = 0;
	z_stream z = {0};
	int ret, zret = Z_OK;

	if (in.len > UINT_MAX)
		return damaged(err, "gzip");
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return error_set(err, -ENOMEM, "gzip: no memory");
	z.next_in = (Bytef *)(uintptr_t)in.data;
	z.avail_in = (uInt)in.len;
	for (;;) {
		ret = next_chunk(out, start, limit, &room, err);
		if (ret || zret == Z_STREAM_END)
			break;
		z.next_out = out->map + out->len;
		z.avail_out = (uInt)room;
		zret = inflate(&z, Z_NO_FLUSH);
		out->len += room - z.avail_out;
		if (zret == Z_BUF_ERROR || (zret == Z_OK && !z.avail_in && z.avail_out))
			ret = truncated(err, "gzip");
		else if (zret == Z_MEM_ERROR)
			ret = error_set(err, -ENOMEM, "gzip: no memory");
		else if (zret != Z_OK && zret != Z_STREAM_END)
			ret = damaged(err, "gzip");
		if (ret)
			break;
	}
	inflateEnd(&z);
	return ret;
}

/* xz and the older .lzma: the same library, two decoders. A dictionary beyond 256 MiB is refused.
 */
static int run_lzma(lzma_stream *z, const char *name, struct blob in, struct sink *out,
		    size_t limit, struct error *err)
{
	size_t start = out->len, room = 0;
	lzma_ret zret = LZMA_OK;
	int ret;

	z->next_in = in.data;
	z->avail_in = in.len;
	for (;;) {
		ret = next_chunk(out, start, limit, &room, err);
		if (ret || zret == LZMA_STREAM_END)
			break;
		z->next_out = out->map + out->len;
		z->avail_out = room;
		zret = lzma_code(z, LZMA_RUN);
		out->len += room - z->avail_out;
		if (zret == LZMA_BUF_ERROR || (zret == LZMA_OK && !z->avail_in && z->avail_out))
			ret = truncated(err, name);
		else if (zret == LZMA_MEM_ERROR || zret == LZMA_MEMLIMIT_ERROR)
			ret = error_set(err, -ENOMEM, "%s: needs too much memory", name);
		else if (zret != LZMA_OK && zret != LZMA_STREAM_END)
			ret = damaged(err, name);
		if (ret)
			break;
	}
	lzma_end(z);
	return ret;
}

static int unpack_xz(struct blob in, struct sink *out, size_t limit, struct error *err)
{
	lzma_stream z = LZMA_STREAM_INIT;

	if (lzma_stream_decoder(&z, 256u << 20, 0) != LZMA_OK)
		return error_set(err, -ENOMEM, "xz: no memory");
	return run_lzma(&z, "xz", in, out, limit, err);
}

static int unpack_lzma(struct blob in, struct sink *out, size_t limit, struct error *err)
{
	lzma_stream z = LZMA_STREAM_INIT;

	if (lzma_alone_decoder(&z, 256u << 20) != LZMA_OK)
		return error_set(err, -ENOMEM, "lzma: no memory");
	return run_lzma(&z, "lzma", in, out, limit, err);
}

static int unpack_zstd(struct blob in, struct sink *out, size_t limit, struct error *err)
{
	ZSTD_DStream *z = ZSTD_createDStream(); /* windows above 128 MiB are refused by default */
	ZSTD_inBuffer src = {in.data, in.len, 0};
	size_t start = out->len, room = 0, left = 1;
	ZSTD_outBuffer dst;
	int ret;

	if (!z)
		return error_set(err, -ENOMEM, "zstd: no memory");
	for (;;) {
		ret = next_chunk(out, start, limit, &room, err);
		if (ret || !left)
			break;
		dst = (ZSTD_outBuffer){out->map + out->len, room, 0};
		left = ZSTD_decompressStream(z, &dst, &src);
		out->len += dst.pos;
		if (ZSTD_isError(left))
			ret = damaged(err, "zstd");
		else if (left && src.pos == src.size && dst.pos < dst.size)
			ret = truncated(err, "zstd");
		if (ret)
			break;
	}
	ZSTD_freeDStream(z);
	return ret;
}

/* The legacy format of lz4 (doc/lz4_Frame_format.md, "Legacy frame"): blocks of up to 8 MiB, each
 * behind its packed size, and no end mark. The kernel's build appends the unpacked size (4 bytes).
 */
static int unpack_lz4(struct blob in, struct sink *out, size_t limit, struct error *err)
{
	const size_t block = 8u << 20;
	size_t start = out->len, pos = 4, size;
	int ret, n;

	for (;;) {
		size = out->len - start;
		if (size > limit)
			return error_set(err, -EFBIG, "unpacks to more than %zu MiB", limit >> 20);
		if (pos == in.len)
			return 0;
		if (in.len - pos < 4)
			return truncated(err, "lz4");
		if (in.len - pos == 4 && get_le32(in.data + pos) == size)
			return 0;
		size = get_le32(in.data + pos);
		pos += 4;
		if (size == 0 || size > LZ4_COMPRESSBOUND(8 << 20))
			return damaged(err, "lz4");
		if (size > in.len - pos)
			return truncated(err, "lz4");
		sink_pass(out);
		ret = sink_reserve(out, block, err);
		if (ret)
			return ret;
		n = LZ4_decompress_safe((const char *)in.data + pos, (char *)out->map + out->len,
					(int)size, (int)block);
		if (n < 0)
			return damaged(err, "lz4");
		out->len += (size_t)n;
		pos += size;
	}
}

static const struct packer {
	const char *name;
	uint8_t magic_len;
	uint8_t magic[6];
	int (*run)(struct blob in, struct sink *out, size_t limit, struct error *err);
} packers[] = {
	{"gzip", 3, {0x1f, 0x8b, 0x08}, unpack_gzip},
	{"xz", 6, {0xfd, '7', 'z', 'X', 'Z', 0}, unpack_xz},
	{"lzma", 3, {0x5d, 0, 0}, unpack_lzma},
	{"zstd", 4, {0x28, 0xb5, 0x2f, 0xfd}, unpack_zstd},
	{"lz4", 4, {0x02, 0x21, 0x4c, 0x18}, unpack_lz4},
	{"bzip2", 3, {'B', 'Z', 'h'}, NULL},
	{"lzo", 4, {0x89, 'L', 'Z', 'O'}, NULL},
};

static const struct packer *find(struct blob in)
{
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++)
		if (in.len >= packers[i].magic_len &&
		    !memcmp(in.data, packers[i].magic, packers[i].magic_len))
			return &packers[i];
	return NULL;
}

const char *unpack_name(struct blob in)
{
	const struct packer *p = find(in);

	return p ? p->name : NULL;
}

int unpack(struct blob in, struct sink *out, size_t limit, struct error *err)
{
	const struct packer *p = find(in);

	if (!p)
		return error_set(err, -EINVAL, "is packed in an unknown way");
	if (!p->run)
		return error_set(err, -ENOTSUP, "is packed by %s, which ferry does not unpack",
				 p->name);
	return p->run(in, out, limit, err);
}
