/*
 * What the maker of images and the bare programs agree on: sets of tables that libmmu has built,
 * and what a processor must find in them. Little endian, natural alignment, the same for 32 and 64
 * bits.
 *
 * An image is two files that lie in the machine's memory: the tables, at the addresses that their
 * entries hold, and the list of what is expected (struct image, then the probes).
 */
#ifndef DECODERS_IMAGE_H
#define DECODERS_IMAGE_H

#include <stdint.h>

enum { IMAGE_MAGIC = 0x65727231, IMAGE_MAX_SETS = 32 };

enum { PROBE_R = 1, PROBE_W = 2, PROBE_X = 4, PROBE_TRANSLATE = 8 /* no access: AT, arm64 */ };

enum probe_outcome {
	PROBE_OK,
	PROBE_ABSENT,  /* no entry at `level` */
	PROBE_REFUSED, /* a leaf of `level` that does not grant the access */
	PROBE_BEYOND,  /* gpa is wider than the input */
};

struct probe {
	uint64_t gpa, hpa;
	uint8_t access, outcome, level, pad[5];
};

struct image_set {
	char name[32];
	uint64_t root, control; /* registers */
	uint64_t stub_gpa;	/* where STUB_BYTES at machine.stub are mapped, R, W and X */
	uint32_t first, count;	/* probes */
	uint32_t levels, pad;
};

struct image {
	uint32_t magic, sets;
	uint64_t seed;
	uint64_t stub; /* host address of what stub_gpa maps */
	struct image_set set[IMAGE_MAX_SETS];
	struct probe probe[];
};

enum { STUB_BYTES = 0x10000 };

#endif
