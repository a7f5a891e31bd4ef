#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migration/stream_check_internal.h"
#include "migration/stream_control.h"
#include "migration/stream_items.h"

enum { STATE_LIMIT = 64 << 20, LEDGER_PAGES = 1 << 24 /* 64 GiB */ };
static const uint64_t image_limit = 1ULL << 32;

struct stream_check *stream_check_new(void)
{
	struct stream_check *c = calloc(1, sizeof(*c));

	if (c) {
		c->image.discard = true;
		stream_memory_add(&c->sum.memory, 0, STREAM_PAGE_NUMBER_MAX);
	}
	return c;
}

void stream_check_free(struct stream_check *c)
{
	if (!c)
		return;
	stream_blob_free(&c->image);
	stream_blob_free(&c->state);
	field_buf_free(&c->sum.description);
	free(c->ledger);
	free(c->index);
	free(c);
}

const struct stream_summary *stream_check_summary(const struct stream_check *c)
{
	return &c->sum;
}

int stream_check_unexpected(const struct stream_frame *f, struct stream_error *err)
{
	return stream_fail(err, f, -EPROTO, "it may not come here");
}

static int on_hello(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_hello *h = &c->sum.hello;
	int ret = c->step == AT_HELLO ? stream_hello_read(f, h, err)
				      : stream_check_unexpected(f, err);

	if (ret)
		return ret;
	if (h->version < STREAM_VERSION_OLDEST || h->oldest > STREAM_VERSION)
		return stream_fail(err, f, -ENOTSUP,
				   "versions %" PRIu32 " to %" PRIu32
				   " of the stream are not known here",
				   h->oldest, h->version);
	/* Other connections, and later ones, go on where the first one was. */
	c->step = h->lane != STREAM_LANE_MAIN || h->again || h->role == STREAM_DESTINATION
			  ? AT_PAGES
			  : AT_DESCRIPTION;
	return 0;
}

static int on_items(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_item item;
	uint32_t at = 0;
	int ret;

	while ((ret = stream_item_next(f, &at, &item, err)) > 0)
		;
	if (ret || f->type != STREAM_DESCRIPTION)
		return ret;
	if (c->step != AT_DESCRIPTION)
		return stream_check_unexpected(f, err);
	c->step = AT_IMAGES;
	if (field_buf_append(&c->sum.description, f->payload, f->len))
		return stream_fail(err, f, -ENOMEM, "no memory");
	return 0;
}

/* Before MEMORY, or where both sides know of that behind it, if the destination wants them. */
static bool images_may_come(const struct stream_check *c)
{
	const struct stream_hello *h = &c->sum.hello;

	return c->step == AT_IMAGES || (c->step == AT_PAGES && !c->rounds &&
					h->role == STREAM_SOURCE && h->offers & STREAM_CAN_IMAGES);
}

static int on_image(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_summary *s = &c->sum;
	int ret = images_may_come(c) ? stream_blob_take(&c->image, f, image_limit, err)
				     : stream_check_unexpected(f, err);

	if (ret <= 0)
		return ret;
	if (s->images < STREAM_CHECK_IMAGES) {
		memcpy(s->image[s->images].name, c->image.name, sizeof(c->image.name));
		s->image[s->images++].bytes = c->image.total;
	}
	stream_blob_free(&c->image);
	c->image.discard = true;
	return 0;
}

static int images_whole(const struct stream_check *c, const struct stream_frame *f,
			struct stream_error *err)
{
	return c->image.name[0]
		       ? stream_fail(err, f, -EPROTO, "the image %s is not whole", c->image.name)
		       : 0;
}

static int on_memory(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	int ret = c->step == AT_IMAGES ? stream_memory_read(f, &c->sum.memory, err)
				       : stream_check_unexpected(f, err);

	if (!ret)
		ret = images_whole(c, f, err);
	if (ret)
		return ret;
	c->step = AT_PAGES;
	if (c->sum.memory.pages > LEDGER_PAGES)
		return 0;
	c->ledger = calloc(c->sum.memory.pages, sizeof(*c->ledger));
	return c->ledger ? 0 : stream_fail(err, f, -ENOMEM, "no memory");
}

static int check_round(const struct stream_check *c, const struct stream_frame *f,
		       struct stream_error *err)
{
	return f->round >= c->round
		       ? 0
		       : stream_fail(err, f, -EPROTO, "round %" PRIu32 " after round %" PRIu32,
				     f->round, c->round);
}

static void count_round(struct stream_check *c, const struct stream_frame *f,
			const struct stream_pages *pages)
{
	struct stream_summary *s = &c->sum;
	unsigned i = s->rounds ? s->rounds - 1 : 0;

	if (!s->rounds || (s->round[i].round != f->round && s->rounds < STREAM_CHECK_ROUNDS)) {
		i = s->rounds++;
		s->round[i].round = f->round;
	}
	s->round[i].contents += pages->contents;
	s->round[i].zero += pages->total - pages->contents;
	s->round[i].count.frames++;
	s->round[i].count.bytes += STREAM_HEADER + f->sent;
	s->contents += pages->contents;
	s->zero += pages->total - pages->contents;
	s->unpacked += f->len;
}

static int on_pages(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_pages pages;
	struct stream_pages_run run;
	int ret = check_round(c, f, err);

	if (!ret)
		ret = stream_pages_read(f, &c->sum.memory, &pages, err);
	if (ret)
		return ret;
	c->round_pages = f->round == c->round ? c->round_pages + pages.total : pages.total;
	c->round = f->round;
	count_round(c, f, &pages);
	while (c->ledger && stream_pages_next(&pages, &run)) {
		uint64_t at = stream_memory_index(&c->sum.memory, run.first);

		for (uint32_t i = 0; i < run.count; i++)
			c->ledger[at + i] = run.data ? f->offset : LEDGER_ZERO;
	}
	return 0;
}

static int on_round(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_round round;
	uint64_t sent = f->round == c->round ? c->round_pages : 0;
	int ret = check_round(c, f, err);

	if (!ret)
		ret = images_whole(c, f, err);
	if (!ret)
		ret = stream_control_read(f, &round, sizeof(round), err);
	if (ret)
		return ret;
	c->rounds = true;
	if (round.ends && round.pages != sent)
		return stream_fail(err, f, -EPROTO,
				   "round %" PRIu32 " ends with %" PRIu64 " pages, %" PRIu64
				   " have come",
				   f->round, round.pages, sent);
	return 0;
}

/* The whole device state: one encoded state behind the other. */
static int list_states(struct stream_check *c, const struct stream_frame *f,
		       struct stream_error *err)
{
	struct stream_summary *s = &c->sum;
	const uint8_t *p = c->state.bytes.data;
	size_t left = c->state.bytes.len;
	struct field_head head;

	for (s->states = 0; left;) {
		int64_t used = field_peek(p, left, &head);

		if (used < 0)
			return stream_fail(err, f, -EBADMSG,
					   "the device state at its byte %zu (%s) is malformed",
					   c->state.bytes.len - left,
					   head.name[0] ? head.name : "no name");
		if (s->states < STREAM_CHECK_STATES) {
			s->state[s->states].head = head;
			s->state[s->states++].bytes = (uint64_t)used;
		}
		p += used;
		left -= (size_t)used;
	}
	c->has_state = s->states;
	return 0;
}

static int on_device(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	int ret;

	/* A second attempt to hand over brings the state again. */
	if (c->state.whole)
		stream_blob_free(&c->state);
	ret = stream_blob_take(&c->state, f, STATE_LIMIT, err);
	return ret > 0 ? list_states(c, f, err) : ret;
}

static int on_back(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_request requests[STREAM_REQUESTS_MAX];
	struct stream_received received;
	int ret;

	if (f->type == STREAM_RECEIVED)
		return stream_received_read(f, &c->sum.memory, &received, err);
	ret = stream_request_read(f, &c->sum.memory, requests, err);
	return ret < 0 ? ret : 0;
}

static int check_payload(struct stream_check *c, const struct stream_frame *f,
			 struct stream_error *err)
{
	struct stream_digests digests;
	union {
		struct stream_accept accept;
		struct stream_ready ready;
		struct stream_run run;
		struct stream_ack ack;
		struct stream_resume resume;
		struct stream_cancel cancel;
		struct stream_failure failure;
	} control;

	switch (f->type) {
	case STREAM_HELLO: return on_hello(c, f, err);
	case STREAM_DESCRIPTION:
	case STREAM_STATISTICS: return on_items(c, f, err);
	case STREAM_IMAGE: return on_image(c, f, err);
	case STREAM_MEMORY: return on_memory(c, f, err);
	case STREAM_ROUND: return on_round(c, f, err);
	case STREAM_PAGES: return on_pages(c, f, err);
	case STREAM_DIGESTS: return stream_digests_read(f, &c->sum.memory, &digests, err);
	case STREAM_DEVICE: return on_device(c, f, err);
	case STREAM_REQUEST:
	case STREAM_RECEIVED: return on_back(c, f, err);
	case STREAM_INDEX: return stream_check_index(c, f, err);
	case STREAM_DIRECTORY: return stream_check_directory(c, f, err);
	case STREAM_END: return stream_check_end(c, f, err);
	case STREAM_ALIVE: return 0;
	default: return stream_control_read(f, &control, sizeof(control), err);
	}
}

/* What may come before MEMORY, beside what leads to it. */
static bool early(uint8_t type)
{
	return type <= STREAM_MEMORY || type == STREAM_STATISTICS || type == STREAM_ALIVE ||
	       type == STREAM_CANCEL || type == STREAM_FAILURE;
}

int stream_check_frame(struct stream_check *c, const struct stream_frame *f,
		       struct stream_error *err)
{
	const struct stream_type_info *info = stream_type_info(f->type);
	struct stream_count *count = &c->sum.type[info->name ? f->type : 0];
	unsigned from;

	c->sum.frames++;
	c->sum.bytes += STREAM_HEADER + f->sent;
	count->frames++;
	count->bytes += STREAM_HEADER + f->sent;
	if (c->step == AT_END || (c->step == AT_HELLO) != (f->type == STREAM_HELLO))
		return stream_check_unexpected(f, err);
	if (f->type != STREAM_HELLO && f->channel != c->sum.hello.channel)
		return stream_fail(err, f, -EPROTO, "channel %u on the connection of channel %u",
				   f->channel, c->sum.hello.channel);
	if (!info->name)
		return 0; /* may be skipped, or the parser had refused it */
	from = c->sum.hello.role == STREAM_DESTINATION ? 2 : 1;
	if (f->type != STREAM_HELLO && !(info->from & from))
		return stream_fail(err, f, -EPROTO, "the %s does not say that",
				   from == 2 ? "destination" : "source");
	if (c->step != AT_PAGES && !early(f->type))
		return stream_check_unexpected(f, err);
	return check_payload(c, f, err);
}

int stream_check_finish(struct stream_check *c, struct stream_error *err)
{
	const struct stream_summary *s = &c->sum;
	struct stream_frame end = {.number = s->frames, .offset = s->bytes}; /* behind the last */

	if (!s->frames)
		return stream_fail(err, NULL, -EBADMSG, "it is empty");
	if (s->hello.role != STREAM_FILE)
		return 0;
	if (!s->ended)
		return stream_fail(err, &end, -EBADMSG,
				   "the stream ends without END: it is cut off");
	if (s->hello.again)
		return 0; /* what completes another stream has neither all pages nor the state */
	if (!c->has_state)
		return stream_fail(err, &end, -EBADMSG, "there is no device state");
	if (s->missing)
		return stream_fail(err, &end, -EBADMSG,
				   "%" PRIu64 " of %" PRIu64 " pages were never sent", s->missing,
				   s->memory.pages);
	return 0;
}
