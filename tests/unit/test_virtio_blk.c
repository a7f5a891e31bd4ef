/* virtio-blk: requests of all types, limits, errors of host and guest, write-through, batches,
 * resets in the middle, a host without space, state. */
#include "tests/unit/block_mock.h"
#include "tests/unit/virtio_util.h"

#define V1	 (1ULL << 32)
#define INDIRECT (1ULL << 28)
#define F_FLUSH	 (1ULL << 9)
#define F_WCE	 (1ULL << 11)
#define HDR	 0x10000u /* headers, 16 bytes each */
#define STATUS	 0x11000u /* status bytes */
#define DATA	 0x12000u
#define CONFIG	 0x2000
#define IN	 0
#define OUT	 1
#define FLUSH	 4
#define GET_ID	 8
#define DISCARD	 11
#define ZEROES	 13

static struct vt a, b;
static struct bm disk_a, disk_b;
static unsigned full_calls;
static char last_log[256];

static void log_line(void *opaque, const char *line)
{
	(void)opaque;
	snprintf(last_log, sizeof(last_log), "%s", line);
	if (getenv("VERBOSE"))
		puts(line);
}

static void full(void *opaque, struct device *dev)
{
	CHECK(opaque == &full_calls && dev);
	full_calls++;
}

static void create(struct vt *t, struct bm *m, struct virtio_blk_config blk, bool read_only)
{
	struct virtio_config config = vt_start(t, "disk0");

	bm_init(m, read_only);
	blk.block = &m->b;
	if (!blk.queues)
		blk.queues = 1;
	CHECK_EQ(virtio_blk_create(&t->dev, &config, &blk), 0);
}

static void start(struct vt *t, struct bm *m, uint64_t features)
{
	create(t, m, (struct virtio_blk_config){.write_cache = true, .serial = "SN-1"}, false);
	vt_drive(t, 1, V1 | features, true);
}

/* Request n of descriptors 3n..3n+2: header, `len` bytes at DATA + n * 4096, status. */
static void offer(struct vt *t, unsigned n, unsigned type, uint64_t sector, uint32_t len)
{
	const unsigned d = 3 * n;
	const bool in = type == IN || type == GET_ID;

	vt_mem(t, HDR + 16 * n, 4, type);
	vt_mem(t, HDR + 16 * n + 4, 4, 0);
	vt_mem(t, HDR + 16 * n + 8, 8, sector);
	vt_mem(t, STATUS + n, 1, 0xff);
	vt_desc(t, VT_DESC(0), d, HDR + 16 * n, 16, 1, len ? d + 1 : d + 2);
	vt_desc(t, VT_DESC(0), d + 1, DATA + n * 4096, len, in ? 3 : 1, d + 2);
	vt_desc(t, VT_DESC(0), d + 2, STATUS + n, 1, 2, 0);
	vt_offer(t, 0, d);
}

/* A request that ends at once. Its status. */
static unsigned one(struct vt *t, struct bm *m, unsigned type, uint64_t sector, uint32_t len)
{
	unsigned head = 99;

	offer(t, 0, type, sector, len);
	vt_notify(t, 0);
	bm_end_all(m);
	vt_run(t, 10);
	CHECK(vt_used(t, 0, &head) >= 1);
	CHECK_EQ(head, 0);
	return (unsigned)vt_peek(t, STATUS, 1);
}

static void range(struct vt *t, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	vt_mem(t, DATA, 8, sector);
	vt_mem(t, DATA + 8, 4, sectors);
	vt_mem(t, DATA + 12, 4, flags);
}

static void test_config(void)
{
	create(&a, &disk_a,
	       (struct virtio_blk_config){.write_cache = true, .queues = 2, .serial = "x"}, false);
	CHECK_EQ(vt_cfg(&a, 0, 4), 0x10421af4);
	vt_cfg_put(&a, 4, 2, 6);
	CHECK_EQ(vt_get(&a, 4, 4), 3u << 28 | 0x7e46);
	CHECK_EQ(vt_get(&a, CONFIG, 4), BM_SIZE / 512);
	CHECK_EQ(vt_get(&a, CONFIG + 4, 4), 0);
	CHECK_EQ(vt_get(&a, CONFIG + 12, 4), 254);
	CHECK_EQ(vt_get(&a, CONFIG + 20, 4), 512);
	CHECK_EQ(vt_get(&a, CONFIG + 34, 2), 2);
	CHECK_EQ(vt_get(&a, 0x12, 2), 2);
	vt_stop(&a);
	/* The cache is the driver's only if both know of it. */
	start(&a, &disk_a, F_FLUSH);
	CHECK_EQ(vt_get(&a, CONFIG + 32, 1), 1);
	vt_put(&a, CONFIG + 32, 1, 0);
	CHECK_EQ(vt_get(&a, CONFIG + 32, 1), 1);
	vt_drive(&a, 1, V1 | F_FLUSH | F_WCE, true);
	vt_put(&a, CONFIG + 32, 1, 0);
	CHECK_EQ(vt_get(&a, CONFIG + 32, 1), 0);
	vt_put(&a, 0x14, 1, 0);
	CHECK_EQ(vt_get(&a, CONFIG + 32, 1), 1);
	vt_stop(&a);
}

static void test_data(void)
{
	unsigned head;

	start(&a, &disk_a, F_FLUSH);
	for (unsigned i = 0; i < 2048; i++)
		a.ram[DATA + i] = (uint8_t)(i * 7);
	a.dirty = 0;
	CHECK_EQ(one(&a, &disk_a, OUT, 3, 2048), 0);
	CHECK(!memcmp(disk_a.disk + 3 * 512, a.ram + DATA, 2048));
	CHECK(a.dirty < 512); /* status and ring: nothing was read into memory */
	memset(a.ram + DATA, 0, 4096);
	offer(&a, 0, IN, 4, 1024);
	vt_notify(&a, 0);
	CHECK_EQ(disk_a.in_flight, 1);
	CHECK_EQ(vt_used(&a, 0, &head), -1);
	a.dirty = 0;
	bm_end_all(&disk_a);
	CHECK_EQ(vt_used(&a, 0, &head), 1025);
	CHECK(a.dirty >= 1025);
	CHECK(!memcmp(disk_a.disk + 4 * 512, a.ram + DATA, 1024));
	CHECK_EQ(one(&a, &disk_a, FLUSH, 0, 0), 0);
	CHECK_EQ(disk_a.calls[BLOCK_FLUSH], 1);
	CHECK_EQ(one(&a, &disk_a, GET_ID, 0, 20), 0);
	CHECK(!memcmp(a.ram + DATA, "SN-1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20));
	a.ram[DATA + 2] = 'x';
	CHECK_EQ(one(&a, &disk_a, GET_ID, 0, 2), 0);
	CHECK_EQ(a.ram[DATA + 2], 'x');
	CHECK_EQ(one(&a, &disk_a, 10, 0, 20), 2);
	CHECK_EQ(one(&a, &disk_a, 14, 0, 16), 2);
	CHECK_EQ(one(&a, &disk_a, 0xffffffff, 0, 16), 2);
	/* Zeroes, discards. */
	range(&a, 3, 1, 0);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 16), 0);
	CHECK(!disk_a.disk[3 * 512 + 1] && disk_a.disk[4 * 512 + 1]);
	range(&a, 5, 1, 1);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 16), 0);
	range(&a, 6, 1, 0);
	CHECK_EQ(one(&a, &disk_a, DISCARD, 0, 16), 0);
	CHECK_EQ(disk_a.disk[6 * 512], 0xdd);
	CHECK_EQ(disk_a.calls[BLOCK_ZEROES], 2);
	range(&a, 6, 1, 1);
	CHECK_EQ(one(&a, &disk_a, DISCARD, 0, 16), 2);
	range(&a, 6, 1, 2);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 16), 2);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 32), 2);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 0), 2);
	vt_stop(&a);
}

/* Nothing reaches the back end that is not within the disk. */
static void test_limits(void)
{
	const uint64_t last = BM_SIZE / 512 - 1;
	unsigned calls;

	start(&a, &disk_a, F_FLUSH);
	CHECK_EQ(one(&a, &disk_a, IN, last, 512), 0);
	CHECK_EQ(one(&a, &disk_a, IN, last + 1, 0), 0);
	calls = disk_a.calls[BLOCK_READ];
	CHECK_EQ(one(&a, &disk_a, IN, last, 1024), 1);
	CHECK_EQ(one(&a, &disk_a, IN, last + 1, 512), 1);
	CHECK_EQ(one(&a, &disk_a, IN, last + 2, 0), 1);
	CHECK_EQ(one(&a, &disk_a, IN, UINT64_MAX, 512), 1);
	CHECK_EQ(one(&a, &disk_a, IN, UINT64_MAX / 512 + 1, 512), 1);
	CHECK_EQ(one(&a, &disk_a, OUT, 1ULL << 55, 512), 1);
	CHECK_EQ(one(&a, &disk_a, IN, 0, 511), 1);
	CHECK_EQ(one(&a, &disk_a, OUT, 0, 513), 1);
	range(&a, last, 2, 0);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 16), 1);
	range(&a, UINT64_MAX, 1, 0);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 16), 1);
	range(&a, 0, UINT32_MAX, 0);
	CHECK_EQ(one(&a, &disk_a, DISCARD, 0, 16), 1);
	CHECK_EQ(disk_a.calls[BLOCK_READ], calls);
	CHECK_EQ(disk_a.calls[BLOCK_WRITE] + disk_a.calls[BLOCK_ZEROES], 0);
	/* Errors of the host. */
	disk_a.fail = -EIO;
	snprintf(disk_a.b.last_error, sizeof(disk_a.b.last_error), "read at 0: bad");
	CHECK_EQ(one(&a, &disk_a, IN, 0, 512), 1);
	CHECK(strstr(last_log, "read at 0: bad"));
	CHECK_EQ(one(&a, &disk_a, FLUSH, 0, 0), 1);
	vt_stop(&a);
	/* A disk that may only be read. */
	create(&a, &disk_a, (struct virtio_blk_config){.write_cache = true}, true);
	vt_drive(&a, 1, V1 | F_FLUSH, true);
	vt_put(&a, 0, 4, 0);
	CHECK_EQ(vt_get(&a, 4, 4) & 0x6020, 0x20);
	CHECK_EQ(one(&a, &disk_a, OUT, 0, 512), 1);
	CHECK_EQ(one(&a, &disk_a, OUT, 0, 0), 1);
	range(&a, 0, 1, 0);
	CHECK_EQ(one(&a, &disk_a, ZEROES, 0, 16), 1);
	CHECK_EQ(one(&a, &disk_a, DISCARD, 0, 16), 1);
	CHECK_EQ(one(&a, &disk_a, IN, 0, 512), 0);
	CHECK_EQ(one(&a, &disk_a, FLUSH, 0, 0), 0);
	CHECK_EQ(one(&a, &disk_a, GET_ID, 0, 20), 0);
	CHECK_EQ(a.ram[DATA], 0);
	vt_stop(&a);
}

/* What no driver may give: the device waits for its reset, and works again after it. */
static void test_hostile(void)
{
	for (unsigned i = 0; i < 6; i++) {
		start(&a, &disk_a, INDIRECT);
		switch (i) {
		case 0: /* no status */ vt_desc(&a, VT_DESC(0), 0, HDR, 16, 0, 0); break;
		case 1: /* half a header */
			vt_desc(&a, VT_DESC(0), 0, HDR, 15, 1, 1);
			vt_desc(&a, VT_DESC(0), 1, STATUS, 1, 2, 0);
			break;
		case 2: /* a header in the hole */
			vt_desc(&a, VT_DESC(0), 0, VT_HOLE, 16, 1, 1);
			vt_desc(&a, VT_DESC(0), 1, STATUS, 1, 2, 0);
			break;
		case 3: /* data half in the hole */
			vt_desc(&a, VT_DESC(0), 0, HDR, 16, 1, 1);
			vt_desc(&a, VT_DESC(0), 1, VT_HOLE - 512, 1024, 3, 2);
			vt_desc(&a, VT_DESC(0), 2, STATUS, 1, 2, 0);
			break;
		case 4: /* the status in the hole */
			vt_desc(&a, VT_DESC(0), 0, HDR, 16, 1, 1);
			vt_desc(&a, VT_DESC(0), 1, VT_HOLE, 1, 2, 0);
			break;
		default: /* more pieces than were offered */
			vt_desc(&a, 0x30000, 0, HDR, 16, 1, 1);
			for (unsigned k = 1; k <= 300; k++)
				vt_desc(&a, 0x30000, k, DATA + (k & 1) * 4096, 2, 3, k + 1);
			vt_desc(&a, 0x30000, 301, DATA, 424, 3, 302);
			vt_desc(&a, 0x30000, 302, STATUS, 1, 2, 0);
			vt_desc(&a, VT_DESC(0), 0, 0x30000, 303 * 16, 4, 0);
			break;
		}
		vt_mem(&a, HDR, 8, 0);
		vt_mem(&a, HDR, 4, i == 4 ? FLUSH : IN);
		vt_mem(&a, HDR + 8, 8, 0);
		vt_offer(&a, 0, 0);
		vt_notify(&a, 0);
		bm_end_all(&disk_a);
		vt_run(&a, 10);
		CHECK_EQ(vt_get(&a, 0x14, 1), 0x4f);
		CHECK_EQ(disk_a.calls[BLOCK_READ], 0);
		vt_drive(&a, 1, V1, true);
		CHECK_EQ(one(&a, &disk_a, IN, 0, 512), 0);
		vt_stop(&a);
	}
}

static void test_write_through(void)
{
	static const struct {
		bool host_cache;
		uint64_t features;
		int wish; /* of the driver; -1: none */
		bool through;
	} rows[] = {{true, F_FLUSH, -1, false},		{true, 0, -1, true},
		    {true, F_FLUSH | F_WCE, -1, false}, {true, F_FLUSH | F_WCE, 0, true},
		    {false, F_FLUSH, -1, true},		{false, F_FLUSH | F_WCE, -1, true},
		    {false, F_FLUSH | F_WCE, 1, false}};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		create(&a, &disk_a, (struct virtio_blk_config){.write_cache = rows[i].host_cache},
		       false);
		vt_drive(&a, 1, V1 | rows[i].features, true);
		if (rows[i].wish >= 0)
			vt_put(&a, CONFIG + 32, 1, (uint64_t)rows[i].wish);
		offer(&a, 0, OUT, 0, 512);
		vt_notify(&a, 0);
		bm_end(&disk_a, 0, 1);
		CHECK_EQ(vt_used(&a, 0, NULL), rows[i].through ? -1 : 1);
		CHECK_EQ(disk_a.in_flight, rows[i].through);
		CHECK_EQ(disk_a.calls[BLOCK_FLUSH], rows[i].through);
		if (rows[i].through) {
			/* The flush is what can fail. */
			disk_a.fail = i & 1 ? -EIO : 0;
			bm_end_all(&disk_a);
			CHECK_EQ(vt_used(&a, 0, NULL), 1);
			CHECK_EQ(vt_peek(&a, STATUS, 1), i & 1);
		}
		vt_stop(&a);
	}
}

static void test_batches(void)
{
	unsigned head;

	start(&a, &disk_a, F_FLUSH);
	for (unsigned i = 0; i < 5; i++)
		offer(&a, i, i & 1 ? OUT : IN, i, 512);
	a.msis = 0;
	vt_notify(&a, 0);
	CHECK_EQ(disk_a.in_flight, 5);
	CHECK_EQ(disk_a.commits, 1);
	bm_end(&disk_a, 3, 2); /* in whatever order, signalled once */
	CHECK_EQ(a.msis, 1);
	CHECK(vt_used(&a, 0, &head) > 0);
	CHECK_EQ(head, 9);
	CHECK(vt_used(&a, 0, &head) > 0);
	CHECK_EQ(head, 12);
	CHECK_EQ(vt_used(&a, 0, &head), -1);
	bm_end_all(&disk_a);
	CHECK_EQ(a.msis, 2);
	for (unsigned i = 0; i < 3; i++)
		CHECK(vt_used(&a, 0, &head) > 0);
	vt_stop(&a);
}

/* A reset while requests are in flight waits for them; what they read is told as written. */
static void test_reset(void)
{
	start(&a, &disk_a, F_FLUSH);
	offer(&a, 0, IN, 0, 512);
	offer(&a, 1, OUT, 0, 512);
	vt_notify(&a, 0);
	vt_put(&a, 0x14, 1, 0);
	vt_run(&a, 10);
	CHECK_EQ(vt_get(&a, 0x14, 1), 15);
	a.dirty = 0;
	bm_end(&disk_a, 0, 1);
	CHECK_EQ(a.dirty, 512);
	CHECK_EQ(vt_get(&a, 0x14, 1), 15);
	bm_end(&disk_a, 0, 1);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0);
	CHECK_EQ(vt_used(&a, 0, NULL), -1);
	vt_drive(&a, 1, V1, true);
	CHECK_EQ(one(&a, &disk_a, IN, 0, 512), 0);
	vt_stop(&a);
}

/* All requests in use: the rest waits in the rings and is taken when there is room. */
static void test_many(void)
{
	create(&a, &disk_a, (struct virtio_blk_config){.write_cache = true, .queues = 2}, false);
	vt_cfg_put(&a, 4, 2, 6);
	vt_put(&a, 0x14, 1, 3);
	vt_put(&a, 0x08, 4, 1);
	vt_put(&a, 0x0c, 4, 1);
	vt_put(&a, 0x14, 1, 11);
	vt_queue(&a, 0, 256, 0xffff);
	vt_queue(&a, 1, 256, 0xffff);
	vt_put(&a, 0x14, 1, 15);
	for (unsigned q = 0; q < 2; q++) {
		/* The device need not care that it is one request many times. */
		vt_desc(&a, VT_DESC(q), 0, HDR, 16, 1, 1);
		vt_desc(&a, VT_DESC(q), 1, STATUS, 1, 2, 0);
		vt_mem(&a, HDR, 4, FLUSH);
		for (unsigned i = 0; i < 250; i++)
			vt_offer(&a, q, 0);
		vt_notify(&a, q);
	}
	CHECK_EQ(disk_a.in_flight, 256);
	CHECK_EQ(vt_run(&a, 10), 0);
	bm_end(&disk_a, 100, 3);
	vt_run(&a, 10);
	CHECK_EQ(disk_a.in_flight, 256);
	while (disk_a.in_flight) {
		bm_end(&disk_a, 0, disk_a.committed);
		vt_run(&a, 10);
	}
	CHECK_EQ(disk_a.calls[BLOCK_FLUSH], 500);
	CHECK_EQ(vt_peek(&a, VT_USED(0) + 2, 2), 250);
	CHECK_EQ(vt_peek(&a, VT_USED(1) + 2, 2), 250);
	vt_stop(&a);
}

static void test_full(void)
{
	struct virtio_blk_config blk = {.write_cache = true, .full = full, .opaque = &full_calls};
	unsigned head;

	full_calls = 0;
	create(&a, &disk_a, blk, false);
	vt_drive(&a, 1, V1 | F_FLUSH, true);
	disk_a.fail = -ENOSPC;
	disk_a.no_more = 8 * 512;
	memset(a.ram + DATA, 0x11, 512);
	memset(a.ram + DATA + 4096, 0x22, 512);
	memset(a.ram + DATA + 2 * 4096, 0x33, 512);
	offer(&a, 0, OUT, 10, 512);
	offer(&a, 1, OUT, 1, 512);
	offer(&a, 2, OUT, 10, 512);
	vt_notify(&a, 0);
	bm_end_all(&disk_a);
	vt_run(&a, 10);
	CHECK_EQ(full_calls, 1);
	CHECK_EQ(vt_used(&a, 0, &head), 1);
	CHECK_EQ(head, 3);
	CHECK_EQ(vt_used(&a, 0, &head), -1);
	CHECK_EQ(disk_a.in_flight, 0);
	/* Meanwhile the rest works, and nobody is told again. */
	CHECK_EQ(vt_peek(&a, STATUS, 1), 0xff);
	offer(&a, 3, OUT, 12, 512);
	offer(&a, 4, IN, 1, 512);
	vt_notify(&a, 0);
	bm_end_all(&disk_a);
	CHECK_EQ(vt_used(&a, 0, &head), 513);
	CHECK_EQ(full_calls, 1);
	/* Nothing is in flight, so the machine can be saved: the other one goes on with them, in
	 * order. */
	CHECK_EQ(a.dev->ops->prepare(a.dev), 0);
	CHECK_EQ(a.dev->ops->drain(a.dev), 0);
	create(&b, &disk_b, blk, false);
	CHECK_EQ(b.dev->ops->prepare(b.dev), 0);
	dev_move(a.dev, b.dev);
	memcpy(b.ram, a.ram, sizeof(b.ram));
	memcpy(b.avail, a.avail, sizeof(b.avail));
	memcpy(b.used, a.used, sizeof(b.used));
	b.size = a.size;
	CHECK_EQ(b.dev->ops->acquire(b.dev), 0);
	vt_run(&b, 10);
	CHECK_EQ(disk_b.in_flight, 3);
	bm_end_all(&disk_b);
	CHECK_EQ(disk_b.disk[10 * 512], 0x33);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(vt_used(&b, 0, &head), 1);
		CHECK_EQ(head, i ? 3 + 3 * i : 0);
		CHECK_EQ(vt_peek(&b, STATUS + head / 3, 1), 0);
	}
	vt_stop(&b);
	/* The old one, too, when it is asked to, and tells once more if that does not help. */
	CHECK_EQ(a.dev->ops->abort(a.dev), 0);
	vt_run(&a, 10);
	CHECK_EQ(disk_a.in_flight, 0);
	virtio_blk_retry(a.dev);
	vt_run(&a, 10);
	CHECK_EQ(disk_a.in_flight, 3);
	bm_end_all(&disk_a);
	CHECK_EQ(full_calls, 2);
	disk_a.fail = 0;
	virtio_blk_retry(a.dev);
	vt_run(&a, 10);
	bm_end_all(&disk_a);
	CHECK_EQ(disk_a.disk[10 * 512], 0x33);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(vt_used(&a, 0, NULL), 1);
	/* A reset forgets what waits. */
	disk_a.fail = -ENOSPC;
	offer(&a, 0, OUT, 10, 512);
	vt_notify(&a, 0);
	bm_end_all(&disk_a);
	CHECK_EQ(full_calls, 3);
	vt_put(&a, 0x14, 1, 0);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0);
	virtio_blk_retry(a.dev);
	vt_run(&a, 10);
	CHECK_EQ(disk_a.in_flight, 0);
	vt_stop(&a);
	/* Nobody to tell: an error for the guest. */
	start(&a, &disk_a, F_FLUSH);
	disk_a.fail = -ENOSPC;
	CHECK_EQ(one(&a, &disk_a, OUT, 10, 512), 1);
	vt_stop(&a);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	dev_poke(&a.w.mmio, VT_BAR, 0x40, 8, seed, 30);
	for (unsigned i = 0; i < 30; i++)
		a.ram[dev_random(seed) % 0x8000] = (uint8_t)dev_random(seed);
	vt_put(&a, 0x14, 1, 15);
	offer(&a, (unsigned)(dev_random(seed) % 5),
	      (const unsigned[]){IN, OUT, FLUSH, ZEROES}[*seed & 3], dev_random(seed) % 140, 512);
	vt_put(&a, 0x3000, 2, 0);
	disk_a.fail = dev_random(seed) % 4 ? 0 : -ENOSPC;
	vt_run(&a, 20);
	bm_end_all(&disk_a);
	if (dev_random(seed) & 1)
		virtio_blk_retry(a.dev);
	vt_run(&a, 20);
	bm_end_all(&disk_a);
}

static void test_state(void)
{
	struct virtio_blk_config blk = {.write_cache = true, .full = full, .opaque = &full_calls};
	uint64_t seed = 3;
	char err[128];

	create(&a, &disk_a, blk, false);
	create(&b, &disk_b, blk, false);
	CHECK_EQ(field_check(a.dev->state, err, sizeof(err)), 0);
	vt_drive(&a, 1, V1 | F_FLUSH | F_WCE, true);
	vt_put(&a, CONFIG + 32, 1, 0);
	disk_a.fail = -ENOSPC;
	for (unsigned i = 0; i < 4; i++)
		offer(&a, i, OUT, i, 512);
	vt_notify(&a, 0);
	bm_end_all(&disk_a);
	dev_move(a.dev, b.dev);
	CHECK_EQ(vt_get(&b, CONFIG + 32, 1), 0);
	vt_drive(&b, 1, V1 | F_FLUSH | F_WCE, true);
	disk_b.fail = -ENOSPC;
	for (unsigned i = 0; i < 4; i++)
		offer(&b, i, OUT, i, 512);
	vt_notify(&b, 0);
	bm_end_all(&disk_b);
	printf("virtio-blk: %u of 1000 damaged states refused\n",
	       dev_corrupt(b.dev, a.dev, 1000, poke, NULL));
	for (unsigned i = 0; i < 2000; i++)
		poke(NULL, &seed);
	vt_stop(&b);
	vt_stop(&a);
}

static unsigned texts;
static void count_text(void *opaque, const char *name, const char *value)
{
	(void)opaque;
	texts += !strcmp(name, "file") && !strcmp(value, "mock.img");
	texts += !strcmp(name, "mechanism") && !strcmp(value, "memory");
}

static uint64_t counted;
static void add_counter(void *opaque, const char *name, uint64_t value)
{
	(void)opaque;
	if (!strcmp(name, "reads") || !strcmp(name, "writes") || !strcmp(name, "written-bytes"))
		counted += value;
}

static void test_inspect(void)
{
	const struct inspector to = {add_counter, count_text, NULL};

	start(&a, &disk_a, F_FLUSH);
	one(&a, &disk_a, OUT, 0, 1024);
	one(&a, &disk_a, IN, 0, 512);
	a.dev->ops->inspect(a.dev, &to);
	CHECK_EQ(texts, 2);
	CHECK_EQ(counted, 1026);
	vt_stop(&a);
}

int main(void)
{
	dev_log_set_sink(log_line, NULL);
	test_config();
	test_data();
	test_limits();
	test_hostile();
	test_write_through();
	test_batches();
	test_reset();
	test_many();
	test_full();
	test_state();
	test_inspect();
	return dev_result("virtio-blk");
}
