/* The data of a request: its segments in guest memory, as bytes and as pieces of host memory. */
#include <errno.h>

#include "devices/virtio/queue.h"

/* The segments of one side that [off, off + len) goes through, one after the other. */
struct cursor {
	const struct virtq_seg *seg;
	unsigned segs;
	uint64_t off, left;
};

static struct cursor begin(const struct virtq_chain *c, bool writable, uint64_t off, uint64_t len)
{
	return (struct cursor){.seg = writable ? c->seg + c->readable : c->seg,
			       .segs = writable ? c->writable : c->readable,
			       .off = off,
			       .left = len};
}

/* The next piece of guest memory: 1; 0: that was all; -EFAULT: there is less. */
static int next(struct cursor *c, uint64_t *gpa, size_t *len)
{
	while (c->left && c->segs) {
		const struct virtq_seg *seg = c->seg;

		if (c->off < seg->len) {
			const uint64_t rest = seg->len - c->off;

			*gpa = seg->gpa + c->off;
			*len = rest < c->left ? rest : c->left;
			c->left -= *len;
			c->off += *len;
			return 1;
		}
		c->off -= seg->len;
		c->seg++;
		c->segs--;
	}
	return c->left ? -EFAULT : 0;
}

int virtq_read(const struct virtq_env *env, const struct virtq_chain *chain, uint64_t off,
	       void *buf, size_t len)
{
	struct cursor c = begin(chain, false, off, len);
	uint8_t *to = buf;
	uint64_t gpa;
	size_t n;
	int ret;

	while ((ret = next(&c, &gpa, &n)) > 0) {
		ret = dma_read(env->dma, gpa, to, n);
		if (ret)
			return ret;
		to += n;
	}
	return ret;
}

int virtq_write(const struct virtq_env *env, const struct virtq_chain *chain, uint64_t off,
		const void *buf, size_t len)
{
	struct cursor c = begin(chain, true, off, len);
	const uint8_t *from = buf;
	uint64_t gpa;
	size_t n;
	int ret;

	while ((ret = next(&c, &gpa, &n)) > 0) {
		ret = dma_write(env->dma, gpa, from, n);
		if (ret)
			return ret;
		from += n;
	}
	return ret;
}

int virtq_iov(const struct virtq_env *env, const struct virtq_chain *chain, bool writable,
	      uint64_t off, uint64_t len, struct iovec *iov, unsigned max)
{
	struct cursor c = begin(chain, writable, off, len);
	unsigned count = 0;
	uint64_t gpa;
	size_t rest;
	int ret;

	while ((ret = next(&c, &gpa, &rest)) > 0) {
		while (rest) {
			size_t n = rest;
			void *p;

			ret = env->dma->map(env->dma->opaque, gpa, &n, writable, &p);
			if (ret)
				return ret;
			gpa += n;
			rest -= n;
			if (count &&
			    (char *)iov[count - 1].iov_base + iov[count - 1].iov_len == p) {
				iov[count - 1].iov_len += n;
				continue;
			}
			if (count == max)
				return -E2BIG;
			iov[count++] = (struct iovec){p, n};
		}
	}
	return ret < 0 ? ret : (int)count;
}

void virtq_written(const struct virtq_env *env, const struct virtq_chain *chain, uint64_t off,
		   uint64_t len)
{
	struct cursor c = begin(chain, true, off, len);
	uint64_t gpa;
	size_t n;

	while (next(&c, &gpa, &n) > 0)
		env->dma->written(env->dma->opaque, gpa, n);
}
