/*
 * A guest that writes faster than the link carries, and each thing that can be done about it: wait
 * for ever and call it off in time, let it go without its pages, throttle it; and that a throttled
 * guest is let go in each case. And one that could be stopped at once, but writes less each time.
 */
#include "migration/clock.h"
#include "migration_util.h"

enum { WRITES = 300 /* pages between two looks, as fast as it likes */, BANDWIDTH = 8 << 20 };

static char address[128];
static struct migration_source_ops ops;

struct guest {
	struct fake_source fake; /* the first member */
	uint64_t rate;		 /* bytes per second that are allowed */
	uint64_t looked;	 /* when it was looked at */
	unsigned squeezed, released;
	uint64_t writes; /* if set: so many pages between two looks, and then... */
	bool calms_down; /* ...half of them each time */
	int wake;	 /* eventfd: calls it off... */
	bool cancel;	 /* ...when it is throttled */
};

static int64_t harvest(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	struct guest *g = opaque;
	const uint64_t now = clock_now();
	uint64_t writes = WRITES;

	if (g->rate && g->rate * (now - g->looked) / 1000000000 / STREAM_PAGE < writes)
		writes = g->rate * (now - g->looked) / 1000000000 / STREAM_PAGE;
	if (g->writes)
		writes = g->writes;
	if (g->calms_down)
		g->writes = g->writes / 2 ?: 1;
	g->looked = now;
	g->fake.harvests++;
	if (g->fake.running)
		for (uint64_t i = 0; i < writes; i++)
			fake_write(&g->fake, (unsigned)i, (uint8_t)(i + g->fake.harvests));
	for (uint64_t i = 0; i < pages; i++)
		if (g->fake.dirty[first + i])
			bitmap[i / 64] |= 1ull << (i % 64);
	memset(g->fake.dirty, 0, sizeof(g->fake.dirty));
	return (int64_t)writes;
}

static void throttle(void *opaque, uint64_t rate)
{
	struct guest *g = opaque;
	const uint64_t one = 1;

	g->squeezed += rate != 0;
	g->released += !rate;
	g->rate = rate;
	if (rate && g->cancel)
		(void)!write(g->wake, &one, sizeof(one));
}

/* It is stopped when the next round would not be much shorter: `most` pages are left then. */
static int calm(bool calms_down, uint64_t most)
{
	const struct migration_params params = {.downtime = 1000000000, .bandwidth = BANDWIDTH};
	struct guest here = {.wake = -1, .writes = 60, .calms_down = calms_down};
	struct fake_there there = {0};
	struct stream_error err;
	struct source s;
	int ret;

	fake_source_init(&here.fake);
	here.fake.m.ops = &ops;
	ret = fake_move(&s, &here.fake, &there, address, &params, 0, &err);
	printf("%s: %d %s: %u rounds, %u pages when it stood still, at most %u\n",
	       calms_down ? "calms down" : "goes on", ret, err.text, s.round, (unsigned)s.dirty,
	       (unsigned)most);
	fflush(stdout);
	ret = ret || s.dirty > most || (!calms_down && s.round != 3) ||
	      memcmp(there.sink.memory, here.fake.memory, FAKE_PAGES * STREAM_PAGE) != 0;
	free(there.sink.memory);
	free(here.fake.memory);
	return ret;
}

static int64_t harvest_nothing(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	(void)opaque, (void)first, (void)pages, (void)bitmap;
	return 0;
}

/* A guest that writes nothing, and a downtime that no guest keeps to: rounds go on, not in a hurry.
 */
static int idle(void)
{
	const struct migration_params params = {.downtime = 1000000, .timeout = 500000000};
	struct migration_source_ops quiet = fake_source_ops;
	struct fake_there there = {0};
	struct stream_error err = {0};
	struct fake_source here;
	const uint64_t begun = clock_now();
	struct source s;
	uint64_t most;
	int ret;

	fake_source_init(&here);
	quiet.harvest = harvest_nothing;
	here.m.ops = &quiet;
	ret = fake_move(&s, &here, &there, address, &params, 0, &err);
	most = (clock_now() - begun) / 50000000 + 2;
	printf("idle: %d %s: %u rounds, at most %u\n", ret, err.text, s.round, (unsigned)most);
	fflush(stdout);
	ret = ret != -ETIME || s.round > most || !here.running;
	free(there.sink.memory);
	free(here.memory);
	return ret;
}

/* What the limit makes wait is compressed: all but the first frame, or, if it takes longer to make
 * one than the limit wants one that was, every second one. */
static int packed(void)
{
	const struct migration_params params = {.downtime = 1000000000, .bandwidth = 2 << 20};
	struct fake_there there = {0};
	struct stream_error err = {0};
	struct fake_source here;
	struct source s;
	int ret;

	fake_source_init(&here);
	for (unsigned i = 0; i < FAKE_PAGES; i++)
		memset(here.memory[i], (int)(i % 255) + 1, STREAM_PAGE);
	ret = fake_move(&s, &here, &there, address, &params, 0, &err);
	printf("a limit, pages that can be compressed: %d %s: %u KiB for %u\n", ret, err.text,
	       (unsigned)(s.progress.sent >> 10), FAKE_PAGES * STREAM_PAGE >> 10);
	fflush(stdout);
	ret = ret || s.progress.sent > FAKE_PAGES * STREAM_PAGE / 4 * 3 ||
	      memcmp(there.sink.memory, here.memory, FAKE_PAGES * STREAM_PAGE) != 0;
	free(there.sink.memory);
	free(here.memory);
	return ret;
}

static int migrate(enum migration_policy policy, uint64_t timeout, bool cancel, int want,
		   bool squeezed, bool postcopy)
{
	struct guest here = {.wake = eventfd(0, EFD_NONBLOCK), .cancel = cancel}, *g = &here;
	struct relay relay = {.address = address};
	struct fake_there there = {0};
	struct stream_error err = {0};
	struct source s;
	int ret;

	fake_source_init(&g->fake);
	g->fake.m.ops = &ops;
	g->looked = clock_now();
	if (fake_there_begin(&there, address, &g->fake, 500000000, -1))
		return 1;
	s = (struct source){.m = &g->fake.m,
			    .params = {.downtime = 100000000,
				       .bandwidth = BANDWIDTH,
				       .timeout = timeout,
				       .on_timeout = policy},
			    .dial = relay_dial,
			    .opaque = &relay,
			    .wake_fd = here.wake,
			    .retry_max = 20000000};
	if (source_init(&s))
		return 1;
	ret = source_run(&s, &err);
	printf("policy %d: %d %s: %u rounds, throttled %u times, downtime %u ms of 100 expected %u "
	       "ms\n",
	       policy, ret, err.text, s.round, g->squeezed,
	       (unsigned)(s.progress.downtime / 1000000),
	       (unsigned)(s.progress.downtime_expected / 1000000));
	fflush(stdout);
	source_exit(&s);
	pthread_join(there.thread, NULL);
	relay_end(&relay);
	close(here.wake);
	if (ret != want || !ret == g->fake.running || !!g->squeezed != squeezed ||
	    g->released != squeezed || g->rate || (there.sink.count > 0) != postcopy)
		ret = 1;
	else
		ret = want ? 0
			   : memcmp(there.sink.memory, g->fake.memory, FAKE_PAGES * STREAM_PAGE) !=
				      0;
	free(there.sink.memory);
	free(g->fake.memory);
	return ret;
}

/* Post-copy was asked for, and the destination has none: it is said before anything is sent. */
static int refused(const char *how, struct migration_params params)
{
	struct migration_sink_ops sink_ops = fake_sink_ops;
	struct fake_there there = {.ops = &sink_ops};
	struct stream_error err;
	struct fake_source fake;
	struct source s;
	int ret;

	sink_ops.miss = NULL;
	fake_source_init(&fake);
	ret = fake_move(&s, &fake, &there, address, &params, 0, &err);
	printf("%s: %d %s\n", how, ret, err.text);
	fflush(stdout);
	ret = ret != -ENOTSUP || !strstr(err.text, "'postcopy'") || !there.code || !fake.running ||
	      fake.images;
	free(there.sink.memory);
	free(fake.memory);
	return ret;
}

/* It is asked for while the move goes on: before the destination has said that it has none, or
 * after. */
static struct {
	struct relay relay; /* the first member */
	struct source s;
	bool early;
	int answer;
} told;

static int told_dial(void *opaque, int wake_fd, struct stream_error *err)
{
	if (told.early)
		told.answer = source_postcopy(&told.s);
	return relay_dial(opaque, wake_fd, err);
}

static int64_t told_harvest(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	if (told.answer > 0)
		told.answer = source_postcopy(&told.s);
	return fake_harvest(opaque, first, pages, bitmap);
}

static int told_on_the_way(bool early)
{
	struct migration_source_ops source_ops = fake_source_ops;
	struct migration_sink_ops sink_ops = fake_sink_ops;
	struct fake_there there = {.ops = &sink_ops};
	struct stream_error err = {0};
	struct fake_source fake;
	int ret;

	sink_ops.miss = NULL;
	fake_source_init(&fake);
	if (!early)
		source_ops.harvest = told_harvest;
	fake.m.ops = &source_ops;
	told.early = early;
	told.answer = 1;
	told.relay = (struct relay){.address = address};
	told.s = (struct source){.m = &fake.m,
				 .params = {.downtime = 1000000000},
				 .dial = told_dial,
				 .opaque = &told.relay,
				 .wake_fd = -1};
	if (fake_there_begin(&there, address, &fake, 500000000, -1) || source_init(&told.s))
		return 1;
	ret = source_run(&told.s, &err);
	source_exit(&told.s);
	pthread_join(there.thread, NULL);
	relay_end(&told.relay);
	printf("told %s: answered %d, moved %d %s\n", early ? "early" : "late", told.answer, ret,
	       err.text);
	fflush(stdout);
	if (early)
		ret = told.answer || ret != -ENOTSUP || !there.code || !fake.running || fake.images;
	else
		ret = told.answer != -ENOTSUP || ret || fake.running ||
		      memcmp(there.sink.memory, fake.memory, FAKE_PAGES * STREAM_PAGE) != 0;
	free(there.sink.memory);
	free(fake.memory);
	return ret;
}

int main(void)
{
	snprintf(address, sizeof(address), "unix:/tmp/ferry-test-policy-%d", (int)getpid());
	ops = fake_source_ops;
	ops.harvest = harvest;
	ops.throttle = throttle;
	/* A time-out of 0: it is seen by itself that nothing comes of it. */
	return migrate(MIGRATION_CANCEL, 600000000, false, -ETIME, false, false) ||
	       migrate(MIGRATION_POSTCOPY, 0, false, 0, false, true) ||
	       migrate(MIGRATION_POSTCOPY, 100000000, false, 0, false, true) ||
	       migrate(MIGRATION_THROTTLE, 0, false, 0, true, false) ||
	       migrate(MIGRATION_THROTTLE, 100000000, false, 0, true, false) ||
	       migrate(MIGRATION_THROTTLE, 0, true, -ECANCELED, true, false) || calm(true, 8) ||
	       calm(false, 60) || idle() || packed() ||
	       refused("rounds", (struct migration_params){.postcopy_rounds = 1}) ||
	       refused("a time", (struct migration_params){.postcopy_time = 1000000000}) ||
	       refused("on time-out",
		       (struct migration_params){.on_timeout = MIGRATION_POSTCOPY}) ||
	       told_on_the_way(true) || told_on_the_way(false);
}
