/*
 * State is data. Every device, interrupt controller and CPU describes its state once, as a table of
 * fields; saving, loading, checking and printing come from the table. The encoding is
 * self-describing: a reader that knows another version of the table matches fields by name.
 *
 * No dependency on any other folder.
 */
#ifndef MIGRATION_FIELD_H
#define MIGRATION_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum field_type {
	FIELD_U8 =
		1, /* unsigned integers of the host's byte order in memory, little endian encoded */
	FIELD_U16,
	FIELD_U32,
	FIELD_U64,
	FIELD_BOOL,   /* a C bool; anything but 0 and 1 is refused when loading */
	FIELD_BYTES,  /* a byte array of fixed length (count) */
	FIELD_STRUCT, /* `count` elements described by `sub` */
};

struct state_desc;

struct field {
	const char *name;
	enum field_type type;
	uint32_t offset; /* in the object */
	uint32_t count;	 /* elements; 1 for scalars */
	uint32_t stride; /* bytes between elements */
	uint16_t
		since; /* version of the table which brought it; absent in older: keeps its value */
	const struct state_desc *sub;
	/* NULL: always sent. Otherwise the field is left out where this says false: an older reader
	 * can then load the state. A field left out keeps the value that the object has after
	 * reset. */
	bool (*needed)(const void *object);
	/* A reader that does not know the field may skip it; without this it refuses the state. */
	bool optional;
};

struct state_desc {
	const char *name; /* "serial8250", stable for ever */
	uint16_t version;
	const struct field *fields; /* ends with name == NULL */
	/* Bring the object's fields up to date before saving / act on them after loading. post_load
	 * returns 0, or -EINVAL for a state that the device cannot be in (*why names it): every
	 * range that an index or a mask relies on must be checked there, for the input is hostile.
	 * May be NULL. */
	void (*pre_save)(void *object);
	int (*post_load)(void *object, const char **why);
};

#define FIELD_SIZEOF(T, m) sizeof(((T *)0)->m)
#define FIELD_SCALAR(T, m, t, v)                                                                   \
	{                                                                                          \
		.name = #m, .type = (t), .offset = offsetof(T, m), .count = 1,                     \
		.stride = FIELD_SIZEOF(T, m), .since = (v)                                         \
	}
#define FIELD_ARRAY(T, m, t, v)                                                                    \
	{                                                                                          \
		.name = #m, .type = (t), .offset = offsetof(T, m),                                 \
		.count = FIELD_SIZEOF(T, m) / FIELD_SIZEOF(T, m[0]),                               \
		.stride = FIELD_SIZEOF(T, m[0]), .since = (v)                                      \
	}
#define FIELD_BLOB(T, m, v)                                                                        \
	{                                                                                          \
		.name = #m, .type = FIELD_BYTES, .offset = offsetof(T, m),                         \
		.count = FIELD_SIZEOF(T, m), .stride = 1, .since = (v)                             \
	}
#define FIELD_SUB(T, m, d, v)                                                                      \
	{                                                                                          \
		.name = #m, .type = FIELD_STRUCT, .offset = offsetof(T, m), .count = 1,            \
		.stride = FIELD_SIZEOF(T, m), .since = (v), .sub = (d)                             \
	}
#define FIELD_SUBS(T, m, d, v)                                                                     \
	{                                                                                          \
		.name = #m, .type = FIELD_STRUCT, .offset = offsetof(T, m),                        \
		.count = FIELD_SIZEOF(T, m) / FIELD_SIZEOF(T, m[0]),                               \
		.stride = FIELD_SIZEOF(T, m[0]), .since = (v), .sub = (d)                          \
	}
#define FIELD_END                                                                                  \
	{                                                                                          \
		.name = NULL                                                                       \
	}

/* A growing byte buffer. Zero-initialised is empty. */
struct field_buf {
	uint8_t *data;
	size_t len, cap;
};
void field_buf_free(struct field_buf *buf);
int field_buf_append(struct field_buf *buf, const void *data, size_t len); /* 0 or -ENOMEM */

/* Appends the object's state. 0 or -ENOMEM (buf is unchanged then). */
int field_save(const struct state_desc *desc, void *object, struct field_buf *buf);

/* Loads one state from data. Hostile input: lengths, types, counts, names, and versions are
 * checked; nothing is written to the object unless the whole encoding is well-formed. Returns the
 * bytes consumed or -EINVAL (malformed), -ENOTSUP (newer and not compatible: an unknown field),
 * with a text in err. A failing post_load leaves the object changed: the caller throws the machine
 * away. */
int64_t field_load(const struct state_desc *desc, void *object, const void *data, size_t len,
		   char *err, size_t err_len);

/* What a state says of itself, read without its table: hostile input, checked in structure only.
 * Returns the bytes that the state takes, or -EINVAL. */
struct field_head {
	char name[64]; /* printable; cut off where longer */
	uint16_t version;
	uint32_t fields;
};
int64_t field_peek(const void *data, size_t len, struct field_head *head);

/* Prints "name.field = value" lines. */
void field_print(const struct state_desc *desc, const void *object, FILE *out);

/* Checks a table itself (unique names, sizes within stride, nesting): 0 or -EINVAL with text; for
 * tests. */
int field_check(const struct state_desc *desc, char *err, size_t err_len);

#endif
