/* Registers from two vCPU threads, resets among them, while the loop's thread is at the queues: for
 * the thread sanitizer, and for status 0, which must come. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "tests/unit/virtio_util.h"

#define ROUNDS 400

static struct vt t;
static _Atomic bool done, posted;
static unsigned resets, turns;

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

int main(void)
{
	struct virtio_config config = vt_start(&t, "rng0");
	struct work_source works = *config.works;
	pthread_t thread[2];

	works.post = post;
	config.works = &works;
	CHECK_EQ(virtio_rng_create(&t.dev, &config), 0);
	vt_cfg_put(&t, 4, 2, 6);
	vt_cfg_put(&t, 0x42, 2, 0x8000);
	/* One request for each life of the driver: nobody writes to memory from here on. */
	vt_desc(&t, VT_DESC(0), 0, 0x10000, 64, 2, 0);
	vt_mem(&t, VT_AVAIL(0) + 2, 2, 1);
	pthread_create(&thread[0], NULL, driver, NULL);
	pthread_create(&thread[1], NULL, other, NULL);
	while (!atomic_load(&done)) {
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
	CHECK(turns > 0 && t.msis > 0);
	vt_stop(&t);
	printf("virtio-race: %u resets, %u turns, %u messages\n", resets, turns, t.msis);
	return dev_result("virtio-race");
}
