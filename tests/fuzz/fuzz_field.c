/* Hostile encodings of state: what is accepted must save to something that is accepted and the
 * same. */
#include <stdlib.h>
#include <string.h>

#include "migration/field.h"

struct part {
	uint8_t a;
	uint32_t b[3];
	bool c;
};
struct whole {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64[2];
	bool flags[4];
	uint8_t blob[24];
	struct part one, many[5];
	uint32_t optional;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max);

static bool whole_needs_optional(const void *object)
{
	return ((const struct whole *)object)->optional;
}

static const struct field part_fields[] = {
	FIELD_SCALAR(struct part, a, FIELD_U8, 1),
	FIELD_ARRAY(struct part, b, FIELD_U32, 1),
	FIELD_SCALAR(struct part, c, FIELD_BOOL, 1),
	FIELD_END,
};
static const struct state_desc part_desc = {.name = "part", .version = 1, .fields = part_fields};
static const struct field whole_fields[] = {
	FIELD_SCALAR(struct whole, u8, FIELD_U8, 1),
	FIELD_SCALAR(struct whole, u16, FIELD_U16, 1),
	FIELD_SCALAR(struct whole, u32, FIELD_U32, 2),
	FIELD_ARRAY(struct whole, u64, FIELD_U64, 1),
	FIELD_ARRAY(struct whole, flags, FIELD_BOOL, 1),
	FIELD_BLOB(struct whole, blob, 1),
	FIELD_SUB(struct whole, one, &part_desc, 1),
	FIELD_SUBS(struct whole, many, &part_desc, 3),
	{.name = "optional",
	 .type = FIELD_U32,
	 .offset = offsetof(struct whole, optional),
	 .count = 1,
	 .stride = 4,
	 .since = 1,
	 .needed = whole_needs_optional},
	FIELD_END,
};
static const struct state_desc whole_desc = {.name = "whole", .version = 3, .fields = whole_fields};

/* The object lies in a block of its own size, with the sanitizer's red zones around it. */
static int check(const uint8_t *data, size_t len)
{
	struct whole *x = calloc(1, sizeof(*x)), *y = calloc(1, sizeof(*y)), untouched = {0};
	struct field_buf a = {0}, b = {0};
	char err[80] = "";
	int64_t used;
	int bad = 0;

	if (!x || !y)
		goto out;
	used = field_load(&whole_desc, x, data, len, err, sizeof(err));
	if (used < 0) {
		bad = !err[0] || memchr(err, 0, sizeof(err)) == NULL ||
		      memcmp(x, &untouched, sizeof(*x)) != 0;
		goto out;
	}
	bad = (uint64_t)used > len || field_save(&whole_desc, x, &a) ||
	      field_load(&whole_desc, y, a.data, a.len, err, sizeof(err)) != (int64_t)a.len ||
	      field_save(&whole_desc, y, &b) || a.len != b.len ||
	      memcmp(a.data, b.data, a.len) != 0;
out:
	field_buf_free(&a);
	field_buf_free(&b);
	free(x);
	free(y);
	return bad;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (check(data, len))
		__builtin_trap();
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	struct whole w = {
		.u8 = 1, .u16 = 2, .u32 = 3, .u64 = {4, 5}, .flags = {true}, .optional = n};
	struct field_buf out = {0};
	size_t len = 0;

	if (n < 2 && !field_save(&whole_desc, &w, &out) && out.len <= max) {
		len = out.len;
		memcpy(buf, out.data, len);
	}
	field_buf_free(&out);
	return len;
}
