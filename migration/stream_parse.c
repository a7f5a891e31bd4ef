#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "migration/bytes.h"
#include "migration/crc32c.h"
#include "migration/stream.h"

enum {
	AT_TYPE = 4,
	AT_FLAGS = 5,
	AT_CHANNEL = 6,
	AT_LEN = 8,
	AT_SEQUENCE = 12,
	AT_ROUND = 16,
	AT_SENT = 20,
	AT_CRC = 24,
	AT_HEADER_CRC = 28
};

struct stream_parser {
	struct stream_frame frame; /* the one that is being taken */
	uint32_t crc;		   /* of its payload */
	uint8_t head[STREAM_HEADER];
	size_t have; /* bytes of head and payload that were taken */
	bool any_sequence, first;
	uint8_t *buf, *raw; /* the payload as it was sent, and decompressed */
	size_t buf_size, raw_size;
	ZSTD_DCtx *zstd;
	int failed;
	struct stream_error error;
};

struct stream_parser *stream_parser_new(void)
{
	struct stream_parser *p = calloc(1, sizeof(*p));

	if (p)
		stream_parser_restart(p, 0);
	return p;
}

void stream_parser_free(struct stream_parser *p)
{
	if (!p)
		return;
	ZSTD_freeDCtx(p->zstd);
	free(p->buf);
	free(p->raw);
	free(p);
}

void stream_parser_restart(struct stream_parser *p, uint64_t offset)
{
	p->frame = (struct stream_frame){.offset = offset};
	p->have = 0;
	p->failed = 0;
	p->any_sequence = false;
	p->first = true;
}

void stream_parser_seek(struct stream_parser *p, uint64_t offset)
{
	stream_parser_restart(p, offset);
	p->any_sequence = true;
	p->first = false;
}

/* Room for n bytes. A buffer never grows beyond the bound of a payload, for n does not. */
static bool room(uint8_t **buf, size_t *size, size_t n)
{
	uint8_t *more;

	if (n <= *size)
		return true;
	more = realloc(*buf, n);
	if (!more)
		return false;
	*buf = more;
	*size = n;
	return true;
}

static int check_lengths(struct stream_parser *p, struct stream_error *err)
{
	const struct stream_frame *f = &p->frame;
	const struct stream_type_info *info = stream_type_info(f->type);
	uint32_t len = (uint32_t)get_le(p->head + AT_LEN, 4);

	if (f->len > info->max || f->sent > STREAM_PAYLOAD_MAX)
		return stream_fail(err, f, -EBADMSG, "%" PRIu32 " bytes, the limit is %" PRIu32,
				   f->len > f->sent ? f->len : f->sent, info->max);
	if (!(f->flags & STREAM_ZSTD) && len != f->sent)
		return stream_fail(err, f, -EBADMSG, "two different lengths");
	if (f->flags & STREAM_ZSTD && (!info->bulk || f->sent >= f->len))
		return stream_fail(err, f, -EBADMSG, "compressed where it must not be");
	return 0;
}

/* The header is whole: nothing of it is believed before its checksum. */
static int check_header(struct stream_parser *p, struct stream_error *err)
{
	struct stream_frame *f = &p->frame;
	const uint8_t *h = p->head;
	uint32_t sequence;

	/* Somewhere in a file: nothing tells the number. */
	if (p->any_sequence && (get_le(h, 4) != STREAM_MAGIC ||
				get_le(h + AT_HEADER_CRC, 4) != crc32c(0, h, AT_HEADER_CRC)))
		return stream_fail(err, NULL, -EBADMSG,
				   "at byte %" PRIu64
				   ": no frame begins here, or its header is damaged",
				   f->offset);
	if (get_le(h, 4) != STREAM_MAGIC)
		return stream_fail(err, f, -EBADMSG, "%s",
				   p->first ? "this is no ferry stream (or of another version)"
					    : "no frame begins here");
	if (get_le(h + AT_HEADER_CRC, 4) != crc32c(0, h, AT_HEADER_CRC))
		return stream_fail(err, f, -EBADMSG, "the header is damaged");
	f->type = h[AT_TYPE];
	f->flags = h[AT_FLAGS];
	f->channel = (uint16_t)get_le(h + AT_CHANNEL, 2);
	f->round = (uint32_t)get_le(h + AT_ROUND, 4);
	f->sent = (uint32_t)get_le(h + AT_SENT, 4);
	f->len = (uint32_t)get_le(h + AT_LEN, 4);
	p->crc = (uint32_t)get_le(h + AT_CRC, 4);
	sequence = (uint32_t)get_le(h + AT_SEQUENCE, 4);
	if (p->any_sequence) {
		p->any_sequence = false;
		f->number = sequence;
	}
	if (f->flags & ~(STREAM_MUST | STREAM_ZSTD))
		return stream_fail(err, f, -ENOTSUP, "unknown flags 0x%x: it is of a newer ferry",
				   f->flags);
	if (sequence != (uint32_t)f->number)
		return stream_fail(err, f, -EPROTO,
				   "number %" PRIu32 " where %" PRIu32
				   " is expected: frames are missing or doubled",
				   sequence, (uint32_t)f->number);
	if (!stream_type_info(f->type)->name && f->flags & STREAM_MUST)
		return stream_fail(
			err, f, -ENOTSUP,
			"frame type %u is needed and not known here: the other side is a "
			"newer ferry",
			f->type);
	/* Who turns somebody away need not introduce himself. */
	if (p->first && f->type != STREAM_HELLO && f->type != STREAM_FAILURE)
		return stream_fail(err, f, -EPROTO, "the first frame must be HELLO");
	return check_lengths(p, err);
}

int stream_peek(struct stream_parser *p, uint64_t offset, const void *header,
		struct stream_frame *frame, struct stream_error *err)
{
	int ret;

	stream_parser_seek(p, offset);
	memcpy(p->head, header, STREAM_HEADER);
	ret = check_header(p, err);
	*frame = p->frame;
	return ret;
}

static int decompress(struct stream_parser *p, struct stream_error *err)
{
	struct stream_frame *f = &p->frame;
	size_t n;

	if (!p->zstd)
		p->zstd = ZSTD_createDCtx();
	if (!p->zstd || !room(&p->raw, &p->raw_size, f->len))
		return stream_fail(err, f, -ENOMEM, "no memory");
	n = ZSTD_decompressDCtx(p->zstd, p->raw, f->len, f->payload, f->sent);
	if (ZSTD_isError(n) || n != f->len)
		return stream_fail(err, f, -EBADMSG, "it does not decompress to what it says");
	f->payload = p->raw;
	return 0;
}

/* The frame is whole, its payload at `payload`. */
static int complete(struct stream_parser *p, const uint8_t *payload, struct stream_frame *out,
		    struct stream_error *err)
{
	struct stream_frame *f = &p->frame;
	int ret;

	f->payload = payload;
	if (crc32c(0, payload, f->sent) != p->crc)
		return stream_fail(err, f, -EBADMSG, "the payload is damaged");
	if (f->flags & STREAM_ZSTD) {
		ret = decompress(p, err);
		if (ret)
			return ret;
	}
	*out = *f;
	f->number++;
	f->offset += STREAM_HEADER + f->sent;
	f->type = 0;
	p->have = 0;
	p->first = false;
	return 1;
}

/* Takes the next bytes of the header; 0 when it is whole and right, or bytes are wanting. */
static int take_header(struct stream_parser *p, struct span *in, struct stream_error *err)
{
	size_t n = STREAM_HEADER - p->have;

	if (p->have >= STREAM_HEADER)
		return 0;
	n = n < in->left ? n : in->left;
	if (n)
		memcpy(p->head + p->have, in->p, n);
	in->p += n;
	in->left -= n;
	p->have += n;
	return p->have == STREAM_HEADER ? check_header(p, err) : 0;
}

static int parse(struct stream_parser *p, struct span *in, struct stream_frame *frame,
		 struct stream_error *err)
{
	struct stream_frame *f = &p->frame;
	const uint8_t *payload;
	size_t n;
	int ret = take_header(p, in, err);

	if (ret || p->have < STREAM_HEADER)
		return ret;
	if (p->have == STREAM_HEADER && in->left >= f->sent) {
		payload = in->p;
		in->p += f->sent;
		in->left -= f->sent;
		return complete(p, payload, frame, err);
	}
	if (!room(&p->buf, &p->buf_size, f->sent))
		return stream_fail(err, f, -ENOMEM, "no memory");
	n = STREAM_HEADER + f->sent - p->have;
	n = n < in->left ? n : in->left;
	if (n)
		memcpy(p->buf + p->have - STREAM_HEADER, in->p, n);
	in->p += n;
	in->left -= n;
	p->have += n;
	return p->have == STREAM_HEADER + f->sent ? complete(p, p->buf, frame, err) : 0;
}

/* Errors stay: what follows a damaged frame means nothing. */
static int keep(struct stream_parser *p, int ret, struct stream_error *err)
{
	if (ret < 0 && !p->failed)
		p->failed = ret;
	if (p->failed && err)
		*err = p->error;
	return p->failed ? p->failed : ret;
}

int stream_parse(struct stream_parser *p, const void *data, size_t len, size_t *used,
		 struct stream_frame *frame, struct stream_error *err)
{
	struct span in = {data, len};
	int ret = 0;

	if (!p->failed)
		ret = parse(p, &in, frame, &p->error);
	*used = len - in.left;
	return keep(p, ret, err);
}

void *stream_parser_space(struct stream_parser *p, size_t *len, struct stream_error *err)
{
	*len = 0;
	if (p->failed)
		return keep(p, 0, err), NULL;
	if (p->have < STREAM_HEADER) {
		*len = STREAM_HEADER - p->have;
		return p->head + p->have;
	}
	if (!room(&p->buf, &p->buf_size, p->frame.sent)) {
		keep(p, stream_fail(&p->error, &p->frame, -ENOMEM, "no memory"), err);
		return NULL;
	}
	*len = STREAM_HEADER + p->frame.sent - p->have;
	return p->buf + p->have - STREAM_HEADER;
}

int stream_parsed(struct stream_parser *p, size_t len, struct stream_frame *frame,
		  struct stream_error *err)
{
	bool header = p->have < STREAM_HEADER;
	int ret = 0;

	if (p->failed)
		return keep(p, 0, err);
	p->have += len;
	if (header && p->have == STREAM_HEADER)
		ret = check_header(p, &p->error);
	if (!ret && p->have >= STREAM_HEADER && p->have == STREAM_HEADER + p->frame.sent)
		ret = complete(p, p->buf, frame, &p->error);
	return keep(p, ret, err);
}

int stream_parser_finish(struct stream_parser *p, struct stream_error *err)
{
	if (p->failed || !p->have)
		return keep(p, 0, err);
	return keep(p,
		    stream_fail(&p->error, &p->frame, -EBADMSG,
				"the stream ends in the middle of it, after %zu bytes", p->have),
		    err);
}
