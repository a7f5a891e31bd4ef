/* A block back end in memory whose requests end when a test says so, in the order that it says. */
#ifndef TESTS_UNIT_BLOCK_MOCK_H
#define TESTS_UNIT_BLOCK_MOCK_H

#include <errno.h>

#include "devices/block/block.h"
#include "tests/unit/dev_util.h"

#define BM_SIZE (64u << 10)
#define BM_MAX	512

struct bm {
	struct block b;
	uint8_t disk[BM_SIZE];
	struct block_request *flight[BM_MAX];
	unsigned in_flight, committed, commits, calls[5];
	int fail;	  /* result of what ends from now on, of writes only if it is -ENOSPC */
	unsigned no_more; /* writes beyond this offset find no space; 0: all do */
};

static inline void bm_submit(struct block *b, struct block_request *r)
{
	struct bm *m = (struct bm *)b;
	uint64_t bytes = 0;

	CHECK(m->in_flight < BM_MAX);
	if (r->op != BLOCK_FLUSH)
		CHECK(r->bytes <= b->size && r->offset <= b->size - r->bytes);
	CHECK(r->offset % 512 == 0 || r->op == BLOCK_FLUSH);
	if (r->op == BLOCK_READ || r->op == BLOCK_WRITE) {
		for (unsigned i = 0; i < r->iovs; i++)
			bytes += r->iov[i].iov_len;
		CHECK_EQ(bytes, r->bytes);
	}
	CHECK(!b->read_only || r->op == BLOCK_READ || r->op == BLOCK_FLUSH);
	m->flight[m->in_flight++] = r;
	m->calls[r->op]++;
}

static inline void bm_commit(struct block *b)
{
	struct bm *m = (struct bm *)b;

	m->commits += m->committed < m->in_flight;
	m->committed = m->in_flight;
}

static inline int bm_carry_out(struct bm *m, struct block_request *r)
{
	const bool writes = r->op == BLOCK_WRITE || r->op == BLOCK_ZEROES;
	uint8_t *at = m->disk + r->offset;

	if (m->fail && (m->fail != -ENOSPC || (writes && r->offset >= m->no_more)))
		return m->fail;
	for (unsigned i = 0; i < r->iovs && (r->op == BLOCK_READ || r->op == BLOCK_WRITE); i++) {
		if (r->op == BLOCK_READ)
			memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
		else
			memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
	}
	if (r->op == BLOCK_DISCARD || r->op == BLOCK_ZEROES)
		memset(at, r->op == BLOCK_ZEROES ? 0 : 0xdd, r->bytes);
	return 0;
}

/* Ends `n` of the committed requests, from number `at` of those in flight on. */
static inline void bm_end(struct bm *m, unsigned at, unsigned n)
{
	struct block_request *over[BM_MAX];

	CHECK(at + n <= m->committed);
	memcpy(over, m->flight + at, n * sizeof(over[0]));
	memmove(m->flight + at, m->flight + at + n, (m->in_flight - at - n) * sizeof(over[0]));
	m->in_flight -= n;
	m->committed -= n;
	for (unsigned i = 0; i < n; i++)
		over[i]->done(over[i], bm_carry_out(m, over[i]));
	if (n && m->b.completed)
		m->b.completed(m->b.client);
}

static inline void bm_end_all(struct bm *m)
{
	while (m->committed)
		bm_end(m, 0, m->committed);
}

static inline void bm_init(struct bm *m, bool read_only)
{
	static const struct block_ops ops = {.submit = bm_submit, .commit = bm_commit};
	static char path[] = "mock.img";

	*m = (struct bm){.b = {.ops = &ops,
			       .size = BM_SIZE,
			       .block_size = 512,
			       .memory_align = 1,
			       .read_only = read_only,
			       .can_discard = true,
			       .can_zero = true,
			       .mechanism = "memory",
			       .path = path}};
}

#endif
