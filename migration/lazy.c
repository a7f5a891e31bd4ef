/* A saved machine whose pages are read when they are needed, and all others after them. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "migration/save.h"

enum { END_FRAME = STREAM_HEADER + STREAM_END_SIZE, AROUND = 1 };

/* The frame that begins there, with its checksums. */
static int frame_at(struct migration_file *f, uint64_t offset, enum stream_type type,
		    struct stream_frame *frame, struct stream_error *err)
{
	size_t used;
	int ret = migration_file_read_at(f, offset, f->frame, STREAM_HEADER, err);

	if (!ret)
		ret = stream_peek(f->parser, offset, f->frame, frame, err);
	if (!ret && frame->type != type)
		ret = stream_fail(err, NULL, -EBADMSG, "another frame at byte %" PRIu64, offset);
	if (!ret)
		ret = migration_file_read_at(f, offset + STREAM_HEADER, f->frame + STREAM_HEADER,
					     frame->sent, err);
	if (ret)
		return ret;
	stream_parser_seek(f->parser, offset);
	ret = stream_parse(f->parser, f->frame, STREAM_HEADER + frame->sent, &used, frame, err);
	return ret < 0 ? ret : 0;
}

/* ---- opening ---------------------------------------------------------------------------- */

static int read_directory(struct migration_file *f, struct stream_error *err)
{
	struct stream_directory directory;
	struct stream_frame frame;
	struct stream_end end = {0};
	struct stat st;
	int ret;

	if (fstat(f->fd, &st) || st.st_size < END_FRAME)
		return stream_fail(err, NULL, -EBADMSG, "it ends too early: it is cut off");
	ret = frame_at(f, (uint64_t)st.st_size - END_FRAME, STREAM_END, &frame, err);
	if (ret == -EBADMSG || ret == -ENOTSUP || ret == -EPROTO)
		return stream_fail(err, NULL, -EBADMSG,
				   "it does not end with END: it is cut off, damaged there, or has "
				   "something behind its end");
	if (!ret)
		ret = stream_end_read(&frame, &end, err);
	if (!ret && !end.directory)
		ret = stream_fail(err, NULL, -EPROTO, "it has no index: --eager reads it");
	if (!ret)
		ret = frame_at(f, end.directory, STREAM_DIRECTORY, &frame, err);
	if (!ret)
		ret = stream_directory_read(&frame, &directory, err);
	if (ret)
		return ret;
	f->entries = calloc(directory.count + 1, sizeof(*f->entries));
	if (!f->entries)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	for (uint32_t i = 0; i < directory.count; i++)
		f->entries[i] = stream_directory_entry(&directory, i);
	f->entry_count = f->loaded = directory.count;
	return 0;
}

/* Every page of memory is in one entry. */
static int check_directory(const struct migration_file *f, struct stream_error *err)
{
	const struct stream_memory *memory = &f->arrival.memory;
	uint64_t pages = 0;

	for (uint32_t i = 0; i < f->entry_count; i++) {
		const struct stream_entry *e = &f->entries[i];

		if (e->count > STREAM_INDEX_MAX || !stream_memory_has(memory, e->first, e->count))
			return stream_fail(err, NULL, -EBADMSG, "its index is of other memory");
		pages += e->count;
	}
	return pages == memory->pages
		       ? 0
		       : stream_fail(err, NULL, -EBADMSG, "its index has not all of the memory");
}

int migration_file_load_state(struct migration_file *f, struct stream_error *err)
{
	const struct migration_sink_ops *sink = f->arrival.sink;
	const struct stream_memory *memory = &f->arrival.memory;
	const struct stream_blob *state = &f->arrival.state;
	int ret = migration_file_read_state(f, err);

	f->frame = malloc(STREAM_HEADER + STREAM_PAYLOAD_MAX);
	f->offsets = calloc(STREAM_INDEX_MAX, sizeof(*f->offsets));
	if (!ret && (!f->frame || !f->offsets))
		ret = stream_fail(err, NULL, -ENOMEM, "no memory");
	if (!ret)
		ret = read_directory(f, err);
	if (!ret)
		ret = check_directory(f, err);
	for (uint32_t r = 0; r < memory->count && !ret; r++)
		ret = sink->miss(f->arrival.opaque, memory->region[r].first,
				 memory->region[r].count, NULL, err);
	return ret ? ret : sink->load(f->arrival.opaque, state->bytes.data, state->bytes.len, err);
}

/* ---- pages ------------------------------------------------------------------------------ */

static const struct stream_entry *find_entry(const struct migration_file *f, uint64_t page,
					     uint32_t *n)
{
	uint32_t low = 0, high = f->entry_count;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (f->entries[middle].first <= page)
			low = middle;
		else
			high = middle;
	}
	*n = low;
	return &f->entries[low];
}

static int load_index(struct migration_file *f, const struct stream_entry *e, uint32_t n,
		      struct stream_error *err)
{
	struct stream_frame frame;
	struct stream_index index;
	int ret;

	if (f->loaded == n)
		return 0;
	f->loaded = f->entry_count;
	ret = frame_at(f, e->offset, STREAM_INDEX, &frame, err);
	if (!ret)
		ret = stream_index_read(&frame, &index, err);
	if (ret)
		return ret;
	if (index.first != e->first || index.count != e->count)
		return stream_fail(err, &frame, -EBADMSG, "it is not what the directory says");
	for (uint32_t i = 0; i < index.count; i++)
		f->offsets[i] = stream_index_offset(&index, i);
	f->loaded = n;
	return 0;
}

/* The page, and all of its frame whose newest contents these are. */
static int bring_frame(struct migration_file *f, const struct stream_entry *e, uint64_t page,
		       struct stream_error *err)
{
	const struct migration_sink_ops *sink = f->arrival.sink;
	const uint64_t offset = f->offsets[page - e->first];
	struct stream_pages_run run;
	struct stream_pages pages;
	struct stream_frame frame;
	bool found = false;
	int ret = frame_at(f, offset, STREAM_PAGES, &frame, err);

	if (!ret)
		ret = stream_pages_read(&frame, &f->arrival.memory, &pages, err);
	while (!ret && stream_pages_next(&pages, &run)) {
		for (uint32_t i = 0; run.data && i < run.count; i++) {
			uint64_t at = run.first + i;

			if (at < e->first || at >= e->first + e->count ||
			    f->offsets[at - e->first] != offset)
				continue;
			found |= at == page;
			if (sink->bring(f->arrival.opaque, at, 1,
					run.data + (size_t)i * STREAM_PAGE) < 0)
				return stream_fail(err, NULL, -ENOMEM, "no memory");
		}
	}
	if (!ret && !found)
		ret = stream_fail(err, &frame, -EBADMSG, "page 0x%" PRIx64 " is not in it", page);
	return ret;
}

static int bring_page(struct migration_file *f, uint64_t page, struct stream_error *err)
{
	const struct migration_sink_ops *sink = f->arrival.sink;
	uint32_t n, count = 1;
	const struct stream_entry *e = find_entry(f, page, &n);
	int ret = load_index(f, e, n, err);

	if (ret)
		return ret;
	if (f->offsets[page - e->first])
		return bring_frame(f, e, page, err);
	while (page + count < e->first + e->count && !f->offsets[page + count - e->first])
		count++;
	return sink->bring(f->arrival.opaque, page, count, NULL) < 0
		       ? stream_fail(err, NULL, -ENOMEM, "no memory")
		       : 0;
}

/* All pages are here: nobody waits for any. */
static int bring_images(struct migration_file *f, struct stream_error *err)
{
	struct stream_frame frame = {0};
	int ret = 0;

	for (uint64_t at = f->images; at < f->images_end && !ret;
	     at += STREAM_HEADER + frame.sent) {
		ret = frame_at(f, at, STREAM_IMAGE, &frame, err);
		if (!ret)
			ret = arrival_take_image(&f->arrival, &frame, err);
	}
	if (!ret && f->arrival.image.name[0])
		ret = stream_fail(err, NULL, -EBADMSG, "the image %s is not whole",
				  f->arrival.image.name);
	return ret;
}

int migration_file_fill(struct migration_file *f, int wake_fd, struct stream_error *err)
{
	const struct migration_sink_ops *sink = f->arrival.sink;
	void *opaque = f->arrival.opaque;
	uint64_t next = 0, page;

	for (;;) {
		struct pollfd pfd = {.fd = wake_fd, .events = POLLIN};
		int ret;

		if (poll(&pfd, 1, 0) > 0)
			return stream_fail(err, NULL, -ECANCELED, "called off");
		/* Who waits comes first; behind what he wants there is more of it. */
		if (sink->wanted(opaque, &page)) {
			next = page + AROUND;
		} else {
			page = next = sink->awaited(opaque, next);
			f->filled = page == UINT64_MAX;
			if (f->filled)
				return bring_images(f, err) ?: sink->complete(opaque, err);
		}
		ret = bring_page(f, page, err);
		if (ret)
			return ret;
	}
}
