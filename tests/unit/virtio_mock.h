/* A virtio device whose requests take their time: each is a hole to fill, and ends when the test
 * says so, in any order. One queue. */
#ifndef TESTS_UNIT_VIRTIO_MOCK_H
#define TESTS_UNIT_VIRTIO_MOCK_H

#include "tests/unit/virtio_util.h"

enum { MOCK_QUEUE = 16, MOCK_IOVS = 8 };

struct mock_request {
	bool used;
	struct virtq_chain chain;
	struct iovec iov[MOCK_IOVS];
	int iovs;
};

struct mock {
	struct virtio v;
	struct mock_request req[MOCK_QUEUE];
	struct virtq_chain chain;
	unsigned in_flight, turns;
	unsigned resets, cancels, prepares, drains, releases, acquires, aborts;
	int acquire_result;
	uint32_t config;
};

static inline void mock_queue(struct virtio *v, unsigned n)
{
	struct mock *m = (struct mock *)v;

	m->turns++;
	for (unsigned i = 0; i < MOCK_QUEUE; i++) {
		struct mock_request *r = &m->req[i];

		if (r->used)
			continue;
		if (!virtio_pop(v, n, &r->chain)) {
			if (virtio_arm(v, n))
				virtio_kick(v, n);
			return;
		}
		r->iovs =
			virtio_iov(v, &r->chain, true, 0, r->chain.writable_len, r->iov, MOCK_IOVS);
		if (r->iovs < 0)
			return;
		r->used = true;
		m->in_flight++;
		virtio_begin(v);
	}
}

/* Ends request i if there is one: it says how many bytes were written, or -1. */
static inline int64_t mock_done(struct mock *m, unsigned i)
{
	struct mock_request *r = &m->req[i % MOCK_QUEUE];
	uint64_t len = 0;
	bool ok;

	if (!r->used)
		return -1;
	/* What a host's disk does, whatever became of the driver. */
	for (int k = 0; k < r->iovs; k++) {
		memset(r->iov[k].iov_base, 0xa5, r->iov[k].iov_len);
		len += r->iov[k].iov_len;
	}
	ok = virtio_enter_done(&m->v);
	if (ok) {
		virtio_written(&m->v, &r->chain, 0, len);
		if (virtio_push(&m->v, 0, r->chain.head, (uint32_t)len))
			virtio_signal(&m->v, 0);
	}
	r->used = false;
	m->in_flight--;
	virtio_end(&m->v);
	virtio_leave(&m->v);
	return ok ? (int64_t)len : -1;
}

static inline void mock_all_done(struct mock *m)
{
	for (unsigned i = 0; i < MOCK_QUEUE; i++)
		mock_done(m, i);
}

static inline void mock_reset(struct virtio *v)
{
	struct mock *m = (struct mock *)v;

	CHECK_EQ(m->in_flight, 0);
	m->resets++;
}

static inline void mock_cancel(struct virtio *v)
{
	((struct mock *)v)->cancels++;
}

static inline int mock_prepare(struct virtio *v)
{
	((struct mock *)v)->prepares++;
	return 0;
}

static inline int mock_drain(struct virtio *v)
{
	CHECK_EQ(((struct mock *)v)->in_flight, 0);
	((struct mock *)v)->drains++;
	return 0;
}

static inline int mock_release(struct virtio *v)
{
	((struct mock *)v)->releases++;
	return 0;
}

static inline int mock_acquire(struct virtio *v)
{
	((struct mock *)v)->acquires++;
	return ((struct mock *)v)->acquire_result;
}

static inline int mock_abort(struct virtio *v)
{
	((struct mock *)v)->aborts++;
	return 0;
}

static inline uint32_t mock_config_read(struct virtio *v, unsigned off, unsigned size)
{
	return ((struct mock *)v)->config >> 8 * off & (uint32_t)((1ull << 8 * size) - 1);
}

static inline void mock_destroy(struct device *dev)
{
	virtio_exit((struct virtio *)dev);
	free(dev);
}

static inline struct mock *mock_create(struct vt *t, const struct virtio_config *config)
{
	static const struct virtio_ops ops = {.queue = mock_queue,
					      .config_read = mock_config_read,
					      .reset = mock_reset,
					      .cancel = mock_cancel,
					      .prepare = mock_prepare,
					      .drain = mock_drain,
					      .release = mock_release,
					      .acquire = mock_acquire,
					      .abort = mock_abort,
					      .destroy = mock_destroy};
	static const struct virtio_model model = {.state_name = "virtio-mock",
						  .id = VIRTIO_RNG,
						  .class_code = 0x00ff00,
						  .queues = 1,
						  .queue_size = MOCK_QUEUE,
						  .config_size = 4,
						  .ops = &ops};
	struct mock *m = calloc(1, sizeof(*m));

	CHECK(m != NULL);
	if (!m)
		exit(1);
	CHECK_EQ(virtio_init(&m->v, &model, config), 0);
	t->dev = &m->v.dev;
	t->dev->drain_notify = vt_drained;
	t->dev->drain_opaque = t;
	return m;
}

#endif
