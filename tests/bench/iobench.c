/*
 * iobench disk DEVICE NAME...: what `fio` calls seq-read, seq-write (1 MiB blocks), rand-read,
 * rand-write (4 KiB, four requests at a time), rand-sync (4 KiB writes, each flushed); all O_DIRECT
 * over the first MiB's worth that each row names; `cached` for `disk`: through the page cache.
 * iobench net ADDRESS PORT NAME...: tcp-send, tcp-receive, tcp-ping (a byte there and back). Prints
 * "IOBENCH name seconds amount"; the amount of work is fixed, so that lower is better.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, SMALL = 4096, WORKERS = 4 };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what)
{
	printf("iobench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- disks ------------------------------------------------------------------------------ */

struct job {
	const char *name;
	size_t block;
	unsigned long blocks; /* in all */
	unsigned workers;
	int write, random, sync;
};
static const struct job jobs[] = {
	{"seq-write", MIB, 512, 1, 1, 0, 0},
	{"seq-read", MIB, 512, 1, 0, 0, 0},
	{"rand-write", SMALL, 16384, WORKERS, 1, 1, 0},
	{"rand-read", SMALL, 16384, WORKERS, 0, 1, 0},
	{"rand-sync", SMALL, 1024, 1, 1, 1, 1},
};

struct worker {
	const struct job *job;
	int fd;
	uint64_t seed;
	unsigned long first, count;
	pthread_t thread;
};

static void *work(void *arg)
{
	const struct worker *w = arg;
	const unsigned long span = 512ul * MIB / w->job->block;
	uint64_t x = w->seed;
	char *buf = aligned_alloc(SMALL, w->job->block);

	if (!buf)
		fail("memory");
	memset(buf, (int)w->seed, w->job->block);
	for (unsigned long i = 0; i < w->count; i++) {
		unsigned long n = w->first + i;
		ssize_t done;

		x = x * 6364136223846793005u + 1442695040888963407u;
		if (w->job->random)
			n = (unsigned long)(x >> 33) % span;
		done = w->job->write ? pwrite(w->fd, buf, w->job->block, (off_t)(n * w->job->block))
				     : pread(w->fd, buf, w->job->block, (off_t)(n * w->job->block));
		if (done != (ssize_t)w->job->block)
			fail(w->job->name);
		if (w->job->sync && fdatasync(w->fd))
			fail("fdatasync");
	}
	free(buf);
	return NULL;
}

static void disk(const char *device, int flags, const char *name)
{
	struct worker worker[WORKERS];
	const struct job *job = jobs;
	int fd = open(device, O_RDWR | flags);
	double start;

	if (fd < 0)
		fail(device);
	while (job < jobs + sizeof(jobs) / sizeof(jobs[0]) && strcmp(job->name, name) != 0)
		job++;
	if (job == jobs + sizeof(jobs) / sizeof(jobs[0]))
		fail(name);
	start = now();
	for (unsigned i = 0; i < job->workers; i++) {
		const unsigned long share = job->blocks / job->workers;

		worker[i] = (struct worker){job, fd, i + 1, i * share, share, 0};
		if (pthread_create(&worker[i].thread, NULL, work, &worker[i]))
			fail("thread");
	}
	for (unsigned i = 0; i < job->workers; i++)
		pthread_join(worker[i].thread, NULL);
	if (job->write && fdatasync(fd))
		fail("fdatasync");
	printf("IOBENCH %s %.4f %lu\n", name, now() - start, job->blocks);
	close(fd);
}

/* ---- network ---------------------------------------------------------------------------- */

enum { NET_MIB = 128, PINGS = 2000 };

/* The other side reads one letter: s (it receives), r (it sends), p (it answers). */
static void net(const char *address, const char *port, const char *name)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	const char *kind = !strcmp(name, "tcp-send") ? "s" : !strcmp(name, "tcp-ping") ? "p" : "r";
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	size_t left = (size_t)NET_MIB * MIB;
	char *buf = calloc(1, MIB), byte = 0;
	double start;

	inet_pton(AF_INET, address, &sin.sin_addr);
	if (!buf || fd < 0 || connect(fd, (struct sockaddr *)&sin, sizeof(sin)))
		fail("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	start = now();
	if (write(fd, kind, 1) != 1)
		fail(name);
	for (unsigned i = 0; *kind == 'p' && i < PINGS; i++) {
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			fail(name);
	}
	while (*kind != 'p' && left) {
		const size_t n = left < MIB / 4 ? left : MIB / 4;
		const ssize_t done = *kind == 's' ? write(fd, buf, n) : read(fd, buf, n);

		if (done <= 0)
			fail(name);
		left -= (size_t)done;
	}
	/* All of it has arrived when the other side says so. */
	if (*kind == 's' && (shutdown(fd, SHUT_WR) || read(fd, &byte, 1) != 1))
		fail("the other side's answer");
	printf("IOBENCH %s %.4f %u\n", name, now() - start, *kind == 'p' ? PINGS : NET_MIB);
	close(fd);
	free(buf);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 3 && (!strcmp(argv[1], "disk") || !strcmp(argv[1], "cached"))) {
		for (int i = 3; i < argc; i++)
			disk(argv[2], strcmp(argv[1], "disk") ? 0 : O_DIRECT, argv[i]);
	} else if (argc > 4 && !strcmp(argv[1], "net")) {
		for (int i = 4; i < argc; i++)
			net(argv[2], argv[3], argv[i]);
	} else {
		fputs("usage: iobench disk|cached DEVICE NAME... | net ADDRESS PORT NAME...\n",
		      stderr);
		return 2;
	}
	return 0;
}
