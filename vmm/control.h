/*
 * The control socket's server: JSON lines in the shape of QMP (docs/control-protocol.md). It knows
 * no machine: what can be asked is a table of commands, whose arguments are checked before their
 * function is called.
 *
 * Everything on the loop's thread; nothing blocks but control_finish(). Clients are hostile as far
 * as their uid lets them: messages, answers that wait and connections are bounded, a client that
 * does not read is dropped, and the machine goes on.
 */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "vmm/error.h"
#include "vmm/loop.h"

enum {
	CONTROL_MESSAGE_MAX = 65536,  /* bytes of one request */
	CONTROL_OUTPUT_MAX = 1 << 20, /* bytes that wait for a client's reading */
	CONTROL_CLIENTS_MAX = 64,
};

struct control;
struct control_request; /* of a command that is answered later */

enum control_type { CONTROL_STRING, CONTROL_INT, CONTROL_BOOL };

struct control_arg {
	const char *name; /* NULL ends the table */
	enum control_type type;
	bool optional;
	int64_t min, max; /* of an INT */
};

enum { CONTROL_LATER = 1 };

struct control_command {
	const char *name; /* NULL ends the table */
	const char *help;
	const struct control_arg *args; /* NULL: none */
	/* args: an object that the schema allows. 0: *ret is the answer, its reference taken; NULL
	 * is {}. -errno: err says why. CONTROL_LATER: control_answer() follows, once; until then
	 * this client's next command waits. */
	int (*run)(void *opaque, struct control_request *request, const json_t *args, json_t **ret,
		   struct error *err);
};

/* commands: beside qmp_capabilities, query-commands and query-version, which are always there. */
int control_create(struct control **out, struct loop *loop, const struct control_command *commands,
		   void *opaque, struct error *err);
/* Listens at dir_fd/name, mode 0600; dir_fd stays the caller's and must live as long. Only this
 * process's user and root are served. */
int control_listen(struct control *control, int dir_fd, const char *name, struct error *err);
/* A connection that exists: the descriptor is control's from now on, non-blocking. 0 or -errno (it
 * is closed). */
int control_adopt(struct control *control, int fd);
/* To every client that has negotiated; the reference to data (may be NULL) is taken. */
void control_event(struct control *control, const char *event, json_t *data);
/* 0: ret is the answer (reference taken, NULL is {}); -errno with err's text. The client may have
 * gone meanwhile. */
void control_answer(struct control_request *request, int code, json_t *ret,
		    const struct error *err);
/* From a command's run that returns 0: once its answer is written, the connection is no client of
 * control any more, and fn has it, with what came in behind the command. */
void control_hand_over(struct control_request *request,
		       void (*fn)(void *opaque, int fd, const uint8_t *data, size_t len),
		       void *opaque);
/* No more connections and commands; the socket's file is removed; what waits is written, within a
 * second. Every request has been answered. Connections stay open until control_destroy(), so that
 * their end says that nothing of the machine is left. */
void control_finish(struct control *control);
void control_destroy(struct control *control); /* NULL is fine */

#endif
