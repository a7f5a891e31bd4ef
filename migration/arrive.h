/*
 * What comes in, whatever it comes through: description, boot images, memory, pages, device state.
 * Keeps for each page the round that it came in, so that no older one can replace it, and counts
 * what is still missing. Hostile input; one thread at a time, but that `state` can be read beside
 * pages that come ahead.
 */
#ifndef MIGRATION_ARRIVE_H
#define MIGRATION_ARRIVE_H

#include "migration/machine.h"
#include "migration/stream_blob.h"

/* What a sender may make us keep. */
enum { ARRIVE_STATE_MAX = 64 << 20, ARRIVE_CHANNELS = 2 };
#define ARRIVE_IMAGE_MAX ((3ull << 30) + (1 << 20))

struct arrival {
	const struct migration_sink_ops *sink;
	void *opaque;
	enum { ARRIVE_DESCRIPTION, ARRIVE_IMAGES, ARRIVE_LATE_IMAGES, ARRIVE_PAGES } step;
	struct stream_memory memory;
	struct stream_blob image, state; /* state.whole: all of it is here */
	/* By place in memory: the round of the newest contents + 1; 0: never came. */
	uint32_t *rounds;
	uint32_t rounds_taken; /* whose end has come on channel 0 */
	uint64_t received;     /* pages that are here */
	uint64_t early;	       /* of them, those that have come ahead */
	bool late_images;      /* they follow MEMORY, or nothing does: agreed with the source */
	bool postcopy;	       /* the guest may run before all are: agreed with the source */
	bool ahead;	       /* some of them come before it does: agreed with the source */
	bool split;  /* RECEIVED has said which ones it will lack: only those are taken, and brought
		      */
	bool missed; /* some: the sink knows of them */
	bool live;   /* it runs */
	/* Pages and state must be what DIGESTS say of them: agreed with the source. */
	bool verify;
	struct arrival_digests {
		uint32_t count;
		uint64_t value[STREAM_PAGES_MAX];
	} digests[ARRIVE_CHANNELS]; /* of the frame that follows on each */
	bool state_said;
	uint64_t state_digest;
	uint64_t contents, zero; /* pages that came, with repetitions */
	struct arrival_channel {
		uint32_t round;	   /* the newest seen */
		uint64_t in_round; /* pages of it */
	} channel[ARRIVE_CHANNELS];
	uint32_t split_round; /* that of RECEIVED: behind it older pages, and those of it, are stale
			       */
};

void arrival_init(struct arrival *a, const struct migration_sink_ops *sink, void *opaque);
void arrival_free(struct arrival *a);
/* Takes a frame. 1: it was MEMORY: the machine can be built now; 0; -EBADMSG, -EPROTO, -ENOTSUP,
 * -ENOMEM or what the sink says, with a text. -EAGAIN: a frame that is somebody else's. */
int arrival_take(struct arrival *a, const struct stream_frame *frame, struct stream_error *err);
/* The connection, or the file, that a channel came on is at its end: what was half said on it is
 * not said. The next one begins anew. */
void arrival_cut(struct arrival *a, unsigned channel);
/* A frame IMAGE that was left out when it was its turn. */
int arrival_take_image(struct arrival *a, const struct stream_frame *frame,
		       struct stream_error *err);
/* What is here, from the place `first` on: bits as in RECEIVED. Returns how many it wrote. */
uint32_t arrival_bitmap(const struct arrival *a, uint64_t first, uint32_t count, uint8_t *bits);
/* 0: all pages (or those that RECEIVED said) and the device state are here; else -EPROTO with what
 * is missing. */
int arrival_complete(const struct arrival *a, struct stream_error *err);

#endif
