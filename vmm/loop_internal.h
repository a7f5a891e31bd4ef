/* What loop.c, loop_timers.c and loop_signals.c share. */
#ifndef VMM_LOOP_INTERNAL_H
#define VMM_LOOP_INTERNAL_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "vmm/loop.h"

/* Guest time = CLOCK_MONOTONIC - base while running, = base while paused; guarded by a sequence
 * count, so that reading it takes no lock. */
struct guest_clock {
	_Atomic uint32_t seq; /* odd: being changed */
	_Atomic uint64_t base;
	_Atomic bool paused;
	struct clock_source source;
};

struct guest_timers {
	pthread_mutex_t lock;
	struct vtimer **heap; /* armed ones, the earliest first */
	unsigned armed, created, cap;
	uint64_t fd_deadline; /* what the timerfd is set to; 0: nothing */
	int fd;
	struct guest_clock *clock;
	struct timer_source source;
};

void guest_clock_init(struct guest_clock *clock);
uint64_t guest_clock_now(struct guest_clock *clock);
void guest_clock_pause(struct guest_clock *clock, bool pause); /* false: goes on */
void guest_clock_set(struct guest_clock *clock, uint64_t now);

int guest_timers_init(struct guest_timers *timers, struct guest_clock *clock);
void guest_timers_free(struct guest_timers *timers);
/* Runs those that are due; sets the timerfd to the next. */
void guest_timers_run(struct guest_timers *timers);
/* The clock was changed: set the timerfd anew. */
void guest_timers_rearm(struct guest_timers *timers);

struct loop_signals {
	int fd;
	struct signal_handler *handlers; /* the last added first */
	sigset_t handled, old_mask;
};
int loop_signals_init(struct loop_signals *signals);
void loop_signals_free(struct loop_signals *signals); /* fd -1 is fine */
void loop_signals_run(struct loop_signals *signals);
int loop_signals_add(struct loop_signals *signals, int signo, void (*fn)(void *arg, int signo),
		     void *arg);
void loop_signals_del(struct loop_signals *signals, void (*fn)(void *arg, int signo), void *arg);

#endif
