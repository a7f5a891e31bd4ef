/* What the guest says of its connections (virtio 1.2, 5.10.6). */
#include "devices/virtio/vsock.h"

#include <errno.h>
#include <sys/socket.h>

static void refuse(struct vsock *vs, const struct vsock_ports *ports)
{
	vs->refused++;
	vsock_send_reset(vs, ports);
}

static void connect_to_host(struct vsock *vs, const struct vsock_packet *p,
			    const struct vsock_ports *ports)
{
	struct vsock_conn *c = NULL;
	int fd = vsock_conn_room(vs) ? vsock_host_connect(vs, p->dst_port) : -EMFILE;

	if (fd >= 0)
		c = vsock_conn_new(vs, fd, VSOCK_OPEN);
	if (!c) {
		refuse(vs, ports);
		return;
	}
	vsock_conn_publish(c, p->src_port, p->dst_port);
	c->peer_alloc = p->buf_alloc;
	c->peer_fwd = p->fwd_cnt;
	c->pending = VSOCK_SEND_RESPONSE;
	vs->opened++;
	vsock_conn_wake(c);
}

static void accepted(struct vsock_conn *c)
{
	c->state = VSOCK_OPEN;
	c->vs->opened++;
	if (vsock_host_accepted(c))
		vsock_conn_reset(c);
	else
		vsock_conn_wake(c);
}

static void data(struct vsock_conn *c, const struct vsock_packet *p)
{
	struct vsock *vs = c->vs;

	c->received += p->len;
	for (uint32_t done = 0, n; done < p->len; done += n) {
		n = p->len - done < VSOCK_PIECE ? p->len - done : VSOCK_PIECE;
		if (!virtio_read(&vs->v, &vs->chain, VSOCK_HEADER + done, vs->piece, n))
			return; /* the driver's end, and that of all connections */
		if (!vsock_host_write(c, vs->piece, n)) {
			vsock_conn_reset(c);
			return;
		}
	}
	vsock_conn_wake(c); /* it may have brought credit */
}

static void guest_closed(struct vsock_conn *c, unsigned what)
{
	const struct vsock_ports ports = vsock_conn_ports(c);

	c->guest_closed |= what & VSOCK_CLOSED;
	if (c->guest_closed & VSOCK_NO_RCV)
		shutdown(c->fd, SHUT_RD);
	if (c->guest_closed == VSOCK_CLOSED) {
		/* 5.10.6.6.1: the answer to a clean disconnect. What the guest has sent still
		 * reaches the host program. */
		vsock_send_reset(c->vs, &ports);
		vsock_conn_unpublish(c);
		c->state = VSOCK_DRAINING;
	}
	vsock_conn_wake(c);
	vsock_host_flush(c);
}

static void guest_reset(struct vsock_conn *c)
{
	/* A guest that is tired of waiting for the answer to its clean disconnect has sent all. */
	if (c->state == VSOCK_OPEN && (c->guest_closed & VSOCK_NO_SEND)) {
		vsock_conn_unpublish(c);
		c->state = VSOCK_DRAINING;
		vsock_host_flush(c);
	} else {
		vsock_conn_free(c);
	}
}

/* False: this packet cannot come now. */
static bool packet(struct vsock_conn *c, const struct vsock_packet *p)
{
	const bool open = c->state == VSOCK_OPEN;

	switch (p->op) {
	case VSOCK_OP_RESPONSE:
		if (c->state != VSOCK_REQUESTED || (c->pending & VSOCK_SEND_REQUEST))
			return false;
		accepted(c);
		return true;
	case VSOCK_OP_RST: guest_reset(c); return true;
	case VSOCK_OP_SHUTDOWN:
		if (open)
			guest_closed(c, p->flags);
		return open;
	case VSOCK_OP_RW:
		/* More than there is room for: it had no credit for that. */
		if (!open || (c->guest_closed & VSOCK_NO_SEND) ||
		    p->len > VSOCK_BUFFER - c->out_len)
			return false;
		data(c, p);
		return true;
	case VSOCK_OP_CREDIT_UPDATE: vsock_conn_wake(c); return open;
	case VSOCK_OP_CREDIT_REQUEST:
		c->pending |= VSOCK_SEND_UPDATE;
		vsock_conn_wake(c);
		return open;
	default: return false;
	}
}

void vsock_packet_in(struct vsock *vs, const struct vsock_packet *p)
{
	const struct vsock_ports ports = {p->dst_cid, p->src_port, p->dst_port, p->type};
	struct vsock_conn *c;

	if (p->src_cid != vs->cid) {
		vs->bad++; /* there is nobody to answer */
		return;
	}
	if (p->dst_cid != VSOCK_HOST_CID || p->type != VSOCK_STREAM) {
		vs->bad++;
		if (p->op != VSOCK_OP_RST)
			refuse(vs, &ports);
		return;
	}
	c = vsock_conn_find(vs, p->src_port, p->dst_port);
	if (!c) {
		if (p->op == VSOCK_OP_REQUEST)
			connect_to_host(vs, p, &ports);
		else if (p->op != VSOCK_OP_RST)
			refuse(vs, &ports);
		return;
	}
	if (p->buf_alloc != c->peer_alloc || p->fwd_cnt != c->peer_fwd)
		c->asked = false;
	c->peer_alloc = p->buf_alloc;
	c->peer_fwd = p->fwd_cnt;
	if (!packet(c, p)) {
		vs->bad++;
		vsock_conn_reset(c);
	}
}
