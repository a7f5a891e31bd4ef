/* A socket device under test: the mock machine of virtio_util.h, real unix sockets in a folder of
 * the test's, a real epoll that a test turns by hand, and a driver that speaks packets. */
#ifndef TESTS_UNIT_VSOCK_UTIL_H
#define TESTS_UNIT_VSOCK_UTIL_H

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/virtio/vsock_packet.h"
#include "tests/unit/virtio_util.h"

enum { VS_RX, VS_TX, VS_EVENT, VS_QUEUES };
enum { VS_CID = 5, VS_BUFFERS = 16, VS_ROOM = 4096 - VSOCK_HEADER };
#define VS_BUFFER (128u << 10) /* what the device holds for a slow host program */
#define VS_RX_AT  0x10000u     /* 16 buffers of 4096 bytes */
#define VS_TX_AT  0x21000u
#define VS_V1	  (1ULL << 32)

struct watch {
	struct vs *vs;
	int fd;
	void (*fn)(void *arg, uint32_t events); /* NULL: deleted */
	void *arg;
	struct watch *next;
};

struct vs {
	struct vt t;
	struct backend_host host;
	struct watch_source watches;
	struct watch *deleted;
	void (*post)(struct work *work); /* instead of the mock's; may be NULL */
	int epoll, watched;
	char dir[64], path[96];
	/* The packet that came last. */
	struct vsock_packet p;
	uint8_t data[4096];
};

static inline int vs_watch_add(void *opaque, int fd, uint32_t events,
			       void (*fn)(void *arg, uint32_t events), void *arg,
			       struct watch **out)
{
	struct vs *s = opaque;
	struct watch *w = malloc(sizeof(*w));
	struct epoll_event event = {.events = events, .data.ptr = w};

	*w = (struct watch){s, fd, fn, arg, NULL};
	CHECK_EQ(epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event), 0);
	s->watched++;
	*out = w;
	return 0;
}

static inline int vs_watch_mod(struct watch *w, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = w};

	return epoll_ctl(w->vs->epoll, EPOLL_CTL_MOD, w->fd, &event);
}

static inline void vs_watch_del(struct watch *w)
{
	CHECK_EQ(epoll_ctl(w->vs->epoll, EPOLL_CTL_DEL, w->fd, NULL), 0);
	w->fn = NULL;
	w->next = w->vs->deleted;
	w->vs->deleted = w;
	w->vs->watched--;
}

/* A round of what the loop waits for: how much there was. */
static inline unsigned vs_poll(struct vs *s)
{
	struct epoll_event events[8];
	int n = epoll_wait(s->epoll, events, 8, 0);

	for (int i = 0; i < n; i++) {
		struct watch *w = events[i].data.ptr;

		if (w->fn)
			w->fn(w->arg, events[i].events);
	}
	while (s->deleted) {
		struct watch *w = s->deleted;

		s->deleted = w->next;
		free(w);
	}
	return n > 0 ? (unsigned)n : 0;
}

/* One round of the loop's: how much there was to do. */
static inline unsigned vs_turn(struct vs *s)
{
	unsigned n = vs_poll(s);

	return n + vt_run(&s->t, 20);
}

/* Until nothing is left to do. */
static inline void vs_run(struct vs *s)
{
	unsigned turns = 0;

	while (vs_turn(s) && turns < 3000)
		turns++;
	CHECK(turns < 3000);
}

static inline int vs_listen(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	unlink(path);
	CHECK_EQ(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	CHECK_EQ(listen(fd, 1000), 0);
	return fd;
}

/* What a host program does that serves the guest's port. */
static inline int vs_listen_port(struct vs *s, unsigned port)
{
	char path[108];

	snprintf(path, sizeof(path), "%s_%u", s->path, port);
	return vs_listen(path);
}

/* What a host program does that calls the guest. */
static inline int vs_dial(struct vs *s, const char *greeting)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", s->path);
	CHECK_EQ(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	if (greeting)
		CHECK_EQ(write(fd, greeting, strlen(greeting)), strlen(greeting));
	vs_run(s);
	return fd;
}

/* In a folder that is there. */
static inline void vs_open(struct vs *s)
{
	struct virtio_config config = vt_start(&s->t, "vsock0");
	struct work_source works = *config.works;
	struct virtio_vsock_config vsock;

	if (s->post)
		works.post = s->post;
	config.works = &works;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->watches = (struct watch_source){vs_watch_add, vs_watch_mod, vs_watch_del, s};
	s->host = (struct backend_host){
		.watches = &s->watches, .timers = &s->t.w.timers, .clock = &s->t.w.clock};
	snprintf(s->path, sizeof(s->path), "%s/v", s->dir);
	vsock = (struct virtio_vsock_config){
		.cid = VS_CID, .path = s->path, .listen_fd = vs_listen(s->path), .host = &s->host};
	CHECK_EQ(virtio_vsock_create(&s->t.dev, &config, &vsock), 0);
}

static inline void vs_close(struct vs *s)
{
	vt_stop(&s->t);
	CHECK_EQ(s->watched, 0);
	vs_turn(s);
	close(s->epoll);
}

static inline void vs_start(struct vs *s)
{
	const char *tmp = getenv("TMPDIR");

	/* An address of a socket has room for 107 bytes. */
	snprintf(s->dir, sizeof(s->dir), "%s/vs-XXXXXX", tmp && strlen(tmp) < 48 ? tmp : "/tmp");
	CHECK(mkdtemp(s->dir) != NULL);
	vs_open(s);
}

static inline void vs_stop(struct vs *s)
{
	char command[128];

	vs_close(s);
	snprintf(command, sizeof(command), "rm -rf %s", s->dir);
	CHECK_EQ(system(command), 0);
}

/* ---- the driver ---- */

static inline void vs_offer_rx(struct vs *s, unsigned n)
{
	vt_desc(&s->t, VT_DESC(VS_RX), n, VS_RX_AT + 4096 * n, 4096, 2, 0);
	vt_offer(&s->t, VS_RX, n);
}

static inline void vs_drive(struct vs *s, unsigned buffers)
{
	vt_drive(&s->t, VS_QUEUES, VS_V1, true);
	for (unsigned i = 0; i < buffers; i++)
		vs_offer_rx(s, i);
	vt_notify(&s->t, VS_RX);
}

static inline void vs_put(struct vs *s, const struct vsock_packet *p, const void *data,
			  uint32_t len)
{
	const struct vsock_wire wire = vsock_encode(p);

	memcpy(s->t.ram + VS_TX_AT, &wire, VSOCK_HEADER);
	if (len)
		memcpy(s->t.ram + VS_TX_AT + VSOCK_HEADER, data, len);
	vt_desc(&s->t, VT_DESC(VS_TX), 0, VS_TX_AT, VSOCK_HEADER + len, 0, 0);
	vt_offer(&s->t, VS_TX, 0);
	vt_notify(&s->t, VS_TX);
}

/* A packet of the guest's with a credit of 64 KiB, and what follows from it. */
static inline void vs_send(struct vs *s, unsigned op, uint32_t guest, uint32_t host, uint32_t flags,
			   const void *data, uint32_t len)
{
	const struct vsock_packet p = {.src_cid = VS_CID,
				       .dst_cid = VSOCK_HOST_CID,
				       .src_port = guest,
				       .dst_port = host,
				       .len = len,
				       .type = VSOCK_STREAM,
				       .op = (uint16_t)op,
				       .flags = flags,
				       .buf_alloc = 65536};

	vs_put(s, &p, data, len);
	vs_run(s);
	CHECK_EQ(vt_used(&s->t, VS_TX, NULL), 0);
}

/* The next packet for the guest is in s->p, s->data; its buffer is offered again. The operation; 0:
 * there is none. */
static inline unsigned vs_next(struct vs *s)
{
	struct vsock_wire wire;
	unsigned head;
	int64_t len = vt_used(&s->t, VS_RX, &head);

	if (len < 0)
		return 0;
	CHECK(head < VS_BUFFERS && len >= VSOCK_HEADER);
	memcpy(&wire, s->t.ram + VS_RX_AT + 4096 * head, VSOCK_HEADER);
	s->p = vsock_decode(&wire);
	CHECK_EQ(len, VSOCK_HEADER + s->p.len);
	CHECK_EQ(s->p.dst_cid, VS_CID);
	memcpy(s->data, s->t.ram + VS_RX_AT + 4096 * head + VSOCK_HEADER, VS_ROOM);
	vs_offer_rx(s, head);
	vt_notify(&s->t, VS_RX);
	return s->p.op;
}

/* ---- what a test looks at ---- */

/* What an inspection says. */
static struct {
	uint64_t connections, opened, refused, bad;
} vs_seen;

static inline void vs_counter(void *opaque, const char *name, uint64_t value)
{
	(void)opaque;
	if (!strcmp(name, "connections"))
		vs_seen.connections = value;
	else if (!strcmp(name, "opened"))
		vs_seen.opened = value;
	else if (!strcmp(name, "refused"))
		vs_seen.refused = value;
	else if (!strcmp(name, "bad-packets"))
		vs_seen.bad = value;
}

static inline void vs_text(void *opaque, const char *name, const char *value)
{
	(void)opaque, (void)name, (void)value;
}

static inline uint64_t vs_connections(struct vs *s)
{
	const struct inspector to = {vs_counter, vs_text, NULL};

	s->t.dev->ops->inspect(s->t.dev, &to);
	return vs_seen.connections;
}

/* Whole, or what there is: -1 for nothing yet, 0 for the end. */
static inline ssize_t vs_take(int fd, void *data, size_t len)
{
	return recv(fd, data, len, MSG_DONTWAIT);
}

/* The guest connects to `port`, which is served by `listener`: the host program's end. */
static inline int vs_guest_connects(struct vs *s, int listener, uint32_t guest_port, uint32_t port)
{
	int fd;

	vs_send(s, VSOCK_OP_REQUEST, guest_port, port, 0, NULL, 0);
	fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0);
	CHECK_EQ(vs_next(s), VSOCK_OP_RESPONSE);
	CHECK_EQ(s->p.src_cid, VSOCK_HOST_CID);
	CHECK_EQ(s->p.src_port, port);
	CHECK_EQ(s->p.dst_port, guest_port);
	CHECK_EQ(s->p.buf_alloc, VS_BUFFER);
	CHECK_EQ(s->p.fwd_cnt, 0);
	CHECK_EQ(vs_next(s), 0);
	return fd;
}

#endif
