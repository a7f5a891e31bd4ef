/* The block device: virtio 1.2, 5.2. Features, configuration, life; requests: blk_request.c. */
#include "devices/virtio/blk.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* 5.2.4, little endian. What a guest sees does not follow from the host's disk: a machine that
 * moves must not find another one. */
struct config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_exp, alignment_offset;
	uint16_t min_io;
	uint32_t opt_io;
	uint8_t write_cache, unused0;
	uint16_t queues;
	uint32_t discard_sectors, discard_segs, discard_alignment, zeroes_sectors, zeroes_segs;
	uint8_t zeroes_may_unmap, unused1[3];
};
enum { CONFIG_SIZE = 60, PHYSICAL_EXP = 3 /* 4096 bytes */ };
_Static_assert(offsetof(struct config, unused1) + 3 == CONFIG_SIZE, "5.2.4");

static struct config config_of(const struct blk *b)
{
	const uint32_t sectors = b->config.block->read_only ? 0 : BLK_RANGE_SECTORS;
	const uint32_t segs = b->config.block->read_only ? 0 : 1;

	return (struct config){
		.capacity = htole64(b->config.block->size / BLK_SECTOR),
		.size_max = htole32(BLK_SIZE_MAX),
		.seg_max = htole32(BLK_SEG_MAX),
		.blk_size = htole32(BLK_SECTOR),
		.physical_exp = PHYSICAL_EXP,
		.min_io = htole16(1 << PHYSICAL_EXP),
		.write_cache = b->write_cache,
		.queues = htole16((uint16_t)b->config.queues),
		.discard_sectors = htole32(sectors),
		.discard_segs = htole32(segs),
		.discard_alignment = htole32(1 << PHYSICAL_EXP),
		.zeroes_sectors = htole32(sectors),
		.zeroes_segs = htole32(segs),
		.zeroes_may_unmap = 1,
	};
}

static uint32_t blk_config_read(struct virtio *v, unsigned off, unsigned size)
{
	const struct config config = config_of((struct blk *)v);
	uint32_t value = 0;

	memcpy(&value, (const char *)&config + off, size);
	return le32toh(value);
}

static void blk_config_write(struct virtio *v, unsigned off, unsigned size, uint32_t value)
{
	if (off == offsetof(struct config, write_cache) && size == 1 &&
	    virtio_has(v, BLK_F_CONFIG_WCE))
		((struct blk *)v)->write_cache = value & 1;
}

static void blk_reset(struct virtio *v)
{
	struct blk *b = (struct blk *)v;

	b->write_cache = b->config.write_cache;
	b->kept = 0;
	b->full = false;
	b->starved = 0;
}

static int blk_post_load(struct virtio *v, const char **why)
{
	struct blk *b = (struct blk *)v;

	if (b->kept > BLK_REQUESTS)
		*why = "more requests wait than there can be";
	for (unsigned i = 0; !*why && i < b->kept; i++)
		if (b->kept_queue[i] >= b->config.queues || !v->queue[b->kept_queue[i]].enabled ||
		    b->kept_head[i] >= v->queue[b->kept_queue[i]].size)
			*why = "a waiting request of no queue";
	if (*why)
		b->kept = 0;
	b->full = false;
	return *why ? -EINVAL : 0;
}

void virtio_blk_retry(struct device *dev)
{
	struct blk *b = (struct blk *)dev;

	pthread_mutex_lock(&b->v.lock);
	b->full = false;
	pthread_mutex_unlock(&b->v.lock);
	virtio_kick(&b->v, 0);
}

static int blk_release(struct virtio *v)
{
	struct block *block = ((struct blk *)v)->config.block;

	return block->ops->release ? block->ops->release(block) : 0;
}

static int blk_acquire(struct virtio *v)
{
	struct block *block = ((struct blk *)v)->config.block;

	return block->ops->acquire ? block->ops->acquire(block) : 0;
}

static void blk_inspect(struct virtio *v, const struct inspector *to)
{
	const struct blk *b = (const struct blk *)v;
	const struct block *block = b->config.block;
	uint32_t kept;

	pthread_mutex_lock(&v->lock);
	kept = b->kept;
	pthread_mutex_unlock(&v->lock);
	const struct {
		const char *name;
		uint64_t value;
	} counters[] = {{"size", block->size},
			{"reads", b->reads},
			{"read-bytes", b->read_bytes},
			{"writes", b->writes},
			{"written-bytes", b->written_bytes},
			{"flushes", b->flushes},
			{"discards", b->discards},
			{"zeroes", b->zeroes},
			{"errors", b->errors},
			{"host-errors", block->errors},
			{"waiting-for-space", kept}};

	to->text(to->opaque, "file", block->path);
	to->text(to->opaque, "mechanism", block->mechanism);
	for (unsigned i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		to->counter(to->opaque, counters[i].name, counters[i].value);
	if (block->last_error[0])
		to->text(to->opaque, "last-error", block->last_error);
}

static void blk_destroy(struct device *dev)
{
	struct blk *b = (struct blk *)dev;

	b->config.block->completed = NULL;
	virtio_exit(&b->v);
	free(b->requests);
	free(b);
}

static bool has_kept(const void *object)
{
	return ((const struct blk *)object)->kept;
}

#define KEPT(m)                                                                                    \
	{                                                                                          \
		.name = #m, .type = FIELD_U16, .offset = offsetof(struct blk, m),                  \
		.count = BLK_REQUESTS, .stride = 2, .since = 1, .needed = has_kept                 \
	}
static const struct virtio_ops blk_ops = {.queue = blk_queue,
					  .config_read = blk_config_read,
					  .config_write = blk_config_write,
					  .reset = blk_reset,
					  .post_load = blk_post_load,
					  .release = blk_release,
					  .acquire = blk_acquire,
					  .inspect = blk_inspect,
					  .destroy = blk_destroy};
static const struct field blk_fields[] = {
	FIELD_SCALAR(struct blk, write_cache, FIELD_BOOL, 1),
	FIELD_SCALAR(struct blk, kept, FIELD_U32, 1),
	KEPT(kept_queue),
	KEPT(kept_head),
	FIELD_END,
};
static const struct state_desc blk_state = {.name = "blk", .version = 1, .fields = blk_fields};

static struct virtio_model model_of(const struct virtio_blk_config *config)
{
	uint64_t features = BLK_F_SIZE_MAX | BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_FLUSH |
			    BLK_F_TOPOLOGY | BLK_F_CONFIG_WCE;

	features |= config->block->read_only ? BLK_F_RO : BLK_F_DISCARD | BLK_F_WRITE_ZEROES;
	if (config->queues > 1)
		features |= BLK_F_MQ;
	return (struct virtio_model){.state_name = "virtio-blk",
				     .id = VIRTIO_BLK,
				     .class_code = 0x010000,
				     .features = features,
				     .queues = config->queues,
				     .queue_size = BLK_QUEUE_SIZE,
				     .config_size = CONFIG_SIZE,
				     .ops = &blk_ops,
				     .state = &blk_state,
				     .object_size = sizeof(struct blk)};
}

int virtio_blk_create(struct device **out, const struct virtio_config *config,
		      const struct virtio_blk_config *blk)
{
	struct blk *b;
	int ret;

	if (!blk->queues || blk->queues > BLK_QUEUES_MAX)
		return -EINVAL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->config = *blk;
	b->model = model_of(blk);
	if (blk->serial)
		memcpy(b->serial, blk->serial, strnlen(blk->serial, sizeof(b->serial)));
	ret = blk_requests_init(b);
	if (!ret)
		ret = virtio_init(&b->v, &b->model, config);
	if (ret) {
		blk->block->completed = NULL;
		free(b->requests);
		free(b);
		return ret;
	}
	*out = &b->v.dev;
	return 0;
}
