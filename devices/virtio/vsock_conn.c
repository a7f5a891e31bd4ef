/* Connections: their table, and what the guest hears of them (virtio 1.2, 5.10.6). */
#include "devices/virtio/vsock.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { FIRST_PORT = 1 << 30 /* of the host's, where the guest's services are called from */ };

/* ---- the table ---- */

static unsigned bucket_of(uint32_t guest_port, uint32_t host_port)
{
	return ((guest_port ^ host_port * 31) * 0x9e3779b1u >> 24) % VSOCK_BUCKETS;
}

struct vsock_conn *vsock_conn_find(struct vsock *vs, uint32_t guest_port, uint32_t host_port)
{
	struct cds_list_head *bucket = &vs->bucket[bucket_of(guest_port, host_port)];

	for (struct cds_list_head *at = bucket->next; at != bucket; at = at->next) {
		struct vsock_conn *c = cds_list_entry(at, struct vsock_conn, bucket);

		if (c->guest_port == guest_port && c->host_port == host_port)
			return c;
	}
	return NULL;
}

bool vsock_conn_room(struct vsock *vs)
{
	if (vs->conns < VSOCK_CONNS)
		return true;
	for (struct cds_list_head *at = vs->all.next; at != &vs->all; at = at->next) {
		struct vsock_conn *c = cds_list_entry(at, struct vsock_conn, all);

		/* A program that says nothing; a guest that does not hang up. */
		if (c->state != VSOCK_GREETING &&
		    !(c->host_closed == VSOCK_CLOSED && !(c->pending & VSOCK_SEND_SHUTDOWN)))
			continue;
		vsock_conn_reset(c);
		return true;
	}
	return false;
}

struct vsock_conn *vsock_conn_new(struct vsock *vs, int fd, enum vsock_state state)
{
	const struct watch_source *w = vs->host.watches;
	struct vsock_conn *c = vsock_conn_room(vs) ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		close(fd);
		return NULL;
	}
	*c = (struct vsock_conn){.vs = vs, .fd = fd, .state = state};
	if (w->add(w->opaque, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, vsock_host_event, c,
		   &c->watch)) {
		close(fd);
		free(c);
		return NULL;
	}
	cds_list_add_tail(&c->all, &vs->all);
	vs->conns++;
	return c;
}

static void unready(struct vsock_conn *c)
{
	if (c->is_ready)
		cds_list_del(&c->ready);
	c->is_ready = false;
}

void vsock_conn_unpublish(struct vsock_conn *c)
{
	if (c->is_known)
		cds_list_del(&c->bucket);
	c->is_known = false;
	c->pending = 0;
	unready(c);
}

void vsock_conn_publish(struct vsock_conn *c, uint32_t guest_port, uint32_t host_port)
{
	c->guest_port = guest_port;
	c->host_port = host_port;
	c->is_known = true;
	cds_list_add(&c->bucket, &c->vs->bucket[bucket_of(guest_port, host_port)]);
}

uint32_t vsock_conn_port(struct vsock *vs, uint32_t guest_port)
{
	do {
		vs->next_port = (vs->next_port + 1) % FIRST_PORT;
	} while (vsock_conn_find(vs, guest_port, FIRST_PORT + vs->next_port));
	return FIRST_PORT + vs->next_port;
}

void vsock_conn_free(struct vsock_conn *c)
{
	struct vsock *vs = c->vs;

	vsock_conn_unpublish(c);
	cds_list_del(&c->all);
	vs->conns--;
	vs->host.watches->del(c->watch);
	close(c->fd);
	free(c->out);
	free(c);
	vsock_host_listen(vs, true);
}

void vsock_conn_free_all(struct vsock *vs)
{
	for (struct cds_list_head *at = vs->all.next, *next; at != &vs->all; at = next) {
		next = at->next;
		vsock_conn_free(cds_list_entry(at, struct vsock_conn, all));
	}
	vs->resets = 0;
	vs->stalled = false;
}

/* ---- what the guest must hear ---- */

void vsock_send_reset(struct vsock *vs, const struct vsock_ports *ports)
{
	/* There is room: see VSOCK_RESETS. Should there be none, the guest finds out by waiting. */
	if (vs->resets < VSOCK_RESETS)
		vs->reset[(vs->reset_head + vs->resets++) % VSOCK_RESETS] = *ports;
	virtio_kick(&vs->v, VSOCK_RX);
}

struct vsock_ports vsock_conn_ports(const struct vsock_conn *c)
{
	return (struct vsock_ports){VSOCK_HOST_CID, c->guest_port, c->host_port, VSOCK_STREAM};
}

void vsock_conn_reset(struct vsock_conn *c)
{
	const struct vsock_ports ports = vsock_conn_ports(c);

	if (c->is_known && !(c->pending & VSOCK_SEND_REQUEST))
		vsock_send_reset(c->vs, &ports);
	vsock_conn_free(c);
}

/* Bytes that the guest takes; what it says of its buffer is never trusted further than this. */
static uint32_t credit(const struct vsock_conn *c)
{
	const uint32_t in_flight = c->sent - c->peer_fwd;

	return in_flight < c->peer_alloc ? c->peer_alloc - in_flight : 0;
}

static bool may_read(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->readable && !c->eof &&
	       !(c->guest_closed & VSOCK_NO_RCV);
}

void vsock_conn_wake(struct vsock_conn *c)
{
	if (!c->is_known)
		return;
	if (may_read(c) && !credit(c) && !c->asked) {
		c->asked = true;
		c->pending |= VSOCK_SEND_CREDIT_REQUEST;
	}
	if (c->is_ready || !(c->pending || (may_read(c) && credit(c))))
		return;
	c->is_ready = true;
	cds_list_add_tail(&c->ready, &c->vs->ready);
	virtio_kick(&c->vs->v, VSOCK_RX);
}

void vsock_conn_host_closed(struct vsock_conn *c, unsigned what)
{
	const bool news = what & ~c->host_closed;

	c->host_closed |= what;
	if (!news || c->state != VSOCK_OPEN)
		return;
	c->pending |= VSOCK_SEND_SHUTDOWN;
	vsock_conn_wake(c);
}

void vsock_conn_forwarded(struct vsock_conn *c, uint32_t len)
{
	c->forwarded += len;
	/* The guest thinks that it has less than half of the buffer left, and there is more. */
	if (c->state == VSOCK_OPEN && c->forwarded != c->told &&
	    c->received - c->told > VSOCK_BUFFER / 2) {
		c->pending |= VSOCK_SEND_UPDATE;
		vsock_conn_wake(c);
	}
}

static bool fill(struct vsock_conn *c, struct vsock_packet *p, uint32_t room)
{
	static const uint16_t first[] = {VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE,
					 VSOCK_OP_CREDIT_UPDATE, VSOCK_OP_CREDIT_REQUEST};

	for (unsigned i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
		if (!(c->pending & 1u << i))
			continue;
		c->pending &= ~(1u << i);
		p->op = first[i];
		return true;
	}
	if (may_read(c) && credit(c)) {
		p->len = vsock_host_read(c, c->vs->piece, credit(c) < room ? credit(c) : room);
		if (p->len) {
			c->sent += p->len;
			c->vs->to_guest += p->len;
			p->op = VSOCK_OP_RW;
			return true;
		}
	}
	if (!(c->pending & VSOCK_SEND_SHUTDOWN))
		return false;
	c->pending &= ~(unsigned)VSOCK_SEND_SHUTDOWN;
	p->op = VSOCK_OP_SHUTDOWN;
	p->flags = c->host_closed;
	return true;
}

bool vsock_conn_next(struct vsock *vs, struct vsock_packet *p, uint32_t room)
{
	*p = (struct vsock_packet){
		.src_cid = VSOCK_HOST_CID, .dst_cid = vs->cid, .type = VSOCK_STREAM};
	if (vs->resets) {
		const struct vsock_ports *ports = &vs->reset[vs->reset_head];

		p->op = VSOCK_OP_RST;
		p->src_cid = ports->host_cid;
		p->type = ports->type;
		p->src_port = ports->host;
		p->dst_port = ports->guest;
		vs->reset_head = (vs->reset_head + 1) % VSOCK_RESETS;
		vs->resets--;
		return true;
	}
	while (!cds_list_empty(&vs->ready)) {
		struct vsock_conn *c = cds_list_first_entry(&vs->ready, struct vsock_conn, ready);
		bool any;

		unready(c);
		any = fill(c, p, room);
		if (any) {
			p->src_port = c->host_port;
			p->dst_port = c->guest_port;
			p->buf_alloc = VSOCK_BUFFER;
			p->fwd_cnt = c->told = c->forwarded;
		}
		vsock_conn_wake(c);
		if (any)
			return true;
	}
	return false;
}
