/* Entropy device: virtio 1.2, 5.4. */
#include "devices/virtio/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

enum { QUEUE_SIZE = 64, BYTES_MAX = 4096 /* of one request; the driver asks again */ };

struct rng {
	struct virtio v;
	struct virtq_chain chain;
};

static bool serve(struct virtio *v, const struct virtq_chain *chain)
{
	uint8_t bytes[256];
	uint32_t want = chain->writable_len < BYTES_MAX ? (uint32_t)chain->writable_len : BYTES_MAX;
	uint32_t done = 0;

	while (done < want) {
		size_t n = want - done < sizeof(bytes) ? want - done : sizeof(bytes);
		/* Up to 256 bytes come whole; before the host's pool is ready nothing does, and
		 * nobody waits for that here. */
		ssize_t got = getrandom(bytes, n, GRND_NONBLOCK);

		if (got <= 0)
			break;
		if (!virtio_write(v, chain, done, bytes, (size_t)got))
			return false;
		done += (uint32_t)got;
	}
	return virtio_push(v, 0, chain->head, done);
}

static void rng_queue(struct virtio *v, unsigned n)
{
	struct rng *r = (struct rng *)v;
	unsigned budget = QUEUE_SIZE;
	bool any = false;

	for (; budget; budget--) {
		if (!virtio_pop(v, n, &r->chain)) {
			if (virtio_arm(v, n))
				continue;
			break;
		}
		if (!serve(v, &r->chain))
			break;
		any = true;
	}
	if (any)
		virtio_signal(v, n);
	if (!budget)
		virtio_kick(v, n);
}

static void rng_destroy(struct device *dev)
{
	virtio_exit((struct virtio *)dev);
	free(dev);
}

int virtio_rng_create(struct device **out, const struct virtio_config *config)
{
	static const struct virtio_ops ops = {.queue = rng_queue, .destroy = rng_destroy};
	static const struct virtio_model model = {.state_name = "virtio-rng",
						  .id = VIRTIO_RNG,
						  .class_code = 0x00ff00,
						  .queues = 1,
						  .queue_size = QUEUE_SIZE,
						  .ops = &ops};
	struct rng *r = calloc(1, sizeof(*r));
	int ret;

	if (!r)
		return -ENOMEM;
	ret = virtio_init(&r->v, &model, config);
	if (ret) {
		free(r);
		return ret;
	}
	*out = &r->v.dev;
	return 0;
}
