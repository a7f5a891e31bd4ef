/* What any thread may see of a migration that goes out, and ask of it. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/source_internal.h"

int source_step(struct source *s, enum migration_event event)
{
	int next = migration_next(s->state, event), ret = 0;

	if (next < 0)
		return -EPROTO;
	pthread_mutex_lock(&s->lock);
	/* Who has called it off was told that the guest stays, and whose process ends said so. */
	if (s->state == SOURCE_READY && next == SOURCE_DOUBT && (s->cancel || s->abandon))
		ret = -ECANCELED;
	else
		s->progress.state = s->state = (enum migration_state)next;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

void source_phase(struct source *s, const char *phase)
{
	pthread_mutex_lock(&s->lock);
	s->progress.phase = phase;
	s->progress.trouble[0] = 0;
	s->progress.elapsed = clock_now() - s->begun;
	pthread_mutex_unlock(&s->lock);
}

void source_paused(struct source *s, const char *why)
{
	pthread_mutex_lock(&s->lock);
	s->progress.phase = "paused";
	snprintf(s->progress.trouble, sizeof(s->progress.trouble), "%.199s", why);
	s->progress.elapsed = clock_now() - s->begun;
	pthread_mutex_unlock(&s->lock);
}

void source_progress(struct source *s, struct migration_progress *out)
{
	pthread_mutex_lock(&s->lock);
	*out = s->progress;
	pthread_mutex_unlock(&s->lock);
}

bool source_in_doubt(struct source *s)
{
	bool doubt;

	pthread_mutex_lock(&s->lock);
	doubt = s->progress.state == SOURCE_DOUBT;
	pthread_mutex_unlock(&s->lock);
	return doubt;
}

static bool gone(enum migration_state state)
{
	return state == SOURCE_SERVES || state == SOURCE_MOVED || state == SOURCE_SPOOLED;
}

bool source_gone(struct source *s)
{
	bool ret;

	pthread_mutex_lock(&s->lock);
	ret = gone(s->progress.state);
	pthread_mutex_unlock(&s->lock);
	return ret;
}

/* Together with source_step(): the answer is as true as the next state. */
int source_cancel(struct source *s)
{
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	if (gone(s->progress.state))
		ret = -EALREADY;
	else if (s->progress.state == SOURCE_DOUBT)
		ret = -EBUSY;
	else
		s->cancel = true;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

int source_postcopy(struct source *s)
{
	const enum migration_state state = SOURCE_COPY;
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	if (s->progress.state != state)
		ret = -EALREADY;
	else if (s->precopy_only)
		ret = -ENOTSUP;
	else
		s->postcopy = true;
	pthread_mutex_unlock(&s->lock);
	return ret;
}

void source_force(struct source *s)
{
	pthread_mutex_lock(&s->lock);
	s->force = true;
	pthread_mutex_unlock(&s->lock);
}

void source_abandon(struct source *s)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&s->lock);
	s->abandon = true;
	pthread_mutex_unlock(&s->lock);
	(void)!write(s->abandon_fd, &one, sizeof(one));
}

void source_retry(struct source *s)
{
	pthread_mutex_lock(&s->lock);
	s->retry = true;
	pthread_mutex_unlock(&s->lock);
}

bool source_forced(struct source *s)
{
	bool force;

	pthread_mutex_lock(&s->lock);
	force = s->force;
	pthread_mutex_unlock(&s->lock);
	return force;
}

bool source_abandoned(struct source *s)
{
	bool abandon;

	pthread_mutex_lock(&s->lock);
	abandon = s->abandon;
	pthread_mutex_unlock(&s->lock);
	return abandon;
}
