/*
 * Two sides of a migration in one process, with memory instead of machines, and a relay between
 * them that counts frames and spoils the n-th one.
 */
#ifndef TESTS_UNIT_MIGRATION_UTIL_H
#define TESTS_UNIT_MIGRATION_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/address.h"
#include "migration/bytes.h"
#include "migration/crc32c.h"
#include "migration/destination.h"
#include "migration/save.h"
#include "migration/source.h"
#include "migration/stream_blob.h"
#include "migration/stream_items.h"

enum { FAKE_PAGES = 700 };

/* ---- the machine that goes ---- */

struct fake_source {
	struct migration_source m;
	uint8_t (*memory)[STREAM_PAGE];
	bool dirty[FAKE_PAGES];
	bool running, released, tracked, fail_release;
	unsigned harvests;
	unsigned images; /* so many times all of it was sent */
};

/* That a link with a limit carries no faster because it is compressed. 0: a page of zeroes. */
static inline void fake_fill(uint8_t page[STREAM_PAGE], uint8_t value)
{
	uint32_t noise = value * 0x9e3779b9u;

	for (unsigned i = 0; i < STREAM_PAGE; i++) {
		noise ^= noise << 13;
		noise ^= noise >> 17;
		noise ^= noise << 5;
		page[i] = (uint8_t)noise;
	}
}

static inline void fake_write(struct fake_source *f, unsigned page, uint8_t value)
{
	fake_fill(f->memory[page], value);
	f->dirty[page] = true;
}

static inline int fake_describe(void *opaque, struct stream_writer *w, struct stream_error *err)
{
	struct field_buf buf = {0};
	int ret = stream_item_put_text(&buf, true, "name", "fake");

	(void)opaque;
	if (!ret)
		ret = stream_write_bytes(w, STREAM_DESCRIPTION, 0, buf.data, buf.len);
	field_buf_free(&buf);
	return ret ? stream_fail(err, NULL, ret, "%s", strerror(-ret)) : 0;
}

static inline int fake_image(void *opaque, const void **data, size_t *len, struct stream_error *err)
{
	static const uint8_t image[100] = {1};
	struct fake_source *f = opaque;

	(void)err;
	f->images++;
	*data = image;
	*len = sizeof(image);
	return 0;
}

static inline int fake_digest(void *opaque, uint8_t digest[STREAM_IMAGE_DIGEST],
			      struct stream_error *err)
{
	(void)opaque;
	(void)err;
	memset(digest, 0x5a, STREAM_IMAGE_DIGEST);
	return 0;
}

static inline const uint8_t *fake_page(void *opaque, uint64_t page)
{
	return ((struct fake_source *)opaque)->memory[page];
}

static inline int fake_track(void *opaque, bool on, struct stream_error *err)
{
	struct fake_source *f = opaque;

	(void)err;
	f->tracked = on;
	return 0;
}

/* The guest writes between the harvests, less each time. */
static inline int64_t fake_harvest(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	struct fake_source *f = opaque;
	int64_t n = 0;

	for (unsigned i = 0; f->running && i < FAKE_PAGES; i += 7 + 200 * f->harvests)
		fake_write(f, i, (uint8_t)(i + 3 * f->harvests));
	f->harvests++;
	for (uint64_t i = 0; i < pages; i++) {
		if (!f->dirty[first + i])
			continue;
		bitmap[i / 64] |= 1ull << (i % 64);
		f->dirty[first + i] = false;
		n++;
	}
	return n;
}

static inline int fake_stop(void *opaque, struct stream_error *err)
{
	struct fake_source *f = opaque;

	(void)err;
	/* The last words before it stands still. */
	if (f->running)
		fake_write(f, 5, 0x77);
	f->running = false;
	return 0;
}

static inline int fake_state(void *opaque, struct field_buf *buf, struct stream_error *err)
{
	(void)opaque;
	(void)err;
	return field_buf_append(buf, "the device state", 16);
}

static inline int fake_release(void *opaque, struct stream_error *err)
{
	struct fake_source *f = opaque;

	(void)err;
	f->released = true;
	return 0;
}

static inline int fake_take_back(void *opaque, struct stream_error *err)
{
	struct fake_source *f = opaque;

	(void)err;
	f->running = true;
	f->released = false;
	return 0;
}

static inline uint64_t fake_guest_time(void *opaque)
{
	(void)opaque;
	return 12345;
}

static const struct migration_source_ops fake_source_ops = {
	.describe = fake_describe,
	.image = fake_image,
	.digest = fake_digest,
	.page = fake_page,
	.track = fake_track,
	.harvest = fake_harvest,
	.stop = fake_stop,
	.state = fake_state,
	.release = fake_release,
	.take_back = fake_take_back,
	.guest_time = fake_guest_time,
};

static inline void fake_source_init(struct fake_source *f)
{
	*f = (struct fake_source){
		.m = {.ops = &fake_source_ops, .opaque = f, .arch = "x86_64", .ferry = "test"},
		.memory = calloc(FAKE_PAGES, STREAM_PAGE),
		.running = true};
	stream_memory_add(&f->m.memory, 0, FAKE_PAGES);
	for (unsigned i = 0; i < FAKE_PAGES; i++)
		fake_fill(f->memory[i], (uint8_t)(i % 3 ? i : 0));
}

/* ---- the machine that comes ---- */

struct fake_sink {
	uint8_t (*memory)[STREAM_PAGE];
	bool loaded, running, fail_start;
	struct fake_source *other;
	bool both; /* it was started while the other one had it */
	/* Post-copy: the guest here reads pages, one after the other, backward. */
	bool missing[FAKE_PAGES], asked[FAKE_PAGES];
	bool whole, wrong;
	unsigned brought, dropped, count;
	unsigned early;	    /* of those brought: before it ran */
	unsigned slow_load; /* us */
	bool fail_load;
};

static inline int sink_description(void *opaque, const struct stream_frame *frame,
				   struct stream_error *err)
{
	(void)opaque;
	(void)frame;
	(void)err;
	return 0;
}

static inline int sink_image(void *opaque, const struct stream_piece *piece,
			     struct stream_error *err)
{
	(void)opaque;
	return piece->len == 100
		       ? 0
		       : stream_fail(err, NULL, -EPROTO, "an image of %zu bytes", piece->len);
}

static inline uint8_t *sink_page(void *opaque, uint64_t page)
{
	return ((struct fake_sink *)opaque)->memory[page];
}

static inline void sink_clear(void *opaque, uint64_t first, uint32_t count)
{
	memset(((struct fake_sink *)opaque)->memory[first], 0, (size_t)count * STREAM_PAGE);
}

static inline int sink_load(void *opaque, const void *state, size_t len, struct stream_error *err)
{
	struct fake_sink *f = opaque;

	usleep(f->slow_load);
	if (f->fail_load)
		return stream_fail(err, NULL, -EINVAL, "no such device");
	f->loaded = len == 16 && !memcmp(state, "the device state", len);
	return f->loaded ? 0 : stream_fail(err, NULL, -EPROTO, "another state");
}

static inline int sink_start(void *opaque, const struct stream_run *run, struct stream_error *err)
{
	struct fake_sink *f = opaque;

	if (run->guest != 12345 || f->fail_start)
		return stream_fail(err, NULL, -EBUSY, "the disk is taken");
	f->both = f->other->running || !f->other->released || f->running;
	f->running = true;
	return 0;
}

static inline int sink_miss(void *opaque, uint64_t first, uint64_t pages, const uint64_t *bitmap,
			    struct stream_error *err)
{
	struct fake_sink *f = opaque;

	(void)err;
	for (uint64_t i = 0; i < pages; i++) {
		if (!(bitmap[i / 64] >> (i % 64) & 1))
			continue;
		f->missing[first + i] = true;
		f->count++;
		memset(f->memory[first + i], 0xee, STREAM_PAGE);
	}
	return 0;
}

static inline int64_t sink_bring(void *opaque, uint64_t first, uint32_t count, const void *data)
{
	struct fake_sink *f = opaque;
	int64_t n = 0;

	/* Before it runs: behind what says which are missing. */
	f->wrong |= !f->running && !f->count;
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *from = (const uint8_t *)data + (size_t)i * STREAM_PAGE;

		if (!f->missing[first + i]) {
			f->dropped++;
			continue;
		}
		f->missing[first + i] = false;
		if (data)
			memcpy(f->memory[first + i], from, STREAM_PAGE);
		else
			memset(f->memory[first + i], 0, STREAM_PAGE);
		f->brought++;
		f->early += !f->running;
		n++;
	}
	return n;
}

/* Four wait at a time. */
static inline bool sink_wanted(void *opaque, uint64_t *page)
{
	struct fake_sink *f = opaque;
	unsigned waiting = 0;

	for (unsigned i = FAKE_PAGES; i-- && waiting < 4;) {
		if (!f->missing[i])
			continue;
		waiting++;
		if (f->asked[i])
			continue;
		f->asked[i] = true;
		*page = i;
		return true;
	}
	return false;
}

static inline void sink_want_again(void *opaque)
{
	struct fake_sink *f = opaque;

	memset(f->asked, 0, sizeof(f->asked));
}

static inline int sink_wanted_fd(void *opaque)
{
	(void)opaque;
	return -1;
}

static inline int sink_complete(void *opaque, struct stream_error *err)
{
	struct fake_sink *f = opaque;

	(void)err;
	f->wrong |= f->whole || f->brought != f->count;
	f->whole = true;
	return 0;
}

static const struct migration_sink_ops fake_sink_ops = {
	.description = sink_description,
	.image = sink_image,
	.page = sink_page,
	.clear = sink_clear,
	.load = sink_load,
	.start = sink_start,
	.miss = sink_miss,
	.bring = sink_bring,
	.wanted = sink_wanted,
	.want_again = sink_want_again,
	.wanted_fd = sink_wanted_fd,
	.complete = sink_complete,
};

/* Frames have the same numbers in each move: no page comes before RUN. */
static inline int fake_source_begin(struct source *s)
{
	int ret = source_init(s);

	s->hello.offers &= ~(uint32_t)STREAM_CAN_AHEAD;
	return ret;
}

/* ---- a destination with a thread of its own ---- */

struct fake_there {
	pthread_t thread;
	struct destination d;
	struct fake_sink sink;
	const struct migration_sink_ops *ops; /* NULL: fake_sink_ops */
	uint64_t building;		      /* nanoseconds for its machine, if not 0 */
	uint64_t farewell;		      /* the destination's */
	struct stream_error err;
	int code;
};

static inline void *fake_there_main(void *arg)
{
	struct fake_there *t = arg;

	t->code = destination_begin(&t->d, t->ops ? t->ops : &fake_sink_ops, &t->sink, &t->err);
	if (!t->code && t->building) {
		destination_build(&t->d);
		usleep((useconds_t)(t->building / 1000));
	}
	if (!t->code)
		t->code = destination_run(&t->d, &t->err);
	destination_end(&t->d);
	/* As its process ends; and with it who was not let in yet. */
	door_close(t->d.door);
	return NULL;
}

/* It waits at `address` for what comes from `other`. 0 or -errno. */
static inline int fake_there_begin(struct fake_there *t, const char *address,
				   struct fake_source *other, uint64_t patience, int wake_fd)
{
	int ret;

	t->sink.memory = calloc(FAKE_PAGES, STREAM_PAGE);
	t->sink.other = other;
	t->d = (struct destination){.wake_fd = wake_fd,
				    .arch = "x86_64",
				    .ferry = "test",
				    .patience = patience,
				    .farewell = t->farewell};
	ret = door_open(&t->d.door, address, false, NULL, &t->err);
	return ret ? ret : -pthread_create(&t->thread, NULL, fake_there_main, t);
}

/* ---- the relay ---- */

/* PAGE: contents of pages, with checksums that are right: what no link does by itself. SILENCE:
 * nothing of that direction arrives on this connection any more. */
enum { RELAY_MAX = 64 };
enum spoil { SPOIL_NOTHING, SPOIL_CUT, SPOIL_CUT_INSIDE, SPOIL_BYTE, SPOIL_PAGE, SPOIL_SILENCE };
struct relay {
	const char *address;
	enum spoil spoil;
	int direction; /* 0: from the source */
	unsigned frame;
	enum stream_type type; /* 0: any; else it is the frame of that number of these */
	/* By whichever connection carries a frame: an old one may still end. */
	atomic_bool spoiled;
	atomic_uint frames[2]; /* that were carried, per direction */
	atomic_uint lane;      /* of them, on other channels than the main one */
	bool one;	       /* connects only once */
	/* What becomes of the first connections that are made when that is done: somebody else
	 * refuses so many, who never says HELLO; of so many more HELLO arrives damaged there, then
	 * here. */
	unsigned strangers, damaged[2];
	/* While it is set, from RUN on: each frame of that type is damaged, on whichever
	 * connection. */
	atomic_int plague;
	atomic_bool ran;
	pthread_t thread[RELAY_MAX];
	atomic_uint bulk;
	atomic_uint count;
};

static inline void relay_spoil_page(uint8_t *frame, size_t len)
{
	frame[len - 1] ^= 1;
	put_le(frame + 24, crc32c(0, frame + STREAM_HEADER, len - STREAM_HEADER), 4);
	put_le(frame + 28, crc32c(0, frame, 28), 4);
}

struct flow {
	uint8_t buf[STREAM_HEADER + STREAM_PAYLOAD_MAX];
	size_t len;
	bool silent, damage; /* nothing of it arrives; its next frame is damaged */
};

/* Sends the whole frames that are there; false: the connection is to end. */
static inline bool relay_frames(struct relay *r, int direction, struct flow *f, int to)
{
	for (;;) {
		size_t whole = f->len < STREAM_HEADER ? 0 : STREAM_HEADER + get_le(f->buf + 20, 4);
		bool this, alive;
		unsigned number;

		if (!whole || f->len < whole)
			return true;
		if (f->damage || (r->ran && f->buf[4] == r->plague))
			f->buf[whole / 2] ^= 1;
		f->damage = false;
		if (f->buf[4] == STREAM_RUN)
			r->ran = true;
		alive = f->buf[4] == STREAM_ALIVE;
		number = atomic_fetch_add(&r->frames[direction], !alive);
		atomic_fetch_add(&r->lane, !alive && f->buf[6]);
		/* Of the frames that have contents of pages, or the state. */
		if (r->spoil == SPOIL_PAGE && !direction) {
			if ((f->buf[4] == STREAM_PAGES && whole > STREAM_PAGE) ||
			    f->buf[4] == STREAM_DEVICE)
				number = atomic_fetch_add(&r->bulk, 1);
			else
				number = UINT32_MAX;
		} else if (r->type && direction == r->direction) {
			number = f->buf[4] == r->type ? atomic_fetch_add(&r->bulk, 1) : UINT32_MAX;
		}
		this = r->spoil && direction == r->direction && !alive && number == r->frame &&
		       !atomic_exchange(&r->spoiled, true);
		if (this) {
			if (r->spoil == SPOIL_CUT)
				return false;
			f->silent = r->spoil == SPOIL_SILENCE;
			if (r->spoil == SPOIL_CUT_INSIDE) {
				(void)!send(to, f->buf, whole / 2, MSG_NOSIGNAL);
				return false;
			}
			if (r->spoil == SPOIL_PAGE)
				relay_spoil_page(f->buf, whole);
			else if (!f->silent)
				f->buf[whole / 2] ^= 1;
		}
		for (size_t at = 0; at < whole && !f->silent;) {
			ssize_t n = send(to, f->buf + at, whole - at, MSG_NOSIGNAL);

			if (n <= 0)
				return false;
			at += (size_t)n;
		}
		f->len -= whole;
		memmove(f->buf, f->buf + whole, f->len);
	}
}

struct relay_job {
	struct relay *relay;
	int fd[2];
	bool damage[2]; /* the first frame of that direction */
};

static inline void *relay_main(void *arg)
{
	struct relay_job *job = arg;
	struct flow *flow = calloc(2, sizeof(*flow));
	bool open[2] = {true, true};

	for (int d = 0; d < 2; d++)
		flow[d].damage = job->damage[d];
	while (open[0] || open[1]) {
		struct pollfd pfd[2] = {{.fd = open[0] ? job->fd[0] : -1, .events = POLLIN},
					{.fd = open[1] ? job->fd[1] : -1, .events = POLLIN}};

		if (poll(pfd, 2, 5000) <= 0)
			break;
		for (int d = 0; d < 2; d++) {
			struct flow *f = &flow[d];
			ssize_t n;

			if (!pfd[d].revents)
				continue;
			n = recv(job->fd[d], f->buf + f->len, sizeof(f->buf) - f->len, 0);
			if (n > 0) {
				f->len += (size_t)n;
				if (relay_frames(job->relay, d, f, job->fd[!d]))
					continue;
				open[0] = open[1] = false;
				break;
			}
			open[d] = false;
			shutdown(job->fd[!d], SHUT_WR);
		}
	}
	close(job->fd[0]);
	close(job->fd[1]);
	free(flow);
	free(job);
	return NULL;
}

/* Whoever listens at that address now, or a door that has not understood: FAILURE, and no HELLO. */
static inline int relay_stranger(void)
{
	struct stream_failure failure = {.kind = STREAM_FAILED, .text = "whoever you are"};
	struct stream_writer w;
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -EMFILE;
	stream_writer_init(&w, 0, migration_file_put, &pair[1]);
	ret = stream_control_write(&w, STREAM_FAILURE, 0, &failure);
	stream_writer_free(&w);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	shutdown(pair[1], SHUT_WR);
	close(pair[1]);
	return ret ? ret : pair[0];
}

static inline int relay_dial(void *opaque, int wake_fd, struct stream_error *err)
{
	struct relay *r = opaque;
	struct relay_job *job;
	int pair[2], out = -ECONNREFUSED;

	if (r->spoiled && r->strangers) {
		r->strangers--;
		return relay_stranger();
	}
	job = malloc(sizeof(*job));
	if (!r->one || !r->count)
		out = address_connect(r->address, 1000, wake_fd, err);
	if (out < 0 || r->count == RELAY_MAX ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		free(job);
		if (out < 0)
			return out;
		close(out);
		return -EMFILE;
	}
	/* The relay's ends block. */
	fcntl(out, F_SETFL, 0);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	*job = (struct relay_job){.relay = r, .fd = {pair[1], out}};
	for (int d = 0; d < 2 && r->spoiled && !job->damage[0]; d++)
		if (r->damaged[d]) {
			r->damaged[d]--;
			job->damage[d] = true;
		}
	pthread_create(&r->thread[r->count++], NULL, relay_main, job);
	return pair[0];
}

static inline void relay_end(struct relay *r)
{
	for (unsigned i = 0; i < r->count; i++)
		pthread_join(r->thread[i], NULL);
}

/* ---- a whole move ---- */

/* Over a link that nothing happens to, by a source that lacks some of the capabilities. *s is what
 * is left of it. What source_run says, or -ENOMEM. */
static inline int fake_move(struct source *s, struct fake_source *from, struct fake_there *to,
			    const char *address, const struct migration_params *params,
			    uint32_t lacks, struct stream_error *err)
{
	struct relay relay = {.address = address};
	int ret;

	*s = (struct source){.m = &from->m,
			     .params = *params,
			     .dial = relay_dial,
			     .opaque = &relay,
			     .wake_fd = -1};
	*err = (struct stream_error){0};
	if (fake_there_begin(to, address, from, 500000000, -1) || source_init(s))
		return -ENOMEM;
	s->hello.offers &= ~lacks;
	ret = source_run(s, err);
	source_exit(s);
	pthread_join(to->thread, NULL);
	relay_end(&relay);
	return ret;
}

#endif
