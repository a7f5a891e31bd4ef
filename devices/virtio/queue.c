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

/* ---- the rings, in host memory ---- */

static size_t avail_size(const struct virtq *q)
{
	return RING_START + 2u * q->size + 2;
}

static size_t used_size(const struct virtq *q)
{
	return RING_START + (size_t)USED_ELEM * q->size + 2;
}

static int map_ring(const struct virtq_env *env, uint64_t gpa, size_t size, bool write, void **out)
{
	size_t len = size;
	int ret = env->dma->map(env->dma->opaque, gpa, &len, write, out);

	return ret || len == size ? ret : -EFAULT;
}

int virtq_turn(struct virtq *q, const struct virtq_env *env)
{
	const struct dma_ops *dma = env->dma;
	void *desc, *avail, *used;
	int ret;

	if (q->rings.turn == env->turn)
		return 0;
	/* Not &&: all that is missing is asked for at once. */
	if (!(dma->here(dma->opaque, q->desc, (uint64_t)DESC_SIZE * q->size) &
	      dma->here(dma->opaque, q->driver, avail_size(q)) &
	      dma->here(dma->opaque, q->device, used_size(q))))
		return -EAGAIN;
	ret = map_ring(env, q->desc, (size_t)DESC_SIZE * q->size, false, &desc);
	if (!ret)
		ret = map_ring(env, q->driver, avail_size(q), false, &avail);
	if (!ret)
		ret = map_ring(env, q->device, used_size(q), true, &used);
	if (!ret)
		q->rings = (struct virtq_rings){desc, avail, used, env->turn, false};
	return ret;
}

void virtq_turn_done(struct virtq *q, const struct virtq_env *env)
{
	if (q->rings.written)
		env->dma->written(env->dma->opaque, q->device, used_size(q));
	q->rings.written = false;
}

static uint16_t load16(const uint8_t *p)
{
	/* What the other side wrote before the index is seen after it. */
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static void store_used(struct virtq *q, size_t off, uint16_t value)
{
	__atomic_store_n((uint16_t *)(q->rings.used + off), htole16(value), __ATOMIC_RELEASE);
	q->rings.written = true;
}

static const uint8_t *used_event(const struct virtq *q)
{
	return q->rings.avail + RING_START + 2u * q->size;
}

/* ---- taking requests ---- */

/* A table of descriptors; of an indirect one only the first piece is at hand. */
struct table {
	uint64_t gpa;
	unsigned count;
	const uint8_t *host;
	size_t len;
};

static int load_desc(const struct virtq_env *env, const struct table *t, unsigned n, struct desc *d)
{
	const size_t off = (size_t)n * DESC_SIZE;
	int ret;

	if (off + DESC_SIZE <= t->len) {
		memcpy(d, t->host + off, sizeof(*d));
	} else {
		ret = dma_read(env->dma, t->gpa + off, d, sizeof(*d));
		if (ret)
			return ret;
	}
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

/* One table: the queue's own, or an indirect one (2.7.5.3). */
static int walk(const struct virtq_env *env, const struct table *t, unsigned n, bool indirect,
		struct virtq_chain *c, const char **why)
{
	struct table inner;
	struct desc d;
	void *host;
	int ret;

	/* No chain visits an entry twice, so a longer one is a loop. */
	for (unsigned steps = 0; steps < t->count; steps++) {
		if (n >= t->count) {
			*why = "a descriptor index beyond the table";
			return -EINVAL;
		}
		ret = load_desc(env, t, n, &d);
		if (ret) {
			*why = "a descriptor table outside of memory";
			return ret;
		}
		if (d.flags & DESC_INDIRECT) {
			if (indirect || !env->indirect || (d.flags & DESC_NEXT) || !d.len ||
			    d.len % DESC_SIZE || d.len / DESC_SIZE > VIRTQ_CHAIN_MAX ||
			    d.len > UINT64_MAX - d.addr) {
				*why = "a bad indirect descriptor";
				return -EINVAL;
			}
			inner = (struct table){d.addr, d.len / DESC_SIZE, NULL, d.len};
			ret = env->dma->map(env->dma->opaque, d.addr, &inner.len, false, &host);
			if (ret) {
				*why = "a descriptor table outside of memory";
				return ret;
			}
			inner.host = host;
			return walk(env, &inner, 0, true, c, why);
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

/* How many requests wait. */
static uint16_t available(const struct virtq *q)
{
	return (uint16_t)(load16(q->rings.avail + RING_IDX) - q->next_avail);
}

/* The request whose descriptors begin at `head`. */
static int load_chain(const struct virtq *q, const struct virtq_env *env, uint16_t head,
		      struct virtq_chain *chain, const char **why)
{
	const struct table table = {q->desc, q->size, q->rings.desc, (size_t)DESC_SIZE * q->size};
	int ret;

	chain->head = head;
	chain->readable = chain->writable = 0;
	chain->readable_len = chain->writable_len = 0;
	ret = walk(env, &table, head, false, chain, why);
	if (ret)
		return ret;
	return q->unread || here(env, chain) ? 1 : -EAGAIN;
}

int virtq_pop(struct virtq *q, const struct virtq_env *env, struct virtq_chain *chain,
	      const char **why)
{
	int ret = virtq_turn(q, env);
	uint16_t n;

	if (ret) {
		*why = "rings outside of memory";
		return ret;
	}
	n = available(q);
	if (!n)
		return 0;
	if (n > q->size) {
		*why = "an available index that has run away";
		return -EINVAL;
	}
	n = load16(q->rings.avail + RING_START + 2u * (q->next_avail % q->size));
	ret = load_chain(q, env, n, chain, why);
	if (ret > 0)
		q->next_avail++;
	return ret;
}

int virtq_repop(struct virtq *q, const struct virtq_env *env, uint16_t head,
		struct virtq_chain *chain, const char **why)
{
	int ret = virtq_turn(q, env);

	*why = "rings outside of memory";
	return ret ? ret : load_chain(q, env, head, chain, why);
}

void virtq_unpop(struct virtq *q)
{
	q->next_avail--;
}

int virtq_arm(struct virtq *q, const struct virtq_env *env)
{
	int ret = virtq_turn(q, env);

	if (ret)
		return ret;
	if (env->event_idx)
		store_used(q, RING_START + (size_t)USED_ELEM * q->size, q->next_avail);
	/* Either the driver sees the event index, or this sees its request (2.7.10). */
	atomic_thread_fence(memory_order_seq_cst);
	return available(q) > 0;
}

/* ---- giving them back ---- */

int virtq_push(struct virtq *q, const struct virtq_env *env, const struct virtq_used *used,
	       unsigned count)
{
	int ret = virtq_turn(q, env);

	if (ret)
		return ret;
	for (unsigned i = 0; i < count; i++) {
		const uint32_t elem[2] = {htole32(used[i].head), htole32(used[i].len)};
		const uint16_t slot = (uint16_t)(q->next_used + i) % q->size;

		memcpy(q->rings.used + RING_START + (size_t)USED_ELEM * slot, elem, sizeof(elem));
	}
	q->next_used = (uint16_t)(q->next_used + count);
	store_used(q, RING_IDX, q->next_used);
	return 0;
}

int virtq_must_signal(struct virtq *q, const struct virtq_env *env)
{
	const uint16_t old = q->signalled, now = q->next_used;
	const bool valid = q->signalled_valid;
	int ret = virtq_turn(q, env);
	uint16_t value;

	if (ret)
		return ret;
	/* The used index is out before the driver's wish is looked at (2.7.7.2). */
	atomic_thread_fence(memory_order_seq_cst);
	value = load16(env->event_idx ? used_event(q) : q->rings.avail);
	if (!env->event_idx)
		return !(value & AVAIL_NO_INTERRUPT);
	q->signalled = now;
	q->signalled_valid = true;
	return !valid || (uint16_t)(now - value - 1) < (uint16_t)(now - old);
}

/* ---- state ---- */

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
