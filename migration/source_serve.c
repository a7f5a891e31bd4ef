/* Post-copy as the source sees it: connections that come and go until nothing is missing there. */
#include "migration/clock.h"
#include "migration/source_internal.h"

static const uint64_t first_wait = 100000000; /* ns, until a new connection */
/* A connection that has lived for so long is no part of the trouble before it; ns. */
static const uint64_t settled = 5000000000;

static void lose(struct source *s)
{
	source_drop_link(s);
	source_step(s, EVENT_LOST);
}

/* What the policy says of a link that does not come back. */
static void spool(struct source *s, uint64_t *dead)
{
	if (!s->spool || s->link || !*dead)
		return;
	if (!source_abandoned(s) && (!s->params.recover || clock_now() - *dead < s->params.recover))
		return;
	if (!s->spool(s->opaque))
		source_step(s, EVENT_SPOOLED);
	else
		*dead = clock_now(); /* the next attempt is as far away */
}

/* Until there is a new connection; *dead: since when there is none that says what has come. */
static void find(struct source *s, uint64_t *dead, uint64_t *delay, struct stream_error *err)
{
	if (!*dead)
		*dead = clock_now();
	spool(s, dead);
	if (s->state != SOURCE_SERVES)
		return;
	source_paused(s, err->text);
	source_wait_retry(s, delay);
	if (!source_abandoned(s) && !source_ask_again(s, STREAM_STAGE_RUNNING, err)) {
		s->asking = true;
		source_phase(s, "postcopy");
		return;
	}
	lose(s);
}

/* The other side has more than ever, or is there to stay. One that breaks before it has brought a
 * page is as none: whatever damages each of them is not asked more often than a dead one. */
static bool is_better(const struct source *s, uint64_t *least)
{
	if (s->asking || (s->lacking >= *least && clock_now() - s->agreed < settled))
		return false;
	*least = s->lacking < *least ? s->lacking : *least;
	return true;
}

void source_serve(struct source *s)
{
	struct stream_error err = {.text = "the link broke"};
	uint64_t delay = first_wait, dead = 0, least = UINT64_MAX;

	s->round = s->serve_round;
	s->since = s->agreed = clock_now();
	s->lacking = s->missing;
	s->paced = 0;
	source_phase(s, "postcopy");
	while (s->state == SOURCE_SERVES && !source_abandoned(s)) {
		if (!s->link) {
			find(s, &dead, &delay, &err);
		} else if (source_turn(s, &err) < 0) {
			lose(s);
		} else if (is_better(s, &least)) {
			dead = 0;
			delay = first_wait;
		}
	}
	/* Its process ends: what is here is all that there is of these pages. */
	if (s->state == SOURCE_SERVES && s->spool) {
		lose(s);
		dead = 1;
		spool(s, &dead);
	}
	stream_batch_free(s->batch);
	s->batch = NULL;
}
