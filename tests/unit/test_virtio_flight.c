/* Requests in flight: resets that wait for them, drain, hand-over, memory that is not here yet. */
#include "tests/unit/virtio_mock.h"

#define V1     (1ULL << 32)
#define BUF    0x10000u
#define STATUS 0x14

static struct vt t, other;
static struct mock *mock;

static void quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

static void start(void)
{
	struct virtio_config config = vt_start(&t, "mock0");

	mock = mock_create(&t, &config);
	vt_drive(&t, 1, V1, true);
	for (unsigned i = 0; i < 8; i++)
		vt_desc(&t, VT_DESC(0), i, BUF + i * 4096, 64, 2, 0);
}

static void offer(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		vt_offer(&t, 0, i);
	vt_notify(&t, 0);
}

static void test_order(void)
{
	unsigned head;

	start();
	offer(0, 3);
	CHECK_EQ(mock->in_flight, 3);
	CHECK_EQ(vt_used(&t, 0, &head), -1);
	t.dirty = 0;
	CHECK_EQ(mock_done(mock, 2), 64);
	CHECK_EQ(vt_used(&t, 0, &head), 64);
	CHECK_EQ(head, 2);
	CHECK_EQ(t.dirty, 64 + 134);
	CHECK_EQ(t.ram[BUF + 2 * 4096 + 63], 0xa5);
	CHECK_EQ(t.msis, 1);
	CHECK_EQ(mock_done(mock, 0), 64);
	CHECK_EQ(mock_done(mock, 1), 64);
	CHECK_EQ(vt_used(&t, 0, &head), 64);
	CHECK_EQ(head, 0);
	CHECK_EQ(vt_used(&t, 0, &head), 64);
	CHECK_EQ(head, 1);
	vt_stop(&t);
}

static void test_reset(void)
{
	unsigned resets, used;

	start();
	offer(0, 2);
	resets = mock->resets;
	vt_put(&t, STATUS, 1, 0);
	CHECK_EQ(vt_get(&t, STATUS, 1), 15);
	vt_run(&t, 10);
	CHECK_EQ(mock->cancels, 1);
	/* Nothing else is heard meanwhile, and nothing more is begun. */
	vt_put(&t, STATUS, 1, 0);
	vt_put(&t, STATUS, 1, 1);
	vt_put(&t, 0x16, 2, 7);
	vt_offer(&t, 0, 3);
	vt_notify(&t, 0);
	CHECK_EQ(mock->in_flight, 2);
	CHECK_EQ(mock->cancels, 1);
	used = (unsigned)vt_peek(&t, VT_USED(0) + 2, 2);
	CHECK_EQ(mock_done(mock, 1), -1);
	CHECK_EQ(vt_get(&t, STATUS, 1), 15);
	CHECK_EQ(mock->resets, resets);
	CHECK_EQ(mock_done(mock, 0), -1);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0);
	CHECK_EQ(mock->resets, resets + 1);
	/* The driver's memory is its own again. */
	CHECK_EQ(vt_peek(&t, VT_USED(0) + 2, 2), used);
	CHECK_EQ(t.msis, 0);
	/* The next driver finds a new device. */
	vt_drive(&t, 1, V1, true);
	vt_desc(&t, VT_DESC(0), 0, BUF, 64, 2, 0);
	offer(0, 1);
	CHECK_EQ(mock_done(mock, 0), 64);
	CHECK_EQ(mock->cancels, 1);
	/* Nothing in flight: at once. */
	vt_put(&t, STATUS, 1, 0);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0);
	vt_stop(&t);
}

/* A driver that was wrong while requests are in flight. */
static void test_wrong(void)
{
	start();
	offer(0, 2);
	vt_desc(&t, VT_DESC(0), 9, VT_HOLE, 64, 2, 0);
	vt_offer(&t, 0, 9);
	vt_notify(&t, 0);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0x4f);
	CHECK_EQ(mock_done(mock, 0), -1);
	CHECK_EQ(vt_used(&t, 0, NULL), -1);
	vt_put(&t, STATUS, 1, 0);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0x4f);
	CHECK_EQ(mock_done(mock, 1), -1);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0);
	vt_stop(&t);
}

static void test_drain(void)
{
	const struct device_ops *ops;
	unsigned resets;

	start();
	ops = t.dev->ops;
	offer(0, 2);
	CHECK_EQ(ops->prepare(t.dev), 0);
	CHECK_EQ(mock->prepares, 1);
	offer(2, 3);
	CHECK_EQ(mock->in_flight, 2);
	CHECK_EQ(ops->drain(t.dev), -EINPROGRESS);
	CHECK_EQ(mock_done(mock, 0), 64); /* the vCPUs stand, and still it is the driver's */
	CHECK_EQ(t.drained, 0);
	CHECK_EQ(ops->drain(t.dev), -EINPROGRESS);
	CHECK_EQ(mock_done(mock, 1), 64);
	CHECK_EQ(t.drained, 1);
	CHECK_EQ(mock->in_flight, 0);
	CHECK_EQ(ops->drain(t.dev), 0);
	CHECK_EQ(mock->drains, 1);
	CHECK_EQ(ops->abort(t.dev), 0);
	CHECK_EQ(mock->aborts, 1);
	vt_run(&t, 10);
	CHECK_EQ(mock->in_flight, 1);
	/* Nobody waits for a drain any more. */
	mock_all_done(mock);
	CHECK_EQ(t.drained, 1);
	/* A power-on reset comes after that, and the device stays prepared. */
	offer(3, 4);
	ops->prepare(t.dev);
	mock_all_done(mock);
	CHECK_EQ(ops->drain(t.dev), 0);
	resets = mock->resets;
	ops->reset(t.dev);
	CHECK_EQ(mock->resets, resets + 1);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0xff); /* PCI decoding is off */
	ops->abort(t.dev);
	/* Against the rules, and still no memory is let go: it comes late. */
	vt_cfg_put(&t, 0x10, 4, VT_BAR);
	vt_drive(&t, 1, V1, true);
	vt_desc(&t, VT_DESC(0), 0, BUF, 64, 2, 0);
	offer(0, 1);
	resets = mock->resets;
	ops->reset(t.dev);
	CHECK_EQ(mock->resets, resets);
	mock_all_done(mock);
	CHECK_EQ(mock->resets, resets + 1);
	vt_stop(&t);
}

static void test_handover(void)
{
	struct virtio_config config = vt_start(&other, "mock0");
	struct mock *there = mock_create(&other, &config);
	const struct device_ops *ops = other.dev->ops;

	start();
	offer(0, 1);
	t.dev->ops->prepare(t.dev);
	offer(1, 3); /* two wait when it moves */
	mock_all_done(mock);
	CHECK_EQ(t.dev->ops->drain(t.dev), 0);
	CHECK_EQ(t.dev->ops->release(t.dev), 0);
	CHECK_EQ(mock->releases, 1);
	CHECK_EQ(ops->prepare(other.dev), 0);
	/* Its rings come after the state, in post-copy. */
	other.missing = VT_USED(0) >> 12;
	dev_move(t.dev, other.dev);
	memcpy(other.ram, t.ram, sizeof(t.ram));
	vt_run(&other, 10);
	CHECK_EQ(there->in_flight, 0);
	/* It cannot be had here yet. */
	there->acquire_result = -EBUSY;
	CHECK_EQ(ops->acquire(other.dev), -EBUSY);
	vt_run(&other, 10);
	CHECK_EQ(there->in_flight, 0);
	there->acquire_result = 0;
	CHECK_EQ(ops->acquire(other.dev), 0);
	/* Neither loading nor taking it has waited for that: the device does, when it runs. */
	CHECK(!other.waiter);
	CHECK(vt_run(&other, 10) > 0);
	CHECK(other.waiter != NULL);
	CHECK_EQ(there->in_flight, 0);
	vt_arrive(&other);
	vt_run(&other, 10);
	CHECK_EQ(there->in_flight, 2);
	mock_all_done(there);
	CHECK_EQ(vt_peek(&other, VT_USED(0) + 2, 2), 3);
	vt_stop(&other);
	vt_stop(&t);
}

/* Post-copy: the rings, then a buffer, then an indirect table are missing. */
static void test_missing(void)
{
	start();
	vt_offer(&t, 0, 0);
	t.missing = VT_USED(0) >> 12;
	vt_notify(&t, 0);
	CHECK_EQ(mock->in_flight, 0);
	CHECK(t.waiter != NULL);
	CHECK_EQ(vt_run(&t, 10), 0); /* it waits, it does not look again and again */
	vt_offer(&t, 0, 1);
	vt_notify(&t, 0);
	CHECK_EQ(mock->in_flight, 0);
	t.missing = (BUF >> 12) + 1;
	if (t.waiter)
		t.waiter->ready(t.waiter);
	vt_run(&t, 10);
	CHECK_EQ(mock->in_flight, 1); /* the first; the second's buffer is not here */
	vt_arrive(&t);
	vt_run(&t, 10);
	CHECK_EQ(mock->in_flight, 2);
	mock_all_done(mock);
	CHECK_EQ(vt_used(&t, 0, NULL), 64);
	CHECK_EQ(vt_used(&t, 0, NULL), 64);
	vt_drive(&t, 1, V1 | 1ULL << 28, true);
	vt_desc(&t, VT_DESC(0), 0, BUF + 4096, 16, 4, 0);
	vt_desc(&t, BUF + 4096, 0, BUF, 64, 2, 0);
	t.missing = (BUF >> 12) + 1;
	offer(0, 1);
	CHECK_EQ(mock->in_flight, 0);
	CHECK_EQ(vt_get(&t, STATUS, 1), 15);
	vt_arrive(&t);
	vt_run(&t, 10);
	CHECK_EQ(mock->in_flight, 1);
	mock_all_done(mock);
	/* A device that goes while it waits is not called. */
	t.missing = BUF >> 12;
	offer(0, 1);
	CHECK(t.waiter != NULL);
	vt_stop(&t);
	CHECK(t.waiter == NULL);
}

/* Pieces that lie side by side in host memory are one. */
static void test_pieces(void)
{
	start();
	t.long_pieces = true;
	vt_desc(&t, VT_DESC(0), 0, BUF, 8192, 3, 1);
	vt_desc(&t, VT_DESC(0), 1, BUF + 8192, 100, 3, 2);
	vt_desc(&t, VT_DESC(0), 2, BUF + 0x4000, 100, 2, 0);
	offer(0, 1);
	CHECK_EQ(mock->req[0].iovs, 2);
	CHECK_EQ(mock->req[0].iov[0].iov_len, 8292);
	mock_all_done(mock);
	t.long_pieces = false;
	offer(0, 1);
	CHECK_EQ(mock->req[0].iovs, 2);
	mock_all_done(mock);
	/* Too many pieces; a length that ends in a hole. */
	for (unsigned i = 0; i < 12; i++)
		vt_desc(&t, VT_DESC(0), i, BUF + 0x800 * i, 16, 2 | (i < 11), i + 1);
	offer(0, 1);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0x4f);
	vt_drive(&t, 1, V1, true);
	vt_desc(&t, VT_DESC(0), 0, VT_HOLE - 64, 128, 2, 0);
	offer(0, 1);
	CHECK_EQ(vt_get(&t, STATUS, 1), 0x4f);
	vt_stop(&t);
}

static void test_config(void)
{
	unsigned generation;

	start();
	generation = (unsigned)vt_get(&t, 0x15, 1);
	pthread_mutex_lock(&mock->v.lock);
	mock->config = 0x12345678;
	virtio_config_changed(&mock->v);
	pthread_mutex_unlock(&mock->v.lock);
	CHECK(vt_get(&t, 0x15, 1) != generation);
	CHECK_EQ(vt_get(&t, 0x2000, 4), 0x12345678);
	CHECK_EQ(t.msis, 1);
	CHECK_EQ(t.msi_data, 0x40);
	/* Not to a driver that does not run. */
	vt_put(&t, STATUS, 1, 0);
	pthread_mutex_lock(&mock->v.lock);
	virtio_config_changed(&mock->v);
	pthread_mutex_unlock(&mock->v.lock);
	CHECK_EQ(t.msis, 1);
	vt_stop(&t);
}

int main(void)
{
	dev_log_set_sink(quiet, NULL);
	test_order();
	test_reset();
	test_wrong();
	test_drain();
	test_handover();
	test_missing();
	test_pieces();
	test_config();
	return dev_result("virtio-flight");
}
