/*
 * Console device with one port: virtio 1.2, 5.3.
 *
 * What comes from outside waits in a small buffer until the driver has given room for it: the back
 * end never waits for the guest. What goes out stays in its ring until the back end has taken all
 * of it: the guest never runs ahead of a slow reader, and nothing of a request is lost when the
 * machine moves in the middle of one.
 */
#include "devices/virtio/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RX, TX, QUEUES };
enum { QUEUE_SIZE = 128, CONFIG_SIZE = 12, INBOX = 4096, PIECE = 4096 };
enum { PIECES = 16 /* of one request in a turn: a chain can say terabytes */ };

struct console {
	struct virtio v;
	struct chardev *chr;
	struct virtq_chain chain;
	uint8_t piece[PIECE];

	/* The loop's thread's; a reset comes between its turns. */
	uint8_t inbox[INBOX];
	uint32_t inbox_len;
	uint64_t sent; /* bytes of the next request that are out */
};

/* ---- to the guest ---- */

static void receive_queue(struct console *c)
{
	struct virtio *v = &c->v;
	unsigned budget = QUEUE_SIZE;
	bool any = false;

	for (; budget && c->inbox_len; budget--) {
		uint32_t n;

		if (!virtio_pop(v, RX, &c->chain)) {
			if (virtio_arm(v, RX))
				continue;
			break;
		}
		n = c->chain.writable_len < c->inbox_len ? (uint32_t)c->chain.writable_len
							 : c->inbox_len;
		if (!n) {
			virtio_fail(v, "a receive buffer without room");
			break;
		}
		if (!virtio_write(v, &c->chain, 0, c->inbox, n) ||
		    !virtio_push(v, RX, c->chain.head, n))
			break;
		c->inbox_len -= n;
		memmove(c->inbox, c->inbox + n, c->inbox_len);
		any = true;
	}
	if (!budget)
		virtio_kick(v, RX);
	if (!any)
		return;
	virtio_signal(v, RX);
	c->chr->ops->kick_receive(c->chr);
}

static size_t can_receive(void *opaque)
{
	const struct console *c = opaque;

	return INBOX - c->inbox_len;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
	struct console *c = opaque;

	if (len > INBOX - c->inbox_len)
		len = INBOX - c->inbox_len;
	memcpy(c->inbox + c->inbox_len, data, len);
	c->inbox_len += (uint32_t)len;
	virtio_kick(&c->v, RX);
}

/* ---- from the guest ---- */

enum sent { SENT_ALL, SENT_SOME, SENT_WRONG };

static enum sent send_one(struct console *c)
{
	const uint64_t len = c->chain.readable_len;
	unsigned pieces = PIECES;

	while (c->sent < len) {
		size_t n = len - c->sent < PIECE ? (size_t)(len - c->sent) : PIECE, taken;

		if (!pieces--) {
			virtio_kick(&c->v, TX);
			return SENT_SOME;
		}
		if (!virtio_read(&c->v, &c->chain, c->sent, c->piece, n))
			return SENT_WRONG;
		taken = c->chr->ops->write(c->chr, c->piece, n);
		c->sent += taken;
		if (taken < n)
			return SENT_SOME;
	}
	return SENT_ALL;
}

static void transmit_queue(struct console *c)
{
	struct virtio *v = &c->v;
	unsigned budget = QUEUE_SIZE;
	bool any = false;

	while (budget--) {
		enum sent sent;

		if (!virtio_pop(v, TX, &c->chain)) {
			if (virtio_arm(v, TX))
				continue;
			break;
		}
		sent = send_one(c);
		if (sent == SENT_SOME)
			virtq_unpop(&v->queue[TX]); /* the next turn goes on with it */
		if (sent != SENT_ALL)
			break;
		c->sent = 0;
		if (!virtio_push(v, TX, c->chain.head, 0))
			break;
		any = true;
	}
	if (any)
		virtio_signal(v, TX);
	if (budget == UINT32_MAX)
		virtio_kick(v, TX);
}

static void writable(void *opaque)
{
	virtio_kick(opaque, TX);
}

static void console_queue(struct virtio *v, unsigned n)
{
	if (n == RX)
		receive_queue((struct console *)v);
	else
		transmit_queue((struct console *)v);
}

/* ---- life ---- */

static void console_reset(struct virtio *v)
{
	struct console *c = (struct console *)v;

	/* The inbox is not the driver's: what was typed before it came is for it. */
	c->sent = 0;
}

static int console_post_load(struct virtio *v, const char **why)
{
	const struct console *c = (struct console *)v;

	if (c->inbox_len <= INBOX)
		return 0;
	*why = "more bytes wait than there is room for";
	return -EINVAL;
}

static void console_destroy(struct device *dev)
{
	struct console *c = (struct console *)dev;
	const struct chardev_client nobody = {0};

	c->chr->ops->attach(c->chr, &nobody);
	virtio_exit(&c->v);
	free(c);
}

static const struct virtio_ops console_ops = {.queue = console_queue,
					      .reset = console_reset,
					      .post_load = console_post_load,
					      .destroy = console_destroy};
static const struct field console_fields[] = {
	FIELD_BLOB(struct console, inbox, 1),
	FIELD_SCALAR(struct console, inbox_len, FIELD_U32, 1),
	FIELD_SCALAR(struct console, sent, FIELD_U64, 1),
	FIELD_END,
};
static const struct state_desc console_state = {
	.name = "console", .version = 1, .fields = console_fields};
static const struct virtio_model console_model = {.state_name = "virtio-console",
						  .id = VIRTIO_CONSOLE,
						  .class_code = 0x078000,
						  .queues = QUEUES,
						  .queue_size = QUEUE_SIZE,
						  .config_size = CONFIG_SIZE,
						  .ops = &console_ops,
						  .state = &console_state,
						  .object_size = sizeof(struct console)};

int virtio_console_create(struct device **out, const struct virtio_config *config,
			  struct chardev *chr)
{
	struct console *c = calloc(1, sizeof(*c));
	struct chardev_client client;
	int ret;

	if (!c)
		return -ENOMEM;
	c->chr = chr;
	ret = virtio_init(&c->v, &console_model, config);
	if (ret) {
		free(c);
		return ret;
	}
	client = (struct chardev_client){can_receive, receive, writable, c};
	chr->ops->attach(chr, &client);
	*out = &c->v.dev;
	return 0;
}
