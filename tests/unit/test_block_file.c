/* Raw files, the same table for each mechanism: data, pieces, alignment, holes, zeroes, errors of
 * the host, a file that shrinks, more requests than a ring has entries. */
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/block_util.h"

#define MIB  (1u << 20)
#define SIZE (64 * (uint64_t)MIB)

static const struct mechanism {
	const char *name;
	enum block_aio aio;
	enum block_cache cache;
} mechanisms[] = {
	{"io_uring", BLOCK_AIO_URING, BLOCK_CACHE_WRITEBACK},
	{"threads", BLOCK_AIO_THREADS, BLOCK_CACHE_WRITEBACK},
	{"io_uring, O_DIRECT", BLOCK_AIO_URING, BLOCK_CACHE_NONE},
	{"threads, O_DIRECT", BLOCK_AIO_THREADS, BLOCK_CACHE_NONE},
	{"unsafe", BLOCK_AIO_AUTO, BLOCK_CACHE_UNSAFE},
};

static unsigned char *want, *got;
static int side; /* the same file, beside the back end */

static void fill(unsigned char *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)dev_random(&seed);
}

static uint64_t allocated(void)
{
	struct stat st;

	CHECK_EQ(fstat(side, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* Everything that was written comes back, whatever the pieces' alignment. */
static void test_data(struct block *b)
{
	struct bt_request t = {.r = {.op = BLOCK_WRITE, .offset = 512, .bytes = 3 * MIB}};

	fill(want, 4 * MIB, 7);
	CHECK_EQ(bt_transfer(b, BLOCK_WRITE, 0, want, 512), 0);
	/* Five pieces at odd places, longer together than what is copied at once. */
	t.iov[0] = (struct iovec){want + 512, 1};
	t.iov[1] = (struct iovec){want + 513, 4095};
	t.iov[2] = (struct iovec){want + 513 + 4095, 2 * MIB};
	t.iov[3] = (struct iovec){want + 513 + 4095 + 2 * MIB, MIB - 8192};
	t.iov[4] = (struct iovec){want + 513 + 4095 + 3 * MIB - 8192, 4096};
	t.r.iov = t.iov;
	t.r.iovs = 5;
	bt_submit(b, &t);
	bt_wait(b);
	CHECK_EQ(t.result, 0);
	CHECK_EQ(pread(side, got, 3 * MIB + 512, 0), 3 * MIB + 512);
	CHECK(!memcmp(got, want, 3 * MIB + 512));
	memset(got, 0, 4 * MIB);
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 1024, got + 1, MIB + 512), 0);
	CHECK(!memcmp(got + 1, want + 1024, MIB + 512));
	CHECK(!got[0] && !got[MIB + 513]);
	memset(got, 0, 4 * MIB);
	t = (struct bt_request){.r = {.op = BLOCK_READ, .bytes = 3 * MIB}};
	t.iov[0] = (struct iovec){got + 3, 1 * MIB + 77};
	t.iov[1] = (struct iovec){got + 2 * MIB, 2 * MIB - 77};
	t.r.iov = t.iov;
	t.r.iovs = 2;
	bt_submit(b, &t);
	bt_wait(b);
	CHECK_EQ(t.result, 0);
	CHECK(!memcmp(got + 3, want, MIB + 77));
	CHECK(!memcmp(got + 2 * MIB, want + MIB + 77, 2 * MIB - 77));
	CHECK_EQ(bt_simple(b, BLOCK_FLUSH, 512, 4096, false), 0); /* which say nothing */
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 0), 0);
}

/* As many at once as no ring holds, in batches of one commit. */
static void test_many(struct block *b)
{
	enum { N = 1000 };
	static struct bt_request t[N];
	const unsigned before = bt_batches;

	fill(want, N * 512, 11);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < N; i++) {
			const unsigned at = (i * 7 % N) * 512;

			t[i] = (struct bt_request){.r = {.op = round ? BLOCK_READ : BLOCK_WRITE,
							 .offset = at,
							 .bytes = 512}};
			t[i].iov[0] = (struct iovec){(round ? got : want) + at, 512};
			t[i].r.iov = t[i].iov;
			t[i].r.iovs = 1;
			bt_submit(b, &t[i]);
		}
		CHECK_EQ(b->in_flight, N);
		bt_wait(b);
		for (unsigned i = 0; i < N; i++)
			CHECK(t[i].over && !t[i].result);
	}
	CHECK(!memcmp(got, want, N * 512));
	CHECK(bt_batches - before < 2 * N);
}

static bool all_zero(const unsigned char *p, size_t len)
{
	while (len && !*p)
		p++, len--;
	return !len;
}

static void test_space(struct block *b)
{
	uint64_t full, holes;

	fill(want, 4 * MIB, 3);
	CHECK_EQ(bt_transfer(b, BLOCK_WRITE, 8 * MIB, want, 4 * MIB), 0);
	CHECK_EQ(bt_simple(b, BLOCK_FLUSH, 0, 0, false), 0);
	CHECK_EQ(fsync(side), 0);
	full = allocated();
	CHECK_EQ(bt_simple(b, BLOCK_DISCARD, 8 * MIB, 2 * MIB, false), 0);
	holes = allocated();
	CHECK(!b->can_discard || holes + 2 * MIB <= full + 65536);
	CHECK_EQ(bt_simple(b, BLOCK_ZEROES, 10 * MIB, MIB, true), 0);
	CHECK(!b->can_discard || allocated() + 3 * MIB <= full + 65536);
	holes = allocated();
	CHECK_EQ(bt_simple(b, BLOCK_ZEROES, 11 * MIB + 512, MIB - 1024, false), 0);
	CHECK(allocated() + 65536 >= holes); /* zeroes that keep their space */
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 8 * MIB, got, 4 * MIB), 0);
	CHECK(all_zero(got + 2 * MIB, MIB));
	CHECK(all_zero(got + 3 * MIB + 512, MIB - 1024));
	CHECK(!memcmp(got + 3 * MIB, want + 3 * MIB, 512));
	CHECK(!memcmp(got + 4 * MIB - 512, want + 4 * MIB - 512, 512));
}

/* The file is not what it was when it was opened. */
static void test_shrunk(struct block *b)
{
	const uint64_t errors = b->errors;

	CHECK_EQ(ftruncate(side, 4 * MIB), 0);
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 5 * MIB, got, 4096), -ENODATA);
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 4 * MIB - 4096, got, 8192), -ENODATA);
	CHECK_EQ(b->errors, errors + 2);
	CHECK(strstr(b->last_error, "read at 4190208: the file has become shorter"));
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 4096), 0);
	CHECK_EQ(ftruncate(side, (off_t)SIZE), 0);
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 5 * MIB, got, 4096), 0);
}

/* An error in the middle of a long write, from a limit that stands in for a full disk. */
static void test_limit(struct block *b)
{
	struct rlimit old, limit;

	fill(want, 4 * MIB, 5);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = old;
	limit.rlim_cur = 16 * MIB;
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
	CHECK_EQ(bt_transfer(b, BLOCK_WRITE, 15 * MIB, want, 2 * MIB), -EFBIG);
	CHECK_EQ(bt_transfer(b, BLOCK_WRITE, 17 * MIB, want, 4096), -EFBIG);
	CHECK(strstr(b->last_error, "write at 17825792: File too large"));
	CHECK_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
	CHECK_EQ(bt_transfer(b, BLOCK_WRITE, 15 * MIB, want, 2 * MIB), 0);
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 15 * MIB, got, 2 * MIB), 0);
	CHECK(!memcmp(want, got, 2 * MIB));
}

static void test_mechanism(const struct mechanism *m)
{
	struct block *b;

	side = bt_make("disk.img", SIZE, "", 0);
	b = bt_try(
		(struct block_open){.path = bt_path("disk.img"), .aio = m->aio, .cache = m->cache});
	if (!b) {
		printf("block-file: %s: not here: %s\n", m->name, bt_why);
		close(side);
		return;
	}
	printf("block-file: %s: %s\n", m->name, b->mechanism);
	CHECK_EQ(b->size, SIZE);
	test_data(b);
	test_many(b);
	test_space(b);
	test_shrunk(b);
	test_limit(b);
	b->ops->destroy(b);
	close(side);
}

/* Of a file that may only be read the host refuses writes, and the back end says so. */
static void test_read_only(void)
{
	struct block *b;

	side = bt_make("ro.img", MIB, "data", 4);
	CHECK_EQ(fchmod(side, 0400), 0);
	b = bt_try((struct block_open){.path = bt_path("ro.img"), .read_only = true});
	CHECK(b && b->read_only && !b->can_discard);
	if (b) {
		CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 512), 0);
		CHECK(!memcmp(got, "data", 4));
		CHECK(bt_transfer(b, BLOCK_WRITE, 0, got, 512) < 0);
		b->ops->destroy(b);
	}
	close(side);
}

int main(void)
{
	bt_start();
	want = aligned_alloc(4096, 8 * MIB);
	got = aligned_alloc(4096, 8 * MIB);
	if (!want || !got)
		return 1;
	for (unsigned i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++)
		test_mechanism(&mechanisms[i]);
	test_read_only();
	free(want);
	free(got);
	return bt_end("block-file");
}
