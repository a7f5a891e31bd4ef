/* virtio through its simplest device: transport, feature negotiation, rings with indirect
 * descriptors and event indexes, interrupts, resets, hostile rings, state. */
#include "tests/unit/virtio_util.h"

#define V1	 (1ULL << 32)
#define INDIRECT (1ULL << 28)
#define EVENT	 (1ULL << 29)
#define BUF	 0x10000u

static struct vt a, b;
static unsigned logged;

static void count_log(void *opaque, const char *line)
{
	(void)opaque;
	if (getenv("VERBOSE"))
		puts(line);
	logged++;
}

static void start(struct vt *t)
{
	struct virtio_config config = vt_start(t, "rng0");

	CHECK_EQ(virtio_rng_create(&t->dev, &config), 0);
}

static void test_transport(void)
{
	unsigned cap, types = 0;

	start(&a);
	CHECK_EQ(vt_cfg(&a, 0, 4), 0x10441af4);
	CHECK_EQ(vt_cfg(&a, 8, 4), 0x00ff0001);
	for (cap = (unsigned)vt_cfg(&a, 0x34, 1); cap; cap = (unsigned)vt_cfg(&a, cap + 1, 1))
		if (vt_cfg(&a, cap, 1) == 9)
			types |= 1u << vt_cfg(&a, cap + 3, 1);
	CHECK_EQ(types, 1u << 1 | 1u << 2 | 1u << 3 | 1u << 5);
	vt_cfg_put(&a, 4, 2, 6);
	/* Features: the device's, a driver that takes too much, one without version 1. */
	CHECK_EQ(vt_get(&a, 4, 4), 3u << 28);
	vt_put(&a, 0, 4, 1);
	CHECK_EQ(vt_get(&a, 4, 4), 1);
	vt_put(&a, 0, 4, 2);
	CHECK_EQ(vt_get(&a, 4, 4), 0);
	vt_put(&a, 8, 4, 1);
	vt_put(&a, 0xc, 4, 3);
	vt_put(&a, 0x14, 1, 11);
	CHECK_EQ(vt_get(&a, 0x14, 1), 3);
	vt_put(&a, 0xc, 4, 0);
	vt_put(&a, 0x14, 1, 15);
	CHECK_EQ(vt_get(&a, 0x14, 1), 3);
	vt_put(&a, 0xc, 4, 1);
	vt_put(&a, 0x14, 1, 11);
	CHECK_EQ(vt_get(&a, 0x14, 1), 11);
	vt_put(&a, 0xc, 4, 0); /* too late */
	CHECK_EQ(vt_get(&a, 0xc, 4), 1);
	/* Queues. */
	CHECK_EQ(vt_get(&a, 0x12, 2), 1);
	CHECK_EQ(vt_get(&a, 0x18, 2), 64);
	vt_put(&a, 0x18, 2, 63);
	vt_put(&a, 0x18, 2, 128);
	vt_put(&a, 0x18, 2, 0);
	CHECK_EQ(vt_get(&a, 0x18, 2), 64);
	vt_put(&a, 0x1a, 2, 1);
	CHECK_EQ(vt_get(&a, 0x1a, 2), 1);
	vt_put(&a, 0x1a, 2, 2); /* two vectors: 0 and 1 */
	CHECK_EQ(vt_get(&a, 0x1a, 2), 0xffff);
	vt_put(&a, 0x10, 2, 7);
	CHECK_EQ(vt_get(&a, 0x10, 2), 0xffff);
	vt_put(&a, 0x20, 8, 8); /* misaligned */
	vt_put(&a, 0x1c, 2, 1);
	CHECK_EQ(vt_get(&a, 0x1c, 2), 0);
	vt_put(&a, 0x20, 8, 0x123456789000);
	CHECK_EQ(vt_get(&a, 0x20, 8), 0x123456789000);
	CHECK_EQ(vt_get(&a, 0x24, 4), 0x1234);
	vt_put(&a, 0x1c, 2, 1);
	CHECK_EQ(vt_get(&a, 0x1c, 2), 1);
	vt_put(&a, 0x20, 8, 0);
	CHECK_EQ(vt_get(&a, 0x20, 8), 0x123456789000);
	vt_put(&a, 0x16, 2, 1); /* there is no second one */
	CHECK_EQ(vt_get(&a, 0x18, 2), 0);
	vt_put(&a, 0x1c, 2, 1);
	CHECK_EQ(vt_get(&a, 0x1c, 2), 0);
	vt_put(&a, 0x14, 1, 0);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0);
	vt_put(&a, 0x16, 2, 0);
	CHECK_EQ(vt_get(&a, 0x1c, 2), 0);
	/* Through configuration space (4.1.4.9): the queue's size. */
	for (cap = (unsigned)vt_cfg(&a, 0x34, 1); vt_cfg(&a, cap + 3, 1) != 5;)
		cap = (unsigned)vt_cfg(&a, cap + 1, 1);
	vt_cfg_put(&a, cap + 4, 1, 0);
	vt_cfg_put(&a, cap + 8, 4, 0x18);
	vt_cfg_put(&a, cap + 12, 4, 2);
	CHECK_EQ(vt_cfg(&a, cap + 16, 2), 64);
	vt_cfg_put(&a, cap + 16, 2, 32);
	CHECK_EQ(vt_get(&a, 0x18, 2), 32);
	vt_cfg_put(&a, cap + 4, 1, 3); /* no such BAR */
	CHECK_EQ(vt_cfg(&a, cap + 16, 2), 0xffff);
	vt_stop(&a);
}

static unsigned zeros(uint64_t gpa, unsigned len)
{
	unsigned n = 0;

	while (len--)
		n += !a.ram[gpa++];
	return n;
}

static void test_requests(void)
{
	unsigned head;

	start(&a);
	vt_drive(&a, 1, V1 | INDIRECT, true);
	vt_desc(&a, VT_DESC(0), 5, BUF, 64, 2, 0);
	vt_offer(&a, 0, 5);
	vt_notify(&a, 0);
	CHECK_EQ(vt_used(&a, 0, &head), 64);
	CHECK_EQ(head, 5);
	CHECK_EQ(vt_used(&a, 0, &head), -1);
	CHECK(zeros(BUF, 64) < 16);
	CHECK_EQ(zeros(BUF + 64, 64), 64);
	CHECK_EQ(a.msis, 1);
	CHECK_EQ(a.msi_data, 0x41);
	CHECK_EQ(a.dirty, 64 + 4 + 8 * 16 + 2); /* the buffer; the used ring, as a whole */
	/* A chain over pages, with a readable part that means nothing to this device. */
	vt_desc(&a, VT_DESC(0), 0, BUF, 100, 1, 3);
	vt_desc(&a, VT_DESC(0), 3, BUF + 4090, 12, 3, 1);
	vt_desc(&a, VT_DESC(0), 1, BUF + 8192, 5, 2, 9);
	vt_offer(&a, 0, 0);
	/* The same, indirect; without interrupts. */
	vt_desc(&a, VT_DESC(0), 7, BUF + 0x3000, 32, 4, 0);
	vt_desc(&a, BUF + 0x3000, 0, BUF + 0x4000, 4096, 3, 1);
	vt_desc(&a, BUF + 0x3000, 1, BUF + 0x6000, 4096, 2, 1);
	vt_offer(&a, 0, 7);
	vt_mem(&a, VT_AVAIL(0), 2, 1);
	vt_notify(&a, 0);
	CHECK_EQ(vt_used(&a, 0, &head), 17);
	CHECK_EQ(head, 0);
	CHECK_EQ(vt_used(&a, 0, &head), 4096);
	CHECK_EQ(head, 7);
	CHECK_EQ(zeros(BUF + 4096 + 6, 10), 10);
	CHECK_EQ(a.msis, 1);
	/* INTx and ISR. */
	vt_stop(&a);
	start(&a);
	vt_drive(&a, 1, V1, false);
	vt_desc(&a, VT_DESC(0), 0, BUF, 1, 2, 0);
	vt_offer(&a, 0, 0);
	vt_notify(&a, 0);
	CHECK(a.wires[1].level);
	CHECK_EQ(vt_get(&a, 0x1000, 1), 1);
	CHECK(!a.wires[1].level);
	CHECK_EQ(vt_get(&a, 0x1000, 1), 0);
	vt_stop(&a);
}

static void test_event_idx(void)
{
	start(&a);
	vt_drive(&a, 1, V1 | EVENT, true);
	for (unsigned i = 0; i < 16; i++)
		vt_desc(&a, VT_DESC(0), i, BUF + i, 1, 2, 0);
	/* The device wants to hear of request 0. */
	CHECK_EQ(vt_peek(&a, VT_USED(0) + 4 + 8 * 16, 2), 0);
	vt_mem(&a, VT_AVAIL(0) + 4 + 2 * 16, 2, 2); /* used_event: after the third */
	vt_offer(&a, 0, 0);
	vt_notify(&a, 0);
	CHECK_EQ(vt_peek(&a, VT_USED(0) + 4 + 8 * 16, 2), 1);
	a.msis = 0; /* the first signal is free */
	vt_offer(&a, 0, 1);
	vt_notify(&a, 0);
	CHECK_EQ(a.msis, 0);
	vt_offer(&a, 0, 2);
	vt_notify(&a, 0);
	CHECK_EQ(a.msis, 1);
	for (unsigned i = 3; i < 10; i++)
		vt_offer(&a, 0, i);
	vt_mem(&a, VT_AVAIL(0) + 4 + 2 * 16, 2, 5);
	vt_notify(&a, 0);
	CHECK_EQ(a.msis, 2); /* one for all of them */
	CHECK_EQ(vt_peek(&a, VT_USED(0) + 2, 2), 10);
	CHECK_EQ(vt_peek(&a, VT_USED(0) + 4 + 8 * 16, 2), 10);
	/* Around the end of 16 bits. */
	for (unsigned i = 10; i < 70000; i++) {
		vt_offer(&a, 0, i % 16);
		vt_mem(&a, VT_AVAIL(0) + 4 + 2 * 16, 2, i);
		vt_notify(&a, 0);
	}
	CHECK_EQ(a.msis, 2 + 70000 - 10);
	CHECK_EQ(vt_peek(&a, VT_USED(0) + 2, 2), 70000 & 0xffff);
	vt_stop(&a);
}

/* ---- a wrong driver: DEVICE_NEEDS_RESET, a line in the log, and all well after a reset ---- */

static void expect_failure(int line)
{
	vt_notify(&a, 0);
	if (vt_get(&a, 0x14, 1) != 0x4f)
		printf("line %d: not refused\n", line);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0x4f);
	CHECK_EQ(a.msi_data, 0x40); /* the configuration vector */
	vt_notify(&a, 0);
	vt_drive(&a, 1, V1 | INDIRECT, true);
	vt_desc(&a, VT_DESC(0), 5, BUF, 64, 2, 0);
	vt_offer(&a, 0, 5);
	vt_notify(&a, 0);
	CHECK_EQ(vt_used(&a, 0, NULL), 64);
}
#define REFUSED() expect_failure(__LINE__)

static void test_hostile(void)
{
	start(&a);
	vt_drive(&a, 1, V1 | INDIRECT, true);
	vt_offer(&a, 0, 16); /* beyond the table */
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 4, 3, 0); /* a loop */
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 4, 3, 1);
	vt_desc(&a, VT_DESC(0), 1, BUF, 4, 3, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 4, 3, 1); /* readable behind writable */
	vt_desc(&a, VT_DESC(0), 1, BUF, 4, 0, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, VT_HOLE - 4, 8, 2, 0); /* the second half is not there */
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, VT_RAM - 4, 8, 2, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, UINT64_MAX - 3, 8, 2, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_mem(&a, VT_AVAIL(0) + 2, 2, 18); /* more than there can be */
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 15, 4, 0); /* indirect: length, nesting, next, empty */
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 16, 4, 0);
	vt_desc(&a, BUF, 0, BUF + 32, 16, 4, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 16, 5, 1);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 0, 4, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 0xfffffff0, 4, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, VT_HOLE, 32, 4, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	vt_desc(&a, VT_DESC(0), 0, BUF, 16, 4, 0); /* an index beyond the indirect table */
	vt_desc(&a, BUF, 0, BUF + 32, 16, 3, 1);
	vt_offer(&a, 0, 0);
	REFUSED();
	/* Without the feature. */
	vt_drive(&a, 1, V1, true);
	vt_desc(&a, VT_DESC(0), 0, BUF, 16, 4, 0);
	vt_offer(&a, 0, 0);
	REFUSED();
	/* Rings that are not there. */
	for (unsigned ring = 0x20; ring <= 0x30; ring += 8) {
		vt_drive(&a, 1, V1 | INDIRECT, true);
		vt_desc(&a, VT_DESC(0), 5, BUF, 64, 2, 0);
		vt_offer(&a, 0, 5);
		vt_put(&a, 0x14, 1, 0);
		vt_put(&a, 0x08, 4, 1);
		vt_put(&a, 0x0c, 4, 1);
		vt_put(&a, 0x14, 1, 11);
		vt_put(&a, 0x10, 2, 0);
		vt_put(&a, 0x18, 2, 16);
		vt_put(&a, 0x20, 8, VT_DESC(0));
		vt_put(&a, 0x28, 8, VT_AVAIL(0));
		vt_put(&a, 0x30, 8, VT_USED(0));
		vt_put(&a, ring, 8, ring == 0x28 ? VT_RAM : VT_HOLE);
		vt_put(&a, 0x1c, 2, 1);
		vt_put(&a, 0x14, 1, 15);
		REFUSED();
	}
	/* A request that says terabytes gets what fits into a turn. */
	for (unsigned i = 0; i < 200; i++)
		vt_desc(&a, BUF + 0x1000, i, 0x30000, 0x8000, 2 | (i < 199), i + 1);
	vt_desc(&a, VT_DESC(0), 0, BUF + 0x1000, 200 * 16, 4, 0);
	vt_offer(&a, 0, 0);
	vt_notify(&a, 0);
	CHECK_EQ(vt_used(&a, 0, NULL), 4096);
	vt_stop(&a);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	dev_poke(&a.w.mmio, VT_BAR, 0x40, 8, seed, 30);
	dev_poke(&a.w.mmio, VT_BAR + 0x1000, 0x7000, 8, seed, 30);
	for (unsigned i = 0; i < 30; i++)
		a.ram[dev_random(seed) % 0x4000] = (uint8_t)dev_random(seed);
	vt_put(&a, 0x14, 1, 15);
	vt_run(&a, 20);
}

static void test_state(void)
{
	uint64_t seed = 3;
	char err[128];

	start(&a);
	start(&b);
	CHECK_EQ(field_check(a.dev->state, err, sizeof(err)), 0);
	vt_drive(&a, 1, V1 | INDIRECT, true);
	vt_desc(&a, VT_DESC(0), 5, BUF, 64, 2, 0);
	vt_offer(&a, 0, 5);
	vt_put(&a, 0x3000, 2, 0); /* notified, and not looked at before the move */
	CHECK_EQ(a.dev->ops->prepare(a.dev), 0);
	vt_run(&a, 10);
	CHECK_EQ(vt_used(&a, 0, NULL), -1);
	dev_move(a.dev, b.dev);
	memcpy(b.ram, a.ram, sizeof(b.ram));
	b.avail[0] = a.avail[0];
	b.size = a.size;
	vt_run(&b, 10);
	CHECK_EQ(vt_used(&b, 0, NULL), 64);
	CHECK_EQ(b.msis, 1);
	/* The move did not take place: the old side goes on. */
	CHECK_EQ(a.dev->ops->abort(a.dev), 0);
	vt_run(&a, 10);
	CHECK_EQ(vt_used(&a, 0, NULL), 64);
	printf("virtio: %u of 1000 damaged states refused\n",
	       dev_corrupt(b.dev, a.dev, 1000, poke, NULL));
	for (unsigned i = 0; i < 2000; i++)
		poke(NULL, &seed);
	vt_stop(&b);
	vt_stop(&a);
}

int main(void)
{
	dev_log_set_sink(count_log, NULL);
	test_transport();
	test_requests();
	test_event_idx();
	test_hostile();
	test_state();
	printf("virtio: %u lines in the log\n", logged);
	return dev_result("virtio-rng");
}
