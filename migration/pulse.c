#include "migration/pulse.h"

#include "migration/clock.h"
#include "migration/thread.h"

enum { BEATS = 120, BEAT_MS = 500 };

static void *pulse_main(void *arg)
{
	struct pulse *p = arg;
	struct timespec time;
	uint64_t until;

	pthread_mutex_lock(&p->lock);
	until = clock_now();
	for (unsigned i = 0; i < BEATS && !p->stop; i++) {
		until += BEAT_MS * 1000000;
		time = clock_timespec(until);
		while (!p->stop && !pthread_cond_timedwait(&p->changed, &p->lock, &time))
			;
		if (p->stop)
			break;
		pthread_mutex_unlock(&p->lock);
		(void)link_alive(p->link);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void pulse_start(struct pulse *p, struct link *link)
{
	pthread_condattr_t attr;

	*p = (struct pulse){.link = link};
	if (!link)
		return;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &attr);
	pthread_condattr_destroy(&attr);
	/* Without it, it may take us for dead. */
	p->started = !thread_start(&p->thread, pulse_main, p);
}

void pulse_stop(struct pulse *p)
{
	if (!p->link)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (p->started)
		pthread_join(p->thread, NULL);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	*p = (struct pulse){0};
}
