#include "migration/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

int socket_folder(const char *path, const char **name, struct stream_error *err)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX] = ".";
	int fd;

	*name = slash ? slash + 1 : path;
	if (!**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
		return stream_fail(err, NULL, -EISDIR, "'%s' does not name a file", path);
	if (slash) {
		size_t len = slash == path ? 1 : (size_t)(slash - path);

		if (len >= sizeof(dir))
			return stream_fail(err, NULL, -ENAMETOOLONG, "%.60s...: path too long",
					   path);
		memcpy(dir, path, len);
		dir[len] = 0;
	}
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		int code = -errno;

		return stream_fail(err, NULL, code, "%s: %s", dir, strerror(-code));
	}
	return fd;
}

int socket_address(struct sockaddr_un *sun, int dir_fd, const char *name, struct stream_error *err)
{
	int n;

	*sun = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(sun->sun_path, sizeof(sun->sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
	if (n < 0 || (size_t)n >= sizeof(sun->sun_path))
		return stream_fail(err, NULL, -ENAMETOOLONG,
				   "%.40s...: a socket's name may have at most 80 bytes", name);
	return 0;
}

int socket_connect(int dir_fd, const char *name, struct stream_error *err)
{
	const struct timeval patience = {.tv_sec = 5}, for_ever = {0};
	struct sockaddr_un sun;
	int fd, code = socket_address(&sun, dir_fd, name, err);

	if (code)
		return code;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* A listener that is stopped and whose backlog is full would have us wait for ever. */
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &for_ever, sizeof(for_ever));
		return fd;
	}
	code = -errno;
	if (fd >= 0)
		close(fd);
	return stream_fail(err, NULL, code, "%s: %s", name, strerror(-code));
}

static int remove_stale(int dir_fd, const char *name, struct stream_error *err)
{
	struct stat st;
	int fd;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return stream_fail(err, NULL, -EEXIST,
				   "%s exists and is no socket; remove it or choose another path",
				   name);
	fd = socket_connect(dir_fd, name, NULL);
	if (fd >= 0)
		close(fd);
	/* A full backlog (-EAGAIN) is somebody too. */
	if (fd != -ECONNREFUSED && fd != -ENOENT)
		return stream_fail(err, NULL, -EADDRINUSE,
				   "%s is in use by another process; choose another path", name);
	unlinkat(dir_fd, name, 0);
	return 0;
}

/* Bound and listening under a name of its own, then put in its place: a socket that can be seen can
 * be connected to. */
static int listen_as(int fd, int dir_fd, const char *name, int backlog, struct stream_error *err)
{
	struct sockaddr_un sun;
	char temporary[32];
	int code;

	snprintf(temporary, sizeof(temporary), ".ferry-%d-%d", (int)getpid(), fd);
	code = socket_address(&sun, dir_fd, temporary, err);
	if (code)
		return code;
	/* The mode of the socket before bind is the mode of the file: there is no moment at which
	 * others may connect. */
	unlinkat(dir_fd, temporary, 0);
	if (fchmod(fd, 0600) || bind(fd, (struct sockaddr *)&sun, sizeof(sun)))
		return -errno;
	/* linkat, not rename: of two that found the same stale socket one fails. */
	code = listen(fd, backlog) || linkat(dir_fd, temporary, dir_fd, name, 0) ? -errno : 0;
	unlinkat(dir_fd, temporary, 0);
	return code == -EEXIST ? -EADDRINUSE : code;
}

int socket_listen(int dir_fd, const char *name, int backlog, struct stream_error *err)
{
	struct sockaddr_un sun;
	int fd, code = socket_address(&sun, dir_fd, name, err); /* the name is short enough */

	if (!code)
		code = remove_stale(dir_fd, name, err);
	if (code)
		return code;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	code = fd < 0 ? -errno : listen_as(fd, dir_fd, name, backlog, err);
	if (!code)
		return fd;
	if (fd >= 0)
		close(fd);
	return stream_fail(err, NULL, code, "%s: %s", name, strerror(-code));
}
