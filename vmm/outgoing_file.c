/* Files that are there whole or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/outgoing_internal.h"
#include "vmm/unix_socket.h"

int outgoing_file_check(const char *path, struct error *err)
{
	struct stat st;
	const char *name;
	int dir;

	if (path[0] != '/')
		return error_set(err, -EINVAL, "a file's path begins at the root");
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return error_set(err, -EEXIST, "%s is there and is no file", path);
	dir = path_open_dir(path, &name, err);
	if (dir < 0)
		return dir;
	close(dir);
	return 0;
}

/* A file without a name where the file system has that, so that nothing is left of a process that
 * is killed; else one with another name (*temporary). */
static int open_nameless(int dir, const char *name, char *temporary, size_t len)
{
	int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	*temporary = 0;
	if (fd >= 0)
		return fd;
	snprintf(temporary, len, ".%.200s.%d.ferry", name, (int)getpid());
	fd = openat(dir, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int give_name(int dir, int fd, const char *name, char *temporary, size_t len)
{
	char path[64];
	int ret;

	if (!*temporary) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		snprintf(temporary, len, ".%.200s.%d.ferry", name, (int)getpid());
		(void)unlinkat(dir, temporary, 0);
		if (linkat(AT_FDCWD, path, dir, temporary, AT_SYMLINK_FOLLOW)) {
			*temporary = 0;
			return -errno;
		}
	}
	if (renameat(dir, temporary, dir, name))
		return -errno;
	*temporary = 0;
	if (!fsync(dir) || errno == EINVAL)
		return 0;
	ret = -errno;
	(void)unlinkat(dir, name, 0);
	return ret;
}

static int fill_and_name(int dir, const char *name, outgoing_fill fill, void *opaque,
			 struct stream_error *err)
{
	char temporary[256];
	int fd = open_nameless(dir, name, temporary, sizeof(temporary)), ret;

	if (fd < 0)
		return stream_fail(err, NULL, fd, "%s", strerror(-fd));
	ret = fill(opaque, fd, err);
	if (!ret) {
		ret = give_name(dir, fd, name, temporary, sizeof(temporary));
		if (ret)
			stream_fail(err, NULL, ret, "%s", strerror(-ret));
	}
	if (*temporary)
		unlinkat(dir, temporary, 0);
	close(fd);
	return ret;
}

int outgoing_file(const char *path, outgoing_fill fill, void *opaque, struct stream_error *err)
{
	struct error why = {""};
	const char *name;
	int dir = path_open_dir(path, &name, &why), fd, ret;

	if (dir < 0)
		return stream_fail(err, NULL, dir, "%s", why.text);
	/* An O_PATH descriptor is no folder to be flushed. */
	fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ret = fd < 0 ? stream_fail(err, NULL, -errno, "%s", strerror(errno))
		     : fill_and_name(fd, name, fill, opaque, err);
	if (fd >= 0)
		close(fd);
	close(dir);
	return ret;
}
