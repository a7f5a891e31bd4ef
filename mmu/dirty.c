#include "mmu/dirty.h"

#include <errno.h>

static uint64_t *alloc_words(const struct s2_env *env, uint64_t words, size_t *bytes)
{
	*bytes = 4096;
	while (*bytes / sizeof(uint64_t) < words)
		*bytes *= 2;
	return env->alloc(env->opaque, *bytes);
}

int dirty_alloc(struct slot *slot, const struct s2_env *env)
{
	uint64_t words = dirty_index(slot, slot->s.gpa + (slot->s.size - 1)) + 1;

	slot->bitmap = alloc_words(env, words, &slot->bitmap_bytes);
	if (!slot->bitmap)
		return -ENOMEM;
	slot->summary = alloc_words(env, (words + 63) / 64, &slot->summary_bytes);
	if (slot->summary)
		return 0;
	dirty_free(slot, env);
	return -ENOMEM;
}

void dirty_free(struct slot *slot, const struct s2_env *env)
{
	if (slot->bitmap)
		env->free(env->opaque, slot->bitmap, slot->bitmap_bytes);
	if (slot->summary)
		env->free(env->opaque, slot->summary, slot->summary_bytes);
	slot->bitmap = slot->summary = NULL;
}

void dirty_set(const struct slot *slot, uint64_t gpa, uint64_t len)
{
	uint64_t last = slot->s.gpa + (slot->s.size - 1);

	if (last - gpa > len - 1)
		last = gpa + (len - 1);
	for (;;) {
		uint64_t word_last = gpa | ((UINT64_C(1) << DIRTY_WORD_SHIFT) - 1);
		unsigned first_bit = (gpa >> DIRTY_SHIFT) & 63;
		unsigned last_bit = (word_last < last ? word_last : last) >> DIRTY_SHIFT & 63;
		uint64_t bits = (UINT64_MAX >> (63 - (last_bit - first_bit))) << first_bit;

		dirty_set_word(slot, dirty_index(slot, gpa), bits);
		if (word_last >= last)
			return;
		gpa = word_last + 1;
	}
}

uint64_t dirty_words(const struct slot *slot, uint64_t index, uint64_t last, bool clear)
{
	uint64_t *word = &slot->summary[index / 64], mask = UINT64_MAX << (index % 64);

	if (last / 64 == index / 64)
		mask &= UINT64_MAX >> (63 - last % 64);
	/* A bit that is set after this look belongs to a write that nobody has finished yet. */
	if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & mask))
		return 0;
	if (clear)
		return __atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST) & mask;
	return __atomic_load_n(word, __ATOMIC_ACQUIRE) & mask;
}

uint64_t dirty_peek(const struct slot *slot, uint64_t index, uint64_t mask)
{
	return __atomic_load_n(&slot->bitmap[index], __ATOMIC_ACQUIRE) & mask;
}

uint64_t dirty_fetch(const struct slot *slot, uint64_t index, uint64_t mask)
{
	uint64_t *word = &slot->bitmap[index], bits = __atomic_load_n(word, __ATOMIC_SEQ_CST);

	if (bits & mask)
		bits = __atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST);
	if (bits & ~mask)
		dirty_set_summary(slot, index);
	return bits & mask;
}
