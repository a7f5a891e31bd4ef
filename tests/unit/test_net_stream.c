/* Streams: frames in any pieces, a reader that is slow, a device that takes none, lengths that lie,
 * a peer that goes and comes back, checksums. */
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/net/open.h"
#include "tests/unit/net_mock.h"

static struct vt t;
static struct net_host host;
static struct nh_client client;
static struct net *net;
static char path[108];
static int listener, peer;
static unsigned lines;

static void note(void *opaque, const char *line)
{
	(void)opaque, (void)line;
	lines++;
}

static void turns(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		nh_turn(&host, 10);
}

static void listen_again(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memcpy(address.sun_path, path, sizeof(path));
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	CHECK_EQ(listen(listener, 4), 0);
}

static void start(void)
{
	char why[256] = "";
	int fd;

	memset(&t, 0, sizeof(t));
	dev_world_init(&t.w);
	nh_init(&host, &t);
	snprintf(path, sizeof(path), "%s/net-%d.sock", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
		 (int)getpid());
	unlink(path);
	CHECK(net_stream_open(path, &fd, why, sizeof(why)) == -ENOENT);
	CHECK(strstr(why, path) && strstr(why, "passt"));
	listen_again();
	CHECK_EQ(net_stream_open(path, &fd, why, sizeof(why)), 0);
	peer = accept(listener, NULL, NULL);
	CHECK_EQ(net_stream_create(&net, fd, path, &host.host, why, sizeof(why)), 0);
	CHECK(net->link && net->offloads == NET_CSUM && net->pairs == 1);
	nc_attach(&client, net);
	turns(2);
}

static void stop(void)
{
	net->ops->attach(net, NULL);
	net->ops->destroy(net);
	for (unsigned i = 0; i < NH_WATCHES; i++)
		CHECK(!host.watch[i].used);
	for (unsigned i = 0; i < DEV_TIMERS; i++)
		CHECK(!t.w.timer[i].used);
	close(peer);
	close(listener);
	unlink(path);
	dev_world_free(&t.w);
}

static void put(const void *data, size_t len)
{
	CHECK_EQ(write(peer, data, len), len);
}

static size_t make(uint8_t *buf, unsigned len)
{
	frame_put16(buf, len >> 16);
	frame_put16(buf + 2, len);
	for (unsigned i = 0; i < len; i++)
		buf[4 + i] = (uint8_t)(i * 7);
	return 4 + len;
}

static void test_receive(void)
{
	static uint8_t buf[70000];
	size_t len = make(buf, 100);

	start();
	put(buf, len);
	turns(2);
	CHECK_EQ(client.count, 1);
	CHECK_EQ(client.got.len, 112);
	CHECK(!memcmp(client.got.data + 12, buf + 4, 100));
	for (unsigned i = 0; i < 12; i++)
		CHECK_EQ(client.got.data[i], 0);
	/* A byte at a time. */
	for (size_t i = 0; i < len; i++) {
		put(buf + i, 1);
		turns(1);
		CHECK_EQ(client.count, i + 1 < len ? 1 : 2);
	}
	/* Several at once; shorter than an Ethernet header: skipped. */
	put(buf, len);
	put("\0\0\0\0\0\0\0\1x", 9);
	put(buf, len);
	turns(2);
	CHECK_EQ(client.count, 4);
	/* The largest. */
	len = make(buf, NET_FRAME_MAX);
	put(buf, len);
	turns(5);
	CHECK_EQ(client.count, 5);
	CHECK_EQ(client.got.len, NET_PACKET_MAX);
	CHECK(!memcmp(client.got.data + 12, buf + 4, NET_FRAME_MAX));
	/* A device that takes none: it waits, and comes when it does. */
	client.hold = true;
	len = make(buf, 60);
	for (unsigned i = 0; i < 10; i++)
		put(buf, len);
	turns(5);
	CHECK_EQ(client.count, 5);
	CHECK_EQ(nh_turn(&host, 1), 0);
	client.hold = false;
	net->ops->want(net, 0, true);
	turns(5);
	CHECK_EQ(client.count, 15);
	/* One byte more than the largest. */
	CHECK_EQ(client.downs, 0);
	frame_put16(buf, (NET_FRAME_MAX + 1) >> 16);
	frame_put16(buf + 2, (NET_FRAME_MAX + 1) & 0xffff);
	put(buf, 4);
	turns(2);
	CHECK_EQ(client.downs, 1);
	CHECK(!net->link);
	stop();
}

static void test_send(void)
{
	static uint8_t packet[NET_HEADER + 1000], got[1004];
	unsigned sent = 0, came = 0;
	int ret;

	start();
	for (unsigned i = 0; i < 1000; i++)
		packet[NET_HEADER + i] = (uint8_t)i;
	/* Until the reader's socket is full. */
	while (!(ret = nc_send(&client, packet, sizeof(packet))) && sent < 100000)
		sent++;
	CHECK_EQ(ret, -EAGAIN);
	CHECK(sent > 10);
	turns(2);
	CHECK_EQ(client.writable, 0);
	for (; came < sent; came++) {
		CHECK_EQ(recv(peer, got, sizeof(got), MSG_WAITALL), 1004);
		CHECK_EQ(frame_get16(got + 2), 1000);
		CHECK(!memcmp(got + 4, packet + NET_HEADER, 1000));
		nh_turn(&host, 0);
	}
	CHECK_EQ(client.writable, 1);
	CHECK_EQ(nc_send(&client, packet, sizeof(packet)), 0);
	CHECK_EQ(recv(peer, got, sizeof(got), MSG_WAITALL), 1004);
	/* What was not agreed on. */
	packet[1] = NET_GSO_TCPV4;
	CHECK_EQ(nc_send(&client, packet, sizeof(packet)), -EIO);
	packet[1] = 0;
	packet[0] = NET_HDR_NEEDS_CSUM;
	packet[6] = 0xff;
	packet[7] = 0xff;
	CHECK_EQ(nc_send(&client, packet, sizeof(packet)), -EIO);
	CHECK_EQ(net->dropped, 2);
	/* A checksum that was left to us. */
	packet[6] = 34;
	packet[7] = 0;
	packet[8] = 16;
	frame_put16(packet + NET_HEADER + 50, 0x1234);
	CHECK_EQ(nc_send(&client, packet, sizeof(packet)), 0);
	CHECK_EQ(recv(peer, got, sizeof(got), MSG_WAITALL), 1004);
	CHECK_EQ((uint16_t)~frame_sum(packet + NET_HEADER + 34, 966, 0), frame_get16(got + 4 + 50));
	stop();
}

/* UDP over IPv6 with a good checksum, and with a bad one. */
static void test_checked(void)
{
	uint8_t buf[4 + 70] = {[3] = 70}, *frame = buf + 4;
	struct frame_layout at;

	start();
	net->ops->negotiated(net, NET_CSUM, 1);
	frame_put16(frame + 12, 0x86dd);
	frame[14] = 0x60;
	frame[19] = 16;
	frame[20] = FRAME_UDP;
	memcpy(frame + 62, "abcdefgh", 8);
	CHECK(frame_layout(frame, 70, &at));
	frame_put16(frame + 60, frame_pseudo_sum(frame, &at));
	CHECK(frame_finish_checksum(frame, 70, 54, 6));
	put(buf, sizeof(buf));
	turns(2);
	CHECK_EQ(client.count, 1);
	CHECK_EQ(client.got.data[0], NET_HDR_DATA_VALID);
	frame[62] ^= 1;
	put(buf, sizeof(buf));
	turns(2);
	CHECK_EQ(client.count, 2);
	CHECK_EQ(client.got.data[0], 0);
	stop();
}

static void test_gone(void)
{
	uint8_t buf[104], packet[NET_HEADER + 60] = {0};
	size_t len = make(buf, 100);

	start();
	lines = 0;
	/* What was sent before it went still comes. */
	put(buf, len);
	close(peer);
	turns(3);
	CHECK_EQ(client.count, 1);
	CHECK_EQ(client.downs, 1);
	CHECK_EQ(lines, 1);
	CHECK_EQ(nc_send(&client, packet, sizeof(packet)), -EIO);
	/* It is tried again and again, more and more seldom, and nobody hears of that. */
	close(listener);
	unlink(path);
	CHECK(dev_advance(&t.w, 60ULL * NS_PER_S) < 15);
	CHECK_EQ(lines, 1);
	CHECK_EQ(client.ups, 0);
	listen_again();
	dev_advance(&t.w, 10ULL * NS_PER_S);
	CHECK_EQ(client.ups, 1);
	peer = accept(listener, NULL, NULL);
	put(buf, len);
	turns(3);
	CHECK_EQ(client.count, 2);
	/* Handed over: not connected meanwhile, and then the network hears of it. */
	CHECK_EQ(net->ops->release(net), 0);
	CHECK_EQ(read(peer, buf, 1), 0);
	close(peer);
	CHECK_EQ(net->ops->acquire(net, (const uint8_t[6]){2, 2, 3, 4, 5, 6}), 0);
	peer = accept(listener, NULL, NULL);
	CHECK_EQ(recv(peer, buf, 64, MSG_WAITALL), 64);
	CHECK_EQ(frame_get16(buf + 4 + 12), 0x8035);
	put(buf, 64);
	turns(3);
	CHECK_EQ(client.count, 3);
	stop();
}

int main(void)
{
	dev_log_set_sink(note, NULL);
	test_receive();
	test_send();
	test_checked();
	test_gone();
	return dev_result("net stream");
}
