/* READY, RUN, ACK: the source gives the guest away, or finds out where it is. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "migration/clock.h"
#include "migration/source_internal.h"
#include "migration/stream_index.h"

static const uint64_t second = 1000000000;
static const uint64_t last_word = 3000000000; /* ns for it, and until it is read */
static const uint64_t room = 10000000000;     /* ns, until there is some for CANCEL */
enum { FIRST_WAIT = 200000000 /* ns */, TURN_MS = 200 };

/* The link's deadline ends it. */
int source_wait_ready(struct source *s, struct stream_error *err)
{
	const bool ahead = s->missing && s->agreement.can & STREAM_CAN_AHEAD;
	struct stream_ready ready;
	struct stream_frame frame;
	int ret, sent = 0;

	for (;;) {
		if (ahead)
			sent = source_send_ahead(s, err);
		if (sent < 0)
			return sent;
		ret = link_receive(s->link, sent ? 0 : ahead ? 1 : TURN_MS, &frame, err);
		if (ret < 0)
			return ret;
		if (!ret)
			continue;
		if (frame.type != STREAM_READY) {
			ret = source_said(s, &frame, err);
			if (ret)
				return ret;
			continue;
		}
		ret = stream_control_read(&frame, &ready, sizeof(ready), err);
		if (ret)
			return ret;
		if (ready.received != s->m->memory.pages - s->missing)
			return stream_fail(err, &frame, -EPROTO, "pages are missing there");
		if (ready.state_crc != s->state_crc)
			return stream_fail(err, &frame, -EPROTO,
					   "the device state there is not what was sent");
		s->ticket = ready.ticket;
		s->link->deadline = 0;
		return source_step(s, EVENT_READY);
	}
}

int source_say_run(struct source *s)
{
	struct stream_run run = {.ticket = s->ticket,
				 .postcopy = s->missing,
				 .missing = s->missing,
				 .guest = s->m->ops->guest_time(s->m->opaque)};

	run.stopped = clock_read(CLOCK_REALTIME) - (clock_now() - s->stopped);
	/* From the first byte on nobody here knows whether it has arrived. */
	if (source_step(s, EVENT_SAY_RUN))
		return -ECANCELED;
	return stream_control_write(&s->link->w, STREAM_RUN, s->round, &run);
}

/* In doubt: what the other side says is the answer. 0; -errno with a text: this connection brings
 * none. */
static int take_answer(struct source *s, const struct stream_frame *frame, struct stream_error *err)
{
	struct stream_resume resume;
	struct stream_failure failure;
	struct stream_ack ack;
	int ret;

	switch (frame->type) {
	case STREAM_ACK:
		ret = stream_control_read(frame, &ack, sizeof(ack), err);
		if (!ret && ack.ticket == s->ticket)
			source_step(s, s->missing ? EVENT_ACK_PART : EVENT_ACK);
		return ret;
	case STREAM_RESUME:
		ret = stream_control_read(frame, &resume, sizeof(resume), err);
		if (ret || resume.ticket != s->ticket)
			return ret;
		/* Which pages are there follows. */
		s->asking = s->missing && resume.stage == STREAM_STAGE_RUNNING;
		if (resume.stage == STREAM_STAGE_COMPLETE) {
			source_step(s, EVENT_COMPLETE);
		} else if (resume.stage == STREAM_STAGE_RUNNING) {
			source_step(s, s->missing ? EVENT_ACK_PART : EVENT_ACK);
		} else if (resume.stage == STREAM_STAGE_READY && !source_step(s, EVENT_READY)) {
			source_forget_ahead(s);
			(void)source_say_run(s);
		}
		return 0;
	case STREAM_FAILURE:
		/* Who refuses knows nothing of this migration: a destination that has another one
		 * says HELLO, too. */
		ret = source_read_failure(frame, &failure, err);
		if (ret != -ECONNREFUSED || failure.kind != STREAM_FAILED)
			return ret;
		snprintf(s->reason, sizeof(s->reason), "%.*s", STREAM_TEXT, failure.text);
		source_step(s, EVENT_FAILURE);
		return 0;
	default: return 0;
	}
}

/* RUN was written: until it is known where the guest is. It cannot be called off any more. */
void source_resolve(struct source *s)
{
	struct stream_error err = {.text = "the link broke while the guest was given away"};
	uint64_t delay = second / 10;

	if (s->link)
		s->link->wake_fd = s->abandon_fd;
	/* Nobody asks before the guest runs there: as good as an ACK that is lost. */
	while (s->state == SOURCE_DOUBT && !s->asked && !source_forced(s) && !source_abandoned(s)) {
		struct stream_frame frame;
		int ret;

		if (!s->link) {
			source_paused(s, err.text);
			source_wait_retry(s, &delay);
			if (source_forced(s) || source_abandoned(s) ||
			    source_ask_again(s, STREAM_STAGE_RUN, &err))
				continue;
		}
		ret = link_receive(s->link, TURN_MS, &frame, &err);
		if (ret > 0)
			ret = take_answer(s, &frame, &err);
		if (ret < 0 || s->link->broken) {
			source_drop_link(s);
			source_step(s, EVENT_LOST);
		}
	}
	if (s->state == SOURCE_DOUBT && s->asked)
		source_step(s, EVENT_ACK_PART);
	else if (s->state == SOURCE_DOUBT && source_forced(s))
		source_step(s, EVENT_FORCE);
}

/* True: the other side has hung up, as it does when it has read that, and has not complained. */
static bool say_end(struct source *s)
{
	struct stream_end end = {0};
	struct stream_error err;
	struct stream_frame frame;

	s->link->deadline = clock_now() + last_word;
	s->link->late = "it goes on speaking";
	if (stream_end_write(&s->link->w, &end))
		return false;
	link_finish(s->link);
	while (link_receive(s->link, -1, &frame, &err) > 0)
		if (frame.type == STREAM_FAILURE)
			return false; /* it was damaged */
	return s->link->broken == -ENODATA;
}

/* The destination listens until it knows that we know, for as long as the guest lives. If the
 * connection is gone one new one is tried. */
void source_say_end(struct source *s)
{
	struct stream_error err;

	if (s->link && say_end(s))
		return;
	source_drop_link(s);
	if (!source_abandoned(s) && !source_ask_again(s, STREAM_STAGE_RUN, &err))
		(void)say_end(s);
}

/* A new connection is for a destination that waits in READY, whether READY has come or not. */
bool source_say_cancel(struct source *s, const char *why, unsigned tries)
{
	struct stream_resume resume = {.stage = STREAM_STAGE_COPY, .ticket = s->ticket};
	struct stream_cancel cancel = {0};
	struct stream_error err;
	uint64_t delay = s->retry_max && s->retry_max < FIRST_WAIT ? s->retry_max : FIRST_WAIT;

	snprintf(cancel.text, sizeof(cancel.text), "%.199s", why);
	/* It was called off here, or what came was damaged: they hear of that, too. One that has
	 * complained of what came to it hears nothing more on this connection, and waits for
	 * another if it has said READY. */
	if (s->link && ((s->refused && s->ticket) || !link_may_speak(s->link)))
		source_drop_link(s);
	for (unsigned i = 0; !s->link && s->stopped && i < tries && !source_abandoned(s); i++) {
		if (i)
			source_wait_retry(s, &delay);
		if (!source_connect(s, true, s->abandon_fd, &err))
			(void)stream_control_write(&s->link->w, STREAM_RESUME, 0, &resume);
	}
	if (!s->link)
		return false;
	/* Who is abandoned, too, says why it ends, if the other side takes that. */
	s->link->wake_fd = source_abandoned(s) ? -1 : s->abandon_fd;
	/* Also if it lives, but does not read. */
	s->link->deadline = clock_now() + (source_abandoned(s) ? last_word : room);
	s->link->late = "there was no time left to say it";
	if (stream_control_write(&s->link->w, STREAM_CANCEL, 0, &cancel))
		return false;
	link_finish(s->link);
	return true;
}
