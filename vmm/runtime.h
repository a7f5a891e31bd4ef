/*
 * The runtime folder: where running machines are found by name.
 *
 *   $FERRY_RUNTIME_DIR, taken as it is (any mode, any length);
 *   else $XDG_RUNTIME_DIR/ferry;
 *   else /run/ferry-UID or /tmp/ferry-UID: a private folder, of this user and mode 0700.
 *
 * Of a machine NAME there are
 *
 *   NAME.lock             held locked while it runs; its process id, and a second line of one
 *                         that waits for its guest: where
 *   NAME.sock             its control socket
 *   NAME.log, NAME+serial0.log ...  of a detached one: ferry's messages, its consoles' output
 *                         (NAME.log.1: the part before)
 *   NAME.end              of a detached one, after its end: how it ended
 *
 * A lock that nobody holds is stale (kill -9): every command removes it and its socket, and writes
 * the NAME.end of a detached machine that could not. The last two are kept until the name is taken
 * again, at most RUNTIME_KEEP_SECONDS long and for the RUNTIME_KEEP_COUNT machines that ended last.
 */
#ifndef VMM_RUNTIME_H
#define VMM_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/error.h"

enum { RUNTIME_NAME_MAX = 64, RUNTIME_KEEP_SECONDS = 24 * 3600, RUNTIME_KEEP_COUNT = 64 };

struct runtime {
	int dir_fd;
	char *path; /* for messages; may be too long for sun_path: see vmm/unix_socket.h */
};
/* Finds the folder, creating it if it is missing. 0 or -errno. */
int runtime_open(struct runtime *runtime, struct error *err);
void runtime_close(struct runtime *runtime);

/* ---- names ------------------------------------------------------------------------------ */

/* A claimed name: no other machine of this folder has it until it is released. */
struct runtime_name {
	int dir_fd; /* own copy */
	int lock_fd;
	int cleanup;
	char name[RUNTIME_NAME_MAX];
};
/* name: NULL picks "vm-PID". Sweeps, and removes what an earlier machine of this name has left.
 * -EEXIST: a running machine has it; the text says which process. */
int runtime_claim(struct runtime_name *claim, const struct runtime *runtime, const char *name,
		  struct error *err);
/* Removes the files of this name; keep: but its logs and its end. A zeroed claim with lock_fd -1 is
 * fine. */
void runtime_release(struct runtime_name *claim, bool keep);

/* Puts a line of words behind the process id; "": none any more. */
int runtime_note(const struct runtime_name *claim, const char *text);

struct runtime_entry {
	char name[RUNTIME_NAME_MAX];
	long pid;	/* 0: it has ended */
	char note[128]; /* runtime_note(); "": none */
};
/* Sweeps, then lists what runs and what has left its end, sorted by name. *out is the caller's to
 * free. Returns how many, or -errno. */
int runtime_list(const struct runtime *runtime, struct runtime_entry **out, struct error *err);
/* The process that holds the name now; 0: nobody. */
long runtime_holder(const struct runtime *runtime, const char *name);
/* The same, and what it has noted ("": nothing; NULL: that is not asked for). */
long runtime_note_read(const struct runtime *runtime, const char *name, char *note, size_t len);

/* ---- what is left of a machine ---------------------------------------------------------- */

struct runtime_end {
	long pid;
	int exit_code; /* vmm/exit_codes.h */
	char reason[160];
	int64_t time; /* seconds since 1970 */
};
int runtime_end_write(int dir_fd, const char *name, const struct runtime_end *end);
/* 0; -ENOENT; -EINVAL: not such a file. */
int runtime_end_read(int dir_fd, const char *name, struct runtime_end *end);
/* The name of the file with the output of a line: "serial0"; NULL: ferry's messages. */
void runtime_log_name(char *buf, size_t len, const char *name, const char *line);

/* For runtime_names.c. Removes all that a machine leaves. */
void runtime_remove_records(int dir_fd, const char *name);
bool runtime_has_end(int dir_fd, const char *name);
/* A detached machine is gone: says in its NAME.end that nobody knows how it ended. */
void runtime_record_lost(int dir_fd, const char *name, long pid);
/* Calls `remove` for those of the names whose records are too old or too many. */
void runtime_expire(int dir_fd, char (*ended)[RUNTIME_NAME_MAX], unsigned count,
		    void (*remove)(int dir_fd, const char *name));

/* ---- pidfile ---------------------------------------------------------------------------- */

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
