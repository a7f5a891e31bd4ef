/*
 * What a disk has promised to keep, it keeps, whatever happened afterwards.
 *
 *   lastseq write FILE [COUNT [BATCH]]   writes numbered records for ever, or COUNT of them: BATCH
 * at a time (1), then fdatasync, then "durable N" on stdout. Continues after the last record that
 * it finds there. lastseq check FILE [N [BATCH]]       reads them all, prints "last N"; is there
 * less than N, or is one of them wrong, it says so and ends with 1
 *
 * FILE is a disk, or a file that has its size. Its pages are a ring: record n (from 1) is page n -
 * 1 modulo their number. What is in flight when the machine dies is the last batch that was begun:
 * each of its records may be whole, missing or torn; all before it in the ring have to be there.
 */
#include "disk.h"

#include <fcntl.h>

static const uint64_t SEED = 0x6c61737473657100; /* "lastseq" */

struct ring {
	int fd;
	uint64_t slots, batch;
	uint64_t newest;   /* the highest number of a whole record, 0: none */
	uint64_t *numbers; /* per slot: the record's, 0: none that is whole */
};

/* A record is the page of its number, with the number itself in front of it. */
static void record_fill(uint64_t *page, uint64_t number)
{
	page_fill(page, SEED, number);
	page[0] = number;
}

static bool record_whole(uint64_t *page, uint64_t number)
{
	uint64_t expected[WORDS];

	record_fill(expected, number);
	return number && !memcmp(page, expected, PAGE);
}

static void open_ring(struct ring *r, const char *file, int flags, uint64_t batch)
{
	off_t size;

	r->fd = open(file, flags | O_CLOEXEC);
	size = r->fd < 0 ? -1 : lseek(r->fd, 0, SEEK_END);
	if (size < 0) {
		printf("lastseq: %s: %s\n", file, strerror(errno));
		exit(2);
	}
	r->batch = batch ? batch : 1;
	r->slots = (uint64_t)size / PAGE / r->batch * r->batch;
	r->numbers = calloc(r->slots, sizeof(*r->numbers));
	if (r->slots < 2 * r->batch || !r->numbers) {
		printf("lastseq: %s is too small or too large: %llu bytes\n", file,
		       (unsigned long long)size);
		exit(2);
	}
	/* From the disk itself, as far as that can be asked for. */
	posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void scan(struct ring *r)
{
	uint64_t page[WORDS];

	for (uint64_t slot = 0; slot < r->slots; slot++) {
		read_all(r->fd, page, PAGE, slot * PAGE);
		if ((page[0] - 1) % r->slots != slot || !record_whole(page, page[0]))
			continue;
		r->numbers[slot] = page[0];
		if (page[0] > r->newest)
			r->newest = page[0];
	}
}

/* The last record that has all before it; the number of records that ought to be there and are not.
 */
static uint64_t last_of(const struct ring *r, unsigned *missing)
{
	uint64_t begun = r->newest ? (r->newest - 1) / r->batch * r->batch : 0;
	uint64_t last = begun, first;

	while (last < r->newest && r->numbers[last % r->slots] == last + 1)
		last++;
	/* In flight is the batch behind this one, all of whose pages hold nothing yet that is
	 * whole. */
	if (last == begun + r->batch)
		begun = last;
	first = begun + r->batch > r->slots ? begun + r->batch - r->slots + 1 : 1;

	*missing = 0;
	for (uint64_t n = first; n <= begun; n++) {
		uint64_t found = r->numbers[(n - 1) % r->slots];

		if (found == n)
			continue;
		if (++*missing <= 10)
			printf("lastseq: record %llu is not there: %s %llu\n",
			       (unsigned long long)n,
			       found ? "in its place is" : "its page holds no record;",
			       (unsigned long long)found);
	}
	return last;
}

static int check(struct ring *r, uint64_t at_least)
{
	unsigned missing;
	uint64_t last;

	scan(r);
	last = last_of(r, &missing);
	printf("last %llu\n", (unsigned long long)last);
	if (last < at_least)
		printf("lastseq: %llu was promised\n", (unsigned long long)at_least);
	return missing || last < at_least;
}

static int write_records(struct ring *r, uint64_t count)
{
	uint64_t page[WORDS];
	unsigned missing;
	uint64_t n;

	scan(r);
	n = last_of(r, &missing) / r->batch * r->batch;
	printf("start %llu\n", (unsigned long long)n);
	fflush(stdout);
	for (uint64_t end = n + count; !count || n < end;) {
		for (uint64_t i = 0; i < r->batch; i++) {
			record_fill(page, ++n);
			write_all(r->fd, page, PAGE, (n - 1) % r->slots * PAGE);
		}
		if (fdatasync(r->fd)) {
			printf("lastseq: fdatasync: %s\n", strerror(errno));
			return 2;
		}
		printf("durable %llu\n", (unsigned long long)n);
		fflush(stdout);
	}
	return missing != 0;
}

int main(int argc, char **argv)
{
	uint64_t number = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;
	uint64_t batch = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
	struct ring r = {0};

	if (argc > 2 && !strcmp(argv[1], "write")) {
		open_ring(&r, argv[2], O_RDWR, batch);
		return write_records(&r, number);
	}
	if (argc > 2 && !strcmp(argv[1], "check")) {
		open_ring(&r, argv[2], O_RDONLY, batch);
		return check(&r, number);
	}
	fputs("usage: lastseq write FILE [COUNT [BATCH]] | check FILE [N [BATCH]]\n", stderr);
	return 2;
}
