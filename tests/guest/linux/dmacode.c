/*
 * dmacode DEVICE ROUNDS: code that a device writes. Page n of the disk holds a function that
 * returns n (dmacode make FILE writes such a disk); each round one of them is read with O_DIRECT,
 * so that the device itself writes it, into an executable page that has run just before on every
 * processor. Then each processor, having serialised (SDM vol. 3A, 8.1.3), must run the new one.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 256, CALLS = 20, CPUS_MAX = 8 };

static struct {
	uint8_t *code;
	unsigned long rounds;
	pthread_barrier_t written, called;
	uint32_t expected;
	int cpus;
} d;

static void fail(const char *what)
{
	printf("dmacode: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* A jump to the page's end, and there: mov eax, n; ret. */
static void make_page(uint8_t *page, uint32_t n)
{
	const int32_t jump = PAGE - 6 - 5;

	memset(page, 0xcc, PAGE);
	page[0] = 0xe9;
	memcpy(page + 1, &jump, 4);
	page[PAGE - 6] = 0xb8;
	memcpy(page + PAGE - 5, &n, 4);
	page[PAGE - 1] = 0xc3;
}

static int make(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	uint8_t page[PAGE];

	for (uint32_t n = 0; n < PAGES; n++) {
		make_page(page, n);
		if (fd < 0 || write(fd, page, PAGE) != PAGE)
			fail(path);
	}
	return close(fd);
}

static void call_and_check(unsigned long round)
{
	uint32_t eax = 0, ebx, ecx = 0, edx, got;
	uint32_t (*function)(void);

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
	memcpy(&function, &d.code, sizeof(function));
	for (unsigned i = 0; i < CALLS; i++) {
		got = function();
		if (got == d.expected)
			continue;
		printf("dmacode: round %lu: %u instead of %u ran\n", round, got, d.expected);
		_exit(1);
	}
}

static void *runner(void *arg)
{
	for (unsigned long round = 0; round < d.rounds; round++) {
		pthread_barrier_wait(&d.written);
		call_and_check(round);
		pthread_barrier_wait(&d.called);
	}
	return arg;
}

static void run(int fd)
{
	for (unsigned long round = 0; round < d.rounds; round++) {
		const uint32_t n = (uint32_t)(round * 73 % PAGES);

		if (pread(fd, d.code, PAGE, (off_t)n * PAGE) != PAGE)
			fail("read");
		d.expected = n;
		pthread_barrier_wait(&d.written);
		call_and_check(round);
		pthread_barrier_wait(&d.called);
	}
}

int main(int argc, char **argv)
{
	pthread_t thread[CPUS_MAX];
	int fd;

	if (argc == 3 && !strcmp(argv[1], "make"))
		return make(argv[2]);
	if (argc != 3)
		return 2;
	fd = open(argv[1], O_RDONLY | O_DIRECT);
	if (fd < 0)
		fail(argv[1]);
	d.rounds = strtoul(argv[2], NULL, 10);
	d.cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
	if (d.cpus > CPUS_MAX)
		d.cpus = CPUS_MAX;
	d.code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	if (d.code == MAP_FAILED)
		fail("mmap");
	pthread_barrier_init(&d.written, NULL, (unsigned)d.cpus);
	pthread_barrier_init(&d.called, NULL, (unsigned)d.cpus);
	for (int i = 1; i < d.cpus; i++) {
		if (pthread_create(&thread[i], NULL, runner, NULL))
			fail("thread");
	}
	run(fd);
	for (int i = 1; i < d.cpus; i++)
		pthread_join(thread[i], NULL);
	printf("dmacode: %lu rounds on %d processors\n", d.rounds, d.cpus);
	return 0;
}
