/* Small helpers that the devices share. */
#ifndef DEVICES_UTIL_H
#define DEVICES_UTIL_H

#include <stdbool.h>
#include <stdint.h>

#define NS_PER_S 1000000000ULL

/* a * b / c without overflow in between; saturates. c is not 0. */
static inline uint64_t muldiv(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 q = (unsigned __int128)a * b / c;

	return q > UINT64_MAX ? UINT64_MAX : (uint64_t)q;
}

/* The same, rounded up. */
static inline uint64_t muldiv_up(uint64_t a, uint64_t b, uint64_t c)
{
	unsigned __int128 q = ((unsigned __int128)a * b + (c - 1)) / c;

	return q > UINT64_MAX ? UINT64_MAX : (uint64_t)q;
}

static inline uint64_t add_sat(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* What nothing answers with, for a read of `size` bytes. */
static inline uint64_t all_ones(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ULL << (8 * size)) - 1;
}

#endif
