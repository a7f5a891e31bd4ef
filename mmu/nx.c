#include "mmu/nx.h"

#include <string.h>

#include "mmu/range.h"

void nx_init(struct nx *nx)
{
	memset(nx, 0, sizeof(*nx));
	pthread_mutex_init(&nx->mutex, NULL);
}

void nx_destroy(struct nx *nx, const struct s2_env *env)
{
	if (nx->block)
		env->free(env->opaque, nx->block, nx->room * sizeof(*nx->block));
	pthread_mutex_destroy(&nx->mutex);
}

/* The list moves to a larger ring; what is to be freed, if anything. With the mutex held. */
static uint64_t *move(struct nx *nx, uint64_t *larger, size_t room)
{
	uint64_t *old = nx->block;

	if (room <= nx->room)
		return larger; /* somebody else was here */
	for (size_t i = 0; i < nx->count; i++)
		larger[i] = old[(nx->first + i) % nx->room];
	nx->block = larger;
	nx->room = room;
	nx->first = 0;
	return old;
}

void nx_add(struct nx *nx, const struct s2_env *env, uint64_t gpa, unsigned level)
{
	pthread_mutex_lock(&nx->mutex);
	while (nx->count == nx->room) {
		size_t was = nx->room, room = was ? 2 * was : 4096 / sizeof(*nx->block);
		uint64_t *more, *spare;

		pthread_mutex_unlock(&nx->mutex);
		more = env->alloc(env->opaque, room * sizeof(*more));
		if (!more)
			return;
		pthread_mutex_lock(&nx->mutex);
		spare = move(nx, more, room);
		pthread_mutex_unlock(&nx->mutex);
		if (spare)
			env->free(env->opaque, spare,
				  (spare == more ? room : was) * sizeof(*spare));
		pthread_mutex_lock(&nx->mutex);
	}
	nx->block[(nx->first + nx->count++) % nx->room] = gpa | level;
	pthread_mutex_unlock(&nx->mutex);
}

static bool nx_take(struct nx *nx, uint64_t *block)
{
	bool any;

	pthread_mutex_lock(&nx->mutex);
	any = nx->count;
	if (any) {
		*block = nx->block[nx->first];
		nx->first = (nx->first + 1) % nx->room;
		nx->count--;
	}
	pthread_mutex_unlock(&nx->mutex);
	return any;
}

uint64_t s2_nx_splits(struct s2 *s2)
{
	uint64_t n;

	pthread_mutex_lock(&s2->nx.mutex);
	n = s2->nx.count;
	pthread_mutex_unlock(&s2->nx.mutex);
	return n;
}

int64_t s2_nx_recover(struct s2_thread *t, unsigned share)
{
	struct s2 *s2 = t->s2;
	uint64_t splits = s2_nx_splits(s2), block;
	int64_t n = 0, want;
	bool logging;

	pthread_mutex_lock(&s2->slots_mutex);
	logging = s2->logging;
	pthread_mutex_unlock(&s2->slots_mutex);
	if (!share || logging)
		return 0; /* while tracking they would be small again */
	want = (int64_t)(splits / share + (splits % share > 0));
	for (; n < want && nx_take(&s2->nx, &block); n++) {
		uint64_t level = block & 7, gpa = block - level;

		range_unmap(t, gpa, gpa + geometry_size(&s2->pt.geo, (unsigned)level));
	}
	return n;
}
