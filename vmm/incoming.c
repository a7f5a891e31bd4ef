#include "vmm/incoming.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/thread.h"
#include "vmm/incoming_internal.h"
#include "vmm/message.h"

/* ---- pages that come after the guest ---------------------------------------------------- */

static void over(void *arg)
{
	struct incoming *in = arg;

	if (in->code == -ECANCELED)
		return;
	if (in->code)
		message("%s: %s; %s", in->how->from, in->why.text,
			in->file.filled ? "the guest goes on, but it can neither be reset nor moved"
					: "a guest that needs it will wait for ever, and it can "
					  "neither be saved nor moved");
	if (!in->file.filled) {
		snprintf(in->vm->lacks, sizeof(in->vm->lacks), "%.255s", in->why.text);
		return;
	}
	in->vm->image = in->arrival.image;
	in->arrival.image = NULL;
	in->code = incoming_complete(in, &in->why);
	if (in->code)
		message("%s: %s", in->how->from, in->why.text);
	else if (vm_reset_waits(in->vm))
		vm_reset_go_on(in->vm);
}

/* The thread only brings; what is done when all is here is the loop's. */
static int nothing(void *opaque, struct stream_error *err)
{
	(void)opaque;
	(void)err;
	return 0;
}

static void *fill_main(void *arg)
{
	struct incoming *in = arg;

	pthread_setname_np(pthread_self(), "restore");
	in->code = migration_file_fill(&in->file, in->wake_fd, &in->why);
	loop_work_post(in->vm->loop, &in->over_work);
	return NULL;
}

static int start_filling(struct incoming *in, struct stream_error *err)
{
	int ret;

	in->over_work = (struct loop_work){.fn = over, .arg = in};
	ret = thread_start(&in->thread, fill_main, in);
	in->started = !ret;
	return ret ? stream_fail(err, NULL, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

static int restore_begin(struct vm_arrival *arrival, struct vm *vm, struct error *err)
{
	struct incoming *in = incoming_of(arrival);
	struct stream_error why;
	int ret;

	in->vm = vm;
	ret = incoming_check(in, &in->file.arrival.memory, err);
	if (ret)
		return ret;
	ret = in->how->eager ? migration_file_load(&in->file, &why)
			     : migration_file_load_state(&in->file, &why);
	if (!ret && !in->how->eager)
		ret = start_filling(in, &why);
	if (!ret)
		ret = incoming_sink.start(in, NULL, &why);
	return ret ? error_set(err, ret, "%s: %s", in->how->from, why.text) : 0;
}

static void restore_finish(struct vm_arrival *arrival)
{
	struct incoming *in = incoming_of(arrival);
	const uint64_t one = 1;

	if (in->started) {
		(void)!write(in->wake_fd, &one, sizeof(one));
		pthread_join(in->thread, NULL);
		loop_work_cancel(in->vm->loop, &in->over_work);
	}
	incoming_missing_exit(in);
	incoming_image_exit(in);
}

int vm_restore(const struct incoming_config *how, const struct vm_observer *observer,
	       struct vm_result *result, struct error *err)
{
	struct incoming *in = malloc(sizeof(*in));
	struct stream_error why;
	struct migration_sink_ops sink = incoming_sink;
	int fd = open(how->from, O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0 || !in) {
		ret = error_set(err, fd < 0 ? -errno : -ENOMEM, "%s: %s", how->from,
				fd < 0 ? strerror(errno) : "no memory");
		free(in);
		if (fd >= 0)
			close(fd);
		return ret;
	}
	incoming_init(in, how);
	in->fresh = true;
	in->arrival.begin = restore_begin;
	in->arrival.finish = restore_finish;
	sink.complete = nothing;
	in->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = migration_file_open(&in->file, fd, !how->eager, &sink, in, &why);
	if (ret)
		error_set(err, ret, "%s: %s", how->from, why.text);
	else
		ret = vm_run_arrival(&in->config, &in->arrival, observer, result, err);
	close(in->wake_fd);
	migration_file_close(&in->file);
	incoming_exit(in);
	free(in);
	close(fd);
	return ret;
}
