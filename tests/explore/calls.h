/* What instrument.h makes of the code's accesses, locks and barriers; order as the compiler has it.
 */
#ifndef EXPLORE_CALLS_H
#define EXPLORE_CALLS_H

#include <stdbool.h>
#include <stdint.h>

uint64_t explore_load(const void *at, unsigned bytes, int order);
void explore_store(void *at, unsigned bytes, uint64_t value, int order);
bool explore_cas(void *at, unsigned bytes, uint64_t *old, uint64_t value, int order);
uint64_t explore_or(void *at, uint64_t bits, int order);
uint64_t explore_and(void *at, uint64_t bits, int order);
/* Around an ordered access. how: 1: a store; 2: sequentially consistent. */
void explore_sync(const volatile void *at, unsigned how);
/* Somebody else may go on here. */
void explore_point(const char *what);
/* Waits until each of the others has done something, or cannot. */
void explore_yield(void);
void explore_lock(const void *mutex);
void explore_unlock(const void *mutex);
/* A full barrier in every thread: what any has done before is seen by all after it. 0. */
long explore_membarrier(void);

#endif
