/* Registers from two vCPU threads, resets among them, while the loop's thread is at the queues: for
 * the thread sanitizer, and for status 0, which must come, also when a request is in flight. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "tests/unit/virtio_mock.h"

#define ROUNDS 400

static struct vt t;
static _Atomic bool done, posted;
static unsigned resets, deferred, turns;

static void post(struct work *work)
{
	(void)work;
	atomic_store(&posted, true);
}

static void *driver(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		vt_put(&t, 0x14, 1, 0);
		if (vt_get(&t, 0x14, 1))
			deferred++;
		while (vt_get(&t, 0x14, 1)) /* 4.1.4.3.2: the driver waits for it */
			sched_yield();
		resets++;
		vt_put(&t, 0x08, 4, 1);
		vt_put(&t, 0x0c, 4, 1);
		vt_put(&t, 0x14, 1, 11);
		vt_put(&t, 0x18, 2, 16);
		vt_put(&t, 0x1a, 2, 1);
		vt_put(&t, 0x20, 8, VT_DESC(0));
		vt_put(&t, 0x28, 8, VT_AVAIL(0));
		vt_put(&t, 0x30, 8, VT_USED(0));
		vt_put(&t, 0x1c, 2, 1);
		vt_put(&t, 0x14, 1, 15);
		for (unsigned k = 0; k < 5; k++)
			vt_put(&t, 0x3000, 2, 0);
		while (atomic_load(&posted)) /* the next reset falls into the turn */
			sched_yield();
	}
	atomic_store(&done, true);
	return NULL;
}

static void *other(void *arg)
{
	(void)arg;
	while (!atomic_load(&done)) {
		vt_put(&t, 0x1a, 2, 1);
		vt_put(&t, 0x3000, 2, 0);
		vt_get(&t, 0x1000, 1);
		vt_put(&t, 0x401c, 4, 1);
		vt_put(&t, 0x401c, 4, 0);
		sched_yield();
	}
	return NULL;
}

/* The loop's thread until the driver has had enough; requests of a mock end some turns later. */
static void loop(struct mock *mock)
{
	pthread_t thread[2];
	unsigned round = 0;

	atomic_store(&done, false);
	resets = deferred = turns = 0;
	vt_cfg_put(&t, 4, 2, 6);
	vt_cfg_put(&t, 0x42, 2, 0x8000);
	/* One request for each life of the driver: nobody writes to memory from here on. */
	vt_desc(&t, VT_DESC(0), 0, 0x10000, 64, 2, 0);
	vt_mem(&t, VT_AVAIL(0) + 2, 2, 1);
	pthread_create(&thread[0], NULL, driver, NULL);
	pthread_create(&thread[1], NULL, other, NULL);
	while (!atomic_load(&done)) {
		if (mock && round++ % 32 == 0)
			mock_done(mock, 0);
		if (!atomic_exchange(&posted, false)) {
			sched_yield();
			continue;
		}
		t.work[0].fn(t.work[0].arg);
		turns++;
	}
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	CHECK_EQ(resets, ROUNDS);
	CHECK(turns > 0 && (mock || t.msis > 0));
	CHECK(!mock || deferred > 0);
	printf("virtio-race: %u resets, %u of them later, %u turns, %u messages\n", resets,
	       deferred, turns, t.msis);
}

static struct virtio_config start(const char *name)
{
	struct virtio_config config = vt_start(&t, name);
	static struct work_source works;

	works = *config.works;
	works.post = post;
	config.works = &works;
	return config;
}

int main(void)
{
	struct virtio_config config = start("rng0");
	struct mock *mock;

	CHECK_EQ(virtio_rng_create(&t.dev, &config), 0);
	loop(NULL);
	vt_stop(&t);
	config = start("mock0");
	mock = mock_create(&t, &config);
	loop(mock);
	mock_all_done(mock);
	vt_stop(&t);
	return dev_result("virtio-race");
}
