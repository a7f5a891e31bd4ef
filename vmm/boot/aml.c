#include "vmm/boot/aml.h"

#include <stdlib.h>
#include <string.h>

#include "vmm/boot/bytes.h"

enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_EXT = 0x5b,
	OP_ARG0 = 0x68,
	OP_EXT_DEVICE = 0x82,
	OP_RETURN = 0xa4,
};
enum {
	RES_IRQ = 0x22,
	RES_IO = 0x47,
	RES_END = 0x79,
	RES_MEMORY32 = 0x86,
	RES_DWORD = 0x87,
	RES_WORD = 0x88,
	RES_QWORD = 0x8a,
};

void aml_free(struct aml *a)
{
	free(a->data);
	*a = (struct aml){0};
}

/* Room for n more bytes: where they go, or NULL. */
static uint8_t *grow(struct aml *a, size_t n)
{
	size_t cap = a->cap ? a->cap : 1024;
	uint8_t *p;

	if (a->bad)
		return NULL;
	while (cap - a->len < n)
		cap *= 2;
	if (cap != a->cap) {
		p = realloc(a->data, cap);
		if (!p) {
			a->bad = true;
			return NULL;
		}
		a->data = p;
		a->cap = cap;
	}
	p = a->data + a->len;
	a->len += n;
	return p;
}

static void put(struct aml *a, const void *data, size_t n)
{
	uint8_t *p = grow(a, n);

	if (p)
		memcpy(p, data, n);
}

static void put_byte(struct aml *a, unsigned byte)
{
	uint8_t b = (uint8_t)byte;

	put(a, &b, 1);
}

/* NameString (20.2.2) of one segment. */
static void put_name(struct aml *a, const char *name)
{
	char seg[4] = {'_', '_', '_', '_'};
	size_t n, i;

	if (*name == '\\')
		put_byte(a, (unsigned char)*name++);
	n = strlen(name);
	if (n == 0 || n > 4 || (*name >= '0' && *name <= '9'))
		a->bad = true;
	for (i = 0; i < n && i < 4; i++) {
		seg[i] = name[i];
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", name[i]))
			a->bad = true;
	}
	put(a, seg, 4);
}

/* PkgLength (20.2.4) counts itself, and its width depends on its value: the body is written first
 * and moved. */
void aml_end(struct aml *a, size_t mark)
{
	size_t body = a->len - mark, width, total;
	uint8_t *p;

	if (a->bad)
		return;
	width = body + 1 < 0x40 ? 1 : body + 2 < 0x1000 ? 2 : body + 3 < 0x100000 ? 3 : 4;
	total = body + width;
	if (total >= 1ul << 28 || !grow(a, width)) {
		a->bad = true;
		return;
	}
	p = a->data + mark;
	memmove(p + width, p, body);
	if (width == 1) {
		p[0] = (uint8_t)total;
		return;
	}
	p[0] = (uint8_t)((width - 1) << 6 | (total & 0xf));
	for (total >>= 4; --width; total >>= 8)
		*++p = (uint8_t)total;
}

size_t aml_scope(struct aml *a, const char *name)
{
	size_t mark;

	put_byte(a, OP_SCOPE);
	mark = a->len;
	put_name(a, name);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t mark;

	put_byte(a, OP_EXT);
	put_byte(a, OP_EXT_DEVICE);
	mark = a->len;
	put_name(a, name);
	return mark;
}

size_t aml_package(struct aml *a, uint8_t elements)
{
	size_t mark;

	put_byte(a, OP_PACKAGE);
	mark = a->len;
	put_byte(a, elements);
	return mark;
}

void aml_method_echo(struct aml *a, const char *name, uint8_t args, uint8_t arg)
{
	size_t mark;

	put_byte(a, OP_METHOD);
	mark = a->len;
	put_name(a, name);
	put_byte(a, args);
	put_byte(a, OP_RETURN);
	put_byte(a, OP_ARG0 + arg);
	aml_end(a, mark);
}

void aml_name(struct aml *a, const char *name)
{
	put_byte(a, OP_NAME);
	put_name(a, name);
}

void aml_int(struct aml *a, uint64_t value)
{
	uint8_t raw[9];

	put_le64(raw + 1, value);
	if (value <= 1) {
		put_byte(a, value ? OP_ONE : OP_ZERO);
	} else if (value <= UINT8_MAX) {
		raw[0] = OP_BYTE;
		put(a, raw, 2);
	} else if (value <= UINT16_MAX) {
		raw[0] = OP_WORD;
		put(a, raw, 3);
	} else if (value <= UINT32_MAX) {
		raw[0] = OP_DWORD;
		put(a, raw, 5);
	} else {
		raw[0] = OP_QWORD;
		put(a, raw, 9);
	}
}

void aml_string(struct aml *a, const char *text)
{
	put_byte(a, OP_STRING);
	put(a, text, strlen(text) + 1);
}

static unsigned hex_digit(struct aml *a, char c)
{
	static const char digits[] = "0123456789ABCDEF";
	const char *p = c ? strchr(digits, c) : NULL;

	if (!p)
		a->bad = true;
	return p ? (unsigned)(p - digits) : 0;
}

void aml_eisaid(struct aml *a, const char *id)
{
	uint8_t raw[5] = {OP_DWORD};
	unsigned letters = 0, i;

	if (strlen(id) != 7) {
		a->bad = true;
		return;
	}
	for (i = 0; i < 3; i++) /* five bits each, A = 1 */
		letters = letters << 5 | ((unsigned)(id[i] - '@') & 0x1f);
	raw[1] = (uint8_t)(letters >> 8);
	raw[2] = (uint8_t)letters;
	raw[3] = (uint8_t)(hex_digit(a, id[3]) << 4 | hex_digit(a, id[4]));
	raw[4] = (uint8_t)(hex_digit(a, id[5]) << 4 | hex_digit(a, id[6]));
	put(a, raw, sizeof(raw));
}

/* BufferOp PkgLength BufferSize bytes: the size is an integer of the width that it needs, and moves
 * the bytes, too. */
size_t aml_resources(struct aml *a)
{
	put_byte(a, OP_BUFFER);
	return a->len;
}

void aml_resources_end(struct aml *a, size_t mark)
{
	const uint8_t end[2] = {RES_END, 0}; /* checksum 0: "not computed, and right" */
	uint8_t head[3] = {OP_BYTE};
	size_t body, width;

	put(a, end, sizeof(end));
	body = a->len - mark;
	width = body <= UINT8_MAX ? 2 : 3;
	if (body > UINT16_MAX || !grow(a, width)) {
		a->bad = true;
		return;
	}
	put_le16(head + 1, (uint16_t)body);
	if (width == 3)
		head[0] = OP_WORD;
	memmove(a->data + mark + width, a->data + mark, body);
	memcpy(a->data + mark, head, width);
	aml_end(a, mark);
}

void aml_io(struct aml *a, uint16_t base, uint8_t len)
{
	uint8_t d[8] = {RES_IO, 1 /* decodes 16 bits */};

	put_le16(d + 2, base);
	put_le16(d + 4, base);
	d[6] = 1;
	d[7] = len;
	put(a, d, sizeof(d));
}

/* 6.4.2.1: without the flags byte an IRQ is edge, active high, exclusive. */
void aml_irq(struct aml *a, uint8_t irq, bool shared)
{
	uint8_t d[4] = {(uint8_t)(RES_IRQ + shared), 0, 0, 0x11 /* shared, edge */};

	if (irq > 15)
		a->bad = true;
	put_le16(d + 1, (uint16_t)(1u << (irq & 15)));
	put(a, d, shared ? 4 : 3);
}

void aml_memory32(struct aml *a, uint32_t base, uint32_t len)
{
	uint8_t d[12] = {RES_MEMORY32, 9, 0, 1 /* writable */};

	put_le32(d + 4, base);
	put_le32(d + 8, len);
	put(a, d, sizeof(d));
}

/* 6.4.3.5: an address space descriptor; five numbers of `width` bytes: granularity, first, last,
 * translation, length. */
static void range(struct aml *a, uint8_t tag, unsigned width, uint8_t type, uint8_t type_flags,
		  uint64_t first, uint64_t last)
{
	const uint64_t numbers[5] = {0, first, last, 0, last - first + 1};
	uint8_t d[6 + 5 * 8] = {tag, 0, 0, type, 0x0c /* first and last are fixed */, type_flags};

	put_le16(d + 1, (uint16_t)(3 + 5 * width));
	for (unsigned i = 0; i < 5; i++)
		for (unsigned k = 0; k < width; k++)
			d[6 + i * width + k] = (uint8_t)(numbers[i] >> 8 * k);
	put(a, d, 6 + 5 * width);
}

void aml_bus_range(struct aml *a, uint16_t first, uint16_t last)
{
	range(a, RES_WORD, 2, 2, 0, first, last);
}

void aml_io_range(struct aml *a, uint16_t first, uint16_t last)
{
	range(a, RES_WORD, 2, 1, 3 /* the entire range */, first, last);
}

void aml_memory32_range(struct aml *a, uint32_t base, uint32_t len)
{
	range(a, RES_DWORD, 4, 0, 1 /* read-write, not cacheable */, base, base + (len - 1));
}

void aml_memory64_range(struct aml *a, uint64_t base, uint64_t len)
{
	range(a, RES_QWORD, 8, 0, 1, base, base + (len - 1));
}
