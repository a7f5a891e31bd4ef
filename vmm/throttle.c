/* vCPUs that write faster than a migration carries wait, each for what it has written too much. */
#include <stdlib.h>

#include "migration/link.h"
#include "migration/thread.h"
#include "vmm/vm_internal.h"

static const uint64_t second = 1000000000;
enum { TICK_MS = 10, SETTLED = 8 /* ticks that the demand is averaged over */ };
/* Nobody waits for longer at once: guests look after their processors. */
static const uint64_t longest = 1000000000;

struct throttle {
	struct vm *vm;
	pthread_t thread;
	/* Under the machine's lock. */
	bool end;
	uint64_t pages; /* per second, of all */
	uint64_t last;	/* tick, CLOCK_MONOTONIC */
	struct {
		uint64_t dirtied;
		double demand; /* pages per second while it runs */
		uint64_t until;
	} vcpu[CPU_MAX];
};

uint64_t vm_throttled(const struct vm *vm, unsigned vcpu)
{
	const uint64_t until = vm->throttle ? vm->throttle->vcpu[vcpu].until : 0;

	return until && until > link_now() ? until : 0;
}

/* What each of those may write that want more than that: what the others leave. */
static double share(const struct throttle *t)
{
	double all = (double)t->pages, each = all / t->vm->vcpu_count;

	for (unsigned round = 0; round < t->vm->vcpu_count; round++) {
		double left = all;
		unsigned heavy = 0;

		for (unsigned i = 0; i < t->vm->vcpu_count; i++) {
			if (t->vcpu[i].demand > each)
				heavy++;
			else
				left -= t->vcpu[i].demand;
		}
		if (!heavy)
			break;
		each = left / heavy;
	}
	return each > 1 ? each : 1;
}

static void tick(struct throttle *t)
{
	const uint64_t now = link_now(), passed = now - t->last;
	uint64_t pages[CPU_MAX] = {0};
	double each;

	t->last = now;
	for (unsigned i = 0; i < t->vm->vcpu_count; i++) {
		const uint64_t dirtied = t->vm->engine_ops->dirtied(t->vm->engine, i);

		pages[i] = dirtied - t->vcpu[i].dirtied;
		t->vcpu[i].dirtied = dirtied;
		/* Of one that waits nothing is learnt. */
		if (passed && t->vcpu[i].until <= now - passed)
			t->vcpu[i].demand += ((double)pages[i] * (double)second / (double)passed -
					      t->vcpu[i].demand) /
					     SETTLED;
	}
	each = share(t);
	for (unsigned i = 0; i < t->vm->vcpu_count; i++) {
		const uint64_t cost = (uint64_t)((double)pages[i] * (double)second / each);
		const uint64_t from = t->vcpu[i].until > now ? t->vcpu[i].until : now;

		/* What it wrote in its time is free. */
		if (cost <= passed)
			continue;
		t->vcpu[i].until = from + cost - passed;
		if (t->vcpu[i].until > now + longest)
			t->vcpu[i].until = now + longest;
		t->vm->engine_ops->kick(t->vm->engine, i);
	}
}

static void *throttle_main(void *arg)
{
	struct throttle *t = arg;
	struct vm *vm = t->vm;

	pthread_setname_np(pthread_self(), "throttle");
	pthread_mutex_lock(&vm->lock);
	while (!t->end) {
		const uint64_t until = link_now() + TICK_MS * 1000000ull;
		const struct timespec time = {.tv_sec = (time_t)(until / second),
					      .tv_nsec = (long)(until % second)};

		while (!t->end && link_now() < until)
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
	t->pages = pages;
	t->last = link_now();
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		t->vcpu[i].dirtied = vm->engine_ops->dirtied(vm->engine, i);
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
	if (!t && pages && vm->engine_ops->dirtied)
		t = create(vm, pages);
	if (!t)
		return;
	pthread_mutex_lock(&vm->lock);
	t->pages = pages;
	t->end = !pages;
	vm->throttle = pages ? t : NULL;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	if (pages)
		return;
	pthread_join(t->thread, NULL);
	free(t);
}
