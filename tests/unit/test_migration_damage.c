/*
 * Something on the way damages frames of every connection, after the guest has gone: the source
 * asks ever less often and says what is wrong; when it is cured all pages come, and are right.
 */
#include "migration/clock.h"
#include "migration_util.h"

static char address[128];

enum { SICK_MS = 1300, TURN_MS = 10 };

static void *run_main(void *arg)
{
	struct source *s = arg;
	struct stream_error err = {0};

	return source_run(s, &err) ? s : NULL;
}

/* What is wrong, or NULL. reason: what people must be told. */
static const char *move(enum stream_type type, const char *reason)
{
	struct relay relay = {.address = address, .plague = (int)type};
	struct fake_there there = {0};
	struct fake_source fake;
	struct migration_progress p;
	const char *wrong = NULL;
	bool said = false;
	unsigned dialled;
	uint64_t end;
	pthread_t thread;
	struct source s;
	void *failed;

	fake_source_init(&fake);
	if (fake_there_begin(&there, address, &fake, 10000000000, -1))
		return "the door does not open";
	s = (struct source){.m = &fake.m,
			    .params = {.downtime = 300000000, .postcopy_time = 1},
			    .dial = relay_dial,
			    .opaque = &relay,
			    .wake_fd = -1};
	if (source_init(&s))
		return "no memory";
	pthread_create(&thread, NULL, run_main, &s);
	do {
		usleep(1000);
		source_progress(&s, &p);
	} while (p.state < SOURCE_DOUBT);
	end = clock_now() + SICK_MS * UINT64_C(1000000);
	while (clock_now() < end) {
		usleep(TURN_MS * 1000);
		source_progress(&s, &p);
		said |= strstr(p.trouble, reason) && !strcmp(p.phase, "paused");
	}
	dialled = relay.count;
	printf("frame type %d: %u connections, %s: %s\n", (int)type, dialled, p.phase, p.trouble);
	relay.plague = 0;
	source_retry(&s);
	pthread_join(thread, &failed);
	source_exit(&s);
	pthread_join(there.thread, NULL);
	relay_end(&relay);
	if (failed || there.code || !there.sink.whole || there.sink.wrong || there.sink.both)
		wrong = "it has not gone";
	else if (memcmp(there.sink.memory, fake.memory, FAKE_PAGES * STREAM_PAGE) != 0)
		wrong = "other memory";
	else if (!said)
		wrong = "nobody is told why";
	/* After 0.1, 0.2, 0.4 and 0.8 s, each with one for demanded pages. */
	else if (dialled < 4 || dialled > 2 + 2 * 4)
		wrong = "it asks too often, or not at all";
	free(there.sink.memory);
	free(fake.memory);
	return wrong;
}

int main(void)
{
	const char *wrong;

	snprintf(address, sizeof(address), "unix:/tmp/ferry-test-damage-%d", (int)getpid());
	wrong = move(STREAM_PAGES, "damaged");
	if (!wrong)
		wrong = move(STREAM_RESUME, "damaged");
	if (wrong)
		printf("WRONG: %s\n", wrong);
	return !!wrong;
}
