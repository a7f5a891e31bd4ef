#include "mmu/states.h"

#include <errno.h>
#include <stdatomic.h>

/* One bit for every page of a word. */
static const uint64_t ones = UINT64_C(0x5555555555555555);

int states_alloc(struct states *s, uint64_t pages, const struct s2_env *env)
{
	size_t bytes = 4096;

	while (bytes / sizeof(uint64_t) * STATES_WORD < pages)
		bytes *= 2;
	s->words = env->alloc(env->opaque, bytes);
	s->bytes = bytes;
	return s->words ? 0 : -ENOMEM;
}

void states_free(struct states *s, const struct s2_env *env)
{
	if (s->words)
		env->free(env->opaque, (void *)(uintptr_t)s->words, s->bytes);
	*s = (struct states){0};
}

static unsigned shift_of(uint64_t page)
{
	return page % STATES_WORD * STATES_BITS;
}

unsigned states_get(const struct states *s, uint64_t page)
{
	uint64_t word;

	if (!s->words)
		return 0;
	word = atomic_load_explicit(&s->words[page / STATES_WORD], memory_order_acquire);
	return word >> shift_of(page) & (STATES_COUNT - 1);
}

bool states_change(struct states *s, const struct states_rules *rules, uint64_t page, unsigned to,
		   unsigned *was)
{
	_Atomic uint64_t *word = &s->words[page / STATES_WORD];
	uint64_t old = atomic_load(word), mask = (uint64_t)(STATES_COUNT - 1) << shift_of(page);
	unsigned found;

	do {
		found = old >> shift_of(page) & (STATES_COUNT - 1);
		if (was)
			*was = found;
		if (!(rules->from[to] >> found & 1))
			return false;
	} while (!atomic_compare_exchange_weak(word, &old,
					       (old & ~mask) | (uint64_t)to << shift_of(page)));
	return true;
}

/* The low bit of every page of the word that is in one of the states of `mask`. */
static uint64_t matching(uint64_t word, unsigned mask)
{
	uint64_t found = 0;

	for (unsigned state = 0; state < STATES_COUNT; state++) {
		uint64_t differs = word ^ (ones * state);

		if (mask >> state & 1)
			found |= ~(differs | differs >> 1) & ones;
	}
	return found;
}

/* Bits 0, 2, 4... of a word side by side, and back. */
static uint32_t squeeze(uint64_t x)
{
	x = (x | x >> 1) & UINT64_C(0x3333333333333333);
	x = (x | x >> 2) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	x = (x | x >> 4) & UINT64_C(0x00ff00ff00ff00ff);
	x = (x | x >> 8) & UINT64_C(0x0000ffff0000ffff);
	return (uint32_t)(x | x >> 16);
}

static uint64_t spread(uint32_t bits)
{
	uint64_t x = bits;

	x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
	x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
	x = (x | x << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	x = (x | x << 2) & UINT64_C(0x3333333333333333);
	return (x | x << 1) & ones;
}

uint32_t states_change_word(struct states *s, const struct states_rules *rules, uint64_t page,
			    uint32_t pages, unsigned to)
{
	_Atomic uint64_t *word = &s->words[page / STATES_WORD];
	uint64_t old = atomic_load(word), wanted = spread(pages), changed;

	do {
		changed = matching(old, rules->from[to]) & wanted;
		if (!changed)
			return 0;
	} while (!atomic_compare_exchange_weak(word, &old, (old & ~(changed * 3)) | changed * to));
	return squeeze(changed);
}

uint32_t states_match(const struct states *s, uint64_t page, unsigned mask)
{
	if (!s->words)
		return mask & 1 ? UINT32_MAX : 0;
	return squeeze(matching(
		atomic_load_explicit(&s->words[page / STATES_WORD], memory_order_acquire), mask));
}

uint64_t states_find(const struct states *s, uint64_t page, uint64_t count, unsigned mask)
{
	const uint64_t end = page + count;

	while (page < end) {
		uint64_t first = page - page % STATES_WORD;
		uint32_t found = states_match(s, first, mask) & UINT32_MAX << page % STATES_WORD;

		if (found) {
			page = first + (unsigned)__builtin_ctz(found);
			return page < end ? page : end;
		}
		page = first + STATES_WORD;
	}
	return end;
}

bool states_all(const struct states *s, uint64_t page, uint64_t count, unsigned mask)
{
	return states_find(s, page, count, ~mask & ((1u << STATES_COUNT) - 1)) == page + count;
}
