/*
 * virtio-vsock between a hostile guest and careless host programs: an input is a program of packets
 * that make sense and packets that make none, of host programs that call, serve, write, read, close
 * and keep still, of receive buffers given and withheld, resets and moves. Beyond the sanitizers'
 * judgement: the loop comes to rest, the number of connections is bounded, and after a reset there
 * is nothing left.
 */
#include "tests/fuzz/fuzz_util.h"
#include "tests/unit/vsock_util.h"

enum { PORTS = 3, HOSTS = 8 };

struct machine {
	struct vs s;
	int listener[PORTS]; /* of the host's ports 0.. */
	int host[HOSTS];     /* host programs' ends; -1 */
	struct field_buf saved;
};

enum op {
	OP_PACKET,
	OP_ANSWER, /* what a well-behaved guest says to the packet that came last */
	OP_TAKE,
	OP_BUFFER,
	OP_DIAL,
	OP_ACCEPT,
	OP_WRITE,
	OP_READ,
	OP_CLOSE,
	OP_SHUTDOWN,
	OP_DRIVE,
	OP_RESET,
	OP_MOVE,
	OP_DAMAGE,
	OP_QUIESCE,
	OP_MEMORY,
	OP_COUNT,
};

static char folder[64];

static void remove_folder(void)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	if (system(command))
		return;
}

static void start(struct machine *m)
{
	if (!folder[0]) {
		snprintf(folder, sizeof(folder), "/tmp/fuzz-vsock-XXXXXX");
		must(mkdtemp(folder) != NULL);
		atexit(remove_folder);
	}
	dev_log_set_sink(fuzz_quiet, NULL);
	memcpy(m->s.dir, folder, sizeof(m->s.dir));
	vs_open(&m->s);
	m->s.t.size = 16;
}

static struct vsock_packet random_packet(struct input *in)
{
	const uint8_t a = (uint8_t)take_bytes(in, 1), b = (uint8_t)take_bytes(in, 1);

	return (struct vsock_packet){.src_cid = VS_CID + (b == 0xff),
				     .dst_cid = VSOCK_HOST_CID + (b == 0xfe),
				     .src_port = a & 3,
				     .dst_port = a >> 2 & 3,
				     .type = VSOCK_STREAM + (b == 0xfd),
				     .op = a >> 4 & 15,
				     .flags = b & 3,
				     .len = b >> 4 == 15 ? b << 9 : b,
				     .buf_alloc = (uint32_t)(b << (a >> 5)),
				     .fwd_cnt = (uint32_t)take_bytes(in, b >> 7)};
}

/* A length beyond what memory has room for is a lie. */
static void put(struct machine *m, const struct vsock_packet *p)
{
	static const uint8_t zeroes[0x1c000];
	const uint32_t len = p->len < sizeof(zeroes) ? p->len : sizeof(zeroes);

	vs_put(&m->s, p, zeroes, len);
	while (vt_used(&m->s.t, VS_TX, NULL) >= 0)
		;
}

static void answer(struct machine *m, uint32_t credit)
{
	struct vsock_packet p = {.src_cid = VS_CID,
				 .dst_cid = VSOCK_HOST_CID,
				 .src_port = m->s.p.dst_port,
				 .dst_port = m->s.p.src_port,
				 .type = VSOCK_STREAM,
				 .buf_alloc = credit << 4};

	switch (m->s.p.op) {
	case VSOCK_OP_REQUEST: p.op = VSOCK_OP_RESPONSE; break;
	case VSOCK_OP_SHUTDOWN: p.op = m->s.p.flags == 3 ? VSOCK_OP_RST : VSOCK_OP_SHUTDOWN; break;
	default: p.op = VSOCK_OP_RW, p.len = credit & 0xff; break;
	}
	put(m, &p);
}

/* The next packet for the guest; its buffer is not offered again. */
static void take_packet(struct machine *m)
{
	struct vsock_wire wire;
	unsigned head;
	int64_t len = vt_used(&m->s.t, VS_RX, &head);

	if (len < VSOCK_HEADER || head >= VS_BUFFERS)
		return;
	memcpy(&wire, m->s.t.ram + VS_RX_AT + 4096 * head, VSOCK_HEADER);
	m->s.p = vsock_decode(&wire);
}

static int free_host(struct machine *m)
{
	for (int i = 0; i < HOSTS; i++)
		if (m->host[i] < 0)
			return i;
	return 0;
}

static void hang_up(struct machine *m, int i)
{
	if (m->host[i] >= 0)
		close(m->host[i]);
	m->host[i] = -1;
}

static void host_step(struct machine *m, enum op op, struct input *in)
{
	static const char *const lines[] = {
		"CONNECT 1\n",		 "CONNECT 2\nhello", "CONN", "\n", "CONNECT 0\n", "",
		"CONNECT 99999999999\n", "CONNECT 3"};
	static uint8_t data[20000];
	const uint8_t r = (uint8_t)take_bytes(in, 1);
	const int fresh = free_host(m), i = r & (HOSTS - 1);

	switch (op) {
	case OP_DIAL:
		hang_up(m, fresh);
		m->host[fresh] = vs_dial(&m->s, lines[r % 8]);
		break;
	case OP_ACCEPT:
		hang_up(m, fresh);
		m->host[fresh] = accept(m->listener[r % PORTS], NULL, NULL);
		break;
	case OP_WRITE:
		if (m->host[i] >= 0 &&
		    send(m->host[i], data, (size_t)(r >> 3) * 600, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			errno = 0;
		break;
	case OP_READ:
		if (m->host[i] >= 0 &&
		    recv(m->host[i], data, r & 8 ? sizeof(data) : r, MSG_DONTWAIT) < 0)
			errno = 0;
		memset(data, 0, sizeof(data));
		break;
	case OP_SHUTDOWN:
		if (m->host[i] >= 0)
			shutdown(m->host[i], r & 8 ? SHUT_RD : SHUT_WR);
		break;
	default: hang_up(m, i); break;
	}
}

static void step(struct machine *m, struct input *in)
{
	const uint8_t head = (uint8_t)take_bytes(in, 1);
	struct device *d = m->s.t.dev;
	struct vsock_packet p;
	uint64_t r;

	switch (head % OP_COUNT) {
	case OP_PACKET:
		p = random_packet(in);
		put(m, &p);
		break;
	case OP_ANSWER: answer(m, (uint32_t)take_bytes(in, 2)); break;
	case OP_TAKE: take_packet(m); break;
	case OP_BUFFER:
		vs_offer_rx(&m->s, head >> 4);
		vt_notify(&m->s.t, VS_RX);
		break;
	case OP_DRIVE:
		vt_cfg_put(&m->s.t, 0x10, 4, VT_BAR);
		vs_drive(&m->s, head >> 4);
		break;
	case OP_RESET: d->ops->reset(d); break;
	case OP_MOVE: fuzz_move(d, &m->saved); break;
	case OP_DAMAGE:
		if (!fuzz_damage(d, &m->saved, in)) {
			vs_close(&m->s);
			start(m);
		}
		break;
	case OP_QUIESCE: (head >> 7 ? d->ops->prepare : d->ops->acquire)(d); break;
	case OP_MEMORY:
		r = take_bytes(in, 2);
		m->s.t.ram[r % 0xc000] = (uint8_t)take_bytes(in, 1);
		vt_notify(&m->s.t, head >> 6);
		break;
	default: host_step(m, head % OP_COUNT, in); break;
	}
	vs_turn(&m->s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct input in = {data, len < 2048 ? len : 2048};

	if (!m)
		return 0;
	start(m);
	for (unsigned i = 0; i < PORTS; i++)
		m->listener[i] = vs_listen_port(&m->s, i);
	for (unsigned i = 0; i < HOSTS; i++)
		m->host[i] = -1;
	vs_drive(&m->s, VS_BUFFERS - 1);
	while (in.left) {
		step(m, &in);
		must(vs_connections(&m->s) <= 512);
	}
	vs_run(&m->s);
	m->s.t.dev->ops->reset(m->s.t.dev);
	vs_run(&m->s);
	must(vs_connections(&m->s) == 0);
	for (unsigned i = 0; i < PORTS; i++)
		close(m->listener[i]);
	for (int i = 0; i < HOSTS; i++)
		hang_up(m, i);
	vs_close(&m->s);
	field_buf_free(&m->saved);
	must(dev_failures == 0);
	free(m);
	return 0;
}

/* Noise behind a connection from each side. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	static const uint8_t begin[] = {OP_PACKET, 0x14, 0xf0,	  OP_ACCEPT, 1,	   OP_TAKE,
					OP_DIAL,   0,	 OP_TAKE, OP_ANSWER, 0xff, 0xff};
	size_t len = fuzz_noise(n, 55, buf, max);

	if (len)
		memcpy(buf, begin, sizeof(begin));
	return len;
}
