/*
 * Requests of the block device: virtio 1.2, 5.2.6.
 *
 * A request goes to the back end as pieces of guest memory and is answered on a later turn; those
 * of a turn are committed together, those that end together are signalled once. Nothing is
 * allocated on the way.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/blk.h"

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPP = 2, STARTED = 0x100 /* no answer yet */ };
enum { HEADER = 16, RANGE = 16, FLAG_UNMAP = 1 };

/* 5.2.6: both are as long. */
struct header {
	uint32_t type, reserved;
	uint64_t sector;
};
struct range {
	uint64_t sector;
	uint32_t sectors, flags;
};

static struct blk_request *take(struct blk *b)
{
	struct blk_request *r = b->free;

	b->free = r->next;
	b->free_count--;
	r->flushing = false;
	return r;
}

static void give_back(struct blk *b, struct blk_request *r)
{
	r->next = b->free;
	b->free = r;
	b->free_count++;
}

/* The request is over: its status byte is the last that the device may write. */
static void answer(struct blk *b, struct blk_request *r, uint8_t status, uint32_t written)
{
	const struct virtq_chain *c = &r->chain;

	if (status != OK)
		b->errors++;
	if (virtio_write(&b->v, c, c->writable_len - 1, &status, 1) &&
	    virtio_push(&b->v, r->queue, c->head, written + 1))
		b->pushed |= 1u << r->queue;
	give_back(b, r);
}

static void signal_pushed(struct blk *b)
{
	for (unsigned n = 0; b->pushed; n++) {
		if (b->pushed >> n & 1)
			virtio_signal(&b->v, n);
		b->pushed &= ~(1u << n);
	}
}

/* ---- beginning ---------------------------------------------------------------------------- */

static unsigned submit(struct blk *b, struct blk_request *r, enum block_op op)
{
	r->block.op = op;
	virtio_begin(&b->v);
	b->config.block->ops->submit(b->config.block, &r->block);
	return STARTED;
}

static bool in_disk(const struct blk *b, uint64_t sector, uint64_t bytes)
{
	const uint64_t size = b->config.block->size;

	return bytes <= size && sector <= (size - bytes) / BLK_SECTOR;
}

static unsigned begin_transfer(struct blk *b, struct blk_request *r, uint64_t sector, bool read)
{
	const uint64_t bytes = read ? r->chain.writable_len - 1 : r->chain.readable_len - HEADER;
	int n;

	if ((!read && b->config.block->read_only) || bytes % BLK_SECTOR ||
	    bytes > (uint64_t)BLK_SEG_MAX * BLK_SIZE_MAX || !in_disk(b, sector, bytes))
		return IOERR;
	n = virtio_iov(&b->v, &r->chain, read, read ? 0 : HEADER, bytes, r->iov, BLK_IOVS);
	if (n < 0)
		return IOERR;
	r->block.offset = sector * BLK_SECTOR;
	r->block.bytes = bytes;
	r->block.iov = r->iov;
	r->block.iovs = (unsigned)n;
	return submit(b, r, read ? BLOCK_READ : BLOCK_WRITE);
}

/* One range: no more was offered (max_discard_seg, max_write_zeroes_seg). */
static unsigned begin_range(struct blk *b, struct blk_request *r, bool discard)
{
	struct range range;

	if (r->chain.readable_len != HEADER + RANGE)
		return UNSUPP;
	if (!virtio_read(&b->v, &r->chain, HEADER, &range, sizeof(range)))
		return IOERR;
	range.sector = le64toh(range.sector);
	range.sectors = le32toh(range.sectors);
	range.flags = le32toh(range.flags);
	if (range.flags & ~(discard ? 0u : FLAG_UNMAP))
		return UNSUPP;
	if (b->config.block->read_only || range.sectors > BLK_RANGE_SECTORS ||
	    !in_disk(b, range.sector, (uint64_t)range.sectors * BLK_SECTOR))
		return IOERR;
	r->block.offset = range.sector * BLK_SECTOR;
	r->block.bytes = (uint64_t)range.sectors * BLK_SECTOR;
	r->block.may_unmap = range.flags & FLAG_UNMAP;
	return submit(b, r, discard ? BLOCK_DISCARD : BLOCK_ZEROES);
}

static unsigned give_id(struct blk *b, struct blk_request *r, uint32_t *written)
{
	const uint64_t room = r->chain.writable_len - 1;

	*written = room < BLK_ID_LEN ? (uint32_t)room : BLK_ID_LEN;
	return virtio_write(&b->v, &r->chain, 0, b->serial, *written) ? OK : IOERR;
}

static unsigned dispatch(struct blk *b, struct blk_request *r, const struct header *h,
			 uint32_t *written)
{
	const uint64_t sector = le64toh(h->sector);

	switch (le32toh(h->type)) {
	case IN: return begin_transfer(b, r, sector, true);
	case OUT: return begin_transfer(b, r, sector, false);
	case FLUSH: return submit(b, r, BLOCK_FLUSH);
	case GET_ID: return give_id(b, r, written);
	case DISCARD: return begin_range(b, r, true);
	case WRITE_ZEROES: return begin_range(b, r, false);
	default: return UNSUPP;
	}
}

static void begin(struct blk *b, struct blk_request *r, unsigned queue)
{
	struct header h;
	uint32_t written = 0;
	unsigned status;

	r->queue = (uint16_t)queue;
	if (!r->chain.writable_len) {
		virtio_fail(&b->v, "a request without room for its status");
		give_back(b, r);
		return;
	}
	if (!virtio_read(&b->v, &r->chain, 0, &h, sizeof(h))) {
		give_back(b, r);
		return;
	}
	status = dispatch(b, r, &h, &written);
	if (status != STARTED)
		answer(b, r, (uint8_t)status, written);
}

/* ---- requests that the host had no space for ----------------------------------------------- */

static void keep(struct blk *b, struct blk_request *r)
{
	if (b->kept == BLK_REQUESTS) { /* a state that was loaded beside requests in flight */
		answer(b, r, IOERR, 0);
		return;
	}
	b->kept_queue[b->kept] = r->queue;
	b->kept_head[b->kept] = r->chain.head;
	b->kept++;
	give_back(b, r);
}

static void kick_starved(struct blk *b)
{
	for (unsigned n = 0; b->starved; n++) {
		if (b->starved >> n & 1)
			virtio_kick(&b->v, n);
		b->starved &= ~(1u << n);
	}
}

/* From the driver's descriptors again, as if they had just come. */
static void begin_kept(struct blk *b)
{
	uint32_t n = 0;

	for (; n < b->kept; n++) {
		struct blk_request *r = b->free;

		if (!r || !virtio_repop(&b->v, b->kept_queue[n], b->kept_head[n], &r->chain))
			break;
		begin(b, take(b), b->kept_queue[n]);
	}
	b->kept -= n;
	memmove(b->kept_queue, b->kept_queue + n, b->kept * sizeof(b->kept_queue[0]));
	memmove(b->kept_head, b->kept_head + n, b->kept * sizeof(b->kept_head[0]));
	kick_starved(b);
}

/* ---- a turn ------------------------------------------------------------------------------- */

void blk_queue(struct virtio *v, unsigned n)
{
	struct blk *b = (struct blk *)v;
	unsigned budget = BLK_QUEUE_SIZE;

	if (b->kept && !b->full)
		begin_kept(b);
	for (; budget; budget--) {
		/* Each one that is kept needs one again. */
		if (b->free_count <= b->kept) {
			b->starved |= 1u << n;
			break;
		}
		if (!virtio_pop(v, n, &b->free->chain)) {
			if (virtio_arm(v, n))
				continue;
			break;
		}
		begin(b, take(b), n);
	}
	b->config.block->ops->commit(b->config.block);
	signal_pushed(b);
	if (!budget)
		virtio_kick(v, n);
}

/* ---- ending ------------------------------------------------------------------------------- */

static void done(struct block_request *block, int result)
{
	struct blk_request *r = block->opaque;
	struct blk *b = r->blk;

	block->result = result;
	r->next = NULL;
	*b->over_end = r;
	b->over_end = &r->next;
}

static void count(struct blk *b, const struct blk_request *r)
{
	switch (r->block.op) {
	case BLOCK_READ:
		b->reads++;
		b->read_bytes += r->block.bytes;
		break;
	case BLOCK_WRITE:
		b->writes++;
		b->written_bytes += r->block.bytes;
		break;
	case BLOCK_FLUSH: b->flushes += !r->flushing; break;
	case BLOCK_DISCARD: b->discards++; break;
	case BLOCK_ZEROES: b->zeroes++; break;
	}
}

/* 5.2.6.2: without a cache a write is on stable storage before it is answered; so it is for a
 * driver that cannot flush. */
static bool writes_through(struct blk *b)
{
	bool cache;

	if (!virtio_has(&b->v, BLK_F_CONFIG_WCE))
		return !b->config.write_cache || !virtio_has(&b->v, BLK_F_FLUSH);
	pthread_mutex_lock(&b->v.lock);
	cache = b->write_cache;
	pthread_mutex_unlock(&b->v.lock);
	return !cache;
}

/* The driver is there (ok) or gone. */
static void end(struct blk *b, struct blk_request *r, bool ok)
{
	const bool writes = r->block.op == BLOCK_WRITE || r->block.op == BLOCK_ZEROES;
	const int result = r->block.result;
	uint32_t written = 0;

	virtio_end(&b->v);
	/* What was read in part is in guest memory, too. */
	if (r->block.op == BLOCK_READ) {
		written = (uint32_t)r->block.bytes;
		virtio_written(&b->v, &r->chain, 0, written);
	}
	if (!ok) {
		give_back(b, r);
		return;
	}
	if ((result == -ENOSPC || result == -EDQUOT) && writes && b->config.full) {
		keep(b, r);
		return;
	}
	count(b, r);
	if (writes && !result && writes_through(b)) {
		r->flushing = true;
		submit(b, r, BLOCK_FLUSH);
		return;
	}
	if (result)
		dev_log(b->v.dev.name, "%s: %s", b->config.block->path,
			b->config.block->last_error);
	answer(b, r, result ? IOERR : OK, result ? 0 : written);
}

static void completed(void *client)
{
	struct blk *b = client;
	const bool ok = virtio_enter_done(&b->v);
	const uint32_t kept = b->kept;
	struct blk_request *r = b->over;
	bool full;

	b->over = NULL;
	b->over_end = &b->over;
	while (r) {
		struct blk_request *next = r->next;

		end(b, r, ok);
		r = next;
	}
	b->config.block->ops->commit(b->config.block);
	signal_pushed(b);
	kick_starved(b);
	full = b->kept > kept && !b->full;
	b->full |= full;
	virtio_leave(&b->v);
	if (full)
		b->config.full(b->config.opaque, &b->v.dev);
}

int blk_requests_init(struct blk *b)
{
	/* Large, and hardly touched: a chain is as long as the longest. */
	b->requests = calloc(BLK_REQUESTS, sizeof(*b->requests));
	if (!b->requests)
		return -ENOMEM;
	for (unsigned i = 0; i < BLK_REQUESTS; i++) {
		struct blk_request *r = &b->requests[i];

		r->blk = b;
		r->block.done = done;
		r->block.opaque = r;
		give_back(b, r);
	}
	b->over_end = &b->over;
	b->config.block->completed = completed;
	b->config.block->client = b;
	return 0;
}
