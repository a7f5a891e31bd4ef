/*
 * A machine that leaves: into a file, or to another ferry. One at a time; it runs on a thread of
 * its own (migration/), and this is its view of the machine.
 */
#ifndef VMM_OUTGOING_H
#define VMM_OUTGOING_H

#include "vmm/control.h"
#include "vmm/error.h"

struct vm;
struct control_request;

/* Stops the guest and writes it to `path` (absolute), which is there whole or not at all. The
 * request is answered when it is done: the machine then ends; on failure its guest goes on.
 * 0 or -errno: it could not begin, nothing is answered. */
int outgoing_save(struct vm *vm, const char *path, struct control_request *request,
		  struct error *err);
/* The loop's thread, the loop does not run any more: what is on its way is given up. */
void outgoing_end(struct vm *vm);

#endif
