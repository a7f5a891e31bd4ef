/* What device models do with requests; on the loop's thread, in a turn. */
#include "devices/virtio/virtio.h"

#include <errno.h>

void virtio_fail(struct virtio *v, const char *why)
{
	bool first;

	pthread_mutex_lock(&v->lock);
	first = !(v->status & VIRTIO_NEEDS_RESET);
	v->status |= VIRTIO_NEEDS_RESET;
	if (first)
		virtio_interrupt(v, 2, v->config_vector); /* 2.1.2: a configuration change */
	pthread_mutex_unlock(&v->lock);
	if (first)
		dev_log(v->dev.name, "the driver gave %s; the device waits for its reset", why);
}

/* Nothing more is begun for a driver that was wrong or wants to be rid of the device, nor by a
 * device that has been prepared. */
static bool stopped(struct virtio *v)
{
	bool ret;

	pthread_mutex_lock(&v->lock);
	ret = v->resetting || v->quiesced || (v->status & VIRTIO_NEEDS_RESET);
	pthread_mutex_unlock(&v->lock);
	return ret;
}

/* Queue n goes on when memory that is missing has come. */
static void stall(struct virtio *v, unsigned n)
{
	atomic_fetch_or(&v->stalled, 1u << n);
	v->dma.wait(v->dma.opaque, &v->waiter);
}

static int popped(struct virtio *v, unsigned n, int ret, const char *why)
{
	if (ret >= 0)
		return ret;
	if (ret == -EAGAIN)
		stall(v, n);
	else
		virtio_fail(v, why);
	return 0;
}

int virtio_pop(struct virtio *v, unsigned n, struct virtq_chain *chain)
{
	const char *why = "";
	int ret;

	if (!v->queue[n].enabled || (v->stalled >> n & 1) || stopped(v))
		return 0;
	ret = virtq_pop(&v->queue[n], &v->env, chain, &why);
	return popped(v, n, ret, why);
}

int virtio_repop(struct virtio *v, unsigned n, uint16_t head, struct virtq_chain *chain)
{
	const char *why = "";
	int ret;

	if (!v->queue[n].enabled || (v->stalled >> n & 1) || stopped(v))
		return 0;
	ret = virtq_repop(&v->queue[n], &v->env, head, chain, &why);
	return popped(v, n, ret, why);
}

bool virtio_push_all(struct virtio *v, unsigned n, const struct virtq_used *used, unsigned count)
{
	if (!virtq_push(&v->queue[n], &v->env, used, count))
		return true;
	virtio_fail(v, "rings outside of memory");
	return false;
}

bool virtio_push(struct virtio *v, unsigned n, uint16_t head, uint32_t len)
{
	const struct virtq_used used = {head, len};

	return virtio_push_all(v, n, &used, 1);
}

void virtio_signal(struct virtio *v, unsigned n)
{
	int ret = v->queue[n].enabled ? virtq_must_signal(&v->queue[n], &v->env) : 0;

	if (ret < 0)
		virtio_fail(v, "rings outside of memory");
	if (ret <= 0)
		return;
	pthread_mutex_lock(&v->lock);
	if (!v->resetting)
		virtio_interrupt(v, 1, v->queue[n].vector);
	pthread_mutex_unlock(&v->lock);
}

bool virtio_arm(struct virtio *v, unsigned n)
{
	int ret;

	if (!v->queue[n].enabled || (v->stalled >> n & 1) || stopped(v))
		return false;
	ret = virtq_arm(&v->queue[n], &v->env);
	if (ret == -EAGAIN)
		stall(v, n);
	else if (ret < 0)
		virtio_fail(v, "rings outside of memory");
	return ret > 0;
}

bool virtio_read(struct virtio *v, const struct virtq_chain *chain, uint64_t off, void *buf,
		 size_t len)
{
	if (!virtq_read(&v->env, chain, off, buf, len))
		return true;
	virtio_fail(v, "a buffer outside of memory, or too short");
	return false;
}

bool virtio_write(struct virtio *v, const struct virtq_chain *chain, uint64_t off, const void *buf,
		  size_t len)
{
	if (!virtq_write(&v->env, chain, off, buf, len))
		return true;
	virtio_fail(v, "a buffer outside of memory, or too short");
	return false;
}

int virtio_iov(struct virtio *v, const struct virtq_chain *chain, bool writable, uint64_t off,
	       uint64_t len, struct iovec *iov, unsigned max)
{
	int ret = virtq_iov(&v->env, chain, writable, off, len, iov, max);

	if (ret == -E2BIG)
		virtio_fail(v, "a request of too many pieces");
	else if (ret < 0)
		virtio_fail(v, "a buffer outside of memory, or too short");
	return ret;
}

void virtio_written(struct virtio *v, const struct virtq_chain *chain, uint64_t off, uint64_t len)
{
	virtq_written(&v->env, chain, off, len);
}
