/* Life and state of a virtio device: what struct device_ops wants. */
#include <errno.h>
#include <string.h>

#include "devices/virtio/virtio.h"

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
		virtio_look(v);
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
	virtio_ask_reset(v);
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
	busy = v->draining = virtio_occupied(v);
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
	virtio_look(v);
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
	v->waiter.ready = virtio_memory_ready;
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
	v->work = v->works.create(v->works.opaque, virtio_work, v);
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
