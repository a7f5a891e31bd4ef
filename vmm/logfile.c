#include "vmm/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int create(const struct logfile *log)
{
	int fd;

	unlinkat(log->dir_fd, log->name, 0);
	fd = openat(log->dir_fd, log->name,
		    O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

static void old_name(const struct logfile *log, char *buf, size_t len)
{
	snprintf(buf, len, "%s.1", log->name);
}

int logfile_open(struct logfile *log, int dir_fd, const char *name, uint64_t limit,
		 struct error *err)
{
	char old[sizeof(log->name) + 4];

	*log = (struct logfile){.dir_fd = dir_fd, .limit = limit};
	snprintf(log->name, sizeof(log->name), "%s", name);
	old_name(log, old, sizeof(old));
	unlinkat(dir_fd, old, 0);
	log->fd = create(log);
	if (log->fd >= 0)
		return 0;
	return error_set(err, log->fd, "log %s: %s", name, strerror(-log->fd));
}

int logfile_turn(struct logfile *log)
{
	char old[sizeof(log->name) + 4];
	struct stat st;
	int fd;

	if (log->fd < 0 || fstat(log->fd, &st))
		return 0;
	log->size = (uint64_t)st.st_size;
	if (log->size < log->limit)
		return 0;
	old_name(log, old, sizeof(old));
	/* A log that was removed, with its folder or by hand, is not made again. */
	if (renameat(log->dir_fd, log->name, log->dir_fd, old))
		return 0;
	fd = create(log);
	if (fd < 0)
		return 0;
	close(log->fd);
	log->fd = fd;
	log->size = 0;
	return 1;
}

void logfile_write(struct logfile *log, const void *data, size_t len)
{
	ssize_t n;

	if (log->fd < 0)
		return;
	while (len && (n = write(log->fd, data, len)) > 0) {
		data = (const char *)data + n;
		len -= (size_t)n;
		log->size += (uint64_t)n;
	}
	if (log->size >= log->limit)
		logfile_turn(log);
}

void logfile_close(struct logfile *log)
{
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
}
