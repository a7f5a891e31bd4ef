/* State tables: round trips, versions, hostile encodings. */
#include <errno.h>

#include "tests/unit/dev_util.h"

struct inner {
	uint16_t a;
	bool b;
	uint8_t junk; /* not described */
};
struct outer {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32[3];
	uint64_t u64;
	bool flag;
	uint8_t blob[5];
	struct inner one, many[4];
	uint32_t optional, later;
	unsigned saves, loads;
};

static void inner_pre_save(void *object)
{
	struct inner *in = object;

	in->b = in->a & 1;
}

static int inner_post_load(void *object, const char **why)
{
	const struct inner *in = object;

	if (in->b == (in->a & 1))
		return 0;
	*why = "a and b disagree";
	return -EINVAL;
}

static void outer_pre_save(void *object)
{
	((struct outer *)object)->saves++;
}

static int outer_post_load(void *object, const char **why)
{
	(void)why;
	((struct outer *)object)->loads++;
	return 0;
}

static bool outer_needs_optional(const void *object)
{
	return ((const struct outer *)object)->optional != 0;
}

static const struct field inner_fields[] = {
	FIELD_SCALAR(struct inner, a, FIELD_U16, 1),
	FIELD_SCALAR(struct inner, b, FIELD_BOOL, 1),
	FIELD_END,
};
static const struct state_desc inner_desc = {.name = "inner",
					     .version = 1,
					     .fields = inner_fields,
					     .pre_save = inner_pre_save,
					     .post_load = inner_post_load};

#define OUTER_FIELDS                                                                               \
	FIELD_SCALAR(struct outer, u8, FIELD_U8, 1),                                               \
		FIELD_SCALAR(struct outer, u16, FIELD_U16, 1),                                     \
		FIELD_ARRAY(struct outer, u32, FIELD_U32, 1),                                      \
		FIELD_SCALAR(struct outer, u64, FIELD_U64, 1),                                     \
		FIELD_SCALAR(struct outer, flag, FIELD_BOOL, 1),                                   \
		FIELD_BLOB(struct outer, blob, 1), FIELD_SUB(struct outer, one, &inner_desc, 1),   \
		FIELD_SUBS(struct outer, many, &inner_desc, 1),                                    \
	{                                                                                          \
		.name = "optional", .type = FIELD_U32, .offset = offsetof(struct outer, optional), \
		.count = 1, .stride = 4, .since = 1, .needed = outer_needs_optional                \
	}

static const struct field old_fields[] = {OUTER_FIELDS, FIELD_END};
static const struct field new_fields[] = {
	OUTER_FIELDS, FIELD_SCALAR(struct outer, later, FIELD_U32, 2), FIELD_END};
static const struct state_desc old_desc = {.name = "outer",
					   .version = 1,
					   .fields = old_fields,
					   .pre_save = outer_pre_save,
					   .post_load = outer_post_load};
static const struct state_desc new_desc = {.name = "outer", .version = 2, .fields = new_fields};

static void fill(struct outer *o)
{
	*o = (struct outer){.u8 = 0xa5,
			    .u16 = 0xbeef,
			    .u32 = {1, 0xffffffff, 3},
			    .u64 = 0x0123456789abcdef,
			    .flag = true,
			    .blob = {1, 2, 3, 4, 5},
			    .one = {.a = 7},
			    .optional = 9,
			    .later = 11};
	for (uint16_t i = 0; i < 4; i++)
		o->many[i].a = i;
}

static bool same(const struct outer *x, const struct outer *y)
{
	bool eq = x->u8 == y->u8 && x->u16 == y->u16 && !memcmp(x->u32, y->u32, sizeof(x->u32)) &&
		  x->u64 == y->u64 && x->flag == y->flag && !memcmp(x->blob, y->blob, 5) &&
		  x->one.a == y->one.a && x->one.b == y->one.b && x->optional == y->optional;

	for (unsigned i = 0; i < 4; i++)
		eq &= x->many[i].a == y->many[i].a && x->many[i].b == y->many[i].b;
	return eq;
}

static void test_round_trip(void)
{
	struct field_buf buf = {0};
	struct outer a, b = {0};
	char err[128];

	fill(&a);
	CHECK_EQ(field_save(&old_desc, &a, &buf), 0);
	CHECK_EQ(a.saves, 1);
	CHECK(a.one.b);
	CHECK_EQ(field_load(&old_desc, &b, buf.data, buf.len, err, sizeof(err)), buf.len);
	CHECK_EQ(b.loads, 1);
	CHECK(same(&a, &b));

	/* Two states in one buffer: the first says where the second begins. */
	CHECK_EQ(field_save(&old_desc, &a, &buf), 0);
	CHECK_EQ(field_load(&old_desc, &b, buf.data, buf.len, err, sizeof(err)), buf.len / 2);
	field_buf_free(&buf);
}

static void test_versions(void)
{
	struct field_buf buf = {0};
	struct outer a, b = {.later = 77, .optional = 78};
	char err[128];

	fill(&a);
	a.optional = 0; /* not needed: left out, the reader keeps its own */
	CHECK_EQ(field_save(&old_desc, &a, &buf), 0);
	CHECK_EQ(field_load(&new_desc, &b, buf.data, buf.len, err, sizeof(err)), buf.len);
	CHECK_EQ(b.later, 77);
	CHECK_EQ(b.optional, 78);
	buf.len = 0;

	CHECK_EQ(field_save(&new_desc, &a, &buf), 0);
	memset(&b, 0x5a, sizeof(b));
	CHECK_EQ(field_load(&old_desc, &b, buf.data, buf.len, err, sizeof(err)), -ENOTSUP);
	CHECK(strstr(err, "later"));
	CHECK_EQ(b.u8, 0x5a); /* untouched */
	field_buf_free(&buf);
}

/* What can be read without the table: every cut is seen, and nothing beyond the end is read. */
static void test_peek(void)
{
	struct field_buf buf = {0};
	struct field_head head;
	struct outer a;

	fill(&a);
	field_save(&old_desc, &a, &buf);
	CHECK_EQ(field_peek(buf.data, buf.len, &head), buf.len);
	CHECK(!strcmp(head.name, "outer") && head.version == 1 && head.fields == 9);
	for (size_t i = 0; i < buf.len; i++)
		CHECK_EQ(field_peek(buf.data, i, &head), -EINVAL);
	for (size_t i = 0; i < buf.len * 8; i++) {
		buf.data[i / 8] ^= (uint8_t)(1u << i % 8);
		int64_t ret = field_peek(buf.data, buf.len, &head);

		CHECK(ret == -EINVAL || (ret > 0 && ret <= (int64_t)buf.len));
		buf.data[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	field_buf_free(&buf);
}

/* A field that a reader may skip: an older one loads the rest, one without the mark refuses. */
static void test_optional(void)
{
	static struct field fields[] = {OUTER_FIELDS,
					FIELD_SCALAR(struct outer, later, FIELD_U32, 2), FIELD_END};
	static const struct state_desc desc = {.name = "outer", .version = 2, .fields = fields};
	struct field_buf buf = {0};
	struct outer a, b = {.later = 5};
	char err[128];

	fill(&a);
	fields[9].optional = true;
	CHECK_EQ(field_save(&desc, &a, &buf), 0);
	CHECK_EQ(field_load(&old_desc, &b, buf.data, buf.len, err, sizeof(err)), buf.len);
	CHECK(same(&a, &b) && b.later == 5);
	CHECK_EQ(field_load(&new_desc, &b, buf.data, buf.len, err, sizeof(err)), buf.len);
	CHECK_EQ(b.later, 11);
	field_buf_free(&buf);
}

/* Every byte of the encoding changed to something else, and every truncation. */
static void test_hostile(void)
{
	struct field_buf buf = {0};
	struct outer a, b;
	unsigned refused = 0;
	char err[128];

	fill(&a);
	field_save(&old_desc, &a, &buf);
	for (size_t i = 0; i < buf.len; i++) {
		uint8_t old = buf.data[i];

		for (unsigned bit = 0; bit < 8; bit++) {
			memset(&b, 0, sizeof(b));
			buf.data[i] = old ^ (uint8_t)(1u << bit);
			int64_t ret =
				field_load(&old_desc, &b, buf.data, buf.len, err, sizeof(err));

			CHECK(ret == (int64_t)buf.len || ret == -EINVAL || ret == -ENOTSUP);
			CHECK((ret < 0) == (err[0] != 0));
			refused += ret < 0;
		}
		buf.data[i] = old;
		CHECK(field_load(&old_desc, &b, buf.data, i, err, sizeof(err)) < 0);
	}
	printf("field: %u of %zu flipped bits refused\n", refused, buf.len * 8);
	CHECK(field_load(&inner_desc, &b.one, buf.data, buf.len, NULL, 0) == -EINVAL);
	field_buf_free(&buf);
}

static void test_refusals(void)
{
	struct field_buf buf = {0}, twice = {0};
	struct inner in = {.a = 2}, other = {0};
	char err[128];
	uint8_t *p;

	CHECK_EQ(field_save(&inner_desc, &in, &buf), 0);
	/* name(6) version(2) length(4), then field a: name(2) type(1) count(4) length(4) payload(2)
	 */
	CHECK_EQ(buf.len, 12 + 13 + 12);
	p = buf.data;
	p[36] = 2; /* a bool of 2 */
	CHECK_EQ(field_load(&inner_desc, &other, p, buf.len, err, sizeof(err)), -EINVAL);
	CHECK(strstr(err, "neither"));
	p[36] = 1; /* post_load: contradicts a */
	CHECK_EQ(field_load(&inner_desc, &other, p, buf.len, err, sizeof(err)), -EINVAL);
	CHECK(strstr(err, "disagree"));
	p[36] = 0;
	CHECK_EQ(field_load(&inner_desc, &other, p, buf.len, err, sizeof(err)), buf.len);
	CHECK_EQ(other.a, 2);

	/* A field twice. */
	field_save(&inner_desc, &in, &twice);
	twice.data[8] = 26; /* two fields a of 13 bytes */
	p = realloc(twice.data, 12 + 26);
	if (!p)
		exit(77);
	twice.data = p;
	memcpy(p + 25, p + 12, 13);
	CHECK_EQ(field_load(&inner_desc, &other, p, 38, err, sizeof(err)), -EINVAL);
	CHECK(strstr(err, "twice"));

	/* A missing field. */
	p[8] = 13;
	CHECK_EQ(field_load(&inner_desc, &other, p, 25, err, sizeof(err)), -EINVAL);
	CHECK(strstr(err, "missing"));
	field_buf_free(&buf);
	field_buf_free(&twice);
}

/* A byte too many behind the last element of a nested state. */
static void test_left_over(void)
{
	static const struct field fields[] = {FIELD_SUB(struct outer, one, &inner_desc, 1),
					      FIELD_END};
	const struct state_desc holder = {.name = "holder", .version = 1, .fields = fields};
	struct field_buf buf = {0};
	struct outer o = {.one = {.a = 4}};
	char err[128];
	uint8_t *p;

	CHECK_EQ(field_save(&holder, &o, &buf), 0);
	CHECK_EQ(buf.len, 13 + 13 + 37);
	p = realloc(buf.data, buf.len + 1);
	if (!p)
		exit(77);
	buf.data = p;
	p[buf.len] = 0;
	CHECK_EQ(field_load(&holder, &o, p, buf.len + 1, err, sizeof(err)), buf.len);
	p[9]++;	 /* the state's length */
	p[22]++; /* the field's */
	CHECK_EQ(field_load(&holder, &o, p, buf.len + 1, err, sizeof(err)), -EINVAL);
	CHECK(strstr(err, "left over"));
	field_buf_free(&buf);
}

static void test_tables(void)
{
	static const struct field wide[] = {
		{.name = "x", .type = FIELD_U64, .count = 1, .stride = 4, .since = 1}, FIELD_END};
	static const struct field same_name[] = {FIELD_SCALAR(struct inner, a, FIELD_U16, 1),
						 FIELD_SCALAR(struct inner, a, FIELD_U16, 1),
						 FIELD_END};
	static const struct field outside[] = {{.name = "one",
						.type = FIELD_STRUCT,
						.count = 1,
						.stride = 2,
						.since = 1,
						.sub = &inner_desc},
					       FIELD_END};
	const struct state_desc bad[] = {{.name = "wide", .version = 1, .fields = wide},
					 {.name = "twice", .version = 1, .fields = same_name},
					 {.name = "outside", .version = 1, .fields = outside},
					 {.name = "", .version = 1, .fields = inner_fields},
					 {.name = "since", .version = 1, .fields = new_fields}};
	char err[128];

	CHECK_EQ(field_check(&old_desc, err, sizeof(err)), 0);
	CHECK_EQ(field_check(&new_desc, err, sizeof(err)), 0);
	for (unsigned i = 0; i < 5; i++) {
		CHECK_EQ(field_check(&bad[i], err, sizeof(err)), -EINVAL);
		CHECK(err[0]);
	}
}

static void test_print(void)
{
	struct outer a;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		exit(77);
	fill(&a);
	field_print(&old_desc, &a, out);
	fclose(out);
	CHECK(strstr(text, "outer.u16 = 0xbeef\n"));
	CHECK(strstr(text, "outer.u32 = 0x1 0xffffffff 0x3\n"));
	CHECK(strstr(text, "outer.flag = true\n"));
	CHECK(strstr(text, "outer.blob = 0102030405\n"));
	CHECK(strstr(text, "outer.many[3].a = 0x3\n"));
	free(text);
}

int main(void)
{
	test_round_trip();
	test_versions();
	test_peek();
	test_optional();
	test_hostile();
	test_refusals();
	test_left_over();
	test_tables();
	test_print();
	return dev_result("field");
}
