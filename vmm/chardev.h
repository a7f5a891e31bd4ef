/*
 * Character back ends: where the bytes of a guest's serial line go to and come from.
 *
 *   none    output is dropped, nothing comes in
 *
 *   stdio   this terminal, raw, with C-a as escape key; or pipes and files on standard input and
 *           output
 *
 *   pty     a pseudo-terminal; its path is said at start
 *
 *   file    output only; a byte is in the file when the guest has sent it
 *
 *   socket  a unix stream socket; one client at a time, which may come and go
 *
 *   attach  `ferry console`: see vmm/chardev_attach.h
 *
 * A slow reader makes the guest wait: no byte is lost on stdio, pty and socket while somebody is
 * connected. With nobody at the other end (a pty that is not open, a socket without client) output
 * is dropped, as on a cable that is not plugged in. End of input is ignored.
 */
#ifndef VMM_CHARDEV_H
#define VMM_CHARDEV_H

#include "devices/device.h"
#include "vmm/config.h"
#include "vmm/loop.h"

struct logfile;
struct chardev_env {
	struct loop *loop;
	const char *name;	   /* "serial0", for messages; lives as long as the back end */
	const struct logfile *log; /* of attach; open, taken over; NULL: none */
	bool remote; /* of stdio: the guest is in another process, and C-a x leaves it alone */
	bool append; /* to files, which are emptied otherwise */
	bool later;  /* what another process may still have is taken by chardev_acquire() */
	bool quiet;  /* no friendly messages */
	/* The user (escape key) or the terminal (hang-up) ends the run with this exit code; loop's
	 * thread. */
	void (*quit)(void *opaque, int code);
	void *opaque;
};

/* Loop's thread, before other threads are made (signals). The device calls chardev->ops from then
 * on. */
int chardev_create(struct chardev **out, const struct serial_config *config,
		   const struct chardev_env *env, struct error *err);
/* The hand-over of a machine to another process, as in struct device_ops: what only one of the two
 * can have (a socket's address) is taken, or given up. Who is connected stays so. Both may come
 * twice; NULL is fine. Loop's thread. 0 or -errno with a text. */
int chardev_acquire(struct chardev *chr, struct error *err);
void chardev_release(struct chardev *chr);
/* Held: nothing comes in; what the other side sends waits on its way (a terminal and attach are
 * read up to 4 KiB ahead). So that nothing gets into a device whose state is on its way elsewhere
 * already. NULL is fine. Loop's thread. */
void chardev_hold(struct chardev *chr, bool hold);
/* Bytes that were read ahead and that the device does not have. NULL is fine. Loop's thread. */
size_t chardev_ahead(const struct chardev *chr);
/* After the vCPUs have stopped. Waits for a slow reader to take what the guest has sent, as long as
 * it takes something every few seconds; puts the terminal back, removes the socket. NULL is fine.
 */
void chardev_destroy(struct chardev *chr);

#endif
