/* Linux: a bzImage with each kind of payload, a vmlinux, an i386 kernel; boot_params; the initrd.
 */
#include "tests/unit/test_boot_images.h"

static struct machine m;
static struct error err;
static struct boot_image *img;

static const uint8_t *params(void)
{
	return m.mem.host + BOOT_INFO;
}

static void check_long_mode(uint64_t rip)
{
	const struct x86_state *s = &m.cpu;
	uint64_t gdt_code;
	unsigned i;

	CHECK(s->rip == rip, "rip %#lx", s->rip);
	CHECK(s->gpr[RSI] == BOOT_INFO, "rsi %#lx", s->gpr[RSI]);
	CHECK(s->cr0 == 0x80000011 && s->cr4 == 0x20 && s->efer == 0x500, "control registers");
	CHECK(!(s->rflags & 0x200), "interrupts are on");
	CHECK(s->seg[SEG_CS].selector == 0x10 && s->seg[SEG_CS].attr == 0xa09b, "cs");
	CHECK(s->seg[SEG_DS].selector == 0x18 && s->seg[SEG_SS].selector == 0x18, "ds, ss");
	gdt_code = get_le64(m.mem.host + s->gdt_base + 0x10);
	CHECK(gdt_code == 0x00af9b000000ffff, "code descriptor %#lx", gdt_code);
	/* Walk the tables for some addresses below 4 GiB. */
	for (i = 0; i < 4096; i += 37) {
		uint64_t va = (uint64_t)i << 20, e = s->cr3, shift;

		for (shift = 39; shift >= 21; shift -= 9) {
			e = get_le64(m.mem.host + (e & ~0xfffull) + (va >> shift & 511) * 8);
			CHECK((e & 3) == 3, "entry %#lx for %#lx", e, va);
		}
		CHECK((e & 0x80) && (e & ~0x1fffffull) + (va & 0x1fffff) == va,
		      "%#lx is mapped to %#lx", va, e);
	}
}

static void check_params(const char *cmdline)
{
	const uint8_t *p = params();

	CHECK(get_le16(p + 0x1fe) == 0xaa55 && !memcmp(p + 0x202, "HdrS", 4), "header");
	CHECK(p[0x210] == 0xff && (p[0x211] & 1), "loader type, flags");
	CHECK(get_le32(p + 0x228) == BOOT_CMDLINE, "cmd_line_ptr");
	CHECK(!strcmp((char *)m.mem.host + BOOT_CMDLINE, cmdline), "command line");
	CHECK(get_le64(p + 0x70) == BOOT_ACPI, "rsdp");
	CHECK(p[0x1ef] == 0, "sentinel");
	CHECK(p[0x1e8] == 3 && get_le64(p + 0x2d0 + 20) == 0x9fc00 && p[0x2d0 + 20 + 16] == 2 &&
		      get_le64(p + 0x2d0 + 48) == m.mem.size - 0x100000,
	      "e820");
	CHECK(get_le64(p + 0x250) == BOOT_SETUP && get_le32(m.mem.host + BOOT_SETUP + 8) == 9 &&
		      get_le32(m.mem.host + BOOT_SETUP + 12) == 32,
	      "seed");
}

static void load(uint64_t mib)
{
	int ret;

	machine_init(&m, mib);
	memset(m.mem.host + 0x1000000, 0xaa, 0x100000); /* what a guest left before the reset */
	ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
	CHECK(!ret, "%s", err.text);
}

static void payloads(void)
{
	static const char *const packers[] = {"gzip", "xz", "lzma", "zstd", "lz4", "none"};
	struct bytes elf = make_elf((struct elf_spec){.entry = 0x1000123}), packed, bz;
	char what[80];
	size_t i;
	int ret;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		packed = pack(packers[i], elf);
		bz = make_bzimage(packed);
		ret = open_bytes(&img, bz, "quiet", &err);
		CHECK(!ret, "%s: %s", packers[i], err.text);
		if (!ret) {
			snprintf(what, sizeof(what), "Linux bzImage 6.1.0-test (%s)",
				 i < 5 ? packers[i] : "not packed");
			CHECK(!strcmp(boot_describe(img), what), "%s", boot_describe(img));
			load(64);
			CHECK(code_loaded(&m, 0x1000000, 0), "%s: not what was packed", packers[i]);
			check_long_mode(0x1000123);
			check_params("quiet");
			machine_free(&m);
			boot_close(img);
		}
		bytes_free(&packed);
		bytes_free(&bz);
	}
	bytes_free(&elf);
}

/* More than one block of 8 MiB, and more than the sink's first 64 MiB. */
static void large_lz4(void)
{
	struct elf_spec spec = {.code_size = 70 << 20, .memsz = 71 << 20};
	struct bytes elf = make_elf(spec), packed = pack("lz4", elf), bz = make_bzimage(packed);
	size_t i;
	int ret = open_bytes(&img, bz, NULL, &err);

	CHECK(!ret, "%s", err.text);
	if (!ret) {
		load(128);
		for (i = 0; i < 70 << 20 && m.mem.host[0x1000000 + i] == code_byte(i);)
			i++;
		CHECK(i == 70 << 20, "differs at %zu", i);
		machine_free(&m);
		boot_close(img);
	}
	bytes_free(&elf);
	bytes_free(&packed);
	bytes_free(&bz);
}

/* Two segments out of the same bytes: what is given back on the way must not be needed again. */
static void shared_bytes(void)
{
	const size_t size = 6 << 20;
	struct bytes elf = make_elf((struct elf_spec){.code_size = size, .memsz = size}), packed,
		     bz;
	size_t i;

	put_le16(elf.data + 56, 2);
	put_phdr(elf.data + 64 + 56, false, 1, 512, 0x2000000, 0x2000000, size, size);
	packed = pack("lz4", elf);
	bz = make_bzimage(packed);
	if (!open_bytes(&img, bz, NULL, &err)) {
		load(64);
		for (i = 0; i < size && m.mem.host[0x1000000 + i] == code_byte(i) &&
			    m.mem.host[0x2000000 + i] == code_byte(i);)
			i++;
		CHECK(i == size, "differs at %zu", i);
		machine_free(&m);
		boot_close(img);
	} else {
		CHECK(0, "%s", err.text);
	}
	bytes_free(&elf);
	bytes_free(&packed);
	bytes_free(&bz);
}

/* bzip2: the kernel is loaded as it is, and unpacks itself. */
static void self_unpacking(void)
{
	struct bytes elf = make_elf((struct elf_spec){0}), packed = pack("bzip2", elf);
	struct bytes bz = make_bzimage(packed);
	int ret = open_bytes(&img, bz, "quiet", &err);

	CHECK(!ret, "%s", err.text);
	if (!ret) {
		load(64);
		CHECK(!memcmp(m.mem.host + 0x1000000, bz.data + BZ_SETUP, bz.len - BZ_SETUP),
		      "protected-mode part");
		check_long_mode(0x1000200);
		check_params("quiet");
		machine_free(&m);
		machine_init(&m, 20); /* init_size does not fit */
		ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(ret == -ENOMEM && strstr(err.text, "at least 24 MiB"), "%d: %s", ret,
		      err.text);
		machine_free(&m);
		boot_close(img);
	}
	put_le16(bz.data + 0x236, 0); /* no 64-bit entry: nothing can start it */
	ret = open_bytes(&img, bz, NULL, &err);
	CHECK(ret == -ENOTSUP && strstr(err.text, "bzip2"), "%d: %s", ret, err.text);
	bytes_free(&elf);
	bytes_free(&packed);
	bytes_free(&bz);
}

static void vmlinux(void)
{
	struct bytes elf = make_elf((struct elf_spec){.entry = 0xffffffff81000040,
						      .vaddr = 0xffffffff81000000}),
		     packed;
	int ret = open_bytes(&img, elf, "quiet", &err);

	CHECK(!ret, "%s", err.text);
	if (!ret) {
		load(64);
		check_long_mode(0x1000040); /* a virtual entry becomes a physical one */
		check_params("quiet");
		machine_free(&m);
		boot_close(img);
	}
	packed = pack("gzip", elf); /* vmlinux.gz */
	ret = open_bytes(&img, packed, "quiet", &err);
	CHECK(!ret, "%s", err.text);
	boot_close(img);
	bytes_free(&packed);
	bytes_free(&elf);
}

static void i386(void)
{
	struct bytes elf = make_elf((struct elf_spec){.is32 = true}), packed = pack("gzip", elf);
	struct bytes bz = make_bzimage(packed);
	int ret = open_bytes(&img, bz, "quiet", &err);

	CHECK(!ret, "%s", err.text);
	if (!ret) {
		load(64);
		CHECK(code_loaded(&m, 0x1000000, 0), "code");
		CHECK(m.cpu.rip == 0x1000040 && m.cpu.cr0 == 0x11 && !m.cpu.efer &&
			      m.cpu.seg[SEG_CS].attr == 0xc09b && m.cpu.gpr[RSI] == BOOT_INFO,
		      "32-bit entry");
		check_params("quiet");
		machine_free(&m);
		boot_close(img);
	}
	bytes_free(&elf);
	bytes_free(&packed);
	bytes_free(&bz);
}

static void initrd(void)
{
	struct bytes elf = make_elf((struct elf_spec){0}), packed = pack("gzip", elf);
	struct bytes bz = make_bzimage(packed), disk = {0};
	char *kernel, *path;
	struct boot_request req;
	size_t i;
	int ret;

	put_le32(bz.data + 0x22c, 0x37fffff); /* the last byte */
	bytes_at(&disk, 0, 1000000);
	for (i = 0; i < disk.len; i++)
		disk.data[i] = code_byte(i + 3);
	kernel = file_make(bz.data, bz.len);
	path = file_make(disk.data, disk.len);
	req = (struct boot_request){.kernel = kernel, .initrd = path};
	ret = boot_open(&img, &req, &err);
	file_remove(kernel); /* a reset needs no file */
	file_remove(path);
	CHECK(!ret, "%s", err.text);
	if (!ret) {
		load(64);
		CHECK(get_le32(params() + 0x21c) == disk.len, "size");
		CHECK(get_le32(params() + 0x218) == ((0x3800000 - 1000000) & ~0xfffu), "at %#x",
		      get_le32(params() + 0x218));
		CHECK(!memcmp(m.mem.host + get_le32(params() + 0x218), disk.data, disk.len),
		      "bytes");
		machine_free(&m);
		load(20); /* below the end of memory then */
		CHECK(get_le32(params() + 0x218) == (((20u << 20) - 1000000) & ~0xfffu), "at %#x",
		      get_le32(params() + 0x218));
		machine_free(&m);
		/* 16 MiB + 17 KiB of kernel: the rest is too small, but there is room below it. */
		machine_init(&m, 17);
		m.e820[2].size = 0x1000000 + 0x10000 - 0x100000;
		m.mem.low = m.mem.size = 0x1010000;
		ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(!ret && get_le32(params() + 0x218) == ((0x1000000 - 1000000) & ~0xfffu),
		      "%d %s: at %#x", ret, err.text, get_le32(params() + 0x218));
		m.mem.size = 17 << 20;
		machine_free(&m);
		boot_close(img);
	}
	bytes_free(&elf);
	bytes_free(&packed);
	bytes_free(&bz);
	bytes_free(&disk);
}

static void initrd_too_large(void)
{
	struct bytes elf = make_elf((struct elf_spec){0}), disk = {0};
	char *kernel = file_make(elf.data, elf.len), *path;
	struct boot_request req = {.kernel = kernel};
	int ret;

	bytes_at(&disk, 0, 40 << 20);
	req.initrd = path = file_make(disk.data, disk.len);
	ret = boot_open(&img, &req, &err);
	CHECK(!ret, "%s", err.text);
	if (!ret) {
		machine_init(&m, 32);
		ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
		CHECK(ret == -ENOMEM && strstr(err.text, "40 MiB") && strstr(err.text, "32 MiB") &&
			      strstr(err.text, "--memory"),
		      "%d: %s", ret, err.text);
		printf("%s\n", err.text);
		machine_free(&m);
		boot_close(img);
	}
	file_remove(kernel);
	file_remove(path);
	bytes_free(&elf);
	bytes_free(&disk);
}

static void cmdline_limit(void)
{
	struct bytes elf = make_elf((struct elf_spec){0}), packed = pack("gzip", elf);
	struct bytes bz = make_bzimage(packed);
	char line[3000];
	int ret;

	memset(line, 'x', sizeof(line));
	line[2047] = 0;
	ret = open_bytes(&img, bz, line, &err);
	CHECK(!ret, "%s", err.text);
	boot_close(img);
	line[2047] = 'x';
	line[2048] = 0;
	ret = open_bytes(&img, bz, line, &err);
	CHECK(ret == -E2BIG && strstr(err.text, "2048") && strstr(err.text, "2047"), "%d: %s", ret,
	      err.text);
	bytes_free(&elf);
	bytes_free(&packed);
	bytes_free(&bz);
}

int main(void)
{
	payloads();
	large_lz4();
	shared_bytes();
	self_unpacking();
	vmlinux();
	i386();
	initrd();
	initrd_too_large();
	cmdline_limit();
	return test_end();
}
