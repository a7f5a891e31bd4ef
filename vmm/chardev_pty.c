#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/chardev_stream.h"
#include "vmm/message.h"

struct pty_backend {
	struct stream stream;
	int master;
	char path[64];
};

/* The kernel says "hung up" as long as nobody has the other side open. */
static bool is_open(struct stream *stream)
{
	struct pollfd pfd = {.fd = ((struct pty_backend *)stream)->master};

	return poll(&pfd, 1, 0) <= 0 || !(pfd.revents & POLLHUP);
}

static bool input_ended(struct stream *stream, int code)
{
	(void)stream;
	return code == -EIO; /* closed, until somebody opens it again */
}

static void output_failed(struct stream *stream, int code)
{
	(void)stream;
	(void)code; /* -EIO: closed in the meantime; is_open() drops the rest the next time */
}

/* When the master is closed, the kernel throws away what the reader has not read yet. */
static void wait_for_reader(struct pty_backend *pty)
{
	struct pollfd slave = {.events = POLLIN};
	int n, last = 0, patience = 0;

	if (pty->master < 0 || !is_open(&pty->stream))
		return;
	slave.fd = open(pty->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave.fd < 0)
		return;
	/* FIONREAD alone does not see bytes that are on their way between the two ends: poll() has
	 * the kernel bring them first. */
	while (patience++ < 200 && poll(&slave, 1, 0) >= 0 && !ioctl(slave.fd, FIONREAD, &n) && n) {
		if (n != last)
			patience = 0;
		last = n;
		usleep(10000);
	}
	close(slave.fd);
}

static void destroy(struct stream *stream)
{
	struct pty_backend *pty = (struct pty_backend *)stream;

	wait_for_reader(pty);
	if (pty->master >= 0)
		close(pty->master);
	free(pty);
}

static int open_master(struct pty_backend *pty)
{
	struct termios modes;
	int slave;

	pty->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (pty->master < 0 || grantpt(pty->master) || unlockpt(pty->master))
		return -errno;
	if (ptsname_r(pty->master, pty->path, sizeof(pty->path)))
		return -errno;
	/* A serial line is raw until its user says otherwise; opening and closing it once also puts
	 * it into the hung-up state which is_open() looks for. */
	slave = open(pty->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	if (!tcgetattr(slave, &modes)) {
		cfmakeraw(&modes);
		tcsetattr(slave, TCSANOW, &modes);
	}
	close(slave);
	return fcntl(pty->master, F_SETFL, O_RDWR | O_NONBLOCK) ? -errno : 0;
}

int chardev_pty_create(struct chardev_backend **out, const struct chardev_env *env,
		       struct error *err)
{
	static const struct stream_hooks hooks = {.input_ended = input_ended,
						  .may_write = is_open,
						  .output_failed = output_failed,
						  .destroy = destroy};
	struct pty_backend *pty = calloc(1, sizeof(*pty));
	int code;

	if (!pty)
		return error_set(err, -ENOMEM, "%s: out of memory", env->name);
	stream_init(&pty->stream, &hooks, env);
	code = open_master(pty);
	if (!code)
		code = stream_connect(&pty->stream, pty->master, pty->master);
	if (code) {
		pty->stream.backend.destroy(&pty->stream.backend);
		return error_set(err, code, "%s: pty: %s; is /dev/pts mounted?", env->name,
				 strerror(-code));
	}
	/* Said even with --quiet: there is no other way to learn it. */
	message("%s is %s", env->name, pty->path);
	*out = &pty->stream.backend;
	return 0;
}
