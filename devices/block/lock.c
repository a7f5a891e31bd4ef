#include "devices/block/lock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { USED = 100, DENIED = 200, BYTES = 100 };
/* QEMU's permissions, by number. */
enum { CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE, PERMISSIONS };

static int lock_bytes(int fd, short type, unsigned at, unsigned len)
{
	struct flock lock = {
		.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = (off_t)len};

	return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

/* Whether somebody else holds that byte. */
static int probe(int fd, unsigned at)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1};

	if (fcntl(fd, F_OFD_GETLK, &lock))
		return -errno;
	return lock.l_type == F_UNLCK ? 0 : -EBUSY;
}

void block_unlock(int fd)
{
	(void)lock_bytes(fd, F_UNLCK, USED, BYTES);
	(void)lock_bytes(fd, F_UNLCK, DENIED, BYTES);
}

/* Nobody else may write or resize while a guest has the image; a writer may read, too. */
static bool uses(unsigned n, bool write)
{
	return n == CONSISTENT_READ || (write && (n == WRITE || n == RESIZE));
}

static bool denies(unsigned n)
{
	return n == WRITE || n == RESIZE;
}

int block_lock(int fd, bool write)
{
	int ret = 0;

	/* First the own ones: of two that come at once none gets in unseen. */
	for (unsigned n = 0; n < PERMISSIONS && !ret; n++) {
		if (uses(n, write))
			ret = lock_bytes(fd, F_RDLCK, USED + n, 1);
		if (!ret && denies(n))
			ret = lock_bytes(fd, F_RDLCK, DENIED + n, 1);
	}
	for (unsigned n = 0; n < PERMISSIONS && !ret; n++) {
		if (uses(n, write))
			ret = probe(fd, DENIED + n);
		if (!ret && denies(n))
			ret = probe(fd, USED + n);
	}
	if (ret)
		block_unlock(fd);
	return ret == -EACCES || ret == -EAGAIN ? -EBUSY : ret;
}

/* ---- who it is: such locks name nobody, but open files can be seen ------------------------ */

static bool has_open(const char *pid, const struct stat *file, int except)
{
	char path[300];
	struct dirent *e;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir))) {
		struct stat st;

		if (e->d_name[0] == '.' || (except >= 0 && strtol(e->d_name, NULL, 10) == except))
			continue;
		found = !fstatat(dirfd(dir), e->d_name, &st, 0) && st.st_ino == file->st_ino &&
			st.st_dev == file->st_dev;
	}
	if (dir)
		closedir(dir);
	return found;
}

static void name_of(const char *pid, char *buf, size_t len)
{
	char path[300], name[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (f) {
		if (!fgets(name, sizeof(name), f))
			name[0] = 0;
		fclose(f);
	}
	name[strcspn(name, "\n")] = 0;
	snprintf(buf, len, "process %s (%s)", pid, name);
}

void block_lock_holder(int fd, char *buf, size_t len)
{
	const long self = getpid();
	struct stat file;
	struct dirent *e;
	DIR *proc = opendir("/proc");
	bool found = false;

	snprintf(buf, len, "another process");
	if (fstat(fd, &file) && proc) {
		closedir(proc);
		return;
	}
	while (proc && !found && (e = readdir(proc))) {
		long pid = strtol(e->d_name, NULL, 10);

		if (pid <= 0 || !has_open(e->d_name, &file, pid == self ? fd : -1))
			continue;
		found = true;
		if (pid == self)
			snprintf(buf, len, "another disk of this machine");
		else
			name_of(e->d_name, buf, len);
	}
	if (proc)
		closedir(proc);
}
