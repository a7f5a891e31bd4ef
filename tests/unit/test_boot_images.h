/* Small kernels for the tests of vmm/boot, made byte by byte. */
#ifndef TESTS_UNIT_TEST_BOOT_IMAGES_H
#define TESTS_UNIT_TEST_BOOT_IMAGES_H

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "tests/unit/test_boot_util.h"

/* A buffer that only grows; what is left open stays zero. */
struct bytes {
	uint8_t *data;
	size_t len;
};

static inline uint8_t *bytes_at(struct bytes *b, size_t off, size_t n)
{
	if (off + n > b->len) {
		b->data = realloc(b->data, off + n);
		if (!b->data)
			exit(1);
		memset(b->data + b->len, 0, off + n - b->len);
		b->len = off + n;
	}
	return b->data + off;
}

static inline void bytes_put(struct bytes *b, const void *data, size_t n)
{
	if (n && n <= PTRDIFF_MAX)
		memcpy(bytes_at(b, b->len, n), data, n);
}

static inline void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

static inline void bytes_le32(struct bytes *b, uint32_t v)
{
	put_le32(bytes_at(b, b->len, 4), v);
}

/* What an ELF of the tests says; 0 means "as usual". */
struct elf_spec {
	bool is32;
	uint16_t machine;
	uint64_t entry, paddr, vaddr, memsz;
	uint32_t pvh;	/* entry in a PVH note */
	bool multiboot; /* header in the code */
	uint32_t mb_flags;
	uint64_t code_size; /* of the segment in the file */
};
enum { ELF_CODE = 4096, ELF_BSS = 12345 };

static inline uint8_t code_byte(size_t i)
{
	return (uint8_t)(i * 7 + (i >> 8) + 1);
}

static inline void put_word(uint8_t *p, bool is32, uint64_t v)
{
	if (is32)
		put_le32(p, (uint32_t)v);
	else
		put_le64(p, v);
}

static inline void put_phdr(uint8_t *p, bool is32, uint32_t type, uint64_t off, uint64_t vaddr,
			    uint64_t paddr, uint64_t filesz, uint64_t memsz)
{
	size_t w = is32 ? 4 : 8, q = is32 ? 4 : 8;

	put_le32(p, type);
	put_word(p + q, is32, off);
	put_word(p + q + w, is32, vaddr);
	put_word(p + q + 2 * w, is32, paddr);
	put_word(p + q + 3 * w, is32, filesz);
	put_word(p + q + 4 * w, is32, memsz);
}

/* One segment of code with ELF_BSS bytes of bss, and a note if asked for. */
static inline struct bytes make_elf(struct elf_spec s)
{
	struct bytes b = {0};
	uint8_t *p = bytes_at(&b, 0, s.is32 ? 52 : 64);
	size_t i, phoff = s.is32 ? 52 : 64, phsize = s.is32 ? 32 : 56;

	if (!s.machine)
		s.machine = s.is32 ? 3 : 62;
	if (!s.paddr)
		s.paddr = 0x1000000;
	if (!s.entry)
		s.entry = s.paddr + 0x40;
	if (!s.vaddr)
		s.vaddr = s.paddr;
	if (!s.code_size)
		s.code_size = ELF_CODE;
	if (!s.memsz)
		s.memsz = s.code_size + ELF_BSS;
	memcpy(p, "\177ELF", 4);
	p[4] = s.is32 ? 1 : 2;
	p[5] = p[6] = 1;
	put_le16(p + 16, 2);
	put_le16(p + 18, s.machine);
	put_word(p + 24, s.is32, s.entry);
	put_word(p + (s.is32 ? 28 : 32), s.is32, phoff);
	put_le16(p + (s.is32 ? 42 : 54), (uint16_t)phsize);
	put_le16(p + (s.is32 ? 44 : 56), s.pvh ? 2 : 1);
	p = bytes_at(&b, phoff, 2 * phsize);
	put_phdr(p, s.is32, 1, 512, s.vaddr, s.paddr, s.code_size, s.memsz);
	if (s.pvh)
		put_phdr(p + phsize, s.is32, 4, 256, 0, 0, 60, 60);
	if (s.pvh) { /* another note first, with a name that needs padding */
		p = bytes_at(&b, 256, 60);
		put_le32(p, 5);
		put_le32(p + 4, 6);
		put_le32(p + 8, 18);
		memcpy(p + 12, "Same", 5);
		put_le32(p + 28, 4);
		put_le32(p + 32, s.is32 ? 4 : 8);
		put_le32(p + 36, 18);
		memcpy(p + 40, "Xen", 4);
		put_le32(p + 44, s.pvh);
	}
	p = bytes_at(&b, 512, s.code_size);
	for (i = 0; i < s.code_size; i++)
		p[i] = code_byte(i);
	if (s.multiboot) {
		put_le32(p, 0x1badb002);
		put_le32(p + 4, s.mb_flags);
		put_le32(p + 8, -(0x1badb002u + s.mb_flags));
	}
	return b;
}

/* The segment of make_elf lies in guest memory, and its bss is zero. skip: bytes at the beginning
 * that are something else. */
static inline bool code_loaded(const struct machine *m, uint64_t paddr, size_t skip)
{
	size_t i;

	for (i = skip; i < ELF_CODE; i++)
		if (m->mem.host[paddr + i] != code_byte(i))
			return false;
	for (i = ELF_CODE; i < ELF_CODE + ELF_BSS; i++)
		if (m->mem.host[paddr + i])
			return false;
	return true;
}

/* Packs as the kernel's build does: everything but gzip gets the unpacked size behind it. */
static inline struct bytes pack(const char *how, struct bytes in)
{
	struct bytes out = {0};
	size_t cap = in.len * 2 + 65536, n = 0, pos = 0;
	uint8_t *p = malloc(cap);

	if (!p)
		exit(1);
	if (!strcmp(how, "gzip")) {
		z_stream z = {0};

		deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
		z.next_in = in.data;
		z.avail_in = (uInt)in.len;
		z.next_out = p;
		z.avail_out = (uInt)cap;
		deflate(&z, Z_FINISH);
		n = cap - z.avail_out;
		deflateEnd(&z);
	} else if (!strcmp(how, "xz")) {
		lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, in.data, in.len, p, &n, cap);
	} else if (!strcmp(how, "lzma")) {
		lzma_stream z = LZMA_STREAM_INIT;
		lzma_options_lzma opt;

		lzma_lzma_preset(&opt, 1);
		if (lzma_alone_encoder(&z, &opt) != LZMA_OK)
			exit(1);
		z.next_in = in.data;
		z.avail_in = in.len;
		z.next_out = p;
		z.avail_out = cap;
		while (lzma_code(&z, LZMA_FINISH) == LZMA_OK)
			;
		n = cap - z.avail_out;
		lzma_end(&z);
	} else if (!strcmp(how, "zstd")) {
		ZSTD_CCtx *z = ZSTD_createCCtx();

		ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
		n = ZSTD_compress2(z, p, cap, in.data, in.len);
		ZSTD_freeCCtx(z);
	} else if (!strcmp(how, "lz4")) {
		bytes_le32(&out, 0x184c2102);
		for (; pos < in.len; pos += 8 << 20) {
			int len = (int)(in.len - pos < 8 << 20 ? in.len - pos : 8 << 20);

			n = (size_t)LZ4_compress_default((char *)in.data + pos, (char *)p, len,
							 (int)cap);
			bytes_le32(&out, (uint32_t)n);
			bytes_put(&out, p, n);
		}
		n = 0;
	} else if (!strcmp(how, "bzip2")) {
		memcpy(p, "BZh9", 4); /* only recognised: the kernel is to unpack it */
		n = 64;
	} else { /* not packed */
		memcpy(p, in.data, n = in.len);
	}
	bytes_put(&out, p, n);
	if (strcmp(how, "gzip") != 0)
		bytes_le32(&out, (uint32_t)in.len);
	free(p);
	return out;
}

/* A bzImage around a payload: 5 setup sectors, payload at 300h of the protected-mode part. */
enum { BZ_SETUP = 6 * 512, BZ_PAYLOAD = 0x300 };
static inline struct bytes make_bzimage(struct bytes payload)
{
	struct bytes b = {0};
	uint8_t *p = bytes_at(&b, 0, BZ_SETUP);

	p[0x1f1] = 5;
	put_le16(p + 0x1fe, 0xaa55);
	p[0x200] = 0xeb;
	p[0x201] = 0x6a; /* the header ends at 26ch */
	memcpy(p + 0x202, "HdrS", 4);
	put_le16(p + 0x206, 0x20f);
	put_le16(p + 0x20e, 0x400);
	memcpy(p + 0x600, "6.1.0-test (somebody) #1", 24);
	p[0x211] = 3;
	put_le32(p + 0x22c, 0x7fffffff);
	put_le32(p + 0x230, 0x200000);
	p[0x234] = 1;
	put_le16(p + 0x236, 0x7f);
	put_le32(p + 0x238, 2047);
	put_le32(p + 0x248, BZ_PAYLOAD);
	put_le32(p + 0x24c, (uint32_t)payload.len);
	put_le64(p + 0x258, 0x1000000);
	put_le32(p + 0x260, 0x800000);
	memset(bytes_at(&b, BZ_SETUP, BZ_PAYLOAD), 0xcc, BZ_PAYLOAD);
	bytes_put(&b, payload.data, payload.len);
	bytes_at(&b, (b.len + 15) & ~15ul, 16);
	return b;
}

/* Opens an image from bytes through a file. *path (if not NULL) is only good for texts. */
static inline int open_bytes(struct boot_image **img, struct bytes kernel, const char *cmdline,
			     struct error *err)
{
	char *path = file_make(kernel.data, kernel.len);
	struct boot_request req = {.kernel = path, .cmdline = cmdline};
	int ret;

	*err = (struct error){""};
	ret = boot_open(img, &req, err);
	file_remove(path);
	return ret;
}

#endif
