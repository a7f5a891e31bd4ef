/* What is no kernel, or only half of one: which error, and whether its text helps. */
#include "tests/unit/test_boot_images.h"
#include "vmm/boot/unpack.h"

static struct error err;
static struct boot_image *img;

static void expect(const char *what, int ret, int want, const char *text)
{
	CHECK(ret == want && strstr(err.text, text) && !strchr(err.text, '\n'), "%s: %d: %s", what,
	      ret, err.text);
	if (!ret)
		boot_close(img);
	img = NULL;
}

static void expect_bytes(struct bytes b, int want, const char *text)
{
	expect(text, open_bytes(&img, b, NULL, &err), want, text);
}

static int open_paths(const char *kernel, const char *initrd)
{
	struct boot_request req = {.kernel = kernel, .initrd = initrd};

	err = (struct error){""};
	return boot_open(&img, &req, &err);
}

static void files(void)
{
	struct bytes elf = make_elf((struct elf_spec){0});
	char *kernel = file_make(elf.data, elf.len), *empty = file_make("", 0);

	expect("none", open_paths(NULL, NULL), -EINVAL, "ferry run");
	expect("missing", open_paths("/nowhere/vmlinuz", NULL), -ENOENT,
	       "kernel /nowhere/vmlinuz: No such file");
	expect("folder", open_paths("/tmp", NULL), -EISDIR, "kernel /tmp is a directory");
	expect("empty", open_paths(empty, NULL), -EBADMSG, "is empty");
	expect("missing", open_paths(kernel, "/nowhere/initrd"), -ENOENT,
	       "initrd /nowhere/initrd:");
	expect("empty", open_paths(kernel, empty), -EBADMSG, "is empty");
	expect("folder", open_paths(kernel, "/tmp"), -EISDIR, "initrd /tmp is a directory");
	file_remove(kernel);
	file_remove(empty);
	bytes_free(&elf);
}

static void foreign(void)
{
	static const struct {
		size_t off;
		const char *magic;
		size_t len;
		const char *text;
	} kinds[] = {
		{56, "ARMd", 4, "is an arm64 Image"},
		{56, "RSC\5", 4, "is a riscv64 Image"},
		{36, "\x18\x28\x6f\x01", 4, "is an arm zImage"},
		{0, "QFI\xfb", 4, "is a qcow2 disk image"},
		{0, "070701", 6, "--initrd"},
		{510, "\x55\xaa", 2, "boot sector"},
		{0, "MZ", 2, "is an EFI program"},
		{0, "hello", 5, "is no kernel that ferry knows"},
	};
	static const struct {
		uint16_t machine;
		const char *text;
	} machines[] = {{183, "is an ELF for arm64"},
			{243, "is an ELF for riscv64"},
			{21, "is an ELF for ppc64"},
			{9999, "is an ELF for an unknown machine"}};
	struct bytes b;
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		b = (struct bytes){0};
		bytes_at(&b, 0, 4096);
		memcpy(b.data + kinds[i].off, kinds[i].magic, kinds[i].len);
		expect_bytes(b, -ENOEXEC, kinds[i].text);
		bytes_free(&b);
	}
	for (i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
		b = make_elf((struct elf_spec){.machine = machines[i].machine});
		expect_bytes(b, -ENOEXEC, machines[i].text);
		bytes_free(&b);
	}
	b = make_elf((struct elf_spec){.is32 = true});
	expect_bytes(b, -ENOEXEC, "neither a PVH note nor a multiboot header");
	put_le16(b.data + 16, 1); /* an object file */
	expect_bytes(b, -ENOEXEC, "no executable");
	bytes_free(&b);
}

static void truncated(void)
{
	static const char *const packers[] = {"gzip", "xz", "lzma", "zstd", "lz4"};
	struct bytes elf = make_elf((struct elf_spec){0}), packed, bz;
	size_t i, full;

	elf.len--;
	expect_bytes(elf, -EBADMSG, "is truncated: segment 0");
	elf.len = 100;
	expect_bytes(elf, -EBADMSG, "is truncated: program headers");
	elf.len = 40;
	expect_bytes(elf, -EBADMSG, "is truncated: 40 bytes of an ELF");
	elf.len = 512 + ELF_CODE;

	packed = pack("gzip", elf);
	bz = make_bzimage(packed);
	full = bz.len;
	bz.len = BZ_SETUP + BZ_PAYLOAD + packed.len - 1;
	expect_bytes(bz, -EBADMSG, "its header says at least");
	bz.len = 1000;
	expect_bytes(bz, -EBADMSG, "the setup alone has 3072");
	bz.len = 0x210;
	expect_bytes(bz, -EBADMSG, "is truncated: 528 bytes of a bzImage");
	bz.len = full;
	put_le16(bz.data + 0x206, 0x204);
	expect_bytes(bz, -ENOEXEC, "boot protocol 2.04");
	bytes_free(&packed);
	bytes_free(&bz);

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		packed = pack(packers[i], elf);
		packed.len = packed.len / 2; /* the header agrees, the stream ends */
		bz = make_bzimage(packed);
		expect_bytes(bz, -EBADMSG, "data is truncated");
		bytes_free(&packed);
		bytes_free(&bz);
	}
	bytes_free(&elf);
}

static void damaged(void)
{
	static const char *const packers[] = {"gzip", "xz", "zstd", "lz4"};
	struct bytes elf = make_elf((struct elf_spec){0}), packed, bz, junk = {0};
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		packed = pack(packers[i], elf);
		/* lz4 has no checksum: only its block size can be seen to be wrong */
		memset(packed.data + (strcmp(packers[i], "lz4") ? 12 : 4), 0xff, 40);
		bz = make_bzimage(packed);
		expect_bytes(bz, -EBADMSG, "data is ");
		bytes_free(&packed);
		bytes_free(&bz);
	}
	bytes_at(&junk, 0, 1000); /* unpacks well, to no ELF */
	packed = pack("gzip", junk);
	bz = make_bzimage(packed);
	expect_bytes(bz, -ENOEXEC, "is no ELF file");
	bytes_free(&packed);
	bytes_free(&bz);
	bytes_free(&junk);
	put_le64(elf.data + 24, 0x5000000); /* entry */
	expect_bytes(elf, -EBADMSG, "entry 0x5000000 lies in no segment");
	bytes_free(&elf);
}

/* A limit is exact, for each packer and for files. */
static void limits(void)
{
	static const char *const packers[] = {"gzip", "xz", "lzma", "zstd", "lz4"};
	enum { LIMIT = 5 << 20 };
	struct bytes plain = {0}, packed;
	struct sink s;
	size_t i;
	int ret, more;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		for (more = 0; more < 2; more++) {
			bytes_at(&plain, 0, LIMIT + (size_t)more);
			packed = pack(packers[i], plain);
			if (sink_open_memory(&s, &err))
				exit(1);
			ret = unpack((struct blob){packed.data, packed.len}, &s, LIMIT, &err);
			if (more)
				expect(packers[i], ret, -EFBIG, "unpacks to more than 5 MiB");
			else
				CHECK(!ret && s.len == LIMIT, "%s: %d, %zu", packers[i], ret,
				      s.len);
			sink_close(&s);
			bytes_free(&packed);
			bytes_free(&plain);
		}
	}
	if (sink_open_memory(&s, &err))
		exit(1);
	ret = sink_read_file(&s, "/dev/zero", "kernel", LIMIT, &err);
	expect("endless", ret, -EFBIG, "kernel /dev/zero is larger than 5 MiB");
	sink_close(&s);
}

/* Who only looks gets the same answer, and what has passed takes up no memory. */
static void passing(void)
{
	static const char *const packers[] = {"gzip", "zstd", "lz4"};
	const size_t size = 24 << 20;
	struct bytes plain = {0}, packed;
	struct sink s;

	bytes_at(&plain, 0, size);
	memset(plain.data, 0x5a, size);
	for (size_t i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		packed = pack(packers[i], plain);
		if (sink_open_memory(&s, &err))
			exit(1);
		s.passing = true;
		CHECK(!unpack((struct blob){packed.data, packed.len}, &s, size, &err) &&
			      s.len == size,
		      "%s: %s, %zu", packers[i], err.text, s.len);
		CHECK(!memcmp(s.map, plain.data, SINK_PAGE), "%s: its beginning", packers[i]);
		CHECK(!s.map[8 << 20], "%s is kept", packers[i]);
		sink_close(&s);
		bytes_free(&packed);
	}
	bytes_free(&plain);
}

int main(void)
{
	passing();
	files();
	foreign();
	truncated();
	damaged();
	limits();
	return test_end();
}
