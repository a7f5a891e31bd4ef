/*
 * What the disk programs share: data that says where it belongs. A page (4096 bytes) is made of 512
 * words that follow from a seed, the page's number and the word's place, so that a page that is
 * old, torn, of another place or of another run is never taken for the right one. Positions are
 * bytes.
 */
#ifndef DISK_H
#define DISK_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

/* The finalizer of splitmix64: every bit of x decides about every bit of the result. */
static inline uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static inline void page_fill(uint64_t *page, uint64_t seed, uint64_t number)
{
	uint64_t key = mix64(seed ^ mix64(number));

	for (unsigned i = 0; i < WORDS; i++)
		page[i] = mix64(key + i);
}

/* The first word that is wrong, or WORDS. */
static inline unsigned page_check(const uint64_t *page, uint64_t seed, uint64_t number)
{
	uint64_t key = mix64(seed ^ mix64(number));
	unsigned i = 0;

	while (i < WORDS && page[i] == mix64(key + i))
		i++;
	return i;
}

/* The whole of it or the end of the program: pread and pwrite may do less at a time. */
static inline void read_all(int fd, void *data, size_t size, uint64_t at)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(fd, (char *)data + done, size - done, (off_t)(at + done));

		if (n <= 0) {
			printf("read of %zu bytes at %llu: %s\n", size, (unsigned long long)at,
			       n ? strerror(errno) : "end of file");
			exit(2);
		}
		done += (size_t)n;
	}
}

static inline void write_all(int fd, const void *data, size_t size, uint64_t at)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = pwrite(fd, (const char *)data + done, size - done, (off_t)(at + done));

		if (n <= 0) {
			printf("write of %zu bytes at %llu: %s\n", size, (unsigned long long)at,
			       n ? strerror(errno) : "nothing written");
			exit(2);
		}
		done += (size_t)n;
	}
}

#endif
