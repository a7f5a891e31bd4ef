/* Ageing, for mmu/ only: what s2_age asks the policy of a format for. */
#ifndef MMU_AGE_H
#define MMU_AGE_H

#include <stdbool.h>
#include <stdint.h>

struct age {
	uint64_t start, end; /* a valid range */
	bool test;	     /* only look */
	uint64_t *bitmap;    /* or NULL */
	int64_t used;	     /* pages of 4 KiB */
	uint64_t leaves;     /* that were used */
	bool met;	     /* something: [flush, flush_end) is the range, and the whole of that */
	uint64_t flush, flush_end;
};

/* A leaf that has been used, with the part [gpa, last] from gpa in the range on. */
void age_used(struct age *age, uint64_t gpa, uint64_t last);

#endif
