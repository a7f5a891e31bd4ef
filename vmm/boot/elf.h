/*
 * Reading ELF executables (System V ABI, chapters 4 and 5), 32 and 64 bits, little endian, of this
 * board's architecture. The file is hostile: elf_open checks the headers, and no accessor reads
 * outside.
 */
#ifndef VMM_BOOT_ELF_H
#define VMM_BOOT_ELF_H

#include <stdbool.h>

#include "vmm/boot/bytes.h"
#include "vmm/error.h"

struct elf {
	struct blob file;
	bool is64;
	uint16_t machine;
	uint64_t entry, phoff;
	unsigned phnum;
};

enum { ELF_PT_LOAD = 1, ELF_PT_NOTE = 4 };
enum { ELF_EM_386 = 3, ELF_EM_X86_64 = 62 };

struct elf_segment {
	uint32_t type;
	uint64_t vaddr, paddr, filesz, memsz, align;
	const uint8_t *data; /* filesz bytes */
};

bool elf_is(struct blob file);
/* "arm64", "ppc64"...; "an unknown machine" for what it does not know. Needs elf_is. */
const char *elf_machine_name(struct blob file);
/* Checks the headers and every segment's place in the file. 0, -ENOEXEC (not for x86), -EBADMSG
 * (truncated or damaged). */
int elf_open(struct elf *elf, struct blob file, struct error *err);
/* i < phnum */
void elf_segment(const struct elf *elf, unsigned i, struct elf_segment *seg);

/* The entry as a physical address: vmlinux names one, other linkers a virtual one. -ENOENT: it lies
 * in no loaded segment's data. */
int elf_physical_entry(const struct elf *elf, uint64_t *entry);

/* Calls fn for each note; stops when it returns true. */
bool elf_notes(const struct elf *elf,
	       bool (*fn)(void *arg, struct blob name, uint32_t type, struct blob desc), void *arg);

#endif
