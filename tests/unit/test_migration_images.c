/*
 * What a machine boots from goes with it, unless the destination has the same already; and in which
 * order that, and all the rest, may come.
 */
#include "migration/arrive.h"
#include "migration_util.h"

static char address[128];
static const struct migration_params params = {.downtime = 300000000};
static struct migration_sink_ops ops;
static uint8_t own; /* what each byte of the digest is of those that are there; 0: none are */
static unsigned sought, pieces;

static void seek(void *opaque)
{
	(void)opaque;
	sought++;
}

static void find(void *opaque, uint8_t digest[STREAM_IMAGE_DIGEST])
{
	(void)opaque;
	if (own)
		memset(digest, own, STREAM_IMAGE_DIGEST);
}

static int image(void *opaque, const struct stream_piece *piece, struct stream_error *err)
{
	pieces++;
	return sink_image(opaque, piece, err);
}

/* A whole move, of a source that knows of this or does not. */
static bool moves(const char *what, bool knows, uint8_t here, unsigned wanted)
{
	struct fake_source fake;
	struct fake_there there = {.ops = &ops};
	struct stream_error err;
	struct source source;
	bool good;

	own = here;
	sought = pieces = 0;
	fake_source_init(&fake);
	good = !fake_move(&source, &fake, &there, address, &params, knows ? 0 : STREAM_CAN_IMAGES,
			  &err);
	good = good && !there.code && there.sink.running && fake.images == wanted &&
	       pieces == wanted && sought == knows;
	printf("%s: sent %u times, %u pieces came, looked for %u times%s%s\n", what, fake.images,
	       pieces, sought, good ? "" : ": WRONG ", err.text);
	free(there.sink.memory);
	free(fake.memory);
	return good;
}

/* ---- one that is refused in its middle ---- */

enum { LARGE = 24 << 20 };

static int large_image(void *opaque, const void **data, size_t *len, struct stream_error *err)
{
	static uint8_t bytes[LARGE];

	(void)opaque;
	(void)err;
	*data = bytes;
	*len = sizeof(bytes);
	return 0;
}

static int refuse_image(void *opaque, const struct stream_piece *piece, struct stream_error *err)
{
	(void)opaque;
	(void)piece;
	return stream_fail(err, NULL, -ENOSPC, "no room for such an image");
}

/* The source is still sending when it is told so: it keeps the guest, and knows why. */
static bool refused(bool knows)
{
	struct migration_source_ops source_ops = fake_source_ops;
	struct migration_sink_ops sink_ops = ops;
	struct fake_source fake;
	struct fake_there there = {.ops = &sink_ops};
	struct stream_error err;
	struct source source;
	bool good;

	own = 0;
	source_ops.image = large_image;
	sink_ops.image = refuse_image;
	fake_source_init(&fake);
	fake.m.ops = &source_ops;
	good = fake_move(&source, &fake, &there, address, &params, knows ? 0 : STREAM_CAN_IMAGES,
			 &err) == -ECONNREFUSED;
	good = good && fake.running && there.code && strstr(err.text, "no room for such an image");
	printf("an image that is refused, %s: %s%s\n", knows ? "after MEMORY" : "before it",
	       err.text, good ? "" : ": WRONG");
	free(there.sink.memory);
	free(fake.memory);
	return good;
}

/* ---- the order, of hostile sources ---- */

/* ALL: every page; LACKS, HAS: RECEIVED, with none or all of them; AHEAD, OLD: pages of the next
 * round, and of the first one. */
enum frame {
	GREETING,
	DESCRIPTION,
	WHOLE,
	CUT,
	MEMORY,
	ROUND,
	ALL,
	LACKS,
	HAS,
	DEVICE,
	AHEAD,
	OLD,
	LAST
};

static void write_pages(struct stream_writer *w, uint32_t round)
{
	struct stream_batch *batch = stream_batch_new(w, 0);

	if (batch && !stream_batch_round(batch, round) &&
	    !stream_batch_add_zero(batch, 0, FAKE_PAGES))
		(void)stream_batch_flush(batch);
	stream_batch_free(batch);
}

static void write_received(struct stream_writer *w, bool all)
{
	uint8_t bits[(FAKE_PAGES + 7) / 8];
	struct stream_received r = {.count = FAKE_PAGES, .last = 1, .bits = bits};

	memset(bits, all ? 255 : 0, sizeof(bits));
	bits[FAKE_PAGES / 8] &= (1 << FAKE_PAGES % 8) - 1;
	(void)stream_received_write(w, &r);
}

static void write_frame(struct stream_writer *w, enum frame frame)
{
	static const uint8_t bytes[100];
	struct stream_round round = {.phase = STREAM_PRECOPY};
	struct stream_memory memory = {0};
	struct stream_hello hello;
	struct stream_error err;

	switch (frame) {
	case GREETING:
		stream_hello_init(&hello);
		(void)stream_hello_write(w, &hello);
		break;
	case DESCRIPTION: (void)fake_describe(NULL, w, &err); break;
	case WHOLE: (void)stream_blob_write(w, STREAM_IMAGE, 0, "boot", bytes, 100); break;
	case CUT: /* 100 of 200 bytes */
		(void)stream_write_bytes(w, STREAM_IMAGE, 0,
					 "\4boot\310\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" /* ... */
					 "1234567890123456789012345678901234567890123456789"
					 "0123456789012345678901234567890123456789012345678901",
					 21 + 100);
		break;
	case MEMORY:
		stream_memory_add(&memory, 0, FAKE_PAGES);
		(void)stream_memory_write(w, &memory);
		break;
	case ROUND: (void)stream_control_write(w, STREAM_ROUND, 1, &round); break;
	case DEVICE: (void)stream_blob_write(w, STREAM_DEVICE, 1, "machine", bytes, 16); break;
	case ALL:
	case OLD: write_pages(w, 1); break;
	case AHEAD: write_pages(w, 2); break;
	case LACKS:
	case HAS: write_received(w, frame == HAS); break;
	case LAST: break;
	}
}

/* What becomes of the last of these frames. */
static int takes(uint32_t can, const enum frame *frames, struct stream_error *err)
{
	struct stream_parser *parser = stream_parser_new();
	struct fake_source other = {0};
	struct fake_sink sink = {.memory = calloc(FAKE_PAGES, STREAM_PAGE), .other = &other};
	struct field_buf buf = {0};
	struct stream_writer w;
	struct stream_frame frame;
	struct arrival a;
	size_t at = 0, used;
	int ret = 0;

	*err = (struct stream_error){0};
	arrival_init(&a, &ops, &sink);
	a.late_images = can & STREAM_CAN_IMAGES;
	a.postcopy = can & STREAM_CAN_POSTCOPY;
	a.ahead = can & STREAM_CAN_AHEAD;
	stream_writer_init(&w, 0, stream_put_buf, &buf);
	write_frame(&w, GREETING);
	for (; *frames != LAST; frames++)
		write_frame(&w, *frames);
	for (; at < buf.len && ret >= 0; at += used) {
		ret = stream_parse(parser, buf.data + at, buf.len - at, &used, &frame, err);
		if (ret > 0 && frame.type != STREAM_HELLO)
			ret = arrival_take(&a, &frame, err);
	}
	if (at < buf.len)
		ret = 1; /* not the last */
	arrival_free(&a);
	free(sink.memory);
	stream_writer_free(&w);
	stream_parser_free(parser);
	field_buf_free(&buf);
	return ret;
}

static bool order(void)
{
	enum { POST = STREAM_CAN_POSTCOPY, EARLY = POST | STREAM_CAN_AHEAD };
	static const struct {
		enum frame frames[9];
		uint32_t can;	  /* enum stream_capability */
		const char *says; /* NULL: it is taken */
	} cases[] = {
		{{DESCRIPTION, WHOLE, MEMORY, ROUND, LAST}, 0, NULL},
		{{DESCRIPTION, MEMORY, ROUND, LAST}, 0, NULL}, /* the machine's affair */
		{{DESCRIPTION, CUT, MEMORY, LAST}, 0, "not whole"},
		{{DESCRIPTION, MEMORY, WHOLE, LAST}, 0, "may not come here"},
		{{DESCRIPTION, MEMORY, WHOLE, ROUND, LAST}, STREAM_CAN_IMAGES, NULL},
		{{DESCRIPTION, MEMORY, ROUND, LAST}, STREAM_CAN_IMAGES, NULL},
		{{DESCRIPTION, WHOLE, LAST}, STREAM_CAN_IMAGES, "may not come here"},
		{{DESCRIPTION, MEMORY, CUT, ROUND, LAST}, STREAM_CAN_IMAGES, "not whole"},
		{{DESCRIPTION, MEMORY, ROUND, WHOLE, LAST}, STREAM_CAN_IMAGES, "may not come here"},
		{{DESCRIPTION, MEMORY, DEVICE, LAST}, STREAM_CAN_IMAGES, "may not come here"},
		{{DESCRIPTION, MEMORY, LACKS, DEVICE, AHEAD, LAST}, EARLY, NULL},
		{{DESCRIPTION, MEMORY, LACKS, DEVICE, AHEAD, LAST}, POST, "between"},
		{{DESCRIPTION, MEMORY, LACKS, AHEAD, LAST}, EARLY, "between"},
		{{DESCRIPTION, MEMORY, ALL, HAS, DEVICE, AHEAD, LAST}, EARLY, "between"},
		{{DESCRIPTION, MEMORY, ALL, LACKS, DEVICE, OLD, LAST}, EARLY, "before"},
		{{DESCRIPTION, MEMORY, LACKS, DEVICE, DEVICE, LAST}, EARLY, "already"},
		{{DESCRIPTION, MEMORY, LACKS, DEVICE, LACKS, LAST}, EARLY, "here"},
		{{DESCRIPTION, MEMORY, LACKS, LAST}, STREAM_CAN_AHEAD, "here"},
	};
	bool good = true;

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct stream_error err;
		const int ret = takes(cases[i].can, cases[i].frames, &err);

		if (cases[i].says ? ret == -EPROTO && strstr(err.text, cases[i].says) : !ret)
			continue;
		printf("order %u: %d %s\n", i, ret, err.text);
		good = false;
	}
	return good;
}

int main(void)
{
	snprintf(address, sizeof(address), "unix:/tmp/ferry-test-images-%d", (int)getpid());
	ops = fake_sink_ops;
	ops.seek = seek;
	ops.own = find;
	ops.image = image;
	return !moves("the same are there", true, 0x5a, 0) ||
	       !moves("others are there", true, 0x5b, 1) || !moves("none are there", true, 0, 1) ||
	       !moves("a source that does not know of it", false, 0x5a, 1) || !refused(true) ||
	       !refused(false) || !order();
}
