/* Pages that somebody waits for, on a connection of their own: no other page is ever before them.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/source_internal.h"
#include "migration/thread.h"

enum { CHANNEL = 1, TURN_MS = 1000, ANSWER = 16 /* pages of one frame */ };

static void ring(int fd)
{
	const uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

static void set_state(struct source *s, enum source_lane_state state)
{
	pthread_mutex_lock(&s->lock);
	s->lane.state = state;
	pthread_mutex_unlock(&s->lock);
	ring(s->lane.bell_fd);
}

static enum source_lane_state get_state(struct source *s)
{
	enum source_lane_state state;

	pthread_mutex_lock(&s->lock);
	state = s->lane.state;
	pthread_mutex_unlock(&s->lock);
	return state;
}

/* ---- the thread ---- */

static int open_link(struct source *s, struct link **link)
{
	struct stream_agreement agreement;
	struct stream_frame frame;
	struct stream_error err;
	int fd = s->dial(s->opaque, s->lane.wake_fd, &err), ret;

	if (fd < 0)
		return fd;
	ret = link_open(link, fd, CHANNEL, s->lane.wake_fd, s->tls);
	if (!ret)
		ret = source_greet(*link, &s->lane.hello, &agreement, &frame, &err);
	return ret;
}

static void serve(struct source *s, struct link *link)
{
	struct stream_batch *batch = stream_batch_new(&link->w, ANSWER);
	struct stream_error err = {.text = "no memory"};
	struct stream_frame frame;
	int ret = batch ? 0 : -ENOMEM;

	if (batch)
		stream_batch_verify(batch, s->params.verify);
	while (ret >= 0) {
		ret = link_receive(link, TURN_MS, &frame, &err);
		if (ret > 0 && frame.type == STREAM_REQUEST && s->serving)
			ret = stream_batch_round(batch, s->serve_round)
				      ?: source_answer(s, batch, &frame, &err);
		else if (ret > 0 && frame.type != STREAM_STATISTICS)
			ret = stream_fail(&err, &frame, -EPROTO, "it may not come here");
		s->lane.sent = link->sent;
	}
	stream_batch_free(batch);
	pthread_mutex_lock(&s->lock);
	snprintf(s->lane.why, sizeof(s->lane.why), "%.199s", err.text);
	pthread_mutex_unlock(&s->lock);
}

static void *lane_main(void *arg)
{
	struct source *s = arg;
	struct link *link = NULL;

	pthread_setname_np(pthread_self(), "demanded pages");
	if (open_link(s, &link)) {
		set_state(s, LANE_REFUSED);
	} else {
		set_state(s, LANE_UP);
		serve(s, link);
		set_state(s, LANE_LOST);
	}
	link_close(link);
	return NULL;
}

/* ---- what the migration's thread does with it ---- */

void source_lane_begin(struct source *s)
{
	struct source_lane *lane = &s->lane;
	const uint32_t wanted = STREAM_CAN_LANES | STREAM_CAN_POSTCOPY;

	if (lane->started || !s->lanes || (s->agreement.can & wanted) != wanted)
		return;
	lane->hello = s->hello;
	lane->hello.again = false;
	lane->hello.lane = STREAM_LANE_DEMAND;
	lane->hello.channel = CHANNEL;
	lane->state = LANE_OPENING;
	lane->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lane->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lane->started = lane->wake_fd >= 0 && lane->bell_fd >= 0 &&
			!thread_start(&lane->thread, lane_main, s);
	if (!lane->started) {
		close(lane->wake_fd);
		close(lane->bell_fd);
	}
}

void source_lane_wait(struct source *s, int timeout_ms)
{
	struct pollfd bell[2] = {{.fd = s->lane.bell_fd, .events = POLLIN},
				 {.fd = s->wake_fd, .events = POLLIN}};

	if (s->lane.started && get_state(s) == LANE_OPENING)
		(void)poll(bell, 2, timeout_ms);
}

void source_lane_why(struct source *s, char *why, size_t size)
{
	pthread_mutex_lock(&s->lock);
	snprintf(why, size, "%s", s->lane.why);
	pthread_mutex_unlock(&s->lock);
}

bool source_lane_lost(struct source *s)
{
	uint64_t rung;

	if (!s->lane.started)
		return false;
	(void)!read(s->lane.bell_fd, &rung, sizeof(rung));
	return get_state(s) == LANE_LOST;
}

void source_lane_end(struct source *s)
{
	struct source_lane *lane = &s->lane;

	if (!lane->started)
		return;
	ring(lane->wake_fd);
	pthread_join(lane->thread, NULL);
	lane->started = false;
	if (s->link)
		s->link->bell_fd = -1;
	close(lane->wake_fd);
	close(lane->bell_fd);
	s->wire += lane->sent;
	lane->sent = 0;
}
