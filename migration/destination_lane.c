/* Pages that somebody waits for here, on a connection of their own. One thread reads all: the lane
 * first. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "migration/destination_internal.h"

int destination_bells_init(struct destination *d, struct stream_error *err)
{
	d->bells = epoll_create1(EPOLL_CLOEXEC);
	if (d->bells < 0)
		return stream_fail(err, NULL, -errno, "%s", strerror(errno));
	destination_bell_add(d, door_fd(d->door));
	return 0;
}

void destination_bell_add(struct destination *d, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	/* It may ring already: a new connection begins as the one before it. */
	(void)epoll_ctl(d->bells, EPOLL_CTL_ADD, fd, &event);
}

void destination_bell_remove(struct destination *d, int fd)
{
	(void)epoll_ctl(d->bells, EPOLL_CTL_DEL, fd, NULL);
}

/* ---- who comes while a migration is under way ---- */

static void take_lane(struct destination *d, struct link *link, const struct stream_hello *hello)
{
	struct stream_agreement agreement;
	struct stream_error err;

	if (!d->takes_lanes || !d->link || d->lane || hello->again ||
	    hello->channel != ARRIVE_CHANNELS - 1) {
		destination_turn_away(d, link, hello, "no such connection is expected");
		return;
	}
	if (destination_greet(d, link, hello, &agreement, &err)) {
		link_close(link);
		return;
	}
	d->lane = link;
	destination_bell_add(d, link->fd);
}

void destination_on_caller(struct destination *d, struct link *link,
			   const struct stream_hello *hello)
{
	const bool known = !memcmp(hello->session, d->hello.session, sizeof(hello->session));
	struct stream_error err;

	if (known && hello->lane == STREAM_LANE_DEMAND) {
		take_lane(d, link, hello);
		return;
	}
	if (!known || !hello->again || hello->lane != STREAM_LANE_MAIN) {
		destination_turn_away(d, link, hello, "another guest is on its way to here");
		return;
	}
	/* While pages are copied a source whose connection breaks keeps its guest: all that it can
	 * want is that we hear of it. What of the old one is still unread must not become READY. */
	if (d->state == DEST_COPY) {
		d->given_up = true;
		destination_turn_away(d, link, hello, "it is given up here, too");
		return;
	}
	/* The old connection is dead for him: so it is for us. */
	if (d->link)
		destination_lose(d);
	d->link = link;
	link->bell_fd = d->bells;
	if (destination_greet(d, link, hello, &d->agreement, &err)) {
		destination_lose(d);
		return;
	}
	destination_step(d, EVENT_BACK);
}

/* ---- the lane ---- */

int destination_lane_listen(struct destination *d, struct stream_error *err)
{
	struct stream_frame frame;
	int ret = 0;

	if (!d->lane)
		return 0;
	while (d->lane && (ret = link_receive(d->lane, 0, &frame, err)) > 0) {
		if ((frame.type == STREAM_PAGES || frame.type == STREAM_DIGESTS) &&
		    frame.channel == d->lane->w.channel &&
		    (d->state == DEST_NEEDS || d->state == DEST_RUNS))
			destination_on_page(d, &frame);
		else if (frame.type != STREAM_STATISTICS)
			ret = stream_fail(err, &frame, -EPROTO, "it may not come here");
		if (ret < 0)
			break;
	}
	/* Who calls it off says so on the main one. */
	if (!d->lane || !ret || ret == -ECANCELED)
		return 0;
	destination_lane_end(d);
	return ret;
}

void destination_lane_end(struct destination *d)
{
	link_close(d->lane);
	d->lane = NULL;
	arrival_cut(&d->arrival, ARRIVE_CHANNELS - 1);
}
