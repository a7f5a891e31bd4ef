/*
 * A running machine as the commands see it: found by name in the runtime folder, asked through its
 * control socket (docs/control-protocol.md).
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>

#include "vmm/runtime.h"

enum { CLIENT_ANSWER_MS = 5000 }; /* a machine that is well answers in a fraction of it */

struct client {
	struct runtime runtime;
	char name[RUNTIME_NAME_MAX];
	long pid;
	char waits_at[128]; /* it has no guest yet, and waits for one there; "" */
	int fd;
	int patience_ms; /* of client_connect(); client_find() sets CLIENT_ANSWER_MS */
	char *buf;
	size_t len, room;
};

/* Finds the machine: `name`, or, without one, the only machine that runs. 0; -ENOENT with a text
 * that names the nearest, or all. *end: how it ended, if `name` is one that has (-ESRCH). What a
 * killed machine has left is cleaned up. client_close() in every case. */
int client_find(struct client *client, const char *name, struct runtime_end *end,
		struct error *err);
/* Connects to what was found, and negotiates. -ENOTCONN: it waits for its guest;
 * -EPIPE: it has ended meanwhile. */
int client_connect(struct client *client, struct error *err);
/* Both, for those who want a machine that runs. */
int client_open(struct client *client, const char *name, struct error *err);
void client_close(struct client *client);

/* What is known of one that waits for its guest, as `ferry-info` would say it. */
json_t *client_waiting(const struct client *client);

/* Asks, and waits for the answer; the reference to args (may be NULL) is taken. 0 with *ret (may be
 * NULL: not wanted), the caller's to drop; -EREMOTEIO: it refuses, with its text; -ETIMEDOUT;
 * -EPIPE: it has gone. timeout_ms -1: for ever. */
int client_call(struct client *client, const char *command, json_t *args, int timeout_ms,
		json_t **ret, struct error *err);
/* The answer to a call that has timed out. */
int client_answer(struct client *client, int timeout_ms, json_t **ret, struct error *err);
/* After a command that turned the connection into something else: what has come behind its answer,
 * and the descriptor, which is the caller's from now on. */
int client_take(struct client *client, const char **data, size_t *len);
/* Waits until the machine's side is closed: all of it is gone, the name is free. -ETIMEDOUT. */
int client_gone(struct client *client, int timeout_ms);

/* A file as a machine wants it, which runs elsewhere than here: puts the whole path into args as
 * `key`; no file: nothing. -EINVAL: a name that JSON cannot carry. */
int client_add_path(json_t *args, const char *key, const char *file, struct error *err);
/* The same of tcp:HOST:PORT or unix:PATH. */
int client_add_address(json_t *args, const char *key, const char *address, struct error *err);

#endif
