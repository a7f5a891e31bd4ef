/* What the files of the link share. */
#ifndef MIGRATION_LINK_INTERNAL_H
#define MIGRATION_LINK_INTERNAL_H

#include "migration/link.h"

enum { LINK_BUFFER = 1 << 18 /* of struct link's `in` */ };

/* The link is over, for this reason; the first one counts. Returns it. */
int link_fail(struct link *l, int code);

/* What comes in while something else is done stays in `in`: it shows that the other side lives.
 * 1: something came; 0; -ENODATA: the other side has hung up; -errno. */
int link_take_in(struct link *l);
/* All of `in` has been used: what came before and had no room. 1, 0 or -errno. */
int link_take_rest(struct link *l);
/* Waits for events, at most until `until`. The events that are there, 0: none, or -errno. *rings
 * (NULL: not asked for): the bell does. */
int link_poll(struct link *l, short events, uint64_t until, int bell, bool *rings);
/* -ETIMEDOUT: the other side is silent, or the handshake takes too long. */
int link_check_time(struct link *l);
/* A stream_put: all of it, or the connection is over. */
int link_put(void *opaque, const struct iovec *iov, unsigned count);
/* Of the records that are to be sent those that fit into the socket now. */
void link_send_records(struct link *l);

#endif
