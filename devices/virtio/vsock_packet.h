/* What goes through the queues of a socket device: virtio 1.2, 5.10.6. */
#ifndef DEVICES_VIRTIO_VSOCK_PACKET_H
#define DEVICES_VIRTIO_VSOCK_PACKET_H

#include <endian.h>
#include <stdint.h>

enum { VSOCK_STREAM = 1, VSOCK_HOST_CID = 2 };
enum vsock_op {
	VSOCK_OP_REQUEST = 1,
	VSOCK_OP_RESPONSE,
	VSOCK_OP_RST,
	VSOCK_OP_SHUTDOWN,
	VSOCK_OP_RW,
	VSOCK_OP_CREDIT_UPDATE,
	VSOCK_OP_CREDIT_REQUEST,
};
/* Flags of a shutdown: whoever says so receives, sends no more. */
enum { VSOCK_NO_RCV = 1, VSOCK_NO_SEND = 2, VSOCK_CLOSED = 3 };

/* struct virtio_vsock_hdr, in the host's byte order. */
struct vsock_packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len; /* bytes behind the header */
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt; /* the sender's credit */
};
/* The same, as it stands in memory. */
struct vsock_wire {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct vsock_wire) == 44, "5.10.6");
enum { VSOCK_HEADER = 44 };

static inline struct vsock_packet vsock_decode(const struct vsock_wire *w)
{
	return (struct vsock_packet){.src_cid = le64toh(w->src_cid),
				     .dst_cid = le64toh(w->dst_cid),
				     .src_port = le32toh(w->src_port),
				     .dst_port = le32toh(w->dst_port),
				     .len = le32toh(w->len),
				     .type = le16toh(w->type),
				     .op = le16toh(w->op),
				     .flags = le32toh(w->flags),
				     .buf_alloc = le32toh(w->buf_alloc),
				     .fwd_cnt = le32toh(w->fwd_cnt)};
}

static inline struct vsock_wire vsock_encode(const struct vsock_packet *p)
{
	return (struct vsock_wire){.src_cid = htole64(p->src_cid),
				   .dst_cid = htole64(p->dst_cid),
				   .src_port = htole32(p->src_port),
				   .dst_port = htole32(p->dst_port),
				   .len = htole32(p->len),
				   .type = htole16(p->type),
				   .op = htole16(p->op),
				   .flags = htole32(p->flags),
				   .buf_alloc = htole32(p->buf_alloc),
				   .fwd_cnt = htole32(p->fwd_cnt)};
}

#endif
