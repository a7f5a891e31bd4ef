/* Address spaces: overlap, order, straddling accesses; the log's limit. */
#include <errno.h>

#include "tests/unit/dev_util.h"

struct probe {
	uint64_t off, value;
	unsigned size, calls;
};

static uint64_t probe_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct probe *p = opaque;

	(void)vcpu;
	p->off = off;
	p->size = size;
	p->calls++;
	return 0x8877665544332211;
}

static void probe_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	probe_read(opaque, vcpu, off, size);
	((struct probe *)opaque)->value = value;
}

static const struct io_region_ops probe_ops = {probe_read, probe_write};

static int add(struct io_space *s, struct probe *p, uint64_t base, uint64_t size)
{
	const struct io_region r = {
		.base = base, .size = size, .ops = &probe_ops, .opaque = p, .name = "probe"};

	return io_space_add(s, &r);
}

static void test_add(void)
{
	struct io_space s = {0};
	struct probe p = {0};

	CHECK_EQ(add(&s, &p, 0x100, 8), 0);
	CHECK_EQ(add(&s, &p, 0x107, 1), -EEXIST);
	CHECK_EQ(add(&s, &p, 0xff, 2), -EEXIST);
	CHECK_EQ(add(&s, &p, 0, 0x1000), -EEXIST);
	CHECK_EQ(add(&s, &p, 0x108, 8), 0);
	CHECK_EQ(add(&s, &p, 0xf8, 8), 0);
	CHECK_EQ(add(&s, &p, 0, 0), -EINVAL);
	CHECK_EQ(add(&s, &p, UINT64_MAX, 2), -EINVAL);
	CHECK_EQ(add(&s, &p, UINT64_MAX, 1), 0);
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(add(&s, &p, 0x10000 - i * 16, 8), 0);
	for (unsigned i = 1; i < s.count; i++)
		CHECK(s.regions[i - 1].base + s.regions[i - 1].size <= s.regions[i].base);
	io_space_remove(&s, 0x101); /* not a base */
	CHECK_EQ(s.count, 104);
	io_space_remove(&s, 0x100);
	CHECK_EQ(s.count, 103);
	CHECK_EQ(io_space_read(&s, 0, 0x100, 4), 0xffffffff);
	io_space_free(&s);
	CHECK_EQ(io_space_read(&s, 0, 0x100, 2), 0xffff);
}

static void test_access(void)
{
	struct probe a = {0}, b = {0};
	struct io_space s = {0};

	add(&s, &a, 0x100, 4);
	add(&s, &b, 0x104, 4);
	CHECK_EQ(io_space_read(&s, 3, 0x102, 2), 0x2211);
	CHECK_EQ(a.off, 2);
	CHECK_EQ(a.size, 2);
	CHECK_EQ(io_space_read(&s, 0, 0x100, 4), 0x44332211);
	/* Half of it in each: byte by byte. */
	CHECK_EQ(io_space_read(&s, 0, 0x102, 4), 0x11111111);
	CHECK_EQ(b.off, 1);
	CHECK_EQ(b.size, 1);
	/* The end of one, then nothing. */
	CHECK_EQ(io_space_read(&s, 0, 0x107, 2), 0xff11);
	CHECK_EQ(io_space_read(&s, 0, 0xfe, 4), 0x1111ffff);
	CHECK_EQ(io_space_read(&s, 0, 0xf0, 8), UINT64_MAX);
	CHECK_EQ(io_space_read(&s, 0, 0x100, 8), 0x1111111111111111);
	io_space_write(&s, 0, 0x103, 2, 0xabcd);
	CHECK_EQ(a.value, 0xcd);
	CHECK_EQ(a.off, 3);
	CHECK_EQ(b.value, 0xab);
	io_space_write(&s, 0, 0x100, 1, 0xfff);
	CHECK_EQ(a.value, 0xff);
	CHECK_EQ(io_space_read(&s, 0, UINT64_MAX - 1, 8), UINT64_MAX);
	io_space_free(&s);
}

static unsigned lines;

static void sink(void *opaque, const char *line)
{
	(void)opaque;
	CHECK(!strchr(line, '\n'));
	lines++;
}

static void test_log(void)
{
	dev_log_set_sink(sink, NULL);
	for (unsigned i = 0; i < 100000; i++)
		dev_log("a device", "message %u %s", i,
			"that is long enough to be cut off xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			"x"
			"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
			"x"
			"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
	CHECK(lines >= 10 && lines < 100);
	dev_log_set_sink(NULL, NULL);
}

int main(void)
{
	test_add();
	test_access();
	test_log();
	return dev_result("io_space");
}
