/* Sleeping and waking: no wake-up is lost, no two are in a critical section. */
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stress.h"

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* More threads than processors, so that they sleep in the kernel. */
static struct mutexes {
	pthread_mutex_t glibc;
	_Atomic uint32_t own; /* 0 free, 1 taken, 2 taken and waited for */
	uint64_t counter[4];  /* plain */
	uint64_t own_counter;
	_Atomic uint64_t taken;
	pthread_cond_t changed;
	uint64_t produced, consumed;
	bool stop;
} m;

static void own_lock(void)
{
	uint32_t free = 0;

	if (atomic_compare_exchange_strong(&m.own, &free, 1))
		return;
	while (atomic_exchange(&m.own, 2))
		futex_wait(&m.own, 2);
}

static void own_unlock(void)
{
	if (atomic_exchange(&m.own, 0) == 2)
		futex_wake(&m.own, 1);
}

static void mutex_worker(struct run *r, unsigned index, void *arg)
{
	(void)arg;
	while (going(r)) {
		for (unsigned i = 0; i < 200; i++) {
			pthread_mutex_lock(&m.glibc);
			uint64_t value = m.counter[0];
			for (unsigned k = 1; k < 4; k++)
				if (m.counter[k] != value)
					wrong(r, "two threads in one critical section");
			for (unsigned k = 0; k < 4; k++)
				m.counter[k] = value + 1;
			pthread_mutex_unlock(&m.glibc);

			own_lock();
			m.own_counter++;
			own_unlock();
			atomic_fetch_add(&m.taken, 1);
		}
		checked(r, 200);
		/* Condition variable: even threads make, odd ones take. */
		pthread_mutex_lock(&m.glibc);
		if (index % 2 == 0) {
			m.produced++;
			pthread_cond_signal(&m.changed);
		} else {
			while (m.produced == m.consumed && !m.stop)
				pthread_cond_wait(&m.changed, &m.glibc);
			if (m.produced > m.consumed)
				m.consumed++;
		}
		pthread_mutex_unlock(&m.glibc);
	}
	pthread_mutex_lock(&m.glibc);
	m.stop = true;
	pthread_cond_broadcast(&m.changed);
	pthread_mutex_unlock(&m.glibc);
}

void stress_mutex(struct run *r)
{
	memset(&m, 0, sizeof(m));
	pthread_mutex_init(&m.glibc, NULL);
	pthread_cond_init(&m.changed, NULL);
	in_parallel(r, 2 * r->threads, mutex_worker, NULL);
	if (m.counter[0] != m.taken || m.own_counter != m.taken)
		wrong(r, "%lu sections entered, counted %lu and %lu", m.taken, m.counter[0],
		      m.own_counter);
	if (m.consumed > m.produced)
		wrong(r, "%lu made, %lu taken", m.produced, m.consumed);
}

/* Pairs on different processors hand a number to each other through futexes. */
static struct pair {
	_Atomic uint32_t turn; /* even: the first one's */
	uint32_t plain;
	_Atomic bool stop;
} __attribute__((aligned(64))) pairs[32];

static void ping(struct run *r, unsigned index, void *arg)
{
	struct pair *p = &pairs[index / 2];
	uint32_t side = index % 2, expected = side;

	(void)arg;
	for (;;) {
		uint32_t turn;

		while ((turn = atomic_load(&p->turn)) % 2 != side) {
			if (atomic_load(&p->stop))
				return;
			futex_wait(&p->turn, turn);
		}
		if (turn != expected || p->plain != turn)
			wrong(r, "turn %u came as %u with %u", expected, turn, p->plain);
		checked(r, 1);
		expected = turn + 2;
		p->plain = turn + 1;
		if (turn % 128 < 2 && !going(r))
			atomic_store(&p->stop, true);
		atomic_store(&p->turn, turn + 1);
		futex_wake(&p->turn, 1);
		if (atomic_load(&p->stop))
			return;
	}
}

void stress_pingpong(struct run *r)
{
	unsigned n = r->threads & ~1u;

	memset(pairs, 0, sizeof(pairs));
	in_parallel(r, n > 64 ? 64 : n, ping, NULL);
}
