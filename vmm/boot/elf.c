#include "vmm/boot/elf.h"

#include <errno.h>
#include <string.h>

enum { EI_CLASS = 4, EI_DATA = 5, ET_EXEC = 2, ET_DYN = 3 };

bool elf_is(struct blob file)
{
	return file.len >= 20 && !memcmp(file.data, "\177ELF", 4);
}

static uint16_t machine(struct blob file)
{
	const uint8_t *p = file.data + 18;

	if (file.data[EI_DATA] == 2)
		return (uint16_t)(p[0] << 8 | p[1]);
	return get_le16(p);
}

const char *elf_machine_name(struct blob file)
{
	bool is64 = file.data[EI_CLASS] == 2;

	switch (machine(file)) {
	case ELF_EM_386: return "i386";
	case ELF_EM_X86_64: return is64 ? "x86-64" : "x32";
	case 8: return "mips";
	case 20: return "ppc";
	case 21: return "ppc64";
	case 22: return "s390x";
	case 40: return "arm";
	case 43: return "sparc64";
	case 183: return "arm64";
	case 243: return is64 ? "riscv64" : "riscv32";
	case 247: return "bpf";
	case 258: return "loongarch64";
	default: return "an unknown machine";
	}
}

static uint64_t word(const struct elf *elf, const uint8_t *p)
{
	return elf->is64 ? get_le64(p) : get_le32(p);
}

void elf_segment(const struct elf *elf, unsigned i, struct elf_segment *seg)
{
	const uint8_t *p = elf->file.data + elf->phoff + (size_t)i * (elf->is64 ? 56 : 32);
	const size_t w = elf->is64 ? 8 : 4;
	const uint8_t *q = p + w; /* p_type is followed by p_flags in 64-bit files only */

	seg->type = get_le32(p);
	seg->data = elf->file.data + word(elf, q);
	seg->vaddr = word(elf, q + w);
	seg->paddr = word(elf, q + 2 * w);
	seg->filesz = word(elf, q + 3 * w);
	seg->memsz = word(elf, q + 4 * w);
	seg->align = elf->is64 ? get_le64(p + 48) : get_le32(p + 28);
}

static int check_segment(const struct elf *elf, unsigned i, struct error *err)
{
	const uint8_t *p = elf->file.data + elf->phoff + (size_t)i * (elf->is64 ? 56 : 32);
	uint64_t off = word(elf, p + (elf->is64 ? 8 : 4));
	uint64_t filesz = word(elf, p + (elf->is64 ? 32 : 16));
	uint64_t memsz = word(elf, p + (elf->is64 ? 40 : 20));

	if (off > elf->file.len || filesz > elf->file.len - off)
		return error_set(err, -EBADMSG, "is truncated: segment %u ends behind the file", i);
	if (get_le32(p) == ELF_PT_LOAD && filesz > memsz)
		return error_set(err, -EBADMSG, "is damaged: segment %u has more data than room",
				 i);
	return 0;
}

int elf_open(struct elf *elf, struct blob file, struct error *err)
{
	const uint8_t *p = file.data;
	size_t header, entsize;
	uint16_t type;
	unsigned i;
	int ret;

	if (!elf_is(file))
		return error_set(err, -ENOEXEC, "is no ELF file");
	if (machine(file) != ELF_EM_386 && machine(file) != ELF_EM_X86_64)
		return error_set(err, -ENOEXEC, "is an ELF for %s, this machine is x86-64",
				 elf_machine_name(file));
	*elf = (struct elf){.file = file, .is64 = p[EI_CLASS] == 2, .machine = machine(file)};
	header = elf->is64 ? 64 : 52;
	if ((p[EI_CLASS] != 1 && p[EI_CLASS] != 2) || p[EI_DATA] != 1)
		return error_set(err, -EBADMSG, "is damaged: neither a 32-bit nor a 64-bit ELF");
	if (file.len < header)
		return error_set(err, -EBADMSG, "is truncated: %zu bytes of an ELF", file.len);
	type = get_le16(p + 16);
	if (type != ET_EXEC && type != ET_DYN)
		return error_set(err, -ENOEXEC, "is an ELF, but no executable (type %u)", type);
	elf->entry = word(elf, p + 24);
	elf->phoff = elf->is64 ? get_le64(p + 32) : get_le32(p + 28);
	entsize = get_le16(p + (elf->is64 ? 54 : 42));
	elf->phnum = get_le16(p + (elf->is64 ? 56 : 44));
	if (elf->phnum && entsize != (elf->is64 ? 56 : 32))
		return error_set(err, -EBADMSG, "is damaged: program headers of %zu bytes",
				 entsize);
	if (elf->phoff > file.len || elf->phnum * entsize > file.len - elf->phoff)
		return error_set(err, -EBADMSG, "is truncated: program headers behind its end");
	for (i = 0; i < elf->phnum; i++) {
		ret = check_segment(elf, i, err);
		if (ret)
			return ret;
	}
	return 0;
}

int elf_physical_entry(const struct elf *elf, uint64_t *entry)
{
	struct elf_segment seg;
	unsigned i, pass;
	uint64_t base;

	for (pass = 0; pass < 2; pass++) {
		for (i = 0; i < elf->phnum; i++) {
			elf_segment(elf, i, &seg);
			base = pass ? seg.vaddr : seg.paddr;
			if (seg.type != ELF_PT_LOAD || elf->entry < base ||
			    elf->entry - base >= seg.filesz)
				continue;
			*entry = elf->entry - base + seg.paddr;
			return 0;
		}
	}
	return -ENOENT;
}

static bool segment_notes(const struct elf_segment *seg,
			  bool (*fn)(void *, struct blob, uint32_t, struct blob), void *arg)
{
	const uint64_t mask = seg->align == 8 ? 7 : 3;
	uint64_t pos = 0, name, desc, end;
	uint32_t namesz, descsz;
	const uint8_t *p = seg->data;

	while (seg->filesz - pos >= 12) {
		namesz = get_le32(p + pos);
		descsz = get_le32(p + pos + 4);
		name = pos + 12;
		desc = (name + namesz + mask) & ~mask; /* 64 bits: no overflow from 32 */
		end = desc + descsz;
		if (end > seg->filesz)
			return false;
		if (fn(arg, (struct blob){p + name, namesz}, get_le32(p + pos + 8),
		       (struct blob){p + desc, descsz}))
			return true;
		pos = (end + mask) & ~mask;
		if (pos > seg->filesz)
			return false;
	}
	return false;
}

bool elf_notes(const struct elf *elf,
	       bool (*fn)(void *arg, struct blob name, uint32_t type, struct blob desc), void *arg)
{
	struct elf_segment seg;
	unsigned i;

	for (i = 0; i < elf->phnum; i++) {
		elf_segment(elf, i, &seg);
		if (seg.type == ELF_PT_NOTE && segment_notes(&seg, fn, arg))
			return true;
	}
	return false;
}
