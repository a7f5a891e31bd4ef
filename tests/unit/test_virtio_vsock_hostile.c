/* virtio-vsock where it must hold out: a guest that takes nothing, many connections, hostile
 * packets, resets, moves. */
#include "tests/unit/vsock_util.h"

#include <sys/resource.h>

static struct vs a, b;

/* A guest that sends and does not take what comes back: it is not served further than there is room
 * for, and then goes on. */
static void test_stalled(void)
{
	unsigned answered = 0, taken = 0;

	vs_start(&a);
	vs_drive(&a, 0);
	for (unsigned i = 0; i < 300; i++) {
		const struct vsock_packet p = {.src_cid = VS_CID,
					       .dst_cid = VSOCK_HOST_CID,
					       .src_port = i,
					       .dst_port = 99,
					       .type = VSOCK_STREAM,
					       .op = VSOCK_OP_RW};

		vs_put(&a, &p, NULL, 0);
		if (vt_used(&a.t, VS_TX, NULL) < 0)
			break;
		taken++;
	}
	CHECK_EQ(taken, 256);
	for (unsigned i = 0; i < VS_BUFFERS; i++)
		vs_offer_rx(&a, i);
	vt_notify(&a.t, VS_RX);
	for (; vs_next(&a) == VSOCK_OP_RST; answered++)
		CHECK_EQ(a.p.dst_port, answered);
	CHECK_EQ(vt_used(&a.t, VS_TX, NULL), 0);
	CHECK_EQ(answered, 257);
	vs_stop(&a);
}

static void test_many(void)
{
	static int fd[600];
	struct rlimit limit;
	int listener, quiet_one;
	char c;

	getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < 2000 && limit.rlim_max >= 2000) {
		limit.rlim_cur = 2000;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur < 2000) {
		printf("note: only %llu descriptors: many connections not tried\n",
		       (unsigned long long)limit.rlim_cur);
		return;
	}
	vs_start(&a);
	vs_drive(&a, VS_BUFFERS);
	listener = vs_listen_port(&a, 7);
	quiet_one = vs_dial(&a, NULL);
	for (unsigned i = 0; i < 512; i++)
		fd[i] = vs_guest_connects(&a, listener, i, 7);
	CHECK_EQ(vs_connections(&a), 512); /* who said nothing had to go */
	CHECK_EQ(vs_take(quiet_one, &c, 1), 0);
	close(quiet_one);
	vs_send(&a, VSOCK_OP_REQUEST, 600, 7, 0, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	/* A host program waits until there is a place. */
	quiet_one = vs_dial(&a, "CONNECT 5\n");
	CHECK_EQ(vs_next(&a), 0);
	for (unsigned i = 0; i < 512; i++) {
		vs_send(&a, VSOCK_OP_RW, i, 7, 0, &i, sizeof(i));
		CHECK(vs_take(fd[i], &c, 1) == 1 && c == (char)i);
	}
	vs_send(&a, VSOCK_OP_RST, 100, 7, 0, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_REQUEST);
	/* One that the host program has left, and the guest not, makes room for the next. */
	close(fd[200]);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_SHUTDOWN);
	vs_send(&a, VSOCK_OP_REQUEST, 600, 7, 0, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	CHECK_EQ(a.p.dst_port, 200);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RESPONSE);
	for (unsigned i = 0; i < 512; i++)
		if (i != 200)
			close(fd[i]);
	close(quiet_one);
	close(listener);
	vs_stop(&a);
}

/* Packets that cannot be: the connection ends, or the device waits for its reset. */
static void test_hostile(void)
{
	static const uint16_t ops[] = {0, VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE, 8, 0xffff};
	struct vsock_packet p = {.src_cid = VS_CID,
				 .dst_cid = 9,
				 .src_port = 1,
				 .dst_port = 7,
				 .type = VSOCK_STREAM,
				 .op = VSOCK_OP_REQUEST};
	int listener, fd;
	char c;

	vs_start(&a);
	vs_drive(&a, VS_BUFFERS);
	listener = vs_listen_port(&a, 7);
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		fd = vs_guest_connects(&a, listener, 1, 7);
		vs_send(&a, ops[i], 1, 7, 0, NULL, 0);
		CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
		CHECK_EQ(vs_take(fd, &c, 1), 0);
		CHECK_EQ(vs_connections(&a), 0);
		close(fd);
	}
	/* To another machine, of another kind, from another machine. */
	vs_put(&a, &p, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	CHECK_EQ(a.p.src_cid, 9);
	p.dst_cid = VSOCK_HOST_CID;
	p.type = 2;
	vs_put(&a, &p, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	CHECK_EQ(a.p.type, 2);
	p.op = VSOCK_OP_RST;
	vs_put(&a, &p, NULL, 0);
	p.type = VSOCK_STREAM;
	vs_put(&a, &p, NULL, 0);
	p.src_cid = 6;
	p.op = VSOCK_OP_REQUEST;
	vs_put(&a, &p, NULL, 0);
	CHECK_EQ(vs_next(&a), 0);
	/* Longer than it is: nobody waits for this driver. */
	p.src_cid = VS_CID;
	fd = vs_guest_connects(&a, listener, 3, 7);
	p.src_port = 3;
	p.op = VSOCK_OP_RW;
	p.len = 100;
	vs_put(&a, &p, "x", 1);
	CHECK_EQ(vt_get(&a.t, 0x14, 1), 0x4f);
	CHECK_EQ(vs_take(fd, &c, 1), 0);
	close(fd);
	/* Too short for a header. */
	vs_drive(&a, VS_BUFFERS);
	vt_desc(&a.t, VT_DESC(VS_TX), 0, VS_TX_AT, VSOCK_HEADER - 1, 0, 0);
	vt_offer(&a.t, VS_TX, 0);
	vt_notify(&a.t, VS_TX);
	CHECK_EQ(vt_get(&a.t, 0x14, 1), 0x4f);
	/* Data that is not in memory. */
	vs_drive(&a, VS_BUFFERS);
	fd = vs_guest_connects(&a, listener, 3, 7);
	vt_desc(&a.t, VT_DESC(VS_TX), 1, VT_HOLE, 100, 0, 0);
	vt_desc(&a.t, VT_DESC(VS_TX), 0, VS_TX_AT, VSOCK_HEADER, 1, 1);
	a.t.ram[VS_TX_AT + 24] = 100; /* the header of the last connect, but for these */
	a.t.ram[VS_TX_AT + 30] = VSOCK_OP_RW;
	vt_offer(&a.t, VS_TX, 0);
	vt_notify(&a.t, VS_TX);
	CHECK_EQ(vt_get(&a.t, 0x14, 1), 0x4f);
	CHECK_EQ(vs_take(fd, &c, 1), 0);
	close(fd);
	/* A buffer without room. */
	vs_drive(&a, 0);
	vt_desc(&a.t, VT_DESC(VS_RX), 0, VS_RX_AT, VSOCK_HEADER, 2, 0);
	vt_offer(&a.t, VS_RX, 0);
	p.len = 0;
	vs_put(&a, &p, NULL, 0);
	CHECK_EQ(vt_get(&a.t, 0x14, 1), 0x4f);
	close(listener);
	vs_stop(&a);
}

static void test_resets(void)
{
	int listener, fd;
	char c;

	vs_start(&a);
	listener = vs_listen_port(&a, 7);
	for (unsigned i = 0; i < 2; i++) {
		vs_drive(&a, VS_BUFFERS);
		fd = vs_guest_connects(&a, listener, 1, 7);
		CHECK_EQ(write(fd, "x", 1), 1);
		if (i)
			a.t.dev->ops->reset(a.t.dev);
		else
			vt_put(&a.t, 0x14, 1, 0);
		vt_cfg_put(&a.t, 0x10, 4, VT_BAR);
		vt_cfg_put(&a.t, 4, 2, 6);
		CHECK_EQ(vt_get(&a.t, 0x14, 1), 0);
		vs_run(&a);
		CHECK_EQ(vs_connections(&a), 0);
		CHECK(vs_take(fd, &c, 1) == 0 || errno == ECONNRESET);
		close(fd);
	}
	/* The next driver hears nothing of what was before it, not even when it is quick. */
	vs_drive(&a, VS_BUFFERS);
	fd = vs_guest_connects(&a, listener, 1, 7);
	CHECK_EQ(write(fd, "x", 1), 1);
	vs_drive(&a, VS_BUFFERS);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), 0);
	CHECK_EQ(vs_connections(&a), 0);
	close(fd);
	close(listener);
	vs_stop(&a);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	dev_poke(&b.t.w.mmio, VT_BAR, 0x40, 8, seed, 30);
	for (unsigned i = 0; i < 30; i++)
		b.t.ram[dev_random(seed) % 0xc000] = (uint8_t)dev_random(seed);
	vt_put(&b.t, 0x14, 1, 15);
	vt_put(&b.t, 0x3000 + 4 * (dev_random(seed) % 3), 2, 0);
	vs_turn(&b);
}

static void test_move(void)
{
	const uint64_t event_at = VS_TX_AT + 4096;
	char err[128], c;
	int listener, fd;

	vs_start(&a);
	vs_start(&b);
	CHECK_EQ(field_check(a.t.dev->state, err, sizeof(err)), 0);
	vs_drive(&a, VS_BUFFERS);
	vt_desc(&a.t, VT_DESC(VS_EVENT), 0, event_at, 4, 2, 0);
	vt_offer(&a.t, VS_EVENT, 0);
	vt_notify(&a.t, VS_EVENT);
	listener = vs_listen_port(&a, 7);
	fd = vs_guest_connects(&a, listener, 1, 7);
	/* A hand-over that comes to nothing: nothing has happened. */
	CHECK_EQ(a.t.dev->ops->prepare(a.t.dev), 0);
	CHECK_EQ(a.t.dev->ops->drain(a.t.dev), 0);
	CHECK_EQ(write(fd, "1", 1), 1);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), 0);
	CHECK_EQ(a.t.dev->ops->abort(a.t.dev), 0);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	/* One that works: the guest is told that its connections are gone, once. */
	CHECK_EQ(a.t.dev->ops->prepare(a.t.dev), 0);
	CHECK_EQ(a.t.dev->ops->drain(a.t.dev), 0);
	CHECK_EQ(b.t.dev->ops->prepare(b.t.dev), 0);
	dev_move(a.t.dev, b.t.dev);
	memcpy(b.t.ram, a.t.ram, sizeof(b.t.ram));
	memcpy(b.t.avail, a.t.avail, sizeof(b.t.avail));
	memcpy(b.t.used, a.t.used, sizeof(b.t.used));
	b.t.size = a.t.size;
	vt_mem(&b.t, event_at, 4, 0x12345678);
	vs_run(&b);
	CHECK_EQ(vt_used(&b.t, VS_EVENT, NULL), -1);
	CHECK_EQ(b.t.dev->ops->acquire(b.t.dev), 0);
	vs_run(&b);
	CHECK_EQ(vt_used(&b.t, VS_EVENT, NULL), 4);
	CHECK_EQ(vt_peek(&b.t, event_at, 4), 0);
	CHECK_EQ(b.t.msi_data, 0x40 + 3);
	vt_offer(&b.t, VS_EVENT, 0);
	vt_notify(&b.t, VS_EVENT);
	CHECK_EQ(vt_used(&b.t, VS_EVENT, NULL), -1);
	vs_send(&b, VSOCK_OP_RW, 1, 7, 0, "x", 1);
	CHECK_EQ(vs_next(&b), VSOCK_OP_RST);
	/* A machine that is loaded into itself is another one, too. */
	a.t.dev->ops->abort(a.t.dev);
	CHECK_EQ(vs_connections(&a), 1);
	dev_move(a.t.dev, a.t.dev);
	vs_run(&a);
	CHECK_EQ(vs_connections(&a), 0);
	CHECK_EQ(vs_take(fd, &c, 1), 0);
	CHECK_EQ(vt_used(&a.t, VS_EVENT, NULL), 4);
	printf("virtio-vsock: %u of 1000 damaged states refused\n",
	       dev_corrupt(a.t.dev, b.t.dev, 1000, poke, NULL));
	close(fd);
	close(listener);
	vs_stop(&b);
	vs_stop(&a);
}

static void quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

int main(void)
{
	dev_log_set_sink(quiet, NULL);
	test_stalled();
	test_many();
	test_hostile();
	test_resets();
	test_move();
	return dev_result("virtio-vsock, hostile");
}
