/* virtio-vsock: connections from both sides, credit, half-close, slow peers. */
#include "tests/unit/vsock_util.h"

static struct vs a;

static void test_registers(void)
{
	vs_start(&a);
	CHECK_EQ(vt_cfg(&a.t, 0, 4), 0x10531af4);
	vs_drive(&a, VS_BUFFERS);
	CHECK_EQ(vt_get(&a.t, 0x2000, 8), VS_CID);
	CHECK_EQ(vt_get(&a.t, 0x2000, 1), VS_CID);
	CHECK_EQ(vt_get(&a.t, 0x2004, 4), 0);
	vs_stop(&a);
}

static void test_guest_connects(void)
{
	char buf[64];
	int listener, fd;

	vs_start(&a);
	vs_drive(&a, VS_BUFFERS);
	/* Nobody serves it. */
	vs_send(&a, VSOCK_OP_REQUEST, 1000, 52, 0, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	CHECK_EQ(a.p.src_port, 52);
	CHECK_EQ(a.p.dst_port, 1000);
	listener = vs_listen_port(&a, 52);
	fd = vs_guest_connects(&a, listener, 1000, 52);
	vs_send(&a, VSOCK_OP_RW, 1000, 52, 0, "question", 8);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 8);
	CHECK(!memcmp(buf, "question", 8));
	CHECK_EQ(write(fd, "answer", 6), 6);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	CHECK_EQ(a.p.len, 6);
	CHECK_EQ(a.p.fwd_cnt, 8);
	CHECK(!memcmp(a.data, "answer", 6));
	/* Asked for credit, it answers. */
	vs_send(&a, VSOCK_OP_CREDIT_REQUEST, 1000, 52, 0, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_CREDIT_UPDATE);
	CHECK_EQ(a.p.fwd_cnt, 8);
	CHECK_EQ(vs_connections(&a), 1);
	/* A clean end: what is written before it arrives before it. */
	vs_send(&a, VSOCK_OP_RW, 1000, 52, 0, "bye", 3);
	vs_send(&a, VSOCK_OP_SHUTDOWN, 1000, 52, VSOCK_CLOSED, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	CHECK_EQ(a.p.dst_port, 1000);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 3);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 0);
	close(fd);
	/* The same ports again; this time the guest goes without a word. */
	fd = vs_guest_connects(&a, listener, 1000, 52);
	vs_send(&a, VSOCK_OP_RST, 1000, 52, 0, NULL, 0);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 0);
	close(fd);
	CHECK_EQ(vs_connections(&a), 0);
	CHECK_EQ(vs_seen.opened, 2);
	CHECK_EQ(vs_seen.refused, 1);
	CHECK_EQ(vs_next(&a), 0);
	close(listener);
	vs_stop(&a);
}

static void test_host_connects(void)
{
	static const char *const bad[] = {"CONNECT\n",
					  "CONNECT x\n",
					  "connect 1\n",
					  "CONNECT -1\n",
					  "CONNECT 4294967295\n",
					  "CONNECT 5 \n",
					  "CONNECT +1\n",
					  "\n",
					  "CONNECT 00000000000000000000000000000001\n"};
	char buf[64], want[64];
	uint32_t port;
	int fd;

	vs_start(&a);
	/* There is no driver yet. */
	fd = vs_dial(&a, "CONNECT 80\n");
	CHECK(vs_take(fd, buf, sizeof(buf)) <= 0 && vs_connections(&a) == 0);
	close(fd);
	vs_drive(&a, VS_BUFFERS);
	/* A line in pieces, with data right behind it. */
	fd = vs_dial(&a, "CONN");
	CHECK_EQ(vs_next(&a), 0);
	CHECK_EQ(write(fd, "ECT 80\nhello", 12), 12);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_REQUEST);
	CHECK_EQ(a.p.dst_port, 80);
	port = a.p.src_port;
	CHECK(port >= 1 << 30);
	CHECK_EQ(vs_next(&a), 0);
	vs_send(&a, VSOCK_OP_RESPONSE, 80, port, 0, NULL, 0);
	snprintf(want, sizeof(want), "OK %u\n", port);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), strlen(want));
	CHECK(!memcmp(buf, want, strlen(want)));
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	CHECK_EQ(a.p.len, 5);
	CHECK_EQ(a.p.fwd_cnt, 0); /* the line is no data of the guest's */
	/* The host program goes: one packet says it all; the guest answers. */
	close(fd);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_SHUTDOWN);
	CHECK_EQ(a.p.flags, VSOCK_CLOSED);
	vs_send(&a, VSOCK_OP_RST, 80, port, 0, NULL, 0);
	CHECK_EQ(vs_connections(&a), 0);
	/* Nobody listens in the guest. */
	fd = vs_dial(&a, "CONNECT 81\n");
	CHECK_EQ(vs_next(&a), VSOCK_OP_REQUEST);
	CHECK(a.p.src_port != port);
	vs_send(&a, VSOCK_OP_RST, 81, a.p.src_port, 0, NULL, 0);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 0);
	close(fd);
	/* The host program does not wait for the guest's answer: the guest hears of it. */
	fd = vs_dial(&a, "CONNECT 81\n");
	CHECK_EQ(vs_next(&a), VSOCK_OP_REQUEST);
	close(fd);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fd = vs_dial(&a, bad[i]);
		CHECK(vs_take(fd, buf, sizeof(buf)) == 0 || errno == ECONNRESET);
		close(fd);
	}
	CHECK_EQ(vs_next(&a), 0);
	CHECK_EQ(vs_connections(&a), 0);
	vs_stop(&a);
}

static void test_half_close(void)
{
	char buf[64];
	int listener, fd;

	vs_start(&a);
	vs_drive(&a, VS_BUFFERS);
	listener = vs_listen_port(&a, 7);
	/* The host program has said all, and still listens. */
	fd = vs_guest_connects(&a, listener, 1, 7);
	CHECK_EQ(write(fd, "all", 3), 3);
	shutdown(fd, SHUT_WR);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	CHECK_EQ(vs_next(&a), VSOCK_OP_SHUTDOWN);
	CHECK_EQ(a.p.flags, VSOCK_NO_SEND);
	vs_send(&a, VSOCK_OP_RW, 1, 7, 0, "heard", 5);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 5);
	close(fd);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_SHUTDOWN);
	CHECK_EQ(a.p.flags, VSOCK_CLOSED);
	vs_send(&a, VSOCK_OP_SHUTDOWN, 1, 7, VSOCK_CLOSED, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	/* The guest has said all, and still listens. */
	fd = vs_guest_connects(&a, listener, 2, 7);
	vs_send(&a, VSOCK_OP_RW, 2, 7, 0, "all", 3);
	vs_send(&a, VSOCK_OP_SHUTDOWN, 2, 7, VSOCK_NO_SEND, NULL, 0);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 3);
	CHECK_EQ(vs_take(fd, buf, sizeof(buf)), 0);
	CHECK_EQ(write(fd, "heard", 5), 5);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	CHECK(!memcmp(a.data, "heard", 5));
	/* It does not listen any more either, by and by: that is the end. */
	vs_send(&a, VSOCK_OP_SHUTDOWN, 2, 7, VSOCK_NO_RCV, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	CHECK_EQ(send(fd, "?", 1, MSG_NOSIGNAL), -1);
	close(fd);
	/* The host program reads no more: what the guest sends is gone, and it is told. */
	fd = vs_guest_connects(&a, listener, 3, 7);
	shutdown(fd, SHUT_RD);
	vs_run(&a);
	vs_send(&a, VSOCK_OP_RW, 3, 7, 0, "lost", 4);
	CHECK_EQ(vs_next(&a), VSOCK_OP_SHUTDOWN);
	CHECK_EQ(a.p.flags, VSOCK_NO_RCV);
	CHECK_EQ(write(fd, "news", 4), 4);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	CHECK_EQ(a.p.fwd_cnt, 4);
	close(fd);
	close(listener);
	vs_stop(&a);
}

/* A host program that does not read: the guest may send VS_BUFFER more than the host's socket
 * takes, others go on, and later all of it arrives. */
static void test_slow_host(void)
{
	static uint8_t data[32768], got[32768];
	uint64_t sent = 0, taken = 0, seed = 1, want = 1;
	uint32_t forwarded = 0;
	int listener, slow, fd;
	ssize_t n;

	vs_start(&a);
	vs_drive(&a, VS_BUFFERS);
	listener = vs_listen_port(&a, 7);
	slow = vs_guest_connects(&a, listener, 1, 7);
	fd = vs_guest_connects(&a, listener, 2, 7);
	while (sent - forwarded + sizeof(data) <= VS_BUFFER) {
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)dev_random(&seed);
		vs_send(&a, VSOCK_OP_RW, 1, 7, 0, data, sizeof(data));
		sent += sizeof(data);
		while (vs_next(&a) == VSOCK_OP_CREDIT_UPDATE)
			forwarded = a.p.fwd_cnt;
	}
	CHECK(sent > VS_BUFFER && sent - forwarded == VS_BUFFER);
	vs_send(&a, VSOCK_OP_RW, 2, 7, 0, "quick", 5);
	CHECK_EQ(vs_take(fd, got, sizeof(got)), 5);
	/* The end, before the host program has even begun to read. */
	vs_send(&a, VSOCK_OP_SHUTDOWN, 1, 7, VSOCK_CLOSED, NULL, 0);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RST);
	while ((n = vs_take(slow, got, sizeof(got))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			CHECK(got[i] == (uint8_t)dev_random(&want));
		taken += (uint64_t)n;
		vs_run(&a);
	}
	CHECK_EQ(n, 0);
	CHECK_EQ(taken, sent);
	CHECK_EQ(vs_connections(&a), 1);
	close(slow);
	/* More than there is room for ends the connection. */
	for (unsigned i = 0; i < 40 && vs_connections(&a); i++)
		vs_send(&a, VSOCK_OP_RW, 2, 7, 0, data, sizeof(data));
	CHECK_EQ(vs_connections(&a), 0);
	CHECK_EQ(vs_seen.bad, 1);
	close(fd);
	close(listener);
	vs_stop(&a);
}

/* A guest that gives credit for 1000 bytes, and another connection that does not suffer from it. */
static void test_slow_guest(void)
{
	struct vsock_packet p = {.src_cid = VS_CID,
				 .dst_cid = VSOCK_HOST_CID,
				 .src_port = 1,
				 .dst_port = 7,
				 .type = VSOCK_STREAM,
				 .op = VSOCK_OP_CREDIT_UPDATE,
				 .buf_alloc = 1000};
	static uint8_t data[100000];
	int listener, slow, fd;
	uint64_t got = 0;

	vs_start(&a);
	vs_drive(&a, VS_BUFFERS);
	listener = vs_listen_port(&a, 7);
	slow = vs_guest_connects(&a, listener, 1, 7);
	fd = vs_guest_connects(&a, listener, 2, 7);
	vs_put(&a, &p, NULL, 0);
	CHECK_EQ(write(slow, data, sizeof(data)), sizeof(data));
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	CHECK_EQ(a.p.len, 1000);
	CHECK_EQ(vs_next(&a), VSOCK_OP_CREDIT_REQUEST);
	CHECK_EQ(vs_next(&a), 0);
	CHECK_EQ(write(fd, "quick", 5), 5);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
	CHECK_EQ(a.p.len, 5);
	/* A count of bytes that were never sent is no credit. */
	p.fwd_cnt = 5000;
	vs_put(&a, &p, NULL, 0);
	vs_run(&a);
	CHECK_EQ(vs_next(&a), VSOCK_OP_CREDIT_REQUEST);
	CHECK_EQ(vs_next(&a), 0);
	for (p.fwd_cnt = 1000; got < sizeof(data) - 1000; p.fwd_cnt += 1000) {
		vs_put(&a, &p, NULL, 0);
		vs_run(&a);
		CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
		CHECK_EQ(a.p.len, 1000);
		got += a.p.len;
		CHECK_EQ(vs_next(&a), VSOCK_OP_CREDIT_REQUEST);
	}
	CHECK_EQ(vs_next(&a), 0);
	close(slow);
	close(fd);
	close(listener);
	vs_stop(&a);
}

/* Connections take turns, a packet each. */
static void test_fair(void)
{
	static uint8_t data[60000];
	int listener, fd[3];
	uint32_t last = 0;

	vs_start(&a);
	vs_drive(&a, VS_BUFFERS);
	listener = vs_listen_port(&a, 7);
	for (unsigned i = 0; i < 3; i++)
		fd[i] = vs_guest_connects(&a, listener, i + 1, 7);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(write(fd[i], data, sizeof(data)), sizeof(data));
	vs_run(&a);
	for (unsigned i = 0; i < 36; i++) {
		CHECK_EQ(vs_next(&a), VSOCK_OP_RW);
		CHECK_EQ(a.p.len, VS_ROOM);
		CHECK(a.p.dst_port != last);
		last = a.p.dst_port;
	}
	for (unsigned i = 0; i < 3; i++)
		close(fd[i]);
	close(listener);
	vs_stop(&a);
}

static void quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

int main(void)
{
	dev_log_set_sink(quiet, NULL);
	test_registers();
	test_guest_connects();
	test_host_connects();
	test_half_close();
	test_slow_host();
	test_slow_guest();
	test_fair();
	return dev_result("virtio-vsock");
}
