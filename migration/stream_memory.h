/*
 * Guest memory in the stream: which pages there are, runs of them with contents or zero, who waits
 * for which, which have come, what they must be. A page's number is its guest-physical address
 * divided by STREAM_PAGE.
 *
 * Pages that are sent while the guest runs change while they are being sent: a checksum of them
 * would be wrong by the time of the writing. Such pages are copied first (`live`); those of a
 * stopped guest are sent from where they are.
 */
#ifndef MIGRATION_STREAM_MEMORY_H
#define MIGRATION_STREAM_MEMORY_H

#include "migration/stream.h"

enum {
	STREAM_REGIONS_MAX = 64,
	STREAM_REQUESTS_MAX = 256,
	STREAM_RECEIVED_MAX = 1 << 18, /* bits in one frame: 1 GiB of pages */
	STREAM_DIGESTS_MAX = 4096,
};
#define STREAM_PAGE_NUMBER_MAX (1ULL << 40) /* 52 bits of address */

/* ---- MEMORY: u32 count, u32 0, count * { u64 first, u64 pages } ---- */

struct stream_region {
	uint64_t first, count; /* pages */
};
/* Ascending, without overlap. */
struct stream_memory {
	uint32_t count;
	uint64_t pages; /* of all regions */
	struct stream_region region[STREAM_REGIONS_MAX];
};
/* 0 or -EINVAL: out of order, too many, or out of range. */
int stream_memory_add(struct stream_memory *memory, uint64_t first, uint64_t count);
bool stream_memory_has(const struct stream_memory *memory, uint64_t first, uint64_t count);
/* The page's place when all regions lie side by side; only for pages that are there. */
uint64_t stream_memory_index(const struct stream_memory *memory, uint64_t page);
/* And back; place < memory->pages. */
uint64_t stream_memory_page(const struct stream_memory *memory, uint64_t place);
int stream_memory_write(struct stream_writer *w, const struct stream_memory *memory);
int stream_memory_read(const struct stream_frame *frame, struct stream_memory *memory,
		       struct stream_error *err);

/* ---- PAGES: u32 runs, u32 pages with contents, runs * { u64 first, u32 count, u32 kind },
 *      contents. Kinds: 1 with contents, 2 zero. Runs ascend and do not overlap. ---- */

struct stream_pages_run {
	uint64_t first;
	uint32_t count;
	const uint8_t *data; /* count * STREAM_PAGE bytes in the frame; NULL: zero */
};
struct stream_pages {
	uint32_t runs, contents; /* how many; pages with contents */
	uint64_t total;		 /* pages, zero ones too */
	const uint8_t *run, *data;
	uint32_t left;
};
/* Checks all of the frame, that every page is in memory too. The frame's payload must stay. */
int stream_pages_read(const struct stream_frame *frame, const struct stream_memory *memory,
		      struct stream_pages *pages, struct stream_error *err);
/* The next run; false: no more. */
bool stream_pages_next(struct stream_pages *pages, struct stream_pages_run *run);

/* Gathers pages of one round and writes frames of up to `limit` pages with contents. */
struct stream_batch;
struct stream_batch *stream_batch_new(struct stream_writer *w,
				      unsigned limit); /* NULL: no memory */
void stream_batch_free(struct stream_batch *b);	       /* what was not flushed is lost */
/* Flushes, and begins another round. */
int stream_batch_round(struct stream_batch *b, uint32_t round);
/* Adds a page: one that is zero takes no room. live: it may change at any time; it is copied now.
 * Otherwise it must stay as it is until the flush. Returns 1 if it was zero, 0 or -errno. */
int stream_batch_add(struct stream_batch *b, uint64_t page, const void *data, bool live);
/* Adds pages that are known to be zero. */
int stream_batch_add_zero(struct stream_batch *b, uint64_t first, uint32_t count);
/* Says before each frame what its pages must be (DIGESTS). */
void stream_batch_verify(struct stream_batch *b, bool verify);
int stream_batch_flush(struct stream_batch *b);
bool stream_page_is_zero(const void *page);

/* ---- REQUEST: u32 count, u32 0, count * { u64 first, u32 count, u32 flags } ---- */

enum { STREAM_REQUEST_WAITING = 1 }; /* a processor or a device waits; else it is a wish */
struct stream_request {
	uint64_t first;
	uint32_t count, flags;
};
int stream_request_write(struct stream_writer *w, const struct stream_request *requests,
			 unsigned count);
/* requests: STREAM_REQUESTS_MAX. Returns how many, at least 1. */
int stream_request_read(const struct stream_frame *frame, const struct stream_memory *memory,
			struct stream_request *requests, struct stream_error *err);

/* ---- RECEIVED: u64 first, u32 pages, u32 last, a bit for each page, bit 0 first ---- */

struct stream_received {
	uint64_t first; /* a place in all regions side by side */
	uint32_t count;
	bool last;	     /* the bitmap ends with it */
	const uint8_t *bits; /* in the frame */
};
int stream_received_write(struct stream_writer *w, const struct stream_received *received);
int stream_received_read(const struct stream_frame *frame, const struct stream_memory *memory,
			 struct stream_received *received, struct stream_error *err);

/* ---- DIGESTS: u64 first, u32 count, u32 kind, count * u64 ---- */

enum stream_digest_kind {
	STREAM_DIGEST_CRC32C = 1, /* of each page from `first` on */
	/* CRC-64 (ECMA-182, as xz has it) of the pages with contents of the PAGES frame that
	 * follows on this connection, in its order; `first` is the first page of that. */
	STREAM_DIGEST_PAGES = 2,
	STREAM_DIGEST_STATE = 3, /* CRC-64 of the device state that follows; one */
};
uint64_t stream_digest_of(const void *data, size_t len); /* CRC-64 */
struct stream_digests {
	uint64_t first;
	uint32_t count, kind;
	const uint8_t *values; /* in the frame, 8 bytes each: stream_digest() */
};
uint64_t stream_digest(const struct stream_digests *digests, uint32_t i);
int stream_digests_write(struct stream_writer *w, uint64_t first, const uint64_t *values,
			 uint32_t count);
int stream_digests_write_of(struct stream_writer *w, enum stream_digest_kind kind, uint64_t first,
			    const uint64_t *values, uint32_t count);
int stream_digests_read(const struct stream_frame *frame, const struct stream_memory *memory,
			struct stream_digests *digests, struct stream_error *err);

#endif
