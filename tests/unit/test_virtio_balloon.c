/* virtio-balloon: pages given up and reported, what the guest knows of its memory, hostile
 * requests. */
#include "tests/unit/virtio_util.h"

#define V1	  (1ULL << 32)
#define STATS	  (1ULL << 1)
#define POISON	  (1ULL << 4)
#define REPORTING (1ULL << 5)
#define BUF	  0x18000u
#define CONFIG	  0x2000

static struct vt t, other;
static struct gpa_range range[64];
static unsigned ranges, calls, changes;
static uint64_t changed_to;
static int refuse;

static int discard(void *opaque, const struct gpa_range *r, unsigned count)
{
	(void)opaque;
	if (refuse)
		return refuse;
	for (unsigned i = 0; i < count; i++) {
		if (r[i].gpa >= 1 << 30 || r[i].len > (1 << 30) - r[i].gpa)
			return -EFAULT;
	}
	for (unsigned i = 0; i < count; i++, ranges++) {
		if (ranges < 64)
			range[ranges] = r[i];
	}
	calls++;
	return 0;
}

static void changed(void *opaque, uint64_t bytes)
{
	(void)opaque;
	changes++;
	changed_to = bytes;
}

static void quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

static void create(struct vt *vt)
{
	const struct virtio_config config = vt_start(vt, "balloon0");
	const struct virtio_balloon_config balloon = {discard, changed, NULL};

	CHECK_EQ(virtio_balloon_create(&vt->dev, &config, &balloon), 0);
	ranges = calls = changes = 0;
	refuse = 0;
}

static void start(uint64_t features)
{
	create(&t);
	vt_drive(&t, 4, V1 | features, true);
}

static void pfns(const uint32_t *pfn, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		vt_mem(&t, BUF + 4 * i, 4, pfn[i]);
	vt_desc(&t, VT_DESC(0), 0, BUF, 4 * n, 0, 0);
	vt_offer(&t, 0, 0);
	vt_notify(&t, 0);
}

static void test_inflate(void)
{
	const uint32_t pfn[] = {9, 7, 5, 6, 9, 20};

	start(0);
	CHECK_EQ(vt_get(&t, CONFIG, 4), 0);
	virtio_balloon_set(t.dev, 5 << 12);
	CHECK_EQ(vt_get(&t, CONFIG, 4), 5);
	CHECK_EQ(vt_get(&t, CONFIG + 1, 1), 0);
	CHECK_EQ(t.msis, 1);
	pfns(pfn, 6);
	CHECK_EQ(vt_used(&t, 0, NULL), 0);
	CHECK_EQ(ranges, 3);
	CHECK(range[0].gpa == 5 << 12 && range[0].len == 3 << 12);
	CHECK(range[1].gpa == 9 << 12 && range[1].len == 1 << 12);
	CHECK(range[2].gpa == 20 << 12 && range[2].len == 1 << 12);
	CHECK_EQ(calls, 1); /* vCPUs are waited for once */
	vt_put(&t, CONFIG + 4, 4, 5);
	CHECK_EQ(vt_get(&t, CONFIG + 4, 4), 5);
	CHECK_EQ(virtio_balloon_actual(t.dev), 5 << 12);
	CHECK_EQ(changes, 0);
	vt_run(&t, 10);
	CHECK_EQ(changes, 1);
	CHECK_EQ(changed_to, 5 << 12);
	/* Deflate: nothing but an answer. */
	vt_desc(&t, VT_DESC(1), 0, BUF, 24, 0, 0);
	vt_offer(&t, 1, 0);
	vt_notify(&t, 1);
	CHECK_EQ(vt_used(&t, 1, NULL), 0);
	CHECK_EQ(ranges, 3);
	/* The host cannot: the guest's page is given up all the same. */
	refuse = -ENOMEM;
	pfns(pfn, 1);
	CHECK_EQ(vt_used(&t, 0, NULL), 0);
	CHECK_EQ(vt_get(&t, 0x14, 1), 15);
	/* A reset gives all back; what is asked for stays. */
	vt_drive(&t, 4, V1, true);
	CHECK_EQ(virtio_balloon_actual(t.dev), 0);
	CHECK_EQ(vt_get(&t, CONFIG, 4), 5);
	/* Beyond memory. */
	refuse = 0;
	pfns((uint32_t[]){3, UINT32_MAX}, 2);
	CHECK_EQ(vt_get(&t, 0x14, 1), 0x4f);
	vt_stop(&t);
}

static void test_report(unsigned queue, uint64_t features)
{
	start(features);
	vt_desc(&t, VT_DESC(queue), 0, 0x10000000, 0x400000, 3, 1);
	vt_desc(&t, VT_DESC(queue), 1, 0x20000000, 0x200000, 2, 0);
	vt_offer(&t, queue, 0);
	vt_notify(&t, queue);
	CHECK_EQ(vt_used(&t, queue, NULL), 0);
	CHECK_EQ(ranges, 2);
	CHECK(range[0].gpa == 0x10000000 && range[0].len == 0x400000);
	CHECK(range[1].gpa == 0x20000000 && range[1].len == 0x200000);
	/* Memory that must not read as zeroes stays. */
	vt_put(&t, CONFIG + 12, 4, 0xaa);
	CHECK_EQ(vt_get(&t, CONFIG + 12, 4), features & POISON ? 0xaa : 0);
	vt_offer(&t, queue, 0);
	vt_notify(&t, queue);
	CHECK_EQ(vt_used(&t, queue, NULL), 0);
	CHECK_EQ(ranges, features & POISON ? 2 : 4);
	/* Outside of memory. */
	vt_drive(&t, 4, V1 | features, true);
	vt_desc(&t, VT_DESC(queue), 0, 0x40000000, 0x1000, 2, 0);
	vt_offer(&t, queue, 0);
	vt_notify(&t, queue);
	CHECK_EQ(vt_get(&t, 0x14, 1), 0x4f);
	vt_stop(&t);
}

/* Terabytes: the loop gets its turn in between. */
static void test_endless(void)
{
	unsigned turns = 0;

	start(STATS | REPORTING);
	for (unsigned i = 0; i < 16; i++)
		vt_desc(&t, VT_DESC(3), i, 0, 1 << 30, 2 | (i < 15), i + 1);
	for (unsigned i = 0; i < 8; i++)
		vt_offer(&t, 3, 0);
	vt_put(&t, 0x3000 + 12, 2, 3);
	while (vt_run(&t, 1))
		turns++;
	CHECK_EQ(turns, 9);
	CHECK_EQ(ranges, 128);
	vt_stop(&t);
}

static void stat(unsigned n, unsigned tag, uint64_t value)
{
	vt_mem(&t, BUF + 10 * n, 2, tag);
	vt_mem(&t, BUF + 10 * n + 2, 8, value);
}

static void test_stats(void)
{
	struct virtio_balloon_stats stats;

	start(STATS);
	stat(0, BALLOON_FREE, 0x123456789);
	stat(1, 77, 1); /* of a newer version */
	stat(2, BALLOON_TOTAL, 0x200000000);
	vt_desc(&t, VT_DESC(2), 0, BUF, 30, 0, 0);
	vt_offer(&t, 2, 0);
	vt_notify(&t, 2);
	/* The buffer stays until it is asked for. */
	CHECK_EQ(vt_used(&t, 2, NULL), -1);
	virtio_balloon_get_stats(t.dev, &stats);
	CHECK_EQ(stats.known, 1u << BALLOON_FREE | 1u << BALLOON_TOTAL);
	CHECK_EQ(stats.value[BALLOON_FREE], 0x123456789);
	CHECK_EQ(stats.value[BALLOON_TOTAL], 0x200000000);
	vt_run(&t, 10);
	CHECK_EQ(vt_used(&t, 2, NULL), 0);
	stat(0, BALLOON_FREE, 5);
	vt_offer(&t, 2, 0);
	vt_notify(&t, 2);
	CHECK_EQ(vt_used(&t, 2, NULL), -1);
	virtio_balloon_get_stats(t.dev, &stats);
	CHECK_EQ(stats.value[BALLOON_FREE], 5);
	/* A buffer that is too short, one that is empty, one that is much too long. */
	vt_run(&t, 10);
	for (unsigned len = 0; len < 0x8000; len += len ? 0x7000 : 15) {
		vt_desc(&t, VT_DESC(2), 0, 0x18000, len, 0, 0);
		vt_offer(&t, 2, 0);
		vt_notify(&t, 2);
		virtio_balloon_get_stats(t.dev, &stats);
		vt_run(&t, 10);
		CHECK_EQ(vt_get(&t, 0x14, 1), 15);
	}
	/* Not after a reset: they were another driver's. */
	vt_drive(&t, 4, V1 | STATS, true);
	virtio_balloon_get_stats(t.dev, &stats);
	CHECK_EQ(stats.known, 0);
	vt_stop(&t);
}

static void test_state(void)
{
	char err[128];

	start(STATS | REPORTING | POISON);
	create(&other);
	CHECK_EQ(field_check(t.dev->state, err, sizeof(err)), 0);
	virtio_balloon_set(t.dev, 7 << 12);
	vt_put(&t, CONFIG + 4, 4, 6);
	vt_put(&t, CONFIG + 12, 4, 0xaa);
	/* The buffer of the statistics moves with the ring. */
	stat(0, BALLOON_FREE, 5);
	vt_desc(&t, VT_DESC(2), 0, BUF, 10, 0, 0);
	vt_offer(&t, 2, 0);
	vt_notify(&t, 2);
	dev_move(t.dev, other.dev);
	memcpy(other.ram, t.ram, sizeof(t.ram));
	other.size = t.size;
	vt_run(&other, 10);
	CHECK_EQ(vt_get(&other, CONFIG, 4), 7);
	CHECK_EQ(vt_get(&other, CONFIG + 4, 4), 6);
	CHECK_EQ(vt_get(&other, CONFIG + 12, 4), 0xaa);
	virtio_balloon_get_stats(other.dev, &(struct virtio_balloon_stats){0});
	vt_run(&other, 10);
	CHECK_EQ(vt_used(&other, 2, NULL), 0);
	vt_stop(&other);
	vt_stop(&t);
}

int main(void)
{
	dev_log_set_sink(quiet, NULL);
	test_inflate();
	test_report(3, STATS | REPORTING);
	test_report(3, STATS | REPORTING | POISON);
	test_report(2, REPORTING); /* a driver without statistics counts one queue less */
	test_endless();
	test_stats();
	test_state();
	return dev_result("virtio-balloon");
}
