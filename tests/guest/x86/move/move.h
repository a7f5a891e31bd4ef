/*
 * A guest that is moved: every processor, for ever, writes and checks pages, keeps values in every
 * register that a move must carry, and looks at its timers. What is wrong is said as "move: WRONG
 * ..." and ends the guest's work; now and then (every=ms of the guest's time) there is a line
 *
 *   move: tick N pass P ipi I
 *
 * with the pass of the processor that is behind. Arguments: cpus=N, last=MiB (memory ends there;
 * the pages begin at FIRST_PAGE), devices=1 (a disk, a network card and random numbers are used, if
 * they are there: devices.c), balloon=MiB (so much from 16 MiB on can be given up: balloon.c),
 * probes=N (so many of its pages are looked at in each pass).
 */
#ifndef MOVE_H
#define MOVE_H

#include "guest.h"

#define FIRST_PAGE (4ull << 20)

struct worker {
	u32 index;
	volatile u32 pass; /* that is under way; 0: none */
	volatile u32 ticks, asked, answered;
	volatile u64 deadline; /* TSC; of the timer */
	u64 heard;	       /* TSC: when ticks was seen to grow */
	u32 heard_ticks;
	u64 asked_at;
	u64 random;
};

extern struct worker workers[MAX_CPUS];

/* The guest stops working, so that nothing hides it. */
void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* pages.c */
void pages_init(u64 last);
void pages_pass(struct worker *w); /* one more */

/* registers.c */
void registers_begin(void); /* once, before there are others */
void registers_init(struct worker *w);
void registers_load(struct worker *w);
void registers_check(struct worker *w);

/* clocks.c */
void clocks_init(void); /* once */
void clocks_start(struct worker *w);
void clocks_check(struct worker *w);

/* devices.c */
void devices_init(void);
void devices_pass(void); /* some more requests; of one processor */
/* " disk N ...", of what they have brought; "" without them. */
void devices_say(char *text, size_t size);

/* balloon.c */
void balloon_init(void);
void balloon_pass(void); /* what the host asks for, in steps */

static inline u64 mix(u64 x)
{
	x ^= x >> 31;
	x *= 0x7fb5d329728ea185;
	x ^= x >> 27;
	x *= 0x81dadef4bc2dd44d;
	return x ^ x >> 33;
}

#endif
