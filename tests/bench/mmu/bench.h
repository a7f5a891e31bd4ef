/*
 * Benchmarks of the MMU core: what the files of the programme share. One process measures all
 * formats once and prints one line per figure; bench_mmu.py runs the processes alternately and
 * makes medians. Goals that are ratios are measured by another programme (pairs/).
 *
 *	SCHEME FORMAT THREADS NAME VALUE UNIT
 *
 * The programme is built three times over the same core: as it is (parallel), and with locks.h in
 * place of the core's lock and RCU (exclusive, older).
 */
#ifndef BENCH_MMU_BENCH_H
#define BENCH_MMU_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "mmu/second_stage.h"

enum { BENCH_THREADS = 8, BENCH_FORMATS = 11 };

#ifdef BENCH_EXCLUSIVE
#define BENCH_SCHEME "exclusive"
#elif defined(BENCH_OLDER)
#define BENCH_SCHEME "older"
#else
#define BENCH_SCHEME "parallel"
#endif

/* The older scheme takes the lock's read side for permission faults and the write side for all
 * else; the kind of a fault is known before the lock, as hardware tells it. */
extern _Thread_local bool bench_permission;

struct bench {
	const char *format;
	struct s2_config config;
	unsigned threads;
	struct s2 *s2;
	uint64_t page, block; /* leaves of level 1 and 2 */
	uint64_t stride;      /* each thread has [id * stride, ...) to itself */
	uint64_t pages;	      /* that each touches */
	pthread_barrier_t barrier;
};

/* One thread's part of a benchmark. */
struct worker {
	struct bench *b;
	unsigned id;
	struct s2_thread *t;
	uint64_t base; /* its memory */
	double wall, cpu;
};

/* Between the two, what is measured: it begins and ends on all threads together. The result is
 * processor time for one thread, and for several the time on the clock of the slowest. */
void bench_begin(struct worker *w);
void bench_end(struct worker *w, const char *name, double operations, const char *unit);
void bench_print(const struct bench *b, const char *name, double value, const char *unit);
void bench_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Memory for tables, below 4 GiB, once bench_arena was called, and how much of it is in use. */
extern const struct s2_env bench_env;
void bench_arena(void);
uint64_t bench_env_live(void);

struct bench_format {
	const char *name;
	enum s2_format format;
	unsigned input_bits;
};
extern const struct bench_format bench_formats[BENCH_FORMATS];

/* Runs body on b->threads threads, each with its registration. */
void bench_threads(struct bench *b, void (*body)(struct worker *w));
void bench_create(struct bench *b, uint64_t page_size, unsigned slot_flags);
void bench_destroy(struct bench *b);

/* Retries until the page is there. */
void bench_touch(struct worker *w, uint64_t gpa, uint32_t access);

void bench_operations(struct bench *b); /* of the core */
void bench_memory(struct bench *b);
void bench_nested(struct bench *b);
void bench_linux(struct bench *b); /* the scenarios of Linux's tests */

#endif
