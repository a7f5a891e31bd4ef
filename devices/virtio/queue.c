#include "devices/virtio/queue.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* 2.7.5, 2.7.6, 2.7.8 */
enum { DESC_SIZE = 16, DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1, RING_IDX = 2, RING_START = 4, USED_ELEM = 8 };

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

bool virtq_valid(const struct virtq *q)
{
	return q->size && q->size <= VIRTQ_SIZE_MAX && !(q->size & (q->size - 1)) &&
	       q->desc % 16 == 0 && q->driver % 2 == 0 && q->device % 4 == 0 &&
	       q->desc < UINT64_MAX - (1 << 16) && q->driver < UINT64_MAX - (1 << 16) &&
	       q->device < UINT64_MAX - (1 << 16);
}

/* ---- 16 bits in guest memory, at an even address: in one page ---- */

static int load16(const struct virtq_env *env, uint64_t gpa, uint16_t *value)
{
	size_t len = 2;
	void *p;
	int ret = env->dma->map(env->dma->opaque, gpa, &len, false, &p);

	if (ret || len < 2)
		return ret ? ret : -EFAULT;
	/* What the other side wrote before the index is seen after it. */
	*value = le16toh(__atomic_load_n((uint16_t *)p, __ATOMIC_ACQUIRE));
	return 0;
}

static int store16(const struct virtq_env *env, uint64_t gpa, uint16_t value)
{
	size_t len = 2;
	void *p;
	int ret = env->dma->map(env->dma->opaque, gpa, &len, true, &p);

	if (ret || len < 2)
		return ret ? ret : -EFAULT;
	__atomic_store_n((uint16_t *)p, htole16(value), __ATOMIC_RELEASE);
	env->dma->written(env->dma->opaque, gpa, 2);
	return 0;
}

static uint64_t used_event(const struct virtq *q)
{
	return q->driver + RING_START + 2u * q->size;
}

static uint64_t avail_event(const struct virtq *q)
{
	return q->device + RING_START + (uint64_t)USED_ELEM * q->size;
}

/* ---- taking requests ---- */

static int load_desc(const struct virtq_env *env, uint64_t table, unsigned n, struct desc *d)
{
	uint8_t raw[DESC_SIZE];
	int ret;

	if (table > UINT64_MAX - (uint64_t)(n + 1) * DESC_SIZE)
		return -EFAULT;
	ret = dma_read(env->dma, table + (uint64_t)n * DESC_SIZE, raw, sizeof(raw));
	if (ret)
		return ret;
	memcpy(d, raw, sizeof(*d));
	d->addr = le64toh(d->addr);
	d->len = le32toh(d->len);
	d->flags = le16toh(d->flags);
	d->next = le16toh(d->next);
	return 0;
}

static int add_seg(struct virtq_chain *c, const struct desc *d, const char **why)
{
	const unsigned n = c->readable + c->writable;

	if (n == VIRTQ_CHAIN_MAX) {
		*why = "a chain of too many descriptors";
		return -EINVAL;
	}
	if (d->len > UINT64_MAX - d->addr) {
		*why = "a buffer beyond the end of the address space";
		return -EINVAL;
	}
	if (!(d->flags & DESC_WRITE) && c->writable) {
		*why = "a readable descriptor behind a writable one"; /* 2.7.4.2 */
		return -EINVAL;
	}
	c->seg[n] = (struct virtq_seg){d->addr, d->len};
	if (d->flags & DESC_WRITE) {
		c->writable++;
		c->writable_len += d->len;
	} else {
		c->readable++;
		c->readable_len += d->len;
	}
	return 0;
}

/* One table: the queue's own, or an indirect one of `count` entries (2.7.5.3). */
static int walk(const struct virtq_env *env, uint64_t table, unsigned count, unsigned n,
		bool indirect, struct virtq_chain *c, const char **why)
{
	struct desc d;
	int ret;

	/* No chain visits an entry twice, so a longer one is a loop. */
	for (unsigned steps = 0; steps < count; steps++) {
		if (n >= count) {
			*why = "a descriptor index beyond the table";
			return -EINVAL;
		}
		ret = load_desc(env, table, n, &d);
		if (ret) {
			*why = "a descriptor table outside of memory";
			return ret;
		}
		if (d.flags & DESC_INDIRECT) {
			if (indirect || !env->indirect || (d.flags & DESC_NEXT) || !d.len ||
			    d.len % DESC_SIZE || d.len / DESC_SIZE > VIRTQ_CHAIN_MAX) {
				*why = "a bad indirect descriptor";
				return -EINVAL;
			}
			return walk(env, d.addr, d.len / DESC_SIZE, 0, true, c, why);
		}
		ret = add_seg(c, &d, why);
		if (ret || !(d.flags & DESC_NEXT))
			return ret;
		n = d.next;
	}
	*why = "a loop of descriptors";
	return -EINVAL;
}

/* Asks for all that is missing at once; no request that is meant is as large as the limit. */
static bool here(const struct virtq_env *env, const struct virtq_chain *c)
{
	uint64_t left = 64 << 20;
	bool ret = true;

	for (unsigned i = 0; i < c->readable + c->writable; i++) {
		const struct virtq_seg *seg = &c->seg[i];
		const uint64_t n = seg->len < left ? seg->len : left;

		ret &= env->dma->here(env->dma->opaque, seg->gpa, n);
		left -= n;
	}
	return ret;
}

/* How many requests wait, or an error. */
static int available(struct virtq *q, const struct virtq_env *env)
{
	uint16_t idx;
	int ret = load16(env, q->driver + RING_IDX, &idx);

	return ret ? ret : (uint16_t)(idx - q->next_avail);
}

int virtq_pop(struct virtq *q, const struct virtq_env *env, struct virtq_chain *chain,
	      const char **why)
{
	int n = available(q, env), ret = n < 0 ? n : 0;
	uint16_t head;

	if (n == 0)
		return 0;
	if (!ret)
		ret = load16(env, q->driver + RING_START + 2u * (q->next_avail % q->size), &head);
	if (ret) {
		*why = "an available ring outside of memory";
		return ret;
	}
	if (n > q->size) {
		*why = "an available index that has run away";
		return -EINVAL;
	}
	chain->head = head;
	chain->readable = chain->writable = 0;
	chain->readable_len = chain->writable_len = 0;
	ret = walk(env, q->desc, q->size, head, false, chain, why);
	if (ret)
		return ret;
	if (!here(env, chain))
		return -EAGAIN;
	q->next_avail++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	q->next_avail--;
}

int virtq_arm(struct virtq *q, const struct virtq_env *env)
{
	int n;

	if (env->event_idx && store16(env, avail_event(q), q->next_avail))
		return -EFAULT;
	/* Either the driver sees the event index, or this sees its request (2.7.10). */
	atomic_thread_fence(memory_order_seq_cst);
	n = available(q, env);
	return n < 0 ? n : n > 0;
}

/* ---- giving them back ---- */

int virtq_push(struct virtq *q, const struct virtq_env *env, const struct virtq_used *used,
	       unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const uint32_t elem[2] = {htole32(used[i].head), htole32(used[i].len)};
		const uint16_t slot = (uint16_t)(q->next_used + i) % q->size;
		int ret = dma_write(env->dma, q->device + RING_START + (uint64_t)USED_ELEM * slot,
				    elem, sizeof(elem));

		if (ret)
			return ret;
	}
	q->next_used = (uint16_t)(q->next_used + count);
	return store16(env, q->device + RING_IDX, q->next_used);
}

int virtq_must_signal(struct virtq *q, const struct virtq_env *env)
{
	const uint16_t old = q->signalled, now = q->next_used;
	uint16_t value;
	bool valid = q->signalled_valid;

	/* The used index is out before the driver's wish is looked at (2.7.7.2). */
	atomic_thread_fence(memory_order_seq_cst);
	if (load16(env, env->event_idx ? used_event(q) : q->driver, &value))
		return -EFAULT;
	if (!env->event_idx)
		return !(value & AVAIL_NO_INTERRUPT);
	q->signalled = now;
	q->signalled_valid = true;
	return !valid || (uint16_t)(now - value - 1) < (uint16_t)(now - old);
}

/* ---- data ---- */

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

static const struct field virtq_fields[] = {
	FIELD_SCALAR(struct virtq, size, FIELD_U16, 1),
	FIELD_SCALAR(struct virtq, vector, FIELD_U16, 1),
	FIELD_SCALAR(struct virtq, enabled, FIELD_BOOL, 1),
	FIELD_SCALAR(struct virtq, desc, FIELD_U64, 1),
	FIELD_SCALAR(struct virtq, driver, FIELD_U64, 1),
	FIELD_SCALAR(struct virtq, device, FIELD_U64, 1),
	FIELD_SCALAR(struct virtq, next_avail, FIELD_U16, 1),
	FIELD_SCALAR(struct virtq, next_used, FIELD_U16, 1),
	FIELD_SCALAR(struct virtq, signalled, FIELD_U16, 1),
	FIELD_SCALAR(struct virtq, signalled_valid, FIELD_BOOL, 1),
	FIELD_END,
};
const struct state_desc virtq_state = {.name = "virtq", .version = 1, .fields = virtq_fields};
