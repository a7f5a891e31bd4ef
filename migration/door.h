/*
 * Where a destination is found: listens on a thread of its own for as long as it is open. Whoever
 * connects must say HELLO, as a source, within a few seconds, and with TLS prove before that who it
 * is; the others are let go and do no harm.
 */
#ifndef MIGRATION_DOOR_H
#define MIGRATION_DOOR_H

#include "migration/link.h"
#include "migration/stream_hello.h"

struct door;
/* As address_listen(). tls: of a server, or NULL: without, for everybody; it must stay. */
int door_open(struct door **out, const char *address, bool open, const struct tls *tls,
	      struct stream_error *err);
/* Who is turned away because of TLS, his or ours, is named to fn, at most once a second; on a
 * thread of the door's, before door_close() returns. */
void door_watch(struct door *door, void (*fn)(void *opaque, const char *why), void *opaque);
/* With the port that the host chose. */
const char *door_address(const struct door *door);
/* Readable while somebody waits. */
int door_fd(const struct door *door);
/* The next guest: his connection, which is the caller's to close, and what he said. 1; 0: nobody
 * within timeout_ms (-1: for ever); -ECANCELED: wake_fd (-1: none) is readable. */
int door_next(struct door *door, int timeout_ms, int wake_fd, struct link **link,
	      struct stream_hello *hello);
void door_close(struct door *door); /* NULL is fine */

#endif
