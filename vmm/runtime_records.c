/* What a detached machine leaves in the runtime folder: its logs, and how it ended. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmm/exit_codes.h"
#include "vmm/json_util.h"
#include "vmm/runtime.h"

static const char *const lines[] = {"serial0", "serial1", "serial2", "serial3", "console0"};

static void end_name(char *buf, size_t len, const char *name)
{
	snprintf(buf, len, "%s.end", name);
}

void runtime_log_name(char *buf, size_t len, const char *name, const char *line)
{
	/* '+' is in no machine's name: the log of one is not taken for another's. */
	snprintf(buf, len, "%s%s%s.log", name, line ? "+" : "", line ? line : "");
}

static void remove_log(int dir_fd, const char *name, const char *line)
{
	char file[128], old[sizeof(file) + 4];

	runtime_log_name(file, sizeof(file), name, line);
	snprintf(old, sizeof(old), "%s.1", file);
	unlinkat(dir_fd, file, 0);
	unlinkat(dir_fd, old, 0);
}

void runtime_remove_records(int dir_fd, const char *name)
{
	char file[128];

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		remove_log(dir_fd, name, lines[i]);
	remove_log(dir_fd, name, NULL);
	end_name(file, sizeof(file), name);
	unlinkat(dir_fd, file, 0);
}

int runtime_end_write(int dir_fd, const char *name, const struct runtime_end *end)
{
	json_t *value = json_pack("{s:I, s:i, s:o, s:I}", "pid", (json_int_t)end->pid, "exit-code",
				  end->exit_code, "reason", json_text(end->reason), "time",
				  (json_int_t)end->time);
	char file[128], temporary[128];
	int fd, code = 0;

	if (!value)
		return -ENOMEM;
	end_name(file, sizeof(file), name);
	snprintf(temporary, sizeof(temporary), "%s+end", name);
	unlinkat(dir_fd, temporary, 0);
	fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || json_dumpfd(value, fd, 0) || renameat(dir_fd, temporary, dir_fd, file))
		code = errno ? -errno : -EIO;
	if (fd >= 0)
		close(fd);
	if (code)
		unlinkat(dir_fd, temporary, 0);
	json_decref(value);
	return code;
}

int runtime_end_read(int dir_fd, const char *name, struct runtime_end *end)
{
	char file[128];
	json_int_t pid, seconds;
	const char *reason;
	json_t *value;
	int fd, ret;

	end_name(file, sizeof(file), name);
	fd = openat(dir_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	value = json_loadfd(fd, 0, NULL);
	close(fd);
	ret = value ? json_unpack(value, "{s:I, s:i, s:s, s:I}", "pid", &pid, "exit-code",
				  &end->exit_code, "reason", &reason, "time", &seconds)
		    : -1;
	if (!ret) {
		end->pid = (long)pid;
		end->time = seconds;
		snprintf(end->reason, sizeof(end->reason), "%s", reason);
	}
	json_decref(value);
	return ret ? -EINVAL : 0;
}

bool runtime_has_end(int dir_fd, const char *name)
{
	char file[128];

	end_name(file, sizeof(file), name);
	return !faccessat(dir_fd, file, F_OK, AT_SYMLINK_NOFOLLOW);
}

void runtime_record_lost(int dir_fd, const char *name, long pid)
{
	struct runtime_end end = {.pid = pid,
				  .exit_code = EXIT_LOST,
				  .reason = "its process ended without saying how: killed, or "
					    "crashed",
				  .time = time(NULL)};
	char file[128];

	runtime_log_name(file, sizeof(file), name, NULL);
	if (faccessat(dir_fd, file, F_OK, AT_SYMLINK_NOFOLLOW))
		return; /* not a detached one */
	if (!runtime_has_end(dir_fd, name))
		runtime_end_write(dir_fd, name, &end);
}

/* ---- expiry ----------------------------------------------------------------------------- */

struct aged {
	time_t mtime;
	const char *name;
};

static int newest_first(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;

	return x->mtime == y->mtime ? strcmp(x->name, y->name) : x->mtime < y->mtime ? 1 : -1;
}

void runtime_expire(int dir_fd, char (*ended)[RUNTIME_NAME_MAX], unsigned count,
		    void (*remove)(int dir_fd, const char *name))
{
	struct aged *list = calloc(count ? count : 1, sizeof(*list));
	const time_t now = time(NULL);
	unsigned n = 0;

	for (unsigned i = 0; list && i < count; i++) {
		char file[128];
		struct stat st;

		end_name(file, sizeof(file), ended[i]);
		if (!fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW))
			list[n++] = (struct aged){st.st_mtime, ended[i]};
	}
	if (list)
		qsort(list, n, sizeof(*list), newest_first);
	for (unsigned i = 0; i < n; i++) {
		if (i >= RUNTIME_KEEP_COUNT || list[i].mtime + RUNTIME_KEEP_SECONDS < now)
			remove(dir_fd, list[i].name);
	}
	free(list);
}
