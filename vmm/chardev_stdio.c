#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/chardev_stream.h"
#include "vmm/cleanup.h"
#include "vmm/exit_codes.h"
#include "vmm/message.h"
#include "vmm/terminal.h"

#define ESCAPE 0x01 /* C-a, as in QEMU */

/* Standard input or output, made non-blocking without anybody else noticing. */
struct side {
	int fd;
	bool own;  /* opened anew: close it */
	int flags; /* of the shared description, to be put back; -1: untouched */
	int cleanup;
};

struct stdio_backend {
	struct stream stream;
	struct side in, out;
	struct terminal terminal;
	bool is_terminal, escaped;
};

static struct stdio_backend *to_stdio(struct stream *stream)
{
	return (struct stdio_backend *)stream;
}

static bool shared_flags_matter(const struct stat *st)
{
	/* Files never block; sockets are used with MSG_DONTWAIT. */
	return S_ISCHR(st->st_mode) || S_ISFIFO(st->st_mode);
}

/* O_NONBLOCK belongs to the open file description, which is shared with the shell and everything
 * that runs beside us on the terminal. So a description of our own is opened where that is
 * possible. */
static int side_open(struct side *side, int fd, int mode)
{
	char path[32];
	struct stat st;

	*side = (struct side){.fd = fd, .flags = -1, .cleanup = -1};
	if (fstat(fd, &st))
		return -errno;
	if (!shared_flags_matter(&st))
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	side->fd = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (side->fd >= 0) {
		side->own = true;
		return 0;
	}
	side->fd = fd; /* another user's terminal, no /proc, a socket pair's end */
	side->flags = fcntl(fd, F_GETFL);
	if (side->flags < 0)
		return -errno;
	side->cleanup = cleanup_add_flags(fd, side->flags);
	if (fcntl(fd, F_SETFL, side->flags | O_NONBLOCK))
		return -errno;
	return 0;
}

static void side_close(struct side *side)
{
	if (side->own)
		close(side->fd);
	else if (side->flags >= 0)
		fcntl(side->fd, F_SETFL, side->flags);
	cleanup_drop(side->cleanup);
}

static void help(struct stdio_backend *stdio)
{
	message("C-a x  %s", stdio->stream.env.remote ? "leave this console; the guest goes on"
						      : "end the guest and ferry");
	message("C-a h  this help");
	message("C-a C-a  send one C-a to the guest");
	if (!stdio->stream.env.remote)
		message("%s is on this terminal", stdio->stream.env.name);
}

/* Takes the escape sequences out of what was typed at a terminal. */
static size_t filter(struct stream *stream, uint8_t *data, size_t len)
{
	struct stdio_backend *stdio = to_stdio(stream);
	size_t kept = 0;

	for (size_t i = 0; i < len; i++) {
		if (!stdio->escaped) {
			if (data[i] == ESCAPE)
				stdio->escaped = true;
			else
				data[kept++] = data[i];
			continue;
		}
		stdio->escaped = false;
		switch (data[i]) {
		case ESCAPE: data[kept++] = ESCAPE; break;
		case 'h':
		case '?': help(stdio); break;
		case 'x':
			message("%s", stream->env.remote ? "left by C-a x; the guest goes on"
							 : "ended by C-a x");
			stream->env.quit(stream->env.opaque, EXIT_KILLED);
			break;
		default: break; /* not known: swallowed, as in QEMU */
		}
	}
	return kept;
}

static bool may_read(struct stream *stream)
{
	struct stdio_backend *stdio = to_stdio(stream);

	return !stdio->is_terminal || terminal_ours(&stdio->terminal);
}

static bool input_ended(struct stream *stream, int code)
{
	struct stdio_backend *stdio = to_stdio(stream);

	/* Only a pipe's end: no more comes. */
	if (!stdio->is_terminal)
		return false;
	/* Became a background job since may_read()? */
	if (code == -EIO && !terminal_ours(&stdio->terminal))
		return true;
	/* A raw terminal has no end of file: it is gone. */
	stream->env.quit(stream->env.opaque, EXIT_SIGNAL + SIGHUP);
	return false;
}

static void output_failed(struct stream *stream, int code)
{
	struct stdio_backend *stdio = to_stdio(stream);

	if (!stdio->is_terminal)
		message("%s: standard output: %s; the guest's output is lost from here",
			stream->env.name, strerror(-code));
	stream_stop_output(stream);
}

static void continued(void *arg)
{
	stream_poke(arg);
}

static void destroy(struct stream *stream)
{
	struct stdio_backend *stdio = to_stdio(stream);

	if (stdio->is_terminal)
		terminal_close(&stdio->terminal);
	/* In reverse: both may share a description, and what the second saw the first had changed.
	 */
	side_close(&stdio->out);
	side_close(&stdio->in);
	free(stdio);
}

int chardev_stdio_create(struct chardev_backend **out, const struct chardev_env *env,
			 struct error *err)
{
	/* From a pipe or a file nothing is read that the guest does not take. */
	static const struct stream_hooks hooks = {.may_read = may_read,
						  .input_ended = input_ended,
						  .output_failed = output_failed,
						  .destroy = destroy},
					 terminal_hooks = {.filter = filter,
							   .may_read = may_read,
							   .input_ended = input_ended,
							   .output_failed = output_failed,
							   .destroy = destroy};
	struct stdio_backend *stdio = calloc(1, sizeof(*stdio));
	int in_code, code;

	if (!stdio)
		return error_set(err, -ENOMEM, "%s: out of memory", env->name);
	/* A closed standard input is one that has ended. */
	in_code = side_open(&stdio->in, STDIN_FILENO, O_RDONLY);
	code = side_open(&stdio->out, STDOUT_FILENO, O_WRONLY);
	stdio->is_terminal = !in_code && isatty(STDIN_FILENO);
	stream_init(&stdio->stream, stdio->is_terminal ? &terminal_hooks : &hooks, env);
	if (!code && stdio->is_terminal)
		code = terminal_open(&stdio->terminal, env->loop, STDIN_FILENO, continued,
				     &stdio->stream);
	if (!code)
		code = stream_connect(&stdio->stream, in_code ? -1 : stdio->in.fd, stdio->out.fd);
	if (code) {
		stdio->stream.backend.destroy(&stdio->stream.backend);
		return error_set(err, code, "%s: standard output: %s; try --serial none", env->name,
				 strerror(-code));
	}
	if (stdio->is_terminal && !env->quiet)
		message("%s is on this terminal; C-a x ends the guest, C-a h helps", env->name);
	*out = &stdio->stream.backend;
	return 0;
}
