/*
 * The list of blocks that are mapped by small pages because one of them was executed
 * (S2_OPT_NX_HUGE): a queue, the oldest first, that grows by itself. A block is on it once, however
 * often it was split, so it is bounded by the slots; adding and taking cost the same however long
 * it is. Unmapping and collapsing leave it alone: s2_nx_recover drops what is not small any more. A
 * block that does not go on it for lack of memory stays small. A lock of its own; none is held by
 * the caller.
 */
#ifndef MMU_NX_H
#define MMU_NX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/second_stage.h"

struct nx_entry {
	uint64_t block;	 /* address | level */
	uint32_t next;	 /* of the same bucket: index + 1 */
	uint32_t bucket; /* the first of those whose hash is this one's index; index + 1 */
};

struct nx {
	pthread_mutex_t mutex;
	struct nx_entry *entry; /* a ring of `room`, a power of two */
	size_t room, first, count;
};

void nx_init(struct nx *nx);
void nx_destroy(struct nx *nx, const struct s2_env *env);
/* The block of `level` at gpa (a multiple of its size) is split. Calls env->alloc. */
void nx_add(struct nx *nx, const struct s2_env *env, uint64_t gpa, unsigned level);
/* Takes off the list what begins in [start, last]: its slot has gone. */
void nx_forget(struct nx *nx, uint64_t start, uint64_t last);

#endif
