/*
 * The network device under a hostile driver and a busy network: an input is a program of drivers
 * that start with any features, rings and descriptors, commands, packets from outside, a back end
 * that is full, links that go, states that move or are damaged. Beyond the sanitizers' judgement: a
 * state that a driver has brought about is accepted again, and when nothing comes any more the
 * device comes to rest.
 */
#include "devices/virtio/net.h"
#include "tests/fuzz/fuzz_util.h"
#include "tests/unit/net_mock.h"

enum op {
	OP_START,
	OP_BUFFERS,
	OP_DESC,
	OP_OFFER,
	OP_NOTIFY,
	OP_MEMORY,
	OP_COMMAND,
	OP_FEED,
	OP_ROOM,
	OP_LINK,
	OP_RUN,
	OP_COMMON,
	OP_CONFIG_READ,
	OP_MISSING,
	OP_MOVE,
	OP_DAMAGE,
	OP_RESET,
	OP_COUNT,
};

static struct machine {
	struct vt t;
	struct net_mock net;
	struct field_buf saved;
	unsigned pairs, offloads;
} machine;

static void start(struct machine *m)
{
	struct virtio_config config = vt_start(&m->t, "fuzzed");
	const struct virtio_net_config net = {.net = &m->net.net, .mac = {0x52, 0x54, 0, 1, 2, 3}};

	m->t.size = 16;
	nm_init(&m->net, m->pairs, m->offloads);
	must(!virtio_net_create(&m->t.dev, &config, &net));
}

static void rest(struct machine *m)
{
	must(vt_run(&m->t, 400) < 400);
}

static void prepare(struct machine *m)
{
	must(m->t.dev->ops->prepare(m->t.dev) == 0);
	must(m->t.dev->ops->drain(m->t.dev) == 0);
}

static void drive(struct machine *m, uint64_t features)
{
	struct vt *t = &m->t;

	vt_cfg_put(t, 0x10, 4, VT_BAR);
	vt_cfg_put(t, 4, 2, 6);
	vt_put(t, 0x14, 1, 0);
	must(vt_get(t, 0x14, 1) == 0);
	vt_put(t, 0x08, 4, 0);
	vt_put(t, 0x0c, 4, features & vnet_features(&m->net.net) & 0xffffffff);
	vt_put(t, 0x08, 4, 1);
	vt_put(t, 0x0c, 4, 1);
	vt_put(t, 0x14, 1, 11);
	for (unsigned q = 0; q <= 2 * m->pairs; q++)
		vt_queue(t, q, 16, q & 1 ? 0xffff : 1);
	vt_put(t, 0x14, 1, 15);
	must(vt_get(t, 0x14, 1) == 15);
}

static void step(struct machine *m, struct input *in)
{
	const uint8_t head = (uint8_t)take_bytes(in, 1);
	struct vt *t = &m->t;
	unsigned q;
	uint64_t r;

	switch (head % OP_COUNT) {
	case OP_START: drive(m, take_bytes(in, 4) | 1ULL << 28); break;
	case OP_BUFFERS: /* good ones */
		r = take_bytes(in, 2);
		q = 2 * ((unsigned)r % m->pairs);
		for (unsigned i = 0; i < (r >> 1 & 15); i++) {
			vt_desc(t, VT_DESC(q), i, 0x24000 + i * 0x1000, (uint32_t)(r >> 5) + 1, 2,
				0);
			vt_offer(t, q, i);
		}
		break;
	case OP_DESC:
		r = take_bytes(in, 4);
		q = (unsigned)r % (2 * m->pairs + 1);
		vt_desc(t, VT_DESC(q), r >> 4 & 15, (r >> 8 & 0x7f) << 11,
			(uint32_t)take_bytes(in, 2), r >> 16 & 7, r >> 20 & 15);
		break;
	case OP_OFFER:
		r = take_bytes(in, 1);
		vt_offer(t, (unsigned)r % (2 * m->pairs + 1), r >> 3 & 31);
		break;
	case OP_NOTIFY:
		r = take_bytes(in, 1) % 8;
		vt_put(t, 0x3000 + 4 * r, 2, r);
		break;
	case OP_MEMORY:
		r = take_bytes(in, 3);
		t->ram[r % VT_RAM] = (uint8_t)take_bytes(in, 1);
		break;
	case OP_COMMAND:
		q = 2 * m->pairs;
		for (unsigned i = 0; i < 12; i++)
			t->ram[0x23000 + i] = (uint8_t)take_bytes(in, 1);
		vt_desc(t, VT_DESC(q), 0, 0x23000, 2 + (head >> 5), 1, 1);
		vt_desc(t, VT_DESC(q), 1, 0x23100, 1, 2, 0);
		vt_offer(t, q, 0);
		vt_put(t, 0x3000 + 4 * q, 2, q);
		break;
	case OP_FEED:
		r = take_bytes(in, 2);
		nm_feed(&m->net, (unsigned)(r & 1) % m->pairs, NULL, 14 + r % 65000);
		break;
	case OP_ROOM:
		m->net.room = m->net.sent + (unsigned)take_bytes(in, 1) / 8;
		m->net.client.writable(m->net.client.opaque, 0);
		break;
	case OP_LINK:
		m->net.net.link = head & 64;
		m->net.client.link(m->net.client.opaque, m->net.net.link);
		break;
	case OP_RUN: vt_run(t, 4); break;
	case OP_COMMON:
		r = take_bytes(in, 1) % 0x3c;
		vt_put(t, r, 1u << (head >> 5 & 3), take_bytes(in, 4));
		break;
	case OP_CONFIG_READ: vt_get(t, 0x2000 + take_bytes(in, 1) % 16, 1u << (head >> 6)); break;
	case OP_MISSING:
		vt_arrive(t);
		t->missing = take_bytes(in, 1) & 63;
		break;
	case OP_MOVE:
		prepare(m);
		fuzz_move(t->dev, &m->saved);
		must(t->dev->ops->acquire(t->dev) == 0);
		break;
	case OP_DAMAGE:
		prepare(m);
		if (!fuzz_damage(t->dev, &m->saved, in)) {
			vt_run(t, 4);
			vt_stop(t);
			start(m);
		}
		t->dev->ops->abort(t->dev);
		break;
	default:
		prepare(m);
		t->dev->ops->reset(t->dev);
		t->dev->ops->abort(t->dev);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len < 2048 ? len : 2048};
	struct machine *m = &machine;
	uint64_t kind = take_bytes(&in, 1);

	dev_log_set_sink(fuzz_quiet, NULL);
	m->pairs = kind & 1 ? 2 : 1;
	m->offloads = kind & 2 ? NET_CSUM | NET_TSO4 | NET_TSO6 | NET_UFO : 0;
	start(m);
	while (in.left)
		step(m, &in);
	vt_arrive(&m->t);
	m->net.room = UINT32_MAX;
	rest(m);
	prepare(m);
	vt_stop(&m->t);
	field_buf_free(&m->saved);
	m->saved = (struct field_buf){0};
	must(dev_failures == 0);
	return 0;
}

/* Programs that start a driver, give it buffers and then make noise. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	static const uint8_t begin[] = {OP_START, 0xff, 0xff, 0xff, 0xff, OP_BUFFERS, 0xfe, 0x7f};
	size_t len = fuzz_noise(n, 77, buf, max);

	if (!len)
		return 0;
	buf[0] = (uint8_t)n;
	memcpy(buf + 1, begin, sizeof(begin));
	return len;
}
