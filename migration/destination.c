#include "migration/destination_internal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/thread.h"

enum { TURN_MS = 1000 };

void destination_step(struct destination *d, enum migration_event event)
{
	int next = migration_next(d->state, event);

	if (next < 0 || next == (int)d->state)
		return;
	d->state = (enum migration_state)next;
	if (d->changed)
		d->changed(d->opaque, d->state);
}

void destination_lose(struct destination *d)
{
	destination_lane_end(d);
	link_close(d->link);
	d->link = NULL;
	arrival_cut(&d->arrival, 0);
	destination_may_ask(d, false);
	destination_step(d, EVENT_LOST);
}

void destination_complain(struct destination *d, const struct stream_error *why)
{
	struct stream_failure failure = {.kind = STREAM_REFUSED};

	snprintf(failure.text, sizeof(failure.text), "%.199s", why->text);
	if (d->link && link_may_speak(d->link) && !destination_say(d, STREAM_FAILURE, &failure))
		link_goodbye(d->link);
	destination_lose(d);
}

/* What cannot be said any more is found out by the next who reads. */
int destination_say(struct destination *d, enum stream_type type, void *object)
{
	return d->link ? stream_control_write(&d->link->w, type, 0, object) : -ENOTCONN;
}

void destination_fail(struct destination *d, uint8_t kind, const char *text)
{
	d->failure = (struct stream_failure){.kind = kind};
	snprintf(d->failure.text, sizeof(d->failure.text), "%.199s", text);
}

/* ---- HELLO ------------------------------------------------------------------------------ */

int destination_greet(struct destination *d, struct link *link, const struct stream_hello *theirs,
		      struct stream_agreement *agreement, struct stream_error *err)
{
	struct stream_hello mine;
	int ret;

	stream_hello_init(&mine);
	mine.role = STREAM_DESTINATION;
	mine.offers =
		STREAM_CAN_ZSTD | STREAM_CAN_RECONNECT | STREAM_CAN_VERIFY | STREAM_CAN_IMAGES;
	if (d->arrival.sink->miss)
		mine.offers |= STREAM_CAN_POSTCOPY | STREAM_CAN_LANES | STREAM_CAN_AHEAD;
	mine.again = theirs->again;
	mine.lane = theirs->lane;
	link->w.channel = mine.channel = theirs->channel;
	memcpy(mine.session, theirs->session, sizeof(mine.session));
	strncpy(mine.arch, d->arch, sizeof(mine.arch) - 1);
	strncpy(mine.ferry, d->ferry, sizeof(mine.ferry) - 1);
	link->wake_fd = d->wake_fd;
	ret = stream_hello_write(&link->w, &mine);
	if (ret)
		return stream_fail(err, NULL, ret, "%s", strerror(-ret));
	return stream_agree(&mine, theirs, agreement, err);
}

void destination_turn_away(struct destination *d, struct link *link,
			   const struct stream_hello *theirs, const char *text)
{
	struct stream_failure failure = {.kind = STREAM_REFUSED};
	struct stream_agreement agreement;
	struct stream_error err;

	/* Without HELLO it would be no stream, and nobody would read why. */
	(void)destination_greet(d, link, theirs, &agreement, &err);
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
		destination_step(d, EVENT_FAILURE);
		return ret ? ret
			   : stream_fail(err, NULL, -ECANCELED,
					 "the source has called it off: %.*s", STREAM_TEXT,
					 cancel.text);
	case STREAM_FAILURE:
		ret = stream_control_read(frame, &failure, sizeof(failure), err);
		destination_step(d, EVENT_FAILURE);
		return ret ? ret
			   : stream_fail(err, NULL, -EREMOTEIO, "the source has failed: %.*s",
					 STREAM_TEXT, failure.text);
	default: return stream_fail(err, frame, -EPROTO, "it may not come here");
	}
}

/* Nothing on the main connection. */
static void look_aside(struct destination *d)
{
	struct stream_hello hello;
	struct stream_error why;
	struct link *link;

	if (door_next(d->door, 0, -1, &link, &hello) > 0)
		destination_on_caller(d, link, &hello);
	(void)destination_lane_listen(d, &why);
}

/* What the machine is made of is looked at while pages come; in post-copy the guest would have to
 * stand still for the rest of that. */
static int check(const struct arrival *a, bool last, struct stream_error *err)
{
	return a->sink->check ? a->sink->check(a->opaque, last && !a->missed, err) : 0;
}

/* The next frame that has come; *type 0: none for now. 1: it was MEMORY; 0; -errno with a text. */
static int take_frame(struct destination *d, uint8_t *type, struct stream_error *err)
{
	struct stream_frame frame;
	int ret;

	*type = 0;
	if (d->given_up)
		return stream_fail(err, NULL, -ECANCELED, "the source has given it up");
	ret = link_receive(d->link, TURN_MS, &frame, err);
	if (ret <= 0)
		return ret;
	if (frame.channel != d->hello.channel)
		return stream_fail(err, &frame, -EPROTO, "it is of another channel");
	*type = frame.type;
	ret = arrival_take(&d->arrival, &frame, err);
	if (ret == -EAGAIN)
		ret = other_frame(d, &frame, err);
	if (ret >= 0 && link_alive(d->link))
		return stream_fail(err, NULL, -ECONNRESET, "the connection is lost");
	return ret;
}

/* Frames up to MEMORY (head) or the whole state. */
static int take_frames(struct destination *d, bool head, struct stream_error *err)
{
	const struct arrival *a = &d->arrival;

	for (;;) {
		uint8_t type;
		int ret = take_frame(d, &type, err);

		if (ret < 0)
			return ret;
		if (!type)
			look_aside(d);
		if (head && ret)
			return 0;
		/* The last thing before the hand-over. */
		if (!head && type == STREAM_DEVICE && a->state.whole)
			return check(a, true, err) ?: arrival_complete(a, err);
		if (!head && type == STREAM_ROUND) {
			ret = check(a, false, err);
			if (ret)
				return ret;
			/* What cannot be said is found out with the next frame. */
			(void)destination_say_rounds(d);
		}
	}
}

int destination_begin(struct destination *d, const struct migration_sink_ops *sink, void *opaque,
		      struct stream_error *err)
{
	int ret;

	d->link = d->lane = NULL;
	d->state = DEST_COPY;
	d->given_up = false;
	pthread_mutex_init(&d->lock, NULL);
	arrival_init(&d->arrival, sink, opaque);
	ret = destination_bells_init(d, err);
	if (ret)
		return ret;
	for (;;) {
		ret = door_next(d->door, -1, d->wake_fd, &d->link, &d->hello);
		if (ret < 0)
			return stream_fail(err, NULL, ret, "called off");
		if (ret && (d->hello.again || d->hello.lane != STREAM_LANE_MAIN)) {
			destination_turn_away(d, d->link, &d->hello,
					      "no such migration is known here");
			d->link = NULL;
		} else if (ret) {
			break;
		}
	}
	ret = destination_greet(d, d->link, &d->hello, &d->agreement, err);
	d->link->bell_fd = d->bells;
	d->arrival.late_images = !ret && (d->agreement.can & STREAM_CAN_IMAGES);
	d->arrival.postcopy = !ret && (d->agreement.can & STREAM_CAN_POSTCOPY);
	d->arrival.ahead = d->arrival.postcopy && (d->agreement.can & STREAM_CAN_AHEAD);
	d->arrival.verify = !ret && (d->hello.needs & STREAM_CAN_VERIFY);
	d->takes_lanes = d->arrival.postcopy && (d->agreement.can & STREAM_CAN_LANES);
	if (!ret)
		ret = take_frames(d, true, err);
	if (ret)
		destination_refuse(d, err->text);
	return ret;
}

void destination_build(struct destination *d)
{
	pulse_start(&d->pulse, d->link);
}

/* The last words, whatever is wrong with what came. */
static void say_failure(struct destination *d)
{
	if (d->link && link_may_speak(d->link) && !destination_say(d, STREAM_FAILURE, &d->failure))
		link_goodbye(d->link);
	destination_step(d, EVENT_CALL_OFF);
}

void destination_refuse(struct destination *d, const char *text)
{
	pulse_stop(&d->pulse);
	if (migration_over(d->state))
		return;
	destination_fail(d, STREAM_REFUSED, text);
	say_failure(d);
}

static int load_state(const struct arrival *a, struct stream_error *err)
{
	return a->sink->load(a->opaque, a->state.bytes.data, a->state.bytes.len, err);
}

struct loading {
	const struct arrival *arrival;
	pthread_t thread;
	int fd; /* eventfd: it is done */
	atomic_bool done;
	int code;
	struct stream_error err;
};

static void *load_main(void *arg)
{
	const uint64_t one = 1;
	struct loading *l = arg;

	pthread_setname_np(pthread_self(), "loading");
	l->code = load_state(l->arrival, &l->err);
	atomic_store(&l->done, true);
	(void)!write(l->fd, &one, sizeof(one));
	return NULL;
}

static bool load_begin(struct loading *l)
{
	l->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->fd < 0)
		return false;
	if (!thread_start(&l->thread, load_main, l))
		return true;
	close(l->fd);
	return false;
}

/* Pages that are missing come meanwhile. */
static int load_end(struct loading *l, struct destination *d, struct stream_error *err)
{
	uint8_t type;
	int ret = 0;

	/* Who is at the door waits: it may be the source, which has given up and is to be heard as
	 * one that comes back. */
	d->link->bell_fd = l->fd;
	while (ret >= 0 && !atomic_load(&l->done))
		ret = take_frame(d, &type, err);
	/* Whatever has come, it ends by itself. */
	pthread_join(l->thread, NULL);
	d->link->bell_fd = d->bells;
	close(l->fd);
	if (ret < 0)
		return ret;
	if (l->code)
		*err = l->err;
	return l->code;
}

static int load(struct destination *d, struct stream_error *err)
{
	struct loading l = {.arrival = &d->arrival};
	int ret;

	/* Without a thread what comes meanwhile waits. */
	if (d->arrival.ahead && d->arrival.missed && load_begin(&l))
		return load_end(&l, d, err);
	pulse_start(&d->pulse, d->link);
	ret = load_state(&d->arrival, err);
	pulse_stop(&d->pulse);
	return ret;
}

/* ---- the rest --------------------------------------------------------------------------- */

static int run(struct destination *d, struct stream_error *err)
{
	const struct arrival *a = &d->arrival;
	/* Of no images of its own: zero. */
	struct stream_accept accept = {.lanes = d->takes_lanes};
	int ret;

	if (a->late_images && a->sink->own)
		a->sink->own(a->opaque, accept.images);
	pulse_stop(&d->pulse);
	ret = destination_say(d, STREAM_ACCEPT, &accept);
	if (ret)
		ret = stream_fail(err, NULL, -ECONNRESET, "the connection is lost");
	if (!ret)
		ret = take_frames(d, false, err);
	if (!ret)
		ret = load(d, err);
	if (!ret)
		ret = destination_say_ready(d, err);
	if (ret) {
		destination_fail(d, STREAM_FAILED, err->text);
		say_failure(d);
		destination_close_file(d);
		return ret;
	}
	return destination_hand_over(d, err);
}

/* The guest's life is long, and needs nothing of this. */
static void let_go(struct destination *d)
{
	destination_lane_end(d);
	link_close(d->link);
	d->link = NULL;
	if (d->bells >= 0)
		close(d->bells);
	d->bells = -1;
	arrival_free(&d->arrival);
}

int destination_run(struct destination *d, struct stream_error *err)
{
	int ret = run(d, err);

	let_go(d);
	return ret;
}

void destination_end(struct destination *d)
{
	pulse_stop(&d->pulse);
	destination_close_file(d);
	pthread_mutex_destroy(&d->lock);
	let_go(d);
}
