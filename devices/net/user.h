/* Between the parts of the user mode back end: the stack (user.c), its descriptors (user_poll.c),
 * frames (user_frame.c), forwarded ports (user_forward.c). Nothing of this is for others. */
#ifndef DEVICES_NET_USER_H
#define DEVICES_NET_USER_H

#include <libslirp.h>

#include "devices/net/net.h"

#define USER_PREFIX6 0xfe, 0xc0 /* and zeroes: 64 bits */

enum {
	USER_MTU = 1500,
	/* What waits for the guest. A window of each connection fits; beyond it frames are lost. */
	USER_BYTES_MAX = 32 << 20,
	USER_FRAMES_MAX = 16384,
	USER_DATAGRAMS = 8, /* that are put together at a time */
};

struct user_packet {
	struct user_packet *next;
	size_t len;
	uint8_t data[]; /* header first */
};

/* A descriptor of the stack's. */
struct user_fd {
	uint32_t events; /* registered; 0: not */
	uint32_t happened;
	unsigned round;	 /* in which it was last asked for */
	unsigned active; /* place in the list of those registered */
};

struct user_forward {
	struct net_forward what;
	bool open;
};

struct user {
	struct net net;
	struct net_client client; /* without functions: nobody */
	struct backend_host host;
	Slirp *slirp;

	/* The stack's descriptors, in an epoll of their own: one turn looks at all that are ready.
	 */
	int epoll_fd;
	struct watch *watch;
	struct work *work; /* a turn, soon */
	struct vtimer *timer;
	struct user_fd *fds; /* by descriptor */
	int fds_len;
	int *active;
	unsigned active_len, active_cap;
	unsigned round;
	uint64_t last_input; /* guest time of the last frame of the guest's */

	struct user_packet *first, **last;
	size_t bytes;
	unsigned frames;
	bool wanted;
	unsigned accepts; /* offloads that the driver has agreed to receive */
	uint16_t fragment_id;
	uint8_t from_guest[NET_PACKET_MAX];

	struct user_datagram *datagram[USER_DATAGRAMS];

	struct user_forward *forward;
	unsigned forwards;
	bool forwards6; /* one of them wants to know the guest's IPv6 address */
	bool known6;
	struct in6_addr guest6; /* until then fec0::f */
};

/* user_frame.c */
void user_input(struct user *u, const struct iovec *iov, unsigned iovs);
ssize_t user_output(const void *frame, size_t len, void *opaque); /* the stack's send_packet */
void user_drop_all(struct user *u);
/* The device is told, if there is something for it. */
void user_notify(struct user *u);

/* Length, identification and fragment of a header without options, and its checksum. */
void user_set_ipv4(uint8_t *ip, unsigned len, unsigned id, unsigned fragment);

/* user_reassemble.c */
bool user_is_fragment(const uint8_t *frame, size_t len);
/* Takes a fragment; when it was the last that was missing, the datagram stands in its place (there
 * is room for NET_FRAME_MAX): its length; else 0. */
size_t user_reassemble(struct user *u, uint8_t *frame, size_t len);
void user_reassemble_free(struct user *u);

/* user_forward.c */
int user_forwards_open(struct user *u, char *why, size_t why_len);
void user_forwards_close(struct user *u);
/* Looks for the guest's IPv6 address in what it sends. */
void user_forwards_learn(struct user *u, const uint8_t *frame, size_t len);
void user_forwards_inspect(const struct user *u, const struct inspector *to);

/* user_poll.c */
/* Asks the stack for its descriptors and timers again. Returns a descriptor that is new, or -1. */
int user_refill(struct user *u);
/* Gives it what has happened; of a struct user. */
void user_turn(void *opaque);
/* It is about to be closed. */
void user_forget(struct user *u, int fd);

static inline uint64_t user_now(const struct user *u)
{
	return u->host.clock->now(u->host.clock->opaque);
}

#endif
