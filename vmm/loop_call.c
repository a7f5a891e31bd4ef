#include "vmm/loop_call.h"

#include <errno.h>

static void called(void *arg)
{
	struct loop_call *c = arg;

	c->fn(c->arg);
}

void loop_call_init(struct loop_call *c, struct loop *loop)
{
	*c = (struct loop_call){.loop = loop, .work = {.fn = called, .arg = c}};
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
}

void loop_call_exit(struct loop_call *c)
{
	loop_work_cancel(c->loop, &c->work);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
}

int loop_call(struct loop_call *c, void (*fn)(void *arg), void *arg)
{
	int ret;

	pthread_mutex_lock(&c->lock);
	c->done = false;
	if (!c->ended) {
		c->fn = fn;
		c->arg = arg;
		loop_work_post(c->loop, &c->work);
	}
	while (!c->done && !c->ended)
		pthread_cond_wait(&c->changed, &c->lock);
	ret = c->done ? c->result : -ECANCELED;
	pthread_mutex_unlock(&c->lock);
	return ret;
}

void loop_call_answer(struct loop_call *c, int result)
{
	pthread_mutex_lock(&c->lock);
	c->result = result;
	c->done = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

void loop_call_end(struct loop_call *c)
{
	pthread_mutex_lock(&c->lock);
	c->ended = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}
