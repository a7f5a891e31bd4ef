/* Regions, page frames, requests, bitmaps, digests; blobs; index and directory. */
#include "tests/unit/stream_util.h"

static struct stream_error err;
static struct field_buf out;
static struct stream_parser *parser;
static struct stream_writer w;
static struct stream_memory mem;
static uint8_t ram[600][STREAM_PAGE] __attribute__((aligned(4096)));

/* The last frame that was written. */
static struct stream_frame written(size_t at)
{
	struct stream_frame f = {0};

	CHECK_EQ(stream_test_one(parser, &out, at, &f), 1);
	return f;
}

static void test_regions(void)
{
	struct stream_memory m = {0}, got;
	struct stream_frame f;

	CHECK_EQ(stream_memory_add(&m, 0, 10), 0);
	CHECK_EQ(stream_memory_add(&m, 9, 10), -EINVAL);
	CHECK_EQ(stream_memory_add(&m, 100, 0), -EINVAL);
	CHECK_EQ(stream_memory_add(&m, STREAM_PAGE_NUMBER_MAX, 1), -EINVAL);
	CHECK_EQ(stream_memory_add(&m, STREAM_PAGE_NUMBER_MAX - 1, 2), -EINVAL);
	CHECK_EQ(stream_memory_add(&m, 100, UINT64_MAX), -EINVAL);
	CHECK_EQ(stream_memory_add(&m, 100, 5), 0);
	CHECK_EQ(m.pages, 15);
	CHECK(stream_memory_has(&m, 0, 10) && !stream_memory_has(&m, 0, 11) &&
	      !stream_memory_has(&m, 10, 1) && stream_memory_has(&m, 104, 1) &&
	      !stream_memory_has(&m, 104, UINT64_MAX) && !stream_memory_has(&m, 99, 2));
	CHECK_EQ(stream_memory_index(&m, 9), 9);
	CHECK_EQ(stream_memory_index(&m, 102), 12);
	CHECK_EQ(stream_memory_page(&m, 9), 9);
	CHECK_EQ(stream_memory_page(&m, 12), 102);
	out.len = 0;
	CHECK_EQ(stream_memory_write(&w, &m), 0);
	f = written(0);
	CHECK_EQ(stream_memory_read(&f, &got, &err), 0);
	CHECK(got.count == 2 && got.pages == 15 && got.region[1].first == 100);
	f.len--;
	CHECK_EQ(stream_memory_read(&f, &got, &err), -EBADMSG);
	for (unsigned i = 2; i < STREAM_REGIONS_MAX; i++)
		CHECK_EQ(stream_memory_add(&m, i * 100, 1), 0);
	CHECK_EQ(stream_memory_add(&m, 99999, 1), -EINVAL);
}

/* Every page that was added comes out with its contents, whatever the order and the limits. */
static void batch_round_trip(unsigned limit, bool live, uint64_t seed)
{
	static uint8_t got[600][STREAM_PAGE];
	struct stream_batch *b = stream_batch_new(&w, limit);
	struct stream_pages pages;
	struct stream_pages_run run;
	uint8_t expect[600] = {0}; /* 1 contents, 2 zero */
	size_t at = 0;

	out.len = 0;
	w.sequence = w.offset = 0;
	memset(got, 0x55, sizeof(got));
	CHECK_EQ(stream_batch_round(b, 9), 0);
	for (unsigned i = 0; i < 900; i++) {
		uint64_t page = dev_random(&seed) % 3 ? i % 600 : dev_random(&seed) % 600;
		int ret;

		if (expect[page])
			continue;
		ret = stream_batch_add(b, page, ram[page], live);
		CHECK_EQ(ret, page % 7 < 2);
		expect[page] = ret ? 2 : 1;
	}
	CHECK_EQ(stream_batch_flush(b), 0);
	CHECK_EQ(stream_batch_flush(b), 0); /* nothing left: no empty frame */
	while (at < out.len) {
		struct stream_frame f = written(at);

		CHECK_EQ(f.round, 9);
		CHECK_EQ(stream_pages_read(&f, &mem, &pages, &err), 0);
		CHECK(pages.contents <= (limit ? limit : STREAM_PAGES_MAX));
		while (stream_pages_next(&pages, &run)) {
			for (uint32_t i = 0; i < run.count; i++) {
				uint64_t n = run.first + i;

				CHECK_EQ(expect[n], run.data ? 1 : 2);
				expect[n] = 0;
				if (run.data)
					memcpy(got[n], run.data + i * STREAM_PAGE, STREAM_PAGE);
				else
					memset(got[n], 0, STREAM_PAGE);
				CHECK(!memcmp(got[n], ram[n], STREAM_PAGE));
			}
		}
		at = f.offset + STREAM_HEADER + f.sent;
	}
	for (unsigned i = 0; i < 600; i++)
		CHECK_EQ(expect[i], 0);
	stream_batch_free(b);
}

static void test_batch(void)
{
	struct stream_batch *b;
	struct stream_frame f;
	struct stream_pages pages;
	uint8_t page[STREAM_PAGE] __attribute__((aligned(8)));

	for (unsigned i = 0; i < 600; i++) {
		if (i % 7 >= 2)
			stream_test_page(ram[i], i);
	}
	ram[3][STREAM_PAGE - 1] = 1;
	for (int live = 0; live < 2; live++) {
		batch_round_trip(0, live, 1);
		batch_round_trip(1, live, 2);
		batch_round_trip(16, live, 3);
	}
	w.level = 1;
	batch_round_trip(64, true, 4);
	w.level = 0;
	/* A live page changes after it was added: what is sent is what was there. */
	out.len = 0;
	b = stream_batch_new(&w, 4);
	stream_test_page(page, 77);
	CHECK_EQ(stream_batch_add(b, 1, page, true), 0);
	page[0] ^= 1;
	CHECK_EQ(stream_batch_flush(b), 0);
	f = written(0);
	CHECK_EQ(stream_pages_read(&f, &mem, &pages, &err), 0);
	CHECK_EQ(pages.data[0], page[0] ^ 1);
	/* All of a large memory is zero: one run. */
	out.len = 0;
	CHECK_EQ(stream_batch_add_zero(b, 0, 1000), 0);
	CHECK_EQ(stream_batch_flush(b), 0);
	CHECK_EQ(out.len, STREAM_HEADER + 8 + 16);
	stream_batch_free(b);
}

static void test_pages_hostile(void)
{
	static const struct {
		uint32_t runs, contents;
		struct {
			uint64_t first;
			uint32_t count, kind;
		} run[2];
		int ret;
	} cases[] = {
		{1, 1, {{0, 1, 1}}, 0},
		{2, 1, {{0, 1, 1}, {1, 999, 2}}, 0},
		{0, 0, {{0, 0, 0}}, -EBADMSG},
		{1, 1, {{0, 0, 1}}, -EBADMSG},		   /* no page */
		{1, 1, {{0, 2, 1}}, -EBADMSG},		   /* more than there are contents */
		{1, 1, {{0, 1, 2}}, -EBADMSG},		   /* fewer */
		{1, 1, {{0, 1, 3}}, -ENOTSUP},		   /* kind */
		{1, 1, {{1000, 1, 1}}, -EBADMSG},	   /* outside */
		{1, 0, {{999, 2, 2}}, -EBADMSG},	   /* partly */
		{1, 0, {{UINT64_MAX, 2, 2}}, -EBADMSG},	   /* wraps */
		{1, 0, {{0, UINT32_MAX, 2}}, -EBADMSG},	   /* beyond */
		{2, 2, {{1, 1, 1}, {0, 1, 1}}, -EBADMSG},  /* descends */
		{2, 2, {{1, 1, 1}, {1, 1, 1}}, -EBADMSG},  /* twice */
		{2, 1, {{0, 10, 2}, {5, 1, 1}}, -EBADMSG}, /* overlap */
	};
	static uint8_t payload[8 + 32 + 2 * STREAM_PAGE];
	struct stream_pages pages;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_frame f = {.type = STREAM_PAGES, .payload = payload};

		put_le(payload, cases[i].runs, 4);
		put_le(payload + 4, cases[i].contents, 4);
		for (unsigned r = 0; r < cases[i].runs; r++) {
			put_le(payload + 8 + r * 16, cases[i].run[r].first, 8);
			put_le(payload + 16 + r * 16, cases[i].run[r].count, 4);
			put_le(payload + 20 + r * 16, cases[i].run[r].kind, 4);
		}
		f.len = 8 + cases[i].runs * 16 + cases[i].contents * STREAM_PAGE;
		CHECK_EQ(stream_pages_read(&f, &mem, &pages, &err), cases[i].ret);
		f.len--;
		CHECK_EQ(stream_pages_read(&f, &mem, &pages, &err), -EBADMSG);
	}
}

static void test_requests(void)
{
	struct stream_request r[2] = {{5, 1, STREAM_REQUEST_WAITING}, {8, 16, 0}},
			      got[STREAM_REQUESTS_MAX];
	struct stream_frame f;

	out.len = 0;
	CHECK_EQ(stream_request_write(&w, r, 0), -EINVAL);
	CHECK_EQ(stream_request_write(&w, r, STREAM_REQUESTS_MAX + 1), -EINVAL);
	CHECK_EQ(stream_request_write(&w, r, 2), 0);
	f = written(0);
	CHECK_EQ(stream_request_read(&f, &mem, got, &err), 2);
	CHECK(got[0].first == 5 && got[0].flags == 1 && got[1].count == 16);
	r[1].first = 990;
	out.len = 0;
	stream_request_write(&w, r, 2);
	f = written(0);
	CHECK_EQ(stream_request_read(&f, &mem, got, &err), -EBADMSG);
	r[1].first = 0, r[1].flags = 2;
	out.len = 0;
	stream_request_write(&w, r, 2);
	f = written(0);
	CHECK_EQ(stream_request_read(&f, &mem, got, &err), -EBADMSG);
}

static void test_received(void)
{
	uint8_t bits[3] = {0xff, 0x01, 0x03};
	struct stream_received r = {976, 18, true, bits}, got;
	struct stream_frame f;

	out.len = 0;
	CHECK_EQ(stream_received_write(&w, &r), 0);
	f = written(0);
	CHECK_EQ(stream_received_read(&f, &mem, &got, &err), 0);
	CHECK(got.first == 976 && got.count == 18 && got.last && !memcmp(got.bits, bits, 3));
	bits[2] = 4; /* a nineteenth */
	out.len = 0;
	CHECK_EQ(stream_received_write(&w, &r), 0);
	f = written(0);
	CHECK_EQ(stream_received_read(&f, &mem, &got, &err), -EBADMSG);
	r.first = 983, bits[2] = 0; /* page 1000 */
	out.len = 0;
	CHECK_EQ(stream_received_write(&w, &r), 0);
	f = written(0);
	CHECK_EQ(stream_received_read(&f, &mem, &got, &err), -EBADMSG);
	r.count = STREAM_RECEIVED_MAX + 1;
	CHECK_EQ(stream_received_write(&w, &r), -EINVAL);
}

static void test_digests(void)
{
	uint64_t values[2] = {1, UINT64_MAX};
	struct stream_digests got;
	struct stream_frame f;

	out.len = 0;
	CHECK_EQ(stream_digests_write(&w, 998, values, 2), 0);
	f = written(0);
	CHECK_EQ(stream_digests_read(&f, &mem, &got, &err), 0);
	CHECK(got.first == 998 && stream_digest(&got, 1) == UINT64_MAX);
	out.len = 0;
	CHECK_EQ(stream_digests_write(&w, 999, values, 2), 0);
	f = written(0);
	CHECK_EQ(stream_digests_read(&f, &mem, &got, &err), -EBADMSG);
}

static void test_blob(void)
{
	static uint8_t data[(2 << 20) + 5];
	struct stream_blob blob = {0};
	struct stream_frame f;
	size_t at = 0;
	int ret = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	out.len = 0;
	w.offset = w.sequence = 0;
	CHECK_EQ(stream_blob_write(&w, STREAM_IMAGE, 0, "initrd", data, sizeof(data)), 0);
	CHECK_EQ(w.sequence, 3);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(ret, 0);
		f = written(at);
		ret = stream_blob_take(&blob, &f, sizeof(data), &err);
		if (i == 1)
			CHECK_EQ(stream_blob_take(&blob, &f, sizeof(data), &err), -EBADMSG);
		at = f.offset + STREAM_HEADER + f.sent;
	}
	CHECK_EQ(ret, 1);
	CHECK(blob.whole && blob.bytes.len == sizeof(data) &&
	      !memcmp(blob.bytes.data, data, sizeof(data)) && !strcmp(blob.name, "initrd"));
	CHECK_EQ(stream_blob_take(&blob, &f, sizeof(data), &err), -EBADMSG);
	stream_blob_free(&blob);
	CHECK_EQ(stream_blob_take(&blob, &f, sizeof(data), &err),
		 -EBADMSG); /* begins in the middle */
	stream_blob_free(&blob);
	f = written(0);
	CHECK_EQ(stream_blob_take(&blob, &f, sizeof(data) - 1, &err), -EBADMSG);
	CHECK(strstr(err.text, "limit"));
	stream_blob_free(&blob);
	/* Nothing at all is one piece. */
	out.len = 0;
	CHECK_EQ(stream_blob_write(&w, STREAM_IMAGE, 0, "initrd", NULL, 0), 0);
	f = written(0);
	CHECK_EQ(stream_blob_take(&blob, &f, 10, &err), 1);
	stream_blob_free(&blob);
}

static void test_index(void)
{
	uint64_t offsets[3] = {0, 64, 100};
	struct stream_entry entries[2] = {{0, 3, 200}, {4096, 4096, 300}};
	struct stream_index index;
	struct stream_directory directory;
	struct stream_end end = {.directory = 10, .pages = 1, .zero = 2}, got;
	struct stream_frame f;

	out.len = 0;
	CHECK_EQ(stream_index_write(&w, 0, offsets, 3), 0);
	f = written(0);
	CHECK_EQ(stream_index_read(&f, &index, &err), -EBADMSG); /* behind itself */
	f.offset = 101;
	CHECK_EQ(stream_index_read(&f, &index, &err), 0);
	CHECK(index.count == 3 && stream_index_offset(&index, 2) == 100);
	CHECK_EQ(stream_index_write(&w, 0, offsets, STREAM_INDEX_MAX + 1), -EINVAL);
	out.len = 0;
	CHECK_EQ(stream_directory_write(&w, entries, 2), 0);
	f = written(0);
	f.offset = 301;
	CHECK_EQ(stream_directory_read(&f, &directory, &err), 0);
	CHECK(directory.count == 2 && stream_directory_entry(&directory, 1).offset == 300);
	f.offset = 300;
	CHECK_EQ(stream_directory_read(&f, &directory, &err), -EBADMSG);
	entries[1].first = 2;
	out.len = 0;
	CHECK_EQ(stream_directory_write(&w, entries, 2), 0);
	f = written(0);
	f.offset = 1000;
	CHECK_EQ(stream_directory_read(&f, &directory, &err), -EBADMSG);
	out.len = 0;
	w.sequence = w.offset = 50;
	CHECK_EQ(stream_end_write(&w, &end), 0);
	/* The size of the last frame is known: this is how a file is opened at its end. */
	CHECK_EQ(out.len, STREAM_HEADER + STREAM_END_SIZE);
	f = written(0);
	f.offset = 50;
	CHECK_EQ(stream_end_read(&f, &got, &err), 0);
	CHECK(got.directory == 10 && got.frames == 50 && got.bytes == 50 && got.zero == 2);
	f.offset = 10;
	CHECK_EQ(stream_end_read(&f, &got, &err), -EBADMSG);
}

int main(void)
{
	parser = stream_parser_new();
	stream_writer_init(&w, 0, stream_put_buf, &out);
	stream_memory_add(&mem, 0, 1000);
	test_regions();
	test_batch();
	test_pages_hostile();
	test_requests();
	test_received();
	test_digests();
	test_blob();
	test_index();
	stream_writer_free(&w);
	stream_parser_free(parser);
	field_buf_free(&out);
	return dev_result("stream memory");
}
