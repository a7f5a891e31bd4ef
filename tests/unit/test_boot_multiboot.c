/* Multiboot 1: in an ELF and with address fields; info structure, module, memory map. */
#include "tests/unit/test_boot_images.h"

static struct machine m;
static struct error err;

static void check_info(uint32_t entry, unsigned modules, const char *arguments)
{
	const uint8_t *host = m.mem.host, *info = host + m.cpu.gpr[RBX], *e;
	const char *line;
	unsigned i, n = 0;

	CHECK(m.cpu.rip == entry, "rip %#lx", m.cpu.rip);
	CHECK(m.cpu.gpr[RAX] == 0x2badb002 && m.cpu.gpr[RBX] == BOOT_INFO, "eax, ebx");
	CHECK(m.cpu.cr0 == 0x11 && m.cpu.seg[SEG_CS].attr == 0xc09b && m.cpu.rflags == 2, "mode");
	CHECK(get_le32(info) == (0x245u | (modules ? 8u : 0u)), "flags %#x", get_le32(info));
	CHECK(get_le32(info + 4) == 639 && get_le32(info + 8) == (m.mem.size >> 10) - 1024,
	      "%u and %u KiB", get_le32(info + 4), get_le32(info + 8));
	line = (const char *)host + get_le32(info + 16);
	CHECK(!strncmp(line, "ferry-boot-", 11) && !strcmp(line + 17, arguments), "'%s'", line);
	CHECK(get_le32(info + 20) == modules, "modules");
	CHECK(!strcmp((const char *)host + get_le32(info + 64), "ferry"), "loader");
	for (i = 0; i < get_le32(info + 44); i += get_le32(e) + 4, n++) {
		e = host + get_le32(info + 48) + i;
		CHECK(get_le64(e + 4) == m.e820[n].addr && get_le64(e + 12) == m.e820[n].size &&
			      get_le32(e + 20) == m.e820[n].type,
		      "range %u", n);
	}
	CHECK(n == 3, "%u ranges", n);
}

static void in_elf(bool is32)
{
	struct bytes elf = make_elf((struct elf_spec){
		.is32 = is32, .paddr = 0x100000, .multiboot = true, .mb_flags = 3});
	struct boot_image *img = NULL;
	int ret = open_bytes(&img, elf, "one two", &err);

	CHECK(!ret, "%s", err.text);
	if (!ret) {
		machine_init(&m, 16);
		ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(!ret, "%s", err.text);
		CHECK(code_loaded(&m, 0x100000, 12), "code");
		check_info(0x100040, 0, " one two");
		machine_free(&m);
		boot_close(img);
	}
	bytes_free(&elf);
}

/* 64 bytes of another format, then the header; loaded from the header on. */
static struct bytes make_flat(uint32_t load_end, uint32_t bss_end)
{
	struct bytes b = {0};
	uint8_t *p = bytes_at(&b, 0, 4096);
	size_t i;

	for (i = 0; i < 4096; i++)
		p[i] = code_byte(i);
	p += 64;
	put_le32(p, 0x1badb002);
	put_le32(p + 4, 1 << 16);
	put_le32(p + 8, -(0x1badb002u + (1 << 16)));
	put_le32(p + 12, 0x200000); /* header */
	put_le32(p + 16, 0x200000); /* load */
	put_le32(p + 20, load_end);
	put_le32(p + 24, bss_end);
	put_le32(p + 28, 0x200100);
	return b;
}

static void with_addresses(void)
{
	static const struct {
		uint32_t load_end, bss_end, bytes, zeros;
	} cases[] = {{0, 0, 4032, 0}, {0x200200, 0, 512, 0}, {0x200200, 0x200300, 512, 256}};
	char *kernel, *initrd = file_make("module", 6);
	struct boot_image *img = NULL;
	struct bytes b;
	size_t i, k;
	int ret;

	for (i = 0; i < 3; i++) {
		b = make_flat(cases[i].load_end, cases[i].bss_end);
		kernel = file_make(b.data, b.len);
		ret = boot_open(&img, &(struct boot_request){kernel, initrd, NULL}, &err);
		CHECK(!ret, "%s", err.text);
		machine_init(&m, 16);
		memset(m.mem.host + 0x200000, 0xaa, 8192);
		ret = ret ? ret : boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(!ret, "%s", err.text);
		check_info(0x200100, 1, "");
		CHECK(!memcmp(m.mem.host + 0x200000, b.data + 64, cases[i].bytes), "bytes");
		for (k = 0; k < cases[i].zeros; k++)
			CHECK(!m.mem.host[0x200000 + cases[i].bytes + k], "bss at %zu", k);
		CHECK(m.mem.host[0x200000 + cases[i].bytes + k] == 0xaa, "beyond the end");
		k = get_le32(m.mem.host + get_le32(m.mem.host + BOOT_INFO + 24));
		CHECK(k == (16 << 20) - 4096 && !memcmp(m.mem.host + k, "module", 6),
		      "module at %#zx", k);
		CHECK(get_le32(m.mem.host + get_le32(m.mem.host + BOOT_INFO + 24) + 4) == k + 6,
		      "its end");
		machine_free(&m);
		boot_close(img);
		file_remove(kernel);
		bytes_free(&b);
	}
	file_remove(initrd);
}

static void refusals(void)
{
	static const struct {
		unsigned off;
		uint32_t value;
		const char *text;
	} cases[] = {
		{12, 0x1fffff, "multiboot load address"}, /* header before the load address */
		{16, 0x100000, "multiboot load address"}, /* more before the header than there is */
		{20, 0x201000, "is truncated"},		  /* load end behind the file */
		{20, 0x1ff000, "is truncated"},		  {28, 0x100000, "multiboot entry"},
	};
	struct boot_image *img = NULL;
	struct bytes b;
	size_t i;
	int ret;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		b = make_flat(0, 0);
		put_le32(b.data + 64 + cases[i].off, cases[i].value);
		ret = open_bytes(&img, b, NULL, &err);
		CHECK(ret == -EBADMSG && strstr(err.text, cases[i].text), "%zu: %d: %s", i, ret,
		      err.text);
		bytes_free(&b);
	}
	b = make_elf((struct elf_spec){
		.is32 = true, .paddr = 0x100000, .multiboot = true, .mb_flags = 8});
	ret = open_bytes(&img, b, NULL, &err);
	CHECK(ret == -ENOEXEC && strstr(err.text, "flags 0x8"), "%d: %s", ret, err.text);
	bytes_free(&b);
}

int main(void)
{
	in_elf(true);
	in_elf(false);
	with_addresses();
	refusals();
	return test_end();
}
