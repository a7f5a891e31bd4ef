/*
 * What the host's resolver says of a name, without waiting for it longer than one wants to.
 */
#ifndef MIGRATION_RESOLVE_H
#define MIGRATION_RESOLVE_H

#include <netdb.h>

#include "migration/stream.h"

/* As getaddrinfo(); *out is the caller's (freeaddrinfo()). Waits at most timeout_ms (-1: for ever):
 * -ETIMEDOUT; wake_fd (-1: none) readable: -ECANCELED; no such name: -ENOENT; with a text. A
 * resolver that does not answer is then still waited for by a thread of its own; of those there are
 * at most eight: -EBUSY. */
int resolve_name(const char *host, const char *port, bool passive, int timeout_ms, int wake_fd,
		 struct addrinfo **out, struct stream_error *err);

#endif
