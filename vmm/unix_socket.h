/*
 * Unix stream sockets at any path: sun_path holds 107 bytes, a path 4,095. A long one is reached
 * through a descriptor of its folder (/proc/self/fd/N/NAME).
 */
#ifndef VMM_UNIX_SOCKET_H
#define VMM_UNIX_SOCKET_H

#include "vmm/error.h"

/* A listening, non-blocking socket at dir_fd/name, mode 0600. A stale socket (nobody listens) is
 * replaced. -EADDRINUSE: somebody does; -EEXIST: there is something else with this name. Returns
 * the descriptor. */
int unix_listen(int dir_fd, const char *name, int backlog, struct error *err);
/* A connected, blocking socket. -ECONNREFUSED: stale; -ENOENT; -EAGAIN: its
 * backlog has been full for 5 s. */
int unix_connect(int dir_fd, const char *name, struct error *err);

/* Splits a path: an O_PATH descriptor of its folder, and the last part (points into path). */
int path_open_dir(const char *path, const char **name, struct error *err);

#endif
