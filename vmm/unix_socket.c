#include "vmm/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int path_open_dir(const char *path, const char **name, struct error *err)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX] = ".";
	int fd;

	*name = slash ? slash + 1 : path;
	if (!**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
		return error_set(err, -EISDIR, "'%s' does not name a file", path);
	if (slash) {
		size_t len = slash == path ? 1 : (size_t)(slash - path);

		if (len >= sizeof(dir))
			return error_set(err, -ENAMETOOLONG, "%.60s...: path too long", path);
		memcpy(dir, path, len);
		dir[len] = 0;
	}
	fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		int code = -errno;

		return error_set(err, code, "%s: %s", dir, strerror(-code));
	}
	return fd;
}

static int address(struct sockaddr_un *sun, int dir_fd, const char *name, struct error *err)
{
	int n;

	*sun = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(sun->sun_path, sizeof(sun->sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
	if (n < 0 || (size_t)n >= sizeof(sun->sun_path))
		return error_set(err, -ENAMETOOLONG,
				 "%.40s...: a socket's name may have at most 80 bytes", name);
	return 0;
}

int unix_connect(int dir_fd, const char *name, struct error *err)
{
	struct sockaddr_un sun;
	int fd, code = address(&sun, dir_fd, name, err);

	if (code)
		return code;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&sun, sizeof(sun)))
		return fd;
	code = -errno;
	if (fd >= 0)
		close(fd);
	return error_set(err, code, "%s: %s", name, strerror(-code));
}

static int remove_stale(int dir_fd, const char *name, struct error *err)
{
	struct stat st;
	int fd;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST,
				 "%s exists and is no socket; remove it or choose another path",
				 name);
	fd = unix_connect(dir_fd, name, NULL);
	if (fd >= 0)
		close(fd);
	/* A full backlog (-EAGAIN) is somebody too. */
	if (fd != -ECONNREFUSED && fd != -ENOENT)
		return error_set(err, -EADDRINUSE,
				 "%s is in use by another process; choose another path", name);
	unlinkat(dir_fd, name, 0);
	return 0;
}

int unix_listen(int dir_fd, const char *name, int backlog, struct error *err)
{
	struct sockaddr_un sun;
	int fd, code = address(&sun, dir_fd, name, err);

	if (!code)
		code = remove_stale(dir_fd, name, err);
	if (code)
		return code;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the socket before bind is the mode of the file: there is no moment at which
	 * others may connect. */
	if (fd >= 0 && !fchmod(fd, 0600) && !bind(fd, (struct sockaddr *)&sun, sizeof(sun)) &&
	    !listen(fd, backlog))
		return fd;
	code = -errno;
	if (fd >= 0)
		close(fd);
	return error_set(err, code, "%s: %s", name, strerror(-code));
}
