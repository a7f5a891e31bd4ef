/*
 * HELLO: who speaks, which versions of the stream, and what it can do. Both sides send one as the
 * first frame of every connection and hold the two against each other before anything else.
 */
#ifndef MIGRATION_STREAM_HELLO_H
#define MIGRATION_STREAM_HELLO_H

#include "migration/stream.h"

enum stream_role { STREAM_SOURCE, STREAM_DESTINATION, STREAM_FILE };
/* What a connection is for. Channel 0 is MAIN: everything may go there. */
enum stream_lane { STREAM_LANE_MAIN, STREAM_LANE_PAGES, STREAM_LANE_DEMAND };

/* By name in the stream: one that is not known here is skipped, or refused by its name. */
enum stream_capability {
	STREAM_CAN_ZSTD = 1,	  /* compressed frames */
	STREAM_CAN_LANES = 2,	  /* connections beside channel 0 */
	STREAM_CAN_POSTCOPY = 4,  /* running before all pages are there */
	STREAM_CAN_RECONNECT = 8, /* RESUME and RECEIVED on a new connection */
	STREAM_CAN_VERIFY = 16,	  /* DIGESTS */
	STREAM_CAN_INDEX = 32,	  /* INDEX and DIRECTORY, in a file */
	STREAM_CAN_IMAGES = 64,	  /* boot images only if the destination has others, or none */
	STREAM_CAN_AHEAD = 128,	  /* post-copy: PAGES while the device state is loaded */
};

struct stream_hello {
	uint32_t version, oldest; /* the versions of the stream that are spoken */
	uint32_t role, lane;
	uint16_t channel;
	bool again;	     /* of a connection after the first one: RESUME follows */
	uint8_t session[16]; /* random, made by the source; zero from a destination which has none
			      */
	char ferry[32];	     /* the programme's version, for messages */
	char arch[16];	     /* of the guest: "x86_64" */
	uint32_t page;	     /* bytes */
	uint32_t offers, needs; /* enum stream_capability; what is needed is offered too */
};

/* What every HELLO of this programme says: versions, page size; the rest is zero. */
void stream_hello_init(struct stream_hello *hello);
int stream_hello_write(struct stream_writer *w, const struct stream_hello *hello);
/* -EBADMSG; -ENOTSUP: something is needed that is not known here. */
int stream_hello_read(const struct stream_frame *frame, struct stream_hello *hello,
		      struct stream_error *err);

/* Holds the two against each other: the version and the capabilities that both have. -ENOTSUP with
 * a text that says what the sides don't have in common; -EPROTO: it belongs to another migration,
 * or both have the same role. */
struct stream_agreement {
	uint32_t version, can;
};
int stream_agree(const struct stream_hello *mine, const struct stream_hello *theirs,
		 struct stream_agreement *agreement, struct stream_error *err);

#endif
