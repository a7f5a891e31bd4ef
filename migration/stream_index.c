#include "migration/stream_index.h"

#include <errno.h>
#include <inttypes.h>

#include "migration/bytes.h"
#include "migration/stream_memory.h"

enum { ENTRY = 24 };

uint64_t stream_index_offset(const struct stream_index *index, uint32_t i)
{
	return get_le(index->offsets + (size_t)i * 8, 8);
}

int stream_index_write(struct stream_writer *w, uint64_t first, const uint64_t *offsets,
		       uint32_t count)
{
	uint8_t buf[16 + STREAM_INDEX_MAX * 8] = {0};

	if (!count || count > STREAM_INDEX_MAX)
		return -EINVAL;
	put_le(buf, first, 8);
	put_le(buf + 8, count, 4);
	for (uint32_t i = 0; i < count; i++)
		put_le(buf + 16 + (size_t)i * 8, offsets[i], 8);
	return stream_write_bytes(w, STREAM_INDEX, 0, buf, 16 + (size_t)count * 8);
}

int stream_index_read(const struct stream_frame *f, struct stream_index *index,
		      struct stream_error *err)
{
	struct span in = {f->payload, f->len};
	uint64_t count, zero;

	if (!span_get(&in, 8, &index->first) || !span_get(&in, 4, &count) ||
	    !span_get(&in, 4, &zero) || zero || !count || count > STREAM_INDEX_MAX ||
	    in.left != count * 8 || index->first >= STREAM_PAGE_NUMBER_MAX)
		return stream_fail(err, f, -EBADMSG, "the count and the length disagree");
	index->count = (uint32_t)count;
	index->offsets = in.p;
	for (uint32_t i = 0; i < count; i++) {
		if (stream_index_offset(index, i) >= f->offset)
			return stream_fail(err, f, -EBADMSG,
					   "page 0x%" PRIx64 ": contents behind the index",
					   index->first + i);
	}
	return 0;
}

struct stream_entry stream_directory_entry(const struct stream_directory *directory, uint32_t i)
{
	const uint8_t *p = directory->entries + (size_t)i * ENTRY;

	return (struct stream_entry){get_le(p, 8), get_le(p + 8, 8), get_le(p + 16, 8)};
}

int stream_directory_write(struct stream_writer *w, const struct stream_entry *entries,
			   uint32_t count)
{
	struct field_buf buf = {0};
	uint8_t p[ENTRY] = {0};
	int ret;

	if (!count || count > STREAM_DIRECTORY_MAX)
		return -EINVAL;
	put_le(p, count, 4);
	ret = field_buf_append(&buf, p, 8);
	for (uint32_t i = 0; i < count && !ret; i++) {
		put_le(p, entries[i].first, 8);
		put_le(p + 8, entries[i].count, 8);
		put_le(p + 16, entries[i].offset, 8);
		ret = field_buf_append(&buf, p, ENTRY);
	}
	if (!ret)
		ret = stream_write_bytes(w, STREAM_DIRECTORY, 0, buf.data, buf.len);
	field_buf_free(&buf);
	return ret;
}

int stream_directory_read(const struct stream_frame *f, struct stream_directory *directory,
			  struct stream_error *err)
{
	struct span in = {f->payload, f->len};
	uint64_t count, zero, end = 0;

	if (!span_get(&in, 4, &count) || !span_get(&in, 4, &zero) || zero || !count ||
	    count > STREAM_DIRECTORY_MAX || in.left != count * ENTRY)
		return stream_fail(err, f, -EBADMSG, "the count and the length disagree");
	*directory = (struct stream_directory){(uint32_t)count, in.p};
	for (uint32_t i = 0; i < count; i++) {
		struct stream_entry e = stream_directory_entry(directory, i);

		if (e.first < end || !e.count || e.count > STREAM_INDEX_MAX ||
		    e.first >= STREAM_PAGE_NUMBER_MAX || e.offset >= f->offset)
			return stream_fail(err, f, -EBADMSG, "entry %" PRIu32 " cannot be", i);
		end = e.first + e.count;
	}
	return 0;
}

int stream_end_write(struct stream_writer *w, struct stream_end *end)
{
	uint8_t p[STREAM_END_SIZE];

	end->frames = w->sequence;
	end->bytes = w->offset;
	put_le(p, end->directory, 8);
	put_le(p + 8, end->frames, 8);
	put_le(p + 16, end->pages, 8);
	put_le(p + 24, end->zero, 8);
	put_le(p + 32, end->bytes, 8);
	return stream_write_bytes(w, STREAM_END, 0, p, sizeof(p));
}

int stream_end_read(const struct stream_frame *f, struct stream_end *end, struct stream_error *err)
{
	struct span in = {f->payload, f->len};

	if (f->len != STREAM_END_SIZE || !span_get(&in, 8, &end->directory) ||
	    !span_get(&in, 8, &end->frames) || !span_get(&in, 8, &end->pages) ||
	    !span_get(&in, 8, &end->zero) || !span_get(&in, 8, &end->bytes))
		return stream_fail(err, f, -EBADMSG, "not of %d bytes", STREAM_END_SIZE);
	if (end->directory >= f->offset && end->directory)
		return stream_fail(err, f, -EBADMSG, "the directory lies behind the end");
	return 0;
}
