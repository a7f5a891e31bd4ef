/* Frames: pieces of every length, every truncation, every flipped bit, what is refused and skipped.
 */
#include "tests/unit/stream_util.h"

static struct field_buf file;
static struct stream_error err;

enum { FRAMES = 15 };

static void make_file(void)
{
	struct stream_writer w;

	stream_writer_init(&w, 0, stream_put_buf, &file);
	CHECK_EQ(stream_test_file(&w), 0);
	CHECK_EQ(w.sequence, FRAMES);
	CHECK_EQ(w.offset, file.len);
	stream_writer_free(&w);
}

static void test_pieces(void)
{
	uint64_t seed = 3;

	CHECK_EQ(stream_test_read(file.data, file.len, 0, &err), FRAMES);
	for (size_t piece = 1; piece < 200; piece++) {
		CHECK_EQ(stream_test_read(file.data, file.len, piece, &err), FRAMES);
		CHECK_EQ(stream_test_read_into(file.data, file.len, piece), FRAMES);
	}
	for (unsigned i = 0; i < 100; i++) {
		size_t piece = 1 + dev_random(&seed) % 6000;

		CHECK_EQ(stream_test_read(file.data, file.len, piece, &err), FRAMES);
		CHECK_EQ(stream_test_read_into(file.data, file.len, piece), FRAMES);
	}
}

/* A frame that lies whole in what is fed is not copied; one that does not is. */
static void test_in_place(void)
{
	struct stream_parser *p = stream_parser_new();
	struct stream_frame f;
	size_t used;

	CHECK_EQ(stream_parse(p, file.data, file.len, &used, &f, &err), 1);
	CHECK(f.payload == file.data + STREAM_HEADER);
	CHECK_EQ(used, STREAM_HEADER + f.len);
	CHECK_EQ(stream_parse(p, file.data + used, 40, &used, &f, &err), 0);
	CHECK_EQ(used, 40);
	stream_parser_free(p);
}

static void test_truncation(void)
{
	for (size_t len = 0; len < file.len; len++) {
		err.text[0] = 0;
		CHECK_EQ(stream_test_read(file.data, len, 0, &err), -EBADMSG);
		CHECK(err.text[0]);
		CHECK(err.offset <= len);
	}
}

static void test_flips(void)
{
	uint8_t *copy = malloc(file.len);
	unsigned harmless = 0;

	memcpy(copy, file.data, file.len);
	for (size_t bit = 0; bit < file.len * 8; bit++) {
		copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
		err = (struct stream_error){0};
		int64_t ret = stream_test_read(copy, file.len, 0, &err);

		harmless += ret >= 0;
		CHECK(ret >= 0 || (err.text[0] && err.offset <= bit / 8));
		copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	/* There is not one bit that no checksum covers. */
	CHECK_EQ(harmless, 0);
	free(copy);
}

/* A header of any content with right checksums. */
static size_t forge(uint8_t *out, uint8_t type, uint8_t flags, uint32_t sequence, uint32_t len,
		    uint32_t sent, const void *payload, size_t bytes)
{
	memset(out, 0, STREAM_HEADER);
	memcpy(out, "FRY1", 4);
	out[4] = type;
	out[5] = flags;
	put_le(out + 8, len, 4);
	put_le(out + 12, sequence, 4);
	put_le(out + 20, sent, 4);
	put_le(out + 24, crc32c(0, payload, bytes), 4);
	put_le(out + 28, crc32c(0, out, 28), 4);
	if (bytes)
		memcpy(out + STREAM_HEADER, payload, bytes);
	return STREAM_HEADER + bytes;
}

static int feed(struct stream_parser *p, const uint8_t *data, size_t len, struct stream_frame *f)
{
	size_t used;

	return stream_parse(p, data, len, &used, f, &err);
}

static void test_refused(void)
{
	static const struct {
		uint8_t type, flags;
		uint32_t sequence, len, sent;
		int ret;
		const char *text;
	} cases[] = {
		{99, STREAM_MUST, 1, 0, 0, -ENOTSUP, "frame 1 at byte"},
		{99, STREAM_MUST, 1, 0, 0, -ENOTSUP, "99 is needed"},
		{STREAM_ALIVE, 4, 1, 0, 0, -ENOTSUP, "flags 0x4"},
		{STREAM_ALIVE, 0, 2, 0, 0, -EPROTO, "number 2 where 1"},
		{STREAM_ALIVE, 0, 0, 0, 0, -EPROTO, "missing or doubled"},
		{STREAM_ALIVE, 0, 1, 1, 1, -EBADMSG, "limit is 0"},
		{STREAM_HELLO, 1, 1, STREAM_SMALL_MAX + 1, STREAM_SMALL_MAX + 1, -EBADMSG, "limit"},
		{STREAM_PAGES, 1, 1, STREAM_PAYLOAD_MAX + 1, STREAM_PAYLOAD_MAX + 1, -EBADMSG,
		 "limit"},
		{STREAM_PAGES, 1, 1, UINT32_MAX, UINT32_MAX, -EBADMSG, "limit"},
		{99, 0, 1, UINT32_MAX, UINT32_MAX, -EBADMSG, "limit"},
		{STREAM_PAGES, 1, 1, 100, 99, -EBADMSG, "two different lengths"},
		{STREAM_PAGES, 3, 1, 100, 100, -EBADMSG, "compressed"},
		{STREAM_RUN, 3, 1, 100, 50, -EBADMSG, "compressed"},
	};
	struct stream_parser *p = stream_parser_new();
	struct stream_frame f;
	uint8_t bytes[STREAM_HEADER];
	size_t len;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		stream_parser_restart(p, 0);
		CHECK_EQ(feed(p, file.data, file.len, &f), 1);
		len = forge(bytes, cases[i].type, cases[i].flags, cases[i].sequence, cases[i].len,
			    cases[i].sent, NULL, 0);
		CHECK_EQ(feed(p, bytes, len, &f), cases[i].ret);
		CHECK(strstr(err.text, cases[i].text));
		CHECK_EQ(err.frame, 1);
		/* The error stays. */
		CHECK_EQ(feed(p, bytes, len, &f), cases[i].ret);
		CHECK(!stream_parser_space(p, &len, &err));
		CHECK_EQ(stream_parser_finish(p, &err), cases[i].ret);
	}
	stream_parser_restart(p, 0);
	len = forge(bytes, STREAM_ALIVE, 0, 0, 0, 0, NULL, 0);
	CHECK_EQ(feed(p, bytes, len, &f), -EPROTO); /* HELLO is first */
	stream_parser_restart(p, 0);
	CHECK_EQ(feed(p, (const uint8_t *)"#!/bin/sh, and no stream at all.", 32, &f), -EBADMSG);
	CHECK(strstr(err.text, "no ferry stream"));
	stream_parser_free(p);
}

/* A type that is not known and need not be: checked like any other, then the user's to skip. */
static void test_unknown_optional(void)
{
	struct stream_parser *p = stream_parser_new();
	uint8_t bytes[STREAM_HEADER + 8];
	struct stream_frame f;
	size_t len;

	CHECK_EQ(feed(p, file.data, file.len, &f), 1);
	len = forge(bytes, 200, 0, 1, 5, 5, "later", 5);
	CHECK_EQ(feed(p, bytes, len, &f), 1);
	CHECK_EQ(f.type, 200);
	len = forge(bytes, 200, 0, 2, 5, 5, "later", 5);
	bytes[STREAM_HEADER] ^= 1;
	CHECK_EQ(feed(p, bytes, len, &f), -EBADMSG);
	CHECK(strstr(err.text, "payload is damaged"));
	stream_parser_free(p);
}

static void test_writer_bounds(void)
{
	struct field_buf out = {0};
	struct stream_writer w;
	uint8_t *big = calloc(1, STREAM_PAYLOAD_MAX + 1);
	struct iovec many[STREAM_IOV_MAX + 1];

	stream_writer_init(&w, 0, stream_put_buf, &out);
	CHECK_EQ(stream_write_bytes(&w, STREAM_HELLO, 0, big, STREAM_SMALL_MAX + 1), -EMSGSIZE);
	CHECK_EQ(stream_write_bytes(&w, STREAM_PAGES, 0, big, STREAM_PAYLOAD_MAX + 1), -EMSGSIZE);
	for (unsigned i = 0; i <= STREAM_IOV_MAX; i++)
		many[i] = (struct iovec){big, 1};
	CHECK_EQ(stream_write(&w, STREAM_PAGES, 0, many, STREAM_IOV_MAX + 1), -EMSGSIZE);
	CHECK_EQ(out.len, 0);
	CHECK_EQ(stream_write_bytes(&w, STREAM_PAGES, 0, big, STREAM_PAYLOAD_MAX), 0);
	CHECK_EQ(out.len, STREAM_HEADER + STREAM_PAYLOAD_MAX);
	stream_writer_free(&w);
	field_buf_free(&out);
	free(big);
}

/* Sequence numbers are of 32 bits and go on at 0. */
static void test_wrap(void)
{
	struct stream_parser *p = stream_parser_new();
	struct field_buf out = {0};
	struct stream_frame f;
	struct stream_writer w;
	size_t used;

	stream_writer_init(&w, 0, stream_put_buf, &out);
	w.sequence = UINT32_MAX;
	stream_write(&w, STREAM_ALIVE, 0, NULL, 0);
	stream_write(&w, STREAM_ALIVE, 0, NULL, 0);
	stream_parser_seek(p, 0);
	CHECK_EQ(stream_parse(p, out.data, out.len, &used, &f, &err), 1);
	CHECK_EQ(stream_parse(p, out.data + used, out.len - used, &used, &f, &err), 1);
	CHECK_EQ(f.number, 1ULL << 32);
	stream_parser_free(p);
	field_buf_free(&out);
}

static int put_fails(void *opaque, const struct iovec *iov, unsigned count)
{
	(void)opaque, (void)iov, (void)count;
	return -EPIPE;
}

static bool busy;

static bool spare(void *opaque, size_t len)
{
	(void)opaque;
	CHECK(len >= 4096);
	return !busy;
}

static unsigned compressed(struct stream_writer *w, const void *data, unsigned frames)
{
	struct field_buf *out = w->opaque;
	unsigned count = 0;

	for (unsigned i = 0; i < frames; i++) {
		const size_t at = out->len;

		CHECK_EQ(stream_blob_write(w, STREAM_DEVICE, 0, "x", data, 4096), 0);
		count += out->len - at < 4096;
	}
	return count;
}

/* What cannot be compressed is hardly tried, and what can be is found again soon; nothing is where
 * there is no time. */
static void test_zstd_in_vain(void)
{
	struct field_buf out = {0};
	struct stream_writer w;
	uint8_t noise[4096], zero[4096] = {0};
	uint64_t seed = 7;

	for (unsigned i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)dev_random(&seed);
	stream_writer_init(&w, 0, stream_put_buf, &out);
	w.level = 1;
	w.spare = spare;
	CHECK_EQ(compressed(&w, zero, 10), 10);
	CHECK_EQ(compressed(&w, noise, 100), 0);
	CHECK(compressed(&w, zero, 20) >= 20 - 7);
	CHECK_EQ(compressed(&w, zero, 20), 20);
	busy = true;
	CHECK_EQ(compressed(&w, zero, 5), 0);
	busy = false;
	CHECK_EQ(compressed(&w, zero, 5), 5);
	stream_writer_free(&w);
	field_buf_free(&out);
}

static void test_zstd(void)
{
	struct stream_parser *p = stream_parser_new();
	struct field_buf out = {0};
	struct stream_writer w;
	struct stream_frame f;
	uint8_t *data = calloc(1, 1 << 20);
	uint64_t seed = 5;
	size_t used, at;

	stream_writer_init(&w, 0, stream_put_buf, &out);
	w.level = 1;
	/* Compressible: in pieces; then not compressible: sent as it is. */
	CHECK_EQ(stream_blob_write(&w, STREAM_DEVICE, 0, "x", data, 1 << 20), 0);
	CHECK(out.len < 4096);
	at = out.len;
	for (unsigned i = 0; i < 1 << 20; i++)
		data[i] = (uint8_t)dev_random(&seed);
	CHECK_EQ(stream_blob_write(&w, STREAM_DEVICE, 0, "x", data, 1 << 20), 0);
	CHECK(out.len - at > 1 << 20);

	CHECK_EQ(stream_test_one(p, &out, 0, &f), 1);
	CHECK(f.flags & STREAM_ZSTD);
	CHECK_EQ(f.len, (1 << 20) + 18);
	CHECK_EQ(f.sent, at - STREAM_HEADER);
	CHECK(f.payload[f.len - 1] == 0);
	CHECK_EQ(stream_test_one(p, &out, at, &f), 1);
	CHECK(!(f.flags & STREAM_ZSTD));
	CHECK(!memcmp(f.payload + 18, data, 1 << 20));

	/* A right checksum over what is no zstd, and over what is longer or shorter than promised.
	 */
	uint8_t bytes[STREAM_HEADER + 16];
	size_t len = forge(bytes, STREAM_PAGES, 3, 0, 100, 4, "junk", 4);

	stream_parser_seek(p, 0);
	CHECK_EQ(stream_parse(p, bytes, len, &used, &f, &err), -EBADMSG);
	for (int d = -1; d <= 1; d += 2) {
		put_le(out.data + 8, (uint64_t)((1 << 20) + 18 + d), 4);
		put_le(out.data + 28, crc32c(0, out.data, 28), 4);
		stream_parser_seek(p, 0);
		CHECK_EQ(stream_parse(p, out.data, at, &used, &f, &err), -EBADMSG);
		CHECK(strstr(err.text, "decompress"));
	}
	stream_writer_free(&w);
	stream_writer_init(&w, 0, put_fails, NULL);
	CHECK_EQ(stream_write(&w, STREAM_ALIVE, 0, NULL, 0), -EPIPE);
	CHECK_EQ(w.sequence, 0);
	stream_parser_free(p);
	field_buf_free(&out);
	free(data);
}

int main(void)
{
	make_file();
	test_pieces();
	test_in_place();
	test_truncation();
	test_flips();
	test_refused();
	test_unknown_optional();
	test_writer_bounds();
	test_wrap();
	test_zstd();
	test_zstd_in_vain();
	field_buf_free(&file);
	return dev_result("stream parse");
}
