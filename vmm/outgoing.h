/*
 * A machine that leaves: into a file, or to another ferry. One at a time; it runs on a thread of
 * its own (migration/), and this is its view of the machine.
 */
#ifndef VMM_OUTGOING_H
#define VMM_OUTGOING_H

#include <jansson.h>
#include <stdint.h>

#include "vmm/control.h"
#include "vmm/error.h"
#include "vmm/tls_config.h"

struct vm;
struct control_request;

/* Stops the guest and writes it to `path` (absolute), which is there whole or not at all. The
 * request is answered when it is done: the machine then ends; on failure its guest goes on.
 * 0 or -errno: it could not begin, nothing is answered. */
int outgoing_save(struct vm *vm, const char *path, struct control_request *request,
		  struct error *err);
struct outgoing_params {
	const char *to; /* address */
	uint64_t downtime_ms, bandwidth, timeout_ms;
	/* Post-copy: after so many rounds or milliseconds (0: never). */
	uint32_t postcopy_rounds;
	uint64_t postcopy_ms;
	const char *on_timeout; /* cancel (or NULL), postcopy, throttle */
	/* Of a guest that runs there and lacks pages, when the link is dead for so long: they go
	 * into that file (absolute). NULL: it is waited for. */
	uint64_t recover_ms;
	const char *spool;
	struct tls_config tls;
	bool verify;	   /* each page is checked there */
	bool uncompressed; /* they go as they are */
};
/* To another ferry, while the guest runs. The request is answered when it is known where the guest
 * is: how it went, and the machine ends if it has gone. 0 or -errno as above. */
int outgoing_move(struct vm *vm, const struct outgoing_params *params,
		  struct control_request *request, struct error *err);
/* "cancel" (a save, too), "retry", "postcopy", "force". 0 or -errno with a text. */
int outgoing_control(struct vm *vm, const char *action, struct error *err);
/* What is under way, as an object; NULL: nothing. */
json_t *outgoing_query(struct vm *vm);
/* The loop's thread, the loop does not run any more: what is on its way is given up. */
void outgoing_end(struct vm *vm);

#endif
