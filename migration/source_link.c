/* The connections of the side that a guest leaves. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/pulse.h"
#include "migration/source_internal.h"
#include "migration/stream_items.h"

static const uint64_t second = 1000000000;
enum { LAST_WORDS = 64 };
static const uint64_t greeting = 10000000000; /* ns, until HELLO is there, byte by byte */

void source_drop_link(struct source *s)
{
	source_lane_end(s);
	stream_batch_free(s->batch);
	s->batch = NULL;
	s->ahead = false;
	s->ahead_bytes = 0;
	if (s->link)
		s->wire += s->link->sent;
	link_close(s->link);
	s->link = NULL;
}

uint64_t source_sent(const struct source *s)
{
	return s->wire + (s->link ? s->link->sent : 0) + s->lane.sent;
}

int source_read_failure(const struct stream_frame *frame, struct stream_failure *failure,
			struct stream_error *err)
{
	int ret = stream_control_read(frame, failure, sizeof(*failure), err);

	return ret ? ret
		   : stream_fail(err, NULL, -ECONNREFUSED, "the destination %s: %.*s",
				 failure->kind == STREAM_REFUSED ? "refuses" : "has failed",
				 STREAM_TEXT, failure->text);
}

static void on_number(struct source *s, const struct stream_item *item, uint64_t value)
{
	pthread_mutex_lock(&s->lock);
	if (!strcmp(item->name, "demand.mean-ns"))
		s->progress.fault_mean = value;
	else if (!strcmp(item->name, "demand.max-ns"))
		s->progress.fault_max = value;
	pthread_mutex_unlock(&s->lock);
	if (strcmp(item->name, "rounds") != 0)
		return;
	s->counts = true;
	s->taken = value;
}

int source_numbers(struct source *s, const struct stream_frame *frame, struct stream_error *err)
{
	struct stream_item item;
	struct stream_error why;
	uint32_t at = 0;
	int ret;

	/* What is not a number is something else. */
	while ((ret = stream_item_next(frame, &at, &item, err)) > 0) {
		uint64_t value;

		if (!stream_item_number(frame, &item, INT64_MAX, &value, &why))
			on_number(s, &item, value);
	}
	return ret;
}

int source_said(struct source *s, const struct stream_frame *frame, struct stream_error *err)
{
	struct stream_failure failure;
	int ret;

	if (frame->type == STREAM_STATISTICS)
		return source_numbers(s, frame, err);
	if (frame->type != STREAM_FAILURE)
		return stream_fail(err, frame, -EPROTO, "it may not come here");
	ret = source_read_failure(frame, &failure, err);
	if (ret != -ECONNREFUSED)
		return ret;
	s->refused = failure.kind == STREAM_REFUSED;
	source_step(s, EVENT_FAILURE);
	return ret;
}

int source_hear(struct source *s, int timeout_ms, struct stream_error *err)
{
	struct stream_frame frame;
	int ret = link_receive(s->link, timeout_ms, &frame, err);

	return ret > 0 ? source_said(s, &frame, err) : ret;
}

int source_listen(struct source *s, struct stream_error *err)
{
	return source_hear(s, 0, err);
}

int source_unsent(struct source *s, int ret, struct stream_error *err)
{
	struct stream_frame frame;
	int said = 0;

	/* Behind what does not matter, which a hostile one may go on saying. */
	for (unsigned i = 0; i < LAST_WORDS && !said; i++) {
		said = link_receive(s->link, 0, &frame, err);
		if (said > 0)
			said = frame.type == STREAM_READY ? 0 : source_said(s, &frame, err);
	}
	return said ? said : stream_fail(err, NULL, ret, "%s", strerror(-ret));
}

int source_busy(struct source *s, int (*op)(void *opaque, struct stream_error *err),
		struct stream_error *err)
{
	struct pulse pulse;
	int ret;

	pulse_start(&pulse, s->link);
	ret = op(s->m->opaque, err);
	pulse_stop(&pulse);
	return ret;
}

int source_greet(struct link *link, const struct stream_hello *hello,
		 struct stream_agreement *agreement, struct stream_frame *other,
		 struct stream_error *err)
{
	struct stream_hello theirs;
	int ret;

	link->deadline = clock_now() + greeting;
	link->late = "its HELLO takes too long";
	/* Who hangs up at once may have said why. */
	(void)stream_hello_write(&link->w, hello);
	ret = link_receive(link, -1, other, err);
	link->deadline = 0;
	if (ret < 0)
		return ret;
	if (other->type != STREAM_HELLO)
		return 1;
	ret = stream_hello_read(other, &theirs, err);
	return ret ? ret : stream_agree(hello, &theirs, agreement, err);
}

/* The last words on a connection that is of no use: what they say there is damaged, or too new. */
static void say_why(struct source *s, const char *text)
{
	struct stream_failure failure = {.kind = STREAM_REFUSED};

	snprintf(failure.text, sizeof(failure.text), "%.199s", text);
	if (link_may_speak(s->link) &&
	    !stream_control_write(&s->link->w, STREAM_FAILURE, 0, &failure))
		link_finish(s->link);
}

/* Something else came instead of HELLO. The first connection is the whole migration: a FAILURE ends
 * it. On a later one it only says that this one is of no use: whoever has not said HELLO may be
 * anybody, or the destination's door, which does not know where the guest is. */
static int no_hello(struct source *s, bool again, const struct stream_frame *frame,
		    struct stream_error *err)
{
	struct stream_failure failure;

	if (frame->type != STREAM_FAILURE)
		return stream_fail(err, frame, -EPROTO, "HELLO must be the first");
	return again ? source_read_failure(frame, &failure, err) : source_said(s, frame, err);
}

/* Whether post-copy may be asked for from now on; it may have been before anyone knew. */
static int learn_postcopy(struct source *s, struct stream_error *err)
{
	const bool can = s->agreement.can & STREAM_CAN_POSTCOPY;
	bool asked;

	pthread_mutex_lock(&s->lock);
	s->precopy_only = !can;
	asked = s->postcopy;
	pthread_mutex_unlock(&s->lock);
	if (can || !asked)
		return 0;
	return stream_fail(err, NULL, -ENOTSUP,
			   "post-copy was asked for, which the other side does not offer");
}

int source_connect(struct source *s, bool again, int wake_fd, struct stream_error *err)
{
	int fd = s->dial(s->opaque, wake_fd, err), ret;
	struct stream_frame frame;

	if (fd < 0)
		return fd;
	ret = link_open(&s->link, fd, 0, wake_fd, s->tls);
	if (ret)
		return stream_fail(err, NULL, ret, "no memory");
	s->link->limit = s->params.bandwidth;
	s->hello.again = again;
	ret = source_greet(s->link, &s->hello, &s->agreement, &frame, err);
	if (ret > 0)
		ret = no_hello(s, again, &frame, err);
	else if (!ret)
		ret = learn_postcopy(s, err);
	if (!ret && s->agreement.can & STREAM_CAN_ZSTD && !s->params.uncompressed)
		link_compress(s->link);
	if (ret) {
		say_why(s, err->text);
		source_drop_link(s);
	}
	return ret;
}

/* Asked for, or enough time for another attempt; *delay grows. */
void source_wait_retry(struct source *s, uint64_t *delay)
{
	const uint64_t most = s->retry_max ? s->retry_max : 2 * second, end = clock_now() + *delay;
	bool now = false;

	while (!now && clock_now() < end) {
		usleep(20000);
		pthread_mutex_lock(&s->lock);
		now = s->retry || s->abandon || (s->force && s->state == SOURCE_DOUBT);
		s->retry = false;
		pthread_mutex_unlock(&s->lock);
	}
	*delay = *delay * 2 < most ? *delay * 2 : most;
}

int source_ask_again(struct source *s, enum stream_stage stage, struct stream_error *err)
{
	struct stream_resume resume = {.stage = (uint8_t)stage, .ticket = s->ticket};
	int ret = source_connect(s, true, s->abandon_fd, err);

	if (ret)
		return ret;
	source_step(s, EVENT_BACK);
	ret = stream_control_write(&s->link->w, STREAM_RESUME, 0, &resume);
	if (!ret)
		return 0;
	source_drop_link(s);
	return stream_fail(err, NULL, ret, "%s", strerror(-ret));
}
