#include "mmu/dirty.h"

#include <errno.h>

int dirty_alloc(struct slot *slot, const struct s2_env *env)
{
	uint64_t last = slot->s.gpa + (slot->s.size - 1);
	uint64_t words = (last >> DIRTY_WORD_SHIFT) - (slot->s.gpa >> DIRTY_WORD_SHIFT) + 1;
	size_t bytes = 4096;

	while (bytes / sizeof(uint64_t) < words)
		bytes *= 2;
	slot->bitmap = env->alloc(env->opaque, bytes);
	slot->bitmap_bytes = bytes;
	return slot->bitmap ? 0 : -ENOMEM;
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
		uint64_t *word = dirty_word(slot, gpa);

		/* Release: whoever fetches the bit sees the data that was written before. Not
		 * skipped when the bits look set: without a barrier the look may be older than a
		 * harvest that has just cleared them. */
		__atomic_fetch_or(word, bits, __ATOMIC_RELEASE);
		if (word_last >= last)
			return;
		gpa = word_last + 1;
	}
}

uint64_t dirty_fetch(const struct slot *slot, uint64_t gpa, uint64_t mask)
{
	uint64_t *word = dirty_word(slot, gpa);

	if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & mask))
		return 0;
	return __atomic_fetch_and(word, ~mask, __ATOMIC_ACQ_REL) & mask;
}
