/*
 * The bytes of one frame of each type. A difference here is another format: an older ferry does not
 * read what this one writes. If that is meant, raise STREAM_VERSION, keep the old reader, and add
 * to the old bytes instead of replacing them.
 */
#include "tests/unit/stream_util.h"

static struct field_buf out;
static struct stream_writer w;

static void begin(void)
{
	out.len = 0;
	w.channel = 0x0102;
	w.sequence = 0x03040506;
	w.offset = 0x1000;
}

static void write_hello(void)
{
	struct stream_hello hello;

	stream_test_hello(&hello, STREAM_SOURCE);
	hello.lane = STREAM_LANE_PAGES;
	hello.again = true;
	hello.offers = hello.needs = STREAM_CAN_IMAGES - 1; /* those of the first ferry */
	hello.needs &= STREAM_CAN_POSTCOPY;
	stream_hello_write(&w, &hello);
}

static void write_description(void)
{
	struct field_buf buf = {0};

	stream_item_put_text(&buf, true, "memory", "256M");
	stream_item_put_text(&buf, false, "net", "user,hostfwd=tcp:2222-:22");
	stream_write_bytes(&w, STREAM_DESCRIPTION, 0, buf.data, buf.len);
	field_buf_free(&buf);
}

static void write_image(void)
{
	stream_blob_write(&w, STREAM_IMAGE, 0, "kernel",
			  "\x7f"
			  "ELF",
			  4);
}

static void write_memory(void)
{
	struct stream_memory memory = {0};

	stream_memory_add(&memory, 0, 0xc0000);
	stream_memory_add(&memory, 0x100000, 0x40000);
	stream_memory_write(&w, &memory);
}

static void write_pages(void)
{
	struct stream_batch *b = stream_batch_new(&w, 0);

	stream_batch_round(b, 0x0708090a);
	stream_batch_add_zero(b, 0x10, 0x20);
	stream_batch_add_zero(b, 0x100000, 1);
	stream_batch_flush(b);
	stream_batch_free(b);
}

/* The contents are of one page: only its checksum stands below. */
static void write_contents(void)
{
	uint8_t page[STREAM_PAGE] __attribute__((aligned(8)));
	struct stream_batch *b = stream_batch_new(&w, 0);
	uint32_t crc;

	for (unsigned i = 0; i < STREAM_PAGE; i++)
		page[i] = (uint8_t)(i ^ i >> 8);
	stream_batch_add(b, 5, page, true);
	stream_batch_add(b, 6, page, true);
	stream_batch_flush(b);
	stream_batch_free(b);
	CHECK_EQ(out.len, STREAM_HEADER + 24 + 2 * STREAM_PAGE);
	crc = crc32c(0, out.data, out.len);
	out.len = STREAM_HEADER + 24;
	uint8_t tail[4];

	put_le(tail, crc, 4);
	field_buf_append(&out, tail, 4);
}

static void write_digests(void)
{
	uint64_t digests[2] = {0xe3069283, 1};

	stream_digests_write(&w, 7, digests, 2);
}

static void write_device(void)
{
	struct stream_test_device device = {.reg = 7, .count = 9};
	struct field_buf buf = {0};

	field_save(&stream_test_desc, &device, &buf);
	stream_blob_write(&w, STREAM_DEVICE, 0, "machine", buf.data, buf.len);
	field_buf_free(&buf);
}

static void write_request(void)
{
	struct stream_request requests[2] = {{0x1234, 1, STREAM_REQUEST_WAITING}, {0x2000, 16, 0}};

	stream_request_write(&w, requests, 2);
}

static void write_received(void)
{
	struct stream_received received = {64, 10, true, (const uint8_t *)"\xff\x02"};

	stream_received_write(&w, &received);
}

static void write_statistics(void)
{
	struct field_buf buf = {0};

	stream_item_put_number(&buf, false, "dirty-rate", 123456);
	stream_write_bytes(&w, STREAM_STATISTICS, 0, buf.data, buf.len);
	field_buf_free(&buf);
}

static void write_alive(void)
{
	stream_write(&w, STREAM_ALIVE, 0, NULL, 0);
}

static void write_index(void)
{
	uint64_t offsets[2] = {0, 0x123456789a};

	stream_index_write(&w, 0x40, offsets, 2);
}

static void write_directory(void)
{
	struct stream_entry entry = {0x40, 2, 0x55};

	stream_directory_write(&w, &entry, 1);
}

static void write_end(void)
{
	struct stream_end end = {.directory = 0x66, .pages = 1, .zero = 2};

	stream_end_write(&w, &end);
}

#define CONTROL(type, object)                                                                      \
	static void write_##object(void)                                                           \
	{                                                                                          \
		stream_control_write(&w, type, 1, &object);                                        \
	}
static struct stream_accept accept_ = {.lanes = 4};
static struct stream_accept accept_images_ = {.images = {0xe3, 0xb0, [31] = 0x55}};
static struct stream_round round_ = {STREAM_POSTCOPY, true, 0x1234};
static struct stream_ready ready_ = {0x1122334455667788, 99, 0xe3069283};
static struct stream_run run_ = {0x1122334455667788, true, 12, 1700000000000000000, 5000000};
static struct stream_ack ack_ = {0x1122334455667788, 1700000000100000000};
static struct stream_resume resume_ = {STREAM_STAGE_RUNNING, 0x1122334455667788, 99, 3};
static struct stream_cancel cancel_ = {"by its user"};
static struct stream_failure failure_ = {STREAM_REFUSED, "too little memory"};
CONTROL(STREAM_ACCEPT, accept_)
CONTROL(STREAM_ACCEPT, accept_images_)
CONTROL(STREAM_ROUND, round_)
CONTROL(STREAM_READY, ready_)
CONTROL(STREAM_RUN, run_)
CONTROL(STREAM_ACK, ack_)
CONTROL(STREAM_RESUME, resume_)
CONTROL(STREAM_CANCEL, cancel_)
CONTROL(STREAM_FAILURE, failure_)

static const struct {
	const char *name;
	void (*write)(void);
	const char *bytes;
} golden[] = {
#include "tests/unit/stream_golden.inc"
};

static void compare(unsigned i)
{
	const char *want = golden[i].bytes;
	size_t n = strlen(want) / 2;
	bool same = n == out.len;

	for (size_t k = 0; same && k < n; k++) {
		unsigned byte;

		sscanf(want + k * 2, "%2x", &byte);
		same = byte == out.data[k];
	}
	CHECK(same);
	if (same)
		return;
	printf("%s is now:\n", golden[i].name);
	for (size_t k = 0; k < out.len; k++)
		printf("%02x", out.data[k]);
	printf("\n");
}

int main(void)
{
	bool seen[STREAM_TYPES] = {false};

	stream_writer_init(&w, 0, stream_put_buf, &out);
	for (unsigned i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
		begin();
		golden[i].write();
		CHECK(out.len >= STREAM_HEADER);
		seen[out.data[4]] = true;
		compare(i);
	}
	/* None is left out. */
	for (unsigned t = 1; t < STREAM_TYPES; t++)
		CHECK(seen[t]);
	stream_writer_free(&w);
	field_buf_free(&out);
	return dev_result("stream golden");
}
