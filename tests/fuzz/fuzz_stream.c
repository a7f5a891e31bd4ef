/*
 * Hostile streams. A byte that is changed at random is found by a checksum and gets no further, so
 * an input is a programme: frames with right checksums around payloads of any content, now and then
 * damaged. Whatever comes, every piece-wise reading must end the same.
 *
 *   frame := u8 type, u8 flags, u8 channel, u8 round, u8 pages of filler, u16 length, payload
 *   flags: 1 MUST, 2 ZSTD, 4 sequence as it is, 8 a bit flipped, 16 compressed for real
 */
#include <zstd.h>

#include "migration/arrive.h"
#include "tests/fuzz/fuzz_util.h"
#include "tests/unit/stream_util.h"

enum { STREAM_LIMIT = 1 << 20 };

static void add_frame(struct field_buf *out, uint32_t *sequence, struct input *in)
{
	uint8_t type = (uint8_t)take_bytes(in, 1), flags = (uint8_t)take_bytes(in, 1);
	uint8_t channel = (uint8_t)take_bytes(in, 1), round = (uint8_t)take_bytes(in, 1);
	size_t filler = take_bytes(in, 1) % 8 * STREAM_PAGE, n = take_bytes(in, 2);
	uint8_t head[STREAM_HEADER] = {0};
	struct field_buf payload = {0};
	size_t len, start = out->len;
	uint8_t *zeros = calloc(1, filler + 1);

	n = n < in->left ? n : in->left;
	must(!field_buf_append(&payload, in->p, n) && !field_buf_append(&payload, zeros, filler));
	free(zeros);
	in->p += n;
	in->left -= n;
	len = payload.len;
	if (flags & 16 && len) {
		size_t bound = ZSTD_compressBound(len);
		void *packed = malloc(bound);

		payload.len = ZSTD_compress(packed, bound, payload.data, len, 1);
		must(payload.len <= bound);
		payload.len = payload.len < len ? payload.len : len;
		memcpy(payload.data, packed, payload.len);
		free(packed);
	}
	put_le(head, STREAM_MAGIC, 4);
	head[4] = type;
	head[5] = flags & 3;
	head[6] = channel;
	put_le(head + 8, len, 4);
	put_le(head + 12, flags & 4 ? channel : *sequence, 4);
	head[16] = round;
	put_le(head + 20, payload.len, 4);
	put_le(head + 24, crc32c(0, payload.data, payload.len), 4);
	put_le(head + 28, crc32c(0, head, 28), 4);
	must(!field_buf_append(out, head, sizeof(head)) &&
	     !field_buf_append(out, payload.data, payload.len));
	if (flags & 8)
		out->data[start + take_bytes(in, 2) % (out->len - start)] ^= 1;
	field_buf_free(&payload);
	++*sequence;
}

/* What is read is touched: the sanitizer sees whether it lies where it may. */
static uint32_t touch(const struct stream_frame *f, const struct stream_memory *memory)
{
	struct stream_pages pages;
	struct stream_pages_run run;
	struct stream_error err;
	uint64_t n = 0;
	uint32_t sum = crc32c(0, f->payload, f->len);

	if (f->type != STREAM_PAGES || stream_pages_read(f, memory, &pages, &err))
		return sum;
	while (stream_pages_next(&pages, &run)) {
		must(stream_memory_has(memory, run.first, run.count));
		if (run.data)
			sum = crc32c(sum, run.data, (size_t)run.count * STREAM_PAGE);
		n += run.count;
	}
	must(n == pages.total);
	return sum;
}

struct outcome {
	int ret;
	uint32_t sum;
	uint64_t frames;
};

static struct outcome read_stream(const uint8_t *data, size_t len, size_t piece)
{
	struct stream_parser *p = stream_parser_new();
	struct stream_check *c = stream_check_new();
	struct stream_error err = {0};
	struct outcome o = {0};
	struct stream_frame f;
	size_t at = 0, used;

	must(p && c);
	while (at < len && o.ret >= 0) {
		size_t n = len - at < piece ? len - at : piece;
		uint8_t *copy = malloc(n); /* of its own size */

		memcpy(copy, data + at, n);
		o.ret = stream_parse(p, copy, n, &used, &f, &err);
		must(used <= n && (o.ret == 1 || o.ret < 0 || used == n));
		at += used;
		if (o.ret == 1) {
			o.sum ^= touch(&f, &stream_check_summary(c)->memory);
			o.frames++;
			o.ret = stream_check_frame(c, &f, &err);
		}
		free(copy);
	}
	if (o.ret >= 0)
		o.ret = stream_parser_finish(p, &err);
	if (o.ret >= 0)
		o.ret = stream_check_finish(c, &err);
	must(o.ret >= 0 || (err.text[0] && err.offset <= len));
	must(memchr(err.text, 0, sizeof(err.text)) != NULL);
	stream_parser_free(p);
	stream_check_free(c);
	return o;
}

/* ---- a machine that takes it ------------------------------------------------------------ */

enum { MACHINE_PAGES = 64 };
struct machine {
	struct stream_memory memory;
	bool built;
	uint64_t image;		      /* bytes of the one that comes */
	uint8_t (*page)[STREAM_PAGE]; /* of its own size */
};

static int take_description(void *opaque, const struct stream_frame *frame,
			    struct stream_error *err)
{
	(void)opaque;
	(void)frame;
	(void)err;
	return 0;
}

static int take_image(void *opaque, const struct stream_piece *piece, struct stream_error *err)
{
	struct machine *m = opaque;

	(void)err;
	must(memchr(piece->name, 0, sizeof(piece->name)) && piece->offset == m->image);
	must((piece->data || !piece->len) && piece->len <= piece->total - piece->offset);
	m->image += piece->len;
	if (m->image == piece->total)
		m->image = 0;
	return 0;
}

static uint8_t *page_of(void *opaque, uint64_t page)
{
	struct machine *m = opaque;

	must(m->built && stream_memory_has(&m->memory, page, 1));
	return m->page[stream_memory_index(&m->memory, page)];
}

static void clear_pages(void *opaque, uint64_t first, uint32_t count)
{
	struct machine *m = opaque;

	must(m->built && stream_memory_has(&m->memory, first, count));
	memset(m->page[stream_memory_index(&m->memory, first)], 0, (size_t)count * STREAM_PAGE);
}

static const struct migration_sink_ops sink = {.description = take_description,
					       .image = take_image,
					       .page = page_of,
					       .clear = clear_pages};

/* As a destination does it: what comes is written where it belongs, or refused. */
static void receive(const uint8_t *data, size_t len)
{
	struct stream_parser *p = stream_parser_new();
	struct stream_error err = {0};
	struct machine machine = {0};
	struct arrival arrival;
	struct stream_frame f;
	size_t at = 0, used;
	int ret;

	must(p);
	arrival_init(&arrival, &sink, &machine);
	for (ret = 0; ret >= 0 && at < len;) {
		ret = stream_parse(p, data + at, len - at, &used, &f, &err);
		at += used;
		if (ret <= 0)
			break;
		ret = arrival_take(&arrival, &f, &err);
		must(ret >= 0 || ret == -EAGAIN || err.text[0]);
		if (ret == -EAGAIN)
			ret = 0;
		if (ret == 1) {
			if (arrival.memory.pages > MACHINE_PAGES)
				break;
			machine.memory = arrival.memory;
			machine.page = calloc(arrival.memory.pages, STREAM_PAGE);
			machine.built = true;
			must(machine.page);
		}
	}
	if (!arrival_complete(&arrival, &err))
		must(arrival.received == machine.memory.pages && arrival.state.whole);
	must(arrival.received <= arrival.memory.pages);
	arrival_free(&arrival);
	stream_parser_free(p);
	free(machine.page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	struct field_buf out = {0};
	size_t piece = 1 + take_bytes(&in, 2) % 9000;
	struct outcome a, b;
	uint32_t sequence = 0;

	if (take_bytes(&in, 1) & 1) {
		must(!field_buf_append(&out, in.p, in.left)); /* as it is */
	} else {
		while (in.left && out.len < STREAM_LIMIT)
			add_frame(&out, &sequence, &in);
	}
	a = read_stream(out.data, out.len, SIZE_MAX);
	b = read_stream(out.data, out.len, piece);
	must(a.ret == b.ret && a.sum == b.sum && a.frames == b.frames);
	receive(out.data, out.len);
	field_buf_free(&out);
	return 0;
}

/* ---- the corpus: good streams as programmes ---- */

static void back_file(struct stream_writer *w)
{
	struct stream_request request = {1000, 1, STREAM_REQUEST_WAITING};
	struct stream_received received = {64, 10, true, (const uint8_t *)"\xff\x02"};
	struct stream_accept accept = {.lanes = 2, .images = {7}};
	struct stream_ready ready = {1, 2, 3};
	struct stream_ack ack = {1, 2};
	struct stream_resume resume = {STREAM_STAGE_RUN, 1, 2, 3};
	struct stream_failure failure = {STREAM_REFUSED, "no"};
	struct stream_hello hello;

	stream_test_hello(&hello, STREAM_DESTINATION);
	stream_hello_write(w, &hello);
	stream_control_write(w, STREAM_ACCEPT, 0, &accept);
	stream_control_write(w, STREAM_READY, 0, &ready);
	stream_control_write(w, STREAM_ACK, 0, &ack);
	stream_control_write(w, STREAM_RESUME, 0, &resume);
	stream_control_write(w, STREAM_FAILURE, 0, &failure);
	stream_request_write(w, &request, 1);
	stream_received_write(w, &received);
}

static void again_file(struct stream_writer *w)
{
	struct stream_run run = {1, true, 2, 3, 4};
	struct stream_cancel cancel = {"by its user"};
	struct stream_resume resume = {STREAM_STAGE_RUN, 1, 2, 3};
	struct stream_hello hello;

	stream_test_hello(&hello, STREAM_SOURCE);
	hello.again = true;
	stream_hello_write(w, &hello);
	stream_control_write(w, STREAM_RESUME, 0, &resume);
	stream_control_write(w, STREAM_RUN, 0, &run);
	stream_control_write(w, STREAM_CANCEL, 0, &cancel);
	stream_test_pages(w, 4);
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	struct field_buf out = {0};
	struct stream_writer w;
	size_t len = 3, at = 0;

	if (n >= 6)
		return 0;
	stream_writer_init(&w, 0, stream_put_buf, &out);
	w.level = n & 1;
	if (n / 2 == 0)
		stream_test_file(&w);
	else if (n / 2 == 1)
		back_file(&w);
	else
		again_file(&w);
	stream_writer_free(&w);
	memset(buf, 0, len);
	while (at < out.len) {
		const uint8_t *h = out.data + at;
		size_t sent = (size_t)get_le(h + 20, 4), kept = sent % STREAM_PAGE;
		uint8_t head[7] = {h[4], h[5], h[6], h[16], (uint8_t)(sent / STREAM_PAGE)};

		if (len + 7 + kept > max)
			break;
		put_le(head + 5, kept, 2);
		memcpy(buf + len, head, 7);
		memcpy(buf + len + 7, h + STREAM_HEADER, kept);
		len += 7 + kept;
		at += STREAM_HEADER + sent;
	}
	field_buf_free(&out);
	return len;
}
