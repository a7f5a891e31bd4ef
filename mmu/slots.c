#include "mmu/slots.h"

#include <errno.h>
#include <string.h>

#include "mmu/dirty.h"

size_t slots_first(const struct slots *slots, uint64_t gpa)
{
	size_t i = 0;

	while (i < slots->count && slots->slot[i].s.gpa + (slots->slot[i].s.size - 1) < gpa)
		i++;
	return i;
}

bool slots_overlap(const struct slots *slots, uint64_t gpa, uint64_t size)
{
	size_t i = slots_first(slots, gpa);

	return i < slots->count && slots->slot[i].s.gpa <= gpa + (size - 1);
}

int slots_grow(const struct slots *slots, const struct s2_env *env, struct slots *copy)
{
	size_t bytes = 4096;

	while (bytes / sizeof(struct slot) < slots->count + 1)
		bytes *= 2;
	copy->slot = env->alloc(env->opaque, bytes);
	if (!copy->slot)
		return -ENOMEM;
	copy->count = slots->count;
	copy->room = bytes;
	if (slots->count)
		memcpy(copy->slot, slots->slot, slots->count * sizeof(struct slot));
	return 0;
}

void slots_insert(struct slots *slots, const struct slot *slot)
{
	size_t i = slots_first(slots, slot->s.gpa);

	memmove(&slots->slot[i + 1], &slots->slot[i], (slots->count - i) * sizeof(struct slot));
	slots->slot[i] = *slot;
	slots->count++;
}

void slots_erase(struct slots *slots, struct slot *slot)
{
	size_t after = (size_t)(&slots->slot[slots->count] - (slot + 1));

	memmove(slot, slot + 1, after * sizeof(struct slot));
	slots->count--;
}

void slots_free(struct slots *slots, const struct s2_env *env)
{
	for (size_t i = 0; i < slots->count; i++)
		dirty_free(&slots->slot[i], env);
	if (slots->slot)
		env->free(env->opaque, slots->slot, slots->room);
}
