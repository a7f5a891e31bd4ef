/*
 * Pages. A page of some has no contents in every second pass, another of some is written in every
 * 16th pass only; each is looked at in each pass. A page holds its number and its pass in words
 * that lie all over it: one that is lost, old, half old, or that of another place is seen, and what
 * it is can be read from it.
 */
#include "move.h"

#define PLACES 16
#define ODD    0x9e3779b97f4a7c15ull

static u64 pages, odd_inverse;

void pages_init(u64 last)
{
	u64 x = ODD;

	/* Newton: each step doubles the bits that are right. */
	for (int i = 0; i < 6; i++)
		x *= 2 - ODD * x;
	odd_inverse = x;
	pages = (last - FIRST_PAGE) / PAGE_SIZE;
}

static volatile u64 *word_at(u64 page, u32 place)
{
	const u64 base = FIRST_PAGE + page * PAGE_SIZE;

	return (volatile u64 *)(base + place * (PAGE_SIZE / PLACES) + (page + place) % 32 * 8);
}

static u32 version(u64 page, u32 pass)
{
	return page % 4 == 3 ? pass & ~15u : pass;
}

static u64 word_of(u64 page, u32 pass, u32 place)
{
	const u32 v = version(page, pass);

	if (!v || (page % 8 == 6 && v % 2))
		return 0;
	return ((u64)v << 24 | page) * ODD + place;
}

static void wrong_word(const char *whose, u64 page, u32 pass, u32 place, u64 got)
{
	const u64 is = (got - place) * odd_inverse;

	wrong("%s page %lu word %u is 0x%lx (of page %lu, pass %lu), expected 0x%lx of pass %u",
	      whose, page, place, got, is & 0xffffff, is >> 24, word_of(page, pass, place), pass);
}

/* A page of the next processor: it may be of the pass before, but not older. */
static void look_across(struct worker *w)
{
	const struct worker *o = &workers[(w->index + 1) % cpu_count];
	const u64 share = pages / cpu_count;
	u32 place, from, to;
	u64 page, got;

	w->random = mix(w->random + ODD);
	page = o->index * share + w->random % share;
	place = w->random >> 32 & (PLACES - 1);
	from = o->pass;
	if (from < 2)
		return;
	got = *word_at(page, place);
	to = o->pass;
	for (u32 pass = from - 1; pass <= to; pass++)
		if (got == word_of(page, pass, place))
			return;
	wrong_word("another's", page, from, place, got);
}

void pages_pass(struct worker *w)
{
	const u64 share = pages / cpu_count, first = w->index * share;
	const u32 old = w->pass, now = old + 1;

	w->pass = now;
	for (u64 page = first; page < first + share; page++) {
		for (u32 i = 0; i < PLACES; i++) {
			const u64 got = *word_at(page, i);

			if (got != word_of(page, old, i))
				wrong_word("own", page, old, i, got);
		}
		if (version(page, now) != version(page, old))
			for (u32 i = 0; i < PLACES; i++)
				*word_at(page, i) = word_of(page, now, i);
		if (cpu_count > 1 && page % 64 == 0)
			look_across(w);
	}
}
