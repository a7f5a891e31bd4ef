/* PAGES: runs of pages. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migration/bytes.h"
#include "migration/stream_memory.h"

enum { HEAD = 8, RUN = 16, CONTENTS = 1, ZERO = 2 };

/* ---- reading ---- */

static int check_run(const struct stream_frame *f, const struct stream_memory *m, struct span *in,
		     uint64_t *end, uint64_t counted[3], struct stream_error *err)
{
	uint64_t first, count, kind;

	span_get(in, 8, &first);
	span_get(in, 4, &count);
	span_get(in, 4, &kind);
	if (kind != CONTENTS && kind != ZERO)
		return stream_fail(err, f, -ENOTSUP, "pages of kind %" PRIu64 " are not known here",
				   kind);
	if (first < *end)
		return stream_fail(err, f, -EBADMSG, "page 0x%" PRIx64 " is out of order", first);
	if (!count || !stream_memory_has(m, first, count))
		return stream_fail(err, f, -EBADMSG,
				   "%" PRIu64 " pages at 0x%" PRIx64 " are not all in memory",
				   count, first);
	*end = first + count;
	counted[kind] += count;
	return 0;
}

int stream_pages_read(const struct stream_frame *f, const struct stream_memory *m,
		      struct stream_pages *pages, struct stream_error *err)
{
	struct span in = {f->payload, f->len};
	uint64_t runs, contents, end = 0, counted[3] = {0};
	int ret;

	if (!span_get(&in, 4, &runs) || !span_get(&in, 4, &contents) || !runs ||
	    runs > STREAM_RUNS_MAX || contents > STREAM_PAGES_MAX ||
	    in.left != runs * RUN + contents * STREAM_PAGE)
		return stream_fail(err, f, -EBADMSG, "the counts and the length disagree");
	*pages = (struct stream_pages){.runs = (uint32_t)runs,
				       .contents = (uint32_t)contents,
				       .run = in.p,
				       .data = in.p + runs * RUN,
				       .left = (uint32_t)runs};
	for (uint64_t i = 0; i < runs; i++) {
		ret = check_run(f, m, &in, &end, counted, err);
		if (ret)
			return ret;
	}
	if (counted[CONTENTS] != contents)
		return stream_fail(err, f, -EBADMSG, "the runs and the contents disagree");
	pages->total = contents + counted[ZERO];
	return 0;
}

bool stream_pages_next(struct stream_pages *pages, struct stream_pages_run *run)
{
	if (!pages->left)
		return false;
	run->first = get_le(pages->run, 8);
	run->count = (uint32_t)get_le(pages->run + 8, 4);
	run->data = get_le(pages->run + 12, 4) == CONTENTS ? pages->data : NULL;
	if (run->data)
		pages->data += (size_t)run->count * STREAM_PAGE;
	pages->run += RUN;
	pages->left--;
	return true;
}

/* ---- writing ---- */

struct stream_batch {
	struct stream_writer *w;
	uint32_t round;
	unsigned limit, runs, contents, pieces;
	struct stream_pages_run run[STREAM_RUNS_MAX];
	uint8_t head[HEAD + STREAM_RUNS_MAX * RUN];
	struct iovec iov[1 + STREAM_PAGES_MAX]; /* head, then contents */
	uint8_t *copies;			/* limit pages */
	bool verify;
	uint64_t digest[STREAM_PAGES_MAX]; /* of those with contents */
};

struct stream_batch *stream_batch_new(struct stream_writer *w, unsigned limit)
{
	struct stream_batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->w = w;
	b->limit = limit && limit < STREAM_PAGES_MAX ? limit : STREAM_PAGES_MAX;
	b->copies = aligned_alloc(STREAM_PAGE, (size_t)b->limit * STREAM_PAGE);
	if (b->copies)
		return b;
	free(b);
	return NULL;
}

void stream_batch_free(struct stream_batch *b)
{
	if (!b)
		return;
	free(b->copies);
	free(b);
}

bool stream_page_is_zero(const void *page)
{
	const uint64_t *word = page;

	for (unsigned i = 0; i < STREAM_PAGE / 8; i += 8) {
		if (word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] |
		    word[i + 6] | word[i + 7])
			return false;
	}
	return true;
}

void stream_batch_verify(struct stream_batch *b, bool verify)
{
	b->verify = verify;
}

int stream_batch_flush(struct stream_batch *b)
{
	unsigned runs = b->runs, pieces = b->pieces;
	int ret = 0;

	if (!runs)
		return 0;
	put_le(b->head, runs, 4);
	put_le(b->head + 4, b->contents, 4);
	for (unsigned i = 0; i < runs; i++) {
		uint8_t *p = b->head + HEAD + i * RUN;

		put_le(p, b->run[i].first, 8);
		put_le(p + 8, b->run[i].count, 4);
		put_le(p + 12, b->run[i].data ? CONTENTS : ZERO, 4);
	}
	b->iov[0] = (struct iovec){b->head, HEAD + runs * RUN};
	if (b->verify && b->contents)
		ret = stream_digests_write_of(b->w, STREAM_DIGEST_PAGES, b->run[0].first, b->digest,
					      b->contents);
	b->runs = b->contents = b->pieces = 0;
	return ret ? ret : stream_write(b->w, STREAM_PAGES, b->round, b->iov, 1 + pieces);
}

int stream_batch_round(struct stream_batch *b, uint32_t round)
{
	int ret = stream_batch_flush(b);

	b->round = round;
	return ret;
}

/* Begins or lengthens a run; what has to ascend begins a new frame where it does not. */
static int grow(struct stream_batch *b, uint64_t first, uint32_t count, const uint8_t *data)
{
	struct stream_pages_run *r = b->runs ? &b->run[b->runs - 1] : NULL;
	int ret;

	if (r && r->first + r->count == first && !r->data == !data &&
	    r->count <= UINT32_MAX - count) {
		r->count += count;
		return 0;
	}
	if (r && (b->runs == STREAM_RUNS_MAX || first < r->first + r->count)) {
		ret = stream_batch_flush(b);
		if (ret)
			return ret;
	}
	b->run[b->runs++] = (struct stream_pages_run){first, count, data};
	return 0;
}

static void add_piece(struct stream_batch *b, const uint8_t *data)
{
	struct iovec *last = &b->iov[b->pieces];

	if (b->pieces && (uint8_t *)last->iov_base + last->iov_len == data)
		last->iov_len += STREAM_PAGE;
	else
		b->iov[++b->pieces] = (struct iovec){(void *)(uintptr_t)data, STREAM_PAGE};
	if (b->verify)
		b->digest[b->contents] = stream_digest_of(data, STREAM_PAGE);
	b->contents++;
}

int stream_batch_add(struct stream_batch *b, uint64_t page, const void *data, bool live)
{
	const struct stream_pages_run *r;
	const uint8_t *from = data;
	int ret;

	/* Whatever must be flushed is flushed before the copy takes its place. */
	r = b->runs ? &b->run[b->runs - 1] : NULL;
	if (r &&
	    (b->contents == b->limit || b->runs == STREAM_RUNS_MAX || page < r->first + r->count)) {
		ret = stream_batch_flush(b);
		if (ret)
			return ret;
	}
	if (live) {
		from = b->copies + (size_t)b->contents * STREAM_PAGE;
		memcpy(b->copies + (size_t)b->contents * STREAM_PAGE, data, STREAM_PAGE);
	}
	if (stream_page_is_zero(from)) {
		ret = grow(b, page, 1, NULL);
		return ret ? ret : 1;
	}
	ret = grow(b, page, 1, from);
	if (!ret)
		add_piece(b, from);
	return ret;
}

int stream_batch_add_zero(struct stream_batch *b, uint64_t first, uint32_t count)
{
	return grow(b, first, count, NULL);
}
