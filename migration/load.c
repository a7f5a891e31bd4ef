/* Reading what migration_save() wrote. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migration/save.h"
#include "migration/stream_hello.h"
#include "migration/stream_index.h"

enum { BUFFER = 1 << 18 };

int migration_file_next(struct migration_file *f, struct stream_frame *frame,
			struct stream_error *err)
{
	for (;;) {
		size_t used;
		int ret =
			stream_parse(f->parser, f->buf + f->at, f->len - f->at, &used, frame, err);
		ssize_t n;

		f->at += used;
		if (ret)
			return ret > 0 ? 0 : ret;
		n = read(f->fd, f->buf, BUFFER);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return stream_fail(err, NULL, -errno, "%s", strerror(errno));
		if (!n) {
			ret = stream_parser_finish(f->parser, err);
			return ret ? ret
				   : stream_fail(err, NULL, -ENODATA,
						 "it ends without END: it is cut off");
		}
		f->at = 0;
		f->len = (size_t)n;
	}
}

int migration_file_read_at(const struct migration_file *f, uint64_t offset, void *buf, size_t len,
			   struct stream_error *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(f->fd, (uint8_t *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return stream_fail(err, NULL, -errno, "%s%s", strerror(errno),
					   errno == ESPIPE ? ": --eager reads from a pipe" : "");
		if (!n)
			return stream_fail(err, NULL, -EBADMSG, "it ends too early: it is cut off");
		done += (size_t)n;
	}
	return 0;
}

int migration_file_begin(struct migration_file *f, int fd, struct stream_error *err)
{
	*f = (struct migration_file){
		.fd = fd, .parser = stream_parser_new(), .buf = malloc(BUFFER)};
	return f->parser && f->buf ? 0 : stream_fail(err, NULL, -ENOMEM, "no memory");
}

static int read_hello(struct migration_file *f, struct stream_error *err)
{
	struct stream_hello hello;
	struct stream_frame frame;
	int ret = migration_file_next(f, &frame, err);

	if (!ret && frame.type != STREAM_HELLO)
		ret = stream_fail(err, &frame, -EPROTO, "HELLO must be the first");
	if (!ret)
		ret = stream_hello_read(&frame, &hello, err);
	if (ret)
		return ret;
	if (hello.oldest > STREAM_VERSION || hello.version < STREAM_VERSION_OLDEST)
		return stream_fail(err, NULL, -ENOTSUP,
				   "its version %u of the stream is not known here", hello.version);
	if (hello.role == STREAM_FILE && hello.again)
		return stream_fail(err, NULL, -EPROTO,
				   "it has no machine, only pages that one lacks which runs "
				   "elsewhere: ferry migrate-control NAME complete FILE");
	if (hello.role != STREAM_FILE)
		return stream_fail(err, NULL, -EPROTO, "it is no saved machine");
	return 0;
}

/* `at`: where the first would stand. */
static int skip_images(struct migration_file *f, uint64_t at, struct stream_error *err)
{
	uint8_t header[STREAM_HEADER];
	struct stream_frame frame;
	int ret;

	f->images = at;
	for (;;) {
		ret = migration_file_read_at(f, at, header, sizeof(header), err);
		if (!ret)
			ret = stream_peek(f->parser, at, header, &frame, err);
		if (ret)
			return ret;
		if (frame.type != STREAM_IMAGE)
			break;
		at += STREAM_HEADER + frame.sent;
	}
	f->images_end = at;
	f->at = f->len = 0;
	stream_parser_seek(f->parser, at);
	return lseek(f->fd, (off_t)at, SEEK_SET) < 0
		       ? stream_fail(err, NULL, -errno, "%s", strerror(errno))
		       : 0;
}

int migration_file_open(struct migration_file *f, int fd, bool later,
			const struct migration_sink_ops *sink, void *opaque,
			struct stream_error *err)
{
	struct stream_frame frame;
	int ret;

	ret = migration_file_begin(f, fd, err);
	arrival_init(&f->arrival, sink, opaque);
	if (!ret)
		ret = read_hello(f, err);
	while (!ret) {
		ret = migration_file_next(f, &frame, err);
		if (!ret)
			ret = arrival_take(&f->arrival, &frame, err);
		if (ret == -EAGAIN)
			ret = stream_fail(err, &frame, -EPROTO, "it may not come here");
		if (!ret && later && frame.type == STREAM_DESCRIPTION)
			ret = skip_images(f, frame.offset + STREAM_HEADER + frame.sent, err);
	}
	return ret > 0 ? 0 : ret;
}

int migration_file_read_state(struct migration_file *f, struct stream_error *err)
{
	while (!f->arrival.state.whole) {
		struct stream_frame frame;
		int ret = migration_file_next(f, &frame, err);

		if (!ret && frame.type != STREAM_DEVICE)
			ret = stream_fail(err, &frame, -EPROTO,
					  "the device state is not before the pages: --eager reads "
					  "that");
		if (!ret)
			ret = arrival_take(&f->arrival, &frame, err);
		if (ret)
			return ret;
	}
	return 0;
}

/* The end says what was written: a file that lost something in the middle has other sums. */
static int check_end(struct migration_file *f, const struct stream_frame *frame,
		     struct stream_error *err)
{
	struct stream_end end;
	int ret = stream_end_read(frame, &end, err);

	if (!ret && (end.frames != frame->number || end.bytes != frame->offset ||
		     end.pages != f->arrival.contents || end.zero != f->arrival.zero))
		ret = stream_fail(err, frame, -EBADMSG, "it does not say what has come");
	return ret ? ret : arrival_complete(&f->arrival, err);
}

int migration_file_load(struct migration_file *f, struct stream_error *err)
{
	const struct stream_blob *state = &f->arrival.state;
	struct stream_frame frame;
	int ret;

	do {
		ret = migration_file_next(f, &frame, err);
		if (!ret)
			ret = arrival_take(&f->arrival, &frame, err);
	} while (!ret);
	if (ret == -EAGAIN)
		ret = frame.type == STREAM_END
			      ? check_end(f, &frame, err)
			      : stream_fail(err, &frame, -EPROTO, "it may not come here");
	return ret < 0 ? ret
		       : f->arrival.sink->load(f->arrival.opaque, state->bytes.data,
					       state->bytes.len, err);
}

void migration_file_close(struct migration_file *f)
{
	stream_parser_free(f->parser);
	free(f->buf);
	free(f->entries);
	free(f->offsets);
	free(f->frame);
	arrival_free(&f->arrival);
}
