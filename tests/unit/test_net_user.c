/* User mode: a guest of hand-made frames against the stack and servers of this process. Segments in
 * both directions with and without offloads, large datagrams both ways, forwards and their errors,
 * no turning in circles. */
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/net_mock.h"

enum { BIG = 30000, SYN = 2, ACK = 16, PSH = 8 };

static struct vt t;
static struct net_host host;
static struct nh_client client;
static struct net *net;
static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3}, me[4] = {10, 0, 2, 15},
		     gateway[4] = {10, 0, 2, 2};

static void start(const struct net_forward *forward, unsigned forwards)
{
	const struct net_user_config config = {.forward = forward, .forwards = forwards};
	char why[256] = "";

	memset(&t, 0, sizeof(t));
	dev_world_init(&t.w);
	nh_init(&host, &t);
	CHECK_EQ(net_user_create(&net, &config, &host.host, why, sizeof(why)), 0);
	CHECK(net->link && net->pairs == 1 && strstr(net->mechanism, "libslirp"));
	nc_attach(&client, net);
}

static void stop(void)
{
	net->ops->attach(net, NULL);
	net->ops->destroy(net);
	for (unsigned i = 0; i < NH_WATCHES; i++)
		CHECK(!host.watch[i].used);
	for (unsigned i = 0; i < DEV_TIMERS; i++)
		CHECK(!t.w.timer[i].used);
	dev_world_free(&t.w);
}

/* Until there are `count` frames for the guest, or none comes for a while. */
static void wait_for(unsigned count)
{
	for (unsigned i = 0; i < 200 && client.count < count; i++) {
		nh_turn(&host, 10);
		dev_advance(&t.w, 10 * NS_PER_S / 1000);
	}
}

/* ---- the guest's frames ---- */

static uint8_t packet[NET_PACKET_MAX], *const frame = packet + NET_HEADER;

static void ethernet(unsigned type)
{
	memset(packet, 0, NET_HEADER + 100);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, mac, 6);
	frame_put16(frame + 12, type);
}

static void ipv4(unsigned protocol, size_t len)
{
	uint8_t *ip = frame + 14;

	ethernet(0x0800);
	ip[0] = 0x45;
	frame_put16(ip + 2, (unsigned)(20 + len));
	ip[8] = 64;
	ip[9] = (uint8_t)protocol;
	memcpy(ip + 12, me, 4);
	memcpy(ip + 16, gateway, 4);
	frame_put16(ip + 10, (uint16_t)~frame_sum(ip, 20, 0));
}

static void arp(void)
{
	static const uint8_t request[] = {0, 1, 8, 0, 6, 4, 0, 1};

	ethernet(0x0806);
	memcpy(frame + 14, request, 8);
	memcpy(frame + 22, mac, 6);
	memcpy(frame + 28, me, 4);
	memcpy(frame + 38, gateway, 4);
	CHECK_EQ(nc_send(&client, packet, NET_HEADER + 42), 0);
}

struct tcp {
	unsigned sport, dport;
	uint32_t seq, ack;
};

static void put32(uint8_t *p, uint32_t v)
{
	frame_put16(p, v >> 16);
	frame_put16(p + 2, v & 0xffff);
}

static uint32_t get32(const uint8_t *p)
{
	return frame_get16(p) << 16 | frame_get16(p + 2);
}

/* A segment whose checksum is left to the other side, as a card's driver does. */
static void tcp(struct tcp *c, unsigned flags, const void *data, size_t len)
{
	const unsigned header = flags & SYN ? 24 : 20;
	uint8_t *p = frame + 34;
	struct frame_layout at;

	ipv4(FRAME_TCP, header + len);
	frame_put16(p, c->sport);
	frame_put16(p + 2, c->dport);
	put32(p + 4, c->seq);
	put32(p + 8, c->ack);
	p[12] = (uint8_t)(header << 2);
	p[13] = (uint8_t)flags;
	frame_put16(p + 14, 65535);
	p[20] = 2; /* of the SYN: a segment size of 1460 */
	p[21] = 4;
	frame_put16(p + 22, 1460);
	if (len)
		memcpy(p + header, data, len);
	CHECK(frame_layout(frame, 34 + header + len, &at));
	frame_put16(p + 16, frame_pseudo_sum(frame, &at));
	packet[0] = NET_HDR_NEEDS_CSUM;
	packet[1] = len > 1460 ? NET_GSO_TCPV4 : 0;
	packet[6] = 34;
	packet[8] = 16;
	CHECK_EQ(nc_send(&client, packet, NET_HEADER + 34 + header + len), 0);
	c->seq += (uint32_t)len + (flags & SYN ? 1 : 0);
}

/* ---- servers ---- */

static int serve(int type, uint16_t *port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, type, 0);

	CHECK_EQ(bind(fd, (struct sockaddr *)&in, len), 0);
	if (type == SOCK_STREAM)
		CHECK_EQ(listen(fd, 4), 0);
	CHECK_EQ(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

/* A connection from the guest to this process: the descriptor here. */
static int connection(struct tcp *c)
{
	uint16_t port;
	int listener = serve(SOCK_STREAM, &port), fd;
	unsigned count;

	arp();
	wait_for(1);
	CHECK_EQ(client.got.data[NET_HEADER + 21], 2); /* ARP's reply */
	*c = (struct tcp){40000, port, 1000, 0};
	count = client.count;
	tcp(c, SYN, NULL, 0);
	wait_for(count + 1);
	CHECK_EQ(client.got.data[NET_HEADER + 47], SYN | ACK);
	c->ack = get32(client.got.data + NET_HEADER + 38) + 1;
	tcp(c, ACK, NULL, 0);
	wait_for(count + 1);
	fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0);
	close(listener);
	return fd;
}

static void test_to_host(void)
{
	static uint8_t data[BIG], got[BIG];
	struct tcp c;
	size_t n = 0;
	int fd;

	start(NULL, 0);
	net->ops->negotiated(net, NET_CSUM | NET_TSO4 | NET_TSO6, 1);
	fd = connection(&c);
	for (unsigned i = 0; i < BIG; i++)
		data[i] = (uint8_t)(i * 3 + i / 256);
	tcp(&c, ACK | PSH, data, BIG); /* one packet */
	while (n < BIG) {
		ssize_t m;

		nh_turn(&host, 5);
		m = recv(fd, got + n, BIG - n, MSG_DONTWAIT);
		if (!m)
			break;
		n += m > 0 ? (size_t)m : 0;
	}
	CHECK(!memcmp(data, got, BIG));
	/* A checksum beyond the frame: lost. */
	ipv4(FRAME_TCP, 20);
	packet[0] = NET_HDR_NEEDS_CSUM;
	packet[7] = 0xff;
	CHECK_EQ(nc_send(&client, packet, NET_HEADER + 60), 0);
	CHECK_EQ(net->dropped, 1);
	close(fd);
	stop();
}

/* What the guest receives of one large write: the largest frame. */
static size_t largest(unsigned offloads, struct net_header *header)
{
	static uint8_t data[BIG];
	struct tcp c;
	size_t most = 0, payload = 0;
	int fd;

	start(NULL, 0);
	net->ops->negotiated(net, offloads, 1);
	fd = connection(&c);
	for (unsigned i = 0; i < BIG; i++)
		data[i] = (uint8_t)(i * 5 + i / 256);
	CHECK_EQ(write(fd, data, BIG), BIG);
	for (unsigned tries = 0; payload < BIG && tries < 1000; tries++) {
		const uint8_t *p;
		size_t len;

		client.hold = true; /* one at a time */
		nh_turn(&host, 5);
		dev_advance(&t.w, NS_PER_S / 100);
		while ((len = net->ops->peek(net, 0, &p))) {
			const uint8_t *f = p + NET_HEADER;
			const size_t n = frame_get16(f + 16) - 40;

			if (frame_get16(f + 12) == 0x0800 && f[23] == FRAME_TCP && n) {
				CHECK_EQ(get32(f + 38), c.ack);
				CHECK(!memcmp(f + 54, data + payload, n));
				payload += n;
				c.ack += (uint32_t)n;
				if (len > most) {
					most = len;
					memcpy(header, p, sizeof(*header));
				}
			}
			net->ops->taken(net, 0);
		}
		tcp(&c, ACK, NULL, 0);
		net->ops->want(net, 0, true);
	}
	CHECK_EQ(payload, BIG);
	close(fd);
	stop();
	return most - NET_HEADER;
}

static void test_to_guest(void)
{
	struct net_header header;

	CHECK(largest(0, &header) <= 1514);
	CHECK_EQ(header.flags, 0);
	CHECK(largest(NET_CSUM, &header) <= 1514);
	CHECK_EQ(header.flags, NET_HDR_DATA_VALID);
	CHECK(largest(NET_CSUM | NET_TSO4, &header) > 10000);
	CHECK_EQ(header.flags, NET_HDR_NEEDS_CSUM);
	CHECK_EQ(header.gso_type, NET_GSO_TCPV4);
	CHECK_EQ(header.gso_size, 1460);
	CHECK_EQ(header.hdr_len, 54);
	CHECK_EQ(header.csum_start, 34);
	CHECK_EQ(header.csum_offset, 16);
	CHECK(largest(NET_CSUM | NET_TSO6, &header) <= 1514);
}

/* A datagram that is larger than the guest's network comes in pieces that make it again. */
static void test_fragments(void)
{
	static uint8_t data[4000], got[4000];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	uint16_t port;
	int fd = serve(SOCK_DGRAM, &port);
	unsigned total = 0, count;

	start(NULL, 0);
	arp();
	wait_for(1);
	ipv4(FRAME_UDP, 8 + 4);
	frame_put16(frame + 34, 5000);
	frame_put16(frame + 36, port);
	frame_put16(frame + 38, 12);
	CHECK_EQ(nc_send(&client, packet, NET_HEADER + 46), 0);
	wait_for(1);
	CHECK_EQ(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &len), 4);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 11 + i / 256);
	CHECK_EQ(sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&from, len), 4000);
	client.hold = true;
	for (unsigned i = 0; i < 50; i++)
		nh_turn(&host, 2);
	for (count = 0; total < 4008; count++) {
		const uint8_t *p, *ip;
		unsigned n, off;

		if (!net->ops->peek(net, 0, &p))
			break;
		ip = p + NET_HEADER + 14;
		n = frame_get16(ip + 2) - 20;
		off = (frame_get16(ip + 6) & 0x1fff) * 8;
		CHECK(n <= 1480);
		CHECK_EQ(frame_sum(ip, 20, 0), 0xffff);
		CHECK_EQ(off, total);
		CHECK_EQ(frame_get16(ip + 6) >> 13 & 1, total + n < 4008);
		CHECK(!memcmp(ip + 20 + (off ? 0 : 8), data + (off ? off - 8 : 0),
			      n - (off ? 0 : 8)));
		total += n;
		net->ops->taken(net, 0);
	}
	CHECK_EQ(total, 4008);
	CHECK_EQ(count, 3);
	close(fd);
	stop();
}

/* `len` bytes of a UDP datagram from `off` on. */
static void piece(const uint8_t *datagram, unsigned off, unsigned len, bool more, unsigned id)
{
	uint8_t *ip = frame + 14;

	ipv4(FRAME_UDP, len);
	memcpy(ip + 20, datagram + off, len);
	frame_put16(ip + 4, id);
	frame_put16(ip + 6, (more ? 0x2000 : 0) | off / 8);
	frame_put16(ip + 10, 0);
	frame_put16(ip + 10, (uint16_t)~frame_sum(ip, 20, 0));
	CHECK_EQ(nc_send(&client, packet, NET_HEADER + 34 + len), 0);
}

/* The guest's own pieces: in any order, of several datagrams, and such as make none. */
static void test_reassembly(void)
{
	static uint8_t d[4008], got[5000];
	uint16_t port;
	int fd = serve(SOCK_DGRAM, &port);

	start(NULL, 0);
	for (unsigned i = 8; i < sizeof(d); i++)
		d[i] = (uint8_t)(i * 13 + i / 256);
	frame_put16(d, 5000);
	frame_put16(d + 2, port);
	frame_put16(d + 4, sizeof(d));
	piece(d, 2960, 1048, false, 1);
	piece(d, 0, 1480, true, 2);
	piece(d, 0, 1480, true, 1);
	piece(d, 1480, 1480, true, 1);
	nh_turn(&host, 0);
	CHECK_EQ(recv(fd, got, sizeof(got), MSG_DONTWAIT), 4000);
	CHECK(!memcmp(got, d + 8, 4000));
	/* The other one is not complete; twice the same is an end. */
	piece(d, 0, 1480, true, 2);
	piece(d, 1480, 1480, true, 2);
	piece(d, 2960, 1048, false, 2);
	/* An odd middle, two different ends, more than there can be, nothing. */
	piece(d, 0, 1481, true, 3);
	piece(d, 0, 800, false, 4);
	piece(d, 800, 800, true, 4);
	piece(d, 65512, 800, false, 5);
	piece(d, 8, 0, true, 6);
	/* More of them than there is room for, again and again. */
	for (unsigned i = 0; i < 100; i++)
		piece(d, 1480, 1480, true, 100 + i);
	nh_turn(&host, 0);
	CHECK_EQ(recv(fd, got, sizeof(got), MSG_DONTWAIT), -1);
	/* Too late. */
	piece(d, 0, 2960, true, 7);
	dev_advance(&t.w, 31 * NS_PER_S);
	piece(d, 2960, 1048, false, 7);
	nh_turn(&host, 0);
	CHECK_EQ(recv(fd, got, sizeof(got), MSG_DONTWAIT), -1);
	piece(d, 0, 2960, true, 7);
	nh_turn(&host, 0);
	CHECK_EQ(recv(fd, got, sizeof(got), MSG_DONTWAIT), 4000);
	close(fd);
	stop();
}

static void remember(void *opaque, const char *name, const char *value)
{
	if (!strcmp(name, "forward0"))
		snprintf(opaque, 100, "%s", value);
}

static void test_forwards(void)
{
	struct net_forward f = {.host = "127.0.0.1", .guest_port = 22};
	const struct net_user_config config = {.forward = &f, .forwards = 1};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	char why[256] = "", text[100] = "", want[100];
	const struct inspector to = {NULL, remember, text};
	struct net *second;
	unsigned port = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	/* The host chooses a port and tells it. */
	start(&f, 1);
	net->ops->inspect(net, &to);
	CHECK_EQ(sscanf(text, "tcp:127.0.0.1:%u-:22", &port), 1);
	CHECK(port != 0);
	/* The guest is asked for its address as soon as somebody connects. */
	in.sin_port = htons((uint16_t)port);
	CHECK_EQ(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	wait_for(1);
	CHECK_EQ(frame_get16(client.got.data + NET_HEADER + 12), 0x0806);
	CHECK(!memcmp(client.got.data + NET_HEADER + 38, me, 4));
	/* What is taken is said by its name. */
	f.host_port = (uint16_t)port;
	CHECK_EQ(net_user_create(&second, &config, &host.host, why, sizeof(why)), -EADDRINUSE);
	snprintf(want, sizeof(want), "127.0.0.1:%u", port);
	CHECK(strstr(why, want) && strstr(why, "choose another"));
	/* Handed over, another may have it; taken back. */
	CHECK_EQ(net->ops->release(net), 0);
	CHECK_EQ(net_user_create(&second, &config, &host.host, why, sizeof(why)), 0);
	CHECK_EQ(net->ops->acquire(net, mac), -EADDRINUSE);
	second->ops->destroy(second);
	CHECK_EQ(net->ops->acquire(net, mac), 0);
	snprintf(f.guest, sizeof(f.guest), "fec0::5");
	CHECK_EQ(net_user_create(&second, &config, &host.host, why, sizeof(why)), -EAFNOSUPPORT);
	CHECK(strstr(why, "both"));
	close(fd);
	stop();
}

/* Frames wait for a device that takes none; nobody runs in circles meanwhile. */
static void test_slow(void)
{
	unsigned turns = 0;

	start(NULL, 0);
	client.hold = true;
	for (unsigned i = 0; i < 10; i++)
		arp();
	for (unsigned i = 0; i < 20; i++)
		turns += nh_turn(&host, 0);
	CHECK(turns < 10);
	CHECK_EQ(client.count, 0);
	client.hold = false;
	net->ops->want(net, 0, true);
	wait_for(10);
	CHECK_EQ(client.count, 10);
	/* Nothing to do, nothing done. */
	dev_advance(&t.w, 10 * NS_PER_S);
	CHECK(dev_advance(&t.w, 60 * NS_PER_S) < 5);
	CHECK_EQ(nh_turn(&host, 0), 0);
	/* Packets of an older driver are not for one that agreed to less. */
	net->ops->negotiated(net, NET_CSUM, 1);
	client.hold = true;
	arp();
	nh_turn(&host, 0);
	net->ops->negotiated(net, 0, 1);
	client.hold = false;
	net->ops->want(net, 0, true);
	nh_turn(&host, 0);
	CHECK_EQ(client.count, 10);
	stop();
}

static void quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

int main(void)
{
	dev_log_set_sink(quiet, NULL);
	test_to_host();
	test_to_guest();
	test_fragments();
	test_reassembly();
	test_forwards();
	test_slow();
	return dev_result("net user");
}
