/* Who has which name of the runtime folder, and cleaning up behind those that cannot any more. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cleanup.h"
#include "vmm/config.h"
#include "vmm/runtime.h"

static long read_pid(int fd)
{
	char text[32] = "", *end;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	long pid = n > 0 ? strtol(text, &end, 10) : 0;

	return n > 0 && pid > 0 && (*end == '\n' || !*end) ? pid : 0;
}

/* The second line. */
static void read_note(int fd, char *note, size_t len)
{
	char text[192] = "", *from, *to;

	*note = 0;
	if (pread(fd, text, sizeof(text) - 1, 0) <= 0 || !(from = strchr(text, '\n')))
		return;
	to = strchr(++from, '\n');
	if (to)
		snprintf(note, len, "%.*s", (int)(to - from), from);
}

static void lock_name(char *buf, size_t len, const char *name)
{
	snprintf(buf, len, "%s.lock", name);
}

/* Files of this name but the lock: left by a machine that was killed. The lock is held. */
static void remove_others(int dir_fd, const char *name)
{
	static const char *const suffixes[] = {".sock"};
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

/* Takes the name for a moment, if nobody has it, and removes what is left of it. A machine that is
 * just starting may find its own file locked for that moment: see wait_for_sweeper(). */
static bool clean(int dir_fd, const char *name, bool records)
{
	char file[96];
	long holder;
	int fd = lock(dir_fd, name, &holder);

	if (fd < 0)
		return false;
	holder = read_pid(fd);
	(void)!ftruncate(fd, 0);
	if (records)
		runtime_remove_records(dir_fd, name);
	else
		runtime_record_lost(dir_fd, name, holder);
	remove_others(dir_fd, name);
	lock_name(file, sizeof(file), name);
	unlinkat(dir_fd, file, 0); /* the last: until then the next sweep finds it */
	close(fd);
	return true;
}

static void expire(int dir_fd, const char *name)
{
	clean(dir_fd, name, true);
}

/* The names of all files with this ending; *out is the caller's to free. */
static unsigned collect(int dir_fd, const char *suffix, char (**out)[RUNTIME_NAME_MAX])
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const size_t tail = strlen(suffix);
	unsigned count = 0, room = 0;
	struct dirent *entry;

	*out = NULL;
	if (!dir && fd >= 0)
		close(fd);
	while (dir && (entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);

		if (len <= tail || len - tail >= RUNTIME_NAME_MAX ||
		    strcmp(entry->d_name + len - tail, suffix) != 0)
			continue;
		if (count == room) {
			void *more = realloc(*out, (room = room ? 2 * room : 16) * sizeof(**out));

			if (!more)
				break;
			*out = more;
		}
		memset((*out)[count], 0, RUNTIME_NAME_MAX);
		memcpy((*out)[count], entry->d_name, len - tail);
		if (!config_check_name((*out)[count], NULL))
			count++;
	}
	if (dir)
		closedir(dir);
	return count;
}

/* One in the background that has crashed has removed its lock itself, and its logs are left. */
static void sweep_crashed(int dir_fd)
{
	char(*logs)[RUNTIME_NAME_MAX];
	const unsigned count = collect(dir_fd, ".log", &logs);

	for (unsigned i = 0; i < count; i++) {
		if (!runtime_has_end(dir_fd, logs[i]))
			clean(dir_fd, logs[i], false);
	}
	free(logs);
}

/* Cleans up behind every machine that was killed. The names that are held are moved to the front of
 * *running; how many. */
static unsigned sweep(int dir_fd, char (**running)[RUNTIME_NAME_MAX])
{
	unsigned count = collect(dir_fd, ".lock", running), held = 0;

	for (unsigned i = 0; i < count; i++) {
		if (clean(dir_fd, (*running)[i], false))
			continue;
		memmove((*running)[held++], (*running)[i], RUNTIME_NAME_MAX);
	}
	sweep_crashed(dir_fd);
	return held;
}

static unsigned sweep_ended(int dir_fd, char (**ended)[RUNTIME_NAME_MAX])
{
	unsigned count = collect(dir_fd, ".end", ended);

	runtime_expire(dir_fd, *ended, count, expire);
	return count;
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
	runtime_remove_records(claim->dir_fd, name);
	snprintf(claim->name, sizeof(claim->name), "%s", name);
	claim->lock_fd = fd;
	lock_name(file, sizeof(file), name);
	claim->cleanup = cleanup_add_file(claim->dir_fd, file);
	return 0;
}

int runtime_claim(struct runtime_name *claim, const struct runtime *runtime, const char *name,
		  struct error *err)
{
	char made[RUNTIME_NAME_MAX], (*list)[RUNTIME_NAME_MAX];
	long holder = 0;
	int code;

	*claim = (struct runtime_name){.dir_fd = -1, .lock_fd = -1, .cleanup = -1};
	if (name && config_check_name(name, err))
		return -EINVAL;
	claim->dir_fd = fcntl(runtime->dir_fd, F_DUPFD_CLOEXEC, 3);
	if (claim->dir_fd < 0)
		return error_set(err, -errno, "%s: %s", runtime->path, strerror(errno));
	sweep(claim->dir_fd, &list);
	free(list);
	sweep_ended(claim->dir_fd, &list);
	free(list);
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

void runtime_release(struct runtime_name *claim, bool keep)
{
	char file[96];

	if (claim->lock_fd < 0)
		return;
	remove_others(claim->dir_fd, claim->name);
	if (!keep)
		runtime_remove_records(claim->dir_fd, claim->name);
	lock_name(file, sizeof(file), claim->name);
	unlinkat(claim->dir_fd, file, 0); /* before the lock goes: nobody else's is removed */
	cleanup_drop(claim->cleanup);
	close(claim->lock_fd);
	close(claim->dir_fd);
	claim->lock_fd = claim->dir_fd = -1;
}

int runtime_note(const struct runtime_name *claim, const char *text)
{
	char line[192];
	int n = snprintf(line, sizeof(line), "%d\n%.120s\n", (int)getpid(), text);

	if (pwrite(claim->lock_fd, line, (size_t)n, 0) != n || ftruncate(claim->lock_fd, n))
		return -EIO;
	return 0;
}

/* ---- what is there ---------------------------------------------------------------------- */

long runtime_note_read(const struct runtime *runtime, const char *name, char *note, size_t len)
{
	char file[96];
	long pid = 0;
	int fd;

	if (config_check_name(name, NULL))
		return 0;
	lock_name(file, sizeof(file), name);
	fd = openat(runtime->dir_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return 0;
	/* Shared, so that two who ask are not in each other's way. */
	if (flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK)
		pid = read_pid(fd);
	if (note)
		read_note(fd, note, len);
	close(fd);
	return pid;
}

long runtime_holder(const struct runtime *runtime, const char *name)
{
	return runtime_note_read(runtime, name, NULL, 0);
}

static int by_name(const void *a, const void *b)
{
	const struct runtime_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int runtime_list(const struct runtime *runtime, struct runtime_entry **out, struct error *err)
{
	char(*running)[RUNTIME_NAME_MAX], (*ended)[RUNTIME_NAME_MAX];
	const unsigned held = sweep(runtime->dir_fd, &running);
	const unsigned gone = sweep_ended(runtime->dir_fd, &ended);
	struct runtime_entry *list = calloc(held + gone + 1, sizeof(*list));
	struct runtime_end end;
	unsigned n = 0;

	for (unsigned i = 0; list && i < held; i++) {
		list[n].pid =
			runtime_note_read(runtime, running[i], list[n].note, sizeof(list[n].note));
		memcpy(list[n].name, running[i], RUNTIME_NAME_MAX);
		n += list[n].pid != 0;
	}
	for (unsigned i = 0; list && i < gone; i++) {
		/* Not if it has just expired, or the name was taken again. */
		if (runtime_holder(runtime, ended[i]) ||
		    runtime_end_read(runtime->dir_fd, ended[i], &end))
			continue;
		memcpy(list[n].name, ended[i], RUNTIME_NAME_MAX);
		list[n++].pid = 0;
	}
	free(running);
	free(ended);
	if (!list)
		return error_set(err, -ENOMEM, "out of memory");
	qsort(list, n, sizeof(*list), by_name);
	*out = list;
	return (int)n;
}
