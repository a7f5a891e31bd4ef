/*
 * The SMP stress suite: each file of it checks one promise that several processors make to a
 * program. A check is exact: it counts what must never happen, or compares sums that must agree. It
 * runs until its time is over and is red if it checked nothing.
 */
#ifndef STRESS_H
#define STRESS_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct run {
	const char *name;
	unsigned threads; /* as many as processors, at least 2 */
	double until;	  /* CLOCK_MONOTONIC seconds */
	_Atomic unsigned long checks;
	_Atomic unsigned long errors;
};

struct stress {
	const char *name;
	void (*run)(struct run *r);
};

double now(void);
bool going(struct run *r);
void checked(struct run *r, unsigned long n);
/* Counts an error; the first ones of a test are printed. */
void wrong(struct run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
enum { THREADS_MAX = 64 };
/* Runs fn(r, index, arg) in n threads (at most THREADS_MAX), thread i on processor i modulo their
 * number, and waits for all. */
void in_parallel(struct run *r, unsigned n, void (*fn)(struct run *r, unsigned index, void *arg),
		 void *arg);
void pin(unsigned index);
unsigned processors(void);
/* pthread barrier with spinning: all n threads meet; returns the round's number. */
struct meeting {
	unsigned n;
	_Atomic unsigned inside;
	_Atomic unsigned round;
};
void meet(struct meeting *m);
void pause_cpu(unsigned *spins); /* spins a while, then yields the processor */

/* A SIGSEGV of this thread at this very address leads to `back`; the handler forgets it then. */
struct expected_fault {
	sigjmp_buf back;
	const volatile void *address;
};
extern _Thread_local struct expected_fault *volatile expected_fault;

/* From now on an unexpected fault says what it was and where, then ends the program. r stays. */
void report_crashes(const struct run *r);
/* A thread whose own stack is lost can still say so. */
void own_signal_stack(unsigned index);

uint64_t random64(uint64_t *state);
extern const char *self_path; /* this program, to exec itself */

void stress_atomics(struct run *r);
void stress_unaligned(struct run *r);
void stress_mutex(struct run *r);
void stress_pingpong(struct run *r);
void stress_code_same(struct run *r);
void stress_code_alias(struct run *r);
void stress_code_kernel(struct run *r);
void stress_code_remap(struct run *r);
void stress_munmap(struct run *r);
void stress_mprotect(struct run *r);
void stress_dontneed(struct run *r);
void stress_fork(struct run *r);
void stress_exec(struct run *r);
void stress_user32(struct run *r);
void stress_timer_signals(struct run *r);
void stress_queued_signals(struct run *r);
void stress_litmus(struct run *r);
void stress_clock(struct run *r);
void stress_ptrace(struct run *r);
void stress_fpu(struct run *r);
void stress_crash(struct run *r);
int stress_exec_child(int argc, char **argv);

#endif
