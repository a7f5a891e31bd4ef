#include "cli/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "migration/clock.h"
#include "vmm/json_util.h"
#include "vmm/unix_socket.h"

/* ---- by name ---------------------------------------------------------------------------- */

struct names {
	struct runtime_entry *entries;
	int count;
};

static const char *running_name(const void *table, unsigned i)
{
	const struct names *names = table;

	for (int n = 0; n < names->count; n++) {
		if (names->entries[n].pid && !i--)
			return names->entries[n].name;
	}
	return NULL;
}

static int no_such(const struct names *names, const char *name, struct error *err)
{
	const char *near = suggest(name, running_name, names);

	if (near)
		return error_set(err, -ENOENT, "no machine '%s' runs; did you mean '%s'?", name,
				 near);
	return error_set(err, -ENOENT, "no machine '%s' runs; see: ferry ps", name);
}

static int not_one(const struct names *names, struct error *err)
{
	size_t used = (size_t)snprintf(err->text, sizeof(err->text), "which machine? These run:");
	const char *name;

	for (unsigned i = 0; (name = running_name(names, i)) && used < sizeof(err->text); i++)
		used += (size_t)snprintf(err->text + used, sizeof(err->text) - used, "%s %s",
					 i ? "," : "", name);
	return -ENOENT;
}

static int pick(struct client *client, const struct names *names, const char *name,
		struct runtime_end *end, struct error *err)
{
	const struct runtime_entry *found = NULL;
	unsigned matches = 0;

	for (int i = 0; i < names->count; i++) {
		const struct runtime_entry *entry = &names->entries[i];

		if (name ? !strcmp(entry->name, name) : entry->pid != 0) {
			found = entry;
			matches++;
		}
	}
	if (!found)
		return name ? no_such(names, name, err)
			    : error_set(err, -ENOENT, "no machine runs; see: ferry help run");
	if (matches > 1)
		return not_one(names, err);
	snprintf(client->name, sizeof(client->name), "%s", found->name);
	client->pid = found->pid;
	if (found->pid)
		snprintf(client->waits_at, sizeof(client->waits_at), "%s", found->note);
	if (found->pid)
		return 0;
	if (end && !runtime_end_read(client->runtime.dir_fd, name, end))
		return -ESRCH;
	return error_set(err, -ESRCH, "the machine '%s' has ended; see: ferry logs %s", name, name);
}

int client_find(struct client *client, const char *name, struct runtime_end *end, struct error *err)
{
	struct names names = {NULL, 0};
	int ret;

	*client = (struct client){.fd = -1, .runtime.dir_fd = -1, .patience_ms = CLIENT_ANSWER_MS};
	ret = runtime_open(&client->runtime, err);
	if (ret)
		return ret;
	names.count = runtime_list(&client->runtime, &names.entries, err);
	ret = names.count < 0 ? names.count : pick(client, &names, name, end, err);
	free(names.entries);
	return ret;
}

/* ---- the conversation ------------------------------------------------------------------- */

/* Waits for more bytes. until: of clock_now_ms(); -1: for ever. */
static int receive(struct client *client, int64_t until)
{
	struct pollfd pfd = {.fd = client->fd, .events = POLLIN};
	int64_t left = until < 0 ? -1 : until - clock_now_ms();
	ssize_t n;

	if (client->len + 4096 > client->room) {
		char *more = realloc(client->buf, client->room + 65536);

		if (!more)
			return -ENOMEM;
		client->buf = more;
		client->room += 65536;
	}
	n = poll(&pfd, 1, until < 0 ? -1 : left > 0 ? (int)left : 0);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	n = recv(client->fd, client->buf + client->len, client->room - client->len, 0);
	if (n < 0)
		return errno == EINTR ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
	client->len += (size_t)n;
	return n ? 0 : -EPIPE;
}

/* The next line, as JSON. */
static int next_message(struct client *client, int64_t until, json_t **out)
{
	for (;;) {
		char *end = memchr(client->buf ? client->buf : "", '\n', client->len);
		int ret;

		if (end) {
			const size_t used = (size_t)(end - client->buf) + 1;

			*out = json_loadb(client->buf, used, 0, NULL);
			client->len -= used;
			memmove(client->buf, client->buf + used, client->len);
			return *out ? 0 : -EPROTO;
		}
		ret = receive(client, until);
		if (ret)
			return ret;
	}
}

static int say(const struct client *client, int code, struct error *err)
{
	switch (code) {
	case -ETIMEDOUT:
		return error_set(err, code, "the machine '%s' (process %ld) does not answer",
				 client->name, client->pid);
	case -EPIPE: return error_set(err, code, "the machine '%s' has just ended", client->name);
	default: return error_set(err, code, "the machine '%s': %s", client->name, strerror(-code));
	}
}

int client_answer(struct client *client, int timeout_ms, json_t **ret, struct error *err)
{
	const int64_t until = timeout_ms < 0 ? -1 : clock_now_ms() + timeout_ms;
	json_t *message, *part;
	int code;

	for (;;) {
		code = next_message(client, until, &message);
		if (code)
			return say(client, code, err);
		part = json_object_get(message, "error");
		if (part) {
			const char *text = json_string_value(json_object_get(part, "desc"));

			code = error_set(err, -EREMOTEIO, "the machine '%s': %s", client->name,
					 text ? text : "refused");
			json_decref(message);
			return code;
		}
		part = json_object_get(message, "return");
		if (part && ret)
			*ret = json_incref(part);
		json_decref(message);
		if (part)
			return 0; /* the greeting and events are passed over */
	}
}

int client_call(struct client *client, const char *command, json_t *args, int timeout_ms,
		json_t **ret, struct error *err)
{
	json_t *message = json_pack("{s:s, s:o*}", "execute", command, "arguments", args);
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	int code = text ? 0 : -ENOMEM;
	ssize_t sent = 0;

	if (!code) {
		struct iovec parts[] = {{text, strlen(text)}, {(char[]){'\n'}, 1}};
		const struct msghdr line = {.msg_iov = parts, .msg_iovlen = 2};

		sent = sendmsg(client->fd, &line, MSG_NOSIGNAL);
	}
	if (!code && sent < 0)
		code = errno == ECONNRESET ? -EPIPE : -errno;
	free(text);
	json_decref(message);
	return code && code != -EPIPE ? say(client, code, err)
				      : client_answer(client, timeout_ms, ret, err);
}

static bool does_not_listen(int code)
{
	return code == -ENOENT || code == -ECONNREFUSED;
}

int client_connect(struct client *client, struct error *err)
{
	const int64_t until = clock_now_ms() + client->patience_ms;
	char file[RUNTIME_NAME_MAX + 8];

	if (client->waits_at[0])
		return error_set(err, -ENOTCONN,
				 "the machine '%s' waits for a guest at %s, and has none yet",
				 client->name, client->waits_at);
	snprintf(file, sizeof(file), "%s.sock", client->name);
	/* It has its name before it listens, and for a moment afterwards. */
	while (does_not_listen(client->fd = unix_connect(client->runtime.dir_fd, file, err)) &&
	       clock_now_ms() < until &&
	       runtime_holder(&client->runtime, client->name) == client->pid)
		usleep(20000);
	if (does_not_listen(client->fd))
		return runtime_holder(&client->runtime, client->name) == client->pid
			       ? error_set(err, client->fd,
					   "the machine '%s' is starting or ending; try again",
					   client->name)
			       : say(client, -EPIPE, err);
	if (client->fd < 0)
		return say(client, client->fd == -EAGAIN ? -ETIMEDOUT : client->fd, err);
	return client_call(client, "qmp_capabilities", NULL, client->patience_ms, NULL, err);
}

json_t *client_waiting(const struct client *client)
{
	return json_pack("{s:s, s:I, s:s, s:o}", "name", client->name, "pid",
			 (json_int_t)client->pid, "state", "waiting", "address",
			 json_text(client->waits_at));
}

int client_open(struct client *client, const char *name, struct error *err)
{
	int ret = client_find(client, name, NULL, err);

	return ret ? ret : client_connect(client, err);
}

int client_take(struct client *client, const char **data, size_t *len)
{
	int fd = client->fd;

	*data = client->buf;
	*len = client->len;
	client->fd = -1;
	return fd;
}

int client_gone(struct client *client, int timeout_ms)
{
	const int64_t until = clock_now_ms() + timeout_ms;
	int ret;

	do {
		client->len = 0;
		ret = receive(client, until);
	} while (!ret);
	return ret == -EPIPE ? 0 : ret;
}

void client_close(struct client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	free(client->buf);
	runtime_close(&client->runtime);
	*client = (struct client){.fd = -1, .runtime.dir_fd = -1};
}

/* Whether `key` has it now: JSON is UTF-8. */
static bool add_path(json_t *args, const char *key, const char *before, const char *file)
{
	char *cwd = file[0] == '/' ? NULL : get_current_dir_name();
	json_t *path = json_sprintf("%s%s%s%s", before, cwd ? cwd : "", cwd ? "/" : "", file);

	free(cwd);
	return path && !json_object_set_new(args, key, path);
}

int client_add_path(json_t *args, const char *key, const char *file, struct error *err)
{
	if (!file || add_path(args, key, "", file))
		return 0;
	return error_set(err, -EINVAL,
			 "'%s' is no path that can be used: its name, with its folder's, has to be "
			 "UTF-8",
			 file);
}

int client_add_address(json_t *args, const char *key, const char *address, struct error *err)
{
	const bool path = !strncmp(address, "unix:", 5);

	if (path ? add_path(args, key, "unix:", address + 5)
		 : !json_object_set_new(args, key, json_string(address)))
		return 0;
	return error_set(err, -EINVAL, "'%s' is no address that can be used: it has to be UTF-8%s",
			 address, path ? ", with the folder that it is in" : "");
}
