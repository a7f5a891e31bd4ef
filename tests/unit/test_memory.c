/* Guest memory as devices see it: pieces, writes that are tracked, waiting; and giving it back. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/dev_util.h"
#include "vmm/host.h"
#include "vmm/memory.h"
#include "vmm/memory_missing.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define MiB  (1ULL << 20)
#define PAGE 4096u

static struct guest_memory mem;
static struct dma_ops dma;
static uint64_t code_from, code_len;
static unsigned ready;

static void written(void *opaque, uint64_t hpa, uint64_t len)
{
	(void)opaque;
	if (!code_len)
		code_from = hpa;
	code_len += len;
}

static void start(uint64_t size, unsigned flags)
{
	struct error err = {0};

	CHECK_EQ(memory_create(&mem, size, flags, &err), 0);
	if (err.text[0])
		printf("%s\n", err.text);
	dma = memory_dma(&mem);
	mem.written = written;
	code_len = 0;
}

static unsigned dirty(uint64_t gpa, uint64_t len)
{
	static uint64_t bitmap[4096];
	unsigned n = 0;

	CHECK(s2_dirty_harvest(mem.vmm, 0, mem.low >> 12, bitmap) >= 0);
	for (uint64_t page = gpa >> 12; page < (gpa + len) >> 12; page++)
		n += (unsigned)(bitmap[page / 64] >> page % 64 & 1);
	return n;
}

static void test_map(void)
{
	size_t len = 32 * MiB;
	void *p;

	start(64 * MiB, 0);
	/* Over pages that nobody has touched, as far as it goes. */
	CHECK_EQ(dma.map(dma.opaque, 5, &len, false, &p), 0);
	CHECK_EQ(len, 32 * MiB);
	CHECK(p == mem.host + 5);
	len = 32 * MiB;
	CHECK_EQ(dma.map(dma.opaque, 63 * MiB, &len, true, &p), 0);
	CHECK_EQ(len, MiB);
	len = 1;
	CHECK_EQ(dma.map(dma.opaque, 64 * MiB, &len, false, &p), -EFAULT);
	CHECK_EQ(dma.map(dma.opaque, UINT64_MAX, &len, false, &p), -EFAULT);
	/* While writes are tracked, too: they count when they are done. */
	CHECK_EQ(s2_dirty_start(mem.vmm), 0);
	len = 4 * MiB;
	CHECK_EQ(dma.map(dma.opaque, 8 * MiB, &len, true, &p), 0);
	CHECK_EQ(len, 4 * MiB);
	dirty(0, 0);
	CHECK_EQ(dirty(8 * MiB, 4 * MiB), 0);
	memset(p, 1, len);
	dma.written(dma.opaque, 8 * MiB + 100, 2 * MiB);
	CHECK_EQ(dirty(0, 64 * MiB), 513);
	CHECK_EQ(code_from, 8 * MiB + 100);
	CHECK_EQ(code_len, 2 * MiB);
	/* What is not RAM was not written. */
	dma.written(dma.opaque, 64 * MiB - 10, PAGE);
	CHECK_EQ(dirty(0, 64 * MiB), 1);
	memory_destroy(&mem);
}

static int discard(uint64_t gpa, uint64_t len)
{
	return memory_discard(&mem, &(struct gpa_range){gpa, len}, 1);
}

static void test_hole(void)
{
	size_t len = 2 * MiB;
	uint8_t bytes[16] = {0};
	void *p;

	/* Two slots, side by side in host memory, far apart in the guest's. */
	start((3ull << 30) + 16 * MiB, MEMORY_OVERCOMMIT);
	CHECK_EQ(dma.map(dma.opaque, (3ull << 30) - MiB, &len, true, &p), 0);
	CHECK_EQ(len, MiB);
	len = 64 * MiB;
	CHECK_EQ(dma.map(dma.opaque, 4ull << 30, &len, true, &p), 0);
	CHECK_EQ(len, 16 * MiB);
	CHECK(p == mem.host + (3ull << 30));
	CHECK_EQ(memory_write(&mem, NULL, (3ull << 30) - 8, bytes, 16), -EFAULT);
	CHECK_EQ(discard((3ull << 30) - MiB, 2 * MiB), -EFAULT);
	CHECK_EQ(discard(4ull << 30, 16 * MiB), 0);
	CHECK_EQ(discard(4ull << 30, 16 * MiB + 1), -EFAULT);
	memory_destroy(&mem);
}

static uint64_t resident(uint64_t hpa, uint64_t len)
{
	static unsigned char here[65536];
	uint64_t n = 0;

	CHECK_EQ(mincore(mem.host + hpa, len, here), 0);
	for (uint64_t i = 0; i < len / PAGE; i++)
		n += here[i] & 1;
	return n * PAGE;
}

static void test_discard(unsigned flags)
{
	uint8_t byte = 1;

	start(64 * MiB, flags);
	CHECK_EQ(memory_set(&mem, NULL, 0, 0xcc, 64 * MiB), 0);
	CHECK_EQ(s2_dirty_start(mem.vmm), 0);
	dirty(0, 0);
	code_len = 0;
	CHECK_EQ(resident(16 * MiB, 8 * MiB), 8 * MiB);
	/* Whole pages only. */
	CHECK_EQ(discard(16 * MiB - 1, 4 * MiB + 2), 0);
	CHECK_EQ(resident(16 * MiB, 4 * MiB), 0);
	CHECK_EQ(resident(20 * MiB, 4 * MiB), 4 * MiB);
	CHECK_EQ(dirty(0, 64 * MiB), 1024);
	CHECK_EQ(code_from, 16 * MiB);
	CHECK_EQ(code_len, 4 * MiB);
	CHECK_EQ(memory_read(&mem, NULL, 16 * MiB, &byte, 1), 0);
	CHECK_EQ(byte, 0);
	CHECK_EQ(memory_read(&mem, NULL, 16 * MiB - 1, &byte, 1), 0);
	CHECK_EQ(byte, 0xcc);
	CHECK_EQ(memory_read(&mem, NULL, 20 * MiB, &byte, 1), 0);
	CHECK_EQ(byte, 0xcc);
	/* It is memory as before. */
	CHECK_EQ(memory_set(&mem, NULL, 16 * MiB, 0xdd, 2 * MiB), 0);
	CHECK_EQ(memory_read(&mem, NULL, 17 * MiB, &byte, 1), 0);
	CHECK_EQ(byte, 0xdd);
	CHECK_EQ(discard(30 * MiB + 1, PAGE), 0);
	CHECK_EQ(discard(30 * MiB, 0), 0);
	CHECK_EQ(resident(30 * MiB, 2 * MiB), 2 * MiB);
	CHECK_EQ(discard(UINT64_MAX - 10, 20), -EFAULT);
	memory_destroy(&mem);
}

static void on_ready(struct dma_waiter *waiter)
{
	ready++;
	if (ready == 1) /* one had not got all of it */
		dma.wait(dma.opaque, waiter);
}

static unsigned requests, arrivals;

static void request(void *opaque, struct s2_thread *t, uint64_t gpa)
{
	CHECK(opaque == &requests && t == mem.vmm && gpa % PAGE == 0);
	requests++;
}

static void on_arrived(void *opaque)
{
	CHECK(opaque == &arrivals);
	arrivals++;
}

static void test_wait(void)
{
	static const struct s2_missing_ops ops = {.opaque = &requests, .request = request};
	struct dma_waiter a = {.ready = on_ready}, b = {.ready = on_ready};
	static uint8_t data[4 * PAGE];
	size_t len = 2 * PAGE;
	uint8_t byte = 0;
	void *p;

	start(16 * MiB, 0);
	mem.arrived = on_arrived;
	mem.arrived_opaque = &arrivals;
	memset(data, 0x77, sizeof(data));
	CHECK_EQ(memory_set(&mem, NULL, 0, 0x11, 16 * MiB), 0);
	CHECK(dma.here(dma.opaque, 0, 16 * MiB));
	CHECK_EQ(memory_missing_stop(&mem), -ENOENT);
	CHECK_EQ(memory_missing_start(&mem, &ops), 0);
	CHECK_EQ(memory_missing_start(&mem, &ops), -EALREADY);
	CHECK(dma.here(dma.opaque, 0, 64 * MiB));
	CHECK_EQ(s2_missing_mark(mem.vmm, 5 * PAGE, 3, NULL), 3);

	/* All that is not here is asked for, once. */
	CHECK(dma.here(dma.opaque, 0, 5 * PAGE));
	CHECK(!dma.here(dma.opaque, 0, 16 * MiB));
	CHECK(!dma.here(dma.opaque, 0, 16 * MiB));
	CHECK_EQ(requests, 3);
	CHECK_EQ(dma.map(dma.opaque, 4 * PAGE, &len, true, &p), 0);
	CHECK_EQ(len, PAGE);
	CHECK_EQ(dma.map(dma.opaque, 5 * PAGE, &len, true, &p), -EAGAIN);
	CHECK_EQ(memory_read(&mem, NULL, 6 * PAGE - 1, &byte, 1), -EAGAIN);

	/* Both wait for page 5. */
	dma.wait(dma.opaque, &a);
	dma.wait(dma.opaque, &b);
	dma.wait(dma.opaque, &a);
	memory_arrived(&mem);
	CHECK_EQ(ready, 0);
	CHECK_EQ(memory_bring(&mem, mem.vmm, 6 * PAGE, data, PAGE), 1);
	CHECK_EQ(arrivals, 0); /* another page */
	CHECK_EQ(memory_bring(&mem, mem.vmm, 5 * PAGE - 1, data, PAGE), -EINVAL);
	CHECK_EQ(memory_bring(&mem, mem.vmm, 4 * PAGE, data, 2 * PAGE), 1);
	CHECK_EQ(arrivals, 2);
	CHECK_EQ(ready, 0); /* they are the main thread's */
	memory_arrived(&mem);
	CHECK_EQ(ready, 2);
	CHECK_EQ(arrivals, 3); /* the one that waits again does so in vain */
	memory_arrived(&mem);
	CHECK_EQ(ready, 3);
	memory_arrived(&mem);
	CHECK_EQ(ready, 3);
	CHECK_EQ(memory_read(&mem, NULL, 5 * PAGE, &byte, 1), 0);
	CHECK_EQ(byte, 0x77);
	CHECK_EQ(memory_read(&mem, NULL, 4 * PAGE, &byte, 1), 0);
	CHECK_EQ(byte, 0x11); /* was here */

	/* One gives up. */
	CHECK_EQ(memory_read(&mem, NULL, 7 * PAGE, &byte, 1), -EAGAIN);
	dma.wait(dma.opaque, &a);
	dma.wait(dma.opaque, &b);
	dma.wait_not(dma.opaque, &a);
	dma.wait_not(dma.opaque, &a);
	CHECK_EQ(memory_missing_stop(&mem), -EBUSY);
	CHECK_EQ(memory_bring(&mem, mem.vmm, 7 * PAGE, NULL, PAGE), 1);
	CHECK_EQ(memory_missing_stop(&mem), 0);
	CHECK_EQ(ready, 4);
	CHECK_EQ(memory_read(&mem, NULL, 7 * PAGE, &byte, 1), 0);
	CHECK_EQ(byte, 0);
	CHECK(dma.here(dma.opaque, 0, 16 * MiB));
	memory_destroy(&mem);
}

/* Reserved pages are there to the last, and stay. */
/* Pages that are on their way here: what is given up need not come, and comes too late. */
/* What the kernel has been told of the mapping that begins there: "hg", "nh" or neither. */
static bool told(const void *at, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512], *word;
	bool inside = false, found = false;
	unsigned long from, to;

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from == (uintptr_t)at;
		if (!inside || strncmp(line, "VmFlags:", 8) != 0)
			continue;
		for (word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
			found |= !strcmp(word, flag);
	}
	fclose(f);
	return found;
}

static void test_transparent(void)
{
	if (access("/sys/kernel/mm/transparent_hugepage", F_OK))
		return;
	start(16 * MiB, 0);
	CHECK(told(mem.host, "hg"));
	memory_allow_huge(&mem, false);
	CHECK(told(mem.host, "nh") && !told(mem.host, "hg"));
	memory_allow_huge(&mem, true);
	CHECK(told(mem.host, "hg") && !told(mem.host, "nh"));
	memory_destroy(&mem);
}

/* MiB of the mapping that begins there are huge pages. */
static unsigned huge_mib(const void *at)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long from, to, kib = 0;
	bool inside = false;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from == (uintptr_t)at;
		if (inside && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1)
			break;
	}
	if (f)
		fclose(f);
	return (unsigned)(kib >> 10);
}

/* What is there is put together; what is not stays away. */
static void test_gather(void)
{
	unsigned wait = 0;

	start(16 * MiB, 0);
	memory_gather_end(&mem);
	memory_allow_huge(&mem, false);
	CHECK_EQ(memory_set(&mem, NULL, 0, 0x11, 4 * MiB), 0);
	CHECK_EQ(memory_set(&mem, NULL, 8 * MiB, 0x22, PAGE), 0);
	CHECK_EQ(huge_mib(mem.host), 0);
	memory_allow_huge(&mem, true);
	if (mem.fd >= 0 || madvise(mem.host, 2 * MiB, MADV_COLLAPSE)) {
		printf("memory: without putting huge pages together: %s\n", strerror(errno));
		memory_destroy(&mem);
		return;
	}
	CHECK_EQ(huge_mib(mem.host), 2);
	memory_gather(&mem, 0);
	memory_gather(&mem, 0);
	while (huge_mib(mem.host) < 4 && wait++ < 10000)
		usleep(1000);
	memory_gather_end(&mem);
	CHECK_EQ(huge_mib(mem.host), 4);
	CHECK(mem.host[4 * MiB - 1] == 0x11 && mem.host[8 * MiB] == 0x22 && !mem.host[4 * MiB]);
	/* It may end at any moment. */
	memory_gather(&mem, 1000000);
	memory_destroy(&mem);
}

static void test_discard_missing(unsigned flags)
{
	static const struct s2_missing_ops ops = {.opaque = &requests, .request = request};
	static uint8_t data[4 * MiB];
	struct s2_missing_stats stats;
	uint8_t byte = 1;

	start(16 * MiB, flags);
	memset(data, 0x77, sizeof(data));
	CHECK_EQ(memory_set(&mem, NULL, 0, 0x11, 16 * MiB), 0);
	CHECK_EQ(memory_missing_start(&mem, &ops), 0);
	CHECK_EQ(s2_missing_mark(mem.vmm, 4 * MiB, 1024, NULL), 1024);
	CHECK_EQ(discard(2 * MiB, 4 * MiB), 0);
	CHECK_EQ(resident(2 * MiB, 4 * MiB), 0);
	CHECK_EQ(resident(6 * MiB, 2 * MiB), 2 * MiB);
	s2_missing_stats(mem.vmm, &stats);
	CHECK_EQ(stats.awaited, 512);
	CHECK_EQ(stats.requested, 0);
	CHECK_EQ(memory_bring(&mem, mem.vmm, 4 * MiB, data, 4 * MiB), 512);
	CHECK_EQ(memory_read(&mem, NULL, 6 * MiB - 1, &byte, 1), 0);
	CHECK_EQ(byte, 0);
	CHECK_EQ(memory_read(&mem, NULL, 6 * MiB, &byte, 1), 0);
	CHECK_EQ(byte, 0x77);
	/* Zeroes that come cost no memory, whatever was there before. */
	CHECK_EQ(s2_missing_mark(mem.vmm, 8 * MiB, 1024, NULL), 1024);
	CHECK_EQ(memory_bring(&mem, mem.vmm, 8 * MiB, NULL, 4 * MiB), 1024);
	CHECK_EQ(resident(8 * MiB, 4 * MiB), 0);
	CHECK_EQ(memory_missing_stop(&mem), 0);
	memory_clear(&mem, 12 * MiB / PAGE, 2);
	memory_clear(&mem, 13 * MiB / PAGE, 256);
	CHECK_EQ(resident(12 * MiB, MiB), MiB);
	CHECK_EQ(resident(13 * MiB, MiB), 0);
	CHECK_EQ(memory_read(&mem, NULL, 12 * MiB, &byte, 1), 0);
	CHECK_EQ(byte, 0);
	memory_destroy(&mem);
}

static void test_huge(void)
{
	struct host_huge_pages host, with;
	struct error err = {0};
	uint8_t byte = 0;

	host_huge_pages(&host);
	CHECK_EQ(memory_create(&mem, 3 * MiB, MEMORY_HUGEPAGES, &err), -EINVAL);
	CHECK_EQ(memory_create(&mem, (host.available + 1) * 2 * MiB,
			       MEMORY_HUGEPAGES | MEMORY_OVERCOMMIT, &err),
		 -ENOMEM);
	CHECK(strstr(err.text, "nr_hugepages") != NULL);
	if (host.available < 8) {
		printf("memory: without reserved huge pages\n");
		return;
	}
	start(16 * MiB, MEMORY_HUGEPAGES);
	host_huge_pages(&with);
	CHECK_EQ(with.available, host.available - 8);
	CHECK_EQ(memory_set(&mem, NULL, 0, 0xcc, 16 * MiB), 0);
	CHECK_EQ(discard(0, 4 * MiB), 0);
	host_huge_pages(&with);
	CHECK_EQ(with.available, host.available - 8);
	CHECK_EQ(memory_read(&mem, NULL, MiB, &byte, 1), 0);
	CHECK_EQ(byte, 0xcc);
	memory_destroy(&mem);
	host_huge_pages(&with);
	CHECK_EQ(with.available, host.available);
}

int main(void)
{
	test_map();
	test_hole();
	test_discard(0);
	test_discard(MEMORY_SHARED);
	test_wait();
	test_transparent();
	test_gather();
	test_discard_missing(0);
	test_discard_missing(MEMORY_SHARED);
	test_huge();
	return dev_result("memory");
}
