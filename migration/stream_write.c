#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "migration/bytes.h"
#include "migration/crc32c.h"
#include "migration/stream.h"

/* Below this a frame is not worth compressing, and it must become a sixteenth smaller. Behind those
 * that have not, in vain, only every so many-th is tried. */
enum { WORTH = 1024, PASS_MAX = 7 };

void stream_writer_init(struct stream_writer *w, uint16_t channel, stream_put put, void *opaque)
{
	*w = (struct stream_writer){.put = put, .opaque = opaque, .channel = channel};
}

void stream_writer_free(struct stream_writer *w)
{
	ZSTD_freeCCtx(w->zstd);
	free(w->packed);
	w->zstd = w->packed = NULL;
}

/* Compresses the pieces; the length, or 0 where it does not pay, or there is no memory for it. */
static size_t pack(struct stream_writer *w, const struct iovec *iov, unsigned count, size_t len)
{
	ZSTD_outBuffer out = {NULL, len - len / 16, 0};

	if (!w->zstd)
		w->zstd = ZSTD_createCCtx();
	if (!w->packed)
		w->packed = malloc(STREAM_PAYLOAD_MAX);
	if (!w->zstd || !w->packed) {
		w->level = 0;
		return 0;
	}
	out.dst = w->packed;
	ZSTD_CCtx_reset(w->zstd, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, w->level);
	ZSTD_CCtx_setPledgedSrcSize(w->zstd, len);
	for (unsigned i = 0; i < count; i++) {
		ZSTD_EndDirective end = i + 1 == count ? ZSTD_e_end : ZSTD_e_continue;
		ZSTD_inBuffer in = {iov[i].iov_base, iov[i].iov_len, 0};
		size_t left;

		do {
			left = ZSTD_compressStream2(w->zstd, &out, &in, end);
			if (ZSTD_isError(left) ||
			    (out.pos == out.size && (left || in.pos < in.size)))
				return 0;
		} while (in.pos < in.size || (end == ZSTD_e_end && left));
	}
	return out.pos;
}

static bool worth_trying(struct stream_writer *w, const struct stream_type_info *info, size_t len)
{
	if (!w->level || !info->bulk || len < WORTH || (w->spare && !w->spare(w->opaque, len)))
		return false;
	if (w->passed < w->in_vain) {
		w->passed++;
		return false;
	}
	w->passed = 0;
	return true;
}

static void make_header(const struct stream_writer *w, uint8_t *h, enum stream_type type,
			uint8_t flags, uint32_t round)
{
	put_le(h, STREAM_MAGIC, 4);
	h[4] = (uint8_t)type;
	h[5] = flags;
	put_le(h + 6, w->channel, 2);
	put_le(h + 12, w->sequence, 4);
	put_le(h + 16, round, 4);
}

int stream_write(struct stream_writer *w, enum stream_type type, uint32_t round,
		 const struct iovec *iov, unsigned count)
{
	const struct stream_type_info *info = stream_type_info(type);
	struct iovec all[STREAM_IOV_MAX + 1];
	uint8_t head[STREAM_HEADER], flags = info->must ? STREAM_MUST : 0;
	size_t len = 0, packed = 0, sent;
	uint32_t crc = 0;
	int ret;

	for (unsigned i = 0; i < count && i < STREAM_IOV_MAX; i++) {
		all[i + 1] = iov[i];
		len += iov[i].iov_len;
	}
	if (count > STREAM_IOV_MAX || len > info->max)
		return -EMSGSIZE;
	if (worth_trying(w, info, len)) {
		packed = pack(w, iov, count, len);
		w->in_vain = packed ? 0 : w->in_vain < PASS_MAX ? w->in_vain * 2 + 1 : PASS_MAX;
	}
	sent = packed ? packed : len;
	if (packed) {
		flags |= STREAM_ZSTD;
		all[1] = (struct iovec){w->packed, sent};
		count = 1;
	}
	make_header(w, head, type, flags, round);
	for (unsigned i = 1; i <= count; i++)
		crc = crc32c(crc, all[i].iov_base, all[i].iov_len);
	put_le(head + 8, len, 4);
	put_le(head + 20, sent, 4);
	put_le(head + 24, crc, 4);
	put_le(head + 28, crc32c(0, head, 28), 4);
	all[0] = (struct iovec){head, STREAM_HEADER};
	ret = w->put(w->opaque, all, count + 1);
	if (ret)
		return ret;
	w->sequence++;
	w->offset += STREAM_HEADER + sent;
	return 0;
}

int stream_write_bytes(struct stream_writer *w, enum stream_type type, uint32_t round,
		       const void *data, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)data, len};

	return stream_write(w, type, round, &iov, 1);
}

int stream_put_buf(void *opaque, const struct iovec *iov, unsigned count)
{
	struct field_buf *buf = opaque;
	size_t start = buf->len;

	for (unsigned i = 0; i < count; i++) {
		if (field_buf_append(buf, iov[i].iov_base, iov[i].iov_len)) {
			buf->len = start;
			return -ENOMEM;
		}
	}
	return 0;
}
