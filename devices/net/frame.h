/* Looking into Ethernet frames: what back ends do that must finish checksums or segment. Frames are
 * hostile; every function checks lengths. Big endian fields are the network's. */
#ifndef DEVICES_NET_FRAME_H
#define DEVICES_NET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { FRAME_TCP = 6, FRAME_UDP = 17 };

/* A whole (unfragmented) TCP or UDP datagram over IPv4, or IPv6 without extension headers. */
struct frame_layout {
	bool v6;
	uint8_t protocol;
	unsigned l3, l4, payload; /* offsets in the frame */
	unsigned end;		  /* of the IP datagram, at most the frame's length */
};
/* False: something else. */
bool frame_layout(const uint8_t *frame, size_t len, struct frame_layout *out);

/* The sum of 16-bit words (RFC 1071), folded, not complemented; `len` odd: a zero behind. */
uint16_t frame_sum(const uint8_t *data, size_t len, uint32_t start);
/* Of addresses, protocol and length as they stand before a TCP or UDP header. */
uint16_t frame_pseudo_sum(const uint8_t *frame, const struct frame_layout *at);
/* Completes a checksum that was left to us: what is at `start` + `offset` has the sum of the pseudo
 * header. False: beyond the frame. */
bool frame_finish_checksum(uint8_t *frame, size_t len, unsigned start, unsigned offset);
/* Sets the checksum of a TCP header anew. */
void frame_tcp_checksum(uint8_t *frame, const struct frame_layout *at);
/* The maximum segment size in the options of a SYN; NULL: there is none. */
uint8_t *frame_tcp_mss(uint8_t *frame, const struct frame_layout *at);

/* Copies from pieces: at most `len` bytes; how many. */
size_t frame_gather(uint8_t *to, size_t len, const struct iovec *iov, unsigned iovs);
/* "Here I am" of a machine that has moved: a reverse ARP broadcast, FRAME_RARP_LEN bytes. */
enum { FRAME_RARP_LEN = 60 };
void frame_rarp(uint8_t *frame, const uint8_t mac[6]);

static inline unsigned frame_get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static inline void frame_put16(uint8_t *p, unsigned value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

#endif
