/*
 * What goes wrong while a guest is handed over, apart from the link.
 */
#include "migration/clock.h"
#include "migration_util.h"

static char address[100], elsewhere[128];
static struct migration_source_ops ops;
static struct migration_sink_ops sink_ops;
static uint64_t farewell, building;

struct world {
	struct fake_source fake; /* the first member */
	struct fake_there there;
	struct source s;
	struct stream_error err;
	int wake;	      /* ends the destination */
	unsigned fails, took; /* how often it is not taken back; how often it was asked for */
	unsigned harvests, dials;
	struct relay relay;  /* if its harm is done: */
	uint64_t lasted;     /* ns, from being abandoned to the end */
	const char *trouble; /* is looked for in what people are shown, until it is */
	bool seen, back;     /* the relay's harm is done once, and it is `address` again */
	atomic_bool over;
	int ret;
};

static int dial(void *opaque, int wake_fd, struct stream_error *err)
{
	struct world *w = opaque;

	w->dials++;
	if (w->relay.spoil && !w->relay.spoiled)
		return relay_dial(&w->relay, wake_fd, err);
	return address_connect(w->relay.spoil && !w->back ? elsewhere : address, 1000, wake_fd,
			       err);
}

static void begin(struct world *w)
{
	*w = (struct world){.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			    .relay = {.address = address}};
	ops = fake_source_ops;
	sink_ops = fake_sink_ops;
	w->there.ops = &sink_ops;
	w->there.farewell = farewell;
	w->there.building = building;
	fake_source_init(&w->fake);
	w->fake.m.ops = &ops;
	if (fake_there_begin(&w->there, address, &w->fake, 2000000000, w->wake))
		exit(1);
	w->s = (struct source){.m = &w->fake.m,
			       .params = {.downtime = 300000000},
			       .dial = dial,
			       .opaque = w,
			       .wake_fd = -1,
			       .retry_max = 20000000};
	if (fake_source_begin(&w->s))
		exit(1);
}

static void ring(int fd)
{
	const uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

/* Both sides are over, and the destination's thread has ended; 1: both have run at once, or a page
 * came before RUN. */
static int gone(struct world *w)
{
	source_exit(&w->s);
	relay_end(&w->relay);
	free(w->there.sink.memory);
	free(w->fake.memory);
	close(w->wake);
	return w->there.sink.both || w->there.sink.early;
}

static int end(struct world *w)
{
	ring(w->wake);
	pthread_join(w->there.thread, NULL);
	return gone(w);
}

static int bad(const char *what, const struct world *w)
{
	printf("WRONG: %s: %d %s, %s\n", what, w->ret, w->err.text,
	       migration_state_name(w->s.progress.state));
	return 1;
}

static void *run_main(void *arg)
{
	struct world *w = arg;

	w->ret = source_run(&w->s, &w->err);
	w->over = true;
	return NULL;
}

/* At most so long; then it is abandoned. True: it has ended by itself. */
static bool run(struct world *w, unsigned ms)
{
	struct migration_progress progress;
	pthread_t thread;
	uint64_t began;
	bool by_itself;

	pthread_create(&thread, NULL, run_main, w);
	for (unsigned i = 0; i < ms && !w->over && !w->seen; i++) {
		source_progress(&w->s, &progress);
		w->seen = w->trouble && strstr(progress.trouble, w->trouble);
		usleep(1000);
	}
	/* It turns to what it does next. */
	if (w->seen)
		usleep(200000);
	by_itself = w->over;
	began = clock_now();
	if (!by_itself)
		source_abandon(&w->s);
	pthread_join(thread, NULL);
	w->lasted = clock_now() - began;
	return by_itself;
}

/* ---- the destination's user ends it when all is there, while the source still lets go ---- */

static int slow_release(void *opaque, struct stream_error *err)
{
	struct world *w = opaque;

	ring(w->wake);
	usleep(300000);
	return fake_source_ops.release(opaque, err);
}

static int destination_ends(void)
{
	struct world w;
	bool over;

	begin(&w);
	ops.release = slow_release;
	over = run(&w, 5000);
	if (!over || w.ret != -ECONNREFUSED || !w.fake.running ||
	    !strstr(w.err.text, "called off at the destination"))
		return bad("the destination has ended", &w);
	return end(&w);
}

/* ---- while pages are copied the source is there on another connection: it has given up, and the
 * destination must not go on with what it has of the first one ---- */

static int64_t harvest_calling(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	struct world *w = opaque;
	struct stream_hello hello = w->s.hello;
	struct stream_error err;
	struct stream_frame frame;
	struct link *link;
	int fd = w->harvests++ ? -1 : address_connect(address, 1000, -1, &err);

	hello.again = true;
	if (fd >= 0 && !link_open(&link, fd, 0, -1, NULL)) {
		w->back = !stream_hello_write(&link->w, &hello) &&
			  link_receive(link, 5000, &frame, &err) == 1 && frame.type == STREAM_HELLO;
		link_close(link);
	}
	return fake_source_ops.harvest(opaque, first, pages, bitmap);
}

static int given_up(void)
{
	struct world w;
	bool over;

	begin(&w);
	ops.harvest = harvest_calling;
	over = run(&w, 5000);
	pthread_join(w.there.thread, NULL);
	if (!over || !w.back || !w.ret || !w.fake.running || w.there.d.state != DEST_FAILED ||
	    !strstr(w.err.text, "the source has given it up"))
		return bad("the destination goes on with what was given up", &w);
	return gone(&w);
}

/* ---- the link breaks then ---- */

static int dying_release(void *opaque, struct stream_error *err)
{
	struct world *w = opaque;

	shutdown(w->s.link->fd, SHUT_RDWR);
	return fake_source_ops.release(opaque, err);
}

static int link_dies_before_run(void)
{
	struct world w;
	bool over;

	begin(&w);
	ops.release = dying_release;
	over = run(&w, 5000);
	if (!over || !w.ret || w.s.state != SOURCE_KEPT || !w.fake.running || w.there.sink.running)
		return bad("RUN is said on a link that is known to be dead", &w);
	return end(&w);
}

/* ---- or what is said then is damaged: the destination hears of the end all the same ---- */

static int wrong_release(void *opaque, struct stream_error *err)
{
	struct stream_ready ready = {0};
	struct world *w = opaque;

	(void)stream_control_write(&w->s.link->w, STREAM_READY, 0, &ready);
	(void)poll(&(struct pollfd){.fd = w->s.link->fd, .events = POLLIN}, 1, 5000);
	return fake_source_ops.release(opaque, err);
}

static int complains_before_run(void)
{
	struct timespec until;
	struct world w;
	bool over;

	begin(&w);
	ops.release = wrong_release;
	over = run(&w, 5000);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++; /* it would wait for two seconds */
	if (!over || !w.ret || w.s.state != SOURCE_KEPT || !w.fake.running ||
	    pthread_timedjoin_np(w.there.thread, NULL, &until) || w.there.d.state != DEST_FAILED)
		return bad("a destination that waits though it is over", &w);
	return gone(&w);
}

/* ---- the time is over while the other side only says that it lives ---- */

static int late_accept(void)
{
	const uint64_t began = clock_now();
	struct world w;
	uint64_t lasted;
	bool over;

	building = 6000000000;
	begin(&w);
	building = 0;
	w.s.params.timeout = 300000000;
	over = run(&w, 10000);
	lasted = clock_now() - began;
	if (!over || w.ret != -ETIME || !w.fake.running || lasted > 5000000000)
		return bad("a time-out that nobody looks at", &w);
	return end(&w);
}

/* ---- what was given up is somebody else's now ---- */

static int take_back(void *opaque, struct stream_error *err)
{
	struct world *w = opaque;

	if (w->took++ < w->fails)
		return stream_fail(err, NULL, -EBUSY, "the disk is taken");
	return fake_source_ops.take_back(opaque, err);
}

static int disk_taken(bool for_ever)
{
	struct world w;
	bool over;

	begin(&w);
	ops.take_back = take_back;
	w.there.sink.fail_start = true;
	w.fails = for_ever ? UINT32_MAX : 3;
	over = run(&w, for_ever ? 500 : 5000);
	/* It says what it waits for, and only its end ends it. */
	if (for_ever && (over || w.ret != -EOWNERDEAD || w.fake.running || w.took < 3))
		return bad("a guest that cannot be taken back", &w);
	if (!for_ever && (!over || w.ret != -ECONNREFUSED || !w.fake.running || w.took != 4 ||
			  w.s.progress.trouble[0]))
		return bad("a guest that is taken back at last", &w);
	return end(&w);
}

/* ---- it was stopped, too much was left, and the link breaks in a round after that ---- */

static int64_t harvest(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	struct world *w = opaque;
	const int64_t none = 0;

	/* Nothing is written but while it is stopped, and that does not fit into the downtime. */
	if (w->fake.running && !w->harvests)
		return none;
	if (++w->harvests > 1)
		shutdown(w->s.link->fd, SHUT_RDWR);
	for (uint64_t i = 0; i < pages; i++)
		bitmap[i / 64] |= 1ull << (i % 64);
	(void)first;
	return (int64_t)pages;
}

static int runs_again(void)
{
	struct world w;
	bool over;

	begin(&w);
	ops.harvest = harvest;
	w.s.params.bandwidth = 8 << 20;
	over = run(&w, 5000);
	/* The guest has gone on, and the destination has ended with its link: nobody waits for a
	 * word there. */
	if (!over || w.ret != -ECONNRESET || !w.fake.running || w.harvests != 2 || w.dials != 1) {
		printf("%u harvests, %u connections\n", w.harvests, w.dials);
		return bad("a link that breaks after a stop", &w);
	}
	return end(&w);
}

/* At ACK, or at a page that follows the guest; whoever connects then comes to `elsewhere`. */
static void break_link(struct world *w, bool postcopy)
{
	w->relay.spoil = SPOIL_CUT;
	w->relay.direction = !postcopy;
	w->relay.type = postcopy ? 0 : STREAM_ACK;
	w->relay.frame = postcopy ? 18 : 0;
	w->s.params.postcopy_time = postcopy;
}

/* ---- the process ends while it waits for somebody who says nothing ---- */

static int abandoned(bool postcopy)
{
	struct stream_error err;
	struct world w;
	int silent;
	bool over;

	begin(&w);
	silent = address_listen(elsewhere, false, (char[128]){0}, 128, &err);
	break_link(&w, postcopy);
	w.trouble = " "; /* any */
	over = run(&w, 30000);
	if (over || !w.seen || w.ret != -EINPROGRESS ||
	    w.s.state != (postcopy ? SOURCE_SERVES : SOURCE_DOUBT))
		return bad("a link that does not come back", &w);
	/* Half of what the other side may be silent. */
	if (w.lasted > 5000000000)
		return bad("it took long to end", &w);
	address_unlisten(elsewhere, silent);
	return end(&w);
}

/* ---- the guest ends there, and nobody here has heard that it was there ---- */

static struct world *ending;

static int start_and_end(void *opaque, const struct stream_run *run, struct stream_error *err)
{
	const int ret = fake_sink_ops.start(opaque, run, err);

	ring(ending->wake);
	return ret;
}

static int ends_unheard(bool postcopy)
{
	struct world w;
	bool over;

	farewell = 5000000000;
	begin(&w);
	farewell = 0;
	ending = &w;
	sink_ops.start = start_and_end;
	break_link(&w, postcopy);
	w.back = true;
	over = run(&w, 10000);
	if (!over || w.ret || w.s.state != SOURCE_MOVED || w.fake.running)
		return bad("a guest that has ended there unheard", &w);
	return end(&w);
}

/* ---- the last word is damaged: nobody listens there for ever ---- */

static int end_is_lost(void)
{
	struct timespec until;
	struct world w;
	bool over;

	begin(&w);
	w.relay.spoil = SPOIL_BYTE;
	w.relay.type = STREAM_END;
	w.back = true;
	over = run(&w, 10000);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 3;
	if (!over || w.ret || w.dials != 2 || pthread_timedjoin_np(w.there.thread, NULL, &until) ||
	    w.there.d.state != DEST_DONE)
		return bad("END that does not arrive", &w);
	return gone(&w);
}

/* ---- another destination answers at that address now ---- */

static int refused(bool postcopy)
{
	struct fake_there other = {0};
	struct world w;

	begin(&w);
	if (fake_there_begin(&other, elsewhere, &w.fake, 0, w.wake))
		return 1;
	break_link(&w, postcopy);
	w.trouble = "no such migration is known here";
	if (run(&w, 30000) || !w.seen || w.s.refused ||
	    w.s.state != (postcopy ? SOURCE_SERVES : SOURCE_DOUBT))
		return bad("what the other side says is not shown", &w);
	ring(w.wake);
	pthread_join(other.thread, NULL);
	free(other.sink.memory);
	return end(&w);
}

/* ---- what is there is not what was sent ---- */

static int damage(void *opaque, const void *state, size_t len, struct stream_error *err)
{
	(void)opaque;
	(void)len;
	(void)err;
	((uint8_t *)(uintptr_t)state)[3] ^= 1;
	return 0;
}

static int state_is_another(void)
{
	struct world w;
	bool over;

	begin(&w);
	sink_ops.load = damage;
	over = run(&w, 5000);
	if (!over || w.ret != -EPROTO || !w.fake.running || w.there.sink.running)
		return bad("another device state", &w);
	return end(&w);
}

/* ---- what was looked at while pages came cannot be had ---- */

static int wrong_early(void *opaque, bool wait, struct stream_error *err)
{
	(void)opaque;
	(void)wait;
	return stream_fail(err, NULL, -ENOEXEC, "no such kernel");
}

static int wrong_late(void *opaque, bool wait, struct stream_error *err)
{
	return wait ? wrong_early(opaque, wait, err) : 0;
}

/* Known at once: the guest has not stood still for it; at the latest before READY. In post-copy
 * that is not waited for. */
static int no_kernel(bool late, bool postcopy)
{
	const bool moves = late && postcopy;
	struct world w;
	bool over;

	begin(&w);
	sink_ops.check = late ? wrong_late : wrong_early;
	w.s.params.postcopy_time = postcopy;
	w.s.params.bandwidth = 8 << 20;
	over = run(&w, 5000);
	if (!over || !w.ret != moves || w.fake.running == moves || w.there.sink.running != moves ||
	    (!moves && !strstr(w.err.text, "no such kernel")) || (!late && !postcopy && w.s.ticket))
		return bad("a kernel that cannot be started", &w);
	return end(&w);
}

/* ---- it is called off in the moment in which it is given away ---- */

static struct world *given;
static int at_once; /* what source_cancel() has said */

static uint64_t before_run(void *opaque)
{
	at_once = source_cancel(&given->s);
	return fake_source_ops.guest_time(opaque);
}

static int behind_run(void *opaque, const struct stream_run *run, struct stream_error *err)
{
	at_once = source_cancel(&given->s);
	return fake_sink_ops.start(opaque, run, err);
}

/* The last thing that is done before RUN is written, and what it does first there. */
static int called_off(bool late)
{
	struct world w;
	bool over;

	begin(&w);
	given = &w;
	if (late)
		sink_ops.start = behind_run;
	else
		ops.guest_time = before_run;
	over = run(&w, 5000);
	if (!over || at_once != (late ? -EBUSY : 0) || w.ret != (late ? 0 : -ECANCELED) ||
	    w.fake.running == late || w.there.sink.running != late)
		return bad(late ? "called off too late" : "called off just before RUN", &w);
	if (late && source_cancel(&w.s) != -EALREADY)
		return bad("called off when it runs there", &w);
	return end(&w);
}

/* At any moment of all that it takes: what was said is what happens. */
static int called_off_somewhen(void)
{
	unsigned kept = 0;
	uint64_t whole = clock_now();

	if (called_off(true))
		return 1;
	whole = clock_now() - whole;
	for (unsigned i = 0; i < 40; i++) {
		const uint64_t ns = whole * i / 40;
		struct timespec wait = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
		pthread_t thread;
		struct world w;
		int said;

		begin(&w);
		pthread_create(&thread, NULL, run_main, &w);
		nanosleep(&wait, NULL);
		said = source_cancel(&w.s);
		pthread_join(thread, NULL);
		if ((said == 0) != w.fake.running || w.fake.running == w.there.sink.running ||
		    (said == 0) != (w.ret == -ECANCELED))
			return bad("what was said is not what happened", &w);
		kept += !said;
		if (end(&w))
			return 1;
	}
	printf("called off %u times of 40\n", kept);
	return 0;
}

int main(void)
{
	snprintf(address, sizeof(address), "unix:/tmp/ferry-test-handover-%d", (int)getpid());
	snprintf(elsewhere, sizeof(elsewhere), "%s-elsewhere", address);
	return destination_ends() || given_up() || link_dies_before_run() ||
	       complains_before_run() || late_accept() || ends_unheard(false) ||
	       ends_unheard(true) || end_is_lost() || disk_taken(false) || disk_taken(true) ||
	       runs_again() || abandoned(false) || abandoned(true) || refused(false) ||
	       refused(true) || state_is_another() || no_kernel(false, false) ||
	       no_kernel(true, false) || no_kernel(true, true) || called_off(false) ||
	       called_off_somewhen();
}
