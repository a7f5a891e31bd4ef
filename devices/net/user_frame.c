/*
 * Frames between the guest and the stack, and the work that neither has to do.
 *
 * The stack knows neither partial checksums nor segmentation, but it does not mind segments of 64
 * KiB. So the guest may leave both undone: its checksums are finished here, and what it would cut
 * into segments goes to the stack in one piece. The other way the stack is told that the guest
 * takes large segments (the size in a SYN is raised), and what is larger than the guest's network
 * reaches it as what its own card would have made of many: one packet and the size to which to cut
 * it. All of that only with a driver that has agreed; for others it is cut here.
 */
#include <endian.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net/frame.h"
#include "devices/net/user.h"

enum { LARGE_SEGMENT = 65535 - 60 - 60 /* beside the longest headers */ };
enum { IPV4_HEADER = 20, MORE_FRAGMENTS = 0x2000 };
enum { TCP_SEQUENCE = 4, TCP_FLAGS = 13, TCP_CHECKSUM = 16, TCP_FIN = 1, TCP_PSH = 8 };

static bool accepts_segments(const struct user *u, const struct frame_layout *at)
{
	return u->accepts & (at->v6 ? NET_TSO6 : NET_TSO4);
}

/* ---- from the guest ---- */

static void raise_mss(const struct user *u, uint8_t *frame, size_t len)
{
	struct frame_layout at;
	uint8_t *mss;

	if (!frame_layout(frame, len, &at) || !accepts_segments(u, &at))
		return;
	mss = frame_tcp_mss(frame, &at);
	if (!mss)
		return;
	frame_put16(mss, LARGE_SEGMENT);
	frame_tcp_checksum(frame, &at);
}

void user_input(struct user *u, const struct iovec *iov, unsigned iovs)
{
	size_t len = frame_gather(u->from_guest, sizeof(u->from_guest), iov, iovs) - NET_HEADER;
	uint8_t *frame = u->from_guest + NET_HEADER;
	struct net_header header;

	memcpy(&header, u->from_guest, sizeof(header));
	if ((header.flags & NET_HDR_NEEDS_CSUM) &&
	    !frame_finish_checksum(frame, len, le16toh(header.csum_start),
				   le16toh(header.csum_offset))) {
		u->net.dropped++;
		return;
	}
	if (user_is_fragment(frame, len))
		len = user_reassemble(u, frame, len);
	if (!len)
		return;
	raise_mss(u, frame, len);
	if (u->forwards6)
		user_forwards_learn(u, frame, len);
	slirp_input(u->slirp, frame, (int)len);
}

/* ---- to the guest ---- */

/* Room for a frame at the end of the queue; NULL: it is lost. */
static struct user_packet *new_packet(struct user *u, size_t len)
{
	struct user_packet *p = NULL;

	if (u->frames < USER_FRAMES_MAX && u->bytes + len <= USER_BYTES_MAX)
		p = malloc(sizeof(*p) + NET_HEADER + len);
	if (!p) {
		u->net.dropped++;
		return NULL;
	}
	*p = (struct user_packet){.len = NET_HEADER + len};
	memset(p->data, 0, NET_HEADER);
	*u->last = p;
	u->last = &p->next;
	u->bytes += p->len;
	u->frames++;
	return p;
}

void user_set_ipv4(uint8_t *ip, unsigned len, unsigned id, unsigned fragment)
{
	frame_put16(ip + 2, len);
	frame_put16(ip + 4, id);
	frame_put16(ip + 6, fragment);
	frame_put16(ip + 10, 0);
	frame_put16(ip + 10, (uint16_t)~frame_sum(ip, IPV4_HEADER, 0));
}

static void set_header(struct user_packet *p, struct net_header header)
{
	memcpy(p->data, &header, sizeof(header));
}

/* As the driver's own card would have put it together. */
static void as_segments(struct user_packet *p, const struct frame_layout *at)
{
	uint8_t *frame = p->data + NET_HEADER;
	const unsigned headers = at->payload - NET_ETHERNET;

	frame_put16(frame + at->l4 + TCP_CHECKSUM, frame_pseudo_sum(frame, at));
	set_header(p, (struct net_header){
			      .flags = NET_HDR_NEEDS_CSUM,
			      .gso_type = at->v6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
			      .hdr_len = htole16((uint16_t)at->payload),
			      .gso_size = htole16((uint16_t)(USER_MTU - headers)),
			      .csum_start = htole16((uint16_t)at->l4),
			      .csum_offset = htole16(TCP_CHECKSUM),
		      });
}

/* A segment for a driver that takes none of 64 KiB. The stack knows the size in the guest's SYN
 * only of those connections that it did not have to wait for. */
static void cut(struct user *u, const uint8_t *frame, const struct frame_layout *whole)
{
	const unsigned headers = whole->payload - NET_ETHERNET;
	const unsigned total = whole->end - whole->payload, part = USER_MTU - headers;
	uint32_t sequence;

	memcpy(&sequence, frame + whole->l4 + TCP_SEQUENCE, sizeof(sequence));
	sequence = ntohl(sequence);
	for (unsigned off = 0; off < total; off += part) {
		const unsigned n = total - off < part ? total - off : part;
		const uint32_t here = htonl(sequence + off);
		struct user_packet *p = new_packet(u, whole->payload + n);
		struct frame_layout at = *whole;
		uint8_t *to, *ip;

		if (!p)
			return;
		to = p->data + NET_HEADER;
		ip = to + at.l3;
		at.end = at.payload + n;
		memcpy(to, frame, at.payload);
		memcpy(to + at.payload, frame + at.payload + off, n);
		memcpy(to + at.l4 + TCP_SEQUENCE, &here, sizeof(here));
		if (off + n < total)
			to[at.l4 + TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
		if (at.v6)
			frame_put16(ip + 4, at.end - at.l4);
		else
			user_set_ipv4(ip, at.end - at.l3, frame_get16(ip + 4), 0);
		frame_tcp_checksum(to, &at);
		if (u->accepts & NET_CSUM)
			set_header(p, (struct net_header){.flags = NET_HDR_DATA_VALID});
	}
}

/* A datagram that is larger than the guest's network (RFC 791). The stack's has no options. */
static void fragment(struct user *u, const uint8_t *frame, size_t len)
{
	const size_t part = (USER_MTU - IPV4_HEADER) & ~7u;
	const size_t total = len - NET_ETHERNET - IPV4_HEADER;
	const uint16_t id = u->fragment_id++;

	for (size_t off = 0; off < total; off += part) {
		const size_t n = total - off < part ? total - off : part;
		struct user_packet *p = new_packet(u, NET_ETHERNET + IPV4_HEADER + n);
		uint8_t *to, *ip;

		if (!p)
			return;
		to = p->data + NET_HEADER;
		ip = to + NET_ETHERNET;
		memcpy(to, frame, NET_ETHERNET + IPV4_HEADER);
		memcpy(ip + IPV4_HEADER, frame + NET_ETHERNET + IPV4_HEADER + off, n);
		user_set_ipv4(ip, (unsigned)(IPV4_HEADER + n), id,
			      (off + n < total ? MORE_FRAGMENTS : 0) | (unsigned)(off / 8));
	}
}

static bool can_fragment(const uint8_t *frame, size_t len)
{
	const uint8_t *ip = frame + NET_ETHERNET;

	return frame_get16(frame + 12) == 0x0800 && ip[0] == 0x45 &&
	       frame_get16(ip + 2) == len - NET_ETHERNET && !(frame_get16(ip + 6) & 0x3fff);
}

ssize_t user_output(const void *data, size_t len, void *opaque)
{
	struct user *u = opaque;
	const uint8_t *frame = data;
	const bool large = len > NET_ETHERNET + USER_MTU;
	struct user_packet *p;
	struct frame_layout at;
	bool known, tcp;

	if (len < NET_ETHERNET || len > NET_FRAME_MAX)
		return -1;
	known = frame_layout(frame, len, &at);
	tcp = known && at.protocol == FRAME_TCP;
	if (large && tcp && !accepts_segments(u, &at)) {
		cut(u, frame, &at);
		return (ssize_t)len;
	}
	if (large && !tcp && can_fragment(frame, len)) {
		fragment(u, frame, len);
		return (ssize_t)len;
	}
	p = new_packet(u, len);
	if (!p)
		return (ssize_t)len;
	memcpy(p->data + NET_HEADER, frame, len);
	if (large && tcp)
		as_segments(p, &at);
	else if (known && (u->accepts & NET_CSUM))
		set_header(p, (struct net_header){.flags = NET_HDR_DATA_VALID});
	return (ssize_t)len;
}

void user_drop_all(struct user *u)
{
	struct user_packet *p = u->first, *next;

	for (; p; p = next) {
		next = p->next;
		free(p);
	}
	u->first = NULL;
	u->last = &u->first;
	u->bytes = u->frames = 0;
}

void user_notify(struct user *u)
{
	if (u->first && u->wanted && u->client.readable)
		u->client.readable(u->client.opaque, 0);
}
