#include "migration/stream_items.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migration/bytes.h"

enum { MUST = 1 };

static bool name_ok(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = name[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '.' && c != '_' &&
		    c != '-')
			return false;
	}
	return len && len <= STREAM_NAME_MAX;
}

int stream_item_put(struct field_buf *buf, bool must, const char *name, const void *value,
		    size_t len)
{
	uint8_t head[2 + STREAM_NAME_MAX + 4];
	size_t start = buf->len, n = strnlen(name, STREAM_NAME_MAX + 1);

	if (!name_ok(name, n) || len > STREAM_SMALL_MAX)
		return -EINVAL;
	head[0] = must ? MUST : 0;
	head[1] = (uint8_t)n;
	memcpy(head + 2, name, n);
	put_le(head + 2 + n, len, 4);
	if (!field_buf_append(buf, head, n + 6) && !field_buf_append(buf, value, len))
		return 0;
	buf->len = start;
	return -ENOMEM;
}

int stream_item_put_text(struct field_buf *buf, bool must, const char *name, const char *text)
{
	return stream_item_put(buf, must, name, text, strlen(text));
}

int stream_item_put_number(struct field_buf *buf, bool must, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return stream_item_put_text(buf, must, name, text);
}

int stream_item_next(const struct stream_frame *frame, uint32_t *at, struct stream_item *item,
		     struct stream_error *err)
{
	struct span in = {frame->payload + *at, frame->len - *at}, name, value;
	uint64_t flags, len;

	if (!in.left)
		return 0;
	if (!span_get(&in, 1, &flags) || !span_cut_name(&in, &name) || !span_get(&in, 4, &len) ||
	    !span_cut(&in, len, &value))
		return stream_fail(err, frame, -EBADMSG, "an item is cut off");
	if (flags & ~(uint64_t)MUST || !name_ok((const char *)name.p, name.left))
		return stream_fail(err, frame, -EBADMSG, "an item that cannot be");
	item->must = flags & MUST;
	memcpy(item->name, name.p, name.left);
	item->name[name.left] = 0;
	item->value = (const char *)value.p;
	item->len = (uint32_t)value.left;
	*at = frame->len - (uint32_t)in.left;
	return 1;
}

int stream_item_text(const struct stream_frame *frame, const struct stream_item *item, char *text,
		     size_t size, struct stream_error *err)
{
	if (item->len >= size || memchr(item->value, 0, item->len))
		return stream_fail(err, frame, -EBADMSG, "%s: no text of at most %zu bytes",
				   item->name, size - 1);
	memcpy(text, item->value, item->len);
	text[item->len] = 0;
	return 0;
}

int stream_item_number(const struct stream_frame *frame, const struct stream_item *item,
		       uint64_t max, uint64_t *value, struct stream_error *err)
{
	uint64_t v = 0;
	bool bad = !item->len || item->len > 20;

	for (uint32_t i = 0; i < item->len && !bad; i++) {
		unsigned digit = (unsigned)(item->value[i] - '0');

		bad = digit > 9 || __builtin_mul_overflow(v, 10, &v) ||
		      __builtin_add_overflow(v, digit, &v);
	}
	if (bad || v > max)
		return stream_fail(err, frame, -EBADMSG, "%s: no number up to %" PRIu64, item->name,
				   max);
	*value = v;
	return 0;
}

int stream_item_unknown(const struct stream_frame *frame, const struct stream_item *item,
			struct stream_error *err)
{
	if (!item->must)
		return 0;
	return stream_fail(err, frame, -ENOTSUP,
			   "'%s' is needed and not known here: the other side is a newer ferry",
			   item->name);
}
