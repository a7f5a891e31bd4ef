/*
 * A machine in a file: the stream with a file as the peer, with an index, so that it can be read
 * from any place.
 */
#ifndef MIGRATION_SAVE_H
#define MIGRATION_SAVE_H

#include "migration/arrive.h"
#include "migration/stream_index.h"

/* Stops the guest and writes it to fd (empty, seekable or not), down to stable storage. The guest
 * stands still afterwards, whatever is returned; who saves decides what follows. -ECANCELED:
 * wake_fd (-1: none) was readable before all was written. */
int migration_save(const struct migration_source *m, int fd, int wake_fd, struct stream_error *err);

/* Reading such a file, in two steps, because the machine has to be made in between. */
struct migration_file {
	int fd;
	struct stream_parser *parser;
	uint8_t *buf;
	size_t at, len;
	struct arrival arrival;
	/* Of one that is read as it is needed. */
	struct stream_entry *entries; /* of the DIRECTORY */
	uint32_t entry_count;
	uint64_t *offsets;	     /* of the pages of one entry, as its INDEX has them */
	uint32_t loaded;	     /* which; entry_count: none */
	uint8_t *frame;		     /* room for a frame */
	uint64_t images, images_end; /* where those stand that come last */
	bool filled;		     /* all pages are here */
};
/* fd stays the caller's. Reads up to MEMORY: the sink's description is called, and image; later:
 * the boot images are left for migration_file_fill(), which must follow then: who does not boot
 * needs none, and they may be large. In every case migration_file_close() follows. -ENODATA: not a
 * file of ours. */
int migration_file_open(struct migration_file *file, int fd, bool later,
			const struct migration_sink_ops *sink, void *opaque,
			struct stream_error *err);
/* The rest: all pages, then the state is loaded. The sink's start() is left to the caller. */
int migration_file_load(struct migration_file *file, struct stream_error *err);
void migration_file_close(struct migration_file *file);
/* The parts of it: any file of frames, then frame by frame; -ENODATA: it ends without END. */
int migration_file_begin(struct migration_file *file, int fd, struct stream_error *err);
int migration_file_next(struct migration_file *file, struct stream_frame *frame,
			struct stream_error *err);
/* Bytes from anywhere, all of them; the frames that are read in turn stay where they are. */
int migration_file_read_at(const struct migration_file *file, uint64_t offset, void *buf,
			   size_t len, struct stream_error *err);
/* For stream_writer_init(): writes to the descriptor that opaque (int *) is. */
int migration_file_put(void *opaque, const struct iovec *iov, unsigned count);

/* Instead of migration_file_load(), for a file with an index: the state is loaded, all pages are
 * missing. fd must be seekable. Its cost does not grow with the memory. */
int migration_file_load_state(struct migration_file *file, struct stream_error *err);
/* What load_state() begins with: frames up to the whole state. */
int migration_file_read_state(struct migration_file *file, struct stream_error *err);
/* Then, while the guest runs: brings pages, first those that somebody waits for, until all are
 * here, and what was left for later; on a thread of its own. -ECANCELED: wake_fd is readable. On
 * other errors the text says what is damaged; unless file->filled, the guest waits for it for ever.
 */
int migration_file_fill(struct migration_file *file, int wake_fd, struct stream_error *err);

#endif
