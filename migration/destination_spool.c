/* What the guest here lacks comes in a file, because its source does not find us any more. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "migration/destination_internal.h"
#include "migration/save.h"
#include "migration/stream_index.h"

int destination_complete(struct destination *d, const struct destination_file *file)
{
	int ret = 0;

	pthread_mutex_lock(&d->lock);
	if (d->closed)
		ret = -EALREADY;
	else if (d->file.done)
		ret = -EBUSY;
	else
		d->file = *file;
	pthread_mutex_unlock(&d->lock);
	return ret;
}

/* HELLO and RESUME: of this guest's move and of no other one. */
static int read_head(struct destination *d, struct migration_file *f, struct stream_error *err)
{
	struct stream_resume resume = {0};
	struct stream_hello hello;
	struct stream_frame frame;
	int ret = migration_file_next(f, &frame, err);

	if (!ret)
		ret = stream_hello_read(&frame, &hello, err);
	if (ret)
		return ret;
	if (hello.role != STREAM_FILE || !hello.again)
		return stream_fail(err, NULL, -EPROTO,
				   "it is none that a source has written which lost its link");
	if (memcmp(hello.session, d->hello.session, sizeof(hello.session)) != 0)
		return stream_fail(err, NULL, -EPROTO, "it belongs to another guest's move");
	ret = migration_file_next(f, &frame, err);
	if (!ret && frame.type != STREAM_RESUME)
		ret = stream_fail(err, &frame, -EPROTO, "RESUME is expected here");
	if (!ret)
		ret = stream_control_read(&frame, &resume, sizeof(resume), err);
	if (!ret && (resume.ticket != d->ticket || resume.stage != STREAM_STAGE_RUNNING))
		ret = stream_fail(err, NULL, -EPROTO, "it belongs to another attempt");
	return ret;
}

/* It may be long, and its disk slow. */
static int next(struct destination *d, struct migration_file *f, struct stream_frame *frame,
		struct stream_error *err)
{
	struct pollfd pfd = {.fd = d->wake_fd, .events = POLLIN};

	if (poll(&pfd, 1, 0) > 0)
		return stream_fail(err, NULL, -ECANCELED, "called off");
	return migration_file_next(f, frame, err);
}

static int read_pages(struct destination *d, struct migration_file *f, struct stream_error *err)
{
	struct stream_frame frame = {0};
	struct stream_end end;
	int ret;

	/* Of an earlier attempt with it some may have come. */
	arrival_cut(&d->arrival, 0);
	while (!(ret = next(d, f, &frame, err)) && frame.type != STREAM_END) {
		if (frame.type != STREAM_ROUND && frame.type != STREAM_PAGES &&
		    frame.type != STREAM_DIGESTS)
			return stream_fail(err, &frame, -EPROTO, "it may not come here");
		ret = arrival_take(&d->arrival, &frame, err);
		if (ret)
			return ret;
	}
	if (!ret)
		ret = stream_end_read(&frame, &end, err);
	if (!ret && (end.frames != frame.number || end.bytes != frame.offset))
		ret = stream_fail(err, &frame, -EBADMSG, "it does not say what has come");
	if (!ret && d->arrival.received != d->arrival.memory.pages)
		ret = stream_fail(err, NULL, -EPROTO, "pages are still missing");
	return ret;
}

static int complete(struct destination *d, int fd, struct stream_error *err)
{
	struct migration_file f;
	int ret;

	if (d->state != DEST_NEEDS && d->state != DEST_RUNS)
		return stream_fail(err, NULL, -EINVAL,
				   "the guest does not run here yet: nobody but its source can "
				   "say that it may");
	ret = migration_file_begin(&f, fd, err);
	if (!ret)
		ret = read_head(d, &f, err);
	/* Who has written it serves no more. */
	if (!ret && d->link)
		destination_lose(d);
	/* DEST_RUNS: all is here, and only its source did not know it. */
	if (!ret && d->state == DEST_NEEDS)
		ret = read_pages(d, &f, err) ?: d->arrival.sink->complete(d->arrival.opaque, err);
	if (!ret)
		destination_step(d, EVENT_FILLED);
	migration_file_close(&f);
	return ret;
}

static void answer(struct destination *d, int code, const char *text)
{
	struct destination_file file;

	pthread_mutex_lock(&d->lock);
	file = d->file;
	d->file = (struct destination_file){0};
	pthread_mutex_unlock(&d->lock);
	if (file.done)
		file.done(file.opaque, code, text);
}

void destination_look_for_file(struct destination *d)
{
	struct stream_error err = {0};
	bool any;
	int fd, ret;

	pthread_mutex_lock(&d->lock);
	any = d->file.done;
	fd = d->file.fd;
	pthread_mutex_unlock(&d->lock);
	if (!any)
		return;
	ret = complete(d, fd, &err);
	answer(d, ret, err.text);
}

void destination_close_file(struct destination *d)
{
	pthread_mutex_lock(&d->lock);
	d->closed = true;
	pthread_mutex_unlock(&d->lock);
	answer(d, -EALREADY, "nothing is missing here");
}
