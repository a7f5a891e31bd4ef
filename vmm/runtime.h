/*
 * The runtime folder: where running machines are found by name.
 *
 *   $FERRY_RUNTIME_DIR, taken as it is (any mode, any length);
 *   else $XDG_RUNTIME_DIR/ferry;
 *   else /run/ferry-UID or /tmp/ferry-UID: a private folder, of this user and mode 0700.
 *
 * NAME.lock is held locked by a running machine and holds its process id. A lock that nobody holds
 * is stale (kill -9): the next claim of any name removes it and all other files of that name.
 */
#ifndef VMM_RUNTIME_H
#define VMM_RUNTIME_H

#include "vmm/error.h"

struct runtime {
	int dir_fd;
	char *path; /* for messages; may be too long for sun_path: see vmm/unix_socket.h */
};
/* Finds the folder, creating it if it is missing. 0 or -errno. */
int runtime_open(struct runtime *runtime, struct error *err);
void runtime_close(struct runtime *runtime);

/* A claimed name: no other machine of this folder has it until it is released. */
struct runtime_name {
	int dir_fd; /* own copy */
	int lock_fd;
	int cleanup;
	char name[64];
};
/* name: NULL picks "vm-PID". -EEXIST: a running machine has it; the text says which process. */
int runtime_claim(struct runtime_name *claim, const struct runtime *runtime, const char *name,
		  struct error *err);
/* Removes the files of this name. A zeroed claim with lock_fd -1 is fine. */
void runtime_release(struct runtime_name *claim);

/* Writes this process's id to `path` in one step, and removes it again. A file with the id of a
 * process that lives, or one that holds something else, is an error; a stale one is replaced. */
struct pidfile {
	int dir_fd; /* -1: none */
	int cleanup;
	char name[256];
};
int pidfile_write(struct pidfile *pidfile, const char *path, struct error *err);
void pidfile_remove(struct pidfile *pidfile);

#endif
