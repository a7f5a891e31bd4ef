/* What fuzz targets of devices share: an input as a program whose steps take their operands from
 * it, and a device's state that goes through its tables. */
#ifndef TESTS_FUZZ_FUZZ_UTIL_H
#define TESTS_FUZZ_FUZZ_UTIL_H

#include "tests/unit/dev_util.h"

/* main.c */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max);

struct input {
	const uint8_t *p;
	size_t left;
};

/* A number of n bytes; what is beyond the end is 0. */
static inline uint64_t take_bytes(struct input *in, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n && in->left; i++, in->left--)
		value |= (uint64_t)*in->p++ << (8 * i);
	return value;
}

static inline void must(bool condition)
{
	if (!condition)
		__builtin_trap();
}

/* A sink of dev_log_set_sink(). */
static inline void fuzz_quiet(void *opaque, const char *line)
{
	(void)opaque, (void)line;
}

/* Save, load: accepted, and the same again. */
static inline void fuzz_move(struct device *d, struct field_buf *saved)
{
	struct field_buf again = {0};

	saved->len = 0;
	must(field_save(d->state, d, saved) == 0);
	must(dev_load(d, saved) == (int64_t)saved->len);
	must(field_save(d->state, d, &again) == 0);
	must(again.len == saved->len && !memcmp(again.data, saved->data, again.len));
	field_buf_free(&again);
}

/* Save, damage, load. False: it was refused, and the machine is to be thrown away. */
static inline bool fuzz_damage(struct device *d, struct field_buf *saved, struct input *in)
{
	saved->len = 0;
	must(field_save(d->state, d, saved) == 0);
	for (unsigned n = (unsigned)take_bytes(in, 1) % 8; n; n--) {
		uint64_t at = take_bytes(in, 2);

		saved->data[at % saved->len] = (uint8_t)take_bytes(in, 1);
	}
	return dev_load(d, saved) >= 0;
}

/* The n-th seed: noise, the longer the later; 0: no more. */
static inline size_t fuzz_noise(unsigned n, uint64_t salt, uint8_t *buf, size_t max)
{
	uint64_t state = n + salt;
	size_t len = 64 + n * 24;

	if (n >= 40 || len > max)
		return 0;
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)dev_random(&state);
	return len;
}

#endif
