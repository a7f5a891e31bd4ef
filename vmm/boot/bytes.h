/*
 * Little-endian fields of structures that a guest or a file defines, at any alignment. Own helpers
 * instead of packed structs: these files are built on big machines of other architectures, too.
 */
#ifndef VMM_BOOT_BYTES_H
#define VMM_BOOT_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* A piece of memory that is not owned. */
struct blob {
	const uint8_t *data;
	size_t len;
};

static inline uint16_t get_le16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t get_le32(const void *p)
{
	const uint8_t *b = p;

	return get_le16(b) | (uint32_t)get_le16(b + 2) << 16;
}

static inline uint64_t get_le64(const void *p)
{
	const uint8_t *b = p;

	return get_le32(b) | (uint64_t)get_le32(b + 4) << 32;
}

static inline void put_le16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
}

static inline void put_le32(void *p, uint32_t v)
{
	uint8_t *b = p;

	put_le16(b, (uint16_t)v);
	put_le16(b + 2, (uint16_t)(v >> 16));
}

static inline void put_le64(void *p, uint64_t v)
{
	uint8_t *b = p;

	put_le32(b, (uint32_t)v);
	put_le32(b + 4, (uint32_t)(v >> 32));
}

/* A field of n characters; no NUL follows. text is at least that long. */
static inline void put_chars(void *p, const char *text, size_t n)
{
	uint8_t *b = p;

	while (n--)
		*b++ = (uint8_t)*text++;
}

#endif
