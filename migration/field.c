/*
 * The encoding, little endian:
 *
 *   state   := u8 length, name, u16 version, u32 length of what follows, field*
 *   field   := u8 length, name, u8 type, u32 count, u32 length of the payload, payload
 *              bit 7 of type: a reader that does not know the field skips it
 *   payload := count elements; of FIELD_STRUCT: count nested states
 *
 * Everything carries its length, so a damaged field can't make the reader run past its own bytes.
 */
#include "migration/field.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "migration/bytes.h"

#define FIELD_MAX_PER_TABLE 256
#define FIELD_MAX_DEPTH	    8
#define FIELD_SKIPPABLE	    0x80

/* 0 for FIELD_STRUCT, whose elements have no fixed encoded size. */
static uint32_t elem_size(enum field_type type)
{
	switch (type) {
	case FIELD_U8:
	case FIELD_BOOL:
	case FIELD_BYTES: return 1;
	case FIELD_U16: return 2;
	case FIELD_U32: return 4;
	case FIELD_U64: return 8;
	case FIELD_STRUCT: break;
	}
	return 0;
}

static uint64_t elem_get(enum field_type type, const uint8_t *p)
{
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;

	switch (elem_size(type)) {
	case 1: return *p;
	case 2: memcpy(&u16, p, sizeof(u16)); return u16;
	case 4: memcpy(&u32, p, sizeof(u32)); return u32;
	default: memcpy(&u64, p, sizeof(u64)); return u64;
	}
}

static void elem_set(enum field_type type, uint8_t *p, uint64_t value)
{
	uint16_t u16 = (uint16_t)value;
	uint32_t u32 = (uint32_t)value;

	switch (elem_size(type)) {
	case 1: *p = (uint8_t)value; break;
	case 2: memcpy(p, &u16, sizeof(u16)); break;
	case 4: memcpy(p, &u32, sizeof(u32)); break;
	default: memcpy(p, &value, sizeof(value)); break;
	}
}

/* ---- saving ---- */

void field_buf_free(struct field_buf *buf)
{
	free(buf->data);
	*buf = (struct field_buf){0};
}

/* Room for n more bytes, appended; NULL: no memory. */
static uint8_t *buf_grow(struct field_buf *buf, size_t n)
{
	size_t cap = buf->cap ? buf->cap : 256;
	uint8_t *data;

	if (n > SIZE_MAX / 4 - buf->len)
		return NULL;
	while (cap < buf->len + n)
		cap *= 2;
	if (cap != buf->cap) {
		data = realloc(buf->data, cap);
		if (!data)
			return NULL;
		buf->data = data;
		buf->cap = cap;
	}
	buf->len += n;
	return buf->data + buf->len - n;
}

static int buf_put(struct field_buf *buf, uint64_t value, unsigned bytes)
{
	uint8_t *p = buf_grow(buf, bytes);

	if (!p)
		return -ENOMEM;
	put_le(p, value, bytes);
	return 0;
}

static int buf_put_name(struct field_buf *buf, const char *name)
{
	size_t len = strnlen(name, 255);
	uint8_t *p = buf_grow(buf, 1 + len);

	if (!p)
		return -ENOMEM;
	p[0] = (uint8_t)len;
	memcpy(p + 1, name, len);
	return 0;
}

static int save_state(const struct state_desc *desc, uint8_t *object, struct field_buf *buf);

static int save_payload(const struct field *f, uint8_t *object, struct field_buf *buf)
{
	uint32_t size = elem_size(f->type);
	uint8_t *elem = object + f->offset, *p;
	int ret;

	if (f->type == FIELD_STRUCT) {
		for (uint32_t i = 0; i < f->count; i++, elem += f->stride) {
			ret = save_state(f->sub, elem, buf);
			if (ret)
				return ret;
		}
		return 0;
	}
	p = buf_grow(buf, (size_t)size * f->count);
	if (!p)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->count; i++, elem += f->stride, p += size)
		put_le(p, elem_get(f->type, elem), size);
	return 0;
}

static int save_field(const struct field *f, uint8_t *object, struct field_buf *buf)
{
	uint8_t type = (uint8_t)f->type | (f->optional ? FIELD_SKIPPABLE : 0);
	size_t len_at;
	int ret;

	if (buf_put_name(buf, f->name) || buf_put(buf, type, 1) || buf_put(buf, f->count, 4) ||
	    buf_put(buf, 0, 4))
		return -ENOMEM;
	len_at = buf->len - 4;
	ret = save_payload(f, object, buf);
	if (ret)
		return ret;
	put_le(buf->data + len_at, buf->len - len_at - 4, 4);
	return 0;
}

static int save_state(const struct state_desc *desc, uint8_t *object, struct field_buf *buf)
{
	size_t len_at;
	int ret;

	if (desc->pre_save)
		desc->pre_save(object);
	if (buf_put_name(buf, desc->name) || buf_put(buf, desc->version, 2) || buf_put(buf, 0, 4))
		return -ENOMEM;
	len_at = buf->len - 4;
	for (const struct field *f = desc->fields; f->name; f++) {
		if (f->needed && !f->needed(object))
			continue;
		ret = save_field(f, object, buf);
		if (ret)
			return ret;
	}
	put_le(buf->data + len_at, buf->len - len_at - 4, 4);
	return 0;
}

int field_buf_append(struct field_buf *buf, const void *data, size_t len)
{
	uint8_t *p = buf_grow(buf, len);

	if (!p)
		return -ENOMEM;
	if (len)
		memcpy(p, data, len);
	return 0;
}

int field_save(const struct state_desc *desc, void *object, struct field_buf *buf)
{
	size_t start = buf->len;
	int ret = save_state(desc, object, buf);

	if (ret)
		buf->len = start;
	return ret;
}

/* ---- loading ---- */

/* Pass 1 checks without touching the object, pass 2 writes what was checked. */
struct load {
	bool apply;
	char *err;
	size_t err_len;
};

__attribute__((format(printf, 3, 4))) static int fail(struct load *ld, int code, const char *fmt,
						      ...)
{
	va_list ap;

	if (ld->err && ld->err_len) {
		va_start(ap, fmt);
		vsnprintf(ld->err, ld->err_len, fmt, ap);
		va_end(ap);
	}
	return code;
}

static int load_state(struct load *ld, const struct state_desc *desc, uint8_t *object,
		      struct span *in);

static int load_payload(struct load *ld, const struct state_desc *desc, const struct field *f,
			uint8_t *object, struct span in)
{
	uint32_t size = elem_size(f->type);
	uint8_t *elem = object + f->offset;
	uint64_t value;
	int ret;

	if (f->type == FIELD_STRUCT) {
		for (uint32_t i = 0; i < f->count; i++, elem += f->stride) {
			ret = load_state(ld, f->sub, elem, &in);
			if (ret)
				return ret;
		}
		if (in.left)
			return fail(ld, -EINVAL, "%s.%s: bytes left over", desc->name, f->name);
		return 0;
	}
	if (in.left != (uint64_t)size * f->count)
		return fail(ld, -EINVAL, "%s.%s: wrong length", desc->name, f->name);
	for (uint32_t i = 0; i < f->count; i++, elem += f->stride) {
		span_get(&in, size, &value);
		if (f->type == FIELD_BOOL && value > 1)
			return fail(ld, -EINVAL, "%s.%s: neither 0 nor 1", desc->name, f->name);
		if (ld->apply)
			elem_set(f->type, elem, value);
	}
	return 0;
}

static int load_field(struct load *ld, const struct state_desc *desc, uint8_t *object,
		      struct span *body, uint64_t *seen)
{
	const struct field *f = desc->fields;
	uint64_t type, count, len, bit;
	struct span name, payload;
	char text[64];
	unsigned n = 0;

	if (!span_cut_name(body, &name) || !span_get(body, 1, &type) ||
	    !span_get(body, 4, &count) || !span_get(body, 4, &len) ||
	    !span_cut(body, len, &payload))
		return fail(ld, -EINVAL, "%s: a field is cut off", desc->name);
	while (f->name && !span_is(name, f->name) && n < FIELD_MAX_PER_TABLE - 1)
		f++, n++;
	if ((!f->name || !span_is(name, f->name)) && type & FIELD_SKIPPABLE)
		return 0;
	if (!f->name || !span_is(name, f->name))
		return fail(ld, -ENOTSUP, "%s: unknown field %s (written by a newer version?)",
			    desc->name, span_text(name, text, sizeof(text)));
	bit = 1ULL << (n % 64);
	if (seen[n / 64] & bit)
		return fail(ld, -EINVAL, "%s.%s: twice", desc->name, f->name);
	seen[n / 64] |= bit;
	type &= (uint8_t)~FIELD_SKIPPABLE;
	if (type != f->type)
		return fail(ld, -EINVAL, "%s.%s: type %u, expected %u", desc->name, f->name,
			    (unsigned)type, f->type);
	if (count != f->count)
		return fail(ld, -EINVAL, "%s.%s: %u elements, expected %u", desc->name, f->name,
			    (unsigned)count, f->count);
	return load_payload(ld, desc, f, object, payload);
}

static int check_missing(struct load *ld, const struct state_desc *desc, uint64_t version,
			 const uint64_t *seen)
{
	const struct field *f = desc->fields;

	for (unsigned n = 0; f->name && n < FIELD_MAX_PER_TABLE; f++, n++) {
		if (seen[n / 64] >> (n % 64) & 1)
			continue;
		if (!f->needed && f->since <= version)
			return fail(ld, -EINVAL, "%s.%s: missing", desc->name, f->name);
	}
	return 0;
}

static int load_state(struct load *ld, const struct state_desc *desc, uint8_t *object,
		      struct span *in)
{
	uint64_t seen[FIELD_MAX_PER_TABLE / 64] = {0};
	const char *why = NULL;
	uint64_t version, len;
	struct span name, body;
	char text[64];
	int ret;

	if (!span_cut_name(in, &name) || !span_get(in, 2, &version) || !span_get(in, 4, &len) ||
	    !span_cut(in, len, &body))
		return fail(ld, -EINVAL, "%s: the state is cut off", desc->name);
	if (!span_is(name, desc->name))
		return fail(ld, -EINVAL, "state of %s where that of %s is expected",
			    span_text(name, text, sizeof(text)), desc->name);
	while (body.left) {
		ret = load_field(ld, desc, object, &body, seen);
		if (ret)
			return ret;
	}
	ret = check_missing(ld, desc, version, seen);
	if (ret || !ld->apply || !desc->post_load)
		return ret;
	ret = desc->post_load(object, &why);
	if (ret)
		return fail(ld, ret, "%s: %s", desc->name, why ? why : "impossible state");
	return 0;
}

int64_t field_load(const struct state_desc *desc, void *object, const void *data, size_t len,
		   char *err, size_t err_len)
{
	struct load ld = {.err = err, .err_len = err_len};
	struct span in;
	int ret = 0;

	if (err && err_len)
		err[0] = 0;
	for (int pass = 0; pass < 2; pass++) {
		in = (struct span){data, len};
		ld.apply = pass == 1;
		ret = load_state(&ld, desc, object, &in);
		if (ret)
			return ret;
	}
	return (int64_t)(len - in.left);
}

/* ---- what needs no table ---- */

static int64_t peek_state(const uint8_t *data, size_t len, struct field_head *head, int depth);

static bool peek_field(struct span *body, int depth)
{
	uint64_t type, count, len;
	struct span name, payload;
	struct field_head sub;
	int64_t used;

	if (!span_cut_name(body, &name) || !span_get(body, 1, &type) ||
	    !span_get(body, 4, &count) || !span_get(body, 4, &len) ||
	    !span_cut(body, len, &payload))
		return false;
	type &= (uint8_t)~FIELD_SKIPPABLE;
	if (type < FIELD_U8 || type > FIELD_STRUCT)
		return false;
	if (type != FIELD_STRUCT)
		return len == count * elem_size((enum field_type)type);
	for (; count && payload.left; count--) {
		used = peek_state(payload.p, payload.left, &sub, depth + 1);
		if (used < 0)
			return false;
		payload.p += used;
		payload.left -= (size_t)used;
	}
	return !count && !payload.left;
}

static int64_t peek_state(const uint8_t *data, size_t len, struct field_head *head, int depth)
{
	struct span in = {data, len}, name, body;
	uint64_t version, size;

	*head = (struct field_head){.fields = 0};
	if (depth > FIELD_MAX_DEPTH || !span_cut_name(&in, &name) || !span_get(&in, 2, &version) ||
	    !span_get(&in, 4, &size) || !span_cut(&in, size, &body))
		return -EINVAL;
	span_text(name, head->name, sizeof(head->name));
	head->version = (uint16_t)version;
	for (; body.left; head->fields++)
		if (!peek_field(&body, depth))
			return -EINVAL;
	return (int64_t)(len - in.left);
}

int64_t field_peek(const void *data, size_t len, struct field_head *head)
{
	return peek_state(data, len, head, 0);
}

/* ---- printing and checking ---- */

static void print_state(const struct state_desc *desc, const char *prefix, const uint8_t *object,
			FILE *out)
{
	for (const struct field *f = desc->fields; f->name; f++) {
		const uint8_t *elem = object + f->offset;
		char sub[256];

		if (f->type == FIELD_STRUCT) {
			for (uint32_t i = 0; i < f->count; i++, elem += f->stride) {
				if (f->count == 1)
					snprintf(sub, sizeof(sub), "%s.%s", prefix, f->name);
				else
					snprintf(sub, sizeof(sub), "%s.%s[%" PRIu32 "]", prefix,
						 f->name, i);
				print_state(f->sub, sub, elem, out);
			}
			continue;
		}
		fprintf(out, "%s.%s =%s", prefix, f->name, f->type == FIELD_BYTES ? " " : "");
		for (uint32_t i = 0; i < f->count; i++, elem += f->stride) {
			uint64_t value = elem_get(f->type, elem);

			if (f->type == FIELD_BYTES)
				fprintf(out, "%02" PRIx64, value);
			else if (f->type == FIELD_BOOL)
				fprintf(out, " %s", value ? "true" : "false");
			else
				fprintf(out, " 0x%" PRIx64, value);
		}
		fputc('\n', out);
	}
}

void field_print(const struct state_desc *desc, const void *object, FILE *out)
{
	print_state(desc, desc->name, object, out);
}

static int check_field(struct load *ld, const struct state_desc *desc, const struct field *f)
{
	if (!f->name[0] || strlen(f->name) > 255)
		return fail(ld, -EINVAL, "%s: a field's name is empty or too long", desc->name);
	if (f->type < FIELD_U8 || f->type > FIELD_STRUCT)
		return fail(ld, -EINVAL, "%s.%s: no such type", desc->name, f->name);
	if (!f->count || (f->count > 1 && f->stride == 0) || elem_size(f->type) > f->stride)
		return fail(ld, -EINVAL, "%s.%s: elements larger than the stride", desc->name,
			    f->name);
	if (!f->since || f->since > desc->version)
		return fail(ld, -EINVAL, "%s.%s: since version %u of %u", desc->name, f->name,
			    f->since, desc->version);
	if ((f->type == FIELD_STRUCT) != (f->sub != NULL))
		return fail(ld, -EINVAL, "%s.%s: sub table and type disagree", desc->name, f->name);
	for (const struct field *g = desc->fields; g != f; g++)
		if (!strcmp(f->name, g->name))
			return fail(ld, -EINVAL, "%s.%s: the name is there twice", desc->name,
				    f->name);
	return 0;
}

/* limit: bytes of the object where known, else 0. */
static int check_state(struct load *ld, const struct state_desc *desc, uint64_t limit, int depth)
{
	unsigned n = 0;
	int ret;

	if (depth > FIELD_MAX_DEPTH)
		return fail(ld, -EINVAL, "%s: nested too deeply", desc->name);
	if (!desc->name || !desc->name[0] || strlen(desc->name) > 255 || !desc->version)
		return fail(ld, -EINVAL, "a table without name or version");
	for (const struct field *f = desc->fields; f->name; f++) {
		uint64_t size = f->type == FIELD_STRUCT ? f->stride : elem_size(f->type);

		if (++n >= FIELD_MAX_PER_TABLE)
			return fail(ld, -EINVAL, "%s: too many fields", desc->name);
		ret = check_field(ld, desc, f);
		if (ret)
			return ret;
		if (limit && f->offset + (f->count - 1) * (uint64_t)f->stride + size > limit)
			return fail(ld, -EINVAL, "%s.%s: ends outside of the object", desc->name,
				    f->name);
		if (f->sub) {
			ret = check_state(ld, f->sub, f->stride, depth + 1);
			if (ret)
				return ret;
		}
	}
	return 0;
}

int field_check(const struct state_desc *desc, char *err, size_t err_len)
{
	struct load ld = {.err = err, .err_len = err_len};

	return check_state(&ld, desc, 0, 0);
}
