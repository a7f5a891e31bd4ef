/*
 * ubench [NAME]...: small loads, each timed by the guest's own CLOCK_MONOTONIC, in one static
 * program. Prints "UBENCH name seconds"; the amount of work is fixed, so that lower is better. The
 * results are checked: a load that computes something else than it should ends the program with
 * code 1.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noipa)) /* called as often as it is written */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
	printf("ubench: %s\n", what);
	exit(1);
}

static NOINLINE uint64_t integer(unsigned long n)
{
	uint64_t a = 1, b = 2;

	while (n--) {
		a = a * 6364136223846793005u + b;
		b ^= a >> 29;
		b += a << 3 | 1;
		if (b & 16)
			a -= b;
	}
	return a ^ b;
}

static void alu(void)
{
	if (integer(60000000) != integer(60000000))
		fail("integer arithmetic differs");
}

static void fp(void)
{
	volatile double start = 0.3;
	double x = start, y = 0;

	for (unsigned i = 0; i < 10000000; i++) {
		y += x / (1.0 + x * x);
		x = 3.7 * x * (1.0 - x);
	}
	if (!(y > 0))
		fail("floating point");
}

static NOINLINE unsigned long f0(unsigned long v)
{
	return v + 1;
}
static NOINLINE unsigned long f1(unsigned long v)
{
	return v ^ 0x55;
}
static NOINLINE unsigned long f2(unsigned long v)
{
	return v * 3;
}
static NOINLINE unsigned long f3(unsigned long v)
{
	return v >> 1;
}

static void indirect(void)
{
	static unsigned long (*volatile const table[])(unsigned long) = {f0, f1, f2, f3};
	unsigned long v = 12345;

	for (unsigned i = 0; i < 40000000; i++)
		v = table[(v ^ i) & 3](v) + i;
	if (v == 0)
		fail("indirect calls");
}

enum { WALK = 32 << 20 };

static void sequential(void)
{
	uint64_t *p = mmap(NULL, WALK, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t sum = 0;

	for (unsigned round = 0; round < 40; round++)
		for (size_t i = 0; i < WALK / 8; i++) {
			sum += p[i];
			asm volatile("" : "+r"(sum)); /* one scalar load each */
		}
	if (sum)
		fail("sequential walk");
	munmap(p, WALK);
}

static void chase(void)
{
	enum { N = WALK / 64 };
	struct line {
		struct line *next;
		char pad[56];
	} *lines = mmap(NULL, WALK, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	struct line *p = lines;

	/* A full cycle: steps by an odd number modulo a power of two, far apart. */
	for (size_t i = 0; i < N; i++)
		lines[i].next = &lines[(i + 166669) % N];
	for (unsigned i = 0; i < 5 * N; i++)
		p = p->next;
	if (p != lines)
		fail("pointer chase");
	munmap(lines, WALK);
}

static void faults_of(unsigned rounds)
{
	enum { SIZE = 4 << 20 };

	for (unsigned round = 0; round < rounds; round++) {
		char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0);

		madvise(p, SIZE, MADV_NOHUGEPAGE);
		for (size_t i = 0; i < SIZE; i += 4096)
			p[i] = 1;
		munmap(p, SIZE);
	}
}

static void faults(void)
{
	faults_of(40);
}

static void calls(void)
{
	for (unsigned i = 0; i < 1000000; i++)
		syscall(SYS_getpid);
}

static int reap(pid_t pid)
{
	int status;

	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
									       : -1;
}

static void forks(void)
{
	for (unsigned i = 0; i < 400; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(7);
		if (reap(pid) != 7)
			fail("fork");
	}
}

static void execs(void)
{
	for (unsigned i = 0; i < 150; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			execl("/proc/self/exe", "ubench", "--nothing", NULL);
			_exit(1);
		}
		if (reap(pid) != 7)
			fail("exec");
	}
}

static void pipes(void)
{
	int to[2], from[2];
	pid_t pid;
	char c = 'x';

	if (pipe(to) || pipe(from))
		fail("pipe");
	pid = fork();
	if (pid == 0) {
		close(to[1]);
		while (read(to[0], &c, 1) == 1)
			if (write(from[1], &c, 1) != 1)
				_exit(1);
		_exit(7);
	}
	for (unsigned i = 0; i < 15000; i++)
		if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
			fail("pipe");
	close(to[1]);
	close(to[0]);
	close(from[0]);
	close(from[1]);
	if (reap(pid) != 7)
		fail("pipe's child");
}

static void locked(void)
{
	static uint64_t counter;

	for (unsigned i = 0; i < 40000000; i++)
		asm volatile("lock addq $1, %0" : "+m"(counter) : : "cc");
	if (counter % 40000000)
		fail("locked add");
}

/* SHA-256's shape: 32-bit rotations and additions, four lanes in vector registers by the compiler.
 */
typedef uint32_t v4 __attribute__((vector_size(16)));

static void vector(void)
{
	v4 a = {1, 2, 3, 4}, b = {5, 6, 7, 8}, c = {9, 10, 11, 12}, w = {13, 14, 15, 16};
	static volatile uint32_t sink;

	for (unsigned i = 0; i < 6000000; i++) {
		v4 s0 = (a >> 2 | a << 30) ^ (a >> 13 | a << 19) ^ (a >> 22 | a << 10);
		v4 s1 = (c >> 6 | c << 26) ^ (c >> 11 | c << 21) ^ (c >> 25 | c << 7);

		w = w + s1 + ((a & b) ^ (a & c) ^ (b & c));
		c = b;
		b = a;
		a = w + s0;
	}
	sink = a[0] ^ b[1] ^ c[2] ^ w[3];
	(void)sink;
}

/* The same work on N threads together: N is the number of processors. */
static void *compute_part(void *n)
{
	integer((unsigned long)(uintptr_t)n);
	return NULL;
}

static void *faults_part(void *n)
{
	faults_of((unsigned)(uintptr_t)n);
	return NULL;
}

static void parallel(void *(*part)(void *), unsigned long work)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[64];

	if (n > 64)
		n = 64;
	for (long i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, part,
				   (void *)(uintptr_t)(work / (unsigned long)n)))
			fail("pthread_create");
	for (long i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static void parallel_compute(void)
{
	parallel(compute_part, 400000000);
}

static void parallel_faults(void)
{
	parallel(faults_part, 240);
}

static const struct {
	const char *name;
	void (*run)(void);
} loads[] = {
	{"integer", alu},
	{"floating-point", fp},
	{"indirect-calls", indirect},
	{"sequential-read", sequential},
	{"pointer-chase", chase},
	{"page-faults", faults},
	{"getpid", calls},
	{"fork", forks},
	{"fork-exec", execs},
	{"pipe-ping-pong", pipes},
	{"locked-add", locked},
	{"vector", vector},
	{"parallel-compute", parallel_compute},
	{"parallel-faults", parallel_faults},
};

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--nothing"))
		return 7;
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("UBENCH start 0\n");
	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		int wanted = argc < 2;
		double start;

		for (int k = 1; k < argc; k++)
			wanted |= !strcmp(argv[k], loads[i].name);
		if (!wanted)
			continue;
		start = now();
		loads[i].run();
		printf("UBENCH %s %.4f\n", loads[i].name, now() - start);
	}
	return 0;
}
