#include "migration/stream_blob.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migration/bytes.h"
#include "migration/stream_items.h"

int stream_piece_write(struct stream_writer *w, enum stream_type type, uint32_t round,
		       const struct stream_piece *piece)
{
	uint8_t head[1 + STREAM_NAME_MAX + 16];
	const size_t n = strnlen(piece->name, STREAM_NAME_MAX + 1);
	const struct iovec iov[2] = {{head, n + 17},
				     {(uint8_t *)(uintptr_t)piece->data, piece->len}};

	if (!n || n > STREAM_NAME_MAX || piece->len > STREAM_PIECE)
		return -EINVAL;
	head[0] = (uint8_t)n;
	memcpy(head + 1, piece->name, n);
	put_le(head + 1 + n, piece->total, 8);
	put_le(head + 9 + n, piece->offset, 8);
	return stream_write(w, type, round, iov, piece->len ? 2 : 1);
}

int stream_blob_write(struct stream_writer *w, enum stream_type type, uint32_t round,
		      const char *name, const void *data, size_t len)
{
	struct stream_piece piece = {.total = len};
	const size_t n = strlen(name);
	int ret;

	if (n >= sizeof(piece.name))
		return -EINVAL;
	memcpy(piece.name, name, n);
	do {
		piece.data = (const uint8_t *)data + piece.offset;
		piece.len = len - piece.offset < STREAM_PIECE ? len - piece.offset : STREAM_PIECE;
		ret = stream_piece_write(w, type, round, &piece);
		piece.offset += piece.len;
	} while (!ret && piece.offset < len);
	return ret;
}

static int read_piece(const struct stream_frame *f, struct stream_piece *piece,
		      struct stream_error *err)
{
	struct span in = {f->payload, f->len}, name;

	*piece = (struct stream_piece){.total = 0};
	if (!span_cut_name(&in, &name) || !name.left || name.left > STREAM_NAME_MAX ||
	    !span_get(&in, 8, &piece->total) || !span_get(&in, 8, &piece->offset))
		return stream_fail(err, f, -EBADMSG, "it is cut off");
	span_text(name, piece->name, sizeof(piece->name));
	if (piece->offset > piece->total || in.left > piece->total - piece->offset ||
	    (!in.left && piece->total))
		return stream_fail(err, f, -EBADMSG, "%s: a piece outside of the whole",
				   piece->name);
	piece->data = in.p;
	piece->len = in.left;
	return 0;
}

void stream_blob_free(struct stream_blob *blob)
{
	field_buf_free(&blob->bytes);
	*blob = (struct stream_blob){.total = 0};
}

int stream_blob_add(struct stream_blob *blob, const struct stream_frame *f, uint64_t limit,
		    struct stream_piece *piece, struct stream_error *err)
{
	int ret = read_piece(f, piece, err);

	if (ret)
		return ret;
	if (!blob->name[0] && !blob->whole) {
		memcpy(blob->name, piece->name, sizeof(blob->name));
		blob->total = piece->total;
	}
	if (blob->whole || strcmp(blob->name, piece->name) != 0 || blob->total != piece->total ||
	    piece->offset != blob->have)
		return stream_fail(err, f, -EBADMSG, "%s at %" PRIu64 ": not the next piece of %s",
				   piece->name, piece->offset, blob->name);
	if (piece->total > limit)
		return stream_fail(err, f, -EBADMSG, "%s: %" PRIu64 " bytes, the limit is %" PRIu64,
				   piece->name, piece->total, limit);
	if (!blob->discard && field_buf_append(&blob->bytes, piece->data, piece->len))
		return stream_fail(err, f, -ENOMEM, "no memory for %s", piece->name);
	blob->have += piece->len;
	blob->whole = blob->have == blob->total;
	return blob->whole;
}

int stream_blob_take(struct stream_blob *blob, const struct stream_frame *f, uint64_t limit,
		     struct stream_error *err)
{
	struct stream_piece piece;

	return stream_blob_add(blob, f, limit, &piece, err);
}
