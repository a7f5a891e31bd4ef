/*
 * For the tests of vmm/boot: a guest memory that is only an array, and a checker.
 *
 * The loaders reach guest memory through three functions; these stand in for vmm/memory.c, so that
 * the tests see exactly what was written and need no MMU.
 */
#ifndef TESTS_UNIT_TEST_BOOT_UTIL_H
#define TESTS_UNIT_TEST_BOOT_UTIL_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/boot/boot.h"
#include "vmm/boot/bytes.h"
#include "vmm/boot/layout.h"

static int failures;

#define CHECK(cond, ...)                                                                           \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			printf("%s:%d: %s: ", __FILE__, __LINE__, #cond);                          \
			printf(__VA_ARGS__);                                                       \
			printf("\n");                                                              \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

int memory_write(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, const void *buf,
		 size_t len)
{
	(void)t;
	if (gpa > mem->low || len > mem->low - gpa)
		return -EFAULT;
	if (len)
		memcpy(mem->host + gpa, buf, len);
	return 0;
}

int memory_set(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, uint8_t byte,
	       size_t len)
{
	(void)t;
	if (gpa > mem->low || len > mem->low - gpa)
		return -EFAULT;
	memset(mem->host + gpa, byte, len);
	return 0;
}

/* A machine of `mib` MiB, all of it below the hole, filled with a pattern as after a reset. */
struct machine {
	struct guest_memory mem;
	struct boot_e820 e820[4];
	struct boot_board board;
	struct x86_state cpu;
};

static inline void machine_init(struct machine *m, uint64_t mib)
{
	memset(m, 0, sizeof(*m));
	m->mem.size = m->mem.low = mib << 20;
	m->mem.host = mmap(NULL, m->mem.size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->mem.host == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	m->e820[0] = (struct boot_e820){0, 0x9fc00, BOOT_E820_RAM};
	m->e820[1] = (struct boot_e820){0x9fc00, 0x100000 - 0x9fc00, BOOT_E820_RESERVED};
	m->e820[2] = (struct boot_e820){0x100000, m->mem.low - 0x100000, BOOT_E820_RAM};
	m->board = (struct boot_board){m->e820, 3, BOOT_ACPI};
	m->cpu.cr0 = 0x60000010; /* caches off, as after power-on */
	m->cpu.rip = 0xfff0;
}

static inline void machine_free(struct machine *m)
{
	munmap(m->mem.host, m->mem.size);
}

/* Writes a file of its own and names it; removed by file_remove. */
static inline char *file_make(const void *data, size_t len)
{
	char *path = strdup("/tmp/ferry-boot-XXXXXX");
	int fd = path ? mkstemp(path) : -1;

	if (fd < 0 || write(fd, data, len) != (ssize_t)len) {
		perror("file_make");
		exit(1);
	}
	close(fd);
	return path;
}

static inline void file_remove(char *path)
{
	if (path)
		unlink(path);
	free(path);
}

static inline int test_end(void)
{
	if (failures)
		printf("%d checks failed\n", failures);
	return failures ? 1 : 0;
}

#endif
