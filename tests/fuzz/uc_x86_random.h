/* The hostile guest of fuzz_uc_x86.c: where things lie in its memory, and the random numbers that
 * all of it follows from. Included once. */
#ifndef TESTS_FUZZ_UC_X86_RANDOM_H
#define TESTS_FUZZ_UC_X86_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

#include <unicorn/unicorn.h>
#include <unicorn/vcpu.h>

enum {
	PAGE = 4096,
	RAM = 1 << 20,
	PAGES = RAM / PAGE,
	PML4 = 0x1000,
	PDPT = 0x2000,
	PD = 0x3000,
	PT = 0x4000,
	PD32 = 0x5000,
	GDT = 0x6000,
	IDT = 0x8000,
	TSS = 0xa000,
	CODE = 0x10000,
	CODE_SIZE = 0x3000,
	DATA = 0x20000,
	STACK = 0x30000,
};
enum mode { LONG64, COMPAT32, COMPAT16, PROT32, PROT16, PAE32, REAL16, VM86, MODES };
enum policy { RAM_RW, RAM_RO, MISSING, MMIO };

static uint8_t *ram;
static uint8_t policy[PAGES];
static uint64_t rng;
static const uint8_t *raw;
static size_t raw_len;

static uint64_t rnd(void)
{
	uint64_t z = rng += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned below(unsigned n)
{
	return (unsigned)(rnd() % n);
}

static bool one_in(unsigned n)
{
	return below(n) == 0;
}

/* A value for a register: an edge, an address of something, noise. */
static uint64_t value(void)
{
	static const uint64_t edges[] = {0,
					 1,
					 2,
					 15,
					 16,
					 31,
					 32,
					 63,
					 64,
					 0x7f,
					 0x80,
					 0xff,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x100000000,
					 0x7fffffffffff,
					 0x800000000000,
					 0xffff7fffffffffff,
					 0xffff800000000000,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 0xffffffffffffffff,
					 0xffffffff80000000,
					 0xfffffffffffffff0};

	switch (below(4)) {
	case 0: return edges[below(sizeof(edges) / sizeof(edges[0]))];
	case 1: return rnd() >> below(64);
	default: return below(RAM) - (one_in(8) ? below(64) : 0);
	}
}

#endif
