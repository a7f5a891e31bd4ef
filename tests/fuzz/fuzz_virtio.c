/*
 * A virtio device under a hostile driver: an input is a program of register and configuration
 * accesses, rings and descriptors written as a driver would or as none should, bytes from outside,
 * turns of the loop, requests that end late and in any order, states saved, damaged and loaded.
 * Beyond the sanitizers' judgement: a state that a driver has brought about is always accepted
 * again and saves to the same bytes; a reset of the driver's always ends with status 0, and only
 * when nothing is in flight any more; a drain ends when that is so.
 */
#include "tests/fuzz/fuzz_util.h"
#include "tests/unit/block_mock.h"
#include "tests/unit/virtio_mock.h"

struct machine {
	struct vt t;
	struct dev_chardev chr;
	struct field_buf saved;
	enum kind { RNG, CONSOLE, MOCK, BLK, BALLOON, KINDS } kind;
	struct mock *mock; /* of MOCK */
	struct bm disk;	   /* of BLK */
};

enum op {
	OP_COMMON,
	OP_COMMON_READ,
	OP_BAR,
	OP_CONFIG,
	OP_CONFIG_READ,
	OP_START,
	OP_DESC,
	OP_OFFER,
	OP_NOTIFY,
	OP_MEMORY,
	OP_RUN,
	OP_OUTSIDE,
	OP_MOVE,
	OP_DAMAGE,
	OP_RESET,
	OP_QUIESCE,
	OP_DONE,
	OP_MISSING,
	OP_DISK,
	OP_COUNT,
};

static void full(void *opaque, struct device *dev)
{
	must(opaque && dev);
}

static unsigned in_flight(const struct machine *m)
{
	return m->kind == MOCK ? m->mock->in_flight : m->kind == BLK ? m->disk.in_flight : 0;
}

static int discard(void *opaque, const struct gpa_range *range, unsigned count)
{
	struct machine *m = opaque;

	must(count && count <= 256);
	for (unsigned i = 0; i < count; i++) {
		must(range[i].gpa <= UINT64_MAX - range[i].len);
		if (range[i].gpa >= VT_RAM || range[i].len > VT_RAM - range[i].gpa)
			return -EFAULT;
	}
	/* Also the rings, also those of the present turn. */
	for (unsigned i = 0; i < count; i++)
		memset(m->t.ram + range[i].gpa, 0, range[i].len);
	return 0;
}

static void start(struct machine *m)
{
	const struct virtio_balloon_config balloon = {.discard = discard, .opaque = m};
	struct virtio_config config = vt_start(&m->t, "fuzzed");
	const struct virtio_blk_config blk = {
		.block = &m->disk.b, .write_cache = true, .queues = 2, .full = full, .opaque = m};

	dev_log_set_sink(fuzz_quiet, NULL);
	dev_chardev_init(&m->chr);
	m->t.size = 16;
	switch (m->kind) {
	case CONSOLE: must(!virtio_console_create(&m->t.dev, &config, &m->chr.chr)); break;
	case MOCK: m->mock = mock_create(&m->t, &config); break;
	case BLK:
		bm_init(&m->disk, false);
		must(!virtio_blk_create(&m->t.dev, &config, &blk));
		m->t.dev->drain_notify = vt_drained;
		m->t.dev->drain_opaque = &m->t;
		break;
	case BALLOON: must(!virtio_balloon_create(&m->t.dev, &config, &balloon)); break;
	default: must(!virtio_rng_create(&m->t.dev, &config)); break;
	}
}

/* The order in which requests end is the input's. */
static void all_done(struct machine *m, unsigned first)
{
	for (unsigned i = 0; m->kind == MOCK && i < MOCK_QUEUE; i++)
		mock_done(m->mock, first + i * 5);
	while (m->kind == BLK && m->disk.committed)
		bm_end(&m->disk, first % m->disk.committed, 1);
	must(in_flight(m) == 0);
}

/* A request as a driver would make it, with what the input says in it; the host's answer, too. */
static void disk(struct machine *m, struct input *in, unsigned q)
{
	struct vt *t = &m->t;
	const uint64_t r = take_bytes(in, 4);
	const unsigned n = r & 3, d = 3 * n;

	if (m->kind != BLK)
		return;
	vt_mem(t, 0x10000 + 32 * n, 4, (r >> 2 & 15) < 14 ? r >> 2 & 15 : r);
	vt_mem(t, 0x10008 + 32 * n, 8, r >> 6 & 1 ? take_bytes(in, 8) : r >> 24 & 0x7f);
	vt_mem(t, 0x10010 + 32 * n, 8, r >> 24);
	vt_mem(t, 0x10018 + 32 * n, 8, r >> 7 & 7);
	vt_desc(t, VT_DESC(q), d, 0x10000 + 32 * n, r >> 10 & 1 ? 32 : 16, 1, d + 1);
	vt_desc(t, VT_DESC(q), d + 1, 0x11000 + 4096 * n, (uint32_t)(r >> 12 & 7) * 512,
		r >> 2 & 1 ? 1 : 3, d + 2);
	vt_desc(t, VT_DESC(q), d + 2, 0x10800 + n, 1, 2, 0);
	vt_offer(t, q, d);
	vt_put(t, 0x3000 + 4 * q, 2, q);
	if (r >> 15 & 1) {
		m->disk.fail = (const int[]){0, -EIO, -ENOSPC, -ENOSPC}[r >> 16 & 3];
		virtio_blk_retry(t->dev);
	}
}

static void drain(struct machine *m, unsigned first)
{
	struct device *d = m->t.dev;
	const unsigned drained = m->t.drained;

	must(d->ops->prepare(d) == 0);
	if (d->ops->drain(d)) {
		all_done(m, first);
		must(m->t.drained == drained + 1);
		must(d->ops->drain(d) == 0);
	}
}

static void move(struct machine *m)
{
	drain(m, 3);
	fuzz_move(m->t.dev, &m->saved);
	must(m->t.dev->ops->acquire(m->t.dev) == 0);
}

static void damage(struct machine *m, struct input *in)
{
	drain(m, 0);
	if (!fuzz_damage(m->t.dev, &m->saved, in)) {
		vt_run(&m->t, 4);
		vt_stop(&m->t);
		start(m);
	}
	m->t.dev->ops->abort(m->t.dev);
}

static void step(struct machine *m, struct input *in)
{
	const uint8_t head = (uint8_t)take_bytes(in, 1);
	const unsigned size = 1u << (head >> 4 & 3);
	const unsigned q = m->kind == BALLOON ? (head >> 5) % VT_QUEUES : head >> 7;
	struct vt *t = &m->t;
	uint64_t r;

	m->chr.out_len = 0;
	switch (head % OP_COUNT) {
	case OP_COMMON:
		r = take_bytes(in, 1) % 0x3c;
		vt_put(t, r, size, take_bytes(in, size));
		break;
	case OP_COMMON_READ: vt_get(t, take_bytes(in, 1) % 0x3c, size); break;
	case OP_BAR:
		r = take_bytes(in, 2) & 0x7fff;
		vt_put(t, r, size, take_bytes(in, size));
		vt_get(t, r, size);
		break;
	case OP_CONFIG:
		r = take_bytes(in, 1);
		vt_cfg_put(t, (unsigned)r, size, take_bytes(in, size));
		break;
	case OP_CONFIG_READ: vt_cfg(t, (unsigned)take_bytes(in, 2) & 0xfff, size); break;
	case OP_START:
		r = take_bytes(in, 1);
		vt_cfg_put(t, 0x10, 4, VT_BAR);
		vt_cfg_put(t, 4, 2, 6);
		vt_put(t, 0x14, 1, 0);
		if (in_flight(m)) {
			must(vt_get(t, 0x14, 1) != 0);
			all_done(m, (unsigned)r);
		}
		must(vt_get(t, 0x14, 1) == 0);
		vt_put(t, 0x08, 4, 0);
		vt_put(t, 0x0c, 4, r << 28 | (m->kind == BALLOON ? r & 0x36 : 0));
		vt_put(t, 0x08, 4, 1);
		vt_put(t, 0x0c, 4, 1);
		vt_put(t, 0x14, 1, 11);
		vt_queue(t, 0, 16, r & 16 ? 1 : 0xffff);
		vt_queue(t, 1, 16, r & 32 ? 0 : 0xffff);
		for (unsigned i = 2; m->kind == BALLOON && i < VT_QUEUES; i++)
			vt_queue(t, i, 16, r & 64 ? i : 0xffff);
		vt_put(t, 0x14, 1, 15);
		break;
	case OP_DESC:
		r = take_bytes(in, 3);
		vt_desc(t, r & 0x100000 ? 0x10000 : VT_DESC(q), r & 15,
			r & 0x200000 ? 0x10000 : (r >> 4 & 0xff) << 10, (uint32_t)take_bytes(in, 2),
			r >> 12 & 7, r >> 16 & 15);
		break;
	case OP_OFFER: vt_offer(t, q, (unsigned)take_bytes(in, 1) & 31); break;
	case OP_NOTIFY: vt_put(t, 0x3000 + 4 * q, 2, q); break;
	case OP_MEMORY:
		r = take_bytes(in, 2);
		t->ram[r & 0x7fff] = (uint8_t)take_bytes(in, 1);
		break;
	case OP_RUN: vt_run(t, 4); break;
	case OP_OUTSIDE: /* what comes from the other side of the device */
		r = take_bytes(in, 1);
		if (m->kind == BALLOON) {
			virtio_balloon_set(t->dev, r << 12);
			virtio_balloon_get_stats(t->dev, &(struct virtio_balloon_stats){0});
		}
		if (m->kind != CONSOLE)
			break;
		m->chr.room = r & 1 ? SIZE_MAX : r;
		dev_chardev_feed(&m->chr, "0123456789abcdef", r >> 4);
		m->chr.client.writable(m->chr.client.opaque);
		break;
	case OP_MOVE: move(m); break;
	case OP_DAMAGE: damage(m, in); break;
	case OP_RESET:
		drain(m, q);
		t->dev->ops->reset(t->dev);
		t->dev->ops->abort(t->dev);
		break;
	case OP_DONE:
		r = take_bytes(in, 1);
		if (m->kind == MOCK)
			mock_done(m->mock, (unsigned)r);
		if (m->kind == BLK && m->disk.committed)
			bm_end(&m->disk, (unsigned)r % m->disk.committed, 1);
		break;
	case OP_DISK: disk(m, in, q); break;
	case OP_MISSING:
		vt_arrive(t);
		t->missing = take_bytes(in, 1) & 63;
		if (t->missing == 63)
			t->missing = 0;
		break;
	default: (q ? t->dev->ops->prepare : t->dev->ops->acquire)(t->dev); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct input in = {data, len < 2048 ? len : 2048};

	if (!m)
		return 0;
	m->kind = (enum kind)(take_bytes(&in, 1) % KINDS);
	start(m);
	while (in.left)
		step(m, &in);
	drain(m, 1);
	vt_stop(&m->t);
	field_buf_free(&m->saved);
	must(dev_failures == 0);
	free(m);
	return 0;
}

/* Programs that start a driver and then make noise. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	size_t len = fuzz_noise(n, 99, buf, max);

	if (!len)
		return 0;
	buf[0] = (uint8_t)n;
	buf[1] = OP_START;
	buf[2] = (uint8_t)(n >> 1);
	return len;
}
