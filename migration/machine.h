/*
 * What a migration needs of a machine, as two tables of functions: of the one that goes (source)
 * and of the one that comes (sink). migration/ knows no engine, no device and no event loop; vmm/
 * fills the tables in.
 *
 * All functions are called on the migration's own thread, a source's page() also on that of the
 * lane (source_lane.c), a sink's load() on another one while bring() brings pages, and may block; 0
 * or -errno with a text, -ECANCELED when the machine ends meanwhile. Pages are numbered by
 * guest-physical address / 4096.
 */
#ifndef MIGRATION_MACHINE_H
#define MIGRATION_MACHINE_H

#include "migration/stream_blob.h"
#include "migration/stream_control.h"
#include "migration/stream_memory.h"

struct migration_source_ops {
	/* Writes DESCRIPTION; what it boots from, named `boot` in the stream, valid as long as the
	 * machine; SHA-256 of that. */
	int (*describe)(void *opaque, struct stream_writer *w, struct stream_error *err);
	int (*image)(void *opaque, const void **data, size_t *len, struct stream_error *err);
	int (*digest)(void *opaque, uint8_t digest[STREAM_IMAGE_DIGEST], struct stream_error *err);
	/* Where the contents of a page of `memory` lie; they change while the guest runs. */
	const uint8_t *(*page)(void *opaque, uint64_t page);
	/* Dirty tracking of everybody's writes, from now on; off is idempotent. */
	int (*track)(void *opaque, bool on, struct stream_error *err);
	/* Fetches and clears what was written since it was last asked (`first` is a multiple of 64;
	 * bit n of the bitmap is page first + n): how many pages, or -errno. */
	int64_t (*harvest)(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap);
	/* Processors that dirty more than their share of so many bytes per second wait; 0: as they
	 * like. NULL: that cannot be done. */
	void (*throttle)(void *opaque, uint64_t rate);
	/* The guest stands still, nothing of it is in flight. Idempotent. */
	int (*stop)(void *opaque, struct stream_error *err);
	/* Appends the device state of a guest that stands still. */
	int (*state)(void *opaque, struct field_buf *buf, struct stream_error *err);
	/* Gives up what another host must have: locks, ports. Stopped. */
	int (*release)(void *opaque, struct stream_error *err);
	/* Takes that back, if it was given up, and lets the guest go on. On failure it stands still
	 * and may be asked again. */
	int (*take_back)(void *opaque, struct stream_error *err);
	/* Guest time in ns as it would be if the guest had not been stopped. */
	uint64_t (*guest_time)(void *opaque);
};

struct migration_source {
	const struct migration_source_ops *ops;
	void *opaque;
	struct stream_memory memory;
	const char *arch, *ferry; /* for HELLO */
};

struct migration_sink_ops {
	/* The machine's configuration, then its boot images, each from its first piece to its last
	 * without a gap. The frame's and the bytes are the caller's. */
	int (*description)(void *opaque, const struct stream_frame *frame,
			   struct stream_error *err);
	int (*image)(void *opaque, const struct stream_piece *piece, struct stream_error *err);
	/* Boot images that are on this host. seek: the description has come: looks for those that
	 * it names, and need not have found them when it returns. own: what was found, if it was
	 * (else the digest is left as it is); it is used unless others come. NULL: there are none.
	 */
	void (*seek)(void *opaque);
	void (*own)(void *opaque, uint8_t digest[STREAM_IMAGE_DIGEST]);
	/* What is still found out about the machine while its pages come. 0: nothing is wrong, as
	 * far as it is known, or (wait) for sure; NULL: there is nothing. */
	int (*check)(void *opaque, bool wait, struct stream_error *err);
	/* The rest once the machine stands, with the memory that the stream has. */
	uint8_t *(*page)(void *opaque, uint64_t page);
	/* Pages of one region that were written to are zero. */
	void (*clear)(void *opaque, uint64_t first, uint32_t count);
	int (*load)(void *opaque, const void *state, size_t len, struct stream_error *err);
	/* Takes what the host must give and lets the guest go: it is here from now on. On failure
	 * nothing of it has run, and everything taken is given up. run: NULL: guest time goes on
	 * where it stood. */
	int (*start)(void *opaque, const struct stream_run *run, struct stream_error *err);

	/* Pages that come after the start. miss: before the state is loaded; those of the `pages`
	 * pages from `first` whose bit is set (NULL: all) are not here. Once or more. */
	int (*miss)(void *opaque, uint64_t first, uint64_t pages, const uint64_t *bitmap,
		    struct stream_error *err);
	/* Brings pages (NULL: they are zero); what is here already stays as it is. How many were
	 * brought, or -errno. */
	int64_t (*bring)(void *opaque, uint64_t first, uint32_t count, const void *data);
	/* A page that somebody waits for and that was not named before; false: none.
	 * wanted_fd(): readable when there may be one. */
	bool (*wanted)(void *opaque, uint64_t *page);
	/* Whoever waits still is named again: what was asked for is lost. */
	void (*want_again)(void *opaque);
	int (*wanted_fd)(void *opaque);
	/* The first page at or behind this one that is not here, all around; UINT64_MAX: all are.
	 */
	uint64_t (*awaited)(void *opaque, uint64_t page);
	/* All are here: it is a machine like others now. */
	int (*complete)(void *opaque, struct stream_error *err);
};

#endif
