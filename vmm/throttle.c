/* vCPUs that write faster than a migration carries wait, each for what it has written too much. */
#include <stdlib.h>

#include "migration/clock.h"
#include "migration/thread.h"
#include "vmm/throttle_plan.h"
#include "vmm/vm_internal.h"

enum { TICK_MS = 10 };

struct throttle {
	struct vm *vm;
	pthread_t thread;
	/* Under the machine's lock. */
	bool end;
	struct throttle_plan plan;
};

uint64_t vm_throttled(const struct vm *vm, unsigned vcpu)
{
	const uint64_t until = vm->throttle ? vm->throttle->plan.vcpu[vcpu].until : 0;

	return until && until > clock_now() ? until : 0;
}

static uint64_t dirty_rate(void *opaque, unsigned vcpu, struct s2_dirty_rate *state, uint64_t now)
{
	struct vm *vm = opaque;

	return vm->engine_ops->dirty_rate(vm->engine, vcpu, state, now);
}

static void tick(struct throttle *t)
{
	const uint64_t told = throttle_plan_tick(&t->plan, clock_now());

	for (unsigned i = 0; i < t->vm->vcpu_count; i++)
		if (told >> i & 1)
			t->vm->engine_ops->kick(t->vm->engine, i);
}

static void *throttle_main(void *arg)
{
	struct throttle *t = arg;
	struct vm *vm = t->vm;

	pthread_setname_np(pthread_self(), "throttle");
	pthread_mutex_lock(&vm->lock);
	while (!t->end) {
		const uint64_t until = clock_now() + TICK_MS * 1000000ull;
		const struct timespec time = clock_timespec(until);

		while (!t->end && clock_now() < until)
			pthread_cond_clockwait(&vm->changed, &vm->lock, CLOCK_MONOTONIC, &time);
		if (!t->end && !vm->quit)
			tick(t);
	}
	pthread_mutex_unlock(&vm->lock);
	return NULL;
}

static struct throttle *create(struct vm *vm, uint64_t pages)
{
	struct throttle *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return NULL;
	t->vm = vm;
	t->plan = (struct throttle_plan){
		.count = vm->vcpu_count, .pages = pages, .dirty_rate = dirty_rate, .opaque = vm};
	throttle_plan_begin(&t->plan, clock_now());
	ret = thread_start(&t->thread, throttle_main, t);
	if (!ret)
		return t;
	free(t);
	return NULL;
}

void vm_throttle(struct vm *vm, uint64_t pages)
{
	struct throttle *t = vm->throttle;

	/* Without the memory for it they write as they like. */
	if (!t && pages && vm->engine_ops->dirty_rate)
		t = create(vm, pages);
	if (!t)
		return;
	pthread_mutex_lock(&vm->lock);
	t->plan.pages = pages;
	t->end = !pages;
	vm->throttle = pages ? t : NULL;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	if (pages)
		return;
	pthread_join(t->thread, NULL);
	free(t);
}
