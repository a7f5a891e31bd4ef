/*
 * movecheck MIB [SECONDS]: what a move must not break, checked from inside. A thread per processor
 * rewrites its share of MIB for ever: each page holds its number, the pass and 510 words made of
 * both, and is checked as a whole before it is written again, so that a lost, stale, mixed or
 * swapped page is seen in the next pass. Beside that each keeps floating point state (rounding,
 * x87 and SSE registers) and looks at the clock and the TSC, which must never go back, whatever
 * processor they were read on. Prints "move: tick N pass P gap G": the largest gap between two
 * looks at the clock since the last line, in ms. "move: WRONG ..." and exit code 1.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, MOST = 64 };

struct worker {
	pthread_t thread;
	unsigned n;
	uint64_t (*page)[WORDS];
	uint64_t pages, first;
	_Atomic uint64_t pass;
};

static _Atomic uint64_t newest; /* any thread's look at the clock */
static _Atomic uint64_t newest_tsc;
static _Atomic uint64_t gap; /* of the first worker */

static uint64_t word_of(uint64_t number, uint64_t pass, unsigned i)
{
	return (number * 0x9e3779b97f4a7c15 + pass) * 0xbf58476d1ce4e5b9 + i;
}

__attribute__((noreturn)) static void wrong(const char *what, uint64_t a, uint64_t b, uint64_t c)
{
	printf("move: WRONG %s %llx %llx %llx\n", what, (unsigned long long)a,
	       (unsigned long long)b, (unsigned long long)c);
	fflush(stdout);
	_exit(1);
}

/* The processor's own clock, of which the kernel's hides small steps back. */
static void look_at_tsc(void)
{
	const uint64_t seen = atomic_load(&newest_tsc);
	uint64_t now, old = seen;
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	now = (uint64_t)high << 32 | low;
	if (now < seen)
		wrong("TSC went back", seen, now, seen - now);
	while (old < now && !atomic_compare_exchange_weak(&newest_tsc, &old, now))
		;
}

static uint64_t look(void)
{
	const uint64_t seen = atomic_load(&newest);
	struct timespec ts;
	uint64_t now, old = seen;

	look_at_tsc();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	if (now < seen)
		wrong("clock went back", seen, now, seen - now);
	while (old < now && !atomic_compare_exchange_weak(&newest, &old, now))
		;
	return now;
}

static void check_page(const struct worker *w, uint64_t i, uint64_t pass)
{
	const uint64_t *p = w->page[i], number = w->first + i;

	if (p[0] != number || p[1] != pass)
		wrong("page", number, p[0], pass - p[1]);
	for (unsigned n = 2; n < WORDS; n++)
		if (p[n] != word_of(number, pass, n))
			wrong("word", number, n, p[n] ^ word_of(number, pass, n));
}

static void write_page(struct worker *w, uint64_t i, uint64_t pass)
{
	uint64_t *p = w->page[i], number = w->first + i;

	p[0] = number;
	p[1] = pass;
	for (unsigned n = 2; n < WORDS; n++)
		p[n] = word_of(number, pass, n);
}

/* The rounding of SSE and of the x87, as the hardware has it: 1 down, 2 up. */
static void set_rounding(unsigned rounding)
{
	const uint32_t mxcsr = 0x1f80 | rounding << 13;
	const uint16_t word = (uint16_t)(0x37f | rounding << 10);

	__asm__ volatile("ldmxcsr %0; fldcw %1" : : "m"(mxcsr), "m"(word));
}

static bool has_rounding(unsigned rounding)
{
	uint32_t mxcsr;
	uint16_t word;

	__asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(word));
	return (mxcsr >> 13 & 3) == rounding && (word >> 10 & 3) == rounding;
}

/* In registers all the time: a sum that is exact in both kinds, under a rounding of its own. */
static void check_float(unsigned rounds, unsigned rounding)
{
	volatile double third = 1.0;
	long double slow = 0;
	double fast = 0;

	for (unsigned i = 1; i <= rounds; i++) {
		fast += i * 0.25;
		slow += i * 0.5L;
	}
	if (fast != 0.125 * rounds * (rounds + 1.0) || slow != 0.25L * rounds * (rounds + 1.0L))
		wrong("sum", rounds, (uint64_t)fast, (uint64_t)slow);
	third = third / 3.0;
	if (!has_rounding(rounding) || (third * 3.0 > 1.0) != (rounding == 2))
		wrong("rounding", rounding, 0, 0);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	const unsigned rounding = 1 + w->n % 2;
	uint64_t before = look();

	set_rounding(rounding);
	for (uint64_t pass = 1;; pass++) {
		for (uint64_t i = 0; i < w->pages; i++) {
			uint64_t now = look();

			if (w->n == 0 && now - before > atomic_load(&gap))
				atomic_store(&gap, now - before);
			before = now;
			if (pass > 1)
				check_page(w, i, pass - 1);
			write_page(w, i, pass);
		}
		check_float(1000, rounding);
		atomic_store(&w->pass, pass);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	const uint64_t mib = argc > 1 ? strtoull(argv[1], NULL, 10) : 16;
	const unsigned seconds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	const unsigned count = cpus < 1 ? 1 : cpus > MOST ? MOST : (unsigned)cpus;
	static struct worker worker[MOST];

	for (unsigned n = 0; n < count; n++) {
		struct worker *w = &worker[n];

		w->n = n;
		w->pages = mib * 256 / count;
		w->first = n * w->pages;
		w->page = aligned_alloc(PAGE, w->pages * PAGE);
		if (!w->page || pthread_create(&w->thread, NULL, work, w))
			wrong("memory", n, 0, 0);
	}
	for (unsigned tick = 1; !seconds || tick <= 4 * seconds; tick++) {
		uint64_t pass = UINT64_MAX;

		usleep(250000);
		look();
		for (unsigned n = 0; n < count; n++)
			if (atomic_load(&worker[n].pass) < pass)
				pass = atomic_load(&worker[n].pass);
		printf("move: tick %u pass %llu gap %llu\n", tick, (unsigned long long)pass,
		       (unsigned long long)atomic_exchange(&gap, 0) / 1000000);
		fflush(stdout);
	}
	printf("move: right\n");
	return 0;
}
