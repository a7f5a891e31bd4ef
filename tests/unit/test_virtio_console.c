/* virtio-console: both directions, a slow reader, a slow guest, resets, hostile requests, state. */
#include "tests/unit/virtio_util.h"

#define V1    (1ULL << 32)
#define BUF   0x10000u
#define RX    0
#define TX    1
#define TX_AT 0x3004

static struct vt a, b;
static struct dev_chardev chr_a, chr_b;

static void start(struct vt *t, struct dev_chardev *chr)
{
	struct virtio_config config = vt_start(t, "console0");

	dev_chardev_init(chr);
	CHECK_EQ(virtio_console_create(&t->dev, &config, &chr->chr), 0);
}

static void text(struct vt *t, uint64_t at, const char *s)
{
	memcpy(t->ram + at, s, strlen(s));
}

static void test_transmit(void)
{
	start(&a, &chr_a);
	CHECK_EQ(vt_cfg(&a, 0, 4), 0x10431af4);
	vt_drive(&a, 2, V1, true);
	CHECK_EQ(vt_get(&a, 0x2000, 4), 0);
	text(&a, BUF, "hello, world");
	vt_desc(&a, VT_DESC(TX), 0, BUF, 5, 1, 1);
	vt_desc(&a, VT_DESC(TX), 1, BUF + 5, 7, 0, 0);
	vt_offer(&a, TX, 0);
	vt_notify(&a, TX);
	CHECK_EQ(chr_a.out_len, 12);
	CHECK(!memcmp(chr_a.out, "hello, world", 12));
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	CHECK_EQ(a.msis, 1);
	CHECK_EQ(a.msi_data, 0x42);
	/* A reader that takes three bytes at a time: nothing is lost, nothing comes twice. */
	chr_a.out_len = 0;
	chr_a.room = 3;
	vt_offer(&a, TX, 0);
	vt_offer(&a, TX, 0);
	vt_notify(&a, TX);
	CHECK_EQ(vt_used(&a, TX, NULL), -1);
	for (unsigned i = 0; i < 20 && chr_a.out_len < 24; i++) {
		chr_a.room = 3;
		chr_a.client.writable(chr_a.client.opaque);
		vt_run(&a, 100);
	}
	CHECK_EQ(chr_a.out_len, 24);
	CHECK(!memcmp(chr_a.out, "hello, worldhello, world", 24));
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	/* A reset in the middle: the next driver's first byte is its first. */
	chr_a.out_len = 0;
	chr_a.room = 3;
	vt_offer(&a, TX, 0);
	vt_notify(&a, TX);
	vt_drive(&a, 2, V1, true);
	chr_a.room = SIZE_MAX;
	vt_desc(&a, VT_DESC(TX), 0, BUF, 5, 0, 0);
	vt_offer(&a, TX, 0);
	vt_notify(&a, TX);
	CHECK_EQ(chr_a.out_len, 8);
	CHECK(!memcmp(chr_a.out, "helhello", 8));
	vt_stop(&a);
}

static void test_receive(void)
{
	char line[5000];

	memset(line, 'x', sizeof(line));
	start(&a, &chr_a);
	/* Typed before there is a driver: kept, up to what there is room for. */
	CHECK_EQ(dev_chardev_feed(&chr_a, "abc", 3), 3);
	vt_run(&a, 100);
	vt_drive(&a, 2, V1, true);
	vt_desc(&a, VT_DESC(RX), 0, BUF, 2, 3, 1);
	vt_desc(&a, VT_DESC(RX), 1, BUF + 8, 8, 2, 0);
	vt_desc(&a, VT_DESC(RX), 2, BUF + 64, 4096, 2, 0);
	vt_offer(&a, RX, 0);
	vt_notify(&a, RX);
	CHECK_EQ(vt_used(&a, RX, NULL), 3);
	CHECK(!memcmp(a.ram + BUF, "ab", 2) && a.ram[BUF + 8] == 'c');
	CHECK_EQ(a.msi_data, 0x41);
	CHECK_EQ(chr_a.kicks, 1);
	/* The guest takes nothing: the back end is held back. */
	CHECK_EQ(dev_chardev_feed(&chr_a, line, sizeof(line)), 4096);
	CHECK_EQ(dev_chardev_feed(&chr_a, line, 1), 0);
	vt_run(&a, 100);
	CHECK_EQ(vt_used(&a, RX, NULL), -1);
	vt_offer(&a, RX, 2);
	vt_notify(&a, RX);
	CHECK_EQ(vt_used(&a, RX, NULL), 4096);
	CHECK_EQ(chr_a.kicks, 2);
	CHECK_EQ(dev_chardev_feed(&chr_a, line, 1), 1);
	/* A buffer without room is no buffer. */
	vt_desc(&a, VT_DESC(RX), 0, BUF, 2, 0, 1);
	vt_offer(&a, RX, 0);
	vt_notify(&a, RX);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0x4f);
	vt_stop(&a);
}

/* 1000 descriptors of nearly 4 GiB each: turns stay short, and a reset ends it. */
static void test_endless(void)
{
	start(&a, &chr_a);
	vt_drive(&a, 2, V1 | 1ULL << 28, true);
	for (unsigned i = 0; i < 200; i++)
		vt_desc(&a, BUF, i, 0x30000, 0x10000, i < 199, i + 1);
	vt_desc(&a, VT_DESC(TX), 0, BUF, 200 * 16, 4, 0);
	vt_offer(&a, TX, 0);
	vt_put(&a, TX_AT, 2, TX);
	CHECK_EQ(vt_run(&a, 2), 2);
	CHECK(chr_a.out_len <= sizeof(chr_a.out));
	CHECK_EQ(vt_used(&a, TX, NULL), -1);
	vt_put(&a, 0x14, 1, 0);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0);
	CHECK(vt_run(&a, 100) < 100);
	vt_stop(&a);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	chr_a.out_len = 0;
	dev_poke(&a.w.mmio, VT_BAR, 0x40, 8, seed, 30);
	for (unsigned i = 0; i < 30; i++)
		a.ram[dev_random(seed) % 0x8000] = (uint8_t)dev_random(seed);
	vt_put(&a, 0x14, 1, 15);
	vt_put(&a, 0x3000 + 4 * (dev_random(seed) & 1), 2, 0);
	dev_chardev_feed(&chr_a, "0123456789", dev_random(seed) % 11);
	chr_a.room = dev_random(seed) % 100;
	chr_a.client.writable(chr_a.client.opaque);
	vt_run(&a, 20);
}

static void test_state(void)
{
	uint64_t seed = 9;
	char err[128];

	start(&a, &chr_a);
	start(&b, &chr_b);
	CHECK_EQ(field_check(a.dev->state, err, sizeof(err)), 0);
	vt_drive(&a, 2, V1, true);
	/* In the middle of a request, with bytes for the guest waiting. */
	text(&a, BUF, "0123456789");
	vt_desc(&a, VT_DESC(TX), 0, BUF, 10, 0, 0);
	vt_offer(&a, TX, 0);
	chr_a.room = 4;
	vt_notify(&a, TX);
	CHECK_EQ(dev_chardev_feed(&chr_a, "typed", 5), 5);
	CHECK_EQ(a.dev->ops->prepare(a.dev), 0);
	vt_run(&a, 10);
	dev_move(a.dev, b.dev);
	memcpy(b.ram, a.ram, sizeof(b.ram));
	memcpy(b.avail, a.avail, sizeof(b.avail));
	b.size = a.size;
	vt_run(&b, 10);
	CHECK_EQ(chr_b.out_len, 6);
	CHECK(!memcmp(chr_b.out, "456789", 6));
	CHECK_EQ(vt_used(&b, TX, NULL), 0);
	vt_desc(&b, VT_DESC(RX), 0, BUF + 64, 16, 2, 0);
	vt_offer(&b, RX, 0);
	vt_notify(&b, RX);
	CHECK_EQ(vt_used(&b, RX, NULL), 5);
	CHECK(!memcmp(b.ram + BUF + 64, "typed", 5));
	a.dev->ops->abort(a.dev);
	printf("virtio-console: %u of 1000 damaged states refused\n",
	       dev_corrupt(b.dev, a.dev, 1000, poke, NULL));
	for (unsigned i = 0; i < 2000; i++)
		poke(NULL, &seed);
	vt_stop(&b);
	vt_stop(&a);
}

static void quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

int main(void)
{
	dev_log_set_sink(quiet, NULL);
	test_transmit();
	test_receive();
	test_endless();
	test_state();
	return dev_result("virtio-console");
}
