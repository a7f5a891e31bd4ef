#include "migration/clock.h"
#include "migration/source_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

enum {
	FIRST_WAIT = 100000000, /* ns, until what is not to be had is asked for again */
	CANCEL_TRIES = 5,
};

uint64_t source_words(const struct source *s)
{
	const struct stream_memory *memory = &s->m->memory;
	uint64_t words = 0;

	for (uint32_t r = 0; r < memory->count; r++)
		words += source_region_words(memory->region[r].count);
	return words;
}

int source_init(struct source *s)
{
	const struct stream_memory *memory = &s->m->memory;
	const uint64_t words = source_words(s) + 1;

	s->bitmap = calloc(words, sizeof(*s->bitmap));
	s->unsure = calloc(words, sizeof(*s->unsure));
	s->state = SOURCE_COPY;
	s->state_size = 1 << 16;
	s->progress = (struct migration_progress){.phase = "connecting",
						  .total = memory->pages * STREAM_PAGE,
						  .remaining = memory->pages * STREAM_PAGE};
	s->abandon_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->pages_lock, NULL);
	stream_hello_init(&s->hello);
	s->hello.role = STREAM_SOURCE;
	s->hello.offers = STREAM_CAN_ZSTD | STREAM_CAN_RECONNECT | STREAM_CAN_POSTCOPY |
			  STREAM_CAN_LANES | STREAM_CAN_IMAGES | STREAM_CAN_AHEAD;
	/* What was asked for is not left out silently. */
	s->hello.needs = s->params.verify ? STREAM_CAN_VERIFY : 0;
	if (s->params.postcopy_rounds || s->params.postcopy_time ||
	    s->params.on_timeout == MIGRATION_POSTCOPY)
		s->hello.needs |= STREAM_CAN_POSTCOPY;
	strncpy(s->hello.arch, s->m->arch, sizeof(s->hello.arch) - 1);
	strncpy(s->hello.ferry, s->m->ferry, sizeof(s->hello.ferry) - 1);
	if (getrandom(s->hello.session, sizeof(s->hello.session), 0) != sizeof(s->hello.session))
		return -EIO;
	return s->bitmap && s->unsure && s->abandon_fd >= 0 ? 0 : -ENOMEM;
}

void source_exit(struct source *s)
{
	source_drop_link(s);
	free(s->bitmap);
	free(s->unsure);
	if (s->abandon_fd >= 0)
		close(s->abandon_fd);
	pthread_mutex_destroy(&s->pages_lock);
	pthread_mutex_destroy(&s->lock);
}

/* Pages of one frame: with a limit not more than it lets through in an eighth of a second. */
unsigned source_batch_limit(const struct source *s)
{
	uint64_t pages = s->params.bandwidth / 8 / STREAM_PAGE;

	if (!s->params.bandwidth || pages > STREAM_PAGES_MAX)
		return STREAM_PAGES_MAX;
	return pages ? (unsigned)pages : 1;
}

static int give_away(struct source *s, struct stream_error *err)
{
	int ret = source_connect(s, false, s->wake_fd, err);

	if (ret)
		return ret;
	s->batch = stream_batch_new(&s->link->w, source_batch_limit(s));
	if (!s->batch)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	stream_batch_verify(s->batch, s->params.verify);
	ret = source_copy(s, err);
	if (!ret)
		ret = source_wait_ready(s, err);
	if (!ret)
		ret = source_busy(s, s->m->ops->release, err);
	/* That may have taken long, and until RUN is said a destination that has gone costs
	 * nothing. */
	if (!ret)
		ret = source_listen(s, err);
	/* Where its round has begun already post-copy goes on with it. */
	if (ret || !s->ahead) {
		stream_batch_free(s->batch);
		s->batch = NULL;
	}
	if (ret)
		return ret;
	if (source_say_run(s) == -ECANCELED && s->state == SOURCE_READY)
		return stream_fail(err, NULL, -ECANCELED, "called off");
	source_resolve(s);
	if (s->state == SOURCE_SERVES || s->state == SOURCE_MOVED) {
		pthread_mutex_lock(&s->lock);
		s->progress.downtime = clock_now() - s->stopped;
		pthread_mutex_unlock(&s->lock);
	}
	if (s->state == SOURCE_SERVES)
		source_serve(s);
	if (s->state == SOURCE_SERVES)
		return stream_fail(err, NULL, -EINPROGRESS,
				   "the guest runs there, and pages that it lacks are lost");
	if (source_gone(s))
		return 0;
	if (source_forced(s) && !s->reason[0])
		return stream_fail(err, NULL, -ECONNREFUSED,
				   "the guest was taken back by force: nobody knows whether it "
				   "runs there, too");
	return stream_fail(err, NULL, -ECONNREFUSED,
			   "the destination could not start the guest%s%s",
			   s->reason[0] ? ": " : "", s->reason);
}

static void sum_up(struct source *s, const char *phase)
{
	pthread_mutex_lock(&s->lock);
	s->progress.phase = phase;
	s->progress.trouble[0] = 0;
	s->progress.elapsed = clock_now() - s->begun;
	s->progress.sent = source_sent(s);
	if (s->state == SOURCE_MOVED) {
		s->progress.remaining = 0;
		s->progress.done = 1;
	}
	pthread_mutex_unlock(&s->lock);
}

static void say_stays(struct source *s, int code, const struct stream_error *why)
{
	sum_up(s, code == -ECANCELED ? "cancelled" : "failed");
	if (s->stays)
		s->stays(s->opaque, code, why);
}

/* The guest is ours. What it gave up may have been taken by somebody else: it stands still until
 * that is free again, and the destination does not wait for that. code, why: of the migration's
 * end. 0 or -EOWNERDEAD with a text: it stands still, and the machine ends. */
static int keep(struct source *s, int code, const struct stream_error *why,
		struct stream_error *err)
{
	struct stream_error trouble;
	uint64_t delay = FIRST_WAIT;
	unsigned tries = 0;
	bool said = false;
	int ret = s->m->ops->take_back(s->m->opaque, &trouble);

	/* Who waits for the guest may be who has what it needs: it hears between the attempts. */
	while (ret && !source_abandoned(s)) {
		if (!said && tries++ < CANCEL_TRIES)
			said = source_say_cancel(s, why->text, 1);
		source_paused(s, trouble.text);
		source_wait_retry(s, &delay);
		ret = s->m->ops->take_back(s->m->opaque, &trouble);
	}
	if (!ret)
		say_stays(s, code, why);
	if (!said)
		source_say_cancel(s, why->text, CANCEL_TRIES - tries);
	return ret ? stream_fail(err, NULL, -EOWNERDEAD, "%s", trouble.text) : 0;
}

int source_run(struct source *s, struct stream_error *err)
{
	struct stream_error why;
	int ret, kept;

	s->begun = clock_now();
	ret = give_away(s, err);
	source_throttle_off(s);
	if (s->state == SOURCE_MOVED) {
		sum_up(s, "completed");
		source_say_end(s);
		return 0;
	}
	if (s->state == SOURCE_SPOOLED)
		sum_up(s, "spooled");
	if (s->state == SOURCE_SERVES || s->state == SOURCE_SPOOLED)
		return ret;
	if (s->state == SOURCE_DOUBT)
		return stream_fail(err, NULL, -EINPROGRESS,
				   "it is not known whether the guest runs there");
	if (!migration_over(s->state))
		source_step(s, EVENT_CALL_OFF);
	/* The guest writes again: nothing is answered any more. */
	source_lane_end(s);
	s->serving = false;
	(void)s->m->ops->track(s->m->opaque, false, &why);
	why = *err;
	kept = keep(s, ret, &why, err);
	if (kept)
		sum_up(s, "failed");
	return kept ? kept : ret;
}
