/*
 * A hostile source: the whole receiving side (door, first exchange, pages, hand-over, post-copy,
 * connections that come again) with memory in place of a machine. An input is a programme of what
 * the source says, mostly right frames in any order, so that it gets far; what the receiver answers
 * must be a stream that is in order, and the guest must never start without RUN.
 *
 *   step := u8 operation, its operands
 */
#include "tests/fuzz/fuzz_util.h"
#include "migration/stream_index.h"
#include "tests/unit/migration_util.h"

enum { CONNECTIONS = 3 };
enum op {
	HELLO,
	DESCRIBE,
	IMAGE,
	MEMORY,
	ALL,
	SOME,
	ROUND,
	LACKS,
	STATE,
	RUN,
	RESUME,
	CALL_OFF,
	END,
	FRAME,
	BYTES,
	CLOSE,
	OPS
};

struct peer {
	int fd; /* -1: none */
	struct stream_writer w;
	struct stream_parser *parser;
};

static struct session {
	struct peer peer[CONNECTIONS];
	struct peer *now;
	uint64_t ticket;
	bool run_said;
} session;

static char address[64];

/* What cannot be sent at once is not sent: the connection is damaged then, as others are. */
static int put(void *opaque, const struct iovec *iov, unsigned count)
{
	const struct peer *p = opaque;

	for (unsigned i = 0; i < count && p->fd >= 0; i++)
		if (send(p->fd, iov[i].iov_base, iov[i].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return -EPIPE;
	return 0;
}

static void hang_up(struct peer *p)
{
	if (p->fd < 0)
		return;
	close(p->fd);
	stream_writer_free(&p->w);
	stream_parser_free(p->parser);
	p->fd = -1;
}

static void hear(struct peer *p, int ms)
{
	struct pollfd pfd = {.fd = p->fd, .events = POLLIN};
	struct stream_frame frame;
	struct stream_error err;
	struct stream_ready ready;
	uint8_t buf[4096];

	while (p->fd >= 0 && poll(&pfd, 1, ms) > 0) {
		ssize_t n = recv(p->fd, buf, sizeof(buf), MSG_DONTWAIT);
		size_t at = 0, used;

		if (n <= 0)
			return;
		while (at < (size_t)n) {
			int ret = stream_parse(p->parser, buf + at, (size_t)n - at, &used, &frame,
					       &err);

			must(ret >= 0);
			at += used;
			if (ret && frame.type == STREAM_READY) {
				must(!stream_control_read(&frame, &ready, sizeof(ready), &err));
				session.ticket = ready.ticket;
			}
		}
		ms = 0;
	}
}

static void dial(struct input *in)
{
	const uint8_t how = (uint8_t)take_bytes(in, 1);
	struct peer *p = &session.peer[how % CONNECTIONS];
	struct stream_hello hello;
	struct stream_error err;

	hang_up(p);
	p->fd = address_connect(address, 1000, -1, &err);
	if (p->fd < 0)
		return;
	p->parser = stream_parser_new();
	must(p->parser);
	stream_hello_init(&hello);
	hello.role = how & 64 ? STREAM_FILE : STREAM_SOURCE;
	hello.again = how & 4;
	hello.lane = how & 8 ? STREAM_LANE_DEMAND : STREAM_LANE_MAIN;
	hello.channel = hello.lane ? 1 : 0;
	hello.offers = STREAM_CAN_RECONNECT | STREAM_CAN_POSTCOPY | STREAM_CAN_LANES;
	if (how & 128)
		hello.offers |= STREAM_CAN_IMAGES | STREAM_CAN_AHEAD;
	strcpy(hello.arch, how & 16 ? "other" : "x86_64");
	strcpy(hello.ferry, "fuzz");
	memset(hello.session, how & 32 ? 1 : 2, sizeof(hello.session));
	stream_writer_init(&p->w, hello.channel, put, p);
	(void)stream_hello_write(&p->w, &hello);
	session.now = p;
}

static void say_pages(struct peer *p, uint64_t first, uint32_t count, uint32_t round)
{
	struct stream_batch *batch = stream_batch_new(&p->w, 0);
	uint8_t page[STREAM_PAGE] __attribute__((aligned(8)));

	must(batch);
	memset(page, (int)round + 1, sizeof(page));
	if (!stream_batch_round(batch, round) && !stream_batch_add(batch, first, page, true) &&
	    !stream_batch_add_zero(batch, first + 1, count - 1))
		(void)stream_batch_flush(batch);
	stream_batch_free(batch);
}

static void say_lacks(struct peer *p, uint8_t bits)
{
	uint8_t bitmap[(FAKE_PAGES + 7) / 8];
	struct stream_received r = {.count = FAKE_PAGES, .last = true, .bits = bitmap};

	memset(bitmap, bits, sizeof(bitmap));
	bitmap[FAKE_PAGES / 8] &= (1 << FAKE_PAGES % 8) - 1;
	(void)stream_received_write(&p->w, &r);
}

/* The receiver has said READY, or will not. */
static void say_run(struct peer *p, uint8_t how)
{
	struct stream_run run = {.postcopy = how & 1, .missing = how & 1, .guest = 12345};

	for (int i = 0; i < 20 && !session.ticket; i++)
		hear(p, 5);
	run.ticket = session.ticket;
	session.run_said |= session.ticket != 0;
	(void)stream_control_write(&p->w, STREAM_RUN, 0, &run);
}

static void step(struct input *in)
{
	const enum op op = take_bytes(in, 1) % OPS;
	struct peer *p = session.now;
	struct stream_memory memory = {0};
	struct field_buf buf = {0};
	uint8_t a, b;

	if (op == HELLO) {
		dial(in);
		return;
	}
	if (!p || p->fd < 0)
		return;
	a = (uint8_t)take_bytes(in, 1);
	b = (uint8_t)take_bytes(in, 1);
	switch (op) {
	case DESCRIBE:
		must(!stream_item_put_text(&buf, true, "name", "fake"));
		(void)stream_write_bytes(&p->w, STREAM_DESCRIPTION, 0, buf.data, buf.len);
		break;
	case IMAGE: {
		uint8_t image[100] = {a};

		(void)stream_blob_write(&p->w, STREAM_IMAGE, 0, "boot", image, sizeof(image));
		break;
	}
	case MEMORY:
		stream_memory_add(&memory, a & 1 ? b : 0, FAKE_PAGES);
		(void)stream_memory_write(&p->w, &memory);
		break;
	case ALL: say_pages(p, 0, FAKE_PAGES, a); break;
	case SOME: say_pages(p, a, 2 + b, a % 4); break;
	case ROUND: {
		struct stream_round round = {.phase = STREAM_PRECOPY, .ends = a & 1, .pages = b};

		(void)stream_control_write(&p->w, STREAM_ROUND, b % 4, &round);
		break;
	}
	case LACKS: say_lacks(p, a); break;
	case STATE:
		(void)stream_blob_write(&p->w, STREAM_DEVICE, 0, "machine", "the device state",
					a & 1 ? 15 : 16);
		break;
	case RUN: say_run(p, a); break;
	case RESUME: {
		struct stream_resume resume = {.stage = a % 7, .ticket = session.ticket + b % 2};

		(void)stream_control_write(&p->w, STREAM_RESUME, 0, &resume);
		break;
	}
	case CALL_OFF: {
		struct stream_cancel cancel = {"by its user"};
		struct stream_failure failure = {1 + a % 2, "no"};

		(void)stream_control_write(&p->w, a & 2 ? STREAM_CANCEL : STREAM_FAILURE, 0,
					   a & 2 ? (void *)&cancel : (void *)&failure);
		break;
	}
	case END: {
		struct stream_end end = {0};

		(void)stream_end_write(&p->w, &end);
		break;
	}
	case FRAME: {
		const size_t n = b < in->left ? b : in->left;

		(void)stream_write_bytes(&p->w, (enum stream_type)(a % 24), 1, in->p, n);
		in->p += n;
		in->left -= n;
		break;
	}
	case BYTES: {
		const struct iovec iov = {(void *)(uintptr_t)in->p, b < in->left ? b : in->left};

		(void)put(p, &iov, 1);
		break;
	}
	case CLOSE: hang_up(&session.peer[a % CONNECTIONS]); break;
	default: break;
	}
	field_buf_free(&buf);
	hear(p, 0);
}

/* ---- the receiver ---- */

struct receiver {
	struct destination d;
	struct fake_sink sink;
};

static void *receive(void *arg)
{
	struct receiver *r = arg;
	struct stream_error err = {0};
	const struct stream_memory *memory = &r->d.arrival.memory;
	int ret = destination_begin(&r->d, &fake_sink_ops, &r->sink, &err);

	if (!ret && (memory->count != 1 || memory->region[0].first ||
		     memory->region[0].count != FAKE_PAGES)) {
		destination_refuse(&r->d, "another machine");
		ret = -EPROTO;
	} else if (!ret) {
		ret = destination_run(&r->d, &err);
	}
	must(!ret == r->sink.running);
	must(ret || r->sink.loaded);
	destination_end(&r->d);
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len};
	struct fake_source gone = {.released = true};
	struct receiver r = {.sink = {.memory = calloc(FAKE_PAGES, STREAM_PAGE), .other = &gone}};
	const uint64_t one = 1;
	struct stream_error err;
	pthread_t thread;

	must(r.sink.memory);
	snprintf(address, sizeof(address), "unix:/tmp/ferry-fuzz-receive-%d", (int)getpid());
	r.d = (struct destination){.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
				   .arch = "x86_64",
				   .ferry = "fuzz",
				   .patience = 1000000};
	must(!door_open(&r.d.door, address, false, NULL, &err));
	session = (struct session){0};
	for (unsigned i = 0; i < CONNECTIONS; i++)
		session.peer[i].fd = -1;
	must(!pthread_create(&thread, NULL, receive, &r));
	for (unsigned i = 0; in.left && i < 200; i++)
		step(&in);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		hear(&session.peer[i], 1);
		hang_up(&session.peer[i]);
	}
	(void)!write(r.d.wake_fd, &one, sizeof(one));
	pthread_join(thread, NULL);
	must(!r.sink.running || session.run_said);
	must(!r.sink.both && !r.sink.wrong);
	must(!r.sink.early || r.d.arrival.ahead);
	door_close(r.d.door);
	close(r.d.wake_fd);
	free(r.sink.memory);
	return 0;
}

/* ---- the corpus: moves that succeed, and such as break and go on ---- */

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	static const uint8_t head[] = {HELLO, 0, DESCRIBE, 0, 0, IMAGE, 0, 0, MEMORY, 0, 0},
			     late[] = {HELLO, 128, DESCRIBE, 0, 0, MEMORY, 0, 0, IMAGE, 0, 0},
			     whole[] = {ROUND, 0, 1, ALL, 1, 0, STATE, 0, 0, RUN, 0, 0},
			     part[] = {ALL, 1, 0, LACKS, 0x5a, 0, STATE, 0, 0, RUN, 1, 0},
			     ahead[] = {ALL, 1, 0, LACKS, 0x5a, 0, STATE, 0, 0,
					ALL, 2, 0, SOME,  8,	9, RUN,	  1, 0},
			     lane[] = {HELLO, 8 + 4 + 1, SOME, 8, 9},
			     again[] = {CLOSE, 0, 0, HELLO, 4, RESUME, 3, 0},
			     rest[] = {ALL, 2, 0, END, 0, 0};
	static const struct {
		const uint8_t *step;
		size_t len;
	} parts[8][6] = {
#define PART(p) {p, sizeof(p)}
		{PART(head), PART(whole), PART(rest)},
		{PART(head), PART(part), PART(rest)},
		{PART(head), PART(part), PART(again), PART(rest)},
		{PART(head), PART(part), PART(lane), PART(rest)},
		{PART(head), PART(whole), PART(again), PART(rest)},
		{PART(lane), PART(head), PART(again), PART(whole)},
		{PART(late), PART(whole), PART(rest)},
		{PART(late), PART(ahead), PART(rest)},
#undef PART
	};
	size_t len = 0;

	for (unsigned i = 0; n < 8 && i < 6 && parts[n][i].step; i++) {
		must(len + parts[n][i].len <= max);
		memcpy(buf + len, parts[n][i].step, parts[n][i].len);
		len += parts[n][i].len;
	}
	return len;
}
