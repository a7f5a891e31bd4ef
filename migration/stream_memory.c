
#include <lzma.h>

#include "migration/stream_memory.h"

#include <errno.h>
#include <inttypes.h>

#include "migration/bytes.h"

int stream_memory_add(struct stream_memory *m, uint64_t first, uint64_t count)
{
	const struct stream_region *before = m->count ? &m->region[m->count - 1] : NULL;

	if (m->count == STREAM_REGIONS_MAX || !count || first >= STREAM_PAGE_NUMBER_MAX ||
	    count > STREAM_PAGE_NUMBER_MAX - first ||
	    (before && first < before->first + before->count))
		return -EINVAL;
	m->region[m->count++] = (struct stream_region){first, count};
	m->pages += count;
	return 0;
}

bool stream_memory_has(const struct stream_memory *m, uint64_t first, uint64_t count)
{
	for (uint32_t i = 0; i < m->count; i++) {
		const struct stream_region *r = &m->region[i];

		if (first >= r->first && first - r->first < r->count)
			return count <= r->count - (first - r->first);
	}
	return false;
}

uint64_t stream_memory_index(const struct stream_memory *m, uint64_t page)
{
	uint64_t before = 0;

	for (uint32_t i = 0; i < m->count; i++) {
		if (page - m->region[i].first < m->region[i].count)
			return before + page - m->region[i].first;
		before += m->region[i].count;
	}
	return before;
}

uint64_t stream_memory_page(const struct stream_memory *m, uint64_t place)
{
	uint32_t r = 0;

	while (r + 1 < m->count && place >= m->region[r].count)
		place -= m->region[r++].count;
	return m->region[r].first + place;
}

int stream_memory_write(struct stream_writer *w, const struct stream_memory *m)
{
	uint8_t buf[8 + STREAM_REGIONS_MAX * 16] = {0};

	put_le(buf, m->count, 4);
	for (uint32_t i = 0; i < m->count; i++) {
		put_le(buf + 8 + i * 16, m->region[i].first, 8);
		put_le(buf + 16 + i * 16, m->region[i].count, 8);
	}
	return stream_write_bytes(w, STREAM_MEMORY, 0, buf, 8 + m->count * 16);
}

/* What begins with a count of elements: their number, or -EBADMSG. */
static int64_t take_count(const struct stream_frame *f, struct span *in, unsigned size,
			  uint32_t max, struct stream_error *err)
{
	uint64_t count, zero;

	if (!span_get(in, 4, &count) || !span_get(in, 4, &zero) || zero || !count || count > max ||
	    in->left != count * size)
		return stream_fail(err, f, -EBADMSG, "the count and the length disagree");
	return (int64_t)count;
}

int stream_memory_read(const struct stream_frame *f, struct stream_memory *m,
		       struct stream_error *err)
{
	struct span in = {f->payload, f->len};
	int64_t count = take_count(f, &in, 16, STREAM_REGIONS_MAX, err);
	uint64_t first, pages;

	*m = (struct stream_memory){0};
	for (int64_t i = 0; i < count; i++) {
		span_get(&in, 8, &first);
		span_get(&in, 8, &pages);
		if (stream_memory_add(m, first, pages))
			return stream_fail(err, f, -EBADMSG, "region %" PRId64 " cannot be", i);
	}
	return count < 0 ? (int)count : 0;
}

static int check_pages(const struct stream_frame *f, const struct stream_memory *m, uint64_t first,
		       uint64_t count, struct stream_error *err)
{
	if (count && stream_memory_has(m, first, count))
		return 0;
	return stream_fail(err, f, -EBADMSG,
			   "%" PRIu64 " pages at 0x%" PRIx64 " are not all in memory", count,
			   first);
}

int stream_request_write(struct stream_writer *w, const struct stream_request *r, unsigned count)
{
	uint8_t buf[8 + STREAM_REQUESTS_MAX * 16] = {0};

	if (!count || count > STREAM_REQUESTS_MAX)
		return -EINVAL;
	put_le(buf, count, 4);
	for (unsigned i = 0; i < count; i++) {
		put_le(buf + 8 + i * 16, r[i].first, 8);
		put_le(buf + 16 + i * 16, r[i].count, 4);
		put_le(buf + 20 + i * 16, r[i].flags, 4);
	}
	return stream_write_bytes(w, STREAM_REQUEST, 0, buf, 8 + count * 16);
}

int stream_request_read(const struct stream_frame *f, const struct stream_memory *m,
			struct stream_request *r, struct stream_error *err)
{
	struct span in = {f->payload, f->len};
	int64_t count = take_count(f, &in, 16, STREAM_REQUESTS_MAX, err);
	uint64_t n, flags;

	for (int64_t i = 0; i < count; i++) {
		span_get(&in, 8, &r[i].first);
		span_get(&in, 4, &n);
		span_get(&in, 4, &flags);
		if (check_pages(f, m, r[i].first, n, err))
			return -EBADMSG;
		if (flags & ~(uint64_t)STREAM_REQUEST_WAITING)
			return stream_fail(err, f, -EBADMSG, "unknown flags 0x%" PRIx64, flags);
		r[i].count = (uint32_t)n;
		r[i].flags = (uint32_t)flags;
	}
	return (int)count;
}

int stream_received_write(struct stream_writer *w, const struct stream_received *r)
{
	uint8_t head[16];
	struct iovec iov[2] = {{head, sizeof(head)},
			       {(void *)(uintptr_t)r->bits, (r->count + 7) / 8}};

	if (!r->count || r->count > STREAM_RECEIVED_MAX)
		return -EINVAL;
	put_le(head, r->first, 8);
	put_le(head + 8, r->count, 4);
	put_le(head + 12, r->last, 4);
	return stream_write(w, STREAM_RECEIVED, 0, iov, 2);
}

int stream_received_read(const struct stream_frame *f, const struct stream_memory *m,
			 struct stream_received *r, struct stream_error *err)
{
	struct span in = {f->payload, f->len};
	uint64_t first, count, last;

	if (!span_get(&in, 8, &first) || !span_get(&in, 4, &count) || !span_get(&in, 4, &last) ||
	    last > 1 || !count || count > STREAM_RECEIVED_MAX || in.left != (count + 7) / 8)
		return stream_fail(err, f, -EBADMSG, "the count and the length disagree");
	if (first > m->pages || count > m->pages - first)
		return stream_fail(err, f, -EBADMSG, "pages beyond the end of memory");
	if (count % 8 && in.p[in.left - 1] >> count % 8)
		return stream_fail(err, f, -EBADMSG, "bits beyond the last page");
	*r = (struct stream_received){first, (uint32_t)count, last, in.p};
	return 0;
}

uint64_t stream_digest(const struct stream_digests *d, uint32_t i)
{
	return get_le(d->values + (size_t)i * 8, 8);
}

uint64_t stream_digest_of(const void *data, size_t len)
{
	return lzma_crc64(data, len, 0);
}

int stream_digests_write(struct stream_writer *w, uint64_t first, const uint64_t *values,
			 uint32_t count)
{
	return stream_digests_write_of(w, STREAM_DIGEST_CRC32C, first, values, count);
}

int stream_digests_write_of(struct stream_writer *w, enum stream_digest_kind kind, uint64_t first,
			    const uint64_t *values, uint32_t count)
{
	uint8_t buf[16 + STREAM_DIGESTS_MAX * 8];

	if (!count || count > STREAM_DIGESTS_MAX)
		return -EINVAL;
	put_le(buf, first, 8);
	put_le(buf + 8, count, 4);
	put_le(buf + 12, kind, 4);
	for (uint32_t i = 0; i < count; i++)
		put_le(buf + 16 + (size_t)i * 8, values[i], 8);
	return stream_write_bytes(w, STREAM_DIGESTS, 0, buf, 16 + (size_t)count * 8);
}

int stream_digests_read(const struct stream_frame *f, const struct stream_memory *m,
			struct stream_digests *d, struct stream_error *err)
{
	struct span in = {f->payload, f->len};
	uint64_t first, count, kind;

	if (!span_get(&in, 8, &first) || !span_get(&in, 4, &count) || !span_get(&in, 4, &kind) ||
	    count > STREAM_DIGESTS_MAX || in.left != count * 8)
		return stream_fail(err, f, -EBADMSG, "the count and the length disagree");
	if (kind < STREAM_DIGEST_CRC32C || kind > STREAM_DIGEST_STATE)
		return stream_fail(err, f, -ENOTSUP,
				   "digests of kind %" PRIu64 " are not known here", kind);
	*d = (struct stream_digests){first, (uint32_t)count, (uint32_t)kind, in.p};
	if (kind == STREAM_DIGEST_STATE || kind == STREAM_DIGEST_PAGES)
		return count && count <= (kind == STREAM_DIGEST_STATE ? 1 : STREAM_PAGES_MAX)
			       ? 0
			       : stream_fail(err, f, -EBADMSG, "%" PRIu64 " digests", count);
	return check_pages(f, m, first, count, err);
}
