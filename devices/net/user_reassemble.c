/*
 * IPv4 fragments of the guest's, put together (RFC 791) before the stack sees them: libslirp's own
 * reassembly follows wild pointers for some sequences of them. Fragments that overlap end their
 * datagram, as in other stacks today.
 */
#include <stdlib.h>
#include <string.h>

#include "devices/net/frame.h"
#include "devices/net/user.h"
#include "devices/util.h"

enum { IPV4_MIN = 20, DATA_MAX = 65535 - IPV4_MIN, BLOCK = 8, BLOCKS = DATA_MAX / BLOCK + 1 };
enum { MORE_FRAGMENTS = 0x2000, OFFSET = 0x1fff, PATIENCE_S = 30 };

/* Each datagram has a slot; with none free the oldest goes. */
struct user_datagram {
	bool used;
	uint64_t began;
	uint8_t key[11]; /* identification, protocol, addresses */
	uint8_t header[NET_ETHERNET + IPV4_MIN];
	unsigned have, total; /* bytes; total: 0 until the last fragment is here */
	uint8_t blocks[BLOCKS / 8 + 1];
	uint8_t data[DATA_MAX + BLOCK];
};

static void make_key(uint8_t key[11], const uint8_t *ip)
{
	memcpy(key, ip + 4, 2);
	key[2] = ip[9];
	memcpy(key + 3, ip + 12, 8);
}

static struct user_datagram *find(struct user *u, const uint8_t key[11])
{
	struct user_datagram *d, *best = NULL;

	for (unsigned i = 0; i < USER_DATAGRAMS; i++) {
		d = u->datagram[i];
		if (d && d->used && user_now(u) - d->began > PATIENCE_S * NS_PER_S)
			d->used = false;
		if (d && d->used && !memcmp(d->key, key, sizeof(d->key)))
			return d;
		if (!d) {
			d = u->datagram[i] = calloc(1, sizeof(*d));
			if (!d)
				continue;
		}
		if (!best || (best->used && (!d->used || d->began < best->began)))
			best = d;
	}
	if (!best)
		return NULL;
	memcpy(best->key, key, sizeof(best->key));
	memset(best->blocks, 0, sizeof(best->blocks));
	best->used = true;
	best->began = user_now(u);
	best->have = best->total = 0;
	return best;
}

/* False: a part of it is here already. */
static bool claim(struct user_datagram *d, unsigned off, unsigned len)
{
	const unsigned first = off / BLOCK, last = (off + len - 1) / BLOCK;

	for (unsigned b = first; b <= last; b++) {
		if (d->blocks[b / 8] >> b % 8 & 1)
			return false;
		d->blocks[b / 8] |= (uint8_t)(1 << b % 8);
	}
	return true;
}

static bool add(struct user_datagram *d, const uint8_t *data, unsigned off, unsigned len, bool more)
{
	if (!len || off + len > DATA_MAX || (more && len % BLOCK) || !claim(d, off, len) ||
	    (d->total && (!more || off + len > d->total)))
		return false;
	memcpy(d->data + off, data, len);
	d->have += len;
	if (!more)
		d->total = off + len;
	return true;
}

/* Nobody has what another fragment says is beyond the end. */
static bool complete(const struct user_datagram *d)
{
	return d->total && d->have == d->total;
}

bool user_is_fragment(const uint8_t *frame, size_t len)
{
	return len >= NET_ETHERNET + IPV4_MIN && frame_get16(frame + 12) == 0x0800 &&
	       frame_get16(frame + NET_ETHERNET + 6) & (MORE_FRAGMENTS | OFFSET);
}

size_t user_reassemble(struct user *u, uint8_t *frame, size_t len)
{
	uint8_t *ip = frame + NET_ETHERNET, key[11];
	const unsigned header = (ip[0] & 15) * 4u, total = frame_get16(ip + 2);
	const unsigned field = frame_get16(ip + 6);
	struct user_datagram *d;
	size_t n;

	if (ip[0] >> 4 != 4 || header < IPV4_MIN || total < header || NET_ETHERNET + total > len)
		return 0;
	make_key(key, ip);
	d = find(u, key);
	if (!d)
		return 0;
	if (!(field & OFFSET)) /* options are not what anybody needs of it */
		memcpy(d->header, frame, sizeof(d->header));
	if (!add(d, ip + header, (field & OFFSET) * BLOCK, total - header,
		 field & MORE_FRAGMENTS)) {
		d->used = false;
		return 0;
	}
	if (!complete(d))
		return 0;
	n = d->total;
	d->used = false;
	memcpy(frame, d->header, sizeof(d->header));
	memcpy(ip + IPV4_MIN, d->data, n);
	ip[0] = 0x45;
	user_set_ipv4(ip, (unsigned)(IPV4_MIN + n), frame_get16(ip + 4), 0);
	return NET_ETHERNET + IPV4_MIN + n;
}

void user_reassemble_free(struct user *u)
{
	for (unsigned i = 0; i < USER_DATAGRAMS; i++)
		free(u->datagram[i]);
}
