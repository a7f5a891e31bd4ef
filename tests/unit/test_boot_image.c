/* The boot image: sealed, loads again and again, survives a journey as bytes, and lies badly. */
#include <fcntl.h>

#include "tests/unit/test_boot_images.h"
#include "vmm/boot/image.h"

static struct error err;

static struct boot_image *make(void)
{
	struct bytes elf = make_elf((struct elf_spec){0}), packed = pack("gzip", elf);
	struct bytes bz = make_bzimage(packed);
	char *kernel = file_make(bz.data, bz.len), *initrd = file_make("initrd", 6);
	struct boot_request req = {kernel, initrd, "console=ttyS0"};
	struct boot_image *img = NULL;
	int ret = boot_open(&img, &req, &err);

	CHECK(!ret, "%s", err.text);
	file_remove(kernel);
	file_remove(initrd);
	bytes_free(&elf);
	bytes_free(&packed);
	bytes_free(&bz);
	if (ret)
		exit(1);
	return img;
}

static void sealed(const struct boot_image *img)
{
	int seals = fcntl(img->fd, F_GET_SEALS);

	CHECK(seals == (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), "seals %#x",
	      seals);
	CHECK(pwrite(img->fd, "x", 1, 0) < 0 && errno == EPERM, "it can be written");
	CHECK(fcntl(img->fd, F_GETFD) & FD_CLOEXEC, "not close-on-exec");
}

/* Two starts give the same memory but for the seed, and the same registers. */
static void same_start(struct boot_image *a, struct boot_image *b)
{
	struct machine x, y;

	machine_init(&x, 32);
	machine_init(&y, 32);
	memset(y.mem.host + 0x1000000, 0xaa, 1 << 20); /* the guest has run meanwhile */
	memset(y.mem.host + 0x7000, 0xaa, 0x9000);
	CHECK(!boot_load(a, &x.mem, &x.board, &x.cpu, &err), "%s", err.text);
	CHECK(!boot_load(b, &y.mem, &y.board, &y.cpu, &err), "%s", err.text);
	CHECK(!memcmp(&x.cpu, &y.cpu, sizeof(x.cpu)), "registers");
	CHECK(memcmp(x.mem.host + BOOT_SETUP + 16, y.mem.host + BOOT_SETUP + 16, 32) != 0,
	      "the same seed twice");
	CHECK(!memcmp(x.mem.host + BOOT_INFO, y.mem.host + BOOT_INFO, 4096), "boot_params");
	CHECK(!memcmp(x.mem.host + BOOT_PML4, y.mem.host + BOOT_PML4, 6 * 4096), "tables");
	CHECK(!memcmp(x.mem.host + 0x1000000, y.mem.host + 0x1000000, ELF_CODE + ELF_BSS),
	      "kernel");
	CHECK(!memcmp(x.mem.host + (32 << 20) - 4096, "initrd", 6), "initrd");
	machine_free(&x);
	machine_free(&y);
}

/* In two pieces. */
static int adopt(struct boot_image **img, const uint8_t *data, size_t len)
{
	struct boot_adoption *a = NULL;
	const size_t half = len / 2;
	int ret;

	err = (struct error){""};
	ret = boot_adopt(&a, data, half, &err) ?: boot_adopt(&a, data + half, len - half, &err);
	if (!ret)
		ret = boot_adopted(&a, img, &err);
	boot_adopt_end(&a);
	return ret;
}

static int look(const uint8_t *data, size_t len)
{
	struct boot_image *img = NULL;
	int ret = adopt(&img, data, len) ?: boot_look(img, &err);

	boot_close(img);
	return ret;
}

static void lies(const struct boot_image *img)
{
	const void *data;
	uint8_t *copy;
	size_t len, i;

	if (boot_bytes(img, &data, &len, &err))
		exit(1);
	copy = malloc(len);
	if (!copy)
		exit(1);
	CHECK(look(data, 0) == -EBADMSG, "%s", err.text);
	CHECK(look(data, 100) == -EBADMSG, "%s", err.text);
	CHECK(look(data, 4096) == -EBADMSG, "%s", err.text);
	memcpy(copy, data, len);
	copy[0] ^= 1;
	CHECK(look(copy, len) == -EBADMSG && strstr(err.text, "not one of ferry"), "%s", err.text);
	copy[0] ^= 1;
	copy[8]++;
	CHECK(look(copy, len) == -EBADMSG && strstr(err.text, "version"), "%s", err.text);
	copy[8]--;
	for (i = 0; i < PART_COUNT; i++) { /* an offset that wraps around with its length */
		put_le64(copy + 16 + i * 16, UINT64_MAX - 4);
		CHECK(look(copy, len) == -EBADMSG, "part %zu: %s", i, err.text);
		memcpy(copy, data, 4096);
	}
	put_le64(copy + 16 + 8, 2000); /* half a kernel */
	CHECK(look(copy, len) == -EBADMSG && strstr(err.text, "the kernel is truncated"), "%s",
	      err.text);
	memcpy(copy, data, 4096);
	CHECK(look(copy, len) == 0, "%s", err.text);
	free(copy);
}

int main(void)
{
	struct boot_image *img = make(), *twin = NULL;
	const void *data;
	size_t len;

	sealed(img);
	same_start(img, img);
	if (boot_bytes(img, &data, &len, &err))
		exit(1);
	CHECK(!adopt(&twin, data, len), "%s", err.text);
	if (twin) {
		sealed(twin);
		same_start(img, twin);
	}
	lies(img);
	boot_close(twin);
	boot_close(img);
	boot_close(NULL);
	return test_end();
}
