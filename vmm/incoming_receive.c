/* A machine that another ferry sends: the loop's thread builds it and runs it, a thread of the
 * migration's own fills it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/thread.h"
#include "vmm/exit_codes.h"
#include "vmm/incoming_internal.h"
#include "vmm/message.h"

static const uint64_t patience = 300000000000; /* for a source that may have said RUN; ns */
static const uint64_t farewell = 5000000000;   /* for one that does not know that it ran here; ns */

struct incoming *incoming_of(struct vm_arrival *arrival)
{
	return (struct incoming *)((char *)arrival - offsetof(struct incoming, arrival));
}

/* ---- the sink's calls, on the loop's thread --------------------------------------------- */

struct load {
	struct incoming *in;
	const void *state;
	size_t len;
	const struct stream_run *run;
	struct stream_error *err;
	uint64_t since;
};

static void load_now(void *arg)
{
	struct load *l = arg;

	loop_call_answer(&l->in->call, incoming_sink.load(l->in, l->state, l->len, l->err));
}

static int call_load(void *opaque, const void *state, size_t len, struct stream_error *err)
{
	struct incoming *in = opaque;
	struct load load = {.in = in, .state = state, .len = len, .err = err};
	int ret = loop_call(&in->call, load_now, &load);

	return ret == -ECANCELED ? stream_fail(err, NULL, ret, "called off") : ret;
}

/* Guest time has run on since the source spoke. */
static void start_now(void *arg)
{
	struct load *l = arg;
	struct stream_run run = *l->run;

	if (!(l->in->vm->holds & VM_HOLD_USER))
		run.guest += clock_now() - l->since;
	loop_call_answer(&l->in->call, incoming_sink.start(l->in, &run, l->err));
}

static int call_start(void *opaque, const struct stream_run *run, struct stream_error *err)
{
	struct incoming *in = opaque;
	struct load load = {.in = in, .run = run, .err = err, .since = clock_now()};
	int ret = loop_call(&in->call, start_now, &load);

	return ret == -ECANCELED ? stream_fail(err, NULL, ret, "called off") : ret;
}

/* ---- pages that come after the start ---- */

struct miss {
	struct incoming *in;
	uint64_t first, pages;
	const uint64_t *bitmap;
	struct stream_error *err;
};

static void miss_now(void *arg)
{
	struct miss *m = arg;

	loop_call_answer(&m->in->call,
			 incoming_sink.miss(m->in, m->first, m->pages, m->bitmap, m->err));
}

static int call_miss(void *opaque, uint64_t first, uint64_t pages, const uint64_t *bitmap,
		     struct stream_error *err)
{
	struct incoming *in = opaque;
	struct miss miss = {.in = in, .first = first, .pages = pages, .bitmap = bitmap, .err = err};
	int ret = loop_call(&in->call, miss_now, &miss);

	return ret == -ECANCELED ? stream_fail(err, NULL, ret, "called off") : ret;
}

/* A reset that came meanwhile has waited for it. */
static void complete_now(void *arg)
{
	struct miss *m = arg;
	int ret = incoming_sink.complete(m->in, m->err);

	if (!ret && vm_reset_waits(m->in->vm))
		vm_reset_go_on(m->in->vm);
	loop_call_answer(&m->in->call, ret);
}

static int call_complete(void *opaque, struct stream_error *err)
{
	struct incoming *in = opaque;
	struct miss miss = {.in = in, .err = err};
	int ret = loop_call(&in->call, complete_now, &miss);

	return ret == -ECANCELED ? stream_fail(err, NULL, ret, "called off") : ret;
}

/* ---- the thread ------------------------------------------------------------------------- */

static void over(void *arg)
{
	struct incoming *in = arg;
	struct vm *vm = in->vm;

	if (in->code) {
		error_set(&vm->engine_error, in->code, "the guest did not come: %s", in->why.text);
		vm_absent(vm);
	} else if (!vm->config->quiet) {
		message("the guest has come and runs here");
	}
}

static void *receive_main(void *arg)
{
	struct incoming *in = arg;

	pthread_setname_np(pthread_self(), "migration");
	in->code = destination_run(&in->from, &in->why);
	door_close(in->from.door);
	in->from.door = NULL;
	loop_work_post(in->vm->loop, &in->over_work);
	return NULL;
}

static int receive_begin(struct vm_arrival *arrival, struct vm *vm, struct error *err)
{
	struct incoming *in = incoming_of(arrival);
	int ret;

	in->vm = vm;
	ret = incoming_check(in, &in->from.arrival.memory, err);
	if (ret)
		return ret;
	loop_call_init(&in->call, vm->loop);
	in->over_work = (struct loop_work){.fn = over, .arg = in};
	ret = thread_start(&in->thread, receive_main, in);
	in->started = !ret;
	return ret ? error_set(err, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

static void receive_finish(struct vm_arrival *arrival)
{
	struct incoming *in = incoming_of(arrival);
	const uint64_t one = 1;

	if (!in->started) {
		incoming_image_exit(in);
		return;
	}
	loop_call_end(&in->call);
	(void)!write(in->wake_fd, &one, sizeof(one));
	pthread_join(in->thread, NULL);
	incoming_image_exit(in);
	loop_work_cancel(in->vm->loop, &in->over_work);
	incoming_complete_exit(in);
	loop_call_exit(&in->call);
	incoming_missing_exit(in);
	in->started = false;
}

/* ---- before there is a machine ---------------------------------------------------------- */

static void ending_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

/* Signals end the waiting. They are blocked already, and stay so for the machine's loop: what comes
 * between the two is not lost, and kills nobody. 0 with *signo: ended by that. */
static int wait_for_source(struct incoming *in, uint32_t *signo, struct error *err)
{
	struct migration_sink_ops *sink = &in->sink;
	struct stream_error why;
	struct signalfd_siginfo info;
	sigset_t ends;
	int ret, fd;

	*signo = 0;
	ending_signals(&ends);
	fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
	in->from.wake_fd = fd;
	*sink = incoming_sink;
	sink->load = call_load;
	sink->start = call_start;
	sink->miss = call_miss;
	sink->complete = call_complete;
	ret = destination_begin(&in->from, sink, in, &why);
	if (ret == -ECANCELED && fd >= 0 && read(fd, &info, sizeof(info)) == sizeof(info)) {
		*signo = info.ssi_signo;
		ret = 0;
	} else if (ret) {
		error_set(err, ret, "the guest did not come: %s", why.text);
	}
	close(fd);
	in->from.wake_fd = in->wake_fd;
	if (in->from.link)
		in->from.link->wake_fd = in->wake_fd;
	if (in->from.lane)
		in->from.lane->wake_fd = in->wake_fd;
	return ret;
}

static int receive(struct incoming *in, const struct vm_observer *observer,
		   struct vm_result *result, struct error *err)
{
	uint32_t signo;
	int ret = wait_for_source(in, &signo, err);

	if (signo) {
		*result = (struct vm_result){.end = VM_END_STOPPED, .code = EXIT_SIGNAL + signo};
	} else if (!ret) {
		destination_build(&in->from);
		ret = vm_run_arrival(&in->config, &in->arrival, observer, result, err);
		if (ret)
			destination_refuse(&in->from, err->text);
	}
	destination_end(&in->from);
	return ret;
}

/* Of one that listens, whatever it comes to: in the background a record tells. */
static void say_end(struct incoming *in, const struct vm_result *result, int ret,
		    const struct error *err)
{
	struct runtime_end end;

	if (ret) {
		end.exit_code = EXIT_START;
		snprintf(end.reason, sizeof(end.reason), "%.*s", (int)sizeof(end.reason) - 1,
			 err->text);
	} else {
		end.exit_code = exit_code_of(result);
		exit_reason(result, end.reason, sizeof(end.reason));
	}
	presence_end(&in->presence, &end);
}

/* Nothing of it is the guest's business, but its user wonders. */
static void turned_away(void *opaque, const char *why)
{
	(void)opaque;
	message("somebody was turned away: %s", why);
}

int vm_receive(const struct incoming_config *how, const struct vm_observer *observer,
	       struct vm_result *result, struct error *err)
{
	struct incoming *in = malloc(sizeof(*in));
	const struct timespec now = {0};
	struct stream_error why;
	sigset_t ends, old;
	struct tls *tls;
	int ret;

	if (!in)
		return error_set(err, -ENOMEM, "no memory");
	ret = tls_config_load(&how->tls, TLS_SERVER, how->from, &tls, err);
	if (ret) {
		free(in);
		return ret;
	}
	incoming_init(in, how);
	in->arrival.begin = receive_begin;
	in->arrival.finish = receive_finish;
	in->arrival.complete = incoming_complete_from;
	in->arrival.presence = &in->presence;
	in->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	in->from = (struct destination){.ferry = FERRY_VERSION,
					.arch = "x86_64",
					.patience = patience,
					.farewell = farewell};
	ending_signals(&ends);
	pthread_sigmask(SIG_BLOCK, &ends, &old);
	/* Seen from now on, under its name or one that it has for so long. */
	ret = presence_begin(&in->presence, how->name, how->pidfile, how->detach, err);
	if (!ret) {
		ret = door_open(&in->from.door, how->from, how->insecure || tls, tls, &why);
		if (ret)
			error_set(err, ret, "%s", why.text);
	}
	if (!ret) {
		presence_waits(&in->presence, door_address(in->from.door));
		if (!how->quiet)
			message("waiting for a guest at %s", door_address(in->from.door));
		door_watch(in->from.door, turned_away, in);
		observer->listening(observer->opaque, door_address(in->from.door));
		ret = receive(in, observer, result, err);
		say_end(in, result, ret, err);
	}
	door_close(in->from.door);
	presence_end(&in->presence, NULL);
	tls_free(tls);
	close(in->wake_fd);
	incoming_exit(in);
	free(in);
	while (sigtimedwait(&ends, NULL, &now) > 0)
		; /* it ends already */
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}
