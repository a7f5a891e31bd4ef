#include "vmm/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/loop_internal.h"

struct loop_fd {
	struct loop *loop;
	int fd;
	void (*fn)(void *arg, uint32_t events); /* NULL: deleted, freed after this round */
	void *arg;
	struct loop_fd *next;
};

struct loop {
	int epoll_fd, wake_fd;
	_Atomic bool stopped;
	_Atomic int code;

	pthread_mutex_t work_lock;
	struct loop_work *work, **work_tail;

	struct loop_fd *own[3];
	struct loop_fd *deleted; /* callbacks of this round may still point at them */

	struct loop_signals signals;
	bool job_stopped; /* guest time was paused by SIGTSTP */

	struct guest_clock clock;
	struct guest_timers timers;
	struct work_source works;
	struct watch_source watches;
};

/* ---- work ------------------------------------------------------------------------------- */

static void wake(struct loop *loop)
{
	uint64_t one = 1;

	/* Can only fail when the counter is full, and then the loop is awake. */
	if (write(loop->wake_fd, &one, sizeof(one)) < 0)
		return;
}

void loop_work_post(struct loop *loop, struct loop_work *work)
{
	bool first;

	pthread_mutex_lock(&loop->work_lock);
	if (work->queued) {
		pthread_mutex_unlock(&loop->work_lock);
		return;
	}
	first = !loop->work;
	work->queued = true;
	work->next = NULL;
	*loop->work_tail = work;
	loop->work_tail = &work->next;
	pthread_mutex_unlock(&loop->work_lock);
	if (first)
		wake(loop);
}

void loop_work_cancel(struct loop *loop, struct loop_work *work)
{
	struct loop_work **at;

	pthread_mutex_lock(&loop->work_lock);
	for (at = &loop->work; *at; at = &(*at)->next) {
		if (*at != work)
			continue;
		*at = work->next;
		if (!*at)
			loop->work_tail = at;
		work->queued = false;
		break;
	}
	pthread_mutex_unlock(&loop->work_lock);
}

int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct loop_work *work = calloc(1, sizeof(*work));

	if (!work)
		return -ENOMEM;
	*work = (struct loop_work){.fn = fn, .arg = arg, .owned = true};
	loop_work_post(loop, work);
	return 0;
}

/* What a device has of a piece of work. */
struct work {
	struct loop_work work;
	struct loop *loop;
};

static struct work *device_work_create(void *opaque, void (*fn)(void *arg), void *arg)
{
	struct work *work = calloc(1, sizeof(*work));

	if (work)
		*work = (struct work){.work = {.fn = fn, .arg = arg}, .loop = opaque};
	return work;
}

static void device_work_post(struct work *work)
{
	loop_work_post(work->loop, &work->work);
}

static void device_work_destroy(struct work *work)
{
	if (work)
		loop_work_cancel(work->loop, &work->work);
	free(work);
}

const struct work_source *loop_works(struct loop *loop)
{
	return &loop->works;
}

static struct loop_work *take_work(struct loop *loop)
{
	struct loop_work *work;

	pthread_mutex_lock(&loop->work_lock);
	work = loop->work;
	if (work) {
		loop->work = work->next;
		if (!loop->work)
			loop->work_tail = &loop->work;
		work->queued = false;
	}
	pthread_mutex_unlock(&loop->work_lock);
	return work;
}

static unsigned count_work(struct loop *loop)
{
	unsigned n = 0;

	pthread_mutex_lock(&loop->work_lock);
	for (struct loop_work *work = loop->work; work; work = work->next)
		n++;
	pthread_mutex_unlock(&loop->work_lock);
	return n;
}

static void run_work(void *arg, uint32_t events)
{
	struct loop *loop = arg;
	unsigned budget;
	uint64_t ticks;

	(void)events;
	if (read(loop->wake_fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
		return;
	/* What is posted from now on waits for the next round, so that descriptors get their turn.
	 */
	budget = count_work(loop);
	while (budget--) {
		struct loop_work *work = take_work(loop);
		void (*fn)(void *);
		void *fn_arg;

		if (!work)
			return;
		fn = work->fn;
		fn_arg = work->arg;
		if (work->owned)
			free(work);
		fn(fn_arg);
	}
	pthread_mutex_lock(&loop->work_lock);
	if (loop->work)
		wake(loop);
	pthread_mutex_unlock(&loop->work_lock);
}

/* ---- file descriptors --------------------------------------------------------------------------
 */

int loop_fd_add(struct loop *loop, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
		void *arg, struct loop_fd **out)
{
	struct loop_fd *entry = calloc(1, sizeof(*entry));
	struct epoll_event event = {.events = events, .data.ptr = entry};

	if (!entry)
		return -ENOMEM;
	*entry = (struct loop_fd){.loop = loop, .fd = fd, .fn = fn, .arg = arg};
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		int code = -errno;

		free(entry);
		return code;
	}
	*out = entry;
	return 0;
}

int loop_fd_mod(struct loop_fd *entry, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = entry};

	return epoll_ctl(entry->loop->epoll_fd, EPOLL_CTL_MOD, entry->fd, &event) < 0 ? -errno : 0;
}

void loop_fd_del(struct loop_fd *entry)
{
	if (!entry)
		return;
	epoll_ctl(entry->loop->epoll_fd, EPOLL_CTL_DEL, entry->fd, NULL);
	entry->fn = NULL;
	entry->next = entry->loop->deleted;
	entry->loop->deleted = entry;
}

/* What a back end has of it. */
static int watch_add(void *opaque, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
		     void *arg, struct watch **out)
{
	return loop_fd_add(opaque, fd, events, fn, arg, (struct loop_fd **)out);
}

static int watch_mod(struct watch *watch, uint32_t events)
{
	return loop_fd_mod((struct loop_fd *)watch, events);
}

static void watch_del(struct watch *watch)
{
	loop_fd_del((struct loop_fd *)watch);
}

const struct watch_source *loop_watches(struct loop *loop)
{
	return &loop->watches;
}

static void free_deleted(struct loop *loop)
{
	while (loop->deleted) {
		struct loop_fd *entry = loop->deleted;

		loop->deleted = entry->next;
		free(entry);
	}
}

/* ---- signals --------------------------------------------------------------------------------- */

int loop_signal_add(struct loop *loop, int signo, void (*fn)(void *arg, int signo), void *arg)
{
	return loop_signals_add(&loop->signals, signo, fn, arg);
}

void loop_signal_del(struct loop *loop, void (*fn)(void *arg, int signo), void *arg)
{
	loop_signals_del(&loop->signals, fn, arg);
}

static void stop_on_signal(void *arg, int signo)
{
	loop_stop(arg, 128 + signo);
}

/* The guest of a stopped process would find that its clock has jumped. */
static void job_control(void *arg, int signo)
{
	struct loop *loop = arg;

	if (signo == SIGTSTP) {
		loop->job_stopped = !loop_clock_paused(loop);
		loop_clock_pause(loop);
		kill(getpid(), SIGSTOP);
	} else if (loop->job_stopped) {
		loop->job_stopped = false;
		loop_clock_resume(loop);
	}
}

int loop_stop_on_signals(struct loop *loop)
{
	static const struct {
		int signo;
		void (*fn)(void *arg, int signo);
	} rows[] = {{SIGINT, stop_on_signal},  {SIGTERM, stop_on_signal}, {SIGHUP, stop_on_signal},
		    {SIGQUIT, stop_on_signal}, {SIGTSTP, job_control},	  {SIGCONT, job_control}};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int code = loop_signal_add(loop, rows[i].signo, rows[i].fn, loop);

		if (code)
			return code;
	}
	return 0;
}

/* ---- guest time ------------------------------------------------------------------------- */

const struct clock_source *loop_clock(struct loop *loop)
{
	return &loop->clock.source;
}

const struct timer_source *loop_timers(struct loop *loop)
{
	return &loop->timers.source;
}

void loop_clock_pause(struct loop *loop)
{
	guest_clock_pause(&loop->clock, true);
	guest_timers_rearm(&loop->timers);
}

void loop_clock_resume(struct loop *loop)
{
	guest_clock_pause(&loop->clock, false);
	guest_timers_rearm(&loop->timers);
}

bool loop_clock_paused(struct loop *loop)
{
	return atomic_load(&loop->clock.paused);
}

void loop_clock_set(struct loop *loop, uint64_t now_ns)
{
	guest_clock_set(&loop->clock, now_ns);
	guest_timers_rearm(&loop->timers);
}

static void run_timers(void *arg, uint32_t events)
{
	(void)events;
	guest_timers_run(arg);
}

static void run_signals(void *arg, uint32_t events)
{
	(void)events;
	loop_signals_run(arg);
}

/* ---- the loop --------------------------------------------------------------------------- */

void loop_stop(struct loop *loop, int code)
{
	int none = INT32_MIN;

	atomic_compare_exchange_strong(&loop->code, &none, code);
	atomic_store(&loop->stopped, true);
	wake(loop);
}

int loop_run(struct loop *loop)
{
	struct epoll_event events[32];
	int code;

	while (!atomic_load(&loop->stopped)) {
		int n = epoll_wait(loop->epoll_fd, events, 32, -1);

		for (int i = 0; i < n; i++) {
			struct loop_fd *entry = events[i].data.ptr;

			if (entry->fn)
				entry->fn(entry->arg, events[i].events);
		}
		free_deleted(loop);
	}
	code = atomic_exchange(&loop->code, INT32_MIN);
	atomic_store(&loop->stopped, false);
	return code;
}

static int add_own_fds(struct loop *loop)
{
	int code;

	loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop->wake_fd < 0)
		return -errno;
	code = loop_fd_add(loop, loop->wake_fd, EPOLLIN, run_work, loop, &loop->own[0]);
	if (!code)
		code = loop_fd_add(loop, loop->signals.fd, EPOLLIN, run_signals, &loop->signals,
				   &loop->own[1]);
	if (!code)
		code = loop_fd_add(loop, loop->timers.fd, EPOLLIN, run_timers, &loop->timers,
				   &loop->own[2]);
	return code;
}

void loop_destroy(struct loop *loop)
{
	struct loop_work *work;

	if (!loop)
		return;
	while ((work = take_work(loop))) {
		if (work->owned)
			free(work);
	}
	for (unsigned i = 0; i < sizeof(loop->own) / sizeof(loop->own[0]); i++)
		loop_fd_del(loop->own[i]);
	free_deleted(loop);
	guest_timers_free(&loop->timers);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	pthread_mutex_destroy(&loop->work_lock);
	loop_signals_free(&loop->signals);
	free(loop);
}

int loop_create(struct loop **out, struct error *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int code;

	if (!loop)
		return error_set(err, -ENOMEM, "event loop: out of memory");
	loop->wake_fd = loop->signals.fd = loop->timers.fd = -1;
	loop->work_tail = &loop->work;
	atomic_store(&loop->code, INT32_MIN);
	pthread_mutex_init(&loop->work_lock, NULL);
	guest_clock_init(&loop->clock);
	loop->works = (struct work_source){device_work_create, device_work_post,
					   device_work_destroy, loop};
	loop->watches = (struct watch_source){watch_add, watch_mod, watch_del, loop};
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	code = loop->epoll_fd < 0 ? -errno : guest_timers_init(&loop->timers, &loop->clock);
	if (!code)
		code = loop_signals_init(&loop->signals);
	if (!code)
		code = add_own_fds(loop);
	if (code) {
		loop_destroy(loop);
		return error_set(err, code, "event loop: %s", strerror(-code));
	}
	*out = loop;
	return 0;
}
