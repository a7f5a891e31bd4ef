#include "migration/stream_control.h"

#include <errno.h>
#include <string.h>

static bool has_images(const void *object)
{
	static const uint8_t none[STREAM_IMAGE_DIGEST];
	const struct stream_accept *accept = object;

	return memcmp(accept->images, none, sizeof(none)) != 0;
}

static const struct field accept_fields[] = {
	FIELD_SCALAR(struct stream_accept, lanes, FIELD_U32, 1),
	{.name = "images",
	 .type = FIELD_BYTES,
	 .offset = offsetof(struct stream_accept, images),
	 .count = STREAM_IMAGE_DIGEST,
	 .stride = 1,
	 .since = 1,
	 .needed = has_images},
	FIELD_END,
};
static const struct field round_fields[] = {
	FIELD_SCALAR(struct stream_round, phase, FIELD_U8, 1),
	FIELD_SCALAR(struct stream_round, ends, FIELD_BOOL, 1),
	FIELD_SCALAR(struct stream_round, pages, FIELD_U64, 1),
	FIELD_END,
};
static const struct field ready_fields[] = {
	FIELD_SCALAR(struct stream_ready, ticket, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_ready, received, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_ready, state_crc, FIELD_U32, 1),
	FIELD_END,
};
static const struct field run_fields[] = {
	FIELD_SCALAR(struct stream_run, ticket, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_run, postcopy, FIELD_BOOL, 1),
	FIELD_SCALAR(struct stream_run, missing, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_run, stopped, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_run, guest, FIELD_U64, 1),
	FIELD_END,
};
static const struct field ack_fields[] = {
	FIELD_SCALAR(struct stream_ack, ticket, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_ack, started, FIELD_U64, 1),
	FIELD_END,
};
static const struct field resume_fields[] = {
	FIELD_SCALAR(struct stream_resume, stage, FIELD_U8, 1),
	FIELD_SCALAR(struct stream_resume, ticket, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_resume, received, FIELD_U64, 1),
	FIELD_SCALAR(struct stream_resume, round, FIELD_U32, 1),
	FIELD_END,
};
static const struct field cancel_fields[] = {
	FIELD_BLOB(struct stream_cancel, text, 1),
	FIELD_END,
};
static const struct field failure_fields[] = {
	FIELD_SCALAR(struct stream_failure, kind, FIELD_U8, 1),
	FIELD_BLOB(struct stream_failure, text, 1),
	FIELD_END,
};

static int round_check(void *object, const char **why)
{
	const struct stream_round *r = object;

	*why = "no such phase";
	return r->phase >= STREAM_PRECOPY && r->phase <= STREAM_POSTCOPY ? 0 : -EINVAL;
}

static int run_check(void *object, const char **why)
{
	const struct stream_run *r = object;

	*why = "pages are missing without post-copy";
	return r->postcopy || !r->missing ? 0 : -EINVAL;
}

static int resume_check(void *object, const char **why)
{
	const struct stream_resume *r = object;

	*why = "no such stage";
	return r->stage >= STREAM_STAGE_COPY && r->stage <= STREAM_STAGE_COMPLETE ? 0 : -EINVAL;
}

/* Texts come from the other side and reach a terminal. */
static int clean(char *text, const char **why)
{
	*why = "a text without an end";
	if (!memchr(text, 0, STREAM_TEXT))
		return -EINVAL;
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 32 || c == 127)
			*text = '?';
	}
	return 0;
}

static int cancel_check(void *object, const char **why)
{
	return clean(((struct stream_cancel *)object)->text, why);
}

static int failure_check(void *object, const char **why)
{
	struct stream_failure *f = object;

	*why = "no such kind";
	if (f->kind != STREAM_REFUSED && f->kind != STREAM_FAILED)
		return -EINVAL;
	return clean(f->text, why);
}

#define DESC(n, check)                                                                             \
	{                                                                                          \
		.name = #n, .version = 1, .fields = n##_fields, .post_load = (check)               \
	}
static const struct state_desc descs[STREAM_TYPES] = {
	[STREAM_ACCEPT] = DESC(accept, NULL),
	[STREAM_ROUND] = DESC(round, round_check),
	[STREAM_READY] = DESC(ready, NULL),
	[STREAM_RUN] = DESC(run, run_check),
	[STREAM_ACK] = DESC(ack, NULL),
	[STREAM_RESUME] = DESC(resume, resume_check),
	[STREAM_CANCEL] = DESC(cancel, cancel_check),
	[STREAM_FAILURE] = DESC(failure, failure_check),
};

const struct state_desc *stream_control_desc(enum stream_type type)
{
	return type < STREAM_TYPES && descs[type].name ? &descs[type] : NULL;
}

int stream_control_write(struct stream_writer *w, enum stream_type type, uint32_t round,
			 void *object)
{
	const struct state_desc *desc = stream_control_desc(type);
	struct field_buf buf = {0};
	int ret = desc ? field_save(desc, object, &buf) : -EINVAL;

	if (!ret)
		ret = stream_write_bytes(w, type, round, buf.data, buf.len);
	field_buf_free(&buf);
	return ret;
}

int stream_control_read(const struct stream_frame *f, void *object, size_t size,
			struct stream_error *err)
{
	const struct state_desc *desc = stream_control_desc(f->type);
	char why[128];
	int64_t used;

	memset(object, 0, size);
	if (!desc)
		return stream_fail(err, f, -EPROTO, "it is not expected here");
	used = field_load(desc, object, f->payload, f->len, why, sizeof(why));
	if (used < 0)
		return stream_fail(err, f, used == -ENOTSUP ? -ENOTSUP : -EBADMSG, "%s", why);
	if (used != f->len)
		return stream_fail(err, f, -EBADMSG, "bytes left over");
	return 0;
}
