/* How fast it goes, how long the rest would take, and what is done about a guest that writes faster
 * than the link carries. */
#include <errno.h>
#include <inttypes.h>

#include "migration/clock.h"
#include "migration/source_internal.h"

static const uint64_t second = 1000000000;
/* Stopping, loading and starting again cost time beside the bytes. */
static const uint64_t overhead = 30000000;
/* Who looks at the time by himself has more to say about it. */
static const uint64_t grace = 1000000000;
/* What counts for the rate is younger than two of these, if there is enough of it. */
static const uint64_t window = 1000000000, enough = 100000000;
/* Rounds without less to send; and the least that is left to throttled processors. */
enum { STALLED = 2, CRAWL = 64 * STREAM_PAGE };

/* ---- estimates -------------------------------------------------------------------------- */

/* Bytes that have arrived, and the time that this side read and that one took them: what a limit
 * made us wait is no fault of theirs. Without those that went now and then while READY was waited
 * for. */
static struct source_sample sample(const struct source *s)
{
	const uint64_t unsent = link_unsent(s->link), sent = s->link->sent - s->ahead_bytes;
	const uint64_t now = s->since ? clock_now() - s->since - s->paced : 0;

	return (struct source_sample){.arrived = sent > unsent ? sent - unsent : 0,
				      .active = s->spent + now};
}

static void slide(struct source *s, struct source_sample now)
{
	struct source_sample *old = s->sample;

	/* Another connection counts from its own beginning. */
	if (now.arrived < old[1].arrived || now.active < old[1].active)
		old[0] = old[1] = (struct source_sample){.active = now.active};
	if (now.active - old[1].active < window)
		return;
	old[0] = old[1];
	old[1] = now;
}

/* 0: nothing has arrived yet. */
static uint64_t measured_rate(struct source *s)
{
	const struct source_sample now = sample(s);
	uint64_t bytes = now.arrived, time = now.active, rate;

	slide(s, now);
	if (now.active - s->sample[0].active >= enough) {
		bytes -= s->sample[0].arrived;
		time -= s->sample[0].active;
	}
	rate = (uint64_t)((double)bytes * (double)second / (double)(time ? time : 1));
	return s->link->limit && rate > s->link->limit ? s->link->limit : rate;
}

uint64_t source_rate(struct source *s)
{
	const uint64_t rate = measured_rate(s);

	return rate ? rate : 1;
}

uint64_t source_expect_downtime(struct source *s, uint64_t pages)
{
	const uint64_t bytes = pages * STREAM_PAGE + s->state_size + link_unsent(s->link);

	return overhead + (uint64_t)((double)bytes * (double)second / (double)source_rate(s));
}

void source_show_sent(struct source *s)
{
	pthread_mutex_lock(&s->lock);
	s->progress.sent = source_sent(s);
	s->progress.elapsed = clock_now() - s->begun;
	pthread_mutex_unlock(&s->lock);
}

void source_show(struct source *s, uint64_t remaining, uint64_t pages, uint64_t zero)
{
	struct migration_progress *p = &s->progress;
	const uint64_t rate = measured_rate(s),
		       downtime = source_expect_downtime(s, s->round > 1 ? s->dirty : remaining);
	double done;

	pthread_mutex_lock(&s->lock);
	p->round = s->round;
	p->remaining = remaining * STREAM_PAGE;
	p->sent = source_sent(s);
	p->pages += pages;
	p->zero += zero;
	p->rate = rate;
	p->downtime_expected = rate ? downtime : 0;
	p->elapsed = clock_now() - s->begun;
	done = (double)(p->pages + p->zero) / (double)(p->pages + p->zero + remaining + 1);
	if (done > p->done)
		p->done = done;
	pthread_mutex_unlock(&s->lock);
}

/* ---- what is done ----------------------------------------------------------------------- */

static bool late(const struct source *s)
{
	return s->params.timeout && clock_now() - s->begun > s->params.timeout;
}

static int too_late(struct source *s, struct stream_error *err)
{
	if (s->round < 2)
		return stream_fail(err, NULL, -ETIME,
				   "the time was too short: not all of the guest's memory has been "
				   "sent once");
	if (source_expect_downtime(s, 0) > s->params.downtime)
		return stream_fail(err, NULL, -ETIME,
				   "the guest would stand still for %" PRIu64
				   " ms even if nothing were left to send: more than the %" PRIu64
				   " ms that it may",
				   source_expect_downtime(s, 0) / 1000000,
				   s->params.downtime / 1000000);
	return stream_fail(err, NULL, -ETIME,
			   "the guest writes faster than the link carries: what is left would stop "
			   "it for %" PRIu64 " ms",
			   source_expect_downtime(s, s->dirty) / 1000000);
}

bool source_switch_now(struct source *s)
{
	const struct migration_params *p = &s->params;
	bool asked;

	if (!(s->agreement.can & STREAM_CAN_POSTCOPY))
		return false;
	pthread_mutex_lock(&s->lock);
	asked = s->postcopy;
	pthread_mutex_unlock(&s->lock);
	return asked || (p->postcopy_time && clock_now() - s->begun > p->postcopy_time) ||
	       (p->on_timeout == MIGRATION_POSTCOPY && late(s));
}

static void throttle(struct source *s, uint64_t rate)
{
	s->throttled = rate;
	s->m->ops->throttle(s->m->opaque, rate);
	pthread_mutex_lock(&s->lock);
	s->progress.throttle = rate;
	pthread_mutex_unlock(&s->lock);
}

void source_throttle_off(struct source *s)
{
	if (s->throttled)
		throttle(s, 0);
}

/* Processors that write are held to half of what the link carries, so that each round has half as
 * much as the one before; if it has not, to half of that. */
static void squeeze(struct source *s)
{
	uint64_t rate = s->throttled ? s->throttled / 2 : source_rate(s) / 2;

	throttle(s, rate > CRAWL ? rate : CRAWL);
}

/* Where the other side neither takes anything nor hangs up nobody comes to look at the time. */
void source_limit_copy(struct source *s)
{
	const struct migration_params *p = &s->params;

	s->link->deadline =
		p->timeout && p->on_timeout == MIGRATION_CANCEL ? s->begun + p->timeout + grace : 0;
	s->link->late = "the time was too short: the link, or the destination, takes nothing more";
}

int source_look_at_time(struct source *s, struct stream_error *err)
{
	if (!late(s))
		return 0;
	if (s->params.on_timeout == MIGRATION_CANCEL)
		return too_late(s, err);
	if (s->params.on_timeout == MIGRATION_THROTTLE && s->m->ops->throttle && !s->throttled)
		squeeze(s);
	return 0;
}

int source_decide(struct source *s, bool *postcopy, struct stream_error *err)
{
	const bool fell = !s->least || s->dirty < s->least - s->least / 8;
	const bool lowest = fell || s->dirty <= s->least + s->least / 8;
	bool stalled;

	s->stalls = fell ? 0 : s->stalls + 1;
	if (fell)
		s->least = s->dirty;
	stalled = s->stalls >= STALLED && lowest;
	pthread_mutex_lock(&s->lock);
	s->progress.stalled = s->stalls >= STALLED;
	pthread_mutex_unlock(&s->lock);
	*postcopy = false;
	if (!stalled && !late(s))
		return 0;
	switch (s->params.on_timeout) {
	case MIGRATION_POSTCOPY:
		*postcopy = s->agreement.can & STREAM_CAN_POSTCOPY;
		return *postcopy || !late(s) ? 0 : too_late(s, err);
	case MIGRATION_THROTTLE:
		if (!s->m->ops->throttle)
			return late(s) ? too_late(s, err) : 0;
		if (!s->throttled || !fell) {
			squeeze(s);
			s->stalls = 0;
		}
		return 0;
	default: return late(s) ? too_late(s, err) : 0;
	}
}
