/* Real kernels, where some are: what tests/guest/kernel.sh has fetched is unpacked and loaded. */
#include <glob.h>
#include <time.h>

#include "tests/unit/test_boot_util.h"

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void check_loaded(const struct machine *m)
{
	/* x86-64 kernels are linked at 16 MiB, and startup_64 lies at the beginning. */
	CHECK(m->cpu.rip >> 21 == 0x1000000 >> 21, "rip %#lx", m->cpu.rip);
	CHECK(m->cpu.gpr[RSI] == BOOT_INFO, "rsi %#lx", m->cpu.gpr[RSI]);
	CHECK(get_le64(m->mem.host + m->cpu.rip) != 0, "nothing at the entry");
	CHECK(!strcmp((char *)m->mem.host + BOOT_CMDLINE, "console=ttyS0"), "command line");
	CHECK(get_le64(m->mem.host + BOOT_INFO + 0x70) == BOOT_ACPI, "rsdp");
}

static void try_kernel(const char *path)
{
	struct boot_request req = {.kernel = path, .cmdline = "console=ttyS0"};
	struct boot_image *img = NULL;
	struct error err = {""};
	struct machine m;
	double t[3];
	int ret;

	t[0] = now();
	ret = boot_open(&img, &req, &err);
	t[1] = now();
	CHECK(!ret, "%s", err.text);
	if (ret)
		return;

	machine_init(&m, 256);
	ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
	t[2] = now();
	CHECK(!ret, "%s", err.text);
	printf("%s: %s: open %.0f ms, load %.0f ms\n", path, boot_describe(img),
	       1e3 * (t[1] - t[0]), 1e3 * (t[2] - t[1]));
	if (!ret)
		check_loaded(&m);
	machine_free(&m);

	machine_init(&m, 32);
	ret = boot_load(img, &m.mem, &m.board, &m.cpu, &err);
	CHECK(ret == -ENOMEM && strstr(err.text, "--memory"), "%d: %s", ret, err.text);
	printf("with 32 MiB: %s\n", err.text);
	machine_free(&m);
	boot_close(img);
}

int main(void)
{
	const char *cache = getenv("FERRY_CACHE"), *home = getenv("HOME");
	char pattern[4096];
	glob_t g;
	size_t i;

	snprintf(pattern, sizeof(pattern), "%s%s/kernel-*/boot/vmlinuz-*",
		 cache ? cache : (home ? home : "/tmp"), cache ? "" : "/.cache/ferry");
	if (glob(pattern, 0, NULL, &g)) {
		printf("no %s: run tests/guest/kernel.sh bookworm\n", pattern);
		return 77;
	}
	for (i = 0; i < g.gl_pathc; i++)
		try_kernel(g.gl_pathv[i]);
	globfree(&g);
	return test_end();
}
