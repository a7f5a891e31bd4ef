/*
 * Items: names with values, the payload of HELLO, DESCRIPTION and STATISTICS. A reader that does
 * not know a name skips it, unless the item says that it must be understood.
 *
 *   item := u8 flags (1: must be understood), u8 length, name, u32 length, value
 */
#ifndef MIGRATION_STREAM_ITEMS_H
#define MIGRATION_STREAM_ITEMS_H

#include "migration/stream.h"

enum { STREAM_NAME_MAX = 63 };

struct stream_item {
	char name[STREAM_NAME_MAX + 1]; /* lower case letters, digits, '.', '_' and '-' */
	bool must;
	const char *value; /* in the frame, without a 0 at the end; any bytes */
	uint32_t len;
};

/* Appends one. 0, -EINVAL (a name that cannot be) or -ENOMEM. */
int stream_item_put(struct field_buf *buf, bool must, const char *name, const void *value,
		    size_t len);
int stream_item_put_text(struct field_buf *buf, bool must, const char *name, const char *text);
int stream_item_put_number(struct field_buf *buf, bool must, const char *name, uint64_t value);

/* Takes the item at *at (0 at first) of the frame's payload: 1, 0 at the end, or -EBADMSG. */
int stream_item_next(const struct stream_frame *frame, uint32_t *at, struct stream_item *item,
		     struct stream_error *err);
/* The value as text, without a 0 inside and shorter than size; as a decimal number up to max.
 * -EBADMSG otherwise. */
int stream_item_text(const struct stream_frame *frame, const struct stream_item *item, char *text,
		     size_t size, struct stream_error *err);
int stream_item_number(const struct stream_frame *frame, const struct stream_item *item,
		       uint64_t max, uint64_t *value, struct stream_error *err);
/* What to say of an item whose name is not known: 0 if it may be skipped, else -ENOTSUP. */
int stream_item_unknown(const struct stream_frame *frame, const struct stream_item *item,
			struct stream_error *err);

#endif
