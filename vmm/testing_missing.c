#include "vmm/testing_missing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "migration/clock.h"
#include "vmm/message.h"
#include "vmm/testing.h"
#include "vmm/vm_internal.h"

enum { PAGE = 4096, RUBBISH = 0xa5, TICK_MS = 2 };

struct testing_missing {
	struct vm *vm;
	pthread_t thread;
	struct s2_thread *s2;
	uint8_t *aside;	 /* by hpa */
	uint64_t pages;	 /* of RAM */
	uint64_t batch;	 /* pages that come unasked in a tick */
	bool deaf;	 /* nothing comes because it was asked for */
	uint64_t twice;	 /* asked for more than once */
	uint8_t *wanted; /* by page of RAM */
	struct loop_work work;

	pthread_mutex_t mutex;
	pthread_cond_t changed;
	uint64_t *demand; /* gpas, `pages` of them: each is asked for once */
	uint64_t demands, served;
	bool stop;
	bool told; /* the loop's thread's */
};

static uint64_t gpa_of(const struct guest_memory *mem, uint64_t hpa)
{
	return hpa < mem->low ? hpa : hpa - mem->low + (UINT64_C(4) << 30);
}

static uint64_t hpa_of(const struct guest_memory *mem, uint64_t gpa)
{
	return gpa < mem->low ? gpa : gpa - (UINT64_C(4) << 30) + mem->low;
}

static void request(void *opaque, struct s2_thread *t, uint64_t gpa)
{
	struct testing_missing *m = opaque;
	uint64_t page = hpa_of(&m->vm->memory, gpa) / PAGE;

	(void)t;
	pthread_mutex_lock(&m->mutex);
	if (m->wanted[page]++ || m->demands == m->pages)
		m->twice++;
	else
		m->demand[m->demands++] = gpa;
	pthread_cond_signal(&m->changed);
	pthread_mutex_unlock(&m->mutex);
}

static void bring(struct testing_missing *m, uint64_t gpa)
{
	struct guest_memory *mem = &m->vm->memory;

	memory_bring(mem, m->s2, gpa, m->aside + hpa_of(mem, gpa), PAGE);
}

/* A tick, or a demand: which is served. There are no ticks any more when the guest has ended. */
static bool wait_tick(struct testing_missing *m, uint64_t until, uint64_t *gpa)
{
	const struct timespec time = clock_timespec(until);
	bool demand;

	pthread_mutex_lock(&m->mutex);
	while ((m->deaf || m->served == m->demands) && !m->stop) {
		if (pthread_cond_timedwait(&m->changed, &m->mutex, &time) == ETIMEDOUT)
			break;
	}
	demand = !m->deaf && m->served < m->demands;
	if (demand)
		*gpa = m->demand[m->served++];
	pthread_mutex_unlock(&m->mutex);
	return demand;
}

static void *feed(void *arg)
{
	struct testing_missing *m = arg;
	/* Every page once: a step that has no divisor in common with a power of two. */
	uint64_t mask = 1, next, step = (uint64_t)random() << 1 | 1, sent = 0, gpa = 0;
	uint64_t until;

	while (mask < m->pages)
		mask *= 2;
	mask--;
	next = (uint64_t)random() & mask;
	until = clock_now();
	while (sent <= mask) {
		until += TICK_MS * 1000000;
		while (wait_tick(m, until, &gpa))
			bring(m, gpa);
		for (uint64_t i = 0; i < m->batch && sent <= mask; sent++) {
			next = (next + step) & mask;
			if (next >= m->pages)
				continue;
			bring(m, gpa_of(&m->vm->memory, next * PAGE));
			i++;
		}
	}
	loop_work_post(m->vm->loop, &m->work);
	return NULL;
}

static void all_here(void *arg)
{
	struct testing_missing *m = arg;
	struct s2_missing_stats stats;
	int ret;

	m->told = true;
	s2_missing_stats(m->vm->memory.vmm, &stats);
	ret = memory_missing_stop(&m->vm->memory);
	if (ret)
		message("missing pages: cannot end: %s", strerror(-ret));
	else
		message("missing pages: %llu have come, %llu were asked for (%llu twice), %llu "
			"waits, "
			"%llu came again",
			(unsigned long long)stats.received, (unsigned long long)stats.requested,
			(unsigned long long)m->twice, (unsigned long long)stats.waits,
			(unsigned long long)stats.dropped);
}

static void put_aside(struct testing_missing *m)
{
	static const uint8_t zero[PAGE];
	struct guest_memory *mem = &m->vm->memory;

	for (uint64_t at = 0; at < mem->size; at += PAGE)
		if (memcmp(mem->host + at, zero, PAGE) != 0)
			memcpy(m->aside + at, mem->host + at, PAGE);
	memset(mem->host, RUBBISH, mem->size);
	if (mem->written)
		mem->written(mem->written_opaque, 0, mem->size);
}

static int start(struct testing_missing *m)
{
	struct guest_memory *mem = &m->vm->memory;
	const struct s2_missing_ops ops = {.opaque = m, .request = request};
	int ret;

	m->wanted = calloc(m->pages, sizeof(*m->wanted));
	m->demand = calloc(m->pages, sizeof(*m->demand));
	m->aside = mmap(NULL, mem->size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!m->wanted || !m->demand || m->aside == MAP_FAILED)
		return -ENOMEM;
	ret = s2_thread_init(&m->s2, mem->s2, "feeder");
	if (!ret)
		ret = memory_missing_start(mem, &ops);
	if (ret)
		return ret;
	put_aside(m);
	s2_missing_mark(mem->vmm, 0, mem->low / PAGE, NULL);
	if (mem->size > mem->low)
		s2_missing_mark(mem->vmm, UINT64_C(4) << 30, (mem->size - mem->low) / PAGE, NULL);
	return -pthread_create(&m->thread, NULL, feed, m);
}

int testing_missing_start(struct vm *vm, long ms)
{
	struct testing_missing *m = calloc(1, sizeof(*m));
	pthread_condattr_t attr;
	int ret;

	if (!m)
		return -ENOMEM;
	m->vm = vm;
	m->deaf = testing_has("missing-deaf");
	m->pages = vm->memory.size / PAGE;
	m->batch = m->pages * TICK_MS / (uint64_t)ms + 1;
	m->work = (struct loop_work){.fn = all_here, .arg = m};
	m->aside = MAP_FAILED;
	pthread_mutex_init(&m->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attr);
	pthread_condattr_destroy(&attr);
	vm->testing_missing = m;
	ret = start(m);
	if (ret)
		m->stop = true; /* there is no thread */
	return ret;
}

void testing_missing_end(struct vm *vm)
{
	struct testing_missing *m = vm->testing_missing;
	bool running;

	if (!m)
		return;
	pthread_mutex_lock(&m->mutex);
	running = !m->stop;
	m->stop = true;
	pthread_cond_signal(&m->changed);
	pthread_mutex_unlock(&m->mutex);
	if (running)
		pthread_join(m->thread, NULL);
	loop_work_cancel(vm->loop, &m->work);
	if (running && !m->told)
		all_here(m);
	if (m->s2)
		s2_thread_exit(m->s2);
	if (m->aside != MAP_FAILED)
		munmap(m->aside, vm->memory.size);
	free(m->wanted);
	free(m->demand);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->mutex);
	free(m);
	vm->testing_missing = NULL;
}
