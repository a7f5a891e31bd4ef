/* Socket device: virtio 1.2, 5.10. Queues, resets, life; see vsock.h. */
#include "devices/virtio/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { QUEUE_SIZE = 128, CONFIG_SIZE = 8, TURN_BYTES = 1 << 20, EVENT_SIZE = 4 };
#define F_STREAM (1ULL << 0)

bool vsock_driver_runs(struct vsock *vs)
{
	bool ret;

	pthread_mutex_lock(&vs->v.lock);
	ret = (vs->v.status & VIRTIO_DRIVER_OK) && !(vs->v.status & VIRTIO_NEEDS_RESET) &&
	      !vs->v.resetting;
	pthread_mutex_unlock(&vs->v.lock);
	return ret;
}

bool vsock_settle(struct vsock *vs)
{
	if (!atomic_exchange(&vs->lost, false))
		return false;
	vsock_conn_free_all(vs);
	return true;
}

static void settle_work(void *arg)
{
	vsock_settle(arg);
}

/* ---- queues ---- */

static void receive_queue(struct vsock *vs)
{
	struct virtio *v = &vs->v;
	unsigned budget = QUEUE_SIZE;
	bool any = false;

	while (budget && (vs->resets || !cds_list_empty(&vs->ready))) {
		struct vsock_packet p;
		struct vsock_wire wire;
		uint64_t room;

		if (!virtio_pop(v, VSOCK_RX, &vs->chain)) {
			if (virtio_arm(v, VSOCK_RX))
				continue;
			break;
		}
		if (vs->chain.writable_len <= VSOCK_HEADER) {
			virtio_fail(v, "a receive buffer without room");
			break;
		}
		room = vs->chain.writable_len - VSOCK_HEADER;
		if (!vsock_conn_next(vs, &p, room < VSOCK_PIECE ? (uint32_t)room : VSOCK_PIECE)) {
			virtq_unpop(&v->queue[VSOCK_RX]);
			break;
		}
		wire = vsock_encode(&p);
		if (!virtio_write(v, &vs->chain, 0, &wire, VSOCK_HEADER) ||
		    !virtio_write(v, &vs->chain, VSOCK_HEADER, vs->piece, p.len) ||
		    !virtio_push(v, VSOCK_RX, vs->chain.head, VSOCK_HEADER + p.len))
			break;
		any = true;
		budget--;
	}
	if (any)
		virtio_signal(v, VSOCK_RX);
	if (!budget)
		virtio_kick(v, VSOCK_RX);
	if (vs->stalled && vs->resets < VSOCK_RESETS_STALL) {
		vs->stalled = false;
		virtio_kick(v, VSOCK_TX);
	}
}

/* The packet in vs->chain. False: the driver waits for its reset. */
static bool take(struct vsock *vs, uint32_t *len)
{
	struct vsock_wire wire;
	struct vsock_packet p;

	if (!virtio_read(&vs->v, &vs->chain, 0, &wire, VSOCK_HEADER))
		return false;
	p = vsock_decode(&wire);
	if (p.len > vs->chain.readable_len - VSOCK_HEADER) {
		virtio_fail(&vs->v, "a packet that is shorter than it says");
		return false;
	}
	vsock_packet_in(vs, &p);
	*len = p.len;
	return true;
}

static void transmit_queue(struct vsock *vs)
{
	struct virtio *v = &vs->v;
	unsigned budget = QUEUE_SIZE;
	uint64_t bytes = 0;
	bool any = false;

	while (budget && bytes < TURN_BYTES && !vs->stalled) {
		uint32_t len;

		if (!virtio_pop(v, VSOCK_TX, &vs->chain)) {
			if (virtio_arm(v, VSOCK_TX))
				continue;
			break;
		}
		if (!take(vs, &len) || !virtio_push(v, VSOCK_TX, vs->chain.head, 0))
			break;
		vs->stalled = vs->resets >= VSOCK_RESETS_STALL;
		any = true;
		budget--;
		bytes += len;
	}
	if (any)
		virtio_signal(v, VSOCK_TX);
	if (!budget || bytes >= TURN_BYTES)
		virtio_kick(v, VSOCK_TX);
}

/* 5.10.6.7: connections do not survive a move; the driver closes them and asks for its CID. */
static void event_queue(struct vsock *vs)
{
	static const uint8_t transport_reset[EVENT_SIZE] = {0};
	struct virtio *v = &vs->v;

	while (atomic_load(&vs->event_owed)) {
		if (!virtio_pop(v, VSOCK_EVENT, &vs->chain)) {
			if (virtio_arm(v, VSOCK_EVENT))
				continue;
			return;
		}
		if (!virtio_write(v, &vs->chain, 0, transport_reset, EVENT_SIZE) ||
		    !virtio_push(v, VSOCK_EVENT, vs->chain.head, EVENT_SIZE))
			return;
		atomic_store(&vs->event_owed, false);
		virtio_signal(v, VSOCK_EVENT);
	}
}

static void vsock_queue(struct virtio *v, unsigned n)
{
	struct vsock *vs = (struct vsock *)v;

	vsock_settle(vs);
	switch (n) {
	case VSOCK_RX: receive_queue(vs); break;
	case VSOCK_TX: transmit_queue(vs); break;
	default: event_queue(vs); break;
	}
	/* The driver was wrong: nobody waits for what it does next. */
	if (!vsock_driver_runs(vs))
		vsock_conn_free_all(vs);
}

/* ---- registers ---- */

static uint32_t vsock_config_read(struct virtio *v, unsigned off, unsigned size)
{
	const uint64_t cid = ((struct vsock *)v)->cid >> 8 * off;

	return (uint32_t)(size == 4 ? cid : cid & ((1u << 8 * size) - 1));
}

static void lose(struct vsock *vs)
{
	atomic_store(&vs->lost, true);
	vs->v.works.post(vs->lost_work);
}

static void vsock_reset(struct virtio *v)
{
	struct vsock *vs = (struct vsock *)v;

	atomic_store(&vs->event_owed, false);
	if (vs->lost_work)
		lose(vs);
}

/* ---- state and life ---- */

static int vsock_post_load(struct virtio *v, const char **why)
{
	struct vsock *vs = (struct vsock *)v;

	(void)why;
	lose(vs);
	atomic_store(&vs->event_owed, true);
	return 0;
}

static void vsock_inspect(struct virtio *v, const struct inspector *to)
{
	const struct vsock *vs = (struct vsock *)v;

	to->text(to->opaque, "path", vs->path);
	to->counter(to->opaque, "cid", vs->cid);
	to->counter(to->opaque, "connections", vs->conns);
	to->counter(to->opaque, "opened", vs->opened);
	to->counter(to->opaque, "refused", vs->refused);
	to->counter(to->opaque, "bad-packets", vs->bad);
	to->counter(to->opaque, "to-guest-bytes", vs->to_guest);
	to->counter(to->opaque, "from-guest-bytes", vs->from_guest);
}

static void unmake(struct vsock *vs)
{
	vsock_conn_free_all(vs);
	vsock_host_exit(vs);
	if (vs->lost_work)
		vs->v.works.destroy(vs->lost_work);
	virtio_exit(&vs->v);
	free(vs);
}

static void vsock_destroy(struct device *dev)
{
	struct vsock *vs = (struct vsock *)dev;
	const int fd = vs->listen_fd;

	unmake(vs);
	if (fd >= 0)
		close(fd);
}

static int vsock_acquire(struct virtio *v)
{
	return vsock_host_acquire((struct vsock *)v);
}

static int vsock_release(struct virtio *v)
{
	vsock_host_release((struct vsock *)v);
	return 0;
}

static const struct virtio_ops vsock_ops = {.queue = vsock_queue,
					    .config_read = vsock_config_read,
					    .reset = vsock_reset,
					    .post_load = vsock_post_load,
					    .inspect = vsock_inspect,
					    .acquire = vsock_acquire,
					    .release = vsock_release,
					    .destroy = vsock_destroy};
/* There is nothing to save beyond the queues: connections end with a move. */
static const struct virtio_model vsock_model = {.state_name = "virtio-vsock",
						.id = VIRTIO_VSOCK,
						.class_code = 0x028000,
						.features = F_STREAM,
						.queues = VSOCK_QUEUES,
						.queue_size = QUEUE_SIZE,
						.config_size = CONFIG_SIZE,
						.ops = &vsock_ops};

int virtio_vsock_create(struct device **out, const struct virtio_config *config,
			const struct virtio_vsock_config *vsock)
{
	struct vsock *vs = calloc(1, sizeof(*vs));
	int ret;

	if (!vs)
		return -ENOMEM;
	vs->cid = vsock->cid;
	vs->listen_fd = vsock->listen_fd;
	vs->listen = vsock->listen;
	vs->unlisten = vsock->unlisten;
	vs->opaque = vsock->opaque;
	vs->dir_fd = -1;
	CDS_INIT_LIST_HEAD(&vs->all);
	CDS_INIT_LIST_HEAD(&vs->ready);
	for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
		CDS_INIT_LIST_HEAD(&vs->bucket[i]);
	ret = virtio_init(&vs->v, &vsock_model, config);
	if (ret) {
		free(vs);
		return ret;
	}
	vs->lost_work = vs->v.works.create(vs->v.works.opaque, settle_work, vs);
	ret = vs->lost_work ? vsock_host_init(vs, vsock) : -ENOMEM;
	if (ret) {
		unmake(vs);
		return ret;
	}
	*out = &vs->v.dev;
	return 0;
}
