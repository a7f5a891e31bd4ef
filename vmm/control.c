#include "vmm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/clock.h"
#include "vmm/cleanup.h"
#include "vmm/control_internal.h"
#include "vmm/unix_socket.h"

#define FINISH_MS 1000

/* ---- commands that every machine has ---------------------------------------------------- */

static int qmp_capabilities(void *opaque, struct control_request *request, const json_t *args,
			    json_t **ret, struct error *err)
{
	(void)opaque;
	(void)args;
	(void)ret;
	(void)err;
	request->client->negotiated = true;
	return 0;
}

static int query_version(void *opaque, struct control_request *request, const json_t *args,
			 json_t **ret, struct error *err)
{
	(void)opaque;
	(void)request;
	(void)args;
	(void)err;
	*ret = control_version();
	return 0;
}

static int query_commands(void *opaque, struct control_request *request, const json_t *args,
			  json_t **ret, struct error *err);

static const struct control_command own_commands[] = {
	{"qmp_capabilities", "ends the negotiation: the first command of every connection", NULL,
	 qmp_capabilities},
	{"query-commands", "all commands with their arguments", NULL, query_commands},
	{"query-version", "the version of QMP that the commands follow, and ferry's", NULL,
	 query_version},
	{.name = NULL},
};

static int query_commands(void *opaque, struct control_request *request, const json_t *args,
			  json_t **ret, struct error *err)
{
	const struct control *control = request->client->control;

	(void)opaque;
	(void)args;
	(void)err;
	*ret = json_array();
	for (const struct control_command *c = own_commands; c->name; c++)
		json_array_append_new(*ret, control_describe(c));
	for (const struct control_command *c = control->commands; c->name; c++)
		json_array_append_new(*ret, control_describe(c));
	return 0;
}

static const struct control_command *find(const struct control *control, const char *name)
{
	const struct control_command *tables[] = {own_commands, control->commands};

	for (unsigned i = 0; i < 2; i++) {
		for (const struct control_command *c = tables[i]; c->name; c++) {
			if (!strcmp(c->name, name))
				return c;
		}
	}
	return NULL;
}

/* ---- one message ------------------------------------------------------------------------ */

/* An answer: it carries the id of what it answers. References are taken. */
static void reply(struct control_peer *client, json_t *message, json_t *id)
{
	if (id)
		json_object_set_new(message, "id", id);
	peer_send(client, message);
}

static void reply_error(struct control_peer *client, json_t *id, int code, const char *text)
{
	reply(client, control_error(code, text), id);
}

static void reply_return(struct control_peer *client, json_t *id, json_t *ret)
{
	reply(client, json_pack("{s:o}", "return", ret ? ret : json_object()), id);
}

/* Only what the protocol knows may be in a message: a misspelt "argument" is not ignored. */
static int check_members(json_t *message, struct error *err)
{
	const char *name;
	json_t *value;

	if (!json_is_object(message))
		return error_set(err, -EINVAL, "a message is an object");
	json_object_foreach(message, name, value)
	{
		if (strcmp(name, "execute") != 0 && strcmp(name, "arguments") != 0 &&
		    strcmp(name, "id") != 0)
			return error_set(err, -EINVAL, "a message has no member '%.100s'", name);
	}
	if (!json_is_string(json_object_get(message, "execute")))
		return error_set(err, -EINVAL, "a message needs 'execute', a string");
	value = json_object_get(message, "arguments");
	if (value && !json_is_object(value))
		return error_set(err, -EINVAL, "'arguments' must be an object");
	return 0;
}

static int look_up(struct control_peer *client, const char *name, const json_t *args,
		   const struct control_command **command, struct error *err)
{
	*command = find(client->control, name);
	if (!*command)
		return error_set(err, -ENOSYS, "The command %.100s has not been found", name);
	if (!client->negotiated && (*command)->run != qmp_capabilities)
		return error_set(err, -ENOSYS,
				 "Expecting capabilities negotiation with 'qmp_capabilities'");
	if (client->negotiated && (*command)->run == qmp_capabilities)
		return error_set(err, -ENOSYS, "Capabilities negotiation is already complete");
	return control_check_args(*command, args, err);
}

/* Runs the command, which answers now or later. */
static void start(struct control_peer *peer, const struct control_command *command, json_t *args,
		  json_t *id)
{
	struct control_request *request = calloc(1, sizeof(*request));
	struct error err = {"failed"};
	json_t *ret = NULL;
	int code;

	if (!request) {
		reply_error(peer, id, -ENOMEM, "out of memory");
		return;
	}
	*request = (struct control_request){peer, id};
	peer->pending = request;
	code = command->run(peer->control->opaque, request, args, &ret, &err);
	if (code != CONTROL_LATER)
		control_answer(request, code, ret, &err);
}

static void execute(struct control_peer *peer, json_t *message, json_t *id)
{
	const struct control_command *command = NULL;
	json_t *args = json_object_get(message, "arguments");
	struct error err = {"failed"};
	int code = check_members(message, &err);

	args = args ? json_incref(args) : json_object();
	if (!code)
		code = look_up(peer, json_string_value(json_object_get(message, "execute")), args,
			       &command, &err);
	if (code)
		reply_error(peer, json_incref(id), code, err.text);
	else
		start(peer, command, args, json_incref(id));
	json_decref(args);
}

void control_message(struct control_peer *client, const char *text, size_t len)
{
	json_error_t where;
	json_t *message = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	struct error err;

	if (!message) {
		error_set(&err, 0, "JSON parse error: %s", where.text);
		reply_error(client, NULL, -EINVAL, err.text);
		return;
	}
	execute(client, message, json_object_get(message, "id"));
	json_decref(message);
}

void control_answer(struct control_request *request, int code, json_t *ret, const struct error *err)
{
	struct control_peer *client = request->client;

	if (!client) {
		json_decref(ret);
		json_decref(request->id);
		free(request);
		return;
	}
	client->pending = NULL;
	if (code) {
		json_decref(ret);
		reply_error(client, request->id, code, err ? err->text : strerror(-code));
	} else {
		reply_return(client, request->id, ret);
	}
	free(request);
	/* Whoever answers may be in the middle of anything: messages that waited get their turn
	 * from the loop. */
	loop_work_post(client->control->loop, &client->control->work);
}

void control_hand_over(struct control_request *request,
		       void (*fn)(void *opaque, int fd, const uint8_t *data, size_t len),
		       void *opaque)
{
	if (!request->client)
		return;
	request->client->hand_over = fn;
	request->client->hand_over_opaque = opaque;
}

void control_event(struct control *control, const char *event, json_t *data)
{
	json_t *message = control_event_message(event, data);
	struct control_peer *next;

	for (struct control_peer *c = control->clients; c; c = next) {
		next = c->next;
		if (c->negotiated && !c->hand_over)
			peer_send(c, json_incref(message));
	}
	json_decref(message);
}

/* ---- connections ------------------------------------------------------------------------ */

static void work(void *arg)
{
	struct control *control = arg;
	struct control_peer *next;

	for (struct control_peer *c = control->clients; c; c = next) {
		next = c->next;
		peer_go_on(c);
	}
	while ((next = control->closed)) {
		control->closed = next->next;
		peer_free(next);
	}
}

/* One line, for somebody who may not have a connection. */
static void refuse(int fd, const char *why)
{
	json_t *message = control_error(-EBUSY, why);
	char *text = json_dumps(message, JSON_COMPACT);

	if (text) {
		(void)!send(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
		(void)!send(fd, "\n", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	free(text);
	json_decref(message);
	close(fd);
}

/* Room for one more: whoever has not even negotiated for the longest time goes. */
static bool make_room(struct control *control)
{
	struct control_peer *oldest = NULL;

	if (control->count < CONTROL_CLIENTS_MAX)
		return true;
	for (struct control_peer *c = control->clients; c; c = c->next) {
		if (!c->negotiated)
			oldest = c;
	}
	if (oldest)
		peer_close(oldest);
	return oldest;
}

int control_adopt(struct control *control, int fd)
{
	struct control_peer *client;
	int ret;

	if (control->finished || !make_room(control)) {
		refuse(fd, control->finished ? "the machine has ended" : "too many connections");
		return -EBUSY;
	}
	ret = peer_create(control, fd, &client);
	if (ret) {
		close(fd);
		return ret;
	}
	client->next = control->clients;
	control->clients = client;
	control->count++;
	peer_send(client, control_greeting());
	return 0;
}

static bool allowed(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

static void on_connection(void *arg, uint32_t events)
{
	struct control *control = arg;
	int fd = accept4(control->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && control->spare_fd >= 0) {
		/* No descriptor is left: one is kept for sending such clients away, as they would
		 * wake the loop for ever. */
		close(control->spare_fd);
		fd = accept4(control->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
			refuse(fd, "no file descriptor is left");
		control->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return;
	}
	if (fd < 0)
		return;
	if (!allowed(fd))
		refuse(fd, "only the machine's user and root are served");
	else
		control_adopt(control, fd);
}

int control_listen(struct control *control, int dir_fd, const char *name, struct error *err)
{
	int ret;

	snprintf(control->name, sizeof(control->name), "%s", name);
	control->dir_fd = dir_fd;
	control->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	control->listen_fd = unix_listen(dir_fd, name, 128, err);
	if (control->listen_fd < 0)
		return error_prefix(err, control->listen_fd, "control socket");
	control->cleanup = cleanup_add_file(dir_fd, name);
	ret = loop_fd_add(control->loop, control->listen_fd, EPOLLIN, on_connection, control,
			  &control->listen_entry);
	return ret ? error_set(err, ret, "control socket: %s", strerror(-ret)) : 0;
}

int control_create(struct control **out, struct loop *loop, const struct control_command *commands,
		   void *opaque, struct error *err)
{
	struct control *control = calloc(1, sizeof(*control));

	if (!control)
		return error_set(err, -ENOMEM, "out of memory");
	*control = (struct control){.loop = loop,
				    .commands = commands,
				    .opaque = opaque,
				    .listen_fd = -1,
				    .spare_fd = -1,
				    .cleanup = -1};
	control->work = (struct loop_work){.fn = work, .arg = control};
	*out = control;
	return 0;
}

static void stop_listening(struct control *control)
{
	loop_fd_del(control->listen_entry);
	control->listen_entry = NULL;
	if (control->listen_fd < 0)
		return;
	/* Not later: once the machine's name is free, the file may be another machine's. */
	unlinkat(control->dir_fd, control->name, 0);
	cleanup_drop(control->cleanup);
	close(control->listen_fd);
	control->listen_fd = -1;
}

void control_finish(struct control *control)
{
	const int64_t until = clock_now_ms() + FINISH_MS;
	struct control_peer *next;

	control->finished = true;
	stop_listening(control);
	for (struct control_peer *c = control->clients; c; c = next) {
		struct pollfd pfd = {.fd = c->fd, .events = POLLOUT};

		next = c->next;
		peer_write(c);
		while (c->out_len && c->fd >= 0 && clock_now_ms() < until &&
		       poll(&pfd, 1, (int)(until - clock_now_ms())) > 0)
			peer_write(c);
	}
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	stop_listening(control);
	while (control->clients)
		peer_close(control->clients);
	loop_work_cancel(control->loop, &control->work);
	while (control->closed) {
		struct control_peer *next = control->closed->next;

		peer_free(control->closed);
		control->closed = next;
	}
	if (control->spare_fd >= 0)
		close(control->spare_fd);
	free(control);
}
