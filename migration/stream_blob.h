/*
 * Named bytes in pieces: boot images (IMAGE) and device state (DEVICE).
 *
 *   piece := u8 length, name, u64 length of all, u64 offset, bytes
 */
#ifndef MIGRATION_STREAM_BLOB_H
#define MIGRATION_STREAM_BLOB_H

#include "migration/stream.h"

/* Writes all of it, in as many frames as it needs; at least one. */
int stream_blob_write(struct stream_writer *w, enum stream_type type, uint32_t round,
		      const char *name, const void *data, size_t len);

struct stream_piece {
	char name[64];
	uint64_t total, offset;
	const uint8_t *data;
	size_t len;
};
/* Writes one piece, at most STREAM_PIECE bytes of data. */
enum { STREAM_PIECE = 1 << 20 };
int stream_piece_write(struct stream_writer *w, enum stream_type type, uint32_t round,
		       const struct stream_piece *piece);

/* Puts the pieces together. Zero-initialised is empty. */
struct stream_blob {
	char name[64];
	uint64_t total, have;
	struct field_buf bytes; /* what has come; grows with it, whatever the pieces promise */
	bool discard;		/* set it to check only: bytes stays empty */
	bool whole;
};
void stream_blob_free(struct stream_blob *blob);
/* Takes the next piece. 1: whole now; 0; -EBADMSG (another name or length, a gap, more than
 * `limit` bytes); -ENOMEM. One that is whole must be freed before the next begins. */
int stream_blob_take(struct stream_blob *blob, const struct stream_frame *frame, uint64_t limit,
		     struct stream_error *err);
/* The same; and the piece, which points into the frame. */
int stream_blob_add(struct stream_blob *blob, const struct stream_frame *frame, uint64_t limit,
		    struct stream_piece *piece, struct stream_error *err);

#endif
