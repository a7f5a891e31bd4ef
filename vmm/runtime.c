#include "vmm/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
