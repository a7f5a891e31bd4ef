/*
 * The socket device (virtio 1.2, 5.10), between its own files. vsock.c has the queues, vsock_conn.c
 * the connections and what the guest hears of them, vsock_guest.c what it says, vsock_host.c the
 * unix sockets.
 *
 * Everything is the event loop's thread's, without a lock, but for `lost` and `event_owed`. A
 * connection may be freed by whatever is called with it: a function that may do so says it.
 */
#ifndef DEVICES_VIRTIO_VSOCK_H
#define DEVICES_VIRTIO_VSOCK_H

#include <urcu/list.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/vsock_packet.h"

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };
enum {
	VSOCK_CONNS = 512,
	/* What a guest may send before the host program has taken any of it: 64 MiB for all. */
	VSOCK_BUFFER = 128 << 10,
	VSOCK_BUCKETS = 256,
	VSOCK_PIECE = 64 << 10, /* bytes that are moved at once */
	/* Refusals that wait for the guest's buffers. From the first number on nothing more is
	 * taken from the guest, and what is left to refuse then are connections that are there. */
	VSOCK_RESETS_STALL = 256,
	VSOCK_RESETS = VSOCK_RESETS_STALL + VSOCK_CONNS,
};

enum vsock_state {
	VSOCK_GREETING,	 /* a host program that has not said CONNECT; the guest knows nothing */
	VSOCK_REQUESTED, /* the guest has not answered yet, or not even been asked */
	VSOCK_OPEN,
	VSOCK_DRAINING, /* over for the guest; the host program has not taken all of it yet */
};
/* Packets that a connection owes to the guest, in the order in which they go. */
enum {
	VSOCK_SEND_REQUEST = 1 << 0,
	VSOCK_SEND_RESPONSE = 1 << 1,
	VSOCK_SEND_UPDATE = 1 << 2,
	VSOCK_SEND_CREDIT_REQUEST = 1 << 3,
	VSOCK_SEND_SHUTDOWN = 1 << 4, /* behind the data */
};

struct vsock;
struct vsock_conn {
	struct vsock *vs;
	struct cds_list_head all;    /* the oldest first */
	struct cds_list_head ready;  /* has something for the guest; each gets a packet in turn */
	struct cds_list_head bucket; /* those that the guest knows */
	bool is_ready, is_known;
	enum vsock_state state;
	uint32_t guest_port, host_port;
	unsigned pending;		    /* VSOCK_SEND_* */
	unsigned guest_closed, host_closed; /* VSOCK_NO_*: what each side has told the other */

	int fd;
	struct watch *watch; /* edge-triggered */
	bool readable;	     /* there may be something to read */
	bool eof, hup;	     /* read to its end; closed for good */
	bool out_ended;	     /* the host program has heard that nothing more comes */
	uint8_t *out;	     /* a ring of VSOCK_BUFFER bytes for the host program; NULL: empty */
	uint32_t out_head, out_len;

	/* 5.10.6.3; all of it wraps around. */
	uint32_t peer_alloc, peer_fwd, sent; /* to the guest */
	uint32_t received, forwarded, told;  /* from it; told: what it last heard of `forwarded` */
	bool asked;			     /* for credit, since the guest last gave some */
};

struct vsock_ports {
	uint64_t host_cid; /* that the guest has spoken to */
	uint32_t guest, host;
	uint16_t type;
};

struct vsock {
	struct virtio v;
	uint64_t cid;
	struct backend_host host;
	struct work *lost_work;
	/* Set by resets on any thread: no connection of before is there any more. */
	_Atomic bool lost;
	_Atomic bool event_owed; /* VIRTIO_VSOCK_EVENT_TRANSPORT_RESET */

	int listen_fd, dir_fd; /* listen_fd -1: another process may listen */
	int (*listen)(void *opaque);
	void (*unlisten)(void *opaque);
	void *opaque; /* of these two */
	char *path;
	const char *name; /* in the folder of dir_fd */
	struct watch *listen_watch;
	struct vtimer *listen_timer; /* the host had no descriptor left */
	bool listen_paused;
	uint32_t next_port;

	struct cds_list_head all, ready;
	struct cds_list_head bucket[VSOCK_BUCKETS];
	unsigned conns;
	struct vsock_ports reset[VSOCK_RESETS];
	unsigned reset_head, resets;
	bool stalled; /* the transmit queue waits for `resets` to go */

	uint64_t opened, refused, bad; /* connections, connections, packets */
	uint64_t to_guest, from_guest; /* bytes */
	struct virtq_chain chain;
	uint8_t piece[VSOCK_PIECE];
};

/* ---- vsock.c ---- */

bool vsock_driver_runs(struct vsock *vs);
/* To be called first in whatever the loop calls: after a reset no connection is left. True: there
 * was one, and every struct vsock_conn is gone. */
bool vsock_settle(struct vsock *vs);

/* ---- vsock_conn.c ---- */

/* fd is owned afterwards, also when NULL comes back: no memory, or no room. */
struct vsock_conn *vsock_conn_new(struct vsock *vs, int fd, enum vsock_state state);
void vsock_conn_free(struct vsock_conn *c);
void vsock_conn_free_all(struct vsock *vs);
/* A place for one more, at the cost of one that nobody needs if it must be. */
bool vsock_conn_room(struct vsock *vs);
struct vsock_conn *vsock_conn_find(struct vsock *vs, uint32_t guest_port, uint32_t host_port);
/* From now on the guest knows it by these ports. */
void vsock_conn_publish(struct vsock_conn *c, uint32_t guest_port, uint32_t host_port);
/* A port of the host that is not in use with this one of the guest. */
uint32_t vsock_conn_port(struct vsock *vs, uint32_t guest_port);
/* The guest has heard its last of it, and may use the ports again. */
void vsock_conn_unpublish(struct vsock_conn *c);
struct vsock_ports vsock_conn_ports(const struct vsock_conn *c);
/* RST to whoever is there. */
void vsock_send_reset(struct vsock *vs, const struct vsock_ports *ports);
/* It ends here and now: the guest is told, if it knows it. Frees. */
void vsock_conn_reset(struct vsock_conn *c);
/* Something may have changed that the guest must hear of. */
void vsock_conn_wake(struct vsock_conn *c);
/* The host program does no more of these (VSOCK_NO_*). */
void vsock_conn_host_closed(struct vsock_conn *c, unsigned what);
/* `len` bytes are out of the buffer: credit for the guest. */
void vsock_conn_forwarded(struct vsock_conn *c, uint32_t len);
/* The receive queue: the next packet for the guest, its payload (at most `room` bytes) in
 * vs->piece. False: there is none. */
bool vsock_conn_next(struct vsock *vs, struct vsock_packet *p, uint32_t room);

/* ---- vsock_guest.c ---- */

/* The transmit queue: a packet whose payload begins at VSOCK_HEADER of vs->chain. */
void vsock_packet_in(struct vsock *vs, const struct vsock_packet *p);

/* ---- vsock_host.c ---- */

int vsock_host_init(struct vsock *vs, const struct virtio_vsock_config *config);
void vsock_host_exit(struct vsock *vs);
/* Callers of the guest are served by this process, or not; connections stay. Both may come twice.
 * 0 or -errno. */
int vsock_host_acquire(struct vsock *vs);
void vsock_host_release(struct vsock *vs);
void vsock_host_listen(struct vsock *vs, bool on);
/* What the loop calls for a connection's descriptor. May free. */
void vsock_host_event(void *arg, uint32_t events);
/* A connected socket for the guest's connection to `port`, or -errno. */
int vsock_host_connect(struct vsock *vs, uint32_t port);
/* The guest has accepted: 0, or -errno: the host program is not told. */
int vsock_host_accepted(struct vsock_conn *c);
/* Takes all of it. False: no memory, the connection must be reset. */
bool vsock_host_write(struct vsock_conn *c, const uint8_t *data, uint32_t len);
/* Goes on with what waits, and with the end that follows it. May free. */
void vsock_host_flush(struct vsock_conn *c);
/* At most len bytes; 0: nothing now (readable is false) or nothing ever (eof is true). */
uint32_t vsock_host_read(struct vsock_conn *c, uint8_t *data, uint32_t len);

#endif
