#include "vmm/boot/place.h"

#include <errno.h>
#include <inttypes.h>

#include "vmm/boot/layout.h"

#define MIB(n) (((n) + (1u << 20) - 1) >> 20) /* rounded up */

static bool overlap(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
	return a < b_end && b < a_end;
}

static bool is_ram(const struct boot_board *board, uint64_t start, uint64_t end)
{
	const struct boot_e820 *e;
	unsigned i;

	for (i = 0; i < board->e820_count; i++) {
		e = &board->e820[i];
		if (e->type == BOOT_E820_RAM && start >= e->addr && start - e->addr <= e->size &&
		    end - start <= e->size - (start - e->addr))
			return true;
	}
	return false;
}

int place_check(struct boot_job *job, uint64_t start, uint64_t len, const char *what,
		struct error *err)
{
	uint64_t end;

	if (__builtin_add_overflow(start, len, &end))
		return error_set(err, -EINVAL,
				 "%s wants to lie at %#" PRIx64 ", which no machine has", what,
				 start);
	if (!is_ram(job->board, start, end)) {
		/* Below the hole for devices more memory helps; elsewhere nothing does. */
		if (start >= 1u << 20 && end > job->mem->low && end <= 3ull << 30)
			return error_set(err, -ENOMEM,
					 "%s needs at least %" PRIu64
					 " MiB of memory, this guest has "
					 "%" PRIu64 " MiB: give it more with --memory",
					 what, MIB(end), job->mem->size >> 20);
		return error_set(err, -EINVAL,
				 "%s wants to lie at %#" PRIx64 " to %#" PRIx64
				 ", where this machine has no memory",
				 what, start, end);
	}
	if (overlap(start, end, BOOT_LOW_START, BOOT_LOW_END))
		return error_set(err, -EINVAL,
				 "%s wants to lie at %#" PRIx64
				 ", which the loader needs (%#x to %#x)",
				 what, start, BOOT_LOW_START, BOOT_LOW_END);
	if (!job->kernel_end || start < job->kernel_start)
		job->kernel_start = start;
	if (end > job->kernel_end)
		job->kernel_end = end;
	return 0;
}

int place_put(struct boot_job *job, uint64_t gpa, const void *data, size_t len, struct error *err)
{
	int ret = len ? memory_write(job->mem, job->mem->vmm, gpa, data, len) : 0;

	if (ret)
		return error_set(err, ret, "boot: cannot write guest memory at %#" PRIx64, gpa);
	return 0;
}

int place_zero(struct boot_job *job, uint64_t gpa, size_t len, struct error *err)
{
	int ret = len ? memory_set(job->mem, job->mem->vmm, gpa, 0, len) : 0;

	if (ret)
		return error_set(err, ret, "boot: cannot write guest memory at %#" PRIx64, gpa);
	return 0;
}

/* Nothing of the file is needed once a segment is placed: they come in the order of the file and
 * share no byte of it, as linkers write them, and the program headers lie before them. */
static bool read_once(const struct elf *elf)
{
	const size_t entry = elf->is64 ? 56 : 32; /* of the program headers */
	const uint8_t *end = elf->file.data + elf->phoff + elf->phnum * entry;
	struct elf_segment seg;
	unsigned i;

	for (i = 0; i < elf->phnum; i++) {
		elf_segment(elf, i, &seg);
		if (seg.type != ELF_PT_LOAD || !seg.filesz)
			continue;
		if (seg.data < end)
			return false;
		end = seg.data + seg.filesz;
	}
	return true;
}

/* The pages that the unpacked kernel took up become the guest's, one after the other: half the
 * memory, and memory that the host still has at hand. */
static int put_segment(struct boot_job *job, const struct elf_segment *seg, bool release,
		       struct error *err)
{
	uint64_t pos = 0, n;
	int ret = 0;

	for (; pos < seg->filesz && !ret; pos += n) {
		n = SINK_PAGE - (uintptr_t)(seg->data + pos) % SINK_PAGE;
		if (n > seg->filesz - pos)
			n = seg->filesz - pos;
		ret = place_put(job, seg->paddr + pos, seg->data + pos, n, err);
		if (!ret && release && n == SINK_PAGE)
			sink_release(&job->img->plain, seg->data + pos, n);
	}
	return ret;
}

int place_elf(struct boot_job *job, const struct elf *elf, struct error *err)
{
	const bool release = read_once(elf);
	struct elf_segment seg;
	unsigned i;
	int ret;

	/* All checks first: a kernel that does not fit has written nothing. */
	for (i = 0; i < elf->phnum; i++) {
		elf_segment(elf, i, &seg);
		if (seg.type != ELF_PT_LOAD || !seg.memsz)
			continue;
		ret = place_check(job, seg.paddr, seg.memsz, "the kernel", err);
		if (ret)
			return ret;
	}
	if (!job->kernel_end)
		return error_set(err, -EBADMSG, "the kernel is an ELF with nothing to load");
	for (i = 0; i < elf->phnum; i++) {
		elf_segment(elf, i, &seg);
		if (seg.type != ELF_PT_LOAD || !seg.memsz)
			continue;
		ret = put_segment(job, &seg, release, err);
		if (!ret)
			ret = place_zero(job, seg.paddr + seg.filesz, seg.memsz - seg.filesz, err);
		if (ret)
			return ret;
	}
	return 0;
}

/* The highest page-aligned place for len bytes in RAM range e below max, or 0. The kernel's range
 * splits it in two. */
static uint64_t highest(const struct boot_job *job, const struct boot_e820 *e, uint64_t len,
			uint64_t max)
{
	uint64_t top = e->addr + e->size, at;

	if (top > max)
		top = max;
	if (top < len)
		return 0;
	at = (top - len) & ~0xfffull;
	if (overlap(at, at + len, job->kernel_start, job->kernel_end)) {
		if (job->kernel_start < len)
			return 0;
		at = (job->kernel_start - len) & ~0xfffull;
	}
	return at >= e->addr && at >= 1u << 20 ? at : 0;
}

int place_initrd(struct boot_job *job, uint64_t max, struct error *err)
{
	const struct blob initrd = job->img->part[PART_INITRD];
	uint64_t at = 0, here, need, above = job->kernel_end;
	unsigned i;

	if (!initrd.len)
		return 0;
	max = max < UINT32_MAX ? max + 1 : 1ull << 32;
	for (i = 0; i < job->board->e820_count; i++) {
		if (job->board->e820[i].type != BOOT_E820_RAM ||
		    job->board->e820[i].addr + job->board->e820[i].size < job->board->e820[i].addr)
			continue;
		here = highest(job, &job->board->e820[i], initrd.len, max);
		if (here > at)
			at = here;
	}
	if (!at) {
		need = ((above + 0xfff) & ~0xfffull) + initrd.len;
		if (need > max)
			return error_set(
				err, -EFBIG,
				"the initrd (%zu MiB) is too large: this kernel takes it below "
				"%" PRIu64 " MiB only",
				MIB(initrd.len), max >> 20);
		return error_set(
			err, -ENOMEM,
			"the initrd (%zu MiB) does not fit beside the kernel (ends at %" PRIu64
			" MiB) into %" PRIu64 " MiB of memory: give the guest at least "
			"--memory %" PRIu64 "M",
			MIB(initrd.len), MIB(above), job->mem->size >> 20, MIB(need) + 1);
	}
	job->initrd = at;
	job->initrd_len = initrd.len;
	return place_put(job, at, initrd.data, initrd.len, err);
}

int place_cmdline(struct boot_job *job, struct blob prefix, struct error *err)
{
	const struct blob line = job->img->part[PART_CMDLINE];
	int ret;

	if (prefix.len >= BOOT_CMDLINE_SIZE || line.len >= BOOT_CMDLINE_SIZE - prefix.len)
		return error_set(err, -E2BIG, "the kernel command line is longer than %u bytes",
				 BOOT_CMDLINE_SIZE - 1);
	ret = place_put(job, BOOT_CMDLINE, prefix.data, prefix.len, err);
	if (!ret)
		ret = place_put(job, BOOT_CMDLINE + prefix.len, line.data, line.len, err);
	if (!ret)
		ret = place_put(job, BOOT_CMDLINE + prefix.len + line.len, "", 1, err);
	return ret;
}
