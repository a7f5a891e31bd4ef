/*
 * A link that dies for good while pages follow a guest: the source writes a file and ends; the file
 * completes that guest, and is refused by another one, when it is cut off or damaged.
 */
#include <sys/mman.h>

#include "migration_util.h"
#include "migration/stream_check.h"

static char address[128];
static int dead; /* no connection is made any more */

struct world {
	struct fake_source fake;
	struct source source;
	struct relay relay;
	struct fake_there there;
	int spool, fails; /* how often it shall fail first */
};

static int dial(void *opaque, int wake_fd, struct stream_error *err)
{
	struct world *w = opaque;

	if (dead || w->relay.spoiled) {
		dead = 1;
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

/* One whose link dies with the frame of that number. */
static void begin(struct world *w, bool verify, unsigned frame)
{
	struct stream_error err;

	*w = (struct world){.relay = {.spoil = SPOIL_CUT, .frame = frame},
			    .spool = memfd_create("spool", 0),
			    .fails = 1};
	dead = 0;
	fake_source_init(&w->fake);
	if (fake_there_begin(&w->there, address, &w->fake, 500000000, -1))
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
	if (source_init(&w->source) || source_run(&w->source, &err) ||
	    w->source.state != SOURCE_SPOOLED) {
		printf("no file was written: %s, %s\n", migration_state_name(w->source.state),
		       err.text);
		exit(1);
	}
	source_exit(&w->source);
	relay_end(&w->relay);
}

static int end(struct world *w)
{
	pthread_join(w->there.thread, NULL);
	close(w->spool);
	if (w->there.code || w->there.d.state != DEST_DONE || !w->there.sink.whole ||
	    w->there.sink.wrong || w->fake.running ||
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

/* ---- a file that comes while pages are copied ---- */

static struct destination *early;

static void *run_source(void *arg)
{
	struct stream_error err;

	(void)source_run(arg, &err);
	return NULL;
}

/* The migration's thread, as a user's request could come at any time. */
static int early_image(void *opaque, const char *name, const void *data, size_t len,
		       struct stream_error *err)
{
	const struct destination_file file = {.fd = -1, .done = done};

	answered = destination_complete(early, &file);
	return sink_image(opaque, name, data, len, err);
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
	if (door_open(&there.d.door, address, false, NULL, &err) || source_init(&source) ||
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
	return !verified || !answered_at_end();
}
