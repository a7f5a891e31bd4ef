#include "devices/net/frame.h"

#include <string.h>

#include "devices/net/net.h"

enum { TYPE_IPV4 = 0x0800, TYPE_RARP = 0x8035, TYPE_IPV6 = 0x86dd };
enum { IPV4_MIN = 20, IPV6_HEADER = 40, TCP_MIN = 20, UDP_HEADER = 8 };
enum { TCP_FLAGS = 13, TCP_CHECKSUM = 16, TCP_SYN = 2 };
enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2 };

static bool transport(const uint8_t *frame, struct frame_layout *at)
{
	unsigned len;

	if (at->protocol == FRAME_UDP) {
		at->payload = at->l4 + UDP_HEADER;
		return at->payload <= at->end;
	}
	if (at->protocol != FRAME_TCP || at->l4 + TCP_MIN > at->end)
		return false;
	len = (frame[at->l4 + 12] >> 4) * 4u;
	at->payload = at->l4 + len;
	return len >= TCP_MIN && at->payload <= at->end;
}

bool frame_layout(const uint8_t *frame, size_t len, struct frame_layout *out)
{
	struct frame_layout at = {.l3 = NET_ETHERNET};
	const uint8_t *ip = frame + NET_ETHERNET;
	unsigned header;

	if (len < NET_ETHERNET + IPV4_MIN || len > NET_FRAME_MAX)
		return false;
	switch (frame_get16(frame + 12)) {
	case TYPE_IPV4:
		header = (ip[0] & 15) * 4u;
		/* Neither "more fragments" nor an offset. */
		if (ip[0] >> 4 != 4 || header < IPV4_MIN || frame_get16(ip + 6) & 0x3fff)
			return false;
		at.protocol = ip[9];
		at.end = at.l3 + frame_get16(ip + 2);
		break;
	case TYPE_IPV6:
		header = IPV6_HEADER;
		if (len < NET_ETHERNET + IPV6_HEADER || ip[0] >> 4 != 6)
			return false;
		at.v6 = true;
		at.protocol = ip[6];
		at.end = at.l3 + header + frame_get16(ip + 4);
		break;
	default: return false;
	}
	at.l4 = at.l3 + header;
	if (at.end > len || at.l4 > at.end || !transport(frame, &at))
		return false;
	*out = at;
	return true;
}

static uint16_t fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* The order of bytes does not matter to the sum, only to its result: words as the host has them. */
uint16_t frame_sum(const uint8_t *data, size_t len, uint32_t start)
{
	uint64_t sum = 0;
	uint8_t result[2];
	uint16_t word;

	for (; len >= 4; data += 4, len -= 4) {
		uint32_t four;

		memcpy(&four, data, 4);
		sum += four;
	}
	if (len >= 2) {
		memcpy(&word, data, 2);
		sum += word;
		data += 2;
		len -= 2;
	}
	if (len) {
		const uint8_t last[2] = {*data, 0};

		memcpy(&word, last, 2);
		sum += word;
	}
	word = fold(sum);
	memcpy(result, &word, 2);
	return fold((uint64_t)frame_get16(result) + start);
}

uint16_t frame_pseudo_sum(const uint8_t *frame, const struct frame_layout *at)
{
	const unsigned addresses = at->v6 ? 8 : 12, size = at->v6 ? 32 : 8;

	return frame_sum(frame + at->l3 + addresses, size, at->protocol + at->end - at->l4);
}

static void store_checksum(uint8_t *to, uint16_t sum)
{
	const uint16_t value = (uint16_t)~sum;

	frame_put16(to, value ? value : 0xffff); /* zero is "none" in UDP and the same in TCP */
}

bool frame_finish_checksum(uint8_t *frame, size_t len, unsigned start, unsigned offset)
{
	if (start > len || offset > len - start || len - start - offset < 2)
		return false;
	store_checksum(frame + start + offset, frame_sum(frame + start, len - start, 0));
	return true;
}

void frame_tcp_checksum(uint8_t *frame, const struct frame_layout *at)
{
	uint8_t *checksum = frame + at->l4 + TCP_CHECKSUM;

	frame_put16(checksum, 0);
	store_checksum(checksum,
		       frame_sum(frame + at->l4, at->end - at->l4, frame_pseudo_sum(frame, at)));
}

uint8_t *frame_tcp_mss(uint8_t *frame, const struct frame_layout *at)
{
	uint8_t *option = frame + at->l4 + TCP_MIN, *end = frame + at->payload;

	if (at->protocol != FRAME_TCP || !(frame[at->l4 + TCP_FLAGS] & TCP_SYN))
		return NULL;
	while (end - option >= 2 && *option != OPTION_END) {
		if (*option == OPTION_NOP) {
			option++;
			continue;
		}
		if (option[1] < 2 || option[1] > end - option)
			return NULL;
		if (option[0] == OPTION_MSS && option[1] == 4)
			return option + 2;
		option += option[1];
	}
	return NULL;
}

size_t frame_gather(uint8_t *to, size_t len, const struct iovec *iov, unsigned iovs)
{
	size_t done = 0;

	for (; iovs && done < len; iovs--, iov++) {
		size_t n = iov->iov_len < len - done ? iov->iov_len : len - done;

		memcpy(to + done, iov->iov_base, n);
		done += n;
	}
	return done;
}

void frame_rarp(uint8_t *frame, const uint8_t mac[6])
{
	/* Ethernet, IPv4, request of one's own address (RFC 903). */
	static const uint8_t request[] = {0, 1, 8, 0, 6, 4, 0, 3};

	memset(frame, 0, FRAME_RARP_LEN);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, mac, 6);
	frame_put16(frame + 12, TYPE_RARP);
	memcpy(frame + 14, request, sizeof(request));
	memcpy(frame + 22, mac, 6); /* sender */
	memcpy(frame + 32, mac, 6); /* target */
}
