#include "vmm/outgoing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "migration/save.h"
#include "vmm/cleanup.h"
#include "vmm/message.h"
#include "vmm/outgoing_internal.h"
#include "vmm/unix_socket.h"

uint64_t outgoing_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- life ------------------------------------------------------------------------------- */

void outgoing_free(struct outgoing *o)
{
	if (o->started)
		pthread_join(o->thread, NULL);
	loop_work_cancel(o->vm->loop, &o->over_work);
	if (o->live)
		outgoing_move_exit(o);
	outgoing_source_exit(o);
	o->vm->outgoing = NULL;
	free(o->path);
	free(o);
}

/* The thread has nothing more to do. */
static void over(void *arg)
{
	struct outgoing *o = arg;
	struct vm *vm = o->vm;
	struct error err;

	error_set(&err, o->code, "%s", o->why.text);
	if (!o->code)
		message("the guest is %s %s now", o->live ? "at" : "in", o->path);
	else if (o->live)
		message("the guest was not moved: %s", o->why.text);
	if (o->live)
		control_answer(o->request, 0, outgoing_summary(o), NULL);
	else
		control_answer(o->request, o->code, NULL, &err);
	o->request = NULL;
	if (!o->code)
		vm_moved(vm);
	outgoing_free(o);
}

int outgoing_start(struct outgoing *o, void *(*fn)(void *arg), struct error *err)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	cleanup_allow_crashes(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ret = -pthread_create(&o->thread, NULL, fn, o);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	o->started = !ret;
	return ret ? error_set(err, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

struct outgoing *outgoing_create(struct vm *vm, struct error *err)
{
	struct outgoing *o;

	if (vm->outgoing || (vm->holds & VM_HOLD_MOVE)) {
		error_set(err, -EBUSY, "the machine is being moved already");
		return NULL;
	}
	o = calloc(1, sizeof(*o));
	if (!o) {
		error_set(err, -ENOMEM, "no memory");
		return NULL;
	}
	o->vm = vm;
	o->over_work = (struct loop_work){.fn = over, .arg = o};
	vm->outgoing = o;
	if (!outgoing_source_init(o, err))
		return o;
	outgoing_free(o);
	return NULL;
}

void outgoing_end(struct vm *vm)
{
	struct outgoing *o = vm->outgoing;
	const struct error err = {"the machine has ended"};

	if (!o)
		return;
	loop_call_end(&o->call);
	if (o->live)
		outgoing_move_abandon(o);
	if (o->request)
		control_answer(o->request, -ECANCELED, NULL, &err);
	outgoing_free(o);
}

/* ---- into a file ------------------------------------------------------------------------ */

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
	return fsync(dir) && errno != EINVAL ? -errno : 0;
}

static int save_in(struct outgoing *o, int dir, const char *name)
{
	char temporary[256];
	int fd = open_nameless(dir, name, temporary, sizeof(temporary));
	int ret;

	if (fd < 0)
		return stream_fail(&o->why, NULL, fd, "%s", strerror(-fd));
	ret = migration_save(&o->source, fd, &o->why);
	if (!ret) {
		ret = give_name(dir, fd, name, temporary, sizeof(temporary));
		if (ret)
			stream_fail(&o->why, NULL, ret, "%s", strerror(-ret));
	}
	if (*temporary)
		unlinkat(dir, temporary, 0);
	close(fd);
	return ret;
}

static void *save_main(void *arg)
{
	struct outgoing *o = arg;
	struct error err = {""};
	struct stream_error why;
	const char *name;
	int dir = path_open_dir(o->path, &name, &err), fd;

	pthread_setname_np(pthread_self(), "save");
	if (dir < 0) {
		o->code = stream_fail(&o->why, NULL, dir, "%s", err.text);
	} else {
		/* An O_PATH descriptor is no folder to be flushed. */
		fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		o->code = fd < 0 ? stream_fail(&o->why, NULL, -errno, "%s", strerror(errno))
				 : outgoing_wait_memory(o, &o->why);
		if (!o->code)
			o->code = save_in(o, fd, name);
		if (fd >= 0)
			close(fd);
		close(dir);
	}
	if (o->code && o->source.ops->take_back(o, &why))
		message("the guest stands still: %s", why.text);
	loop_work_post(o->vm->loop, &o->over_work);
	return NULL;
}

int outgoing_save(struct vm *vm, const char *path, struct control_request *request,
		  struct error *err)
{
	struct outgoing *o;
	struct stat st;
	int ret;

	if (path[0] != '/')
		return error_set(err, -EINVAL, "a file's path begins at the root");
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return error_set(err, -EEXIST, "%s is there and is no file", path);
	o = outgoing_create(vm, err);
	if (!o)
		return -EBUSY;
	o->request = request;
	o->path = strdup(path);
	ret = o->path ? outgoing_start(o, save_main, err) : error_set(err, -ENOMEM, "no memory");
	if (ret)
		outgoing_free(o);
	return ret;
}
