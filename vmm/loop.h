/*
 * The event loop of one virtual machine: file descriptors, work from other threads, signals, guest
 * time and its timers, all on one thread (the main thread, which calls loop_run).
 *
 * Threads: functions marked "any thread" never block and may be called with a device's lock held;
 * callbacks run on the loop's thread with no lock held. Everything else belongs to the loop's
 * thread, or to whoever owns the loop while it does not run.
 */
#ifndef VMM_LOOP_H
#define VMM_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "devices/device.h"
#include "vmm/error.h"

struct loop;

/* Guest time starts paused at 0: loop_clock_resume() starts it. */
int loop_create(struct loop **out, struct error *err);
/* Frees; work that is still queued never runs; the signal mask is as before loop_create. NULL is
 * fine. */
void loop_destroy(struct loop *loop);

/* Runs callbacks until loop_stop(); returns its code. May be called again afterwards. */
int loop_run(struct loop *loop);
/* Any thread: loop_run returns `code` after the callbacks that are due now. The first call counts.
 */
void loop_stop(struct loop *loop, int code);

/* ---- work ------------------------------------------------------------------------------- */

/* A piece of work that lives in its owner: posting never fails, posting twice runs it once. Before
 * its memory goes, loop_work_cancel() it (loop's thread). */
struct loop_work {
	void (*fn)(void *arg);
	void *arg;
	struct loop_work *next; /* the loop's */
	bool queued, owned;	/* the loop's */
};
void loop_work_post(struct loop *loop, struct loop_work *work); /* any thread */
void loop_work_cancel(struct loop *loop, struct loop_work *work);
/* Any thread: runs fn(arg) once on the loop's thread. 0 or -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* The same, for devices (devices/device.h). */
const struct work_source *loop_works(struct loop *loop);

/* ---- file descriptors --------------------------------------------------------------------------
 */

/* events: EPOLLIN, EPOLLOUT, EPOLLET...; fn gets those that happened (EPOLLHUP and EPOLLERR
 * unasked). The caller keeps the descriptor and closes it after loop_fd_del(). -EPERM: a regular
 * file, always ready. */
struct loop_fd;
int loop_fd_add(struct loop *loop, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
		void *arg, struct loop_fd **out);
int loop_fd_mod(struct loop_fd *entry, uint32_t events);
/* From a callback too: fn is not called again. NULL is fine. */
void loop_fd_del(struct loop_fd *entry);

/* The same, for back ends (devices/device.h). */
const struct watch_source *loop_watches(struct loop *loop);

/* ---- signals -----------------------------------------------------------------------------------
 */

/* Blocks the signal in this thread (call before other threads are made: they inherit the mask) and
 * calls fn(arg, signo) on the loop's thread; of several functions for one signal the last added is
 * called first. */
int loop_signal_add(struct loop *loop, int signo, void (*fn)(void *arg, int signo), void *arg);
void loop_signal_del(struct loop *loop, void (*fn)(void *arg, int signo), void *arg);
/* What the signals of a terminal and a user do: SIGINT, SIGTERM, SIGHUP and SIGQUIT stop the loop
 * with code 128 + number; SIGTSTP stops the process, and guest time with it until SIGCONT. */
int loop_stop_on_signals(struct loop *loop);

/* ---- guest time ------------------------------------------------------------------------- */

/* Nanoseconds on CLOCK_MONOTONIC that stand still while paused; `now` from any thread. */
const struct clock_source *loop_clock(struct loop *loop);
/* Timers on it; `set` from any thread, create and destroy on the loop's thread. None fires while
 * the clock is paused; those overdue fire at once afterwards. */
const struct timer_source *loop_timers(struct loop *loop);
/* Idempotent. After pause returns, `now` is frozen for every thread. */
void loop_clock_pause(struct loop *loop);
void loop_clock_resume(struct loop *loop);
bool loop_clock_paused(struct loop *loop);
/* Sets guest time, for a guest that was brought from elsewhere; paused only. Timers keep their
 * deadlines. */
void loop_clock_set(struct loop *loop, uint64_t now_ns);

#endif
