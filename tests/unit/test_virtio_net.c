/* virtio-net: features, both directions, mergeable buffers, too few and too small ones, a back end
 * that is full, commands, link, queue pairs, hostile requests, state and announcement. */
#include "devices/virtio/net.h"
#include "tests/unit/net_mock.h"

#define BASE                                                                                       \
	(VIRTIO_F_VERSION_1 | VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_RX)
#define MRG (BASE | VIRTIO_NET_F_MRG_RXBUF)
#define BUF 0x24000u
#define CMD 0x3f000u
enum { RX, TX, CTRL };

static struct vt a, b;
static struct net_mock net_a, net_b;
static const uint8_t own[6] = {0x52, 0x54, 0, 1, 2, 3}, other[6] = {0x52, 0x54, 0, 9, 9, 9};

static void start_with(struct vt *t, struct net_mock *m, unsigned pairs, unsigned offloads)
{
	struct virtio_config config = vt_start(t, "net0");
	struct virtio_net_config net = {.net = &m->net};

	nm_init(m, pairs, offloads);
	memcpy(net.mac, own, 6);
	CHECK_EQ(virtio_net_create(&t->dev, &config, &net), 0);
	CHECK(m->client.readable != NULL);
	vt_cfg_put(t, 4, 2, 6);
}

static void start(struct vt *t, struct net_mock *m)
{
	start_with(t, m, 1, 0);
}

static void stop(struct vt *t, struct net_mock *m)
{
	vt_stop(t);
	CHECK(m->client.readable == NULL);
}

/* `count` receive buffers of `size` bytes. */
static void buffers(struct vt *t, unsigned q, unsigned count, unsigned size)
{
	for (unsigned i = 0; i < count; i++) {
		vt_desc(t, VT_DESC(q), i, BUF + i * 0x1000, size, 2, 0);
		vt_offer(t, q, i);
	}
	vt_notify(t, q);
}

static bool counts_up(const uint8_t *p, size_t first, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != (uint8_t)(first + i))
			return false;
	return true;
}

/* The answer to a command. */
static int command(struct vt *t, unsigned q, unsigned class, unsigned cmd, const void *data,
		   unsigned len)
{
	vt_mem(t, CMD, 2, class | cmd << 8);
	memcpy(t->ram + CMD + 2, data, len);
	t->ram[CMD + 100] = 0xee;
	vt_desc(t, VT_DESC(q), 0, CMD, 2 + len, 1, 1);
	vt_desc(t, VT_DESC(q), 1, CMD + 100, 1, 2, 0);
	vt_offer(t, q, 0);
	vt_notify(t, q);
	CHECK_EQ(vt_used(t, q, NULL), 1);
	return t->ram[CMD + 100];
}

static uint64_t offered(struct vt *t)
{
	uint64_t low;

	vt_put(t, 0, 4, 0);
	low = vt_get(t, 4, 4);
	vt_put(t, 0, 4, 1);
	return low | vt_get(t, 4, 4) << 32;
}

static void test_features(void)
{
	const uint64_t always = MRG | VIRTIO_NET_F_MAC | VIRTIO_NET_F_CTRL_MAC_ADDR |
				VIRTIO_NET_F_GUEST_ANNOUNCE | 3ULL << 28;

	start(&a, &net_a);
	CHECK_EQ(vt_cfg(&a, 0, 4), 0x10411af4);
	CHECK_EQ(vt_cfg(&a, 8, 4) >> 8, 0x020000);
	CHECK_EQ(offered(&a), always);
	CHECK_EQ(vt_get(&a, 0x12, 2), 3);
	CHECK_EQ(vt_get(&a, 0x2000, 4), 0x01005452);
	CHECK_EQ(vt_get(&a, 0x2004, 4), 0x00010302);
	CHECK_EQ(vt_get(&a, 0x2008, 2), 1);
	stop(&a, &net_a);
	start_with(&a, &net_a, 4, NET_CSUM | NET_TSO4 | NET_TSO6 | NET_TSO_ECN | NET_UFO);
	CHECK_EQ(offered(&a), always | 0x7f83 | VIRTIO_NET_F_MQ);
	CHECK_EQ(vt_get(&a, 0x12, 2), 9);
	vt_drive(&a, 3, MRG | VIRTIO_NET_F_GUEST_CSUM | VIRTIO_NET_F_GUEST_TSO4, true);
	CHECK_EQ(net_a.offloads, NET_CSUM | NET_TSO4);
	CHECK_EQ(net_a.pairs, 1);
	/* Segments without checksums are not to be had. */
	vt_drive(&a, 3, MRG | VIRTIO_NET_F_GUEST_TSO4, true);
	CHECK_EQ(net_a.offloads, 0);
	stop(&a, &net_a);
}

static void test_transmit(void)
{
	start(&a, &net_a);
	vt_drive(&a, 3, MRG, true);
	for (unsigned i = 0; i < 100; i++)
		a.ram[BUF + 12 + i] = (uint8_t)i;
	vt_desc(&a, VT_DESC(TX), 0, BUF, 7, 1, 1); /* a header in two pieces */
	vt_desc(&a, VT_DESC(TX), 1, BUF + 7, 105, 0, 0);
	vt_offer(&a, TX, 0);
	vt_notify(&a, TX);
	CHECK_EQ(net_a.out.len, 112);
	CHECK(counts_up(net_a.out.data + 12, 0, 100));
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	CHECK_EQ(a.msis, 1);
	CHECK_EQ(net_a.net.tx_packets, 1);
	CHECK_EQ(net_a.net.tx_bytes, 100);
	/* A back end that is full: the packet stays in the queue, and order is kept. */
	net_a.room = 2;
	for (unsigned i = 0; i < 3; i++)
		vt_offer(&a, TX, 0);
	vt_notify(&a, TX);
	CHECK_EQ(net_a.sent, 2);
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	CHECK_EQ(vt_used(&a, TX, NULL), -1);
	net_a.room = 10;
	net_a.client.writable(net_a.client.opaque, 0);
	vt_run(&a, 10);
	CHECK_EQ(net_a.sent, 4);
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	/* Too short, too long: lost, the driver has them back. */
	vt_desc(&a, VT_DESC(TX), 2, BUF, 20, 0, 0);
	vt_desc(&a, VT_DESC(TX), 3, 0x21000, 40000, 1, 4);
	vt_desc(&a, VT_DESC(TX), 4, 0x21000, 40000, 0, 0);
	vt_offer(&a, TX, 2);
	vt_offer(&a, TX, 3);
	vt_notify(&a, TX);
	CHECK_EQ(net_a.sent, 4);
	CHECK_EQ(net_a.net.dropped, 2);
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	CHECK_EQ(vt_used(&a, TX, NULL), 0);
	/* Outside of memory: the device wants a reset. */
	vt_desc(&a, VT_DESC(TX), 2, VT_HOLE, 100, 0, 0);
	vt_offer(&a, TX, 2);
	vt_notify(&a, TX);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0x4f);
	stop(&a, &net_a);
}

static void test_receive(void)
{
	unsigned head;

	start(&a, &net_a);
	/* Before there is a driver. */
	nm_feed(&net_a, 0, own, 60);
	vt_drive(&a, 3, MRG, true);
	CHECK_EQ(net_a.shown[0], 0);
	CHECK(!net_a.wanted[0]);
	buffers(&a, RX, 4, 1000);
	CHECK_EQ(vt_used(&a, RX, &head), 72);
	CHECK(net_a.wanted[0]);
	CHECK_EQ(vt_peek(&a, BUF + 10, 2), 1);
	CHECK(counts_up(a.ram + BUF + 18, 6, 54));
	/* In three buffers, all or nothing. */
	nm_feed(&net_a, 0, NULL, 2500);
	CHECK_EQ(vt_used(&a, RX, &head), 1000);
	CHECK_EQ(head, 1);
	CHECK_EQ(vt_peek(&a, BUF + 0x1000 + 10, 2), 3);
	CHECK_EQ(vt_used(&a, RX, NULL), 1000);
	CHECK(counts_up(a.ram + BUF + 0x2000, 988, 1000));
	CHECK_EQ(vt_used(&a, RX, NULL), 512);
	CHECK(counts_up(a.ram + BUF + 0x3000, 1988, 512));
	CHECK_EQ(net_a.net.rx_packets, 2);
	CHECK_EQ(net_a.net.rx_bytes, 2560);
	/* Too few: it waits, and the back end is told. */
	buffers(&a, RX, 2, 1000);
	nm_feed(&net_a, 0, own, 2500);
	CHECK_EQ(vt_used(&a, RX, NULL), -1);
	CHECK(!net_a.wanted[0]);
	CHECK_EQ(vt_run(&a, 10), 0); /* and nobody turns in circles */
	buffers(&a, RX, 3, 1000);
	CHECK(net_a.wanted[0]);
	CHECK_EQ(vt_used(&a, RX, NULL), 1000);
	CHECK_EQ(vt_used(&a, RX, NULL), 1000);
	CHECK_EQ(vt_used(&a, RX, NULL), 512);
	CHECK_EQ(vt_used(&a, RX, NULL), -1);
	/* More than the whole queue can hold: lost, so that others come. */
	vt_drive(&a, 3, MRG, true);
	for (unsigned i = 0; i < 16; i++)
		vt_desc(&a, VT_DESC(RX), i, BUF + i * 0x1000, 200, 2, 0);
	for (unsigned i = 0; i < 16; i++)
		vt_offer(&a, RX, i);
	nm_feed(&net_a, 0, own, 5000);
	nm_feed(&net_a, 0, own, 60);
	vt_notify(&a, RX);
	CHECK_EQ(net_a.net.dropped, 1);
	CHECK_EQ(vt_used(&a, RX, NULL), 72);
	/* One without room. */
	vt_drive(&a, 3, MRG, true);
	vt_desc(&a, VT_DESC(RX), 9, BUF, 0, 2, 0);
	vt_offer(&a, RX, 9);
	nm_feed(&net_a, 0, own, 2500);
	vt_notify(&a, RX);
	CHECK_EQ(vt_get(&a, 0x14, 1), 0x4f);
	stop(&a, &net_a);
}

/* Without mergeable buffers each is for one packet. */
static void test_single_buffers(void)
{
	start(&a, &net_a);
	vt_drive(&a, 3, BASE, true);
	buffers(&a, RX, 2, 1526);
	nm_feed(&net_a, 0, own, 1514);
	CHECK_EQ(vt_used(&a, RX, NULL), 1526);
	nm_feed(&net_a, 0, own, 1515);
	CHECK_EQ(vt_used(&a, RX, NULL), -1);
	CHECK_EQ(net_a.net.dropped, 1);
	nm_feed(&net_a, 0, own, 100);
	CHECK_EQ(vt_used(&a, RX, NULL), 112);
	stop(&a, &net_a);
}

static void test_commands(void)
{
	static const uint8_t on = 1, off, table[10] = {1, 0, 0, 0, 0x52, 0x54, 0, 9, 9, 9}, none[4];
	static const uint8_t two[2] = {2}, five[2] = {5};

	start_with(&a, &net_a, 4, 0);
	vt_drive(&a, 3, MRG | VIRTIO_NET_F_CTRL_MAC_ADDR, true);
	/* Without MQ the commands are in queue 2. Everything comes until it is said otherwise. */
	buffers(&a, RX, 8, 1000);
	nm_feed(&net_a, 0, other, 60);
	CHECK_EQ(vt_used(&a, RX, NULL), 72);
	CHECK_EQ(command(&a, CTRL, 0, 0, &off, 1), 0);
	nm_feed(&net_a, 0, other, 60);
	CHECK_EQ(vt_used(&a, RX, NULL), -1);
	CHECK_EQ(net_a.net.rx_packets, 1);
	CHECK_EQ(command(&a, CTRL, 1, 0, table, sizeof(table)), 0);
	nm_feed(&net_a, 0, other, 60);
	CHECK_EQ(vt_used(&a, RX, NULL), 72);
	CHECK_EQ(command(&a, CTRL, 1, 0, none, sizeof(none)), 0);
	CHECK_EQ(command(&a, CTRL, 1, 1, other, 6), 0);
	CHECK_EQ(vt_get(&a, 0x2004, 2), 0x0909);
	nm_feed(&net_a, 0, other, 60);
	CHECK_EQ(vt_used(&a, RX, NULL), 72);
	nm_feed(&net_a, 0, own, 60);
	CHECK_EQ(vt_used(&a, RX, NULL), -1);
	CHECK_EQ(command(&a, CTRL, 0, 0, &on, 1), 0);
	nm_feed(&net_a, 0, own, 60);
	CHECK_EQ(vt_used(&a, RX, NULL), 72);
	/* Unknown, too short, not negotiated. */
	CHECK_EQ(command(&a, CTRL, 0, 6, &on, 1), 1);
	CHECK_EQ(command(&a, CTRL, 1, 1, other, 5), 1);
	CHECK_EQ(command(&a, CTRL, 2, 0, two, 2), 1);
	CHECK_EQ(command(&a, CTRL, 4, 0, two, 2), 1);
	CHECK_EQ(command(&a, CTRL, 99, 0, two, 0), 1);
	/* A reset gives the card its own address back. */
	vt_drive(&a, 3, MRG, true);
	CHECK_EQ(vt_get(&a, 0x2004, 2), 0x0302);
	stop(&a, &net_a);

	/* With MQ the commands are behind all pairs: here that of two. */
	start_with(&a, &net_a, 2, 0);
	vt_drive(&a, 5, MRG | VIRTIO_NET_F_MQ, true);
	CHECK_EQ(net_a.pairs, 1);
	buffers(&a, 2, 1, 1000);
	CHECK(!net_a.wanted[1]);
	CHECK_EQ(command(&a, 4, 4, 0, two, 2), 0);
	CHECK_EQ(net_a.pairs, 2);
	CHECK(net_a.wanted[1]);
	nm_feed(&net_a, 1, own, 60);
	CHECK_EQ(vt_used(&a, 2, NULL), 72);
	vt_desc(&a, VT_DESC(3), 0, BUF, 100, 0, 0);
	vt_offer(&a, 3, 0);
	vt_notify(&a, 3);
	CHECK_EQ(net_a.sent_by[1], 1);
	CHECK_EQ(command(&a, 4, 4, 0, five, 2), 1);
	stop(&a, &net_a);
}

static void test_link(void)
{
	unsigned msis, generation;

	start(&a, &net_a);
	vt_drive(&a, 3, MRG, true);
	msis = a.msis;
	generation = (unsigned)vt_get(&a, 0x15, 1);
	net_a.net.link = false;
	net_a.client.link(net_a.client.opaque, false);
	CHECK_EQ(vt_get(&a, 0x2006, 2), 0);
	CHECK_EQ(a.msis, msis + 1);
	CHECK_EQ(a.msi_data, 0x40);
	CHECK(vt_get(&a, 0x15, 1) != generation);
	net_a.net.link = true;
	net_a.client.link(net_a.client.opaque, true);
	CHECK_EQ(vt_get(&a, 0x2006, 2), 1);
	stop(&a, &net_a);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	dev_poke(&a.w.mmio, VT_BAR, 0x40, 8, seed, 30);
	for (unsigned i = 0; i < 30; i++)
		a.ram[dev_random(seed) % 0x14000] = (uint8_t)dev_random(seed);
	vt_put(&a, 0x14, 1, 15);
	nm_feed(&net_a, 0, NULL, 14 + dev_random(seed) % 5000);
	vt_put(&a, 0x3000 + 4 * (dev_random(seed) % 3), 2, 0);
	net_a.client.writable(net_a.client.opaque, 0);
	vt_run(&a, 20);
}

static void test_state(void)
{
	static const uint8_t off;
	uint64_t seed = 9;
	char err[128];

	start(&a, &net_a);
	start(&b, &net_b);
	CHECK_EQ(field_check(a.dev->state, err, sizeof(err)), 0);
	vt_drive(&a, 3, MRG | VIRTIO_NET_F_GUEST_ANNOUNCE | VIRTIO_NET_F_CTRL_MAC_ADDR, true);
	CHECK_EQ(command(&a, CTRL, 1, 1, other, 6), 0);
	CHECK_EQ(command(&a, CTRL, 0, 0, &off, 1), 0);
	buffers(&a, RX, 2, 1000);
	CHECK_EQ(a.dev->ops->prepare(a.dev), 0);
	nm_feed(&net_a, 0, other, 60); /* not while it is prepared */
	CHECK_EQ(vt_used(&a, RX, NULL), -1);
	CHECK_EQ(a.dev->ops->drain(a.dev), 0);
	CHECK_EQ(a.dev->ops->release(a.dev), 0);
	CHECK_EQ(net_a.released, 1);
	b.dev->ops->prepare(b.dev);
	dev_move(a.dev, b.dev);
	memcpy(b.ram, a.ram, sizeof(b.ram));
	memcpy(b.avail, a.avail, sizeof(b.avail));
	memcpy(b.used, a.used, sizeof(b.used));
	b.size = a.size;
	CHECK_EQ(b.dev->ops->acquire(b.dev), 0);
	vt_run(&b, 10);
	/* The neighbours are told: by the back end, and by the driver until it says so. */
	CHECK_EQ(net_b.acquired, 1);
	CHECK(!memcmp(net_b.mac, other, 6));
	CHECK_EQ(vt_get(&b, 0x2006, 2), 3);
	CHECK_EQ(b.msi_data, 0x40);
	CHECK_EQ(command(&b, CTRL, 3, 0, &off, 0), 0);
	CHECK_EQ(vt_get(&b, 0x2006, 2), 1);
	nm_feed(&net_b, 0, own, 60);
	CHECK_EQ(vt_used(&b, RX, NULL), -1);
	nm_feed(&net_b, 0, other, 60);
	CHECK_EQ(vt_used(&b, RX, NULL), 72);
	a.dev->ops->abort(a.dev);
	vt_run(&a, 10);
	CHECK_EQ(vt_used(&a, RX, NULL), 72); /* what came meanwhile */
	printf("virtio-net: %u of 1000 damaged states refused\n",
	       dev_corrupt(b.dev, a.dev, 1000, poke, NULL));
	for (unsigned i = 0; i < 2000; i++)
		poke(NULL, &seed);
	stop(&b, &net_b);
	stop(&a, &net_a);
}

struct seen {
	unsigned counters;
	bool mac, link;
};

static void count(void *opaque, const char *name, uint64_t value)
{
	static const char *const names[] = {"rx_packets", "rx_bytes", "tx_packets", "tx_bytes",
					    "dropped"};

	(void)value;
	for (unsigned i = 0; i < 5; i++)
		((struct seen *)opaque)->counters += !strcmp(name, names[i]);
}

static void text(void *opaque, const char *name, const char *value)
{
	struct seen *s = opaque;

	s->mac |= !strcmp(name, "mac") && !strcmp(value, "52:54:00:01:02:03");
	s->link |= !strcmp(name, "link") && !strcmp(value, "up");
}

static void test_inspect(void)
{
	struct seen s = {0};
	const struct inspector to = {count, text, &s};

	start(&a, &net_a);
	a.dev->ops->inspect(a.dev, &to);
	CHECK_EQ(s.counters, 5);
	CHECK(s.mac && s.link);
	stop(&a, &net_a);
}

static void quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

int main(void)
{
	dev_log_set_sink(quiet, NULL);
	test_features();
	test_transmit();
	test_receive();
	test_single_buffers();
	test_commands();
	test_link();
	test_state();
	test_inspect();
	return dev_result("virtio-net");
}
