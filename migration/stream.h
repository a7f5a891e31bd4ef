/*
 * The migration stream: frames, how they are written and how they are read.
 * docs/migration-stream.md is the format; this is the library. It knows no machine, no socket and
 * no file: a reader is fed pieces of any length, a writer gives pieces to a function. Whatever is
 * read is hostile: memory is bounded, every length checked, and nothing of a frame is seen before
 * its checksums have been.
 *
 * Every frame has a header of 32 bytes, little endian:
 *
 *    0  magic "FRY1"              12  sequence: frames before it on this connection
 *    4  type                      16  round
 *    5  flags                     20  length of the payload as it is sent
 *    6  channel                   24  CRC32C of the payload as it is sent
 *    8  length decompressed       28  CRC32C of bytes 0 to 27
 *
 * A reader or writer belongs to one thread at a time. No function keeps a pointer that it is given.
 */
#ifndef MIGRATION_STREAM_H
#define MIGRATION_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "migration/field.h"

enum {
	STREAM_VERSION = 1, /* spoken here; and the oldest that is understood: */
	STREAM_VERSION_OLDEST = 1,
	STREAM_MAGIC = 0x31595246, /* "FRY1" */
	STREAM_HEADER = 32,
	STREAM_PAGE = 4096,
	STREAM_PAGES_MAX = 256,	  /* with contents, in one frame */
	STREAM_RUNS_MAX = 512,	  /* runs of pages in one frame */
	STREAM_SMALL_MAX = 65536, /* payload of every frame that carries no bulk */
	STREAM_PAYLOAD_MAX = STREAM_PAGES_MAX * STREAM_PAGE + STREAM_RUNS_MAX * 16 + 16,
};

/* Numbers are for ever; a type that is no longer sent keeps its number. */
enum stream_type {
	STREAM_HELLO = 1,	/* both: who speaks, what it can do; the first of a connection */
	STREAM_DESCRIPTION = 2, /* to the destination: the machine as names and values */
	STREAM_IMAGE = 3,	/* to: a piece of a boot image */
	STREAM_MEMORY = 4,	/* to: which pages there are */
	STREAM_ACCEPT = 5,	/* back: the machine stands, send */
	STREAM_ROUND = 6,	/* to: a round has begun or ended on this channel */
	STREAM_PAGES = 7,	/* to: contents */
	STREAM_DIGESTS = 8,	/* to: what pages must be, for --verify */
	STREAM_DEVICE = 9,	/* to: a piece of the device state */
	STREAM_READY = 10,	/* back: all is here that is needed to run */
	STREAM_RUN = 11,	/* to: the guest is yours */
	STREAM_ACK = 12,	/* back: it runs */
	STREAM_REQUEST = 13,	/* back: pages that somebody waits for */
	STREAM_RESUME = 14,	/* both: after a new connection, where each side is */
	STREAM_RECEIVED = 15,	/* back: a piece of the bitmap of received pages */
	STREAM_STATISTICS = 16, /* both: numbers for people; may be skipped */
	STREAM_ALIVE = 17,	/* both: nothing else to say */
	STREAM_CANCEL = 18,	/* to: called off */
	STREAM_FAILURE = 19,	/* both: refused or failed, with the reason */
	STREAM_INDEX = 20,	/* file: where the newest contents of pages stand */
	STREAM_DIRECTORY = 21,	/* file: where the INDEX frames stand */
	STREAM_END = 22,	/* to: complete; the last frame, of fixed size */
	STREAM_TYPES,
};

enum stream_flags {
	STREAM_MUST = 1, /* a reader that does not know the type gives up; else it skips it */
	STREAM_ZSTD = 2, /* the payload is one zstd frame */
};

struct stream_type_info {
	const char *name; /* "PAGES"; NULL: no such type */
	uint32_t max;	  /* bytes of payload */
	bool must;	  /* is sent with STREAM_MUST */
	bool bulk;	  /* may be compressed */
	uint8_t from;	  /* who sends it: 1 the source or a file, 2 the destination, 3 both */
};
const struct stream_type_info *stream_type_info(unsigned type); /* never NULL */

struct stream_frame {
	uint8_t type;	  /* may be one that is not known here, without STREAM_MUST */
	uint8_t flags;	  /* enum stream_flags */
	uint16_t channel; /* which connection of the migration */
	uint32_t round;
	uint64_t number, offset; /* since the connection began: frames, and bytes to the header */
	uint32_t sent;		 /* bytes of payload as they were sent */
	uint32_t len;		 /* and what they are now */
	const uint8_t *payload;
};

/* What is wrong, and where: "frame 7 (PAGES) at byte 8192: ..." in text. */
struct stream_error {
	uint64_t frame, offset;
	char text[256];
};
/* Fills in err, which may be NULL; `frame` gives the place, NULL: none. Returns code. */
int stream_fail(struct stream_error *err, const struct stream_frame *frame, int code,
		const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* ---- reading ---------------------------------------------------------------------------- */

struct stream_parser;

/* NULL: no memory. At most two payloads are kept. */
struct stream_parser *stream_parser_new(void);
void stream_parser_free(struct stream_parser *p);
/* Begins a connection (or a file at a frame's border): sequence numbers count from here. Offsets in
 * messages begin at `offset`. */
void stream_parser_restart(struct stream_parser *p, uint64_t offset);
/* For reading a file anywhere: the next sequence number is taken from the next frame. */
void stream_parser_seek(struct stream_parser *p, uint64_t offset);

/*
 * Takes bytes up to the end of the next frame: *used of len. Returns 1 with a whole frame, whose
 * payload stays until the next call on this parser (and as long as `data` does: a frame that lies
 * whole in `data` is not copied); 0 when all is taken and more is needed; -EBADMSG (damaged),
 * -EPROTO (well-formed, but not what may come here), -ENOTSUP (of a newer version), -ENOMEM, with a
 * text. After an error the parser gives the same error until it is restarted.
 */
int stream_parse(struct stream_parser *p, const void *data, size_t len, size_t *used,
		 struct stream_frame *frame, struct stream_error *err);

/* Where to read the rest of the frame that is being taken, instead of through a buffer of the
 * caller's: *len bytes, at least 1. stream_parsed() says how many came; it returns as
 * stream_parse(). */
void *stream_parser_space(struct stream_parser *p, size_t *len, struct stream_error *err);
int stream_parsed(struct stream_parser *p, size_t len, struct stream_frame *frame,
		  struct stream_error *err);

/* For reading a file anywhere: what the STREAM_HEADER bytes at `offset` say of their frame, which
 * is not read: no payload. 0, or as stream_parse(); this parser is to be put to another place. */
int stream_peek(struct stream_parser *p, uint64_t offset, const void *header,
		struct stream_frame *frame, struct stream_error *err);

/* 0 if the stream may end here; -EBADMSG with a text in the middle of a frame. */
int stream_parser_finish(struct stream_parser *p, struct stream_error *err);

/* ---- writing ---------------------------------------------------------------------------- */

/* Takes all of the pieces, in order, before it returns: 0 or -errno. A non-blocking transport
 * copies what does not fit into its queue. */
typedef int (*stream_put)(void *opaque, const struct iovec *iov, unsigned count);

struct stream_writer {
	stream_put put;
	void *opaque;
	uint16_t channel;
	uint64_t sequence; /* frames so far; the header has the low half */
	uint64_t offset;   /* bytes so far */
	int level;	   /* of zstd for bulk, 0: never */
	/* Whether there is time for so many bytes, asked before each frame; NULL: always. */
	bool (*spare)(void *opaque, size_t len);
	unsigned in_vain, passed; /* frames that did not become smaller, and that were not tried */
	void *zstd, *packed;	  /* made when they are needed */
};

void stream_writer_init(struct stream_writer *w, uint16_t channel, stream_put put, void *opaque);
void stream_writer_free(struct stream_writer *w);

/* One frame of the payload's pieces (at most STREAM_IOV_MAX). 0, -EMSGSIZE (too long for its type)
 * or -ENOMEM, both before put was called, or what put says: the connection is over then. */
enum { STREAM_IOV_MAX = STREAM_PAGES_MAX + 2 };
int stream_write(struct stream_writer *w, enum stream_type type, uint32_t round,
		 const struct iovec *iov, unsigned count);
/* The same of one piece. */
int stream_write_bytes(struct stream_writer *w, enum stream_type type, uint32_t round,
		       const void *data, size_t len);
/* A stream_put into a struct field_buf. */
int stream_put_buf(void *opaque, const struct iovec *iov, unsigned count);

#endif
