/* PVH: the note, the start info with its lists, flat protected mode. */
#include "tests/unit/test_boot_images.h"

static struct machine m;
static struct error err;

static void check_start(const struct machine *mach, uint32_t entry, const char *cmdline)
{
	const uint8_t *host = mach->mem.host, *info = host + mach->cpu.gpr[RBX], *map;
	unsigned i;

	CHECK(mach->cpu.rip == entry, "rip %#lx", mach->cpu.rip);
	CHECK(mach->cpu.cr0 == 0x11 && !mach->cpu.cr4 && !mach->cpu.efer, "not flat");
	CHECK(mach->cpu.rflags == 2, "rflags %#lx", mach->cpu.rflags);
	CHECK(mach->cpu.seg[SEG_CS].attr == 0xc09b && mach->cpu.seg[SEG_CS].limit == 0xffffffff,
	      "cs");
	CHECK(mach->cpu.seg[SEG_TR].limit == 0x67 && mach->cpu.seg[SEG_TR].attr == 0x8b, "tr");
	CHECK(mach->cpu.gpr[RBX] == BOOT_INFO && get_le32(info) == 0x336ec578, "start info");
	CHECK(get_le32(info + 4) == 1 && get_le64(info + 32) == BOOT_ACPI, "version, rsdp");
	CHECK(!strcmp((const char *)host + get_le64(info + 24), cmdline), "command line");
	CHECK(get_le32(info + 48) == 3, "memory map of %u", get_le32(info + 48));
	for (i = 0; i < 3; i++) {
		map = host + get_le64(info + 40) + i * 24;
		CHECK(get_le64(map) == mach->e820[i].addr &&
			      get_le64(map + 8) == mach->e820[i].size &&
			      get_le32(map + 16) == mach->e820[i].type,
		      "range %u", i);
	}
}

static void try_elf(bool is32, bool multiboot)
{
	struct bytes elf = make_elf((struct elf_spec){.is32 = is32,
						      .paddr = 0x200000,
						      .entry = 0x200010,
						      .pvh = 0x200080,
						      .multiboot = multiboot});
	struct boot_image *img = NULL;
	int ret = open_bytes(&img, elf, "a=b", &err);

	CHECK(!ret, "%s", err.text);
	if (!ret) {
		machine_init(&m, 16);
		ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(!ret, "%s", err.text);
		CHECK(code_loaded(&m, 0x200000, 12), "code");
		check_start(&m, 0x200080, "a=b");
		CHECK(get_le32(m.mem.host + BOOT_INFO + 12) == 0, "modules");
		machine_free(&m);
		boot_close(img);
	}
	bytes_free(&elf);
}

static void with_initrd(void)
{
	struct bytes elf = make_elf((struct elf_spec){.pvh = 0x1000080});
	char *kernel = file_make(elf.data, elf.len), *initrd = file_make("0123456789", 10);
	struct boot_request req = {kernel, initrd, NULL};
	struct boot_image *img = NULL;
	const uint8_t *mod;
	int ret = boot_open(&img, &req, &err);

	CHECK(!ret, "%s", err.text);
	if (!ret) {
		machine_init(&m, 32);
		ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(!ret, "%s", err.text);
		check_start(&m, 0x1000080, "");
		CHECK(get_le32(m.mem.host + BOOT_INFO + 12) == 1, "modules");
		mod = m.mem.host + get_le64(m.mem.host + BOOT_INFO + 16);
		CHECK(get_le64(mod) == (32 << 20) - 4096 && get_le64(mod + 8) == 10, "module");
		CHECK(!memcmp(m.mem.host + get_le64(mod), "0123456789", 10), "initrd");
		machine_free(&m);
		boot_close(img);
	}
	file_remove(kernel);
	file_remove(initrd);
	bytes_free(&elf);
}

/* Where it may not lie, and an entry that is nowhere. */
static void refusals(void)
{
	static const struct {
		uint64_t paddr;
		uint32_t entry;
		int ret;
		const char *text;
	} cases[] = {
		{0x8000, 0x8010, -EINVAL, "which the loader needs"},
		{0x9f000, 0x9f010, -EINVAL, "no memory"},
		{0xe0000, 0xe0010, -EINVAL, "no memory"},
		{0xfee00000, 0xfee00010, -EINVAL, "no memory"},
		{0xfffffffffffff000, 0x10, -EINVAL, "no machine has"},
		{0x200000, 0x100000, -EINVAL, "outside of what it loads"},
		{0x1000000, 0x1000010, -ENOMEM, "at least 17 MiB of memory, this guest has 16 MiB"},
	};
	struct boot_image *img = NULL;
	struct bytes elf;
	size_t i;
	int ret;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		elf = make_elf((struct elf_spec){.paddr = cases[i].paddr, .pvh = cases[i].entry});
		ret = open_bytes(&img, elf, NULL, &err);
		CHECK(!ret, "%s", err.text);
		machine_init(&m, 16);
		ret = ret ? ret : boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(ret == cases[i].ret && strstr(err.text, cases[i].text), "%#lx: %d: %s",
		      cases[i].paddr, ret, err.text);
		machine_free(&m);
		boot_close(img);
		bytes_free(&elf);
	}
}

int main(void)
{
	try_elf(false, false);
	try_elf(true, false);
	try_elf(true, true); /* PVH goes before multiboot */
	with_initrd();
	refusals();
	return test_end();
}
