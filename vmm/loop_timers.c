#include "migration/clock.h"
#include "vmm/loop_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NOT_ARMED UINT32_MAX

struct vtimer {
	struct guest_timers *timers;
	void (*fn)(void *arg);
	void *arg;
	const char *name;
	uint64_t deadline;
	unsigned index; /* in the heap */
};

/* ---- the clock ----------------------------------------------------------------------------------
 */

uint64_t guest_clock_now(struct guest_clock *clock)
{
	for (;;) {
		uint32_t seq = atomic_load_explicit(&clock->seq, memory_order_acquire);
		uint64_t base = atomic_load_explicit(&clock->base, memory_order_acquire);
		bool paused = atomic_load_explicit(&clock->paused, memory_order_acquire);
		uint64_t now = paused ? base : clock_now() - base;

		/* Checked after reading the time: a value from before a pause must not be handed
		 * out after it as one from the time since. */
		if (!(seq & 1) && seq == atomic_load_explicit(&clock->seq, memory_order_acquire))
			return now;
	}
}

/* The new value is computed while readers spin: time read before a pause is never later than the
 * frozen. */
void guest_clock_pause(struct guest_clock *clock, bool pause)
{
	if (atomic_load(&clock->paused) == pause)
		return;
	atomic_fetch_add(&clock->seq, 1);
	atomic_store(&clock->base, clock_now() - atomic_load(&clock->base));
	atomic_store(&clock->paused, pause);
	atomic_fetch_add(&clock->seq, 1);
}

void guest_clock_set(struct guest_clock *clock, uint64_t now)
{
	atomic_fetch_add(&clock->seq, 1);
	atomic_store(&clock->base, atomic_load(&clock->paused) ? now : clock_now() - now);
	atomic_fetch_add(&clock->seq, 1);
}

static uint64_t source_now(void *opaque)
{
	return guest_clock_now(opaque);
}

static int64_t clock_wall(void *opaque)
{
	(void)opaque;
	return time(NULL);
}

void guest_clock_init(struct guest_clock *clock)
{
	atomic_store(&clock->paused, true);
	clock->source = (struct clock_source){source_now, clock_wall, clock};
}

/* ---- the heap --------------------------------------------------------------------------- */

static void heap_put(struct guest_timers *timers, unsigned at, struct vtimer *timer)
{
	timers->heap[at] = timer;
	timer->index = at;
}

static void heap_up(struct guest_timers *timers, unsigned at)
{
	struct vtimer *timer = timers->heap[at];

	while (at && timers->heap[(at - 1) / 2]->deadline > timer->deadline) {
		heap_put(timers, at, timers->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_put(timers, at, timer);
}

static void heap_down(struct guest_timers *timers, unsigned at)
{
	struct vtimer *timer = timers->heap[at];

	for (;;) {
		unsigned child = 2 * at + 1;

		if (child + 1 < timers->armed &&
		    timers->heap[child + 1]->deadline < timers->heap[child]->deadline)
			child++;
		if (child >= timers->armed || timers->heap[child]->deadline >= timer->deadline)
			break;
		heap_put(timers, at, timers->heap[child]);
		at = child;
	}
	heap_put(timers, at, timer);
}

static void heap_insert(struct guest_timers *timers, struct vtimer *timer)
{
	timer->index = timers->armed;
	timers->heap[timers->armed++] = timer;
	heap_up(timers, timer->index);
}

static void heap_remove(struct guest_timers *timers, struct vtimer *timer)
{
	unsigned at = timer->index;
	struct vtimer *last = timers->heap[--timers->armed];

	timer->index = NOT_ARMED;
	if (last == timer)
		return;
	heap_put(timers, at, last);
	heap_up(timers, at);
	heap_down(timers, last->index);
}

/* ---- timers ----------------------------------------------------------------------------- */

/* Sets the timerfd to the earliest deadline. A timer that moves later leaves it alone: the loop
 * then wakes once too early, which is cheaper than a system call for each of a guest's timer
 * writes. */
static void set_fd(struct guest_timers *timers, bool force)
{
	uint64_t deadline = timers->armed ? timers->heap[0]->deadline : 0;
	struct itimerspec spec = {0};

	if (atomic_load(&timers->clock->paused))
		deadline = 0;
	if (!force && (!deadline || (timers->fd_deadline && timers->fd_deadline <= deadline)))
		return;
	timers->fd_deadline = deadline;
	if (deadline) {
		/* Guest time to host time; far deadlines wrap around: a wrong sum is in the past.
		 */
		uint64_t base = atomic_load(&timers->clock->base), host = base + deadline;

		if (deadline > INT64_MAX / 2)
			host = INT64_MAX / 2;
		else if ((int64_t)host <= 0)
			host = 1;
		spec.it_value.tv_sec = (time_t)(host / 1000000000u);
		spec.it_value.tv_nsec = (long)(host % 1000000000u);
	}
	timerfd_settime(timers->fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void timer_set(struct vtimer *timer, uint64_t deadline)
{
	struct guest_timers *timers = timer->timers;

	pthread_mutex_lock(&timers->lock);
	if (timer->index != NOT_ARMED)
		heap_remove(timers, timer);
	timer->deadline = deadline;
	if (deadline) {
		heap_insert(timers, timer);
		set_fd(timers, false);
	}
	pthread_mutex_unlock(&timers->lock);
}

static struct vtimer *timer_create_fn(void *opaque, void (*fn)(void *arg), void *arg,
				      const char *name)
{
	struct guest_timers *timers = opaque;
	struct vtimer *timer = calloc(1, sizeof(*timer));

	if (!timer)
		return NULL;
	*timer = (struct vtimer){timers, fn, arg, name, 0, NOT_ARMED};
	pthread_mutex_lock(&timers->lock);
	/* There is room for every timer from the start, so that arming one can't fail. */
	if (timers->created == timers->cap) {
		unsigned cap = timers->cap ? 2 * timers->cap : 16;
		struct vtimer **heap = realloc(timers->heap, cap * sizeof(struct vtimer *));

		if (!heap) {
			pthread_mutex_unlock(&timers->lock);
			free(timer);
			return NULL;
		}
		timers->heap = heap;
		timers->cap = cap;
	}
	timers->created++;
	pthread_mutex_unlock(&timers->lock);
	return timer;
}

static void timer_destroy(struct vtimer *timer)
{
	if (!timer)
		return;
	timer_set(timer, 0);
	pthread_mutex_lock(&timer->timers->lock);
	timer->timers->created--;
	pthread_mutex_unlock(&timer->timers->lock);
	free(timer);
}

void guest_timers_run(struct guest_timers *timers)
{
	uint64_t ticks, now;
	unsigned budget;

	if (read(timers->fd, &ticks, sizeof(ticks)) < 0 && errno == EAGAIN)
		return; /* set anew in the meantime */
	pthread_mutex_lock(&timers->lock);
	timers->fd_deadline = 0;
	now = guest_clock_now(timers->clock);
	/* A timer that arms itself for the past gets its turn in the next round, after the others.
	 */
	budget = timers->armed;
	while (budget-- && timers->armed && timers->heap[0]->deadline <= now &&
	       !atomic_load(&timers->clock->paused)) {
		struct vtimer *timer = timers->heap[0];
		void (*fn)(void *) = timer->fn;
		void *arg = timer->arg;

		heap_remove(timers, timer);
		pthread_mutex_unlock(&timers->lock);
		fn(arg); /* may destroy the timer */
		pthread_mutex_lock(&timers->lock);
	}
	set_fd(timers, false);
	pthread_mutex_unlock(&timers->lock);
}

void guest_timers_rearm(struct guest_timers *timers)
{
	pthread_mutex_lock(&timers->lock);
	set_fd(timers, true);
	pthread_mutex_unlock(&timers->lock);
}

int guest_timers_init(struct guest_timers *timers, struct guest_clock *clock)
{
	timers->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (timers->fd < 0)
		return -errno;
	pthread_mutex_init(&timers->lock, NULL);
	timers->clock = clock;
	timers->source = (struct timer_source){timer_create_fn, timer_set, timer_destroy, timers};
	return 0;
}

void guest_timers_free(struct guest_timers *timers)
{
	if (timers->fd < 0)
		return;
	pthread_mutex_destroy(&timers->lock);
	close(timers->fd);
	free(timers->heap);
}
