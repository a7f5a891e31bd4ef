/*
 * smpstress SECONDS[xTHREADS] [NAME]...: runs the stress suite (or the named tests), each for its
 * share of the time, and prints "STRESS name checks=N errors=N" for each. Exit code 1 if one of
 * them is red. A test that hangs is red too. THREADS: other than the number of processors.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

static const struct stress suite[] = {
	{"atomics", stress_atomics},
	{"unaligned", stress_unaligned},
	{"mutex", stress_mutex},
	{"pingpong", stress_pingpong},
	{"code-same", stress_code_same},
	{"code-alias", stress_code_alias},
	{"code-kernel", stress_code_kernel},
	{"code-remap", stress_code_remap},
	{"munmap", stress_munmap},
	{"mprotect", stress_mprotect},
	{"dontneed", stress_dontneed},
	{"fork", stress_fork},
	{"exec", stress_exec},
	{"user32", stress_user32},
	{"timer-signals", stress_timer_signals},
	{"queued-signals", stress_queued_signals},
	{"litmus", stress_litmus},
	{"clock", stress_clock},
	{"ptrace", stress_ptrace},
	{"fpu", stress_fpu},
	{"crash", stress_crash}, /* only by name */
};

enum { GRACE = 120 }; /* seconds over its time after which a test counts as hung */

static char path[512];
const char *self_path = path;
static struct run current;
static _Atomic bool finished;

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

bool going(struct run *r)
{
	return now() < r->until;
}

void checked(struct run *r, unsigned long n)
{
	atomic_fetch_add_explicit(&r->checks, n, memory_order_relaxed);
}

void wrong(struct run *r, const char *fmt, ...)
{
	va_list args;

	if (atomic_fetch_add(&r->errors, 1) >= 5)
		return;
	va_start(args, fmt);
	flockfile(stdout);
	printf("%s: ", r->name);
	vprintf(fmt, args);
	putchar('\n');
	funlockfile(stdout);
	va_end(args);
}

unsigned processors(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : (unsigned)n;
}

void pin(unsigned index)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(index % processors(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

void pause_cpu(unsigned *spins)
{
	if (++*spins % 256)
		__builtin_ia32_pause();
	else
		sched_yield();
}

void meet(struct meeting *m)
{
	unsigned round = atomic_load(&m->round), spins = 0;

	if (atomic_fetch_add(&m->inside, 1) + 1 == m->n) {
		atomic_store(&m->inside, 0);
		atomic_store(&m->round, round + 1);
		return;
	}
	while (atomic_load(&m->round) == round)
		pause_cpu(&spins);
}

uint64_t random64(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

struct job {
	struct run *r;
	unsigned index;
	void (*fn)(struct run *r, unsigned index, void *arg);
	void *arg;
};

static void *thread_main(void *opaque)
{
	struct job *job = opaque;

	pin(job->index);
	own_signal_stack(job->index);
	job->fn(job->r, job->index, job->arg);
	return NULL;
}

void in_parallel(struct run *r, unsigned n, void (*fn)(struct run *r, unsigned index, void *arg),
		 void *arg)
{
	pthread_t threads[THREADS_MAX];
	struct job jobs[THREADS_MAX];

	if (n > THREADS_MAX)
		n = THREADS_MAX;
	for (unsigned i = 0; i < n; i++) {
		jobs[i] = (struct job){r, i, fn, arg};
		if (pthread_create(&threads[i], NULL, thread_main, &jobs[i])) {
			printf("%s: cannot create a thread\n", r->name);
			exit(1);
		}
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static void *watchdog(void *unused)
{
	(void)unused;
	for (;;) {
		sleep(1);
		if (!atomic_load(&finished) && now() > current.until + GRACE) {
			printf("STRESS %s checks=%lu errors=1 (hangs)\n", current.name,
			       current.checks);
			fflush(stdout);
			_exit(1);
		}
	}
	return NULL;
}

static bool wanted(const char *name, char **names)
{
	if (!*names)
		return strcmp(name, "crash") != 0;
	for (; *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 0;
	unsigned count = 0, red = 0, threads = processors() < 2 ? 2 : processors();
	pthread_t dog;

	if (argc > 1 && !strcmp(argv[1], "--child"))
		return stress_exec_child(argc, argv);
	if (readlink("/proc/self/exe", path, sizeof(path) - 1) < 0)
		return 2;
	if (seconds <= 0) {
		printf("usage: smpstress SECONDS[xTHREADS] [NAME]...\n");
		return 2;
	}
	if (strchr(argv[1], 'x'))
		threads = (unsigned)atoi(strchr(argv[1], 'x') + 1);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < sizeof(suite) / sizeof(suite[0]); i++)
		count += wanted(suite[i].name, argv + 2);
	if (!count) {
		printf("smpstress: no test of that name\n");
		return 2;
	}
	atomic_store(&finished, true);
	report_crashes(&current);
	pthread_create(&dog, NULL, watchdog, NULL);
	for (size_t i = 0; i < sizeof(suite) / sizeof(suite[0]); i++) {
		if (!wanted(suite[i].name, argv + 2))
			continue;
		current.name = suite[i].name;
		current.threads = threads;
		current.until = now() + seconds / count;
		current.checks = current.errors = 0;
		atomic_store(&finished, false);
		suite[i].run(&current);
		atomic_store(&finished, true);
		if (!current.checks)
			wrong(&current, "checked nothing");
		printf("STRESS %s checks=%lu errors=%lu\n", current.name, current.checks,
		       current.errors);
		red += current.errors != 0;
	}
	printf("smpstress: %u tests on %u processors, %u red\n", count, processors(), red);
	return red != 0;
}
