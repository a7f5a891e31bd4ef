/* Missing pages, over ranges: marking, searching, exporting. */
#include <errno.h>

#include "mmu/missing_internal.h"
#include "mmu/missing_wait.h"
#include "mmu/range.h"

enum { CHUNK = 1 << 17 }; /* pages under one read section */

/* Pages of one word of one slot. */
struct piece {
	struct slot *slot;
	uint64_t word;	   /* its first page, in the slot */
	unsigned shift, n; /* the pages meant: n from bit `shift` */
	uint64_t at;	   /* the first of them, counted from the walk's start */
};

/* Calls fn for every word in [gpa, gpa + pages), under the lock's read side, which is left now and
 * then. */
static void each_word(struct s2_thread *t, uint64_t gpa, uint64_t pages,
		      void (*fn)(struct s2 *s2, const struct piece *piece, void *arg), void *arg)
{
	const unsigned shift = missing_shift(t->s2);
	const struct slots *slots = &t->s2->slots;

	for (uint64_t done = 0; done < pages;) {
		uint64_t end = pages - done < CHUNK ? pages : done + CHUNK;
		uint64_t last = gpa + ((end - 1) << shift);
		size_t i;

		brlock_read_lock(&t->s2->lock, &t->reader);
		for (i = slots_first(slots, gpa + (done << shift));
		     i < slots->count && slots->slot[i].s.gpa <= last; i++) {
			struct slot *slot = &slots->slot[i];
			struct piece p = {.slot = slot, .at = done};
			uint64_t from, to = slot->s.size >> shift;

			if (slot->s.gpa > gpa + (done << shift))
				p.at = (slot->s.gpa - gpa) >> shift;
			from = (gpa + (p.at << shift) - slot->s.gpa) >> shift;
			if (to - from > end - p.at)
				to = from + (end - p.at);
			for (; from < to; from += p.n, p.at += p.n) {
				p.shift = from % STATES_WORD;
				p.word = from - p.shift;
				p.n = STATES_WORD - p.shift;
				if (p.n > to - from)
					p.n = (unsigned)(to - from);
				fn(t->s2, &p, arg);
			}
		}
		brlock_read_unlock(&t->reader);
		done = end;
	}
}

static uint32_t low_bits(unsigned n)
{
	return UINT32_MAX >> (32 - n);
}

/* n bits (1..32) of a bitmap, from bit `at`. */
static uint32_t get_bits(const uint64_t *bitmap, uint64_t at, unsigned n)
{
	unsigned in = at % 64;
	uint64_t bits = bitmap[at / 64] >> in;

	if (in + n > 64)
		bits |= bitmap[at / 64 + 1] << (64 - in);
	return (uint32_t)bits & low_bits(n);
}

static void put_bits(uint64_t *bitmap, uint64_t at, unsigned n, uint32_t bits)
{
	unsigned in = at % 64;

	bitmap[at / 64] |= (uint64_t)bits << in;
	if (in + n > 64)
		bitmap[at / 64 + 1] |= (uint64_t)bits >> (64 - in);
}

struct export
{
	unsigned states;
	uint64_t *bitmap;
	int64_t count;
};

static void export_word(struct s2 *s2, const struct piece *p, void *arg)
{
	struct export *e = arg;
	uint32_t found = states_match(&p->slot->missing, p->word, e->states) >> p->shift;

	(void)s2;
	found &= low_bits(p->n);
	put_bits(e->bitmap, p->at, p->n, found);
	e->count += __builtin_popcount(found);
}

int64_t s2_missing_export(struct s2_thread *t, uint64_t gpa, uint64_t pages, unsigned states,
			  uint64_t *bitmap)
{
	struct export e = {.states = states, .bitmap = bitmap};

	if (!missing_valid(t->s2, gpa, pages))
		return -EINVAL;
	for (uint64_t i = 0; i < (pages + 63) / 64; i++)
		bitmap[i] = 0;
	each_word(t, gpa, pages, export_word, &e);
	return e.count;
}

struct mark {
	const uint64_t *bitmap;
	uint64_t first, last; /* pages marked, counted from the walk's start */
	int64_t count;
};

static void mark_word(struct s2 *s2, const struct piece *p, void *arg)
{
	struct mark *m = arg;
	uint32_t bits = m->bitmap ? get_bits(m->bitmap, p->at, p->n) : low_bits(p->n), changed;
	uint64_t before = (unsigned)__builtin_popcount(bits), n;

	if (!bits || p->slot->s.flags & SLOT_DYING)
		return;
	/* First too many, then what is right: never none while one is awaited. */
	atomic_fetch_add(&s2->missing->awaited, before);
	changed = states_change_word(&p->slot->missing, &missing_rules, p->word, bits << p->shift,
				     S2_PAGE_MISSING);
	n = (unsigned)__builtin_popcount(changed);
	atomic_fetch_sub(&s2->missing->awaited, before - n);
	if (!n)
		return;
	if (!m->count)
		m->first = p->at;
	m->last = p->at + p->n - 1;
	m->count += (int64_t)n;
}

int64_t s2_missing_mark(struct s2_thread *t, uint64_t gpa, uint64_t pages, const uint64_t *bitmap)
{
	struct mark m = {.bitmap = bitmap};
	struct s2 *s2 = t->s2;

	if (!s2->missing || !missing_valid(s2, gpa, pages))
		return -EINVAL;
	each_word(t, gpa, pages, mark_word, &m);
	if (!m.count)
		return 0;
	/* Faults that found them here have mapped them when those readers have left, and later
	 * ones find them missing: what is mapped now is all that will be. */
	brlock_synchronize(&s2->lock);
	range_unmap(t, gpa + (m.first << missing_shift(s2)),
		    gpa + ((m.last + 1) << missing_shift(s2)));
	return m.count;
}

static uint64_t next_from(struct s2_thread *t, uint64_t gpa, unsigned states)
{
	const unsigned shift = missing_shift(t->s2);
	const struct slots *slots = &t->s2->slots;
	uint64_t found = UINT64_MAX;
	bool more = true;

	while (more && found == UINT64_MAX) {
		size_t i;

		brlock_read_lock(&t->s2->lock, &t->reader);
		i = slots_first(slots, gpa);
		more = i < slots->count;
		if (more) {
			const struct slot *slot = &slots->slot[i];
			uint64_t page = gpa > slot->s.gpa ? (gpa - slot->s.gpa) >> shift : 0;
			uint64_t end = slot->s.size >> shift;

			if (end - page > CHUNK)
				end = page + CHUNK;
			page = states_find(&slot->missing, page, end - page, states);
			gpa = slot->s.gpa + (page << shift);
			if (page < end)
				found = gpa;
			more = gpa != 0; /* 0: the address space ends here */
		}
		brlock_read_unlock(&t->reader);
	}
	return found;
}

uint64_t s2_missing_next(struct s2_thread *t, uint64_t gpa, unsigned states)
{
	uint64_t found = next_from(t, gpa, states);

	return found == UINT64_MAX && gpa ? next_from(t, 0, states) : found;
}
