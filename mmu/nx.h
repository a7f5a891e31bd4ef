/*
 * The list of blocks that are mapped by small pages because one of them was executed
 * (S2_OPT_NX_HUGE): a queue, the oldest first, that grows by itself. A block that does not go on it
 * for lack of memory stays small. A lock of its own; none is held by the caller.
 */
#ifndef MMU_NX_H
#define MMU_NX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/second_stage.h"

struct nx {
	pthread_mutex_t mutex;
	uint64_t *block; /* address | level; a ring of `room` */
	size_t room, first, count;
};

void nx_init(struct nx *nx);
void nx_destroy(struct nx *nx, const struct s2_env *env);
/* The block of `level` at gpa (a multiple of its size) is split. Calls env->alloc. */
void nx_add(struct nx *nx, const struct s2_env *env, uint64_t gpa, unsigned level);

#endif
