/*
 * Unix stream sockets at any path: sun_path holds 107 bytes, a path 4,095. A long one is reached
 * through a descriptor of its folder (/proc/self/fd/N/NAME). vmm/unix_socket.h is the same with the
 * errors of that layer.
 */
#ifndef MIGRATION_UNIX_SOCKET_H
#define MIGRATION_UNIX_SOCKET_H

#include <sys/un.h>

#include "migration/stream.h"

/* A listening, non-blocking socket at dir_fd/name, mode 0600. A stale socket (nobody listens) is
 * replaced. -EADDRINUSE: somebody does; -EEXIST: there is something else with this name. Returns
 * the descriptor. */
int socket_listen(int dir_fd, const char *name, int backlog, struct stream_error *err);
/* A connected, blocking socket. -ECONNREFUSED: stale; -ENOENT; -EAGAIN: its
 * backlog has been full for 5 s. */
int socket_connect(int dir_fd, const char *name, struct stream_error *err);
/* Its address, good as long as dir_fd is open. -ENAMETOOLONG: the name alone is too long. */
int socket_address(struct sockaddr_un *sun, int dir_fd, const char *name, struct stream_error *err);

/* Splits a path: an O_PATH descriptor of its folder, and the last part (points into path). */
int socket_folder(const char *path, const char **name, struct stream_error *err);

#endif
