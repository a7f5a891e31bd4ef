#include "migration/save.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include "migration/stream_hello.h"
#include "migration/stream_index.h"

/* Everything is one round. */
enum { ROUND = 1 };

struct save {
	const struct migration_source *m;
	int fd, wake_fd;
	struct stream_writer w;
	struct stream_batch *batch;
	uint64_t *offset; /* by place in memory: of the frame that has the page; 0: it is zero */
	uint64_t contents, zero;
	struct stream_error *err;
};

int migration_file_put(void *opaque, const struct iovec *iov, unsigned count)
{
	const int fd = *(int *)opaque;

	for (unsigned i = 0; i < count; i++) {
		const uint8_t *p = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left) {
			ssize_t n = write(fd, p, left);

			if (n < 0 && errno != EINTR)
				return -errno;
			p += n > 0 ? n : 0;
			left -= n > 0 ? (size_t)n : 0;
		}
	}
	return 0;
}

/* Frame by frame, between which it can be called off. */
static int put(void *opaque, const struct iovec *iov, unsigned count)
{
	struct save *s = opaque;
	struct pollfd wake = {.fd = s->wake_fd, .events = POLLIN};

	return poll(&wake, 1, 0) > 0 ? -ECANCELED : migration_file_put(&s->fd, iov, count);
}

/* What is wrong with the file is said by its number: no frame has anything to do with it. */
static int said(struct save *s, int ret)
{
	if (ret)
		stream_fail(s->err, NULL, ret, "%s",
			    ret == -ECANCELED ? "called off" : strerror(-ret));
	return ret;
}

static int write_hello(struct save *s)
{
	struct stream_hello hello;

	stream_hello_init(&hello);
	hello.role = STREAM_FILE;
	hello.offers = STREAM_CAN_INDEX;
	strncpy(hello.arch, s->m->arch, sizeof(hello.arch) - 1);
	strncpy(hello.ferry, s->m->ferry, sizeof(hello.ferry) - 1);
	if (getrandom(hello.session, sizeof(hello.session), 0) != sizeof(hello.session))
		return -errno;
	return stream_hello_write(&s->w, &hello);
}

static int write_pages(struct save *s)
{
	const struct stream_memory *memory = &s->m->memory;
	struct stream_round round = {.phase = STREAM_STOPPED, .pages = memory->pages};
	uint64_t place = 0;
	int ret = stream_control_write(&s->w, STREAM_ROUND, ROUND, &round);

	if (!ret)
		ret = stream_batch_round(s->batch, ROUND);
	for (uint32_t r = 0; r < memory->count && !ret; r++) {
		const struct stream_region *region = &memory->region[r];

		for (uint64_t i = 0; i < region->count && ret >= 0; i++, place++) {
			const uint64_t page = region->first + i;

			/* What was gathered is written before a page is added: its frame begins
			 * where the stream is now. */
			ret = stream_batch_add(s->batch, page, s->m->ops->page(s->m->opaque, page),
					       false);
			s->offset[place] = ret ? 0 : s->w.offset;
			s->zero += ret == 1;
			s->contents += ret == 0;
		}
		ret = ret > 0 ? 0 : ret;
	}
	if (!ret)
		ret = stream_batch_flush(s->batch);
	round.ends = true;
	return ret ? ret : stream_control_write(&s->w, STREAM_ROUND, ROUND, &round);
}

static int write_state(struct save *s)
{
	struct field_buf state = {0};
	int ret = s->m->ops->state(s->m->opaque, &state, s->err);

	if (!ret)
		ret = said(s, stream_blob_write(&s->w, STREAM_DEVICE, ROUND, "machine", state.data,
						state.len));
	field_buf_free(&state);
	return ret;
}

static int write_index(struct save *s)
{
	const struct stream_memory *memory = &s->m->memory;
	struct stream_end end = {.pages = s->contents, .zero = s->zero};
	struct stream_entry *entries =
		calloc(memory->pages / STREAM_INDEX_MAX + STREAM_REGIONS_MAX, sizeof(*entries));
	uint64_t place = 0;
	uint32_t n = 0;
	int ret = entries ? 0 : -ENOMEM;

	for (uint32_t r = 0; r < memory->count && !ret; r++) {
		const struct stream_region *region = &memory->region[r];

		for (uint64_t i = 0; i < region->count && !ret; i += STREAM_INDEX_MAX) {
			uint64_t rest = region->count - i;
			uint32_t count =
				rest < STREAM_INDEX_MAX ? (uint32_t)rest : STREAM_INDEX_MAX;

			entries[n++] = (struct stream_entry){region->first + i, count, s->w.offset};
			ret = stream_index_write(&s->w, region->first + i, s->offset + place,
						 count);
			place += count;
		}
	}
	end.directory = s->w.offset;
	if (!ret)
		ret = stream_directory_write(&s->w, entries, n);
	free(entries);
	return ret ? ret : stream_end_write(&s->w, &end);
}

static int write_all(struct save *s)
{
	const void *image;
	size_t len;
	int ret = said(s, write_hello(s));

	if (!ret)
		ret = s->m->ops->describe(s->m->opaque, &s->w, s->err);
	if (!ret)
		ret = s->m->ops->image(s->m->opaque, &image, &len, s->err);
	if (!ret)
		ret = said(s, stream_blob_write(&s->w, STREAM_IMAGE, 0, "boot", image, len));
	if (!ret)
		ret = said(s, stream_memory_write(&s->w, &s->m->memory));
	/* The state first: who reads the pages when they are needed needs it at once. */
	if (!ret)
		ret = write_state(s);
	if (!ret)
		ret = said(s, write_pages(s));
	return ret ? ret : said(s, write_index(s));
}

int migration_save(const struct migration_source *m, int fd, int wake_fd, struct stream_error *err)
{
	struct save s = {.m = m, .fd = fd, .wake_fd = wake_fd, .err = err};
	int ret = m->ops->stop(m->opaque, err);

	if (ret)
		return ret;
	stream_writer_init(&s.w, 0, put, &s);
	s.batch = stream_batch_new(&s.w, 0);
	s.offset = calloc(m->memory.pages, sizeof(*s.offset));
	ret = s.batch && s.offset ? write_all(&s) : said(&s, -ENOMEM);
	if (!ret && fsync(fd) && errno != EINVAL && errno != EROFS)
		ret = said(&s, -errno);
	stream_batch_free(s.batch);
	stream_writer_free(&s.w);
	free(s.offset);
	return ret;
}
