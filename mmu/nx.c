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
	if (nx->entry)
		env->free(env->opaque, nx->entry, nx->room * sizeof(*nx->entry));
	pthread_mutex_destroy(&nx->mutex);
}

/* ---- all with the mutex held ---- */

static uint32_t *bucket_of(const struct nx *nx, uint64_t block)
{
	return &nx->entry[(block * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (nx->room - 1)].bucket;
}

/* The link that leads to the block's entry, or the end of its chain. */
static uint32_t *link_to(const struct nx *nx, uint64_t block)
{
	uint32_t *link = bucket_of(nx, block);

	while (*link && nx->entry[*link - 1].block != block)
		link = &nx->entry[*link - 1].next;
	return link;
}

/* There is room, and the block is not on the list. */
static void put(struct nx *nx, uint64_t block)
{
	size_t at = (nx->first + nx->count++) & (nx->room - 1);
	uint32_t *bucket = bucket_of(nx, block);

	nx->entry[at].block = block;
	nx->entry[at].next = *bucket;
	*bucket = (uint32_t)at + 1;
}

static uint64_t take(struct nx *nx)
{
	uint64_t block = nx->entry[nx->first].block;

	*link_to(nx, block) = nx->entry[nx->first].next;
	nx->first = (nx->first + 1) & (nx->room - 1);
	nx->count--;
	return block;
}

/* The list moves to a larger ring; what is to be freed, if anything. */
static struct nx_entry *move(struct nx *nx, struct nx_entry *larger, size_t room)
{
	struct nx was = *nx;

	if (room <= nx->room)
		return larger; /* somebody else was here */
	nx->entry = larger;
	nx->room = room;
	nx->first = 0;
	nx->count = 0;
	for (size_t i = 0; i < was.count; i++)
		put(nx, was.entry[(was.first + i) & (was.room - 1)].block);
	return was.entry;
}

/* ---- */

void nx_add(struct nx *nx, const struct s2_env *env, uint64_t gpa, unsigned level)
{
	uint64_t block = gpa | level;

	pthread_mutex_lock(&nx->mutex);
	while (!nx->room || (!*link_to(nx, block) && nx->count == nx->room)) {
		size_t was = nx->room, room = was ? 2 * was : 4096 / sizeof(*nx->entry);
		struct nx_entry *more, *spare;

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
	if (!*link_to(nx, block))
		put(nx, block);
	pthread_mutex_unlock(&nx->mutex);
}

void nx_forget(struct nx *nx, uint64_t start, uint64_t last)
{
	pthread_mutex_lock(&nx->mutex);
	for (size_t n = nx->count; n; n--) {
		uint64_t block = take(nx);

		if (block < start || block > last)
			put(nx, block);
	}
	pthread_mutex_unlock(&nx->mutex);
}

static bool nx_take(struct nx *nx, uint64_t *block)
{
	bool any;

	pthread_mutex_lock(&nx->mutex);
	any = nx->count;
	if (any)
		*block = take(nx);
	pthread_mutex_unlock(&nx->mutex);
	return any;
}

/* The block is not one leaf, nor empty. What is just being changed counts as small. */
static bool is_small(struct s2_thread *t, uint64_t gpa, unsigned level)
{
	struct walk_entry w;

	brlock_read_lock(&t->s2->lock, &t->reader);
	rcu_enter();
	w = walk_lookup(t->ops->format, &t->s2->pt, gpa);
	rcu_exit();
	brlock_read_unlock(&t->reader);
	return w.level < level || w.kind == ENTRY_FROZEN;
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
	while (n < want && nx_take(&s2->nx, &block)) {
		unsigned level = block & 7;
		uint64_t gpa = block - level;

		/* Taken first: who makes it small again now puts it on the list again. */
		if (!is_small(t, gpa, level))
			continue;
		range_unmap(t, gpa, gpa + geometry_size(&s2->pt.geo, level));
		n++;
	}
	return n;
}
