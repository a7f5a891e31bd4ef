/*
 * A link that dies for good while pages follow a guest: the source writes a file and ends; the file
 * completes that guest, and is refused by another one, when it is cut off or damaged.
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "migration_util.h"
#include "migration/stream_check.h"

static char address[128];
static atomic_bool dead; /* no connection is made any more */

struct world {
	struct fake_source fake;
	struct source source;
	struct relay relay;
	struct fake_there there;
	int spool, fails; /* how often it shall fail first */
	int wake_fd;	  /* calls the destination off */
};

static int dial(void *opaque, int wake_fd, struct stream_error *err)
{
	struct world *w = opaque;

	if (dead || w->relay.spoiled) {
		dead = true;
		return stream_fail(err, NULL, -ECONNREFUSED, "nobody is there");
	}
	return relay_dial(&w->relay, wake_fd, err);
}

static int spool(void *opaque)
{
	struct world *w = opaque;
	struct stream_error err;

	return w->fails-- > 0 ? -ENOSPC : source_spool(&w->source, w->spool, &err);
}

static _Atomic int answered;
static void done(void *opaque, int code, const char *text)
{
	(void)opaque;
	printf("  %s: %s\n", code ? strerror(-code) : "whole", text);
	fflush(stdout);
	answered = code ? code : 1;
}

/* 1: it is whole; -errno. */
static int complete(struct world *w, int fd)
{
	const struct destination_file file = {.fd = fd, .done = done};
	int ret;

	answered = 0;
	lseek(fd, 0, SEEK_SET);
	ret = destination_complete(&w->there.d, &file);
	while (!ret && !answered)
		usleep(1000);
	return ret ? ret : answered;
}

static int copy(int fd, size_t len, size_t spoil)
{
	char *bytes = malloc(len);
	int out = memfd_create("copy", 0);

	if (pread(fd, bytes, len, 0) != (ssize_t)len)
		return -1;
	if (spoil)
		bytes[spoil] ^= 1;
	if (write(out, bytes, len) != (ssize_t)len)
		return -1;
	free(bytes);
	return out;
}

static struct fake_there *late;

/* The last word about it does not arrive. */
static int unheard(void *opaque, struct stream_error *err)
{
	dead = true;
	shutdown(late->d.link->fd, SHUT_RDWR);
	return sink_complete(opaque, err);
}

static const struct relay at_end;

/* One whose link dies so; at_end: when all is there. */
static void begin_with(struct world *w, bool verify, const struct relay *relay)
{
	static struct migration_sink_ops ops;
	struct stream_error err;

	*w = (struct world){.relay = *relay,
			    .spool = memfd_create("spool", 0),
			    .wake_fd = eventfd(0, 0),
			    .fails = 1};
	if (relay == &at_end) {
		ops = fake_sink_ops;
		ops.complete = unheard;
		late = &w->there;
		w->there.ops = &ops;
	}
	dead = false;
	fake_source_init(&w->fake);
	if (fake_there_begin(&w->there, address, &w->fake, 500000000, w->wake_fd))
		exit(1);
	w->relay.address = address;
	w->source = (struct source){.m = &w->fake.m,
				    .params = {.downtime = 300000000,
					       .postcopy_time = 1,
					       .recover = 50000000,
					       .verify = verify},
				    .dial = dial,
				    .opaque = w,
				    .spool = spool,
				    .wake_fd = -1,
				    .retry_max = 20000000};
	if (fake_source_begin(&w->source) || source_run(&w->source, &err) ||
	    w->source.state != SOURCE_SPOOLED) {
		printf("no file was written: %s, %s\n", migration_state_name(w->source.state),
		       err.text);
		exit(1);
	}
	source_exit(&w->source);
	relay_end(&w->relay);
}

/* With the frame of that number. */
static void begin(struct world *w, bool verify, unsigned frame)
{
	const struct relay relay = {.spoil = SPOIL_CUT, .frame = frame};

	begin_with(w, verify, &relay);
}

static void leave(struct world *w)
{
	pthread_join(w->there.thread, NULL);
	close(w->spool);
	close(w->wake_fd);
}

static int end(struct world *w)
{
	leave(w);
	if (w->there.code || w->there.d.state != DEST_DONE || !w->there.sink.whole ||
	    w->there.sink.wrong || w->there.sink.early || w->fake.running ||
	    memcmp(w->there.sink.memory, w->fake.memory, FAKE_PAGES * STREAM_PAGE) != 0) {
		printf("not whole: %d %s\n", w->there.code, migration_state_name(w->there.d.state));
		return 1;
	}
	free(w->there.sink.memory);
	free(w->fake.memory);
	return 0;
}

/* As `ferry stream` reads it. */
static bool well_formed(int fd)
{
	const size_t len = (size_t)lseek(fd, 0, SEEK_END);
	uint8_t *bytes = malloc(len);
	struct stream_check *c = stream_check_new();
	struct stream_parser *p = stream_parser_new();
	struct stream_error err = {0};
	struct stream_frame frame;
	int ret = pread(fd, bytes, len, 0) == (ssize_t)len ? 1 : -1;

	for (size_t at = 0, used; at < len && ret > 0; at += used) {
		ret = stream_parse(p, bytes + at, len - at, &used, &frame, &err);
		if (ret > 0 && stream_check_frame(c, &frame, &err))
			ret = -1;
	}
	if (ret >= 0 && stream_check_finish(c, &err))
		ret = -1;
	if (ret < 0)
		printf("ferry stream would say: %s\n", err.text);
	stream_check_free(c);
	stream_parser_free(p);
	free(bytes);
	return ret >= 0;
}

/* How many files were tried; 0: something is wrong. verify: of pages that are checked each. */
static unsigned move(bool verify)
{
	/* RUN is the last frame before pages follow; the first cut that is late enough counts. */
	const unsigned run = verify ? 18 : 14, last = run + (verify ? 1 : 25);
	struct world first, w;
	unsigned files = 1;
	int old, cut, bad, len;

	begin(&first, verify, run);
	old = copy(first.spool, (size_t)lseek(first.spool, 0, SEEK_END), 0);
	if (complete(&first, first.spool) != 1 || end(&first))
		return 0;
	for (unsigned frame = run + 1; frame <= last; frame += 8, files++) {
		begin(&w, verify, frame);
		len = (int)lseek(w.spool, 0, SEEK_END);
		cut = copy(w.spool, (size_t)len - 20, 0);
		bad = copy(w.spool, (size_t)len, (size_t)len / 2);
		printf("link dead at frame %u, a file of %d bytes\n", frame, len);
		if (!well_formed(w.spool))
			return 0;
		/* Another guest's, then its own in part and damaged: it waits on. */
		if (complete(&w, old) != -EPROTO || complete(&w, cut) >= 0 ||
		    complete(&w, bad) != -EBADMSG || w.there.sink.whole) {
			printf("a wrong file was taken\n");
			return 0;
		}
		if (complete(&w, w.spool) != 1 || end(&w))
			return 0;
		close(cut);
		close(bad);
	}
	close(old);
	return files;
}

/* ---- all is here, and the source does not know it ---- */

static bool only_its_own(void)
{
	struct world first, w;
	int none = memfd_create("none", 0), old;

	begin(&first, false, 14);
	old = copy(first.spool, (size_t)lseek(first.spool, 0, SEEK_END), 0);
	if (complete(&first, first.spool) != 1 || end(&first))
		return false;
	begin_with(&w, false, &at_end);
	printf("the link is dead when all is there\n");
	if (complete(&w, old) != -EPROTO || complete(&w, none) >= 0) {
		printf("a wrong file was taken\n");
		return false;
	}
	close(old);
	close(none);
	return complete(&w, w.spool) == 1 && !end(&w);
}

/* ---- nothing is heard from ACK on but what is asked for, on the other connection ---- */

static bool asked_without_ack(void)
{
	const struct relay relay = {.spoil = SPOIL_SILENCE, .direction = 1, .type = STREAM_ACK};
	struct world w;
	bool right;

	link_set_silence(2000000000);
	begin_with(&w, false, &relay);
	printf("no ACK has come, %u frames on the lane\n", w.relay.lane);
	right = w.relay.lane > 1 && complete(&w, w.spool) == 1 && !end(&w);
	/* No thread of it looks any more. */
	link_set_silence(10000000000);
	return right;
}

/* ---- a file that is read slowly ---- */

static bool put(int pipe_fd, int fd, size_t *at, size_t most)
{
	char bytes[4096];
	const ssize_t n = pread(fd, bytes, most < sizeof(bytes) ? most : sizeof(bytes), (off_t)*at);
	const ssize_t done = n > 0 ? write(pipe_fd, bytes, (size_t)n) : 0;

	*at += done > 0 ? (size_t)done : 0;
	return done > 0;
}

/* Who ends the machine there does not wait for it. */
static bool stops_reading(void)
{
	const uint64_t one = 1;
	struct destination_file file = {.done = done};
	struct world w;
	size_t at = 0;
	int ends[2], left = 1;

	begin(&w, false, 14);
	if (pipe2(ends, O_NONBLOCK) || fcntl(ends[0], F_SETFL, 0))
		return false;
	file.fd = ends[0];
	answered = 0;
	if (destination_complete(&w.there.d, &file))
		return false;
	/* Its head, and a part of its first pages. */
	while (at < 16384 && put(ends[1], w.spool, &at, 16384 - at))
		;
	while (!ioctl(ends[0], FIONREAD, &left) && left)
		usleep(1000);
	(void)!write(w.wake_fd, &one, sizeof(one));
	while (!answered)
		if (!put(ends[1], w.spool, &at, SIZE_MAX))
			usleep(1000);
	leave(&w);
	close(ends[0]);
	close(ends[1]);
	free(w.there.sink.memory);
	free(w.fake.memory);
	/* Nobody needs what is missing any more. */
	if (answered != -ECANCELED || w.there.d.state != DEST_RUNS)
		printf("it was read to its end: %d\n", answered);
	return answered == -ECANCELED && w.there.d.state == DEST_RUNS;
}

/* ---- a file that comes while pages are copied ---- */

static struct destination *early;

static void *run_source(void *arg)
{
	struct stream_error err;

	(void)source_run(arg, &err);
	return NULL;
}

/* The migration's thread, as a user's request could come at any time. */
static int early_image(void *opaque, const struct stream_piece *piece, struct stream_error *err)
{
	const struct destination_file file = {.fd = -1, .done = done};

	answered = destination_complete(early, &file);
	return sink_image(opaque, piece, err);
}

/* Who has handed it in is answered before its machine goes. */
static bool answered_at_end(void)
{
	struct migration_sink_ops ops = fake_sink_ops;
	struct fake_source fake;
	struct source source;
	struct relay relay = {.address = address, .spoil = SPOIL_CUT, .frame = 6, .one = true};
	struct fake_there there = {.d = {.arch = "x86_64", .ferry = "test", .wake_fd = -1}};
	struct stream_error err;
	pthread_t thread;
	int code;

	ops.image = early_image;
	early = &there.d;
	fake_source_init(&fake);
	there.sink.memory = calloc(FAKE_PAGES, STREAM_PAGE);
	source = (struct source){.m = &fake.m,
				 .params = {.downtime = 300000000},
				 .dial = relay_dial,
				 .opaque = &relay,
				 .wake_fd = -1};
	if (door_open(&there.d.door, address, false, NULL, &err) || fake_source_begin(&source) ||
	    pthread_create(&thread, NULL, run_source, &source))
		return false;
	code = destination_begin(&there.d, &ops, &there.sink, &err)
		       ?: destination_run(&there.d, &err);
	code = code < 0 ? answered : 0;
	destination_end(&there.d);
	door_close(there.d.door);
	pthread_join(thread, NULL);
	source_exit(&source);
	relay_end(&relay);
	free(there.sink.memory);
	free(fake.memory);
	if (code != -EALREADY)
		printf("a file that was asked for while pages were copied: %d\n", code);
	return code == -EALREADY;
}

int main(void)
{
	unsigned files, verified;

	snprintf(address, sizeof(address), "unix:/tmp/ferry-test-spool-%d", (int)getpid());
	files = move(false);
	verified = files ? move(true) : 0;
	printf("%u files, %u of verified moves\n", files, verified);
	return !verified || !only_its_own() || !asked_without_ack() || !stops_reading() ||
	       !answered_at_end();
}
