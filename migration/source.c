#include "migration/source.h"
#include "migration/stream_index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static const uint64_t second = 1000000000;
enum { READY_MS = 30000, TURN_MS = 200, GOODBYE_MS = 2000 };

int source_step(struct source *s, enum migration_event event)
{
	int next = migration_next(s->state, event);

	if (next < 0)
		return -EPROTO;
	pthread_mutex_lock(&s->lock);
	s->progress.state = s->state = (enum migration_state)next;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

void source_phase(struct source *s, const char *phase)
{
	pthread_mutex_lock(&s->lock);
	s->progress.phase = phase;
	s->progress.elapsed = link_now() - s->begun;
	pthread_mutex_unlock(&s->lock);
}

void source_progress(struct source *s, struct migration_progress *out)
{
	pthread_mutex_lock(&s->lock);
	*out = s->progress;
	pthread_mutex_unlock(&s->lock);
}

bool source_in_doubt(struct source *s)
{
	bool doubt;

	pthread_mutex_lock(&s->lock);
	doubt = s->progress.state == SOURCE_DOUBT;
	pthread_mutex_unlock(&s->lock);
	return doubt;
}

bool source_gone(struct source *s)
{
	bool gone;

	pthread_mutex_lock(&s->lock);
	gone = s->progress.state == SOURCE_SERVES || s->progress.state == SOURCE_MOVED;
	pthread_mutex_unlock(&s->lock);
	return gone;
}

int source_postcopy(struct source *s)
{
	const enum migration_state state = SOURCE_COPY;
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	if (s->progress.state != state)
		ret = -EALREADY;
	else
		s->postcopy = true;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

void source_force(struct source *s)
{
	pthread_mutex_lock(&s->lock);
	s->force = true;
	pthread_mutex_unlock(&s->lock);
}

void source_abandon(struct source *s)
{
	pthread_mutex_lock(&s->lock);
	s->abandon = true;
	pthread_mutex_unlock(&s->lock);
}

void source_retry(struct source *s)
{
	pthread_mutex_lock(&s->lock);
	s->retry = true;
	pthread_mutex_unlock(&s->lock);
}

/* ---- connections ------------------------------------------------------------------------ */

void source_drop_link(struct source *s)
{
	if (s->link)
		s->wire += s->link->sent;
	link_close(s->link);
	s->link = NULL;
}

int source_said(struct source *s, const struct stream_frame *frame, struct stream_error *err)
{
	struct stream_failure failure;
	int ret;

	if (frame->type == STREAM_STATISTICS)
		return 0;
	if (frame->type != STREAM_FAILURE)
		return stream_fail(err, frame, -EPROTO, "it may not come here");
	ret = stream_control_read(frame, &failure, sizeof(failure), err);
	if (ret)
		return ret;
	s->refused = failure.kind == STREAM_REFUSED;
	source_step(s, EVENT_FAILURE);
	return stream_fail(err, NULL, -ECONNREFUSED, "the destination %s: %.*s",
			   s->refused ? "refuses" : "has failed", STREAM_TEXT, failure.text);
}

int source_listen(struct source *s, struct stream_error *err)
{
	struct stream_frame frame;
	int ret = link_receive(s->link, 0, &frame, err);

	return ret > 0 ? source_said(s, &frame, err) : ret;
}

/* HELLO in both directions, on a new connection. */
static int greet(struct source *s, bool again, struct stream_error *err)
{
	struct stream_hello theirs;
	struct stream_frame frame;
	int ret;

	s->hello.again = again;
	/* Who hangs up at once may have said why. */
	(void)stream_hello_write(&s->link->w, &s->hello);
	ret = link_receive(s->link, -1, &frame, err);
	if (ret < 0)
		return ret;
	if (frame.type == STREAM_FAILURE)
		return source_said(s, &frame, err);
	if (frame.type != STREAM_HELLO)
		return stream_fail(err, &frame, -EPROTO, "HELLO must be the first");
	ret = stream_hello_read(&frame, &theirs, err);
	return ret ? ret : stream_agree(&s->hello, &theirs, &s->agreement, err);
}

/* wake_fd -1: not to be stopped. */
static int connect_link(struct source *s, bool again, int wake_fd, struct stream_error *err)
{
	int fd = s->dial(s->opaque, wake_fd, err), ret;

	if (fd < 0)
		return fd;
	ret = link_open(&s->link, fd, 0, wake_fd);
	if (ret)
		return stream_fail(err, NULL, ret, "no memory");
	s->link->limit = s->params.bandwidth;
	ret = greet(s, again, err);
	if (ret)
		source_drop_link(s);
	return ret;
}

/* ---- the hand-over ---------------------------------------------------------------------- */

static int wait_ready(struct source *s, struct stream_error *err)
{
	const uint64_t end = link_now() + (uint64_t)READY_MS * 1000000 + 3 * s->params.downtime;
	struct stream_ready ready;
	struct stream_frame frame;
	int ret;

	while (link_now() < end) {
		ret = link_receive(s->link, TURN_MS, &frame, err);
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
		s->ticket = ready.ticket;
		return source_step(s, EVENT_READY);
	}
	return stream_fail(err, NULL, -ETIMEDOUT, "the destination was not ready in time");
}

static int say_run(struct source *s)
{
	struct stream_run run = {.ticket = s->ticket,
				 .postcopy = s->missing,
				 .missing = s->missing,
				 .guest = s->m->ops->guest_time(s->m->opaque)};
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	run.stopped =
		(uint64_t)now.tv_sec * second + (uint64_t)now.tv_nsec - (link_now() - s->stopped);
	/* From the first byte on nobody here knows whether it has arrived. */
	source_step(s, EVENT_SAY_RUN);
	return stream_control_write(&s->link->w, STREAM_RUN, s->round, &run);
}

/* In doubt: what the other side says is the answer. */
static void take_answer(struct source *s, const struct stream_frame *frame)
{
	struct stream_resume resume;
	struct stream_failure failure;
	struct stream_error err;
	struct stream_ack ack;

	switch (frame->type) {
	case STREAM_ACK:
		if (!stream_control_read(frame, &ack, sizeof(ack), &err) && ack.ticket == s->ticket)
			source_step(s, s->missing ? EVENT_ACK_PART : EVENT_ACK);
		return;
	case STREAM_RESUME:
		if (stream_control_read(frame, &resume, sizeof(resume), &err) ||
		    resume.ticket != s->ticket)
			return;
		/* Which pages are there follows. */
		s->asking = s->missing && resume.stage == STREAM_STAGE_RUNNING;
		if (resume.stage == STREAM_STAGE_COMPLETE)
			source_step(s, EVENT_COMPLETE);
		else if (resume.stage == STREAM_STAGE_RUNNING)
			source_step(s, s->missing ? EVENT_ACK_PART : EVENT_ACK);
		else if (resume.stage == STREAM_STAGE_READY && !source_step(s, EVENT_READY))
			(void)say_run(s);
		return;
	case STREAM_FAILURE:
		/* Only what belongs to this migration: a stranger at the same address refuses
		 * without having said HELLO. */
		if (!stream_control_read(frame, &failure, sizeof(failure), &err) &&
		    failure.kind == STREAM_FAILED)
			source_step(s, EVENT_FAILURE);
		return;
	default: return;
	}
}

/* Asked for, or enough time for another attempt; *delay grows. */
void source_wait_retry(struct source *s, uint64_t *delay)
{
	const uint64_t most = s->retry_max ? s->retry_max : 2 * second, end = link_now() + *delay;
	bool now = false;

	while (!now && link_now() < end) {
		usleep(20000);
		pthread_mutex_lock(&s->lock);
		now = s->retry || s->force || s->abandon;
		s->retry = false;
		pthread_mutex_unlock(&s->lock);
	}
	*delay = *delay * 2 < most ? *delay * 2 : most;
}

static bool forced(struct source *s)
{
	bool force;

	pthread_mutex_lock(&s->lock);
	force = s->force;
	pthread_mutex_unlock(&s->lock);
	return force;
}

bool source_abandoned(struct source *s)
{
	bool abandon;

	pthread_mutex_lock(&s->lock);
	abandon = s->abandon;
	pthread_mutex_unlock(&s->lock);
	return abandon;
}

int source_ask_again(struct source *s, enum stream_stage stage)
{
	struct stream_resume resume = {.stage = (uint8_t)stage, .ticket = s->ticket};
	struct stream_error err;
	int ret = connect_link(s, true, -1, &err);

	if (ret)
		return ret;
	source_step(s, EVENT_BACK);
	return stream_control_write(&s->link->w, STREAM_RESUME, 0, &resume);
}

/* RUN was written: until it is known where the guest is. It cannot be called off any more. */
static void resolve(struct source *s)
{
	uint64_t delay = second / 10;

	if (s->link)
		s->link->wake_fd = -1;
	while (s->state == SOURCE_DOUBT && !forced(s) && !source_abandoned(s)) {
		struct stream_error err;
		struct stream_frame frame;
		int ret;

		if (!s->link) {
			source_phase(s, "paused");
			source_wait_retry(s, &delay);
			if (forced(s) || source_abandoned(s) ||
			    source_ask_again(s, STREAM_STAGE_RUN)) {
				source_drop_link(s);
				continue;
			}
		}
		ret = link_receive(s->link, TURN_MS, &frame, &err);
		if (ret > 0)
			take_answer(s, &frame);
		if (ret < 0 || s->link->broken) {
			source_drop_link(s);
			source_step(s, EVENT_LOST);
		}
	}
	if (s->state == SOURCE_DOUBT && forced(s))
		source_step(s, EVENT_FORCE);
}

/* The destination listens until it knows that we know. */
static void say_end(struct source *s)
{
	struct stream_end end = {0};
	struct stream_error err;
	struct stream_frame frame;
	int ret;

	if (!s->link || stream_end_write(&s->link->w, &end))
		return;
	link_finish(s->link);
	do
		ret = link_receive(s->link, GOODBYE_MS, &frame, &err);
	while (ret > 0);
}

/* The guest is ours: the destination need not wait for it. If the connection is gone, a new one is
 * tried once, for a destination that waits in READY. */
static void say_cancel(struct source *s, const char *why)
{
	struct stream_resume resume = {.stage = STREAM_STAGE_COPY, .ticket = s->ticket};
	struct stream_cancel cancel = {0};
	struct stream_error err;

	snprintf(cancel.text, sizeof(cancel.text), "%.199s", why);
	if (s->link && s->link->broken == -ECANCELED)
		s->link->broken = 0;
	if (s->link && s->link->broken)
		source_drop_link(s);
	if (!s->link && s->ticket && !connect_link(s, true, -1, &err))
		(void)stream_control_write(&s->link->w, STREAM_RESUME, 0, &resume);
	if (!s->link)
		return;
	s->link->wake_fd = -1;
	if (!stream_control_write(&s->link->w, STREAM_CANCEL, 0, &cancel))
		link_finish(s->link);
}

/* ---- life ------------------------------------------------------------------------------- */

int source_init(struct source *s)
{
	const struct stream_memory *memory = &s->m->memory;
	uint64_t words = 1;

	for (uint32_t r = 0; r < memory->count; r++)
		words += (memory->region[r].count + 63) / 64;
	s->bitmap = calloc(words, sizeof(*s->bitmap));
	s->state = SOURCE_COPY;
	s->state_size = 1 << 16;
	s->progress = (struct migration_progress){.phase = "connecting",
						  .total = memory->pages * STREAM_PAGE,
						  .remaining = memory->pages * STREAM_PAGE};
	pthread_mutex_init(&s->lock, NULL);
	stream_hello_init(&s->hello);
	s->hello.role = STREAM_SOURCE;
	s->hello.offers = STREAM_CAN_RECONNECT | STREAM_CAN_POSTCOPY;
	strncpy(s->hello.arch, s->m->arch, sizeof(s->hello.arch) - 1);
	strncpy(s->hello.ferry, s->m->ferry, sizeof(s->hello.ferry) - 1);
	if (getrandom(s->hello.session, sizeof(s->hello.session), 0) != sizeof(s->hello.session))
		return -EIO;
	return s->bitmap ? 0 : -ENOMEM;
}

void source_exit(struct source *s)
{
	source_drop_link(s);
	free(s->bitmap);
	pthread_mutex_destroy(&s->lock);
}

/* Pages of one frame: with a limit not more than it lets through in an eighth of a second. */
unsigned source_batch_limit(const struct source *s)
{
	uint64_t pages = s->params.bandwidth / 8 / STREAM_PAGE;

	if (!s->params.bandwidth || pages > STREAM_PAGES_MAX)
		return STREAM_PAGES_MAX;
	return pages ? (unsigned)pages : 1;
}

static int give_away(struct source *s, struct stream_error *err)
{
	int ret = connect_link(s, false, s->wake_fd, err);

	if (ret)
		return ret;
	s->batch = stream_batch_new(&s->link->w, source_batch_limit(s));
	if (!s->batch)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	ret = source_copy(s, err);
	if (!ret)
		ret = wait_ready(s, err);
	if (!ret)
		ret = s->m->ops->release(s->m->opaque, err);
	stream_batch_free(s->batch);
	s->batch = NULL;
	if (ret)
		return ret;
	(void)say_run(s);
	resolve(s);
	if (s->state == SOURCE_SERVES || s->state == SOURCE_MOVED) {
		pthread_mutex_lock(&s->lock);
		s->progress.downtime = link_now() - s->stopped;
		pthread_mutex_unlock(&s->lock);
	}
	if (s->state == SOURCE_SERVES)
		source_serve(s);
	if (s->state == SOURCE_SERVES)
		return stream_fail(err, NULL, -EINPROGRESS,
				   "the guest runs there, and pages that it lacks are lost");
	return s->state == SOURCE_MOVED ? 0
					: stream_fail(err, NULL, -ECONNREFUSED,
						      "the destination could not start the guest");
}

static void sum_up(struct source *s, const char *phase)
{
	pthread_mutex_lock(&s->lock);
	s->progress.phase = phase;
	s->progress.elapsed = link_now() - s->begun;
	s->progress.sent = s->wire + (s->link ? s->link->sent : 0);
	if (s->state == SOURCE_MOVED) {
		s->progress.remaining = 0;
		s->progress.done = 1;
	}
	pthread_mutex_unlock(&s->lock);
}

int source_run(struct source *s, struct stream_error *err)
{
	struct stream_error why;
	int ret;

	s->begun = link_now();
	ret = give_away(s, err);
	if (s->state == SOURCE_MOVED) {
		sum_up(s, "completed");
		say_end(s);
		return 0;
	}
	if (s->state == SOURCE_SERVES)
		return ret;
	if (s->state == SOURCE_DOUBT)
		return stream_fail(err, NULL, -EINPROGRESS,
				   "it is not known whether the guest runs there");
	if (!migration_over(s->state))
		source_step(s, EVENT_CALL_OFF);
	(void)s->m->ops->track(s->m->opaque, false, &why);
	if (s->m->ops->take_back(s->m->opaque, &why)) {
		stream_fail(err, NULL, -EOWNERDEAD, "%s", why.text);
		ret = -EOWNERDEAD;
	}
	say_cancel(s, err->text);
	sum_up(s, ret == -ECANCELED ? "cancelled" : "failed");
	return ret;
}
