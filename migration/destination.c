#include "migration/destination.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "migration/crc32c.h"

enum { FIRST_MS = 1000 };

static void step(struct destination *d, enum migration_event event)
{
	int next = migration_next(d->state, event);

	if (next < 0 || next == (int)d->state)
		return;
	d->state = (enum migration_state)next;
	if (d->changed)
		d->changed(d->opaque, d->state);
}

static void lose(struct destination *d)
{
	link_close(d->link);
	d->link = NULL;
	d->asking = false;
	step(d, EVENT_LOST);
}

/* What cannot be said any more is found out by the next who reads. */
static int say(struct destination *d, enum stream_type type, void *object)
{
	return d->link ? stream_control_write(&d->link->w, type, 0, object) : -ENOTCONN;
}

static void set_failure(struct destination *d, uint8_t kind, const char *text)
{
	d->failure = (struct stream_failure){.kind = kind};
	snprintf(d->failure.text, sizeof(d->failure.text), "%.199s", text);
}

/* ---- HELLO ------------------------------------------------------------------------------ */

static int answer_hello(struct destination *d, struct link *link, const struct stream_hello *theirs,
			struct stream_error *err)
{
	struct stream_hello mine;
	int ret;

	stream_hello_init(&mine);
	mine.role = STREAM_DESTINATION;
	mine.offers = STREAM_CAN_RECONNECT | (d->arrival.sink->miss ? STREAM_CAN_POSTCOPY : 0);
	mine.again = theirs->again;
	memcpy(mine.session, theirs->session, sizeof(mine.session));
	strncpy(mine.arch, d->arch, sizeof(mine.arch) - 1);
	strncpy(mine.ferry, d->ferry, sizeof(mine.ferry) - 1);
	link->wake_fd = d->wake_fd;
	ret = stream_hello_write(&link->w, &mine);
	if (ret)
		return stream_fail(err, NULL, ret, "%s", strerror(-ret));
	return stream_agree(&mine, theirs, &d->agreement, err);
}

static void turn_away(struct link *link, const char *text)
{
	struct stream_failure failure = {.kind = STREAM_REFUSED};

	snprintf(failure.text, sizeof(failure.text), "%.199s", text);
	(void)stream_control_write(&link->w, STREAM_FAILURE, 0, &failure);
	link_finish(link);
	link_close(link);
}

/* ---- until the machine can be built ----------------------------------------------------- */

static int other_frame(struct destination *d, const struct stream_frame *frame,
		       struct stream_error *err)
{
	struct stream_cancel cancel;
	struct stream_failure failure;
	int ret;

	switch (frame->type) {
	case STREAM_CANCEL:
		ret = stream_control_read(frame, &cancel, sizeof(cancel), err);
		step(d, EVENT_FAILURE);
		return ret ? ret
			   : stream_fail(err, NULL, -ECANCELED,
					 "the source has called it off: %.*s", STREAM_TEXT,
					 cancel.text);
	case STREAM_FAILURE:
		ret = stream_control_read(frame, &failure, sizeof(failure), err);
		step(d, EVENT_FAILURE);
		return ret ? ret
			   : stream_fail(err, NULL, -EREMOTEIO, "the source has failed: %.*s",
					 STREAM_TEXT, failure.text);
	default: return stream_fail(err, frame, -EPROTO, "it may not come here");
	}
}

/* Frames up to MEMORY (head) or READY. */
static int take_frames(struct destination *d, bool head, struct stream_error *err)
{
	const struct arrival *a = &d->arrival;

	for (;;) {
		struct stream_frame frame;
		int ret = link_receive(d->link, -1, &frame, err);

		if (ret < 0)
			return ret;
		if (frame.channel != d->hello.channel)
			return stream_fail(err, &frame, -EPROTO, "it is of another channel");
		ret = arrival_take(&d->arrival, &frame, err);
		if (ret == -EAGAIN)
			ret = other_frame(d, &frame, err);
		if (ret < 0)
			return ret;
		if (head && ret)
			return 0;
		/* The last thing before the hand-over. */
		if (!head && frame.type == STREAM_DEVICE && a->state.whole)
			return arrival_complete(a, err);
		if (link_alive(d->link))
			return stream_fail(err, NULL, -ECONNRESET, "the connection is lost");
	}
}

int destination_begin(struct destination *d, const struct migration_sink_ops *sink, void *opaque,
		      struct stream_error *err)
{
	int ret;

	d->link = NULL;
	d->state = DEST_COPY;
	arrival_init(&d->arrival, sink, opaque);
	for (;;) {
		ret = door_next(d->door, -1, d->wake_fd, &d->link, &d->hello);
		if (ret < 0)
			return stream_fail(err, NULL, ret, "called off");
		if (ret && d->hello.again) {
			turn_away(d->link, "no such migration is known here");
			d->link = NULL;
		} else if (ret) {
			break;
		}
	}
	ret = answer_hello(d, d->link, &d->hello, err);
	d->arrival.postcopy = !ret && (d->agreement.can & STREAM_CAN_POSTCOPY);
	if (!ret)
		ret = take_frames(d, true, err);
	if (ret)
		destination_refuse(d, err->text);
	return ret;
}

void destination_refuse(struct destination *d, const char *text)
{
	set_failure(d, STREAM_REFUSED, text);
	if (d->link && !say(d, STREAM_FAILURE, &d->failure))
		link_finish(d->link);
	step(d, EVENT_CALL_OFF);
}

/* ---- the hand-over ---------------------------------------------------------------------- */

static int say_ready(struct destination *d, struct stream_error *err)
{
	const struct stream_blob *state = &d->arrival.state;
	struct stream_ready ready = {.received = d->arrival.received,
				     .state_crc = crc32c(0, state->bytes.data, state->bytes.len)};
	int ret;

	do
		if (getrandom(&d->ticket, sizeof(d->ticket), 0) != sizeof(d->ticket))
			return stream_fail(err, NULL, -errno, "no random numbers");
	while (!d->ticket);
	ready.ticket = d->ticket;
	d->received = d->arrival.received;
	step(d, EVENT_SAY_READY);
	ret = say(d, STREAM_READY, &ready);
	if (ret)
		lose(d);
	return 0;
}

static uint64_t realtime(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void say_ack(struct destination *d)
{
	struct stream_ack ack = {.ticket = d->ticket, .started = realtime()};

	if (say(d, STREAM_ACK, &ack))
		lose(d);
}

/* From here on the source may be asked for pages. */
static void begin_asking(struct destination *d)
{
	const struct migration_sink_ops *sink = d->arrival.sink;

	if (d->state != DEST_NEEDS || !d->link)
		return;
	d->link->bell_fd = sink->wanted_fd(d->arrival.opaque);
}

static void on_run(struct destination *d, const struct stream_run *run)
{
	struct stream_error why = {0};

	if (run->ticket != d->ticket)
		return; /* of another attempt */
	step(d, EVENT_RUN);
	if (d->state == DEST_STARTING) {
		if (d->arrival.sink->start(d->arrival.opaque, run, &why)) {
			set_failure(d, STREAM_FAILED, why.text);
			step(d, EVENT_START_FAILED);
		} else {
			d->arrival.live = true;
			step(d, d->arrival.missed ? EVENT_STARTED_PART : EVENT_STARTED);
			d->asking = true;
		}
	}
	begin_asking(d);
	if (d->state == DEST_RUNS || d->state == DEST_NEEDS)
		say_ack(d);
	else if (d->state == DEST_REFUSED && say(d, STREAM_FAILURE, &d->failure))
		lose(d);
}

/* What a source says on a new connection. It decides nothing that it had not decided before. */
static void on_resume(struct destination *d, const struct stream_resume *resume)
{
	struct stream_resume mine = {.ticket = d->ticket, .received = d->received};
	int ret;

	if (resume->stage < STREAM_STAGE_RUN || resume->ticket != d->ticket) {
		step(d, EVENT_FAILURE); /* it has the guest, or is of another attempt */
		return;
	}
	if (d->state == DEST_REFUSED) {
		if (say(d, STREAM_FAILURE, &d->failure))
			lose(d);
		return;
	}
	mine.stage = STREAM_STAGE_READY;
	if (d->state == DEST_NEEDS)
		mine.stage = STREAM_STAGE_RUNNING;
	else if (d->state == DEST_RUNS)
		mine.stage = STREAM_STAGE_COMPLETE;
	mine.received = d->arrival.received;
	ret = say(d, STREAM_RESUME, &mine);
	if (!ret && d->state == DEST_NEEDS)
		ret = destination_say_received(d);
	if (ret)
		lose(d);
}

/* The source may go: all is here, or nobody needs the rest. */
static void say_complete(struct destination *d)
{
	struct stream_resume resume = {.stage = STREAM_STAGE_COMPLETE,
				       .ticket = d->ticket,
				       .received = d->arrival.received};

	if (destination_say_numbers(d) || say(d, STREAM_RESUME, &resume))
		lose(d);
}

static void on_page(struct destination *d, const struct stream_frame *frame)
{
	int ret = d->state == DEST_NEEDS ? destination_take_page(d, frame) : -EPROTO;

	/* In DEST_RUNS: that somebody asked for it twice. */
	if (ret < 0 && d->state != DEST_RUNS)
		lose(d);
	if (ret <= 0)
		return;
	step(d, EVENT_WHOLE);
	d->link->bell_fd = -1;
	say_complete(d);
}

static void on_frame(struct destination *d, const struct stream_frame *frame)
{
	struct stream_resume resume;
	struct stream_error err;
	struct stream_run run;

	switch (frame->type) {
	case STREAM_RUN:
		if (!stream_control_read(frame, &run, sizeof(run), &err))
			on_run(d, &run);
		else
			lose(d);
		break;
	case STREAM_RESUME:
		if (!stream_control_read(frame, &resume, sizeof(resume), &err))
			on_resume(d, &resume);
		else
			lose(d);
		break;
	case STREAM_CANCEL:
	case STREAM_FAILURE: step(d, EVENT_FAILURE); break;
	case STREAM_END: step(d, EVENT_END); break;
	case STREAM_ROUND:
	case STREAM_PAGES: on_page(d, frame); break;
	case STREAM_STATISTICS: break;
	default: lose(d); /* nothing else is said now */
	}
}

/* Whoever comes while a migration is under way: the same source again, or somebody else. */
static void on_caller(struct destination *d, struct link *link, const struct stream_hello *hello)
{
	struct stream_error err;

	if (!hello->again ||
	    memcmp(hello->session, d->hello.session, sizeof(hello->session)) != 0) {
		turn_away(link, "another guest is on its way to here");
		return;
	}
	/* The old connection is dead for him: so it is for us. */
	if (d->link)
		lose(d);
	d->link = link;
	if (answer_hello(d, link, hello, &err)) {
		lose(d);
		return;
	}
	step(d, EVENT_BACK);
	begin_asking(d);
}

/* One turn: a frame, somebody at the door, or nothing. */
static int turn(struct destination *d, struct stream_error *err)
{
	struct stream_hello hello;
	struct stream_frame frame;
	struct stream_error why;
	struct link *link;
	int ret = door_next(d->door, d->link ? 0 : FIRST_MS, d->wake_fd, &link, &hello);

	if (ret < 0)
		return stream_fail(err, NULL, ret, "called off");
	if (ret) {
		on_caller(d, link, &hello);
		return 0;
	}
	if (d->state == DEST_NEEDS && destination_ask(d))
		lose(d);
	if (!d->link)
		return 0;
	ret = link_receive(d->link, 200, &frame, &why);
	if (ret == -ECANCELED)
		return stream_fail(err, NULL, ret, "called off");
	if (ret > 0)
		on_frame(d, &frame);
	else if (ret < 0)
		lose(d);
	return 0;
}

/* From READY on: until both sides know. */
static int hand_over(struct destination *d, struct stream_error *err)
{
	uint64_t alone = link_now();
	int ret = 0;

	while (!migration_over(d->state)) {
		ret = turn(d, err);
		if (ret)
			break;
		if (d->link)
			alone = link_now();
		else if (link_now() - alone > d->patience)
			step(d, EVENT_GIVE_UP);
	}
	/* The guest has ended: nobody needs what is missing. */
	if (d->state == DEST_NEEDS && d->link) {
		d->link->broken = 0;
		say_complete(d);
	}
	if (migration_owns(d->state))
		return 0;
	if (d->state == DEST_READY || d->state == DEST_WAITING) {
		/* Its user ends it: the source is told that it will not run here, if it can be. */
		set_failure(d, STREAM_FAILED, "called off at the destination");
		(void)say(d, STREAM_FAILURE, &d->failure);
	}
	if (ret)
		return ret;
	if (d->failure.text[0])
		return stream_fail(err, NULL, -EIO, "it could not be started here: %s",
				   d->failure.text);
	return stream_fail(err, NULL, -ECANCELED, "the source keeps the guest, or is gone");
}

int destination_run(struct destination *d, struct stream_error *err)
{
	struct stream_accept accept = {.lanes = 0};
	const struct stream_blob *state = &d->arrival.state;
	int ret = say(d, STREAM_ACCEPT, &accept);

	if (ret)
		ret = stream_fail(err, NULL, -ECONNRESET, "the connection is lost");
	if (!ret)
		ret = take_frames(d, false, err);
	if (!ret)
		ret = d->arrival.sink->load(d->arrival.opaque, state->bytes.data, state->bytes.len,
					    err);
	if (!ret)
		ret = say_ready(d, err);
	if (ret) {
		set_failure(d, STREAM_FAILED, err->text);
		if (d->link && !d->link->broken)
			(void)say(d, STREAM_FAILURE, &d->failure);
		step(d, EVENT_CALL_OFF);
		return ret;
	}
	return hand_over(d, err);
}

void destination_end(struct destination *d)
{
	link_close(d->link);
	d->link = NULL;
	arrival_free(&d->arrival);
}
