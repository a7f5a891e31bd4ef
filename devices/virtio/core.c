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

static bool runs(const struct virtio *v)
{
	return (v->status & VIRTIO_DRIVER_OK) && !(v->status & VIRTIO_NEEDS_RESET) &&
	       !v->resetting && !v->quiesced;
}

/* ---- reset and status, with the lock held ---- */

static void do_reset(struct virtio *v)
{
	v->resetting = false;
	v->status = v->isr = 0;
	v->device_select = v->driver_select = 0;
	v->driver_features = 0;
	v->queue_select = 0;
	v->config_vector = VIRTQ_NO_VECTOR;
	atomic_store(&v->kicked, 0);
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		v->queue[i] = (struct virtq){.size = (uint16_t)v->model->queue_size,
					     .vector = VIRTQ_NO_VECTOR};
	if (v->model->ops->reset)
		v->model->ops->reset(v);
	pci_intx_set(&v->fn, false);
}

static uint32_t all_queues(const struct virtio *v)
{
	return (1u << v->model->queues) - 1;
}

void virtio_set_status(struct virtio *v, uint8_t value)
{
	const uint8_t settable = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK |
				 VIRTIO_FEATURES_OK | VIRTIO_FAILED;
	uint8_t rising = value & settable & ~v->status;

	if (v->resetting)
		return;
	if (!value) {
		/* The loop's thread is at the queues: it resets when it leaves them. */
		v->resetting = v->busy;
		if (!v->busy)
			do_reset(v);
		return;
	}
	/* 3.1.1: a subset that the device can live with, or the bit stays clear. */
	if ((rising & VIRTIO_FEATURES_OK) && ((v->driver_features & ~virtio_features(v)) ||
					      !(v->driver_features & VIRTIO_F_VERSION_1)))
		rising &= (uint8_t) ~(VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
	if (!((v->status | rising) & VIRTIO_FEATURES_OK))
		rising &= (uint8_t)~VIRTIO_DRIVER_OK;
	v->status |= rising;
	if (rising & VIRTIO_DRIVER_OK) {
		atomic_fetch_or(&v->kicked, all_queues(v));
		v->works.post(v->work);
	}
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

/* ---- turns on the loop's thread ---- */

bool virtio_enter(struct virtio *v)
{
	bool ok;

	pthread_mutex_lock(&v->lock);
	ok = runs(v) && !v->busy;
	if (ok) {
		v->busy = true;
		v->env = (struct virtq_env){.dma = &v->dma,
					    .indirect = v->driver_features & VIRTIO_F_INDIRECT_DESC,
					    .event_idx = v->driver_features & VIRTIO_F_EVENT_IDX};
	}
	pthread_mutex_unlock(&v->lock);
	return ok;
}

void virtio_leave(struct virtio *v)
{
	pthread_mutex_lock(&v->lock);
	v->busy = false;
	if (v->resetting)
		do_reset(v);
	pthread_mutex_unlock(&v->lock);
}

static void work(void *arg)
{
	struct virtio *v = arg;
	uint32_t kicked;

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

/* Nothing more is done for a driver that was wrong, or that wants to be rid of the device. */
static bool stopped(struct virtio *v)
{
	bool ret;

	pthread_mutex_lock(&v->lock);
	ret = v->resetting || (v->status & VIRTIO_NEEDS_RESET);
	pthread_mutex_unlock(&v->lock);
	return ret;
}

int virtio_pop(struct virtio *v, unsigned n, struct virtq_chain *chain)
{
	const char *why = "";
	int ret;

	if (!v->queue[n].enabled || stopped(v))
		return 0;
	ret = virtq_pop(&v->queue[n], &v->env, chain, &why);
	if (ret >= 0)
		return ret;
	virtio_fail(v, why);
	return 0;
}

bool virtio_push(struct virtio *v, unsigned n, uint16_t head, uint32_t len)
{
	if (!virtq_push(&v->queue[n], &v->env, head, len))
		return true;
	virtio_fail(v, "a used ring outside of memory");
	return false;
}

void virtio_signal(struct virtio *v, unsigned n)
{
	int ret = v->queue[n].enabled ? virtq_must_signal(&v->queue[n], &v->env) : 0;

	if (ret < 0)
		virtio_fail(v, "an available ring outside of memory");
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

	if (!v->queue[n].enabled || stopped(v))
		return false;
	ret = virtq_arm(&v->queue[n], &v->env);
	if (ret < 0)
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
		atomic_fetch_or(&v->kicked, all_queues(v));
		v->works.post(v->work);
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
	do_reset(v);
	pthread_mutex_unlock(&v->lock);
	pci_function_reset(&v->fn);
}

static int quiesce(struct device *dev, bool on)
{
	struct virtio *v = (struct virtio *)dev;

	pthread_mutex_lock(&v->lock);
	v->quiesced = on;
	if (!on) {
		atomic_fetch_or(&v->kicked, all_queues(v));
		v->works.post(v->work);
	}
	pthread_mutex_unlock(&v->lock);
	return 0;
}

static int virtio_prepare(struct device *dev)
{
	return quiesce(dev, true);
}

static int virtio_resume(struct device *dev)
{
	return quiesce(dev, false);
}

/* A turn ends before the loop's thread does anything else: there is nothing to wait for. */
static int virtio_nothing(struct device *dev)
{
	(void)dev;
	return 0;
}

static void virtio_destroy(struct device *dev)
{
	((struct virtio *)dev)->model->ops->destroy(dev);
}

static const struct device_ops virtio_device_ops = {
	.reset = virtio_dev_reset,
	.prepare = virtio_prepare,
	.drain = virtio_nothing,
	.release = virtio_nothing,
	.acquire = virtio_resume,
	.abort = virtio_resume,
	.destroy = virtio_destroy,
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
	v->works.destroy(v->work);
	pci_function_exit(&v->fn);
	pthread_mutex_destroy(&v->lock);
}
