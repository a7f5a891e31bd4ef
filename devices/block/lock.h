/*
 * Locks of disk images against other users, those of QEMU (block/file-posix.c): shared locks of the
 * open file description. Byte 100 + n is held by who uses permission n, byte 200 + n by who does
 * not let others use it; each looks for the opposite byte of others.
 */
#ifndef DEVICES_BLOCK_LOCK_H
#define DEVICES_BLOCK_LOCK_H

#include <stdbool.h>
#include <stddef.h>

/* 0; -EBUSY: another user; others: this file cannot be locked. Several readers go together. */
int block_lock(int fd, bool write);
void block_unlock(int fd);
/* Who uses the file: "process 123 (ferry)", or "another process" where that cannot be seen. */
void block_lock_holder(int fd, char *buf, size_t len);

#endif
