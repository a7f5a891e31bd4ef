/* What a stream as a whole must be: the order of frames, completeness, the index. */
#include "tests/unit/stream_util.h"

static struct stream_error err;
static struct field_buf out;
static struct stream_writer w;
static uint32_t offers; /* beside the usual ones */

static void begin(uint32_t role, uint16_t channel, bool again)
{
	struct stream_hello hello;

	out.len = 0;
	stream_writer_init(&w, channel, stream_put_buf, &out);
	stream_test_hello(&hello, role);
	hello.channel = channel;
	hello.lane = channel ? STREAM_LANE_PAGES : STREAM_LANE_MAIN;
	hello.again = again;
	hello.offers |= offers;
	CHECK_EQ(stream_hello_write(&w, &hello), 0);
}

static void describe(void)
{
	struct field_buf buf = {0};

	stream_item_put_text(&buf, true, "memory", "16K");
	stream_write_bytes(&w, STREAM_DESCRIPTION, 0, buf.data, buf.len);
	field_buf_free(&buf);
}

static void memory(void)
{
	struct stream_memory m = {0};

	stream_memory_add(&m, 0, 4);
	stream_memory_write(&w, &m);
}

static void zero(uint64_t first, uint32_t count, uint32_t round)
{
	struct stream_batch *b = stream_batch_new(&w, 0);

	stream_batch_round(b, round);
	stream_batch_add_zero(b, first, count);
	stream_batch_flush(b);
	stream_batch_free(b);
}

static void device(void)
{
	struct stream_test_device d = {.reg = 7};
	struct field_buf buf = {0};

	field_save(&stream_test_desc, &d, &buf);
	field_save(&stream_test_desc, &d, &buf);
	stream_blob_write(&w, STREAM_DEVICE, 0, "machine", buf.data, buf.len);
	field_buf_free(&buf);
}

static void end(uint64_t pages, uint64_t zeros)
{
	struct stream_end e = {.pages = pages, .zero = zeros};

	stream_end_write(&w, &e);
}

static void expect(int line, int want, const char *words)
{
	int64_t ret;

	err.text[0] = 0;
	ret = stream_test_read(out.data, out.len, 0, &err);
	CHECK_EQ(ret < 0 ? ret : 0, want);
	CHECK(strstr(err.text, words));
	if ((ret < 0 ? ret : 0) != want || !strstr(err.text, words))
		printf("  line %d: %s\n", line, err.text);
}
#define EXPECT(want, words) expect(__LINE__, want, words)

static void test_order(void)
{
	struct stream_round round = {.phase = STREAM_PRECOPY};

	begin(STREAM_FILE, 0, false);
	describe(), memory(), zero(0, 4, 1), device(), end(0, 4);
	EXPECT(0, "");
	zero(0, 1, 1);
	EXPECT(-EPROTO, "may not come here");

	begin(STREAM_FILE, 0, false);
	memory();
	EXPECT(-EPROTO, "MEMORY");
	begin(STREAM_FILE, 0, false);
	describe(), describe();
	EXPECT(-EPROTO, "frame 2 (DESCRIPTION)");
	begin(STREAM_FILE, 0, false);
	describe(), zero(0, 4, 1);
	EXPECT(-EPROTO, "PAGES");
	begin(STREAM_FILE, 0, false);
	describe(), memory(), memory();
	EXPECT(-EPROTO, "MEMORY");
	begin(STREAM_FILE, 0, false);
	describe(), memory();
	stream_blob_write(&w, STREAM_IMAGE, 0, "kernel", "x", 1);
	EXPECT(-EPROTO, "IMAGE");
	/* A source that offers it may send them late, but not behind a round's beginning. */
	begin(STREAM_SOURCE, 0, false);
	describe(), memory();
	stream_blob_write(&w, STREAM_IMAGE, 0, "kernel", "x", 1);
	EXPECT(-EPROTO, "IMAGE");
	offers = STREAM_CAN_IMAGES;
	begin(STREAM_SOURCE, 0, false);
	describe(), memory();
	stream_blob_write(&w, STREAM_IMAGE, 0, "kernel", "x", 1);
	EXPECT(0, "");
	stream_control_write(&w, STREAM_ROUND, 1, &round);
	stream_blob_write(&w, STREAM_IMAGE, 0, "initrd", "x", 1);
	EXPECT(-EPROTO, "IMAGE");
	begin(STREAM_SOURCE, 0, false);
	describe(), memory();
	stream_write_bytes(&w, STREAM_IMAGE, 0, "\1k\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0xx", 20);
	stream_control_write(&w, STREAM_ROUND, 1, &round);
	EXPECT(-EPROTO, "the image k is not whole");
	offers = 0;
	begin(STREAM_FILE, 0, false);
	describe(), memory();
	struct stream_hello hello;

	stream_test_hello(&hello, STREAM_FILE);
	stream_hello_write(&w, &hello);
	EXPECT(-EPROTO, "HELLO");
}

static void test_completeness(void)
{
	begin(STREAM_FILE, 0, false);
	describe(), memory(), zero(0, 3, 1), device(), end(0, 3);
	EXPECT(-EBADMSG, "1 of 4 pages were never sent");
	begin(STREAM_FILE, 0, false);
	describe(), memory(), zero(0, 4, 1), end(0, 4);
	EXPECT(-EBADMSG, "no device state");
	begin(STREAM_FILE, 0, false);
	describe(), memory(), zero(0, 4, 1), device();
	EXPECT(-EBADMSG, "without END");
	begin(STREAM_FILE, 0, false);
	describe(), memory(), zero(0, 4, 1), device(), end(1, 3);
	EXPECT(-EBADMSG, "does not say what has come");
	begin(STREAM_FILE, 0, false);
	describe(), memory(), zero(0, 4, 2), zero(0, 1, 1);
	EXPECT(-EPROTO, "round 1 after round 2");
	out.len = 0;
	EXPECT(-EBADMSG, "empty");
	/* The pages that another stream still lacks: no state, not all pages, but an end. */
	begin(STREAM_FILE, 0, true);
	zero(1, 2, 7);
	EXPECT(-EBADMSG, "without END");
	end(0, 2);
	EXPECT(0, "");
	/* Half an image. */
	begin(STREAM_FILE, 0, false);
	describe();
	stream_write_bytes(&w, STREAM_IMAGE, 0, "\1k\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0xx", 20);
	memory();
	EXPECT(-EPROTO, "the image k is not whole");
	/* A state that is none, with right checksums. */
	begin(STREAM_FILE, 0, false);
	describe(), memory();
	stream_blob_write(&w, STREAM_DEVICE, 0, "machine", "\5clock\1\0\1\0\0\0x", 13);
	EXPECT(-EBADMSG, "(clock) is malformed");
}

static void test_rounds(void)
{
	struct stream_round r = {.phase = STREAM_PRECOPY, .ends = true, .pages = 4};

	begin(STREAM_SOURCE, 0, false);
	describe(), memory(), zero(0, 2, 1), zero(2, 2, 1);
	stream_control_write(&w, STREAM_ROUND, 1, &r);
	EXPECT(0, "");
	r.pages = 3;
	stream_control_write(&w, STREAM_ROUND, 1, &r);
	EXPECT(-EPROTO, "ends with 3 pages, 4 have come");
	begin(STREAM_SOURCE, 0, false);
	describe(), memory(), zero(0, 2, 3);
	r.pages = 0;
	stream_control_write(&w, STREAM_ROUND, 2, &r);
	EXPECT(-EPROTO, "round 2 after round 3");
}

/* Other connections, later ones, the way back; who says what. */
static void test_directions(void)
{
	struct stream_ready ready = {.ticket = 1};
	struct stream_run run = {.ticket = 1};
	struct stream_request request = {1000, 1, STREAM_REQUEST_WAITING};

	begin(STREAM_SOURCE, 2, false);
	zero(1000, 4, 1);
	EXPECT(0, "");
	begin(STREAM_SOURCE, 0, true);
	stream_control_write(&w, STREAM_RUN, 0, &run);
	EXPECT(0, "");
	stream_control_write(&w, STREAM_READY, 0, &ready);
	EXPECT(-EPROTO, "the source does not say that");
	begin(STREAM_DESTINATION, 0, false);
	stream_control_write(&w, STREAM_READY, 0, &ready);
	stream_request_write(&w, &request, 1);
	EXPECT(0, "");
	stream_control_write(&w, STREAM_RUN, 0, &run);
	EXPECT(-EPROTO, "the destination does not say that");
	begin(STREAM_SOURCE, 2, false);
	w.channel = 1;
	zero(0, 4, 1);
	EXPECT(-EPROTO, "channel 1 on the connection of channel 2");
}

static void test_index(void)
{
	uint64_t offsets[4] = {0}, pages_at;
	struct stream_entry entry = {0, 4, 0};
	struct stream_end e = {.pages = 1, .zero = 4};

	for (int wrong = 0; wrong < 5; wrong++) {
		begin(STREAM_FILE, 0, false);
		describe(), memory(), zero(0, 2, 1);
		pages_at = w.offset;
		stream_test_pages(&w, 2); /* page 1 again, 2 and 3 */
		device();
		offsets[1] = pages_at;
		offsets[2] = wrong == 1 ? pages_at : 0;
		entry.offset = w.offset + (wrong == 2);
		stream_index_write(&w, 0, offsets, 4);
		e.directory = w.offset + (wrong == 3);
		if (wrong != 4)
			stream_directory_write(&w, &entry, 1);
		stream_end_write(&w, &e);
		static const char *const words[] = {"", "newest contents are elsewhere",
						    "not that of the INDEX", "does not say",
						    "directory"};
		static const int rets[] = {0, -EBADMSG, -EBADMSG, -EBADMSG, -EBADMSG};

		EXPECT(rets[wrong], words[wrong]);
	}
}

static void test_summary(void)
{
	struct stream_parser *p = stream_parser_new();
	struct stream_check *c = stream_check_new();
	const struct stream_summary *s = stream_check_summary(c);
	struct stream_frame f;
	size_t at = 0, used;

	out.len = 0;
	stream_writer_init(&w, 0, stream_put_buf, &out);
	stream_test_file(&w);
	for (; at < out.len; at += used) {
		CHECK_EQ(stream_parse(p, out.data + at, out.len - at, &used, &f, &err), 1);
		CHECK_EQ(stream_check_frame(c, &f, &err), 0);
	}
	CHECK_EQ(stream_check_finish(c, &err), 0);
	CHECK(s->ended && s->counted && !s->missing);
	CHECK_EQ(s->bytes, out.len);
	CHECK_EQ(s->contents, 1);
	CHECK_EQ(s->zero, 3);
	CHECK_EQ(s->rounds, 1);
	CHECK_EQ(s->round[0].count.frames, 2);
	CHECK(s->images == 1 && !strcmp(s->image[0].name, "kernel") && s->image[0].bytes == 6);
	CHECK(s->states == 1 && !strcmp(s->state[0].head.name, "device"));
	CHECK_EQ(s->type[STREAM_PAGES].frames, 2);
	CHECK_EQ(s->memory.pages, 4);
	stream_check_free(c);
	stream_parser_free(p);
}

int main(void)
{
	test_order();
	test_completeness();
	test_rounds();
	test_directions();
	test_index();
	test_summary();
	field_buf_free(&out);
	return dev_result("stream check");
}
