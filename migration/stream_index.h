/*
 * What makes a stream in a file seekable: END is the last frame and of a fixed size; it says where
 * the DIRECTORY is, that says where the INDEX frames are, and these where each page's newest
 * contents are. Each is read, and its checksum looked at, when it is needed: opening a file costs
 * the same whatever the memory's size.
 */
#ifndef MIGRATION_STREAM_INDEX_H
#define MIGRATION_STREAM_INDEX_H

#include "migration/stream.h"

enum {
	STREAM_INDEX_MAX = 4096,      /* pages of one INDEX frame */
	STREAM_DIRECTORY_MAX = 43008, /* INDEX frames: 672 GiB of memory */
	STREAM_END_SIZE = 40,	      /* payload of END */
};

/* ---- INDEX: u64 first page, u32 count, u32 0, count * u64 offset of a PAGES frame; 0: zero ----
 */

struct stream_index {
	uint64_t first;
	uint32_t count;
	const uint8_t *offsets; /* in the frame: stream_index_offset() */
};
uint64_t stream_index_offset(const struct stream_index *index, uint32_t i);
int stream_index_write(struct stream_writer *w, uint64_t first, const uint64_t *offsets,
		       uint32_t count);
int stream_index_read(const struct stream_frame *frame, struct stream_index *index,
		      struct stream_error *err);

/* ---- DIRECTORY: u32 count, u32 0, count * { u64 first page, u64 count, u64 offset } ---- */

struct stream_entry {
	uint64_t first, count, offset; /* the pages of an INDEX frame, and where it begins */
};
struct stream_directory {
	uint32_t count;
	const uint8_t *entries; /* in the frame: stream_directory_entry() */
};
struct stream_entry stream_directory_entry(const struct stream_directory *directory, uint32_t i);
int stream_directory_write(struct stream_writer *w, const struct stream_entry *entries,
			   uint32_t count);
/* Entries ascend, and lie before this frame. */
int stream_directory_read(const struct stream_frame *frame, struct stream_directory *directory,
			  struct stream_error *err);

/* ---- END ---- */

struct stream_end {
	uint64_t directory; /* offset of the DIRECTORY frame; 0: the stream has none */
	uint64_t frames;    /* before this one on this connection */
	uint64_t pages;	    /* with contents, sent on this connection */
	uint64_t zero;	    /* and without */
	uint64_t bytes;	    /* before this frame */
};
/* frames and bytes are filled in. */
int stream_end_write(struct stream_writer *w, struct stream_end *end);
int stream_end_read(const struct stream_frame *frame, struct stream_end *end,
		    struct stream_error *err);

#endif
