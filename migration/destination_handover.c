/* From READY on: until both sides know where the guest is. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "migration/clock.h"
#include "migration/crc32c.h"
#include "migration/destination_internal.h"

enum { ALONE_MS = 250 };

int destination_say_ready(struct destination *d, struct stream_error *err)
{
	const struct stream_blob *state = &d->arrival.state;
	struct stream_ready ready = {.received = d->arrival.received - d->arrival.early,
				     .state_crc = crc32c(0, state->bytes.data, state->bytes.len)};
	int ret;

	do
		if (getrandom(&d->ticket, sizeof(d->ticket), 0) != sizeof(d->ticket))
			return stream_fail(err, NULL, -errno, "no random numbers");
	while (!d->ticket);
	ready.ticket = d->ticket;
	destination_step(d, EVENT_SAY_READY);
	ret = destination_say(d, STREAM_READY, &ready);
	if (ret)
		destination_lose(d);
	return 0;
}

static void say_ack(struct destination *d)
{
	struct stream_ack ack = {.ticket = d->ticket, .started = clock_read(CLOCK_REALTIME)};

	if (destination_say(d, STREAM_ACK, &ack))
		destination_lose(d);
}

static int start(struct destination *d, const struct stream_run *run, struct stream_error *why)
{
	int ret;

	pulse_start(&d->pulse, d->link);
	ret = d->arrival.sink->start(d->arrival.opaque, run, why);
	pulse_stop(&d->pulse);
	return ret;
}

/* The source may go: all is here, or nobody needs the rest. */
static void say_complete(struct destination *d)
{
	struct stream_resume resume = {.stage = STREAM_STAGE_COMPLETE,
				       .ticket = d->ticket,
				       .received = d->arrival.received};

	if (destination_say_numbers(d) || destination_say(d, STREAM_RESUME, &resume))
		destination_lose(d);
}

/* The last page is here. */
static void be_whole(struct destination *d)
{
	struct arrival *a = &d->arrival;
	struct stream_error err;
	int ret = a->sink->complete(a->opaque, &err);

	/* -ECANCELED: it is our own end that has come between, and the link is good for its word.
	 */
	if (ret && ret != -ECANCELED)
		destination_complain(d, &err);
	if (ret)
		return;
	destination_step(d, EVENT_WHOLE);
	destination_bell_remove(d, a->sink->wanted_fd(a->opaque));
	say_complete(d);
}

static void on_run(struct destination *d, const struct stream_run *run)
{
	struct stream_error why = {0};

	if (run->ticket != d->ticket)
		return; /* of another attempt */
	destination_step(d, EVENT_RUN);
	if (d->state == DEST_STARTING) {
		if (start(d, run, &why)) {
			destination_fail(d, STREAM_FAILED, why.text);
			destination_step(d, EVENT_START_FAILED);
		} else {
			d->arrival.live = true;
			destination_step(d, d->arrival.missed ? EVENT_STARTED_PART : EVENT_STARTED);
			/* From here on the source may be asked for pages. */
			destination_may_ask(d, true);
		}
	}
	if (d->state == DEST_RUNS || d->state == DEST_NEEDS)
		say_ack(d);
	/* All may have come before it. */
	if (d->state == DEST_NEEDS && d->arrival.received == d->arrival.memory.pages)
		be_whole(d);
	else if (d->state == DEST_REFUSED && destination_say(d, STREAM_FAILURE, &d->failure))
		destination_lose(d);
}

/* What a source says on a new connection. It decides nothing that it had not decided before. */
static void on_resume(struct destination *d, const struct stream_resume *resume)
{
	struct stream_resume mine = {.ticket = d->ticket, .received = d->arrival.received};
	int ret;

	if (resume->stage < STREAM_STAGE_RUN || resume->ticket != d->ticket) {
		destination_step(d, EVENT_FAILURE); /* it has the guest, or is of another attempt */
		return;
	}
	if (d->state == DEST_REFUSED) {
		if (destination_say(d, STREAM_FAILURE, &d->failure))
			destination_lose(d);
		return;
	}
	mine.stage = STREAM_STAGE_READY;
	if (d->state == DEST_NEEDS)
		mine.stage = STREAM_STAGE_RUNNING;
	else if (d->state == DEST_RUNS)
		mine.stage = STREAM_STAGE_COMPLETE;
	ret = destination_say(d, STREAM_RESUME, &mine);
	if (!ret && d->state == DEST_NEEDS)
		ret = destination_say_received(d);
	if (ret)
		destination_lose(d);
}

void destination_on_page(struct destination *d, const struct stream_frame *frame)
{
	struct stream_error err;
	int ret;

	if (d->state == DEST_RUNS)
		return; /* somebody has asked for it twice */
	if (d->state == DEST_NEEDS)
		ret = destination_take_page(d, frame, &err);
	else if (d->state == DEST_READY && d->arrival.ahead && d->arrival.missed)
		ret = arrival_take(&d->arrival, frame, &err);
	else
		ret = stream_fail(&err, frame, -EPROTO, "it may not come here");
	if (ret < 0)
		destination_complain(d, &err);
	else if (d->state == DEST_NEEDS && d->arrival.received == d->arrival.memory.pages)
		be_whole(d);
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
			destination_complain(d, &err);
		break;
	case STREAM_RESUME:
		if (!stream_control_read(frame, &resume, sizeof(resume), &err))
			on_resume(d, &resume);
		else
			destination_complain(d, &err);
		break;
	case STREAM_CANCEL: destination_step(d, EVENT_FAILURE); break;
	/* Of this connection only: what came to the source was damaged, or too new. */
	case STREAM_FAILURE: destination_lose(d); break;
	case STREAM_END: destination_step(d, EVENT_END); break;
	case STREAM_ROUND:
	case STREAM_DIGESTS:
	case STREAM_PAGES: destination_on_page(d, frame); break;
	case STREAM_STATISTICS: break;
	default: /* nothing else is said now */
		stream_fail(&err, frame, -EPROTO, "it may not come here");
		destination_complain(d, &err);
	}
}

/* A connection brings something that is wrong, or has ended. */
static void on_error(struct destination *d, int ret, const struct stream_error *why)
{
	if (ret == -EBADMSG || ret == -EPROTO || ret == -ENOTSUP)
		destination_complain(d, why);
	else
		destination_lose(d);
}

/* One turn: a frame, somebody at the door, or nothing. */
static int turn(struct destination *d, struct stream_error *err)
{
	struct stream_hello hello;
	struct stream_frame frame;
	struct stream_error why;
	struct link *link;
	int ret;

	destination_look_for_file(d);
	if (migration_over(d->state))
		return 0;
	ret = door_next(d->door, d->link ? 0 : ALONE_MS, d->wake_fd, &link, &hello);

	if (ret < 0)
		return stream_fail(err, NULL, ret, "called off");
	if (ret) {
		destination_on_caller(d, link, &hello);
		return 0;
	}
	if (d->state == DEST_NEEDS && destination_ask(d))
		destination_lose(d);
	ret = destination_lane_listen(d, &why);
	if (ret && d->state == DEST_NEEDS)
		on_error(d, ret, &why); /* pages sent on it are lost: the two agree anew */
	if (!d->link)
		return 0;
	ret = link_receive(d->link, 200, &frame, &why);
	if (ret == -ECANCELED)
		return stream_fail(err, NULL, ret, "called off");
	if (ret > 0)
		on_frame(d, &frame);
	/* A source that sends without an end hears of us too. */
	if (ret < 0)
		on_error(d, ret, &why);
	else if (d->link && link_alive(d->link))
		destination_lose(d);
	return 0;
}

/* The guest has ended here, and its source stands still until it knows that it was here. */
static void tell_source(struct destination *d)
{
	const uint64_t until = clock_now() + d->farewell;
	struct stream_error err;

	d->wake_fd = -1; /* it has called */
	if (d->link && !link_may_speak(d->link))
		destination_lose(d);
	if (d->link)
		d->link->wake_fd = -1;
	destination_lane_end(d);
	/* Nobody needs what is missing. What of it is on its way must not undo that word. */
	if (d->state == DEST_NEEDS) {
		destination_step(d, EVENT_WHOLE);
		if (d->link)
			say_complete(d);
	}
	while (d->state == DEST_RUNS && clock_now() < until && !turn(d, &err))
		;
}

/* From READY on: until both sides know. */
int destination_hand_over(struct destination *d, struct stream_error *err)
{
	uint64_t alone = clock_now();
	int ret = 0;

	while (!migration_over(d->state)) {
		ret = turn(d, err);
		if (ret)
			break;
		if (d->link)
			alone = clock_now();
		else if (clock_now() - alone > d->patience)
			destination_step(d, EVENT_GIVE_UP);
	}
	destination_close_file(d);
	if (d->state == DEST_NEEDS || d->state == DEST_RUNS)
		tell_source(d);
	/* The source stays for this, though it knows all. */
	if (d->state == DEST_DONE && d->link)
		link_finish(d->link);
	if (migration_owns(d->state))
		return 0;
	if (d->state == DEST_REFUSED && d->link && link_may_speak(d->link))
		link_goodbye(d->link); /* that it could not be started was its last word */
	if (d->state == DEST_READY || d->state == DEST_WAITING) {
		/* Its user ends it: the source is told that it will not run here, if it can be. */
		destination_fail(d, STREAM_FAILED, "called off at the destination");
		if (d->link && link_may_speak(d->link) &&
		    !destination_say(d, STREAM_FAILURE, &d->failure))
			link_goodbye(d->link);
	}
	if (ret)
		return ret;
	if (d->failure.text[0])
		return stream_fail(err, NULL, -EIO, "it could not be started here: %s",
				   d->failure.text);
	return stream_fail(err, NULL, -ECANCELED, "the source keeps the guest, or is gone");
}
