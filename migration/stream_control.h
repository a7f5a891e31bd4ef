/*
 * The frames of few numbers: each is one field table (migration/field.h), so that a later version
 * can add to it, and leave out what is not needed.
 *
 * The hand-over: the destination says READY with a ticket of its own choice; RUN and ACK repeat it.
 * What carries another ticket belongs to another attempt and is not obeyed.
 */
#ifndef MIGRATION_STREAM_CONTROL_H
#define MIGRATION_STREAM_CONTROL_H

#include "migration/stream.h"

enum { STREAM_TEXT = 200, STREAM_IMAGE_DIGEST = 32 };

struct stream_accept {
	uint32_t lanes; /* connections beside channel 0 that the destination takes */
	/* SHA-256 of the boot images that it has itself; zero: it has none. */
	uint8_t images[STREAM_IMAGE_DIGEST];
};

enum stream_phase { STREAM_PRECOPY = 1, STREAM_STOPPED = 2, STREAM_POSTCOPY = 3 };
/* The round's number is the frame's own. */
struct stream_round {
	uint8_t phase;
	bool ends;	/* else it begins */
	uint64_t pages; /* begins: to be sent, an estimate; ends: sent on this channel */
};

struct stream_ready {
	uint64_t ticket;
	uint64_t received;  /* pages that are there */
	uint32_t state_crc; /* CRC32C of the device state */
};

struct stream_run {
	uint64_t ticket;
	bool postcopy;	  /* pages are missing and will follow */
	uint64_t missing; /* pages */
	uint64_t stopped; /* when the guest was stopped: CLOCK_REALTIME of the source, ns */
	uint64_t guest;	  /* guest time then, ns */
};

struct stream_ack {
	uint64_t ticket;
	uint64_t started; /* CLOCK_REALTIME of the destination, ns */
};

/* How far a side is, as it knows for sure. */
enum stream_stage {
	STREAM_STAGE_COPY = 1,	   /* the source's guest runs, or could */
	STREAM_STAGE_READY = 2,	   /* READY was sent / has come; no RUN */
	STREAM_STAGE_RUN = 3,	   /* RUN was sent / has come; no ACK */
	STREAM_STAGE_RUNNING = 4,  /* ACK was sent / has come; pages may be missing */
	STREAM_STAGE_COMPLETE = 5, /* nothing is missing */
};
struct stream_resume {
	uint8_t stage;
	uint64_t ticket;   /* of the last READY, 0: none */
	uint64_t received; /* pages; RECEIVED frames follow with stages RUN and RUNNING, from the
			      destination */
	uint32_t round;	   /* the last one that has ended */
};

struct stream_cancel {
	char text[STREAM_TEXT]; /* why, for people */
};

enum stream_failure_kind {
	STREAM_REFUSED = 1, /* it cannot be done here; the source has not been paused */
	STREAM_FAILED = 2,
};
struct stream_failure {
	uint8_t kind;
	char text[STREAM_TEXT];
};

/* The table of a type; NULL: its payload is none. */
const struct state_desc *stream_control_desc(enum stream_type type);
int stream_control_write(struct stream_writer *w, enum stream_type type, uint32_t round,
			 void *object);
/* object is zeroed first. -EBADMSG, or -ENOTSUP for a needed field that is not known. */
int stream_control_read(const struct stream_frame *frame, void *object, size_t size,
			struct stream_error *err);

#endif
