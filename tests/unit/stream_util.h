/* A small stream with every type of frame, and what tests of the stream share. */
#ifndef TESTS_UNIT_STREAM_UTIL_H
#define TESTS_UNIT_STREAM_UTIL_H

#include <errno.h>

#include "migration/bytes.h"
#include "migration/crc32c.h"
#include "migration/stream_blob.h"
#include "migration/stream_check.h"
#include "migration/stream_control.h"
#include "migration/stream_index.h"
#include "migration/stream_items.h"
#include "tests/unit/dev_util.h"

static inline void stream_test_hello(struct stream_hello *h, uint32_t role)
{
	stream_hello_init(h);
	h->role = role;
	memcpy(h->session, "0123456789abcdef", 16);
	strcpy(h->ferry, "0.1");
	strcpy(h->arch, "x86_64");
	h->offers = STREAM_CAN_ZSTD | STREAM_CAN_INDEX;
	h->needs = STREAM_CAN_INDEX;
}

static inline void stream_test_page(uint8_t *page, uint64_t seed)
{
	for (unsigned i = 0; i < STREAM_PAGE; i++)
		page[i] = (uint8_t)dev_random(&seed);
}

struct stream_test_device {
	uint8_t reg;
	uint32_t count;
};
static const struct field stream_test_fields[] = {
	FIELD_SCALAR(struct stream_test_device, reg, FIELD_U8, 1),
	FIELD_SCALAR(struct stream_test_device, count, FIELD_U32, 1),
	FIELD_END,
};
static const struct state_desc stream_test_desc = {
	.name = "device", .version = 1, .fields = stream_test_fields};

/* A page frame of round `round`: page 1 with contents, pages 2 and 3 zero. */
static inline int stream_test_pages(struct stream_writer *w, uint32_t round)
{
	struct stream_batch *b = stream_batch_new(w, 0);
	uint8_t page[STREAM_PAGE] __attribute__((aligned(8)));
	int ret;

	stream_test_page(page, round);
	ret = stream_batch_round(b, round);
	if (!ret)
		ret = stream_batch_add(b, 1, page, true);
	if (!ret)
		ret = stream_batch_add_zero(b, 2, 2);
	if (!ret)
		ret = stream_batch_flush(b);
	stream_batch_free(b);
	return ret;
}

static inline int stream_test_end(struct stream_writer *w, uint64_t pages_at)
{
	uint64_t offsets[4] = {0, pages_at, 0, 0};
	struct stream_entry entry = {0, 4, w->offset};
	struct stream_end end = {.pages = 1, .zero = 3};
	int ret = stream_index_write(w, 0, offsets, 4);

	end.directory = w->offset;
	if (!ret)
		ret = stream_directory_write(w, &entry, 1);
	return ret ? ret : stream_end_write(w, &end);
}

/* A machine of four pages in a file: 0, 2 and 3 are zero. What a file may have besides is there. */
static inline int stream_test_file(struct stream_writer *w)
{
	struct stream_test_device device = {.reg = 7, .count = 9};
	struct stream_memory memory = {0};
	struct field_buf buf = {0};
	struct stream_round round = {.phase = STREAM_STOPPED};
	struct stream_hello hello;
	uint64_t pages_at, digest = 0x11223344;
	int ret;

	stream_test_hello(&hello, STREAM_FILE);
	ret = stream_hello_write(w, &hello);
	stream_item_put_text(&buf, true, "memory", "16K");
	stream_item_put_text(&buf, false, "name", "vm1");
	ret |= stream_write_bytes(w, STREAM_DESCRIPTION, 0, buf.data, buf.len);
	ret |= stream_blob_write(w, STREAM_IMAGE, 0, "kernel", "KERNEL", 6);
	ret |= stream_memory_add(&memory, 0, 4);
	ret |= stream_memory_write(w, &memory);
	ret |= stream_control_write(w, STREAM_ROUND, 1, &round);
	struct stream_batch *b = stream_batch_new(w, 0);
	ret |= stream_batch_round(b, 1);
	ret |= stream_batch_add_zero(b, 0, 1);
	ret |= stream_batch_flush(b);
	stream_batch_free(b);
	pages_at = w->offset;
	ret |= stream_test_pages(w, 1);
	round.ends = true;
	round.pages = 4;
	ret |= stream_control_write(w, STREAM_ROUND, 1, &round);
	ret |= stream_digests_write(w, 1, &digest, 1);
	ret |= stream_write(w, STREAM_ALIVE, 0, NULL, 0);
	buf.len = 0;
	stream_item_put_number(&buf, false, "pages", 4);
	ret |= stream_write_bytes(w, STREAM_STATISTICS, 0, buf.data, buf.len);
	buf.len = 0;
	ret |= field_save(&stream_test_desc, &device, &buf);
	ret |= stream_blob_write(w, STREAM_DEVICE, 0, "machine", buf.data, buf.len);
	ret |= stream_test_end(w, pages_at);
	field_buf_free(&buf);
	return ret;
}

/* Parses and checks all of it, in pieces of `piece` bytes (0: at once). The frames, or -errno. */
static inline int64_t stream_test_read(const uint8_t *data, size_t len, size_t piece,
				       struct stream_error *err)
{
	struct stream_parser *p = stream_parser_new();
	struct stream_check *c = stream_check_new();
	struct stream_frame frame;
	size_t at = 0, used;
	int ret = 0;

	while (at < len && ret >= 0) {
		size_t n = piece && piece < len - at ? piece : len - at;

		ret = stream_parse(p, data + at, n, &used, &frame, err);
		at += used;
		if (ret == 1)
			ret = stream_check_frame(c, &frame, err);
	}
	if (ret >= 0)
		ret = stream_parser_finish(p, err);
	if (ret >= 0)
		ret = stream_check_finish(c, err);
	int64_t frames = (int64_t)stream_check_summary(c)->frames;

	stream_parser_free(p);
	stream_check_free(c);
	return ret < 0 ? ret : frames;
}

/* The same, where to read into is the parser's own choice. */
static inline int64_t stream_test_read_into(const uint8_t *data, size_t len, size_t piece)
{
	struct stream_parser *p = stream_parser_new();
	struct stream_frame frame;
	int64_t frames = 0;
	size_t at = 0, n;
	int ret = 0;

	while (at < len && ret >= 0) {
		void *to = stream_parser_space(p, &n, NULL);

		n = n < piece ? n : piece;
		n = n < len - at ? n : len - at;
		if (to)
			memcpy(to, data + at, n);
		at += n;
		ret = stream_parsed(p, n, &frame, NULL);
		frames += ret == 1;
	}
	if (ret >= 0)
		ret = stream_parser_finish(p, NULL);
	stream_parser_free(p);
	return ret < 0 ? ret : frames;
}

/* One frame by itself: whatever comes first. */
static inline int stream_test_one(struct stream_parser *p, const struct field_buf *buf, size_t at,
				  struct stream_frame *frame)
{
	struct stream_error err;
	size_t used;

	stream_parser_seek(p, at);
	return stream_parse(p, buf->data + at, buf->len - at, &used, frame, &err);
}

#endif
