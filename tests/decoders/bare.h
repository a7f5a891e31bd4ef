/*
 * The bare programs: bare.c goes through the probes of an image; one file per architecture makes
 * the processor translate. No library, no interrupts, one processor.
 */
#ifndef DECODERS_BARE_H
#define DECODERS_BARE_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/decoders/image.h"

/* What the processor did with one access. */
struct seen {
	bool ok;	/* done; else the second stage refused it, or `odd` */
	uint32_t value; /* read, or told by the code that ran */
	uint64_t hpa;	/* of PROBE_TRANSLATE */
	uint64_t gpa;	/* of the fault */
	int gpa_bits;	/* the low bits of it that the processor does not report */
	int outcome;	/* enum probe_outcome of the fault; -1: it does not say */
	int level;	/* from the leaves; -1: it does not say */
	uint8_t access; /* what was refused, PROBE_*; 0: it does not say */
	bool odd;	/* neither: the reason is in info[] */
	uint64_t info[4];
};

/* Before the image is looked at. */
bool arch_load(const char **why);
/* Once, before the first set; false: this machine cannot, and says why. */
bool arch_init(const struct image *image, const char **why);
bool arch_set(const struct image_set *set, const char **why);
/* Code at a host address that tells `tag` and comes back. */
void arch_put_code(void *at, uint32_t tag);
/* One access of the guest: reads, writes `tag`, or runs what is at gpa. */
void arch_probe(const struct image_set *set, const struct probe *p, uint32_t tag,
		struct seen *seen);
void arch_putc(char c);
_Noreturn void arch_exit(void);

void *memset(void *to, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
void say(const char *text);
void say_hex(uint64_t value);
/* In bare.c, from the start-up code. */
_Noreturn void bare_main(void);

#endif
