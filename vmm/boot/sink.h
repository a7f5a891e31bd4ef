/*
 * A growing buffer for what is read or unpacked: a memfd, which can be sealed afterwards, or plain
 * memory (which gets huge pages and so costs a fraction of the time). One thread at a time.
 */
#ifndef VMM_BOOT_SINK_H
#define VMM_BOOT_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/error.h"

struct sink {
	int fd;	      /* -1: plain memory */
	uint8_t *map; /* NULL: closed; moves when the sink grows */
	size_t len, cap;
	bool passing; /* of plain memory: see sink_pass() */
};

#define SINK_CLOSED                                                                                \
	{                                                                                          \
		.fd = -1                                                                           \
	}

int sink_open_memfd(struct sink *s, struct error *err);
int sink_open_memory(struct sink *s, struct error *err);
/* Room for n bytes behind map[len]; 0, -ENOMEM or -EFBIG. The caller adds to len what it used. */
int sink_reserve(struct sink *s, size_t n, struct error *err);
int sink_put(struct sink *s, const void *data, size_t n, struct error *err);
/* Zero bytes up to the next multiple of `align` (a power of two). */
int sink_align(struct sink *s, size_t align, struct error *err);
/* Reads a file to its end. what: "kernel", "initrd". Refuses directories, empty files, and more
 * than max bytes. */
int sink_read_file(struct sink *s, const char *path, const char *what, size_t max,
		   struct error *err);
/* Of a memfd: nothing can change the file any more; maps it read-only. The caller owns *fd and *map
 * (len bytes); the sink is closed. */
int sink_seal(struct sink *s, int *fd, const uint8_t **map, size_t *len, struct error *err);
/* Of plain memory: [data, data + n), host addresses of whole huge pages, is not read any more and
 * takes up no memory from now on. Does nothing for other addresses. */
void sink_release(const struct sink *s, const uint8_t *data, size_t n);
/* Of one whose contents nobody wants, only whether they can be made (`passing`): but for the first
 * SINK_PAGE bytes, where an ELF's headers are, what there is reads as zeroes from now on, and its
 * memory serves for what comes next. Others stay as they are. */
void sink_pass(const struct sink *s);
void sink_close(struct sink *s); /* again is fine */

#define SINK_PAGE (2ul << 20) /* a huge page */

#endif
