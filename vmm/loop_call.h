/*
 * Another thread calls the loop's and waits for its answer, which may come later than the function
 * returns. One call at a time.
 */
#ifndef VMM_LOOP_CALL_H
#define VMM_LOOP_CALL_H

#include <pthread.h>

#include "vmm/loop.h"

struct loop_call {
	struct loop *loop;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct loop_work work;
	void (*fn)(void *arg);
	void *arg;
	bool done, ended;
	int result;
};

void loop_call_init(struct loop_call *c, struct loop *loop);
/* The loop's thread; nobody calls any more. */
void loop_call_exit(struct loop_call *c);
/* Runs fn(arg) on the loop's thread, and returns what loop_call_answer() is given, there or from
 * what follows; -ECANCELED after loop_call_end(): a call that begins then runs nothing. */
int loop_call(struct loop_call *c, void (*fn)(void *arg), void *arg);
void loop_call_answer(struct loop_call *c, int result);
/* Whoever waits is let go, now and from now on: the loop does not run any more. */
void loop_call_end(struct loop_call *c);

#endif
