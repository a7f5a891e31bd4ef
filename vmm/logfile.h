/*
 * A log of bounded size: when NAME has reached its limit it becomes NAME.1, which replaces the one
 * before, and NAME begins anew. So at least `limit` of the newest bytes are there, at most twice as
 * many.
 */
#ifndef VMM_LOGFILE_H
#define VMM_LOGFILE_H

#include <stddef.h>
#include <stdint.h>

#include "vmm/error.h"

struct logfile {
	int dir_fd; /* the caller's; it must live as long */
	int fd;	    /* -1: none */
	char name[100];
	uint64_t size, limit;
};

/* Begins an empty file, mode 0600, and removes an older NAME.1. 0 or -errno. */
int logfile_open(struct logfile *log, int dir_fd, const char *name, uint64_t limit,
		 struct error *err);
/* Appends; what cannot be written (a full disk) is lost. One thread. */
void logfile_write(struct logfile *log, const void *data, size_t len);
/* Somebody has written to the descriptor: turns the file over if it is full. True: `fd` is another
 * file now. */
int logfile_turn(struct logfile *log);
void logfile_close(struct logfile *log);

#endif
