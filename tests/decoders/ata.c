/*
 * Bochs loads no image above its blocks of 128 KiB in one piece, so the image comes from a disk:
 * the list, padded to LIST_SECTORS, then the tables. ATA, programmed input, 28-bit addresses.
 */
#include "tests/decoders/x86.h"

enum { LIST_SECTORS = 2048, TABLES_AT = 0x08000000, BASE = 0x1f0 };

static void out8(uint16_t port, uint32_t value)
{
	asm volatile("outb %0, %1" ::"a"((uint8_t)value), "Nd"(port));
}

static bool data_ready(void)
{
	uint8_t status;

	for (int i = 0; i < 1000000; i++) {
		asm volatile("inb %1, %0" : "=a"(status) : "Nd"((uint16_t)(BASE + 7)));
		if (status & 1)
			return false; /* error */
		if (!(status & 0x80) && status & 8)
			return true;
	}
	return false;
}

static bool command(uint8_t what, uint32_t sector, void *to)
{
	uint32_t words = 256;

	out8(BASE + 6, 0xe0 | sector >> 24);
	out8(BASE + 2, 1);
	out8(BASE + 3, sector);
	out8(BASE + 4, sector >> 8);
	out8(BASE + 5, sector >> 16);
	out8(BASE + 7, what);
	if (!data_ready())
		return false;
	asm volatile("rep insw" : "+D"(to), "+c"(words) : "d"((uint16_t)BASE) : "memory");
	return true;
}

bool x86_load(const char **why)
{
	uint16_t identity[256];
	uint32_t sectors;

	*why = "no disk";
	if (!command(0xec, 0, identity))
		return false;
	*why = "the disk cannot be read";
	sectors = identity[60] | (uint32_t)identity[61] << 16;
	for (uint32_t i = 0; i < sectors; i++) {
		char *to = i < LIST_SECTORS ? (char *)IMAGE_AT + 512 * i
					    : (char *)TABLES_AT + 512 * (i - LIST_SECTORS);

		if (!command(0x20, i, to))
			return false;
	}
	return true;
}
