/* Between the files of stream_check. */
#ifndef MIGRATION_STREAM_CHECK_INTERNAL_H
#define MIGRATION_STREAM_CHECK_INTERNAL_H

#include "migration/stream_blob.h"
#include "migration/stream_check.h"
#include "migration/stream_index.h"

/* How far the direction is: what may come follows from it. */
enum step { AT_HELLO, AT_DESCRIPTION, AT_IMAGES, AT_PAGES, AT_END };

enum { LEDGER_NEVER = 0, LEDGER_ZERO = 1 }; /* beside offsets of frames */

struct stream_check {
	struct stream_summary sum;
	enum step step;
	uint32_t round; /* of the last PAGES */
	uint64_t round_pages;
	bool rounds; /* one has begun: no image may follow */
	struct stream_blob image, state;
	uint64_t *ledger; /* of each page: where its newest contents are; NULL: too many pages */
	struct stream_entry *index;
	uint32_t index_count;
	uint64_t directory;
	bool has_state;
};

int stream_check_unexpected(const struct stream_frame *f, struct stream_error *err);
int stream_check_index(struct stream_check *c, const struct stream_frame *f,
		       struct stream_error *err);
int stream_check_directory(struct stream_check *c, const struct stream_frame *f,
			   struct stream_error *err);
int stream_check_end(struct stream_check *c, const struct stream_frame *f,
		     struct stream_error *err);

#endif
