/*
 * The process that started ferry: a machine in the foreground ends with it, as with its terminal,
 * so that a script that is killed leaves no guests behind.
 *
 * Not those that want to stay: after nohup (SIGHUP is ignored), and where the parent ended within
 * the first second, as one does that only launches (setsid, a shell's `(ferry run ... &)`).
 */
#ifndef VMM_PARENT_H
#define VMM_PARENT_H

#include "vmm/loop.h"

struct parent_watch;
/* gone() is called on the loop's thread, once. NULL where there is nothing to watch. */
struct parent_watch *parent_watch(struct loop *loop, void (*gone)(void *opaque), void *opaque);
void parent_unwatch(struct parent_watch *watch); /* NULL is fine */

#endif
