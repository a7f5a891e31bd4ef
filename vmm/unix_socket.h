/* Sockets at any path (migration/unix_socket.h, which says what the functions do), with the errors
 * of this layer. */
#ifndef VMM_UNIX_SOCKET_H
#define VMM_UNIX_SOCKET_H

#include "vmm/error.h"

int unix_listen(int dir_fd, const char *name, int backlog, struct error *err);
int unix_connect(int dir_fd, const char *name, struct error *err);
int path_open_dir(const char *path, const char **name, struct error *err);

#endif
