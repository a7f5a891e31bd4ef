/*
 * Looks at one direction of one connection, or at a file: whether every frame is what it must be,
 * in an order that can be, and complete; and counts. Knows no machine.
 */
#ifndef MIGRATION_STREAM_CHECK_H
#define MIGRATION_STREAM_CHECK_H

#include "migration/stream_hello.h"
#include "migration/stream_memory.h"

enum {
	STREAM_CHECK_ROUNDS = 64, /* the last one gathers all further ones */
	STREAM_CHECK_IMAGES = 8,
	STREAM_CHECK_STATES = 256,
};

struct stream_count {
	uint64_t frames, bytes; /* with headers */
};

struct stream_summary {
	uint64_t frames, bytes;
	struct stream_count type[STREAM_TYPES]; /* 0: types that are not known here */
	struct stream_hello hello;
	struct stream_memory memory; /* one region of everything until MEMORY comes */
	uint64_t contents, zero;     /* pages */
	uint64_t unpacked;	     /* payload of PAGES when decompressed */
	uint64_t missing; /* pages of memory that were never sent; counted at END, for a file */
	bool counted;	  /* missing was */
	bool ended;	  /* END was there */
	unsigned rounds, images, states;
	struct {
		uint32_t round;
		uint64_t contents, zero;
		struct stream_count count;
	} round[STREAM_CHECK_ROUNDS];
	struct {
		char name[64];
		uint64_t bytes;
	} image[STREAM_CHECK_IMAGES];
	struct {
		struct field_head head;
		uint64_t bytes;
	} state[STREAM_CHECK_STATES]; /* of the last device state */
	struct field_buf description; /* payload of DESCRIPTION: items */
};

struct stream_check;
struct stream_check *stream_check_new(void); /* NULL: no memory */
void stream_check_free(struct stream_check *c);
const struct stream_summary *stream_check_summary(const struct stream_check *c);
/* The next frame. 0, -EBADMSG, -EPROTO, -ENOTSUP or -ENOMEM with a text. */
int stream_check_frame(struct stream_check *c, const struct stream_frame *frame,
		       struct stream_error *err);
/* After the last one: whether END was there; and of a file, whether it has every page and the
 * state. */
int stream_check_finish(struct stream_check *c, struct stream_error *err);

#endif
