/* `ferry console`: this terminal as a viewer of a machine's line. The terminal's side is the same
 * back end that a machine in the foreground has. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/machine.h"
#include "vmm/chardev.h"
#include "vmm/exit_codes.h"
#include "vmm/message.h"

enum { ENDED = 256 }; /* beyond all exit codes: the machine's side was closed */

struct console_config {
	char *name, *line;
};

struct console {
	struct loop *loop;
	struct chardev *terminal;
	int fd;
	struct loop_fd *entry;
	uint8_t from[8192], to[4096]; /* the guest */
	size_t from_at, from_len, to_len;
	bool ended;
};

static void watch(struct console *c)
{
	loop_fd_mod(c->entry,
		    (c->from_len || c->ended ? 0u : EPOLLIN) | (c->to_len ? EPOLLOUT : 0u));
}

/* What has come goes to the terminal, as fast as it takes it. */
static void show(void *opaque)
{
	struct console *c = opaque;

	if (c->from_len) {
		size_t n = c->terminal->ops->write(c->terminal, c->from + c->from_at, c->from_len);

		c->from_at += n;
		c->from_len -= n;
	}
	if (c->ended && !c->from_len)
		loop_stop(c->loop, ENDED);
	else
		watch(c);
}

static void send_typed(struct console *c)
{
	ssize_t n = c->to_len ? send(c->fd, c->to, c->to_len, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

	if (n > 0) {
		c->to_len -= (size_t)n;
		memmove(c->to, c->to + n, c->to_len);
		c->terminal->ops->kick_receive(c->terminal);
	}
	watch(c);
}

static size_t can_receive(void *opaque)
{
	const struct console *c = opaque;

	return sizeof(c->to) - c->to_len;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
	struct console *c = opaque;

	memcpy(c->to + c->to_len, data, len);
	c->to_len += len;
	send_typed(c);
}

static void on_socket(void *opaque, uint32_t events)
{
	struct console *c = opaque;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !c->from_len && !c->ended) {
		ssize_t n = recv(c->fd, c->from, sizeof(c->from), MSG_DONTWAIT);

		c->from_at = 0;
		c->from_len = n > 0 ? (size_t)n : 0;
		c->ended = !n || (n < 0 && errno != EAGAIN && errno != EINTR);
		show(c);
	}
	if (events & EPOLLOUT)
		send_typed(c);
}

static void leave(void *opaque, int code)
{
	struct console *c = opaque;

	loop_stop(c->loop, code);
}

static int attach(struct client *client, const char *line, json_t **answer, struct error *err)
{
	json_t *args = line ? json_pack("{s:s}", "line", line) : NULL;
	int ret = client_connect(client, err);

	if (!ret)
		return client_call(client, "ferry-console", args, CLIENT_ANSWER_MS, answer, err);
	json_decref(args);
	return ret;
}

/* Both sides are connected; returns how it was left. */
static int converse(struct console *c, const char *line, const char *data, size_t len,
		    struct error *err)
{
	const struct serial_config config = {.kind = SERIAL_STDIO};
	const struct chardev_env env = {.loop = c->loop,
					.name = line,
					.quiet = true,
					.remote = true,
					.quit = leave,
					.opaque = c};
	const struct chardev_client guest = {can_receive, receive, show, c};
	int ret = loop_stop_on_signals(c->loop);

	if (!ret)
		ret = chardev_create(&c->terminal, &config, &env, err);
	if (ret)
		return ret;
	if (len > sizeof(c->from)) {
		data += len - sizeof(c->from); /* the newest */
		len = sizeof(c->from);
	}
	if (len)
		memcpy(c->from, data, len);
	c->from_len = len;
	ret = loop_fd_add(c->loop, c->fd, EPOLLIN, on_socket, c, &c->entry);
	if (!ret) {
		c->terminal->ops->attach(c->terminal, &guest);
		show(c);
		ret = loop_run(c->loop);
	}
	loop_fd_del(c->entry);
	chardev_destroy(c->terminal);
	return ret;
}

static int run(void *opaque)
{
	const struct console_config *config = opaque;
	struct console console = {.fd = -1};
	struct client client;
	json_t *answer = NULL;
	struct error err = {""};
	const char *data;
	size_t len;
	int ret = client_find(&client, config->name, NULL, &err);

	if (!ret)
		ret = attach(&client, config->line, &answer, &err);
	if (!ret)
		ret = loop_create(&console.loop, &err);
	if (!ret) {
		const char *line = json_string_value(json_object_get(answer, "line"));

		message("%s of %s; C-a x leaves it, C-a h helps", line, client.name);
		console.fd = client_take(&client, &data, &len);
		ret = converse(&console, line, data, len, &err);
		close(console.fd);
	}
	loop_destroy(console.loop);
	json_decref(answer);
	if (ret == ENDED)
		message("the machine '%s' has ended", client.name);
	client_close(&client);
	if (ret < 0)
		return complain(EXIT_START, &err);
	return ret == ENDED || ret == EXIT_KILLED ? 0 : ret;
}

static const char *line_word(unsigned i)
{
	static const char *const words[] = {"serial0", "serial1", "serial2", "serial3", "console0"};

	return i < sizeof(words) / sizeof(words[0]) ? words[i] : NULL;
}

static const struct config_field fields[] = {
	{.name = "name",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct console_config, name),
	 .check = config_check_name,
	 .help = "name of the machine"},
	{.name = "line",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct console_config, line),
	 .word = line_word,
	 .help = "which line, by default the first that can be attached to"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("line", 'l', "LINE", "line", .group = "Options"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

const struct verb verb_console = {
	.name = "console",
	.summary = "attach this terminal to a machine's serial line",
	.operands = "[NAME]",
	.description =
		"Shows the newest output of the line, then what follows, and sends what is typed. "
		"C-a x leaves it (the guest goes on), C-a h helps, C-a C-a sends one C-a. Several "
		"may "
		"be attached to one line.\n"
		"The guest does not wait for a console: one that reads too slowly misses output, "
		"and "
		"is told how much; ferry logs has it. It ends with code 0 when it is left and when "
		"the machine ends. " MACHINE_NAME_TEXT,
	.options = options,
	.fields = fields,
	.size = sizeof(struct console_config),
	.operand_field = "name",
	.operand_completion = COMPLETE_MACHINES,
	.run = run,
};
