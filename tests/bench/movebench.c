/*
 * movebench MIB WORK: a guest that is moved, and measures what it notices of that
 * (bench_migration.py). Fills MIB MiB with what nothing compresses, then writes '.' to the console
 * each millisecond, and each 100 ms a line "W loops": pages that were read. With WORK 1 it reads
 * all its pages in random order for ever, and writes to 64 others; with 0 it only ticks.
 *
 * Commands on the console: 'r': forget what was measured; 'd': "D reads slow p50 p99 max gap
 * wrong": page reads, those of at least 50 us, percentiles and maximum of these in us, the longest
 * time between ticks by the guest's own clock in us, pages whose contents were not what they must
 * be; 'q': the end.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, SLOW_NS = 50000, SLOW_MAX = 1 << 17, HOT = 64, TICK_NS = 1000000, LINE = 100 };

static int console;
static uint64_t *memory, pages;
static volatile uint64_t hot[HOT][PAGE / 8];
static uint32_t slow[SLOW_MAX], sorted[SLOW_MAX];
static atomic_uint slow_count;
static atomic_ulong reads, loops, gap, wrong;
static atomic_bool forget;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* The first word of a page is its mark. */
static uint64_t mark(uint64_t page)
{
	return (page + 1) * 0x9e3779b97f4a7c15;
}

static void fill(void)
{
	uint64_t seed = 88172645463325252;

	for (uint64_t i = 0; i < pages * (PAGE / 8); i++)
		memory[i] = i % (PAGE / 8) ? next(&seed) : mark(i / (PAGE / 8));
}

static void say(const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(console, text, len);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

static void *tick(void *arg)
{
	struct timespec wait = {.tv_nsec = TICK_NS};
	uint64_t last = now();
	char text[64];

	(void)arg;
	for (unsigned n = 1;; n++) {
		uint64_t time;

		nanosleep(&wait, NULL);
		time = now();
		if (time - last > gap)
			gap = time - last;
		last = time;
		if (n % LINE)
			say(".", 1);
		else
			say(text, (size_t)snprintf(text, sizeof(text), "\nW %lu\n", loops));
	}
	return NULL;
}

static void read_page(uint64_t page)
{
	uint64_t begun = now(), took;

	if (*(volatile uint64_t *)(memory + page * (PAGE / 8)) != mark(page))
		wrong++;
	took = now() - begun;
	reads++;
	if (took >= SLOW_NS && slow_count < SLOW_MAX)
		slow[slow_count++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
}

static void *work(void *arg)
{
	uint64_t seed = 2463534242;

	(void)arg;
	for (;;) {
		if (atomic_exchange(&forget, false)) {
			slow_count = 0;
			reads = 0;
			gap = 0;
		}
		read_page(next(&seed) % pages);
		hot[next(&seed) % HOT][7]++;
		loops++;
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static double percentile(unsigned count, unsigned percent)
{
	return count ? sorted[(count - 1) * percent / 100] / 1e3 : 0;
}

static void dump(void)
{
	unsigned count = slow_count;
	char text[200];

	memcpy(sorted, slow, count * sizeof(*slow));
	qsort(sorted, count, sizeof(*sorted), compare);
	say(text, (size_t)snprintf(text, sizeof(text), "\nD %lu %u %.1f %.1f %.1f %.1f %lu\n",
				   reads, count, percentile(count, 50), percentile(count, 99),
				   percentile(count, 100), (double)gap / 1e3, wrong));
}

int main(int argc, char **argv)
{
	struct termios raw;
	pthread_t thread;
	char command;

	if (argc != 3)
		return 2;
	pages = strtoull(argv[1], NULL, 10) << 8;
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	console = open("/dev/ttyS0", O_RDWR);
	if (memory == MAP_FAILED || console < 0)
		return 1;
	tcgetattr(console, &raw);
	cfmakeraw(&raw);
	tcsetattr(console, TCSANOW, &raw);
	memset(sorted, 1, sizeof(sorted));
	memset(slow, 1, sizeof(slow));
	fill();
	say("\nMOVEBENCH\n", 11);
	pthread_create(&thread, NULL, tick, NULL);
	if (argv[2][0] == '1')
		pthread_create(&thread, NULL, work, NULL);
	while (read(console, &command, 1) == 1 && command != 'q') {
		if (command == 'r' && argv[2][0] == '1')
			forget = true;
		else if (command == 'r')
			gap = 0;
		if (command == 'd')
			dump();
	}
	return 0;
}
