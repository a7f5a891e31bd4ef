/*
 * Range operations, for mmu/ only: what s2_unmap and the like are made of. No lock and no RCU read
 * section is held by the caller; all of them wait for the TLB clients.
 */
#ifndef MMU_RANGE_H
#define MMU_RANGE_H

#include "mmu/internal.h"

/* Aligned, not empty, within the input width. */
bool range_valid(const struct s2 *s2, uint64_t start, uint64_t end);
/* As the public functions take it: *end 0 becomes the end of the input space. 1: it is empty (start
 * == end, but not both 0, which is everything); -EINVAL. */
int range_check(const struct s2 *s2, uint64_t start, uint64_t *end);
/* What range_flush does before it waits: the generation for tlb_wait(). */
uint64_t range_post(struct s2_thread *t, uint64_t start, uint64_t end);
void range_flush(struct s2_thread *t, uint64_t start, uint64_t end);
/* A valid range: empty afterwards, but for what later faults map. */
void range_unmap(struct s2_thread *t, uint64_t start, uint64_t end);

#endif
