#include "vmm/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cleanup.h"
#include "vmm/config.h"

/* ---- the folder ------------------------------------------------------------------------- */

static int make_parents(char *path)
{
	for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		if (mkdir(path, 0700) && errno != EEXIST && errno != EROFS && errno != EACCES) {
			int code = -errno;

			*slash = '/';
			return code;
		}
		*slash = '/';
	}
	return 0;
}

/* Opens the folder at `path`, made if missing. private: it must be ours and closed to others. */
static int open_dir(struct runtime *runtime, const char *path, bool private, struct error *err)
{
	struct stat st;
	int code;

	runtime->path = strdup(path);
	if (!runtime->path)
		return error_set(err, -ENOMEM, "out of memory");
	code = private ? 0 : make_parents(runtime->path);
	if (!code && mkdir(path, 0700) && errno != EEXIST)
		code = -errno;
	runtime->dir_fd =
		code ? code
		     : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (private ? O_NOFOLLOW : 0));
	if (!code && runtime->dir_fd < 0)
		code = -errno;
	if (code) {
		error_set(err, code, "runtime folder %s: %s; set FERRY_RUNTIME_DIR to another one",
			  path, strerror(-code));
	} else if (faccessat(runtime->dir_fd, ".", W_OK | X_OK, AT_EACCESS)) {
		code = error_set(err, -errno,
				 "runtime folder %s: %s; set FERRY_RUNTIME_DIR to another one",
				 path, strerror(errno));
	} else if (private && (fstat(runtime->dir_fd, &st) || st.st_uid != geteuid())) {
		code = error_set(err, -EPERM,
				 "runtime folder %s belongs to user %u; set FERRY_RUNTIME_DIR",
				 path, (unsigned)st.st_uid);
	} else if (private && st.st_mode & 077) {
		code = error_set(err, -EPERM,
				 "runtime folder %s is open to others (mode %o); chmod 0700 it, or "
				 "set FERRY_RUNTIME_DIR",
				 path, (unsigned)st.st_mode & 07777);
	}
	if (code)
		runtime_close(runtime);
	return code;
}

int runtime_open(struct runtime *runtime, struct error *err)
{
	static const char *const private_parents[] = {"/run", "/tmp"};
	const char *dir = getenv("FERRY_RUNTIME_DIR"), *xdg = getenv("XDG_RUNTIME_DIR");
	char path[PATH_MAX];
	int code = -ENOENT;

	*runtime = (struct runtime){.dir_fd = -1};
	if (dir && *dir)
		return open_dir(runtime, dir, false, err);
	/* The specification says that a relative one is to be ignored. After su it is another
	 * user's. */
	if (xdg && *xdg == '/' && strlen(xdg) + sizeof("/ferry") < sizeof(path) &&
	    !access(xdg, W_OK)) {
		snprintf(path, sizeof(path), "%s/ferry", xdg);
		return open_dir(runtime, path, true, err);
	}
	for (unsigned i = 0; i < 2 && code; i++) {
		snprintf(path, sizeof(path), "%s/ferry-%u", private_parents[i],
			 (unsigned)geteuid());
		/* The one in /run counts where it can be made, or has been made for us. */
		if (i == 0 && access(path, F_OK) && access(private_parents[i], W_OK))
			continue;
		return open_dir(runtime, path, true, err);
	}
	return error_set(err, code, "no runtime folder; set FERRY_RUNTIME_DIR");
}

void runtime_close(struct runtime *runtime)
{
	if (runtime->dir_fd >= 0)
		close(runtime->dir_fd);
	free(runtime->path);
	*runtime = (struct runtime){.dir_fd = -1};
}

/* ---- names ------------------------------------------------------------------------------ */

static long read_pid(int fd)
{
	char text[32] = "", *end;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	long pid = n > 0 ? strtol(text, &end, 10) : 0;

	return n > 0 && pid > 0 && (*end == '\n' || !*end) ? pid : 0;
}

static void lock_name(char *buf, size_t len, const char *name)
{
	snprintf(buf, len, "%s.lock", name);
}

/* Files of this name but the lock: left by a machine that was killed. The lock is held. */
static void remove_others(int dir_fd, const char *name)
{
	static const char *const suffixes[] = {".sock", ".json", ".console"};
	char file[96];

	for (unsigned i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		snprintf(file, sizeof(file), "%s%s", name, suffixes[i]);
		unlinkat(dir_fd, file, 0);
	}
}

/* The lock file of `name`, locked by us; -EWOULDBLOCK: it is held (*holder), other -errno. */
static int lock(int dir_fd, const char *name, long *holder)
{
	char file[96];

	lock_name(file, sizeof(file), name);
	for (;;) {
		struct stat ours, there;
		int code, fd = openat(dir_fd, file,
				      O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			code = -errno;
			*holder = read_pid(fd);
			close(fd);
			return code;
		}
		/* The one before us may have removed it between our open and our lock. */
		if (!fstat(fd, &ours) && !fstatat(dir_fd, file, &there, AT_SYMLINK_NOFOLLOW) &&
		    ours.st_ino == there.st_ino && ours.st_dev == there.st_dev)
			return fd;
		close(fd);
	}
}

/* Every lock file that nobody holds: what killed machines have left. A machine that is just
 * starting may find its own file locked for that moment: see wait_for_sweeper(). */
static void sweep(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);
		char name[64];
		long holder;

		if (len < 6 || len - 5 >= sizeof(name) ||
		    strcmp(entry->d_name + len - 5, ".lock") != 0)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(len - 5), entry->d_name);
		if (config_check_name(name, NULL))
			continue;
		fd = lock(dir_fd, name, &holder);
		if (fd < 0)
			continue;
		(void)!ftruncate(fd, 0);
		remove_others(dir_fd, name);
		unlinkat(dir_fd, entry->d_name, 0);
		close(fd);
	}
	closedir(dir);
}

/* A lock without a living holder is another process's sweep, over in no time. */
static bool wait_for_sweeper(long holder, unsigned *turns)
{
	if ((holder && (!kill((pid_t)holder, 0) || errno != ESRCH)) || ++*turns > 100)
		return false;
	usleep(2000);
	return true;
}

static int claim_one(struct runtime_name *claim, const char *name, long *holder)
{
	char file[96], pid[32];
	unsigned turns = 0;
	int n, fd;

	do {
		*holder = 0;
		fd = lock(claim->dir_fd, name, holder);
	} while (fd == -EWOULDBLOCK && wait_for_sweeper(*holder, &turns));
	if (fd < 0)
		return fd;
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) || pwrite(fd, pid, (size_t)n, 0) != n) {
		int code = errno ? -errno : -EIO;

		lock_name(file, sizeof(file), name);
		unlinkat(claim->dir_fd, file, 0);
		close(fd);
		return code;
	}
	remove_others(claim->dir_fd, name);
	snprintf(claim->name, sizeof(claim->name), "%s", name);
	claim->lock_fd = fd;
	lock_name(file, sizeof(file), name);
	claim->cleanup = cleanup_add_file(claim->dir_fd, file);
	return 0;
}

int runtime_claim(struct runtime_name *claim, const struct runtime *runtime, const char *name,
		  struct error *err)
{
	char made[64];
	long holder = 0;
	int code;

	*claim = (struct runtime_name){.dir_fd = -1, .lock_fd = -1, .cleanup = -1};
	if (name && config_check_name(name, err))
		return -EINVAL;
	claim->dir_fd = fcntl(runtime->dir_fd, F_DUPFD_CLOEXEC, 3);
	if (claim->dir_fd < 0)
		return error_set(err, -errno, "%s: %s", runtime->path, strerror(errno));
	sweep(claim->dir_fd);
	if (name) {
		code = claim_one(claim, name, &holder);
	} else {
		code = -EWOULDBLOCK;
		/* Process ids of several containers that share the folder may be the same. */
		for (unsigned i = 0; i < 1000 && code == -EWOULDBLOCK; i++) {
			snprintf(made, sizeof(made), i ? "vm-%d-%u" : "vm-%d", (int)getpid(), i);
			code = claim_one(claim, made, &holder);
		}
		name = made;
	}
	if (!code)
		return 0;
	close(claim->dir_fd);
	claim->dir_fd = -1;
	if (code != -EWOULDBLOCK)
		return error_set(err, code, "%s/%s.lock: %s", runtime->path, name, strerror(-code));
	if (holder)
		return error_set(
			err, -EEXIST,
			"the name '%s' is taken by a running machine (process %ld); choose "
			"another --name, or end that one",
			name, holder);
	return error_set(
		err, -EEXIST,
		"the name '%s' is taken by a machine that is starting; choose another --name",
		name);
}

void runtime_release(struct runtime_name *claim)
{
	char file[96];

	if (claim->lock_fd < 0)
		return;
	remove_others(claim->dir_fd, claim->name);
	lock_name(file, sizeof(file), claim->name);
	unlinkat(claim->dir_fd, file, 0); /* before the lock goes: nobody else's is removed */
	cleanup_drop(claim->cleanup);
	close(claim->lock_fd);
	close(claim->dir_fd);
	claim->lock_fd = claim->dir_fd = -1;
}
