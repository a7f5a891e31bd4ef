/* Post-copy as the source sees it: the guest runs there, and gets from here what it lacks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/clock.h"
#include "migration/source_internal.h"

/* Pages that are sent unasked between two looks at what is asked for; waits for what may explain a
 * lost lane. */
enum { SLICE = 16, TURN_MS = 200, GRACE_MS = 500 };
/* How often the main connection's queue is fitted to the rate; ns. */
static const uint64_t bound_every = 100000000;
/* With it a slice takes a millisecond; bytes per second. */
static const uint64_t ahead_rate = SLICE * STREAM_PAGE * UINT64_C(1000);

/* ---- the bitmap: a place is a page's number in all regions side by side ---- */

static uint64_t *word_of(const struct source *s, uint64_t place, unsigned *bit)
{
	const struct stream_memory *memory = &s->m->memory;
	uint64_t *at = s->bitmap;

	for (uint32_t r = 0; r < memory->count; r++) {
		if (place < memory->region[r].count) {
			*bit = place % 64;
			return at + place / 64;
		}
		place -= memory->region[r].count;
		at += source_region_words(memory->region[r].count);
	}
	*bit = 0;
	return at; /* not reached: places are checked where they come from */
}

static bool is_here(const struct source *s, uint64_t place)
{
	unsigned bit;
	const uint64_t word = *word_of(s, place, &bit);

	return word >> bit & 1;
}

static void set_here(struct source *s, uint64_t place, bool here)
{
	unsigned bit;
	uint64_t *word = word_of(s, place, &bit), mask = 1ull << bit;

	s->dirty += here && !(*word & mask);
	s->dirty -= !here && (*word & mask);
	*word = here ? *word | mask : *word & ~mask;
}

/* The next place at or behind this one that is still to be sent, all around; there is one. */
static uint64_t next_place(const struct source *s, uint64_t place)
{
	const uint64_t pages = s->m->memory.pages;

	for (uint64_t i = 0; i < pages; i++) {
		unsigned bit;

		if (place >= pages)
			place = 0;
		/* A word of nothing, whose places lie in one region. */
		if (!*word_of(s, place, &bit) && !bit && place + 64 < pages) {
			unsigned other;

			if (word_of(s, place + 63, &other) == word_of(s, place, &bit)) {
				place += 64;
				i += 63;
				continue;
			}
		}
		if (is_here(s, place))
			return place;
		place++;
	}
	return 0;
}

int source_say_received(struct source *s, struct stream_error *err)
{
	const uint64_t pages = s->m->memory.pages;
	uint8_t *bits = malloc(STREAM_RECEIVED_MAX / 8);
	int ret = bits ? 0 : -ENOMEM;

	s->missing = s->dirty;
	memcpy(s->unsure, s->bitmap, source_words(s) * sizeof(*s->unsure));
	for (uint64_t first = 0; first < pages && !ret;) {
		const uint64_t left = pages - first;
		struct stream_received r = {.first = first, .bits = bits};

		r.count = left < STREAM_RECEIVED_MAX ? (uint32_t)left : STREAM_RECEIVED_MAX;
		memset(bits, 0, (r.count + 7) / 8);
		for (uint32_t i = 0; i < r.count; i++)
			bits[i / 8] |= (uint8_t)(!is_here(s, first + i) << (i % 8));
		first += r.count;
		r.last = first == pages;
		ret = stream_received_write(&s->link->w, &r);
	}
	free(bits);
	if (ret)
		return source_unsent(s, ret, err);
	/* It may ask as soon as its guest runs: before its ACK is here. */
	s->serve_round = s->round + 1;
	s->serving = true;
	return 0;
}

/* ---- answers ---- */

/* A page that was claimed: nobody else sends it. */
static int send_place(struct source *s, struct stream_batch *batch, uint64_t place, uint64_t *pages,
		      uint64_t *zero)
{
	const uint64_t page = stream_memory_page(&s->m->memory, place);
	int ret = stream_batch_add(batch, page, s->m->ops->page(s->m->opaque, page), false);

	*zero += ret == 1;
	*pages += ret == 0;
	return ret < 0 ? ret : 0;
}

static bool claim(struct source *s, uint64_t place)
{
	bool here;

	pthread_mutex_lock(&s->pages_lock);
	here = is_here(s, place);
	set_here(s, place, false);
	pthread_mutex_unlock(&s->pages_lock);
	return here;
}

static int unsent(int ret, struct stream_error *err)
{
	return ret ? stream_fail(err, NULL, ret, "%s", strerror(-ret)) : 0;
}

int source_answer(struct source *s, struct stream_batch *batch, const struct stream_frame *frame,
		  struct stream_error *err)
{
	struct stream_request requests[STREAM_REQUESTS_MAX];
	uint64_t pages = 0, zero = 0;
	int count = stream_request_read(frame, &s->m->memory, requests, err), ret = 0;

	if (count < 0)
		return count;
	if (source_in_doubt(s))
		s->asked = true;
	for (int i = 0; i < count && !ret; i++) {
		const uint64_t place = stream_memory_index(&s->m->memory, requests[i].first);

		for (uint32_t n = 0; n < requests[i].count && !ret; n++) {
			/* Else it is on its way. */
			if (claim(s, place + n))
				ret = send_place(s, batch, place + n, &pages, &zero);
		}
		pthread_mutex_lock(&s->pages_lock);
		s->near = place + requests[i].count;
		pthread_mutex_unlock(&s->pages_lock);
	}
	pthread_mutex_lock(&s->lock);
	s->progress.faults += (uint64_t)count;
	s->progress.pages += pages;
	s->progress.zero += zero;
	pthread_mutex_unlock(&s->lock);
	return unsent(ret ? ret : stream_batch_flush(batch), err);
}

static int on_received(struct source *s, const struct stream_frame *frame, struct stream_error *err)
{
	struct stream_received r;
	int ret = stream_received_read(frame, &s->m->memory, &r, err);

	if (ret)
		return ret;
	if (!s->asking)
		return stream_fail(err, frame, -EPROTO, "it was not asked for");
	pthread_mutex_lock(&s->pages_lock);
	for (uint32_t i = 0; i < r.count; i++)
		set_here(s, r.first + i, !(r.bits[i / 8] >> (i % 8) & 1));
	pthread_mutex_unlock(&s->pages_lock);
	s->asking = !r.last;
	if (!r.last)
		return 0;
	s->lacking = s->dirty;
	s->agreed = clock_now();
	/* What is there now is known to be there. */
	memcpy(s->unsure, s->bitmap, source_words(s) * sizeof(*s->unsure));
	return 0;
}

/* Nothing that is wrong changes who has the guest. */
static int on_frame(struct source *s, const struct stream_frame *frame, struct stream_error *err)
{
	struct stream_failure failure;
	struct stream_resume resume;
	int ret;

	switch (frame->type) {
	case STREAM_REQUEST:
		return s->batch ? source_answer(s, s->batch, frame, err)
				: stream_fail(err, frame, -EPROTO, "RECEIVED comes first");
	case STREAM_RECEIVED: return on_received(s, frame, err);
	case STREAM_RESUME:
		ret = stream_control_read(frame, &resume, sizeof(resume), err);
		if (!ret && resume.ticket == s->ticket && resume.stage == STREAM_STAGE_COMPLETE)
			source_step(s, EVENT_COMPLETE);
		return ret;
	case STREAM_STATISTICS: return source_numbers(s, frame, err);
	case STREAM_ACK: return 0;
	case STREAM_FAILURE: return source_read_failure(frame, &failure, err);
	default: return stream_fail(err, frame, -EPROTO, "it may not come here");
	}
}

/* Nobody waits: some pages from where the last fault was. */
static int send_slice(struct source *s)
{
	uint64_t places[SLICE], pages = 0, zero = 0, left;
	unsigned count = 0;
	int ret = 0;

	pthread_mutex_lock(&s->pages_lock);
	while (count < SLICE && s->dirty) {
		places[count] = next_place(s, s->near);
		set_here(s, places[count], false);
		s->near = places[count++] + 1;
	}
	left = s->dirty;
	pthread_mutex_unlock(&s->pages_lock);
	for (unsigned i = 0; i < count && !ret; i++)
		ret = send_place(s, s->batch, places[i], &pages, &zero);
	if (!ret)
		ret = stream_batch_flush(s->batch);
	source_show(s, left, pages, zero);
	return ret;
}

static bool all_sent(struct source *s)
{
	bool all;

	pthread_mutex_lock(&s->pages_lock);
	all = !s->dirty;
	pthread_mutex_unlock(&s->pages_lock);
	return all;
}

/* ---- the whole ---- */

static int begin_round(struct source *s)
{
	struct stream_round round = {.phase = STREAM_POSTCOPY, .pages = s->dirty};

	return stream_batch_round(s->batch, s->serve_round)
		       ?: stream_control_write(&s->link->w, STREAM_ROUND, s->serve_round, &round);
}

/* On this connection. */
static int begin(struct source *s)
{
	const bool ahead = s->ahead;

	s->ahead = false;
	if (!s->batch)
		s->batch = stream_batch_new(&s->link->w, source_batch_limit(s));
	if (!s->batch)
		return -ENOMEM;
	stream_batch_verify(s->batch, s->params.verify);
	link_bound(s->link, 0);
	s->bounded = clock_now();
	source_lane_begin(s);
	s->link->bell_fd = s->lane.started ? s->lane.bell_fd : -1;
	return ahead ? 0 : begin_round(s);
}

/* Pages that nobody has asked for are in the way of demanded ones, and must not run out while
 * others have the processor. */
static void bound(struct source *s)
{
	const uint64_t now = clock_now();

	if (now - s->bounded < bound_every)
		return;
	s->bounded = now;
	link_bound(s->link, source_rate(s));
}

/* How long the next frame of the other side may be waited for; 0: there is something to send. */
static int patience(struct source *s, bool idle)
{
	uint64_t wait;

	if (idle)
		return TURN_MS;
	wait = link_wait(s->link) / 1000000;
	return wait < TURN_MS ? (int)wait : TURN_MS;
}

/* Both or none: what was sent on it may not have come. A destination that has ended it with all
 * else has said why. */
static int lane_is_lost(struct source *s, struct stream_error *err)
{
	struct stream_frame frame;
	char why[sizeof(s->lane.why)];
	int ret;

	s->link->bell_fd = -1;
	ret = link_receive(s->link, GRACE_MS, &frame, err);
	if (ret > 0)
		return on_frame(s, &frame, err);
	source_lane_why(s, why, sizeof(why));
	return stream_fail(err, NULL, -ECONNRESET, "the connection for demanded pages: %s", why);
}

/* Pages could not be sent: who has hung up may have said why, or that nothing is missing. */
static int hung_up(struct source *s, int code, struct stream_error *err)
{
	struct stream_frame frame;
	int ret;

	while ((ret = link_receive(s->link, 0, &frame, err)) > 0) {
		if (frame.type == STREAM_REQUEST)
			continue;
		ret = on_frame(s, &frame, err);
		if (ret || s->state != SOURCE_SERVES)
			return ret;
	}
	return ret < 0 ? ret : unsent(code, err);
}

int source_send_ahead(struct source *s, struct stream_error *err)
{
	const uint64_t before = s->link->sent;
	int ret = 0;

	/* The guest stands still for what lies in the way of RUN. */
	if (all_sent(s) || link_wait(s->link) || link_unsent(s->link) ||
	    source_rate(s) < ahead_rate)
		return 0;
	if (!s->ahead)
		ret = begin_round(s);
	s->ahead = true;
	if (!ret)
		ret = send_slice(s);
	s->ahead_bytes += s->link->sent - before;
	return ret ? source_unsent(s, ret, err) : 1;
}

void source_forget_ahead(struct source *s)
{
	if (!s->missing)
		return;
	pthread_mutex_lock(&s->pages_lock);
	memcpy(s->bitmap, s->unsure, source_words(s) * sizeof(*s->bitmap));
	s->dirty = s->missing;
	pthread_mutex_unlock(&s->pages_lock);
}

int source_turn(struct source *s, struct stream_error *err)
{
	struct stream_frame frame;
	bool idle;
	int ret, wait;

	if ((!s->batch || s->ahead) && !s->asking && (ret = begin(s)))
		return unsent(ret, err);
	if (source_lane_lost(s))
		return lane_is_lost(s, err);
	idle = s->asking || all_sent(s);
	wait = patience(s, idle);
	ret = link_receive(s->link, wait, &frame, err);
	if (ret > 0)
		return on_frame(s, &frame, err);
	if (ret < 0 || wait || idle)
		return ret;
	bound(s);
	ret = send_slice(s);
	return ret ? hung_up(s, ret, err) : 0;
}
