/*
 * States of the pages of one slot: two bits a page in a side array, changed by compare-and-exchange
 * along a table of what is legal. Tables of translation are not touched here.
 *
 * All changes of one array follow one set of rules; a page's number counts from the slot's start,
 * in the format's smallest pages.
 */
#ifndef MMU_STATES_H
#define MMU_STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/second_stage.h"

enum {
	STATES_BITS = 2,
	STATES_COUNT = 1 << STATES_BITS,
	STATES_WORD = 64 / STATES_BITS, /* pages in a word */
};

struct states {
	_Atomic uint64_t *words; /* NULL: there are none; every page is in state 0 */
	size_t bytes;
};

/* from[s]: the states (bit 1 << state) from which s may be reached. */
struct states_rules {
	uint8_t from[STATES_COUNT];
};

/* All pages in state 0. 0 or -ENOMEM. */
int states_alloc(struct states *s, uint64_t pages, const struct s2_env *env);
void states_free(struct states *s, const struct s2_env *env);

/* Acquire: what was done before the change to this state is seen. */
unsigned states_get(const struct states *s, uint64_t page);
/* Changes the page to `to`, if the rules have it; *was (may be NULL) is the state found. */
bool states_change(struct states *s, const struct states_rules *rules, uint64_t page, unsigned to,
		   unsigned *was);
/* Changes those of the 32 pages from `page` (a multiple of 32) whose bit is set in `pages` and that
 * may reach `to`, all at once. Returns those changed. */
uint32_t states_change_word(struct states *s, const struct states_rules *rules, uint64_t page,
			    uint32_t pages, unsigned to);
/* The 32 pages from `page` (a multiple of 32) that are in one of the states of `mask`. */
uint32_t states_match(const struct states *s, uint64_t page, unsigned mask);
/* All of [page, page + count) are in one of the states of `mask`. */
bool states_all(const struct states *s, uint64_t page, uint64_t count, unsigned mask);
/* The first of [page, page + count) in one of the states of `mask`, or `page + count`. */
uint64_t states_find(const struct states *s, uint64_t page, uint64_t count, unsigned mask);

#endif
