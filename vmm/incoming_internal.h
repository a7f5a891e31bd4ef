/* What the files of incoming machines share. */
#ifndef VMM_INCOMING_INTERNAL_H
#define VMM_INCOMING_INTERNAL_H

#include "migration/destination.h"
#include "migration/save.h"
#include "vmm/boot/boot.h"
#include "vmm/incoming.h"
#include "vmm/loop_call.h"
#include "vmm/vm_internal.h"

struct incoming {
	const struct incoming_config *how;
	struct run_config config; /* what is built: the description, and what was said here */
	struct vm_arrival arrival;
	struct presence presence;	/* of one that another ferry sends */
	struct vm *vm;			/* once it stands */
	struct boot_adoption *adoption; /* of what comes to be booted from */
	struct incoming_own {
		pthread_t thread;
		bool started;
		struct boot_image *image; /* NULL: none is found */
		uint8_t digest[BOOT_DIGEST];
	} own; /* of the same, here */
	struct incoming_look {
		pthread_t thread;
		bool started, begun;
		_Atomic bool done;
		const struct boot_image *image;
		int code;
		struct error err;
	} look;
	struct migration_file file;
	/* Of one that another ferry sends; its thread. */
	struct destination from;
	struct migration_sink_ops sink;
	struct loop_call call;
	pthread_t thread;
	bool started;
	bool fresh; /* out of a file: what it lacks was never written to here, and is zero */
	int wake_fd;
	/* Pages that come after the start. */
	struct s2_thread *s2; /* of the thread that brings them */
	struct wanted {
		pthread_mutex_t lock;
		uint64_t *page; /* as many as memory has: each is wanted once */
		uint64_t head, tail;
		int fd; /* eventfd */
		bool made;
	} wanted;
	/* A file that brings them. */
	struct incoming_file {
		struct control_request *request; /* NULL: none */
		struct loop_work work;
		char *path;
		int fd, code;
		struct error err;
	} completion;
	struct loop_work over_work;
	int code;
	struct stream_error why;
};

/* ---- incoming_missing.c ---- */
/* Pages that come after the start (migration/machine.h); wanted pages are queued from any thread.
 */
int incoming_miss(struct incoming *in, uint64_t first, uint64_t pages, const uint64_t *bitmap,
		  struct stream_error *err);
int64_t incoming_bring(struct incoming *in, uint64_t first, uint32_t count, const void *data);
bool incoming_wanted(struct incoming *in, uint64_t *page);
/* All that are wanted and have not come are named again. */
void incoming_want_again(struct incoming *in);
uint64_t incoming_awaited(struct incoming *in, uint64_t page);
int incoming_complete(struct incoming *in, struct stream_error *err); /* loop's thread */
/* Loop's thread, nobody brings pages any more. */
void incoming_missing_exit(struct incoming *in);

/* ---- incoming_image.c ---- */
/* The next piece (migration/machine.h). */
int incoming_image(struct incoming *in, const struct stream_piece *piece, struct stream_error *err);
/* What the configuration names is looked for on a thread; what it has found, which is what counts
 * if no piece comes. The migration's thread. */
void incoming_image_seek(struct incoming *in);
void incoming_image_own(struct incoming *in, uint8_t digest[BOOT_DIGEST]);
/* No piece comes any more. It is looked at, on a thread, whether the kernel can be started: 0, as
 * far as that is known; wait: until it is. The migration's thread. */
int incoming_image_check(struct incoming *in, bool wait, struct error *err);
/* That thread has ended, or never began. Before the machine is given up: it has the image. Again is
 * fine. */
void incoming_image_exit(struct incoming *in);

/* ---- incoming_complete.c ---- */
/* struct vm_arrival */
int incoming_complete_from(struct vm_arrival *arrival, const char *path,
			   struct control_request *request, struct error *err);
void incoming_complete_exit(struct incoming *in); /* after destination_run() */

/* ---- incoming_receive.c ---- */
struct incoming *incoming_of(struct vm_arrival *arrival);

/* ---- incoming_sink.c ---- */
extern const struct migration_sink_ops incoming_sink; /* opaque: struct incoming */
/* The machine has the memory that the stream has, disks of the size that they had, and what can be
 * booted from. */
int incoming_check(struct incoming *in, const struct stream_memory *memory, struct error *err);
void incoming_init(struct incoming *in, const struct incoming_config *how);
void incoming_exit(struct incoming *in);

/* ---- incoming_config.c ---- */
/* Puts what was said here over the description. */
int incoming_override(struct run_config *config, const struct incoming_config *how,
		      struct error *err);

#endif
