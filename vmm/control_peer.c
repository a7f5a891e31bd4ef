/* One connection to the control socket: bytes in, messages out of them; lines out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/control_internal.h"

/* More than this waiting for its reading: the client's next command waits as well. */
#define OUTPUT_ENOUGH 65536

static void watch(struct control_peer *c)
{
	const bool read = !c->ended && !c->closing && !c->pending &&
			  (!c->hand_over || c->open_line) && c->out_len < OUTPUT_ENOUGH;
	const uint32_t events = (read ? EPOLLIN : 0u) | (c->out_len ? EPOLLOUT : 0u);

	if (c->entry && events != c->events)
		loop_fd_mod(c->entry, events);
	c->events = events;
}

/* ---- out -------------------------------------------------------------------------------- */

static bool make_room(char **buf, size_t *room, size_t want)
{
	size_t n = *room ? *room : 1024;
	char *more;

	while (n < want)
		n *= 2;
	if (n == *room)
		return true;
	more = realloc(*buf, n);
	if (!more)
		return false;
	*buf = more;
	*room = n;
	return true;
}

void peer_write(struct control_peer *c)
{
	while (c->out_len && c->fd >= 0) {
		ssize_t n =
			send(c->fd, c->out + c->out_head, c->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			peer_close(c);
			return;
		}
		c->out_head += (size_t)n;
		c->out_len -= (size_t)n;
	}
	if (!c->out_len)
		c->out_head = 0;
}

void peer_send(struct control_peer *c, json_t *message)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(message);
	if (c->fd < 0 || c->closing) {
		free(text);
		return;
	}
	if (c->out_head) {
		memmove(c->out, c->out + c->out_head, c->out_len);
		c->out_head = 0;
	}
	if (!text || c->out_len + len + 1 > CONTROL_OUTPUT_MAX ||
	    !make_room(&c->out, &c->out_room, c->out_len + len + 1)) {
		free(text);
		peer_close(c);
		return;
	}
	memcpy(c->out + c->out_len, text, len);
	c->out[c->out_len + len] = '\n';
	c->out_len += len + 1;
	free(text);
	peer_write(c);
	if (c->fd >= 0)
		watch(c);
}

static void hand_over(struct control_peer *c)
{
	void (*fn)(void *, int, const uint8_t *, size_t) = c->hand_over;
	int fd = c->fd;

	c->hand_over = NULL;
	loop_fd_del(c->entry);
	c->entry = NULL;
	c->fd = -1;
	fn(c->hand_over_opaque, fd, (const uint8_t *)c->in, c->in_len);
	peer_close(c);
}

void peer_flush(struct control_peer *c)
{
	peer_write(c);
	if (c->fd < 0)
		return;
	if (!c->out_len && c->hand_over && (!c->open_line || c->ended))
		hand_over(c);
	else if (!c->out_len && (c->closing || (c->ended && !c->pending)))
		peer_close(c);
	else
		watch(c);
}

/* ---- in --------------------------------------------------------------------------------- */

/* The length of the first message that is whole, its end included; 0: none is yet. Lines are the
 * rule, but clients of QMP may leave the line feed out: an object ends with its last brace. */
static size_t message_length(struct control_peer *c)
{
	for (; c->scanned < c->in_len; c->scanned++) {
		const char byte = c->in[c->scanned];

		if (byte == '\n')
			goto found;
		if (c->in_string) {
			c->in_string = byte != '"' || c->escaped;
			c->escaped = byte == '\\' && !c->escaped;
		} else if (byte == '"') {
			c->in_string = c->depth > 0;
		} else if (byte == '{' || byte == '[') {
			c->depth++;
		} else if ((byte == '}' || byte == ']') && c->depth && !--c->depth) {
			goto found;
		}
	}
	return 0;
found:
	c->open_line = c->in[c->scanned] != '\n';
	c->depth = 0;
	c->in_string = c->escaped = false;
	return c->scanned + 1;
}

static bool blank(const char *text, size_t len)
{
	while (len && strchr(" \t\r\n", text[len - 1]) && text[len - 1])
		len--;
	return !len;
}

/* What follows a hand-over begins behind the line feed, which may come later than the brace. */
static void end_line(struct control_peer *c)
{
	size_t n = 0;

	while (n < c->in_len && c->open_line) {
		if (c->in[n] == ' ' || c->in[n] == '\r' || c->in[n] == '\n')
			c->open_line = c->in[n++] != '\n';
		else
			c->open_line = false;
	}
	c->in_len -= n;
	memmove(c->in, c->in + n, c->in_len);
}

/* Says whether there was one. */
static bool handle_messages(struct control_peer *c)
{
	bool any = false;
	size_t len;

	while (c->fd >= 0 && !c->closing && !c->pending && !c->hand_over &&
	       c->out_len < OUTPUT_ENOUGH && (len = message_length(c))) {
		/* A copy: the answer may close the client. */
		char *message = blank(c->in, len) ? NULL : strndup(c->in, len);
		const bool control_zero = message && strlen(message) != len;

		any = true;
		c->in_len -= len;
		memmove(c->in, c->in + len, c->in_len);
		c->scanned = 0;
		if (control_zero)
			peer_send(c, control_error(-EINVAL, "a NUL byte in a message"));
		else if (message)
			control_message(c, message, len);
		free(message);
	}
	if (c->fd < 0 || c->closing || c->in_len < CONTROL_MESSAGE_MAX || c->pending ||
	    c->hand_over || c->out_len >= OUTPUT_ENOUGH)
		return any;
	peer_send(c, control_error(-EMSGSIZE, "a message has at most 65536 bytes"));
	c->closing = true;
	return any;
}

static void read_some(struct control_peer *c)
{
	ssize_t n;

	if (!make_room(&c->in, &c->in_room,
		       c->in_len + 4096 < CONTROL_MESSAGE_MAX ? c->in_len + 4096
							      : CONTROL_MESSAGE_MAX)) {
		peer_close(c);
		return;
	}
	n = recv(c->fd, c->in + c->in_len,
		 (c->in_room < CONTROL_MESSAGE_MAX ? c->in_room : CONTROL_MESSAGE_MAX) - c->in_len,
		 MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		c->ended = true;
	else
		c->in_len += (size_t)n;
}

void peer_go_on(struct control_peer *c)
{
	/* Those that wait for their turn since the output was full get it once it is written. */
	do {
		peer_write(c);
	} while (c->fd >= 0 && handle_messages(c));
	if (c->hand_over)
		end_line(c);
	if (c->fd >= 0)
		peer_flush(c);
}

static void on_event(void *arg, uint32_t events)
{
	struct control_peer *c = arg;

	if (events & EPOLLIN && c->events & EPOLLIN)
		read_some(c);
	else if (events & (EPOLLHUP | EPOLLERR)) {
		peer_close(c); /* both directions: nobody is there to be answered */
		return;
	}
	peer_go_on(c);
}

/* ---- life ------------------------------------------------------------------------------- */

int peer_create(struct control *control, int fd, struct control_peer **out)
{
	struct control_peer *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return -ENOMEM;
	*c = (struct control_peer){.control = control, .fd = fd, .events = EPOLLIN};
	ret = loop_fd_add(control->loop, fd, EPOLLIN, on_event, c, &c->entry);
	if (ret) {
		free(c);
		return ret;
	}
	*out = c;
	return 0;
}

void peer_close(struct control_peer *c)
{
	struct control *control = c->control;
	struct control_peer **at = &control->clients;

	loop_fd_del(c->entry);
	c->entry = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (c->pending)
		c->pending->client = NULL;
	c->pending = NULL;
	while (*at && *at != c)
		at = &(*at)->next;
	if (!*at)
		return; /* closed already */
	*at = c->next;
	c->next = control->closed;
	control->closed = c;
	control->count--;
	loop_work_post(control->loop, &control->work);
}

void peer_free(struct control_peer *c)
{
	free(c->in);
	free(c->out);
	free(c);
}
