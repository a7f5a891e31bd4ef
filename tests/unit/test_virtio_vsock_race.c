/* A driver that connects and resets the device at once, from a vCPU thread, while the loop's thread
 * makes the connection: for the thread sanitizer, and for sockets that must not stay. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "tests/unit/vsock_util.h"

#define ROUNDS 300
#define PORT   7

static struct vs s;
static _Atomic bool done, posted;
static _Atomic unsigned served, resets;

static void post(struct work *work)
{
	(void)work;
	atomic_store(&posted, true);
}

/* The rings are in memory already, and lie there for each life of the driver. */
static void queue(unsigned q)
{
	vt_put(&s.t, 0x16, 2, q);
	vt_put(&s.t, 0x18, 2, 16);
	vt_put(&s.t, 0x1a, 2, q + 1);
	vt_put(&s.t, 0x20, 8, VT_DESC(q));
	vt_put(&s.t, 0x28, 8, VT_AVAIL(q));
	vt_put(&s.t, 0x30, 8, VT_USED(q));
	vt_put(&s.t, 0x1c, 2, 1);
}

static void *driver(void *arg)
{
	(void)arg;
	/* More of them, and slower, if the loop never came to a connection on a busy host. */
	for (unsigned i = 0; i < ROUNDS || (!atomic_load(&served) && i < 20 * ROUNDS); i++) {
		if (i >= ROUNDS)
			usleep(1000);
		atomic_fetch_add(&resets, 1);
		vt_put(&s.t, 0x14, 1, 0);
		while (vt_get(&s.t, 0x14, 1))
			sched_yield();
		vt_put(&s.t, 0x08, 4, 1);
		vt_put(&s.t, 0x0c, 4, 1);
		vt_put(&s.t, 0x14, 1, 11);
		queue(VS_RX);
		queue(VS_TX);
		vt_put(&s.t, 0x14, 1, 15);
		for (unsigned k = 0; k < i % 7; k++)
			sched_yield();
	}
	vt_put(&s.t, 0x14, 1, 0);
	atomic_store(&done, true);
	return NULL;
}

static void prepare(void)
{
	const struct vsock_wire request =
		vsock_encode(&(struct vsock_packet){.src_cid = VS_CID,
						    .dst_cid = VSOCK_HOST_CID,
						    .src_port = 1000,
						    .dst_port = PORT,
						    .type = VSOCK_STREAM,
						    .op = VSOCK_OP_REQUEST,
						    .buf_alloc = 4096});

	s.t.size = 16;
	memcpy(s.t.ram + VS_TX_AT, &request, VSOCK_HEADER);
	vt_desc(&s.t, VT_DESC(VS_TX), 0, VS_TX_AT, VSOCK_HEADER, 0, 0);
	vt_offer(&s.t, VS_TX, 0);
	for (unsigned i = 0; i < 4; i++)
		vs_offer_rx(&s, i);
}

/* As the loop does; a host program answers each connection. */
static void turn(int listener)
{
	int fd;

	vs_poll(&s);
	if (atomic_exchange(&posted, false))
		for (unsigned i = 0; i < s.t.works; i++)
			s.t.work[i].fn(s.t.work[i].arg);
	while ((fd = accept(listener, NULL, NULL)) >= 0) {
		CHECK(send(fd, "hello", 5, MSG_NOSIGNAL) == 5 || errno == EPIPE);
		close(fd);
		atomic_fetch_add(&served, 1);
	}
}

int main(void)
{
	pthread_t thread;
	int listener;

	s.post = post;
	vs_start(&s);
	listener = vs_listen_port(&s, PORT);
	vt_cfg_put(&s.t, 4, 2, 6);
	vt_cfg_put(&s.t, 0x42, 2, 0x8000);
	prepare();
	pthread_create(&thread, NULL, driver, NULL);
	while (!atomic_load(&done)) {
		turn(listener);
		sched_yield();
	}
	pthread_join(thread, NULL);
	turn(listener);
	CHECK(served > 0 && served <= resets);
	CHECK_EQ(vs_connections(&s), 0);
	CHECK_EQ(s.watched, 1);
	close(listener);
	vs_stop(&s);
	printf("virtio-vsock, race: %u resets, %u connections\n", resets, served);
	return dev_result("virtio-vsock, race");
}
