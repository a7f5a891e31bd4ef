/*
 * What must be put back on every way out of the process, a crash included: the terminal's modes,
 * files like the pidfile. Each owner undoes its own in its orderly end; this list is for the ends
 * that are not: exit(), a fatal signal, a bug. Not for SIGKILL: the next ferry cleans up then.
 *
 * A forked child undoes nothing of its parent's.
 */
#ifndef VMM_CLEANUP_H
#define VMM_CLEANUP_H

#include <termios.h>

/* First thing in main(): handlers for exit() and for the signals that end a process. Threads are
 * begun with thread_start() (migration/thread.h), which leaves those of a crash open. */
void cleanup_install(void);

/* Each returns a handle >= 0, or -ENOSPC, -ENAMETOOLONG. The descriptors stay the caller's and must
 * live until cleanup_drop(). */
int cleanup_add_file(int dir_fd, const char *name); /* removes the file */
int cleanup_add_terminal(int fd, const struct termios *modes);
int cleanup_add_flags(int fd, int flags); /* fcntl(F_SETFL) */
/* The owner has undone it itself. Negative handles are ignored. */
void cleanup_drop(int handle);

/* Undoes everything now. Async-signal-safe. */
void cleanup_run(void);

#endif
