/* What the files of the control socket share: control.c (server), control_peer.c (a connection),
 * control_schema.c (messages and arguments). */
#ifndef VMM_CONTROL_INTERNAL_H
#define VMM_CONTROL_INTERNAL_H

#include "vmm/control.h"

struct control_peer {
	struct control *control;
	struct control_peer *next;
	int fd;
	struct loop_fd *entry;
	uint32_t events; /* that entry waits for */
	bool negotiated;
	bool ended;   /* nothing more comes in */
	bool closing; /* once the output is written */
	struct control_request *pending;

	char *in;
	size_t in_len, in_room;
	/* Where the next message may end: an object's last brace, or a line feed. */
	size_t scanned;
	unsigned depth;
	bool in_string, escaped;
	bool open_line; /* the last message ended with its brace: a line feed may follow */

	char *out;
	size_t out_head, out_len, out_room;

	void (*hand_over)(void *opaque, int fd, const uint8_t *data, size_t len);
	void *hand_over_opaque;
};

struct control_request {
	struct control_peer *client; /* NULL: it has gone */
	json_t *id;
};

struct control {
	struct loop *loop;
	const struct control_command *commands;
	void *opaque;
	int listen_fd, spare_fd, dir_fd;
	struct loop_fd *listen_entry;
	struct loop_work work; /* frees what has closed, once no callback can be using it */
	int cleanup;
	char name[100];
	struct control_peer *clients; /* the newest first */
	struct control_peer *closed;
	unsigned count;
	bool finished;
};

/* ---- control_peer.c ---- */
int peer_create(struct control *control, int fd, struct control_peer **out);
void peer_free(struct control_peer *client);  /* and closes */
void peer_close(struct control_peer *client); /* freed later */
/* Appends a line; a client that has too much waiting is dropped. The reference is taken. */
void peer_send(struct control_peer *client, json_t *message);
void peer_write(struct control_peer *client); /* what the socket takes */
void peer_flush(struct control_peer *client); /* and what follows when all is written */
void peer_go_on(struct control_peer *client); /* after an answer */

/* ---- control.c ---- */
/* One message: answers it, or leaves client->pending. */
void control_message(struct control_peer *client, const char *text, size_t len);

/* ---- control_schema.c ---- */
json_t *control_greeting(void);
json_t *control_version(void);
/* An error in QMP's words: CommandNotFound for -ENOSYS, DeviceNotFound for -ENODEV. */
json_t *control_error(int code, const char *text);
json_t *control_event_message(const char *event, json_t *data);
/* 0: allowed. */
int control_check_args(const struct control_command *command, const json_t *args,
		       struct error *err);
json_t *control_describe(const struct control_command *command);

#endif
