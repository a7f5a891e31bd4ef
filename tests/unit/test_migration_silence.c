/*
 * A side that says nothing is dead, in whichever phase: a relay swallows all that comes from one
 * direction from its n-th frame on, without closing anything. And one that only works for long is
 * alive. Silence is a fraction of a second here.
 */
#include "migration/clock.h"
#include "migration_util.h"

static const uint64_t silence = 600000000, slow = 2500000000;
static char address[128];
static struct migration_sink_ops sink_ops;
static struct migration_source_ops source_ops;

static int slow_load(void *opaque, const void *state, size_t len, struct stream_error *err)
{
	usleep(slow / 1000);
	return fake_sink_ops.load(opaque, state, len, err);
}

static int slow_start(void *opaque, const struct stream_run *run, struct stream_error *err)
{
	usleep(slow / 1000);
	return fake_sink_ops.start(opaque, run, err);
}

static int slow_release(void *opaque, struct stream_error *err)
{
	usleep(slow / 1000);
	return fake_source_ops.release(opaque, err);
}

/* What is wrong, or NULL. */
static const char *migrate(struct relay *relay, bool slowly, bool *moved)
{
	struct fake_source fake;
	struct fake_there there = {.ops = slowly ? &sink_ops : NULL, .building = slowly ? slow : 0};
	const uint64_t began = clock_now();
	const char *wrong = NULL;
	struct stream_error err = {0};
	struct source s;
	int ret;

	fake_source_init(&fake);
	if (slowly)
		fake.m.ops = &source_ops;
	if (fake_there_begin(&there, address, &fake, 300000000, -1))
		return "the door does not open";
	relay->address = address;
	s = (struct source){.m = &fake.m,
			    .params = {.downtime = 300000000, .postcopy_time = slowly ? 0 : 1},
			    .dial = relay_dial,
			    .opaque = relay,
			    .wake_fd = -1,
			    .retry_max = 20000000};
	if (source_init(&s))
		return "no memory";
	ret = source_run(&s, &err);
	printf("%s frame (or type) %u %s: %s %s, %u ms\n", slowly ? "slow" : "silent from",
	       relay->type ? relay->type : relay->frame, relay->direction ? "back" : "there",
	       ret ? "kept" : "moved", err.text, (unsigned)((clock_now() - began) / 1000000));
	fflush(stdout);
	*moved = !ret;
	source_exit(&s);
	pthread_join(there.thread, NULL);
	relay_end(relay);
	if (there.sink.both || fake.running == there.sink.running || !ret != there.sink.running ||
	    !ret != !there.code)
		wrong = "not exactly one has it";
	else if (!ret && memcmp(there.sink.memory, fake.memory, FAKE_PAGES * STREAM_PAGE) != 0)
		wrong = "other memory";
	free(there.sink.memory);
	free(fake.memory);
	return wrong;
}

int main(void)
{
	static const unsigned frames[] = {1, 4, 6, 8, 14};
	static const enum stream_type types[] = {STREAM_HELLO, STREAM_ACCEPT, STREAM_STATISTICS,
						 STREAM_READY, STREAM_ACK};
	struct relay relay = {0};
	const char *wrong;
	unsigned moves = 0;
	bool moved;

	snprintf(address, sizeof(address), "unix:/tmp/ferry-test-silence-%d", (int)getpid());
	link_set_silence(2000000000);
	sink_ops = fake_sink_ops;
	sink_ops.load = slow_load;
	sink_ops.start = slow_start;
	source_ops = fake_source_ops;
	source_ops.release = slow_release;
	wrong = migrate(&relay, true, &moved);
	if (!wrong && !moved)
		wrong = "one that works for long was taken for dead";
	link_set_silence(silence);
	for (int direction = 0; direction < 2; direction++) {
		for (unsigned i = 0; i < 5 && !wrong; i++) {
			relay = (struct relay){.spoil = SPOIL_SILENCE,
					       .direction = direction,
					       .frame = direction ? 0 : frames[i],
					       .type = direction ? types[i] : 0};
			wrong = migrate(&relay, false, &moved);
			moves += moved;
		}
	}
	if (!wrong && (!moves || moves == 10))
		wrong = "they all ended alike";
	if (wrong)
		printf("WRONG: %s\n", wrong);
	return !!wrong;
}
