/*
 * Numbers and pieces of encodings: little endian, unaligned, every length checked. What a reader
 * holds is a span; nothing reads behind its end.
 */
#ifndef MIGRATION_BYTES_H
#define MIGRATION_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
	const uint8_t *p;
	size_t left;
};

static inline void put_le(uint8_t *p, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t get_le(const uint8_t *p, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

/* The next number of up to 8 bytes; false: there are not as many (nothing is taken then). */
static inline bool span_get(struct span *s, unsigned bytes, uint64_t *value)
{
	*value = 0;
	if (s->left < bytes)
		return false;
	*value = get_le(s->p, bytes);
	s->p += bytes;
	s->left -= bytes;
	return true;
}

static inline bool span_cut(struct span *s, uint64_t len, struct span *out)
{
	if (s->left < len)
		return false;
	*out = (struct span){s->p, (size_t)len};
	s->p += len;
	s->left -= (size_t)len;
	return true;
}

/* A name is a length of one byte, then the text. */
static inline bool span_cut_name(struct span *s, struct span *name)
{
	uint64_t len;

	return span_get(s, 1, &len) && span_cut(s, len, name);
}

static inline bool span_is(struct span s, const char *expected)
{
	return strlen(expected) == s.left && !memcmp(expected, s.p, s.left);
}

/* For messages: at most size - 1 characters, and only printable ones. Returns text. */
static inline const char *span_text(struct span s, char *text, size_t size)
{
	size_t n = s.left < size - 1 ? s.left : size - 1;

	for (size_t i = 0; i < n; i++)
		text[i] = (char)(s.p[i] > 32 && s.p[i] < 127 ? s.p[i] : '?');
	text[n] = 0;
	return text;
}

#endif
