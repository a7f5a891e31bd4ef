/* A machine's configuration through the stream: what is sent, what must be understood, what is
 * refused. */
#include "migration/stream_items.h"
#include "tests/unit/stream_util.h"
#include "vmm/description.h"

static struct error err;
static struct field_buf out;
static struct run_config a, b;

static void set(struct run_config *config, const char *name, const char *value)
{
	CHECK_EQ(config_parse(config_find(run_config_fields, name), config, value, &err), 0);
}

static struct stream_frame write_it(void)
{
	struct stream_parser *p = stream_parser_new();
	static struct stream_frame f;
	struct stream_writer w;

	out.len = 0;
	stream_writer_init(&w, 0, stream_put_buf, &out);
	CHECK_EQ(description_write(&w, &a, &err), 0);
	CHECK_EQ(stream_test_one(p, &out, 0, &f), 1);
	f.payload = out.data + STREAM_HEADER;
	stream_parser_free(p);
	return f;
}

/* Every field that is sent comes back as it was; what is local stays the reader's. */
static void test_round_trip(void)
{
	static const char *const values[] = {
		"name",
		"vm1",
		"kernel",
		"/boot/vmlinuz",
		"append",
		"console=ttyS0 a,b=c",
		"memory",
		"3001M",
		"cpus",
		"4",
		"serial",
		"file=/tmp/x",
		"serial",
		"none",
		"debug_exit",
		"0xf4",
		"reset_limit",
		"3",
		"disk",
		"a,,b.img,ro,serial=x,cache=none",
		"disk",
		"nbd://h/e",
		"net",
		"user,hostfwd=tcp::2222-:22,hostfwd=udp::53-:53,mac=52:54:00:12:34:56",
		"vsock",
		"/tmp/v,cid=7",
		"pidfile",
		"/tmp/pid",
		"engine",
		"soft",
		"quiet",
		"on",
		NULL};
	struct stream_frame f;
	char x[4096], y[4096];

	config_init(run_config_fields, &a, sizeof(a));
	config_init(run_config_fields, &b, sizeof(b));
	for (unsigned i = 0; values[i]; i += 2)
		set(&a, values[i], values[i + 1]);
	set(&b, "pidfile", "/tmp/mine");
	a.disk[0].size = 1 << 20;
	a.disk[1].size = 3ull << 40;
	f = write_it();
	CHECK_EQ(description_read(&f, &b, &err), 0);
	for (const struct config_field *c = run_config_fields; c->name; c++) {
		bool local = !strcmp(c->name, "pidfile") || !strcmp(c->name, "engine") ||
			     !strcmp(c->name, "quiet");

		CHECK_EQ(config_count(c, &a), config_count(c, &b));
		for (unsigned i = 0; i < config_count(c, &a); i++) {
			config_format(c, &a, i, x, sizeof(x));
			config_format(c, &b, i, y, sizeof(y));
			CHECK_EQ(strcmp(x, y) == 0, !local);
			if ((strcmp(x, y) == 0) == local)
				printf("  %s: %s, %s\n", c->name, x, y);
		}
	}
	CHECK(!strcmp(b.pidfile, "/tmp/mine"));
	CHECK_EQ(b.disk[0].size, 1 << 20);
	CHECK_EQ(b.disk[1].size, 3ull << 40);
}

/* What is as by default may be skipped by who does not know it; what is chosen may not. */
static void test_must(void)
{
	struct stream_frame f = write_it();
	struct stream_item item;
	uint32_t at = 0;
	unsigned seen = 0;

	while (stream_item_next(&f, &at, &item, NULL) > 0) {
		bool optional = !strcmp(item.name, "name") || !strcmp(item.name, "board") ||
				!strcmp(item.name, "disk-size");

		CHECK_EQ(item.must, !optional);
		CHECK(strcmp(item.name, "pidfile") != 0);
		seen++;
	}
	CHECK(seen >= 12);
}

static int read_one(bool must, const char *name, const char *value, size_t len)
{
	struct stream_frame f = {.type = STREAM_DESCRIPTION};
	struct field_buf buf = {0};
	int ret;

	config_free(run_config_fields, &b);
	config_init(run_config_fields, &b, sizeof(b));
	stream_item_put(&buf, must, name, value, len);
	f.payload = buf.data;
	f.len = (uint32_t)buf.len;
	err.text[0] = 0;
	ret = description_read(&f, &b, &err);
	CHECK(!ret == !err.text[0]);
	field_buf_free(&buf);
	return ret;
}

static void test_hostile(void)
{
	CHECK_EQ(read_one(true, "memory", "256M", 4), 0);
	CHECK_EQ(b.memory, 256 << 20);
	CHECK_EQ(read_one(true, "memory", "lots", 4), -EINVAL);
	CHECK(strstr(err.text, "description, memory"));
	CHECK_EQ(read_one(true, "memory", "256M\0x", 6), -EBADMSG);
	CHECK_EQ(read_one(true, "cpus", "4000", 4), -EINVAL);
	CHECK_EQ(read_one(true, "name", "../../etc", 9), -EINVAL);
	CHECK_EQ(read_one(true, "colour", "green", 5), -ENOTSUP);
	CHECK(strstr(err.text, "'colour'"));
	CHECK_EQ(read_one(false, "colour", "green", 5), 0);
	/* A stream does not say where this side writes files. */
	CHECK_EQ(read_one(true, "pidfile", "/tmp/x", 6), -ENOTSUP);
	CHECK_EQ(read_one(false, "stats", "/tmp/x", 6), 0);
	CHECK(!b.stats);
}

int main(void)
{
	test_round_trip();
	test_must();
	test_hostile();
	config_free(run_config_fields, &a);
	config_free(run_config_fields, &b);
	field_buf_free(&out);
	return dev_result("stream description");
}
