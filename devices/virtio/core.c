/* What all virtio devices share: status, resets, turns of the queues, state. virtio 1.2, 2 and 3.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
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
static bool occupied(const struct virtio *v)
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
static void ask_reset(struct virtio *v)
{
	if (!occupied(v)) {
		do_reset(v);
		return;
	}
	v->resetting = true;
	if (v->in_flight)
		v->works.post(v->work); /* to hurry them */
}

static void look_at_all_queues(struct virtio *v)
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
		ask_reset(v);
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
		look_at_all_queues(v);
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
				    .event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX)};
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

	pthread_mutex_lock(&v->lock);
	v->busy--;
	if (v->resetting && !occupied(v))
		do_reset(v);
	drained = v->draining && !occupied(v);
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

static void work(void *arg)
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
static void memory_ready(struct dma_waiter *waiter)
{
	struct virtio *v = (struct virtio *)((char *)waiter - offsetof(struct virtio, waiter));

	atomic_fetch_or(&v->kicked, atomic_exchange(&v->stalled, 0));
	v->works.post(v->work);
}

/* ---- state and life ----------------------------------------------------------------------------
 */

static bool good_vector(const struct virtio *v, uint16_t vector)
{
	return vector == VIRTQ_NO_VECTOR || vector < v->fn.vectors;
}

static const char *why_not(const struct virtio *v)
{
	const uint8_t known = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK |
			      VIRTIO_FEATURES_OK | VIRTIO_NEEDS_RESET | VIRTIO_FAILED;

	if (v->status & ~known || v->isr > 3 || !good_vector(v, v->config_vector))
		return "an impossible status";
	if (!(v->status & VIRTIO_FEATURES_OK) && (v->status & VIRTIO_DRIVER_OK))
		return "a driver that runs without features";
	if ((v->status & VIRTIO_FEATURES_OK) && ((v->driver_features & ~virtio_features(v)) ||
						 !(v->driver_features & VIRTIO_F_VERSION_1)))
		return "features that this device does not have";
	for (unsigned i = 0; i < v->model->queues; i++) {
		const struct virtq *q = &v->queue[i];

		if (q->size > v->model->queue_size || (q->size & (q->size - 1)) ||
		    !good_vector(v, q->vector) || (q->enabled && !virtq_valid(q)))
			return "an impossible queue";
	}
	return NULL;
}

static int virtio_post_load(void *object, const char **why)
{
	struct virtio *v = object;

	pthread_mutex_lock(&v->lock);
	if (!*why)
		*why = why_not(v);
	if (!*why && v->model->ops->post_load)
		(void)v->model->ops->post_load(v, why);
	if (!*why) {
		/* What the old side was told and had not looked at yet. */
		look_at_all_queues(v);
	}
	pthread_mutex_unlock(&v->lock);
	return *why ? -EINVAL : 0;
}

static const struct field virtio_fields[] = {
	FIELD_SCALAR(struct virtio, device_select, FIELD_U32, 1),
	FIELD_SCALAR(struct virtio, driver_select, FIELD_U32, 1),
	FIELD_SCALAR(struct virtio, driver_features, FIELD_U64, 1),
	FIELD_SCALAR(struct virtio, queue_select, FIELD_U16, 1),
	FIELD_SCALAR(struct virtio, config_vector, FIELD_U16, 1),
	FIELD_SCALAR(struct virtio, status, FIELD_U8, 1),
	FIELD_SCALAR(struct virtio, isr, FIELD_U8, 1),
	FIELD_SCALAR(struct virtio, generation, FIELD_U8, 1),
	FIELD_END,
};
static const struct state_desc virtio_state = {
	.name = "virtio", .version = 1, .fields = virtio_fields};

static void virtio_dev_reset(struct device *dev)
{
	struct virtio *v = (struct virtio *)dev;

	pthread_mutex_lock(&v->lock);
	ask_reset(v);
	pthread_mutex_unlock(&v->lock);
	pci_function_reset(&v->fn);
}

static int call(struct virtio *v, int (*op)(struct virtio *v))
{
	return op ? op(v) : 0;
}

static int virtio_prepare(struct device *dev)
{
	struct virtio *v = (struct virtio *)dev;

	pthread_mutex_lock(&v->lock);
	v->quiesced = true;
	pthread_mutex_unlock(&v->lock);
	return call(v, v->model->ops->prepare);
}

static int virtio_drain(struct device *dev)
{
	struct virtio *v = (struct virtio *)dev;
	bool busy;

	pthread_mutex_lock(&v->lock);
	busy = v->draining = occupied(v);
	pthread_mutex_unlock(&v->lock);
	return busy ? -EINPROGRESS : call(v, v->model->ops->drain);
}

static int virtio_release(struct device *dev)
{
	struct virtio *v = (struct virtio *)dev;

	return call(v, v->model->ops->release);
}

static int resume(struct virtio *v, int (*op)(struct virtio *v))
{
	int ret = call(v, op);

	if (ret)
		return ret;
	pthread_mutex_lock(&v->lock);
	v->quiesced = v->draining = false;
	look_at_all_queues(v);
	pthread_mutex_unlock(&v->lock);
	return 0;
}

static int virtio_acquire(struct device *dev)
{
	struct virtio *v = (struct virtio *)dev;

	return resume(v, v->model->ops->acquire);
}

static int virtio_abort(struct device *dev)
{
	struct virtio *v = (struct virtio *)dev;

	return resume(v, v->model->ops->abort);
}

static const char *driver_text(struct virtio *v)
{
	const char *text = "none";

	pthread_mutex_lock(&v->lock);
	if (v->status & VIRTIO_NEEDS_RESET)
		text = "was wrong, must reset the device";
	else if (v->resetting)
		text = "resets the device";
	else if (v->status & VIRTIO_DRIVER_OK)
		text = "runs";
	else if (v->status)
		text = "starts";
	pthread_mutex_unlock(&v->lock);
	return text;
}

static void virtio_inspect(struct device *dev, const struct inspector *to)
{
	struct virtio *v = (struct virtio *)dev;

	to->text(to->opaque, "driver", driver_text(v));
	to->counter(to->opaque, "in-flight", v->in_flight);
	if (v->model->ops->inspect)
		v->model->ops->inspect(v, to);
}

static void virtio_destroy(struct device *dev)
{
	((struct virtio *)dev)->model->ops->destroy(dev);
}

static const struct device_ops virtio_device_ops = {
	.reset = virtio_dev_reset,
	.prepare = virtio_prepare,
	.drain = virtio_drain,
	.release = virtio_release,
	.acquire = virtio_acquire,
	.abort = virtio_abort,
	.destroy = virtio_destroy,
	.inspect = virtio_inspect,
};

int virtio_init(struct virtio *v, const struct virtio_model *model,
		const struct virtio_config *config)
{
	unsigned n = 0;
	int ret;

	if (model->queues > VIRTIO_QUEUES_MAX || model->queue_size > VIRTQ_SIZE_MAX)
		return -EINVAL;
	v->model = model;
	v->dma = *config->dma;
	v->works = *config->works;
	v->waiter.ready = memory_ready;
	v->dev =
		(struct device){.name = config->name, .ops = &virtio_device_ops, .state = &v->desc};
	v->fields[n++] = (struct field)FIELD_SUB(struct virtio, fn, &pci_function_state, 1);
	v->fields[n++] = (struct field){.name = "virtio",
					.type = FIELD_STRUCT,
					.count = 1,
					.stride = sizeof(struct virtio),
					.since = 1,
					.sub = &virtio_state};
	v->fields[n] = (struct field)FIELD_SUBS(struct virtio, queue, &virtq_state, 1);
	v->fields[n++].count = model->queues;
	if (model->state)
		v->fields[n++] = (struct field){.name = "device",
						.type = FIELD_STRUCT,
						.count = 1,
						.stride = model->object_size,
						.since = 1,
						.sub = model->state};
	v->desc = (struct state_desc){.name = model->state_name,
				      .version = 1,
				      .fields = v->fields,
				      .post_load = virtio_post_load};
	v->work = v->works.create(v->works.opaque, work, v);
	if (!v->work)
		return -ENOMEM;
	pthread_mutex_init(&v->lock, NULL);
	ret = virtio_pci_init(v, config);
	if (ret) {
		v->works.destroy(v->work);
		pthread_mutex_destroy(&v->lock);
		return ret;
	}
	virtio_dev_reset(&v->dev);
	return 0;
}

void virtio_exit(struct virtio *v)
{
	v->dma.wait_not(v->dma.opaque, &v->waiter);
	v->works.destroy(v->work);
	pci_function_exit(&v->fn);
	pthread_mutex_destroy(&v->lock);
}
