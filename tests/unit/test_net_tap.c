/* Tap devices, in a network namespace of this test's: opening with one and several queues, errors
 * with words, packets both ways, offloads, a device that goes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/open.h"
#include "tests/unit/net_mock.h"

static struct vt t;
static struct net_host host;
static struct nh_client client;
static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

/* A device that stays (`keep`) until it is made to go. */
static int make(const char *name, short flags, bool keep)
{
	struct ifreq ifr = {.ifr_flags = (short)(flags | IFF_NO_PI)};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETPERSIST, keep ? 1L : 0L))
		return -1;
	close(fd);
	return 0;
}

static void up(const char *name)
{
	struct ifreq ifr = {0};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	ifr.ifr_flags = IFF_UP;
	CHECK_EQ(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	close(fd);
}

/* The host's side of the device. */
static int packets(const char *name)
{
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = 0x0300 /* all */};
	int fd = socket(AF_PACKET, SOCK_RAW, 0x0300);

	ll.sll_ifindex = (int)if_nametoindex(name);
	CHECK_EQ(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
	return fd;
}

static void test_open(void)
{
	int fds[NET_QUEUES_MAX], other[NET_QUEUES_MAX];
	char why[300] = "";
	unsigned count, more;

	CHECK_EQ(net_tap_open("one", 4, fds, &count, why, sizeof(why)), 0);
	CHECK_EQ(count, 1);
	CHECK_EQ(net_tap_open("one", 4, other, &more, why, sizeof(why)), -EBUSY);
	CHECK(strstr(why, "one") && strstr(why, "another"));
	close(fds[0]);
	CHECK_EQ(net_tap_open("many", 4, fds, &count, why, sizeof(why)), 0);
	CHECK_EQ(count, 4);
	CHECK(fcntl(fds[3], F_GETFL) & O_NONBLOCK);
	CHECK(fcntl(fds[3], F_GETFD) & FD_CLOEXEC);
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	CHECK_EQ(net_tap_open("many", 1, fds, &count, why, sizeof(why)), 0);
	CHECK_EQ(count, 1);
	close(fds[0]);
	CHECK_EQ(net_tap_open("lo", 1, fds, &count, why, sizeof(why)), -EINVAL);
	CHECK_EQ(net_tap_open("", 1, fds, &count, why, sizeof(why)), -EINVAL);
	CHECK_EQ(net_tap_open("longer-than-15-c", 1, fds, &count, why, sizeof(why)), -EINVAL);
}

static void test_packets(void)
{
	uint8_t packet[NET_HEADER + 60] = {0}, got[2000];
	int fds[NET_QUEUES_MAX], raw;
	char why[300] = "";
	unsigned count;
	struct net *net;

	memset(&t, 0, sizeof(t));
	dev_world_init(&t.w);
	nh_init(&host, &t);
	CHECK_EQ(net_tap_open("one", 1, fds, &count, why, sizeof(why)), 0);
	CHECK_EQ(net_tap_create(&net, fds, count, "one", &host.host, why, sizeof(why)), 0);
	CHECK((net->offloads & 15) == (NET_CSUM | NET_TSO4 | NET_TSO6 | NET_TSO_ECN));
	up("one");
	raw = packets("one");
	nc_attach(&client, net);
	net->ops->negotiated(net, NET_CSUM | NET_TSO4, 1);
	for (unsigned i = 0; i < 5; i++) /* what the host says of itself */
		nh_turn(&host, 20);
	/* Out. */
	memset(packet + NET_HEADER, 0xff, 6);
	memcpy(packet + NET_HEADER + 6, mac, 6);
	packet[NET_HEADER + 12] = 0x88;
	packet[NET_HEADER + 13] = 0xb5; /* for experiments */
	while (recv(raw, got, sizeof(got), MSG_DONTWAIT) > 0)
		;
	CHECK_EQ(nc_send(&client, packet, sizeof(packet)), 0);
	CHECK_EQ(recv(raw, got, sizeof(got), 0), 60);
	CHECK(!memcmp(got, packet + NET_HEADER, 60));
	/* In. */
	client.count = 0;
	packet[NET_HEADER + 20] = 0x77;
	CHECK_EQ(send(raw, packet + NET_HEADER, 60, 0), 60);
	for (unsigned i = 0; i < 100 && !client.count; i++)
		nh_turn(&host, 10);
	CHECK_EQ(client.got.len, sizeof(packet));
	CHECK(!memcmp(client.got.data + NET_HEADER, packet + NET_HEADER, 60));
	/* A device that takes none, and nobody runs in circles. */
	client.hold = true;
	CHECK_EQ(send(raw, packet + NET_HEADER, 60, 0), 60);
	count = 0;
	for (unsigned i = 0; i < 10; i++)
		count += nh_turn(&host, 5);
	CHECK(count < 4);
	client.hold = false;
	net->ops->want(net, 0, true);
	client.count = 0;
	for (unsigned i = 0; i < 100 && !client.count; i++)
		nh_turn(&host, 10);
	CHECK(client.count > 0);
	/* A header that makes no sense is lost. */
	packet[1] = 77;
	CHECK(nc_send(&client, packet, sizeof(packet)) < 0);
	CHECK_EQ(net->dropped, 1);
	/* A machine that has moved here is announced. */
	while (recv(raw, got, sizeof(got), MSG_DONTWAIT) > 0)
		;
	CHECK_EQ(net->ops->acquire(net, mac), 0);
	dev_advance(&t.w, 2 * NS_PER_S);
	for (count = 0; recv(raw, got, sizeof(got), MSG_DONTWAIT) > 0;)
		count += frame_get16(got + 12) == 0x8035 && !memcmp(got + 6, mac, 6);
	CHECK_EQ(count, 5);
	close(raw);
	net->ops->destroy(net);
	for (unsigned i = 0; i < NH_WATCHES; i++)
		CHECK(!host.watch[i].used);
	dev_world_free(&t.w);
}

/* One ferry has it, another one waits for it: each as it is given up. */
static void test_hand_over(const char *name, unsigned queues)
{
	int fds[NET_QUEUES_MAX], raw;
	uint8_t packet[60] = {0};
	struct nh_client second;
	struct net *from, *to;
	char why[300] = "";
	unsigned count;

	memset(&t, 0, sizeof(t));
	dev_world_init(&t.w);
	nh_init(&host, &t);
	CHECK_EQ(net_tap_open(name, 2, fds, &count, why, sizeof(why)), 0);
	CHECK_EQ(net_tap_create(&from, fds, count, name, &host.host, why, sizeof(why)), 0);
	CHECK_EQ(net_tap_look(name, 2, &count, why, sizeof(why)), 0);
	CHECK_EQ(count, queues);
	CHECK_EQ(net_tap_create(&to, NULL, count, name, &host.host, why, sizeof(why)), 0);
	CHECK_EQ(to->offloads & from->offloads, from->offloads);
	nc_attach(&client, from);
	from->ops->negotiated(from, NET_CSUM | NET_TSO4, 1);
	nc_attach(&second, to);
	to->ops->want(to, queues - 1, true);
	if (queues == 1)
		CHECK_EQ(to->ops->acquire(to, mac), -EBUSY);
	CHECK_EQ(from->ops->release(from), 0);
	CHECK_EQ(to->ops->acquire(to, mac), 0);
	to->ops->negotiated(to, NET_CSUM | NET_TSO4, queues);
	up(name);
	raw = packets(name);
	memset(packet, 0xff, 6);
	memcpy(packet + 6, mac, 6);
	packet[12] = 0x88;
	packet[13] = 0xb5;
	CHECK_EQ(send(raw, packet, 60, 0), 60);
	for (unsigned i = 0; i < 100 && !second.count; i++)
		nh_turn(&host, 10);
	CHECK(second.count > 0 && !client.count);
	/* And back, as after a start that failed; what was agreed on holds. */
	CHECK_EQ(to->ops->release(to), 0);
	CHECK_EQ(from->ops->acquire(from, mac), 0);
	second.count = 0;
	CHECK_EQ(send(raw, packet, 60, 0), 60);
	for (unsigned i = 0; i < 100 && !client.count; i++)
		nh_turn(&host, 10);
	CHECK(client.count > 0 && !second.count);
	close(raw);
	to->ops->destroy(to);
	from->ops->destroy(from);
	for (unsigned i = 0; i < NH_WATCHES; i++)
		CHECK(!host.watch[i].used);
	dev_world_free(&t.w);
}

static void test_look(void)
{
	char why[300] = "";
	unsigned count;

	CHECK_EQ(net_tap_look("one", 4, &count, why, sizeof(why)), 0);
	CHECK_EQ(count, 1);
	CHECK_EQ(net_tap_look("many", 4, &count, why, sizeof(why)), 0);
	CHECK_EQ(count, 4);
	CHECK_EQ(net_tap_look("lo", 1, &count, why, sizeof(why)), -EINVAL);
	CHECK(strstr(why, "no tap device"));
	CHECK_EQ(net_tap_look("none", 1, &count, why, sizeof(why)), -ENODEV);
}

int main(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) || make("one", IFF_TAP, true) ||
	    make("many", IFF_TAP | IFF_MULTI_QUEUE, true)) {
		printf("NO TAP DEVICE WAS TESTED: no namespaces or no /dev/net/tun here: %s\n",
		       strerror(errno));
		return 77;
	}
	test_open();
	test_look();
	test_packets();
	test_hand_over("one", 1);
	test_hand_over("many", 2);
	return dev_result("net tap");
}
