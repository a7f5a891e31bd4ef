/*
 * blkcheck write|check FILE MIB [SEED [THREADS]]: fills the first MIB of a disk or file, in pieces
 * of 4 to 512 KiB, in an order and with sizes that follow from SEED (1), from THREADS (4) threads,
 * past the guest's page cache where that can be done; ends with fdatasync. check reads it in other
 * pieces and says which bytes are wrong. "blkcheck: MIB written" or "right", and 0, or 1.
 */
#include "disk.h"

#include <fcntl.h>
#include <pthread.h>

enum { MOST = 128 /* pages of a piece */, MOST_THREADS = 64 };

struct piece {
	uint64_t first;
	unsigned pages;
};
struct job {
	int fd;
	bool check;
	uint64_t seed;
	struct piece *pieces;
	uint64_t count;
	_Atomic uint64_t next, wrong;
};

static void check_piece(struct job *job, const struct piece *piece, const uint64_t *data)
{
	for (unsigned i = 0; i < piece->pages; i++) {
		uint64_t number = piece->first + i;
		unsigned word = page_check(data + (size_t)i * WORDS, job->seed, number);

		if (word == WORDS || ++job->wrong > 10)
			continue;
		printf("blkcheck: byte %llu: %016llx is wrong\n",
		       (unsigned long long)(number * PAGE + word * 8),
		       (unsigned long long)data[(size_t)i * WORDS + word]);
	}
}

static void *work(void *arg)
{
	struct job *job = arg;
	uint64_t *data = aligned_alloc(PAGE, MOST * PAGE);
	uint64_t i;

	if (!data)
		exit(2);
	while ((i = job->next++) < job->count) {
		const struct piece *piece = &job->pieces[i];
		size_t size = (size_t)piece->pages * PAGE;

		if (job->check) {
			memset(data, 0xee, size);
			read_all(job->fd, data, size, piece->first * PAGE);
			check_piece(job, piece, data);
			continue;
		}
		for (unsigned p = 0; p < piece->pages; p++)
			page_fill(data + (size_t)p * WORDS, job->seed, piece->first + p);
		write_all(job->fd, data, size, piece->first * PAGE);
	}
	free(data);
	return NULL;
}

/* Cuts the pages into pieces and shuffles them. */
static void cut(struct job *job, uint64_t pages)
{
	uint64_t state = mix64(job->seed * 2 + job->check);

	job->pieces = calloc(pages, sizeof(*job->pieces));
	if (!job->pieces)
		exit(2);
	for (uint64_t at = 0; at < pages; at += job->pieces[job->count++].pages) {
		/* As many small ones as large ones. */
		unsigned most = 1u << (state = mix64(state)) % 8;
		unsigned n = 1 + (unsigned)((state >> 32) % most);

		job->pieces[job->count] =
			(struct piece){at, n < pages - at ? n : (unsigned)(pages - at)};
	}
	for (uint64_t i = job->count; i > 1; i--) {
		uint64_t j = (state = mix64(state)) % i;
		struct piece swap = job->pieces[i - 1];

		job->pieces[i - 1] = job->pieces[j];
		job->pieces[j] = swap;
	}
}

int main(int argc, char **argv)
{
	struct job job = {.seed = argc > 4 ? strtoull(argv[4], NULL, 0) : 1};
	unsigned threads = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 0) : 4;
	unsigned long mib = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	pthread_t thread[MOST_THREADS];
	int flags;

	if (!mib || threads < 1 || threads > MOST_THREADS ||
	    (strcmp(argv[1], "write") && strcmp(argv[1], "check"))) {
		fputs("usage: blkcheck write|check FILE MIB [SEED [THREADS]]\n", stderr);
		return 2;
	}
	job.check = argv[1][0] == 'c';
	flags = (job.check ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	job.fd = open(argv[2], flags | O_DIRECT);
	if (job.fd < 0 && errno == EINVAL)
		job.fd = open(argv[2], flags); /* a tmpfs */
	if (job.fd < 0) {
		printf("blkcheck: %s: %s\n", argv[2], strerror(errno));
		return 2;
	}
	cut(&job, (uint64_t)mib * ((1 << 20) / PAGE));
	for (unsigned i = 0; i < threads; i++) {
		if (pthread_create(&thread[i], NULL, work, &job))
			return 2;
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	if (!job.check && fdatasync(job.fd)) {
		printf("blkcheck: fdatasync: %s\n", strerror(errno));
		return 2;
	}
	if (job.wrong)
		printf("blkcheck: %llu pages are wrong\n", (unsigned long long)job.wrong);
	else
		printf("blkcheck: %lu MiB %s\n", mib, job.check ? "right" : "written");
	free(job.pieces);
	return job.wrong != 0;
}
