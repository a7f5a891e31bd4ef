/* Waiting for a descriptor, and for who calls that off. */
#ifndef MIGRATION_AWAIT_H
#define MIGRATION_AWAIT_H

/* Until fd has one of `events` (poll(2)), or an error. 0; -ECANCELED: wake_fd (-1: none) is
 * readable; -ETIMEDOUT: not within timeout_ms (-1: for ever); another -errno of poll(). */
int await_fd(int fd, short events, int timeout_ms, int wake_fd);

#endif
