/*
 * Both sides of a migration, as they are, and between them a link that breaks at each frame in
 * turn, before it, in the middle of it, or with one bit of it changed: afterwards exactly one side
 * has the guest, with its memory, and each says the same of it.
 */
#include <time.h>

#include "migration_util.h"

static char address[128];
static bool verify;
static unsigned slow_load; /* us */
static bool fail_load;
static unsigned early, missing;
static uint64_t bandwidth; /* of what nobody waits for; 0: any */
static char said[256];	   /* by the destination, of its end */

/* One that has not met its source waits for ever: it is called off. */
static void wait_for(struct fake_there *t, int wake)
{
	struct timespec until;
	const uint64_t one = 1;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1;
	if (!pthread_timedjoin_np(t->thread, NULL, &until))
		return;
	(void)!write(wake, &one, sizeof(one));
	pthread_join(t->thread, NULL);
}

/* One migration; what is wrong with how it ended, or NULL. */
static const char *migrate(struct relay *relay, bool postcopy, bool fail_start, bool *moved,
			   char *text, size_t text_len)
{
	struct fake_source fake;
	struct fake_there there = {
		.sink = {.fail_start = fail_start, .slow_load = slow_load, .fail_load = fail_load}};
	struct fake_sink *sink = &there.sink;
	struct stream_error err = {0};
	struct source source;
	const char *wrong = NULL;
	int wake[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)}, ret;

	fake_source_init(&fake);
	if (fake_there_begin(&there, address, &fake, 500000000, wake[1]))
		return "the door does not open";
	source = (struct source){.m = &fake.m,
				 /* With post-copy the first round is broken off. */
				 .params = {.downtime = 300000000,
					    .bandwidth = bandwidth,
					    .postcopy_time = postcopy,
					    .verify = verify},
				 .dial = relay_dial,
				 .opaque = relay,
				 .wake_fd = wake[0],
				 .retry_max = 20000000};
	relay->address = address;
	if (source_init(&source))
		return "no memory";
	ret = source_run(&source, &err);
	snprintf(text, text_len, "%s", ret ? err.text : "");
	/* A source that has closed its connections is gone for the destination. */
	source_exit(&source);
	wait_for(&there, wake[1]);
	relay_end(relay);
	snprintf(said, sizeof(said), "%s", there.code ? there.err.text : "");
	*moved = !ret;
	early = sink->early;
	missing = sink->count;
	if (sink->both)
		wrong = "it was started there before it was given away";
	else if (!ret && (!sink->running || fake.running))
		wrong = "moved, says the source, and it is not";
	else if (ret && (sink->running || !fake.running || fake.released))
		wrong = "kept, says the source, and it is not";
	else if (!ret != !there.code)
		wrong = "the two do not say the same";
	else if (!ret && source.refused)
		wrong = "refused, says the source, and it is moved";
	else if (!ret && memcmp(sink->memory, fake.memory, FAKE_PAGES * STREAM_PAGE) != 0)
		wrong = "other memory";
	else if (sink->wrong || (!ret && postcopy && (!sink->whole || sink->count < 300)))
		wrong = "post-copy was none, or not right";
	else if (!ret && !sink->loaded)
		wrong = "no device state";
	free(sink->memory);
	free(fake.memory);
	close(wake[0]);
	close(wake[1]);
	return wrong;
}

enum { TRIES = 20 };

/* Pages that are missing come while the device state is loaded; all of them, if that takes long. */
static const char *ahead(void)
{
	struct relay relay = {0};
	const char *wrong;
	char text[300];
	bool moved;

	/* None go on a link that was slow once, as any link is that loses its processor for some
	 * milliseconds. */
	slow_load = 1000000;
	for (unsigned n = 0; n < TRIES; n++) {
		relay = (struct relay){0};
		wrong = migrate(&relay, true, false, &moved, text, sizeof(text));
		printf("ahead: %u of %u pages came before the guest ran %s\n", early, missing,
		       text);
		if (wrong || !moved || early == missing)
			break;
	}
	if (!wrong && (!moved || early != missing))
		wrong = "not all that was missing has come ahead";
	slow_load = 300000;
	for (unsigned frame = 0; frame < 8 && !wrong; frame++) {
		/* Before RUN the guest is kept; behind it what was lost is sent again. */
		relay = (struct relay){
			.spoil = SPOIL_CUT_INSIDE, .type = STREAM_PAGES, .frame = frame};
		wrong = migrate(&relay, true, false, &moved, text, sizeof(text));
		printf("ahead, PAGES %u cut: %s, %u early\n", frame, moved ? "moved" : text, early);
	}
	fail_load = true;
	early = 0;
	for (unsigned n = 0; n < TRIES && !wrong && !early; n++) {
		relay = (struct relay){0};
		wrong = migrate(&relay, true, false, &moved, text, sizeof(text));
	}
	printf("ahead, load fails: %s, %u early\n", text, early);
	if (!wrong && (moved || !early || !strstr(text, "no such device")))
		wrong = "pages came, the state could not be loaded, and it does not say so";
	fail_load = false;
	slow_load = 0;
	return wrong;
}

/* In post-copy there are many that are alike. */
enum { EACH = 20, STEP = 9 };

static const char *const spoil_names[] = {"nothing", "cut before", "cut inside", "bit in"};

/* A move that nothing disturbs, then each way to break its link. */
static int all(bool postcopy, unsigned *cases, unsigned *moves)
{
	unsigned frames[2];
	struct relay relay = {0};
	const char *wrong;
	char text[300];
	bool moved;

	wrong = migrate(&relay, postcopy, false, &moved, text, sizeof(text));
	if (wrong || !moved) {
		printf("an undisturbed move: %s %s\n", wrong ? wrong : "", text);
		return 1;
	}
	frames[0] = relay.frames[0];
	frames[1] = relay.frames[1];
	printf("%s: undisturbed: %u frames there, %u back, %u of them demanded pages and who wants "
	       "them\n",
	       postcopy ? "post-copy" : "pre-copy", frames[0], frames[1], relay.lane);
	/* Slow enough that somebody comes to wait, whoever gets the processor. */
	if (postcopy) {
		relay = (struct relay){0};
		bandwidth = 4 << 20;
		wrong = migrate(&relay, postcopy, false, &moved, text, sizeof(text));
		bandwidth = 0;
	}
	if (wrong || !moved || (postcopy ? relay.lane < 20 : relay.lane != 0)) {
		printf("the lane was not used as it should be: %u frames %s %s\n", relay.lane,
		       wrong ? wrong : "", text);
		return 1;
	}
	relay = (struct relay){.one = true};
	wrong = migrate(&relay, postcopy, false, &moved, text, sizeof(text));
	if (wrong || !moved || relay.lane) {
		printf("with one connection: %s %s\n", wrong ? wrong : "it was not moved", text);
		return 1;
	}
	relay = (struct relay){0};
	wrong = migrate(&relay, postcopy, true, &moved, text, sizeof(text));
	if (wrong || moved) {
		printf("a start that fails: %s %s\n", wrong ? wrong : "it was moved", text);
		return 1;
	}
	for (int direction = 0; direction < 2; direction++) {
		for (unsigned frame = 0; frame < frames[direction];
		     frame += frame < EACH ? 1 : STEP) {
			for (enum spoil spoil = SPOIL_CUT; spoil <= SPOIL_BYTE; spoil++) {
				relay = (struct relay){
					.spoil = spoil, .direction = direction, .frame = frame};
				wrong = migrate(&relay, postcopy, false, &moved, text,
						sizeof(text));
				printf("%s frame %u %s: %s %s\n", spoil_names[spoil], frame,
				       direction ? "back" : "there", moved ? "moved" : "kept",
				       text);
				fflush(stdout);
				/* Who finds damage says so, and it is heard. */
				if (!wrong && spoil == SPOIL_BYTE && !moved &&
				    (strstr(text, "hung up") || !strstr(text, "damaged")))
					wrong = "the reason is lost";
				if (wrong) {
					printf("WRONG: %s\n", wrong);
					return 1;
				}
				++*cases;
				*moves += moved;
			}
		}
	}
	return 0;
}

/* A link that breaks while the guest is handed over; then somebody refuses who has not said HELLO,
 * twice: a stranger at that address, and the destination's own door, to which HELLO came damaged.
 * Neither knows where the guest is. And the source does, to which the destination's came so. */
static int refused_again(bool postcopy, unsigned *moves)
{
	struct relay relay = {0};
	const char *wrong;
	char text[300];
	unsigned last[2];
	bool moved;

	wrong = migrate(&relay, postcopy, false, &moved, text, sizeof(text));
	last[0] = postcopy ? EACH : relay.frames[0];
	/* Around READY and ACK. */
	last[1] = postcopy ? 7 : relay.frames[1];
	for (int direction = 0; direction < 2 && !wrong; direction++) {
		for (unsigned back = 1; back <= 6 && !wrong; back++) {
			relay = (struct relay){.spoil = SPOIL_CUT,
					       .direction = direction,
					       .frame = last[direction] - back,
					       .strangers = 1,
					       .damaged = {1, 1}};
			wrong = migrate(&relay, postcopy, false, &moved, text, sizeof(text));
			printf("frame %u %s, then refused without HELLO: %s %s\n",
			       last[direction] - back, direction ? "back" : "there",
			       moved ? "moved" : "kept", text);
			fflush(stdout);
			/* Both have been met by those who do not know. */
			*moves +=
				moved && !relay.strangers && !relay.damaged[0] && !relay.damaged[1];
		}
	}
	if (wrong)
		printf("WRONG: %s\n", wrong);
	return !!wrong;
}

/* Contents that change between what was said of them and the wire: found in each frame, before the
 * guest sees them; and not at all by those who don't look. */
static int verified(bool postcopy)
{
	unsigned kept = 0, went = 0;
	bool moved, spoiled = true;
	struct relay relay;
	const char *wrong = NULL;
	char text[300];

	verify = false;
	/* Some are sent again. */
	for (unsigned frame = 0; spoiled && !wrong && frame < 40; frame++) {
		relay = (struct relay){.spoil = SPOIL_PAGE, .frame = frame};
		wrong = migrate(&relay, postcopy, false, &moved, text, sizeof(text));
		spoiled = relay.spoiled;
		printf("not verified, frame %u: %s\n", frame, wrong ? wrong : text);
	}
	if (!wrong) {
		puts("WRONG: what was changed was found without looking for it");
		return 1;
	}
	spoiled = true;
	verify = true;
	for (unsigned frame = 0; spoiled && frame < (postcopy ? 24 : 40); frame++) {
		relay = (struct relay){.spoil = SPOIL_PAGE, .frame = frame};
		wrong = migrate(&relay, postcopy, false, &moved, text, sizeof(text));
		spoiled = relay.spoiled;
		printf("verified, frame %u: %s %s / %s\n", frame, moved ? "moved" : "kept", said,
		       text);
		/* Of pages that come ahead of RUN the source tells. */
		if (wrong ||
		    (!moved && !strstr(said, "not what was sent") &&
		     !strstr(text, "not what was sent")) ||
		    (spoiled && moved && !postcopy)) {
			printf("WRONG: %s\n", wrong ? wrong : "not found");
			return 1;
		}
		kept += !moved;
		went += spoiled && moved;
	}
	verify = false;
	return !kept || postcopy != !!went;
}

/* Digests have come, and the link breaks before their pages: what comes on the next one, pages of
 * zeroes without digests too, is what counts. On either connection. */
static int cut_between(void)
{
	const char *wrong = NULL;
	char text[300];
	bool moved;

	verify = true;
	for (unsigned frame = 0; frame < 40 && !wrong; frame++) {
		struct relay relay = {.spoil = SPOIL_CUT, .type = STREAM_PAGES, .frame = frame};

		wrong = migrate(&relay, true, false, &moved, text, sizeof(text));
		printf("cut before PAGES %u: %s %s\n", frame, moved ? "moved" : "kept", text);
		fflush(stdout);
		if (!wrong && relay.count > 8)
			wrong = "it was tried again and again";
	}
	verify = false;
	if (wrong)
		printf("WRONG: %s\n", wrong);
	return wrong != NULL;
}

int main(void)
{
	unsigned cases = 0, moves = 0;
	const char *wrong;

	snprintf(address, sizeof(address), "unix:/tmp/ferry-test-migration-%d", (int)getpid());
	if (verified(false) || verified(true) || cut_between())
		return 1;
	for (int postcopy = 0; postcopy < 2; postcopy++) {
		unsigned found = 0;

		if (refused_again(postcopy, &found))
			return 1;
		if (!found) {
			puts("nobody was refused while it was not known where the guest is");
			return 1;
		}
	}
	for (int postcopy = 0; postcopy < 2; postcopy++)
		if (all(postcopy, &cases, &moves))
			return 1;
	printf("%u ways to break the link: %u moved, %u kept\n", cases, moves, cases - moves);
	wrong = ahead();
	if (wrong) {
		printf("ahead: %s\n", wrong);
		return 1;
	}
	return !moves || moves == cases;
}
