/*
 * A side that is at work for long (it builds the machine, waits for its disks) and cannot look
 * after its connection says ALIVE meanwhile, from a thread of its own: a peer that is silent is
 * dead. For a minute: who takes longer is dead, too.
 */
#ifndef MIGRATION_PULSE_H
#define MIGRATION_PULSE_H

#include <pthread.h>

#include "migration/link.h"

struct pulse {
	struct link *link;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop, started;
};

/* Nobody else touches the link (NULL is fine) until pulse_stop(). */
void pulse_start(struct pulse *p, struct link *link);
/* One that was not started (all zero) is fine. */
void pulse_stop(struct pulse *p);

#endif
