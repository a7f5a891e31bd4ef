/* What the block back ends share (devices/block/block.h). All of it is the loop's thread's. */
#ifndef DEVICES_BLOCK_BACKEND_H
#define DEVICES_BLOCK_BACKEND_H

#include "devices/block/block.h"

/* A list of requests in order, linked by their `next`. */
struct block_list {
	struct block_request *first, **end;
};
static inline void block_list_init(struct block_list *list)
{
	list->first = NULL;
	list->end = &list->first;
}
void block_list_add(struct block_list *list, struct block_request *r);
/* The first, taken out; NULL: empty. */
struct block_request *block_list_take(struct block_list *list);
/* All of `from` behind what is in `to`. */
void block_list_move(struct block_list *to, struct block_list *from);

static inline size_t block_smaller(uint64_t a, uint64_t b)
{
	return (size_t)(a < b ? a : b);
}
/* The request's iovec without its first `len` bytes. */
void block_iov_advance(struct block_request *r, size_t len);
/* Its first `len` bytes to a buffer, or from it. */
void block_iov_copy(const struct block_request *r, char *buf, size_t len, bool to_buf);

/* Zeroes to write, and how many; only ever read. */
enum { BLOCK_PIECE = 1 << 20 };
extern char block_zeroes[BLOCK_PIECE];

/* Ends the requests of a list with the `result` in each, then tells the client that it was a
 * batch. What failed is counted and described in last_error. */
void block_finish(struct block *b, struct block_list *list);

#endif
