/* Pre-copy: rounds over what was written meanwhile, until the rest fits into the downtime. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migration/clock.h"
#include "migration/crc32c.h"
#include "migration/source_internal.h"
#include "migration/stream_blob.h"

static const uint64_t second = 1000000000;
enum {
	HARVEST = 1 << 17, /* pages at once */
	SLICE = 64,	   /* pages between two looks around */
	IDLE_MS = 50,
	LANE_MS = 1000, /* for the lane to open, while the guest runs */
};
/* For so long the guest may well stand still: it is not worth another round. */
static const uint64_t short_stop = 4000000;
/* For what lies at the destination and has not been taken in. */
static const uint64_t settle = 250000000;
/* Beyond --downtime, for a frame on its way and for the destination to be ready: what has come so
 * far is worth it. */
static const uint64_t slack = 5000000000;

/* ---- what is dirty ---------------------------------------------------------------------- */

static uint64_t merge(uint64_t *at, const uint64_t *more, uint64_t count, bool add)
{
	uint64_t bits = 0;

	for (uint64_t i = 0; i < count; i++) {
		at[i] = (add ? at[i] : 0) | more[i];
		bits += (uint64_t)__builtin_popcountll(at[i]);
	}
	return bits;
}

/* add: to what was fetched before and has not been sent. */
static int harvest(struct source *s, bool add, struct stream_error *err)
{
	const struct stream_memory *memory = &s->m->memory;
	uint64_t fetched[HARVEST / 64], *at = s->bitmap;
	const uint64_t now = clock_now();

	s->dirty = 0;
	for (uint32_t r = 0; r < memory->count; r++) {
		const struct stream_region *region = &memory->region[r];

		for (uint64_t i = 0; i < region->count; i += HARVEST) {
			uint64_t left = region->count - i, n = left < HARVEST ? left : HARVEST;
			int64_t got;

			memset(fetched, 0, source_region_words(n) * sizeof(fetched[0]));
			got = s->m->ops->harvest(s->m->opaque, region->first + i, n, fetched);
			if (got < 0)
				return stream_fail(err, NULL, (int)got,
						   "cannot fetch what the guest has written: %s",
						   strerror((int)-got));
			s->dirty += merge(at, fetched, source_region_words(n), add);
			at += source_region_words(n);
		}
	}
	if (!add && now > s->harvested) {
		pthread_mutex_lock(&s->lock);
		s->progress.dirty_rate = (uint64_t)((double)s->dirty * STREAM_PAGE *
						    (double)second / (double)(now - s->harvested));
		pthread_mutex_unlock(&s->lock);
	}
	s->harvested = now;
	return 0;
}

/* ---- a round ---------------------------------------------------------------------------- */

struct sending {
	bool live;
	uint64_t pages, zero, left;
	unsigned since;
};

/* Between pages: how far it is, whether the other side has something to say, whether we may. */
static int look_around(struct source *s, struct sending *n, struct stream_error *err)
{
	int ret;

	source_show(s, n->left, n->pages, n->zero);
	n->pages = n->zero = 0;
	n->since = 0;
	ret = source_listen(s, err);
	if (!ret && !n->live && n->left && clock_now() - s->stopped > s->params.downtime)
		return 1;
	if (!ret && n->live)
		ret = source_look_at_time(s, err);
	if (!ret) {
		uint64_t before = clock_now();

		if (link_pace(s->link))
			ret = source_listen(s, err);
		s->paced += clock_now() - before;
	}
	return ret;
}

static int send_page(struct source *s, struct sending *n, uint64_t page, struct stream_error *err)
{
	int ret = stream_batch_add(s->batch, page, s->m->ops->page(s->m->opaque, page), n->live);

	if (ret < 0)
		return source_unsent(s, ret, err);
	n->zero += ret == 1;
	n->pages += ret == 0;
	n->left--;
	return ++n->since >= SLICE ? look_around(s, n, err) : 0;
}

static int send_region(struct source *s, struct sending *n, const struct stream_region *region,
		       uint64_t *bits, struct stream_error *err)
{
	int ret = 0;

	for (uint64_t i = 0; i < region->count && !ret; i++) {
		if (!(i % 64) && !bits[i / 64]) {
			i += 63;
			continue;
		}
		if (!(bits[i / 64] >> (i % 64) & 1))
			continue;
		/* What is written from now on comes with the next harvest. */
		bits[i / 64] &= ~(1ull << (i % 64));
		ret = send_page(s, n, region->first + i, err);
		if (!ret && n->live && !n->since && source_switch_now(s))
			ret = 1;
	}
	return ret;
}

static void take_all(struct source *s)
{
	const struct stream_memory *memory = &s->m->memory;
	uint64_t *at = s->bitmap;

	for (uint32_t r = 0; r < memory->count; r++) {
		for (uint64_t i = 0; i < memory->region[r].count; i++)
			at[i / 64] |= 1ull << (i % 64);
		at += source_region_words(memory->region[r].count);
	}
	s->dirty = memory->pages;
}

/* 1: it was broken off: the guest has stood still for too long. */
static int send_round(struct source *s, bool live, struct stream_error *err)
{
	const struct stream_memory *memory = &s->m->memory;
	struct sending n = {.live = live, .left = s->dirty};
	struct stream_round round = {.phase = live ? STREAM_PRECOPY : STREAM_STOPPED,
				     .pages = n.left};
	uint64_t *bits = s->bitmap;
	const uint64_t count = n.left;
	int ret = stream_batch_round(s->batch, ++s->round);

	s->since = clock_now();
	s->paced = 0;
	if (!ret)
		ret = stream_control_write(&s->link->w, STREAM_ROUND, s->round, &round);
	for (uint32_t r = 0; r < memory->count && !ret; r++) {
		ret = send_region(s, &n, &memory->region[r], bits, err);
		if (ret < 0)
			return ret;
		bits += source_region_words(memory->region[r].count);
	}
	if (ret >= 0)
		ret = stream_batch_flush(s->batch);
	round.ends = true;
	round.pages = count - n.left;
	if (!ret)
		ret = stream_control_write(&s->link->w, STREAM_ROUND, s->round, &round);
	if (ret)
		return source_unsent(s, ret, err);
	ret = look_around(s, &n, err);
	s->spent += clock_now() - s->since - s->paced;
	s->since = 0;
	if (ret > 0) /* what is still to be sent is in the bitmap */
		s->dirty = n.left;
	return ret;
}

/* ---- the whole -------------------------------------------------------------------------- */

static int stop(struct source *s, struct stream_error *err)
{
	int ret;

	/* Its processors stand still from the beginning of this on. */
	s->link->deadline = clock_now() + s->params.downtime + slack;
	s->link->late = "the guest would stand still for longer than it may: the link, or the "
			"destination, is slower than it was";
	ret = source_busy(s, s->m->ops->stop, err);
	if (ret)
		return ret;
	s->stopped = clock_now();
	s->link->deadline = s->stopped + s->params.downtime + slack;
	source_step(s, EVENT_STOP);
	return harvest(s, true, err);
}

/* It takes longer than it was thought to. */
static int go_on(struct source *s, struct stream_error *err)
{
	int ret = source_busy(s, s->m->ops->take_back, err);

	if (ret)
		return ret;
	source_step(s, EVENT_GO_ON);
	s->stopped = 0;
	source_limit_copy(s);
	source_phase(s, "copy");
	return 0;
}

static int stop_and_finish(struct source *s, bool postcopy, bool *done, struct stream_error *err)
{
	struct field_buf state = {0};
	int ret = stop(s, err);

	*done = true;
	if (ret)
		return ret;
	/* Is what is left now as little as it was thought to be? */
	if (!postcopy &&
	    source_expect_downtime(s, s->dirty) + clock_now() - s->stopped > s->params.downtime) {
		*done = false;
		return go_on(s, err);
	}
	source_phase(s, "handover");
	ret = postcopy ? source_say_received(s, err) : send_round(s, false, err);
	if (ret > 0) {
		*done = false;
		return go_on(s, err);
	}
	if (!ret)
		ret = s->m->ops->state(s->m->opaque, &state, err);
	s->state_size = state.len;
	s->state_crc = crc32c(0, state.data, state.len);
	if (!ret) {
		const uint64_t digest = stream_digest_of(state.data, state.len);

		if (s->params.verify)
			ret = stream_digests_write_of(&s->link->w, STREAM_DIGEST_STATE, 0, &digest,
						      1);
		if (!ret)
			ret = stream_blob_write(&s->link->w, STREAM_DEVICE, s->round, "machine",
						state.data, state.len);
		if (ret)
			ret = source_unsent(s, ret, err);
	}
	field_buf_free(&state);
	return ret;
}

/* In pieces as a limit lets through in an eighth of a second. */
static int send_image(struct source *s, struct stream_error *err)
{
	const uint64_t limit = s->params.bandwidth / 8,
		       most = limit && limit < STREAM_PIECE ? limit : STREAM_PIECE;
	struct stream_piece piece = {.name = "boot"};
	const void *data;
	size_t len;
	int ret = s->m->ops->image(s->m->opaque, &data, &len, err);

	if (ret)
		return ret;
	source_phase(s, "image");
	for (piece.total = len; !ret && piece.offset < len; piece.offset += piece.len) {
		piece.data = (const uint8_t *)data + piece.offset;
		piece.len = len - piece.offset < most ? len - piece.offset : most;
		ret = stream_piece_write(&s->link->w, STREAM_IMAGE, 0, &piece);
		if (ret)
			return source_unsent(s, ret, err);
		source_show_sent(s);
		(void)link_pace(s->link);
		ret = source_listen(s, err);
	}
	return ret;
}

static int send_description(struct source *s, bool image, struct stream_error *err)
{
	int ret = s->m->ops->describe(s->m->opaque, &s->link->w, err);

	/* It may have been sent, or not: it has a text of its own. */
	if (ret)
		return source_listen(s, err) ?: ret;
	if (image)
		ret = send_image(s, err);
	if (ret)
		return ret;
	ret = stream_memory_write(&s->link->w, &s->m->memory);
	return ret ? source_unsent(s, ret, err) : 0;
}

/* A destination that refuses says why, and one that builds the machine says that it lives. */
static int wait_accept(struct source *s, struct stream_accept *accept, struct stream_error *err)
{
	struct stream_frame frame;
	int ret;

	do
		ret = link_receive(s->link, -1, &frame, err);
	while (ret > 0 && frame.type == STREAM_STATISTICS);
	if (ret > 0 && frame.type == STREAM_ACCEPT)
		return stream_control_read(&frame, accept, sizeof(*accept), err);
	return ret > 0 ? source_said(s, &frame, err) : ret;
}

/* What it boots from is large, and where machines move to and fro it is on each host: it follows
 * only if the destination has not found the same. */
static int describe(struct source *s, struct stream_error *err)
{
	const bool late = s->agreement.can & STREAM_CAN_IMAGES;
	uint8_t digest[STREAM_IMAGE_DIGEST];
	struct stream_accept accept = {0};
	int ret = send_description(s, !late, err);

	/* While the machine is built there. */
	if (!ret && late)
		ret = s->m->ops->digest(s->m->opaque, digest, err);
	if (!ret)
		ret = wait_accept(s, &accept, err);
	s->lanes = accept.lanes;
	if (!ret && late && memcmp(accept.images, digest, sizeof(digest)) != 0)
		ret = send_image(s, err);
	s->wire += s->link->sent;
	s->link->sent = 0;
	return ret;
}

static bool rounds_over(const struct source *s)
{
	return (s->agreement.can & STREAM_CAN_POSTCOPY) && s->params.postcopy_rounds &&
	       s->round >= s->params.postcopy_rounds;
}

static int left_ms(uint64_t end)
{
	const uint64_t now = clock_now();

	return now < end ? (int)((end - now) / 1000000) + 1 : 0;
}

/* A round without pages counts, but nothing comes of hurrying: the guest writes nothing, and a
 * downtime that does not suffice for that will not suffice. */
static int one_more(struct source *s, struct stream_error *err)
{
	const bool idle = !s->dirty;
	const uint64_t end = clock_now() + IDLE_MS * second / 1000;
	int ret = send_round(s, true, err);

	/* It hears of each round: that is no reason to begin the next one. */
	while (!ret && idle && clock_now() < end)
		ret = source_hear(s, left_ms(end), err);
	return ret;
}

/* ns that what is dirty, and what the kernel has not sent yet, would take. */
static uint64_t time_to_send(struct source *s)
{
	return (uint64_t)((double)(s->dirty * STREAM_PAGE + link_unsent(s->link)) * (double)second /
			  (double)source_rate(s));
}

/* What was sent is not there yet. */
static bool behind(const struct source *s)
{
	return s->counts && s->taken < s->round;
}

/* The guest may be stopped. As long as each round halves what is left it is cheap to go on: what
 * is sent now, and what lies in the socket or before the destination, the guest need not stand
 * still for. before: pages of the last round. */
static bool pays(struct source *s, uint64_t before)
{
	return s->dirty < before && s->dirty <= before / 2 &&
	       (time_to_send(s) > short_stop || behind(s));
}

/* A round, and then until the socket is nearly empty and all is there, or it is clear that it will
 * not be. */
static int shrink(struct source *s, struct stream_error *err)
{
	const uint64_t end = clock_now() + 2 * time_to_send(s) + (s->counts ? settle : 0);
	int ret = send_round(s, true, err);

	s->since = clock_now();
	s->paced = 0;
	s->dirty = 0;
	while (!ret && (time_to_send(s) > short_stop / 8 || behind(s)) && clock_now() < end)
		ret = source_hear(s, 1, err);
	s->spent += clock_now() - s->since;
	s->since = 0;
	return ret;
}

int source_copy(struct source *s, struct stream_error *err)
{
	bool done = false, postcopy = false;
	uint64_t before = 0;
	int ret;

	source_limit_copy(s);
	ret = describe(s, err);
	if (!ret)
		ret = s->m->ops->track(s->m->opaque, true, err);
	s->harvested = clock_now();
	if (!ret) {
		source_phase(s, "copy");
		take_all(s);
		before = s->dirty;
		ret = send_round(s, true, err);
	}
	while (!ret && !done) {
		if (postcopy || source_switch_now(s) || rounds_over(s)) {
			source_lane_begin(s);
			source_lane_wait(s, LANE_MS);
			ret = stop_and_finish(s, true, &done, err);
			break;
		}
		ret = harvest(s, false, err);
		if (ret)
			break;
		if (source_expect_downtime(s, s->dirty) <=
		    s->params.downtime - s->params.downtime / 8) {
			if (pays(s, before)) {
				before = s->dirty;
				ret = shrink(s, err);
				continue;
			}
			ret = stop_and_finish(s, false, &done, err);
		} else {
			ret = source_decide(s, &postcopy, err);
		}
		before = s->dirty;
		if (!ret && !done && !postcopy)
			ret = one_more(s, err);
	}
	return ret;
}
