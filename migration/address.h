/*
 * Where the other side is: "tcp:HOST:PORT" ("tcp:[ADDRESS]:PORT" for IPv6) or "unix:PATH".
 */
#ifndef MIGRATION_ADDRESS_H
#define MIGRATION_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "migration/stream.h"

/* -EINVAL with a text: it is neither. */
int address_check(const char *address, struct stream_error *err);
/* The host of one of tcp; "" of a unix socket. */
void address_host(const char *address, char *host, size_t len);
/* A connected, non-blocking socket, or -errno with a text. Waits at most timeout_ms for the
 * resolver, and for each of the addresses that it knows; wake_fd (-1: none) readable: -ECANCELED.
 */
int address_connect(const char *address, int timeout_ms, int wake_fd, struct stream_error *err);
/* A listening, non-blocking socket. `open`: addresses that other hosts reach are allowed; otherwise
 * -EPERM. A unix socket that nobody listens at is replaced (-EEXIST: the path is something else);
 * it is open to its user only, and removed by address_unlisten(). bound: what it listens at, with
 * the port that the host chose for 0. */
int address_listen(const char *address, bool open, char *bound, size_t len,
		   struct stream_error *err);
void address_unlisten(const char *address, int fd);

#endif
