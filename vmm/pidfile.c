#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cleanup.h"
#include "vmm/runtime.h"
#include "vmm/unix_socket.h"

/* The process that a pidfile names: 0 if stale, -EINVAL if this is no pidfile. */
static long living_process(int dir_fd, const char *name)
{
	char text[32] = "", *end;
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	ssize_t n;
	long pid;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	n = fstat(fd, &st) || !S_ISREG(st.st_mode) ? -1 : read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n < 0)
		return -EINVAL;
	if (!n)
		return 0;
	pid = strtol(text, &end, 10);
	if (pid <= 0 || (*end && *end != '\n') || (*end && end[1]))
		return -EINVAL;
	/* In a container the id may well be our own, from the run before. */
	if (pid == getpid() || (kill((pid_t)pid, 0) && errno == ESRCH))
		return 0;
	return pid;
}

/* Puts a finished file in place. link() fails if there is one: then it is looked at. */
static int put(int dir_fd, const char *temporary, const char *name, const char *path,
	       struct error *err)
{
	long pid;

	if (!linkat(dir_fd, temporary, dir_fd, name, 0)) {
		unlinkat(dir_fd, temporary, 0);
		return 0;
	}
	pid = living_process(dir_fd, name);
	if (pid > 0)
		return error_set(
			err, -EEXIST,
			"--pidfile: %s belongs to process %ld, which is running; end it, or "
			"choose another file",
			path, pid);
	if (pid == -EINVAL)
		return error_set(err, -EEXIST,
				 "--pidfile: %s exists and is no pidfile; remove it or choose "
				 "another file",
				 path);
	if (renameat(dir_fd, temporary, dir_fd, name))
		return error_set(err, -errno, "--pidfile: %s: %s", path, strerror(errno));
	return 0;
}

int pidfile_write(struct pidfile *pidfile, const char *path, struct error *err)
{
	char temporary[64], pid[32];
	const char *name;
	int dir_fd, fd, code, n;

	*pidfile = (struct pidfile){.dir_fd = -1, .cleanup = -1};
	dir_fd = path_open_dir(path, &name, err);
	if (dir_fd < 0)
		return error_prefix(err, dir_fd, "--pidfile");
	if (strlen(name) >= sizeof(pidfile->name)) {
		close(dir_fd);
		return error_set(err, -ENAMETOOLONG, "--pidfile: the name is too long");
	}
	snprintf(temporary, sizeof(temporary), ".ferry-pid-%d", (int)getpid());
	unlinkat(dir_fd, temporary, 0);
	fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (fd < 0 || write(fd, pid, (size_t)n) != n)
		code = error_set(err, errno ? -errno : -EIO, "--pidfile: %s: %s", path,
				 strerror(errno ? errno : EIO));
	else
		code = put(dir_fd, temporary, name, path, err);
	if (fd >= 0)
		close(fd);
	if (code) {
		unlinkat(dir_fd, temporary, 0);
		close(dir_fd);
		return code;
	}
	pidfile->dir_fd = dir_fd;
	snprintf(pidfile->name, sizeof(pidfile->name), "%s", name);
	pidfile->cleanup = cleanup_add_file(dir_fd, name);
	return 0;
}

void pidfile_remove(struct pidfile *pidfile)
{
	if (pidfile->dir_fd < 0)
		return;
	unlinkat(pidfile->dir_fd, pidfile->name, 0);
	cleanup_drop(pidfile->cleanup);
	close(pidfile->dir_fd);
	pidfile->dir_fd = -1;
}
