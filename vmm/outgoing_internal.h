/* What the files of outgoing machines share. */
#ifndef VMM_OUTGOING_INTERNAL_H
#define VMM_OUTGOING_INTERNAL_H

#include "migration/machine.h"
#include "migration/source.h"
#include "vmm/loop_call.h"
#include "vmm/outgoing.h"
#include "vmm/vm_internal.h"

struct outgoing {
	struct vm *vm;
	struct migration_source source;
	struct run_config description;
	struct s2_thread *s2; /* the thread's registration */
	pthread_t thread;
	bool started;
	struct control_request *request;
	char *path;  /* of the file, or the address */
	char *spool; /* NULL: a dead link is waited for */
	bool live;   /* to another ferry */
	struct source move;
	struct tls *tls;
	int wake_fd; /* calls it off */
	bool cancelled;
	bool stopping; /* the machine is asked to stand still, and does not yet; the loop's */
	/* Of a file: who calls it off and who is about to name it decide it between them. */
	_Atomic enum { SAVE_OPEN, SAVE_CALLED_OFF, SAVE_DONE } save;
	bool ended; /* the machine has, before the guest was anywhere else */

	struct loop_call call;
	struct error err;
	struct field_buf *state;

	/* The thread's. */
	bool stopped, released, tracked, stays;
	uint64_t stopped_ns; /* CLOCK_MONOTONIC */

	/* How it ended; the loop's thread acts on it. */
	struct loop_work stays_work, over_work;
	bool told; /* whoever asked for it: nothing but the thread's end is left */
	int code;
	struct stream_error why;
};

/* ---- outgoing_source.c ---- */
/* Fills in source, from the machine. */
int outgoing_source_init(struct outgoing *o, struct error *err);
void outgoing_source_exit(struct outgoing *o);
/* The loop's thread: the guest is not to be stopped any more. It goes on at once, whatever its
 * devices wait for. */
void outgoing_stop_cancel(struct outgoing *o);
/* A guest that has just come may still lack pages: waits until all are here. */
int outgoing_wait_memory(struct outgoing *o, struct stream_error *err);

/* ---- outgoing_file.c ---- */
/* Whether outgoing_file() could be; -errno with a text. */
int outgoing_file_check(const char *path, struct error *err);
typedef int (*outgoing_fill)(void *opaque, int fd, struct stream_error *err);
/* A new file at `path` (absolute) that fill() has written, in place of one that was there; on
 * failure nothing of it is there, and the old one is, unless it was the folder itself that could
 * not be written. */
int outgoing_file(const char *path, outgoing_fill fill, void *opaque, struct stream_error *err);

/* ---- outgoing_move.c ---- */
json_t *outgoing_summary(struct outgoing *o);
void outgoing_move_abandon(struct outgoing *o);
void outgoing_move_exit(struct outgoing *o);

/* ---- outgoing.c ---- */
struct outgoing *outgoing_create(struct vm *vm, struct error *err);
/* Makes wake_fd readable. */
void outgoing_wake(struct outgoing *o);
/* The thread's: the guest stays, as `code` and `why` say. */
void outgoing_stays(void *opaque, int code, const struct stream_error *why);
int outgoing_start(struct outgoing *o, void *(*fn)(void *arg), struct error *err);
void outgoing_free(struct outgoing *o);

#endif
