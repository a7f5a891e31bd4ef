/* Frames: checksums against RFC 1071's words and a slow sum, layouts and options that lie,
 * gathering, RARP, addresses of cards. */
#include "tests/unit/net_mock.h"

enum { DEBIAN_0 = 0x2c8887 };

/* A TCP SYN over IPv4: Ethernet 14, IPv4 20, TCP 24 with a segment size of 1460. */
static const uint8_t syn[] = {
	0x52, 0x55, 10,	  0,  2,    2,	  0x52, 0x54, 0,  1, 2, 3, 8,  0, /* */
	0x45, 0,    0,	  44, 0,    1,	  0x40, 0,    64, 6, 0, 0, 10, 0,   2,
	15,   10,   0,	  2,  2,    0x9c, 0x40, 0,    80, 0, 0, 0, 1,  0,   0,
	0,    0,    0x60, 2,  0xfa, 0xf0, 0,	0,    0,  0, 2, 4, 5,  0xb4};

static uint16_t slow_sum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void test_sums(void)
{
	static const uint8_t rfc[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
	uint8_t buf[3001];
	uint64_t seed = 3;

	CHECK_EQ(frame_sum(rfc, 8, 0), 0xddf2);
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)dev_random(&seed);
	for (unsigned len = 0; len < 64; len++)
		CHECK_EQ(frame_sum(buf + len % 7, len, 0), slow_sum(buf + len % 7, len));
	CHECK_EQ(frame_sum(buf, 3001, 0), slow_sum(buf, 3001));
	CHECK_EQ(frame_sum(buf, 3001, 0xffff), slow_sum(buf, 3001));
}

static void test_layout(void)
{
	uint8_t frame[200] = {0};
	struct frame_layout at;

	memcpy(frame, syn, sizeof(syn));
	CHECK(frame_layout(frame, sizeof(syn), &at));
	CHECK(!at.v6 && at.protocol == FRAME_TCP);
	CHECK_EQ(at.l4, 34);
	CHECK_EQ(at.payload, 58);
	CHECK_EQ(at.end, 58);
	CHECK(frame_layout(frame, 64, &at)); /* padding */
	CHECK_EQ(at.end, 58);
	for (unsigned len = 0; len < sizeof(syn); len++)
		CHECK(!frame_layout(frame, len, &at));
	/* A full checksum, and one that was begun. */
	frame_tcp_checksum(frame, &at);
	CHECK_EQ(frame_sum(frame + 34, 24, frame_pseudo_sum(frame, &at)), 0xffff);
	frame_put16(frame + 50, frame_pseudo_sum(frame, &at));
	CHECK(frame_finish_checksum(frame, 58, 34, 16));
	CHECK_EQ(frame_sum(frame + 34, 24, frame_pseudo_sum(frame, &at)), 0xffff);
	CHECK(!frame_finish_checksum(frame, 58, 34, 23));
	CHECK(!frame_finish_checksum(frame, 58, 59, 0));
	CHECK(!frame_finish_checksum(frame, 58, 34, 65535));
	CHECK(!frame_finish_checksum(frame, 58, 65535, 65535));
	/* The size of segments, and options that lie. */
	CHECK(frame_tcp_mss(frame, &at) == frame + 56);
	frame[55] = 5;
	CHECK(!frame_tcp_mss(frame, &at));
	frame[55] = 0;
	CHECK(!frame_tcp_mss(frame, &at));
	frame[54] = 1;
	frame[55] = 1;
	frame[56] = 2;
	frame[57] = 4;
	CHECK(!frame_tcp_mss(frame, &at));
	memcpy(frame, syn, sizeof(syn));
	frame[47] = 0x10;
	CHECK(!frame_tcp_mss(frame, &at)); /* no SYN */
	/* Fragments, wrong lengths. */
	memcpy(frame, syn, sizeof(syn));
	frame[20] = 0x20;
	CHECK(!frame_layout(frame, sizeof(syn), &at));
	frame[20] = 0;
	frame[21] = 1;
	CHECK(!frame_layout(frame, sizeof(syn), &at));
	frame[21] = 0;
	frame[46] = 0xf0;
	CHECK(!frame_layout(frame, sizeof(syn), &at));
	frame[46] = 0x40;
	CHECK(!frame_layout(frame, sizeof(syn), &at));
	frame[46] = 0x60;
	frame[14] = 0x4f;
	CHECK(!frame_layout(frame, sizeof(syn), &at));
	/* IPv6, UDP. */
	memset(frame, 0, sizeof(frame));
	frame_put16(frame + 12, 0x86dd);
	frame[14] = 0x60;
	frame[19] = 12;
	frame[20] = FRAME_UDP;
	CHECK(frame_layout(frame, 66, &at));
	CHECK(at.v6 && at.l4 == 54 && at.payload == 62 && at.end == 66);
	CHECK(!frame_layout(frame, 65, &at));
	frame[20] = 44; /* a fragment */
	CHECK(!frame_layout(frame, 66, &at));
}

static void test_rest(void)
{
	uint8_t a[6] = {1, 2, 3, 4, 5, 6}, frame[FRAME_RARP_LEN], buf[8];
	uint8_t x[6], y[6];
	const struct iovec iov[] = {{a, 4}, {a + 4, 0}, {a + 4, 2}};

	CHECK_EQ(frame_gather(buf, sizeof(buf), iov, 3), 6);
	CHECK(!memcmp(buf, a, 6));
	CHECK_EQ(frame_gather(buf, 5, iov, 3), 5);
	frame_rarp(frame, a);
	CHECK(frame[0] == 0xff && !memcmp(frame + 6, a, 6));
	CHECK_EQ(frame_get16(frame + 12), 0x8035);
	CHECK_EQ(frame_get16(frame + 20), 3);
	CHECK(!memcmp(frame + 22, a, 6) && !memcmp(frame + 32, a, 6));
	/* A machine's card has one address for ever: these bytes must not change. */
	net_mac_from_name("debian", 0, x);
	CHECK(x[0] == 0x52 && x[1] == 0x54 && x[2] == 0x00);
	CHECK_EQ(x[3] << 16 | x[4] << 8 | x[5], DEBIAN_0);
	net_mac_from_name("debian", 1, y);
	CHECK(memcmp(x, y, 6));
	net_mac_from_name("debiam", 0, y);
	CHECK(memcmp(x, y, 6));
}

int main(void)
{
	test_sums();
	test_layout();
	test_rest();
	return dev_result("net frames");
}
