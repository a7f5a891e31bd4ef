#include "vmm/outgoing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/save.h"
#include "migration/thread.h"
#include "vmm/message.h"
#include "vmm/outgoing_internal.h"

/* ---- life ------------------------------------------------------------------------------- */

static void join(struct outgoing *o)
{
	if (o->started)
		pthread_join(o->thread, NULL);
	o->started = false;
}

void outgoing_free(struct outgoing *o)
{
	join(o);
	loop_work_cancel(o->vm->loop, &o->stays_work);
	loop_work_cancel(o->vm->loop, &o->over_work);
	if (o->live)
		outgoing_move_exit(o);
	close(o->wake_fd);
	outgoing_source_exit(o);
	o->vm->outgoing = NULL;
	free(o->path);
	free(o->spool);
	free(o);
}

/* The thread has nothing more to do: how it went. */
static void tell(struct outgoing *o)
{
	struct error err;

	if (o->told)
		return;
	o->told = true;
	error_set(&err, o->code, "%s", o->why.text);
	if (!o->code && o->live && o->move.state == SOURCE_SPOOLED)
		message("the guest is at %s now and lacks pages: they are in %s; there: ferry "
			"migrate-control complete FILE",
			o->path, o->spool);
	else if (!o->code)
		message("the guest is %s %s now", o->live ? "at" : "in", o->path);
	else if (o->live)
		message("the guest was not moved: %s", o->why.text);
	if (o->live)
		control_answer(o->request, 0, outgoing_summary(o), NULL);
	else
		control_answer(o->request, o->code, NULL, &err);
	o->request = NULL;
}

static void stays(void *arg)
{
	tell(arg);
}

void outgoing_stays(void *opaque, int code, const struct stream_error *why)
{
	struct outgoing *o = opaque;

	o->stays = true; /* from here on code and why are the loop's */
	o->code = code;
	o->why = *why;
	loop_work_post(o->vm->loop, &o->stays_work);
}

static void over(void *arg)
{
	struct outgoing *o = arg;
	struct vm *vm = o->vm;

	tell(o);
	if (!o->code)
		vm_moved(vm, !o->live);
	outgoing_free(o);
}

int outgoing_start(struct outgoing *o, void *(*fn)(void *arg), struct error *err)
{
	int ret;

	ret = thread_start(&o->thread, fn, o);
	o->started = !ret;
	return ret ? error_set(err, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

void outgoing_wake(struct outgoing *o)
{
	const uint64_t one = 1;

	(void)!write(o->wake_fd, &one, sizeof(one));
}

struct outgoing *outgoing_create(struct vm *vm, struct error *err)
{
	struct outgoing *o;

	/* One that only still tries to say that it is over has no part in this. */
	if (vm->outgoing && vm->outgoing->told) {
		outgoing_move_abandon(vm->outgoing);
		outgoing_free(vm->outgoing);
	}
	if (vm->outgoing || (vm->holds & VM_HOLD_MOVE)) {
		error_set(err, -EBUSY, "the machine is being moved already");
		return NULL;
	}
	if (vm->lacks[0]) {
		error_set(err, -EIO, "memory of the guest is lost: %s", vm->lacks);
		return NULL;
	}
	o = calloc(1, sizeof(*o));
	if (!o) {
		error_set(err, -ENOMEM, "no memory");
		return NULL;
	}
	o->vm = vm;
	o->stays_work = (struct loop_work){.fn = stays, .arg = o};
	o->over_work = (struct loop_work){.fn = over, .arg = o};
	o->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (o->wake_fd < 0) {
		error_set(err, -errno, "cannot make an eventfd: %s", strerror(errno));
		free(o);
		return NULL;
	}
	vm->outgoing = o;
	if (!outgoing_source_init(o, err))
		return o;
	outgoing_free(o);
	return NULL;
}

void outgoing_end(struct vm *vm)
{
	struct outgoing *o = vm->outgoing;

	if (!o)
		return;
	loop_call_end(&o->call);
	if (o->live)
		outgoing_move_abandon(o);
	/* In its last moments it may write a file, or learn who has the guest. */
	join(o);
	o->ended = o->live && o->code && !o->move.refused && !source_gone(&o->move) &&
		   !source_in_doubt(&o->move);
	if (o->ended)
		stream_fail(
			&o->why, NULL, o->code,
			"the machine has ended before the guest was given away, and with it the "
			"guest: it does not run there");
	tell(o);
	outgoing_free(o);
}

/* ---- into a file ------------------------------------------------------------------------ */

static int fill(void *opaque, int fd, struct stream_error *err)
{
	struct outgoing *o = opaque;
	int ret = migration_save(&o->source, fd, o->wake_fd, err), was = SAVE_OPEN;

	if (!ret && !atomic_compare_exchange_strong(&o->save, &was, SAVE_DONE))
		return stream_fail(err, NULL, -ECANCELED, "called off");
	return ret;
}

static void *save_main(void *arg)
{
	struct outgoing *o = arg;
	struct stream_error why;

	pthread_setname_np(pthread_self(), "save");
	o->code = outgoing_wait_memory(o, &o->why);
	if (!o->code)
		o->code = outgoing_file(o->path, fill, o, &o->why);
	if (o->code && o->source.ops->take_back(o, &why))
		message("the guest stands still: %s", why.text);
	loop_work_post(o->vm->loop, &o->over_work);
	return NULL;
}

int outgoing_save(struct vm *vm, const char *path, struct control_request *request,
		  struct error *err)
{
	struct outgoing *o;
	int ret = outgoing_file_check(path, err);

	if (ret)
		return ret;
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
