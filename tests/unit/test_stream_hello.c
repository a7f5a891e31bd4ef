/* HELLO and its negotiation; items; control frames. */
#include "tests/unit/stream_util.h"

static struct stream_error err;
static struct field_buf out;
static struct stream_parser *parser;

static int write_read(const struct stream_hello *h, struct stream_hello *got)
{
	struct stream_frame f;
	struct stream_writer w;

	out.len = 0;
	stream_writer_init(&w, h->channel, stream_put_buf, &out);
	CHECK_EQ(stream_hello_write(&w, h), 0);
	CHECK_EQ(stream_test_one(parser, &out, 0, &f), 1);
	return stream_hello_read(&f, got, &err);
}

static void test_round_trip(void)
{
	struct stream_hello h, got;

	stream_test_hello(&h, STREAM_SOURCE);
	h.channel = 3;
	h.lane = STREAM_LANE_DEMAND;
	h.again = true;
	CHECK_EQ(write_read(&h, &got), 0);
	CHECK(got.version == h.version && got.oldest == h.oldest && got.role == h.role &&
	      got.lane == h.lane && got.channel == 3 && got.again && got.page == 4096);
	CHECK(!memcmp(got.session, h.session, 16) && !strcmp(got.ferry, "0.1") &&
	      !strcmp(got.arch, "x86_64"));
	CHECK_EQ(got.offers, STREAM_CAN_ZSTD | STREAM_CAN_INDEX);
	CHECK_EQ(got.needs, STREAM_CAN_INDEX);
	h.channel = 0; /* the main one and no other */
	CHECK_EQ(write_read(&h, &got), -EBADMSG);
}

/* A frame of items by hand. */
static int read_items(const char *const *items, struct stream_hello *got)
{
	struct field_buf buf = {0};
	struct stream_frame f = {.type = STREAM_HELLO};
	int ret;

	for (; *items; items += 2)
		stream_item_put(&buf, (*items)[0] == '!', *items + ((*items)[0] == '!'), items[1],
				strlen(items[1]));
	f.payload = buf.data;
	f.len = (uint32_t)buf.len;
	err.text[0] = 0;
	ret = stream_hello_read(&f, got, &err);
	field_buf_free(&buf);
	return ret;
}

#define BASE                                                                                       \
	"!version", "1", "!oldest", "1", "!role", "source", "!lane", "main", "!session",           \
		"0123456789abcdef", "!arch", "x86_64", "!page", "4096"

static void test_hello_items(void)
{
	struct stream_hello got;
	static const struct {
		const char *items[24];
		int ret;
		const char *text;
	} cases[] = {
		{{BASE, NULL}, 0, ""},
		{{BASE, "colour", "green", NULL}, 0, ""},
		{{BASE, "!colour", "green", NULL}, -ENOTSUP, "'colour' is needed"},
		{{BASE, "offer", "telepathy", NULL}, 0, ""},
		{{BASE, "!need", "telepathy", NULL}, -ENOTSUP, "needs 'telepathy'"},
		{{BASE, "!need", "tele\npathy", NULL}, -ENOTSUP, "needs 'tele?pathy'"},
		{{BASE, "!page", "4096", NULL}, -EBADMSG, "page: twice"},
		{{BASE, "!again", "", NULL}, 0, ""},
		{{"!version", "1", NULL}, -EBADMSG, "does not say"},
		{{NULL}, -EBADMSG, "does not say"},
		{{"!version", "x", NULL}, -EBADMSG, "version: no number"},
		{{"!version", "4294967296", NULL}, -EBADMSG, "version: no number"},
		{{"!version", "99999999999999999999", NULL}, -EBADMSG, "version: no number"},
		{{"!version", "", NULL}, -EBADMSG, "version: no number"},
		{{"!role", "spy", NULL}, -ENOTSUP, "role"},
		{{"!session", "short", NULL}, -EBADMSG, "session"},
		{{"!arch", "a name that is far too long", NULL}, -EBADMSG, "arch"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		CHECK_EQ(read_items(cases[i].items, &got), cases[i].ret);
		CHECK(strstr(err.text, cases[i].text));
	}
}

static void test_agree(void)
{
	struct stream_hello a, b;
	struct stream_agreement g;

	stream_test_hello(&a, STREAM_SOURCE);
	stream_test_hello(&b, STREAM_DESTINATION);
	a.needs = b.needs = 0;
	b.offers = STREAM_CAN_ZSTD | STREAM_CAN_POSTCOPY;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), 0);
	CHECK_EQ(g.can, STREAM_CAN_ZSTD);
	CHECK_EQ(g.version, 1);
	/* Versions: the newest that both speak. */
	a.version = 7, a.oldest = 3;
	b.version = 5, b.oldest = 1;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), 0);
	CHECK_EQ(g.version, 5);
	CHECK_EQ(stream_agree(&b, &a, &g, &err), 0);
	CHECK_EQ(g.version, 5);
	b.version = 2;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), -ENOTSUP);
	CHECK(strstr(err.text, "versions 1 to 2 of") || strstr(err.text, "versions 1 to 2, "));
	CHECK_EQ(stream_agree(&b, &a, &g, &err), -ENOTSUP);
	a.version = b.version = 1, a.oldest = b.oldest = 1;
	/* What is needed. */
	a.needs = STREAM_CAN_LANES;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), -ENOTSUP);
	CHECK(strstr(err.text, "this side needs 'lanes'"));
	CHECK_EQ(stream_agree(&b, &a, &g, &err), -ENOTSUP);
	CHECK(strstr(err.text, "the other side (ferry 0.1) needs 'lanes'"));
	b.offers |= STREAM_CAN_LANES;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), 0);
	CHECK_EQ(g.can, STREAM_CAN_ZSTD | STREAM_CAN_LANES);
	/* Who, and to which migration it belongs. */
	b.role = STREAM_SOURCE;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), -EPROTO);
	a.role = STREAM_DESTINATION;
	b.role = STREAM_FILE;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), 0);
	b.session[0] ^= 1;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), -EPROTO);
	CHECK(strstr(err.text, "another migration"));
	memset(a.session, 0, 16);
	CHECK_EQ(stream_agree(&a, &b, &g, &err), 0);
	b.channel = 1, b.lane = STREAM_LANE_PAGES;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), -EPROTO);
	a.channel = 1, a.lane = STREAM_LANE_PAGES;
	b.page = 65536;
	CHECK_EQ(stream_agree(&a, &b, &g, &err), -ENOTSUP);
	strcpy(b.arch, "aarch64");
	CHECK_EQ(stream_agree(&a, &b, &g, &err), -ENOTSUP);
	CHECK(strstr(err.text, "x86_64 here and of aarch64 there"));
}

static void test_items(void)
{
	struct field_buf buf = {0};
	struct stream_item item;
	struct stream_frame f = {.type = STREAM_DESCRIPTION};
	char long_name[70], text[8];
	uint32_t at = 0;
	uint64_t v;

	memset(long_name, 'a', 64);
	long_name[64] = 0;
	CHECK_EQ(stream_item_put_text(&buf, true, long_name, "x"), -EINVAL);
	CHECK_EQ(stream_item_put_text(&buf, true, "", "x"), -EINVAL);
	CHECK_EQ(stream_item_put_text(&buf, true, "A", "x"), -EINVAL);
	CHECK_EQ(buf.len, 0);
	CHECK_EQ(stream_item_put_text(&buf, true, "memory", "256M"), 0);
	CHECK_EQ(stream_item_put_number(&buf, false, "n", UINT64_MAX), 0);
	CHECK_EQ(stream_item_put(&buf, false, "zero", "a\0b", 3), 0);
	f.payload = buf.data;
	f.len = (uint32_t)buf.len;
	CHECK_EQ(stream_item_next(&f, &at, &item, &err), 1);
	CHECK(!strcmp(item.name, "memory") && item.must && item.len == 4);
	CHECK_EQ(stream_item_text(&f, &item, text, 5, &err), 0);
	CHECK(!strcmp(text, "256M"));
	CHECK_EQ(stream_item_text(&f, &item, text, 4, &err), -EBADMSG);
	CHECK_EQ(stream_item_unknown(&f, &item, &err), -ENOTSUP);
	CHECK_EQ(stream_item_next(&f, &at, &item, &err), 1);
	CHECK_EQ(stream_item_number(&f, &item, UINT64_MAX, &v, &err), 0);
	CHECK(v == UINT64_MAX && !item.must);
	CHECK_EQ(stream_item_unknown(&f, &item, &err), 0);
	CHECK_EQ(stream_item_next(&f, &at, &item, &err), 1);
	CHECK_EQ(stream_item_text(&f, &item, text, sizeof(text), &err), -EBADMSG);
	CHECK_EQ(stream_item_next(&f, &at, &item, &err), 0);
	/* Cut off anywhere but between items. */
	for (f.len = 0; f.len < buf.len; f.len++) {
		int ret;

		at = 0;
		while ((ret = stream_item_next(&f, &at, &item, &err)) > 0)
			;
		CHECK(ret == (f.len == 0 || f.len == 16 || f.len == 43 ? 0 : -EBADMSG));
	}
	f.len = (uint32_t)buf.len;
	buf.data[0] = 2; /* a flag that nobody knows */
	at = 0;
	CHECK_EQ(stream_item_next(&f, &at, &item, &err), -EBADMSG);
	field_buf_free(&buf);
}

static int control(enum stream_type type, void *object, void *got, size_t size)
{
	struct stream_frame f;
	struct stream_writer w;

	out.len = 0;
	stream_writer_init(&w, 0, stream_put_buf, &out);
	CHECK_EQ(stream_control_write(&w, type, 5, object), 0);
	CHECK_EQ(stream_test_one(parser, &out, 0, &f), 1);
	CHECK_EQ(f.round, 5);
	return stream_control_read(&f, got, size, &err);
}

static void test_control(void)
{
	struct stream_run run = {1, true, 100, 2, 3}, run2;
	struct stream_ready ready = {7, 8, 9}, ready2;
	struct stream_ack ack = {7, 1}, ack2;
	struct stream_resume resume = {.stage = STREAM_STAGE_RUN, .ticket = 7}, resume2;
	struct stream_failure failure = {STREAM_REFUSED, "no\nmemory"}, failure2;
	struct stream_round round = {9, false, 1}, round2;
	struct stream_frame f = {.type = STREAM_PAGES};

	CHECK_EQ(control(STREAM_RUN, &run, &run2, sizeof(run2)), 0);
	CHECK(run2.ticket == 1 && run2.postcopy && run2.missing == 100 && run2.stopped == 2 &&
	      run2.guest == 3);
	run.postcopy = false;
	CHECK_EQ(control(STREAM_RUN, &run, &run2, sizeof(run2)), -EBADMSG);
	CHECK_EQ(control(STREAM_READY, &ready, &ready2, sizeof(ready2)), 0);
	CHECK(!memcmp(&ready.ticket, &ready2.ticket, 16) && ready2.state_crc == 9);
	CHECK_EQ(control(STREAM_ACK, &ack, &ack2, sizeof(ack2)), 0);
	CHECK(ack2.ticket == 7 && ack2.started == 1);
	CHECK_EQ(control(STREAM_RESUME, &resume, &resume2, sizeof(resume2)), 0);
	CHECK(resume2.stage == STREAM_STAGE_RUN && resume2.ticket == 7);
	resume.stage = 0;
	CHECK_EQ(control(STREAM_RESUME, &resume, &resume2, sizeof(resume2)), -EBADMSG);
	CHECK_EQ(control(STREAM_FAILURE, &failure, &failure2, sizeof(failure2)), 0);
	CHECK(!strcmp(failure2.text, "no?memory"));
	memset(failure.text, 'x', sizeof(failure.text));
	CHECK_EQ(control(STREAM_FAILURE, &failure, &failure2, sizeof(failure2)), -EBADMSG);
	CHECK(strstr(err.text, "without an end"));
	CHECK_EQ(control(STREAM_ROUND, &round, &round2, sizeof(round2)), -EBADMSG);
	CHECK_EQ(stream_control_read(&f, &round2, sizeof(round2), &err), -EPROTO);
	for (unsigned t = 0; t < STREAM_TYPES; t++) {
		if (stream_control_desc(t))
			CHECK_EQ(field_check(stream_control_desc(t), NULL, 0), 0);
	}
}

/* A later ferry's table: what may be skipped is; what may not is named. */
struct later {
	uint64_t ticket, started, colour;
};

static void test_control_later(void)
{
	static struct field fields[] = {
		FIELD_SCALAR(struct later, ticket, FIELD_U64, 1),
		FIELD_SCALAR(struct later, started, FIELD_U64, 1),
		FIELD_SCALAR(struct later, colour, FIELD_U64, 2),
		FIELD_END,
	};
	static const struct state_desc desc = {.name = "ack", .version = 2, .fields = fields};
	struct later later = {1, 2, 3};
	struct field_buf buf = {0};
	struct stream_frame f = {.type = STREAM_ACK};
	struct stream_ack ack;

	for (int optional = 0; optional < 2; optional++) {
		fields[2].optional = optional;
		buf.len = 0;
		CHECK_EQ(field_save(&desc, &later, &buf), 0);
		f.payload = buf.data;
		f.len = (uint32_t)buf.len;
		CHECK_EQ(stream_control_read(&f, &ack, sizeof(ack), &err), optional ? 0 : -ENOTSUP);
		CHECK(optional ? ack.ticket == 1 && ack.started == 2
			       : strstr(err.text, "unknown field colour") != NULL);
		/* The reader that knows it takes it, skippable or not. */
		memset(&later, 0, sizeof(later));
		CHECK_EQ(field_load(&desc, &later, buf.data, buf.len, NULL, 0), buf.len);
		CHECK_EQ(later.colour, 3);
	}
	field_buf_free(&buf);
}

int main(void)
{
	parser = stream_parser_new();
	test_round_trip();
	test_hello_items();
	test_agree();
	test_items();
	test_control();
	test_control_later();
	stream_parser_free(parser);
	field_buf_free(&out);
	return dev_result("stream hello");
}
