/*
 * Network back ends and what comes to them: a peer that sends any bytes in any pieces over a
 * stream, a guest that sends any frames with any offload header to the user mode network (which is
 * restricted, so that no frame reaches anybody).
 */
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_util.h"
#include "tests/unit/net_mock.h"

static struct vt t;
static struct net_host host;
static struct nh_client client;
static uint8_t packet[NET_PACKET_MAX];

static void deliver(struct net *net, struct input *in)
{
	size_t len = NET_HEADER + NET_ETHERNET + take_bytes(in, 2) % (NET_FRAME_MAX - 14);
	const struct iovec iov[] = {{packet, 20}, {packet + 20, len - 20}};

	for (unsigned i = 0; i < NET_HEADER; i++)
		packet[i] = (uint8_t)take_bytes(in, 1);
	for (unsigned i = NET_HEADER; i < 100; i++)
		packet[i] = (uint8_t)take_bytes(in, 1);
	(void)net->ops->send(net, 0, iov, 2);
}

/* A frame that a stack looks at: addresses and lengths are good unless the input says otherwise. */
static void repair(struct input *in)
{
	const uint64_t what = take_bytes(in, 1);
	uint8_t *frame = packet + NET_HEADER, *ip = frame + 14;

	packet[0] = what & 1;
	frame_put16(frame + 12, what & 2 ? 0x86dd : what & 4 ? 0x0806 : 0x0800);
	ip[0] = what & 2 ? 0x60 : 0x45;
	ip[what & 2 ? 6 : 9] = what & 8 ? 6 : what & 16 ? 17 : what & 2 ? 58 : 1;
	if (what & 2)
		return;
	memcpy(ip + 12, (const uint8_t[]){10, 0, 2, 15, 10, 0, 2, (uint8_t)(2 + (what >> 6))}, 8);
	frame_put16(ip + 2, (unsigned)take_bytes(in, 2));
	if (what & 32)
		frame_put16(ip + 6, 0);
	frame_put16(ip + 10, 0);
	frame_put16(ip + 10, (uint16_t)~frame_sum(ip, 20, 0));
}

static void settle(struct net *net)
{
	for (unsigned i = 0; i < 3; i++)
		nh_turn(&host, 0);
	dev_advance(&t.w, NS_PER_S / 5);
	(void)net;
}

static void stream(struct input *in)
{
	struct net *net;
	uint8_t piece[256];
	char why[128];
	int fds[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
	must(!net_stream_create(&net, fds[0], "/nonexistent/socket", &host.host, why, sizeof(why)));
	nc_attach(&client, net);
	net->ops->negotiated(net, NET_CSUM, 1);
	while (in->left) {
		const uint64_t op = take_bytes(in, 1);
		unsigned len = (unsigned)(op >> 2);

		for (unsigned i = 0; i < len; i++)
			piece[i] = (uint8_t)take_bytes(in, 1);
		if (op & 1 && len > 4) /* a length that could be */
			frame_put16(piece, 0);
		if (send(fds[1], piece, len, MSG_NOSIGNAL) < 0)
			break;
		client.hold = (op & 3) == 2;
		net->ops->want(net, 0, !client.hold);
		if ((op & 3) == 3)
			deliver(net, in);
		settle(net);
	}
	close(fds[1]);
	settle(net);
	net->ops->destroy(net);
}

static void user(struct input *in)
{
	const struct net_user_config config = {.restricted = true, .hostname = "fuzzed"};
	struct net *net;
	char why[128];

	must(!net_user_create(&net, &config, &host.host, why, sizeof(why)));
	nc_attach(&client, net);
	while (in->left) {
		const uint64_t op = take_bytes(in, 1);
		size_t len = NET_HEADER + NET_ETHERNET + take_bytes(in, op & 1 ? 2 : 1) % 65000;
		const struct iovec iov = {packet, len};

		if (op & 2)
			net->ops->negotiated(net, (unsigned)(op >> 3), 1);
		for (unsigned i = 0; i < 90; i++)
			packet[i] = (uint8_t)take_bytes(in, 1);
		if (op & 4)
			repair(in);
		(void)net->ops->send(net, 0, &iov, 1);
		settle(net);
	}
	net->ops->destroy(net);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, len < 4096 ? len : 4096};

	dev_log_set_sink(fuzz_quiet, NULL);
	memset(&t, 0, sizeof(t));
	dev_world_init(&t.w);
	nh_init(&host, &t);
	if (take_bytes(&in, 1) & 1)
		stream(&in);
	else
		user(&in);
	dev_world_free(&t.w);
	must(dev_failures == 0);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	size_t len = fuzz_noise(n, 55, buf, max);

	if (len)
		buf[0] = (uint8_t)n;
	return len;
}
