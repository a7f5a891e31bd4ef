/* What all virtio devices share: status, resets, turns of the queues, requests in flight.
 * virtio 1.2, 2 and 3. */
#include "devices/virtio/virtio.h"

#include <string.h>

uint64_t virtio_features(const struct virtio *v)
{
	return v->model->features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
	       VIRTIO_F_EVENT_IDX;
}

/* With the lock held. */
static bool runs(const struct virtio *v)
{
	return (v->status & VIRTIO_DRIVER_OK) && !(v->status & VIRTIO_NEEDS_RESET) && !v->resetting;
}

/* Somebody works on what belongs to the driver. With the lock held. */
bool virtio_occupied(const struct virtio *v)
{
	return v->busy || v->in_flight;
}

/* ---- reset and status, with the lock held ---- */

static void do_reset(struct virtio *v)
{
	v->resetting = v->cancelled = false;
	v->status = v->isr = 0;
	v->device_select = v->driver_select = 0;
	v->driver_features = 0;
	v->queue_select = 0;
	v->config_vector = VIRTQ_NO_VECTOR;
	atomic_store(&v->kicked, 0);
	atomic_store(&v->stalled, 0);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		v->queue[i] = (struct virtq){.size = (uint16_t)v->model->queue_size,
					     .vector = VIRTQ_NO_VECTOR};
	if (v->model->ops->reset)
		v->model->ops->reset(v);
	pci_intx_set(&v->fn, false);
}

/* Puts it off while the loop's thread is at the queues or requests are in flight. */
void virtio_ask_reset(struct virtio *v)
{
	if (!virtio_occupied(v)) {
		do_reset(v);
		return;
	}
	v->resetting = true;
	if (v->in_flight)
		v->works.post(v->work); /* to hurry them */
}

void virtio_look(struct virtio *v)
{
	atomic_fetch_or(&v->kicked, (1u << v->model->queues) - 1);
	v->works.post(v->work);
}

void virtio_set_status(struct virtio *v, uint8_t value)
{
	const uint8_t settable = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK |
				 VIRTIO_FEATURES_OK | VIRTIO_FAILED;
	uint8_t rising = value & settable & ~v->status;

	if (v->resetting)
		return;
	if (!value) {
		virtio_ask_reset(v);
		return;
	}
	/* 3.1.1: a subset that the device can live with, or the bit stays clear. */
	if ((rising & VIRTIO_FEATURES_OK) && ((v->driver_features & ~virtio_features(v)) ||
					      !(v->driver_features & VIRTIO_F_VERSION_1)))
		rising &= (uint8_t) ~(VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
	if (!((v->status | rising) & VIRTIO_FEATURES_OK))
		rising &= (uint8_t)~VIRTIO_DRIVER_OK;
	v->status |= rising;
	if (rising & VIRTIO_DRIVER_OK)
		virtio_look(v);
}

void virtio_interrupt(struct virtio *v, uint8_t isr, uint16_t vector)
{
	if (pci_msix_enabled(&v->fn)) {
		if (vector != VIRTQ_NO_VECTOR)
			pci_msix_notify(&v->fn, vector);
		return;
	}
	v->isr |= isr;
	pci_intx_set(&v->fn, true);
}

void virtio_config_changed(struct virtio *v)
{
	v->generation++;
	if (runs(v))
		virtio_interrupt(v, 2, v->config_vector); /* 2.5.1 */
}

/* ---- turns on the loop's thread ---- */

/* With the lock held. */
static void open_turn(struct virtio *v)
{
	if (v->busy++)
		return;
	v->env = (struct virtq_env){.dma = &v->dma,
				    .indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC),
				    .event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX),
				    .turn = v->env.turn == UINT32_MAX ? 1 : v->env.turn + 1};
}

bool virtio_enter(struct virtio *v)
{
	bool ok;

	pthread_mutex_lock(&v->lock);
	ok = runs(v) && !v->quiesced && !v->busy;
	if (ok)
		open_turn(v);
	pthread_mutex_unlock(&v->lock);
	return ok;
}

bool virtio_enter_done(struct virtio *v)
{
	bool ok;

	pthread_mutex_lock(&v->lock);
	ok = runs(v);
	open_turn(v);
	pthread_mutex_unlock(&v->lock);
	return ok;
}

void virtio_leave(struct virtio *v)
{
	bool drained;

	for (unsigned n = 0; n < v->model->queues; n++)
		virtq_turn_done(&v->queue[n], &v->env);
	pthread_mutex_lock(&v->lock);
	v->busy--;
	if (v->resetting && !virtio_occupied(v))
		do_reset(v);
	drained = v->draining && !virtio_occupied(v);
	if (drained)
		v->draining = false;
	pthread_mutex_unlock(&v->lock);
	if (drained)
		device_drained(&v->dev);
}

void virtio_begin(struct virtio *v)
{
	pthread_mutex_lock(&v->lock);
	v->in_flight++;
	pthread_mutex_unlock(&v->lock);
}

void virtio_end(struct virtio *v)
{
	pthread_mutex_lock(&v->lock);
	v->in_flight--;
	pthread_mutex_unlock(&v->lock);
}

/* A reset waits for requests in flight: the device is told so, once. */
static void hurry(struct virtio *v)
{
	bool cancel;

	pthread_mutex_lock(&v->lock);
	cancel = v->resetting && v->in_flight && !v->cancelled;
	v->cancelled |= cancel;
	pthread_mutex_unlock(&v->lock);
	if (cancel && v->model->ops->cancel)
		v->model->ops->cancel(v);
}

void virtio_work(void *arg)
{
	struct virtio *v = arg;
	uint32_t kicked;

	hurry(v);
	if (!virtio_enter(v))
		return; /* whoever starts the device again looks at all queues */
	kicked = atomic_exchange(&v->kicked, 0);
	for (unsigned n = 0; n < v->model->queues; n++)
		if (kicked >> n & 1)
			v->model->ops->queue(v, n);
	virtio_leave(v);
}

void virtio_kick(struct virtio *v, unsigned n)
{
	if (n >= v->model->queues)
		return;
	atomic_fetch_or(&v->kicked, 1u << n);
	v->works.post(v->work);
}

/* Memory that was missing is here: whoever waits for it looks again. */
void virtio_memory_ready(struct dma_waiter *waiter)
{
	struct virtio *v = (struct virtio *)((char *)waiter - offsetof(struct virtio, waiter));

	atomic_fetch_or(&v->kicked, atomic_exchange(&v->stalled, 0));
	v->works.post(v->work);
}
