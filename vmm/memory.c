#include "vmm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migration/stream_memory.h"
#include "vmm/host.h"
#include "vmm/memory_missing.h"

enum { PAGE = 4096, HUGE = 2 << 20 };
#define PCI_HOLE (3ull << 30) /* RAM ends here at the latest; the rest continues at 4 GiB */
#define FOUR_GIB (4ull << 30)

static int check_host(uint64_t size, struct error *err)
{
	struct host_memory host;

	host_memory(&host);
	if (host.limit && size > host.limit)
		return error_set(
			err, -ENOMEM,
			"--memory: %llu MiB are more than this control group's limit of %llu MiB; "
			"ask for less, or add ,overcommit",
			(unsigned long long)size >> 20, (unsigned long long)host.limit >> 20);
	if (size > host.ram + host.swap)
		return error_set(err, -ENOMEM,
				 "--memory: %llu MiB are more than this host's RAM and swap (%llu "
				 "MiB); ask for "
				 "less, or add ,overcommit",
				 (unsigned long long)size >> 20,
				 (unsigned long long)(host.ram + host.swap) >> 20);
	return 0;
}

/* Whether shared memory gets transparent huge pages: by default it does not, anonymous memory does.
 */
static bool shared_huge_pages(void)
{
	char line[128] = "";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");

	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = '\0';
		fclose(f);
	}
	return line[0] && !strstr(line, "[never]") && !strstr(line, "[deny]");
}

static int open_file(struct guest_memory *mem, struct error *err)
{
	const unsigned huge = mem->hugepages ? MFD_HUGETLB | MFD_HUGE_2MB : 0;

	mem->fd = (int)syscall(SYS_memfd_create, "ferry-guest",
			       MFD_CLOEXEC | MFD_ALLOW_SEALING | huge);
	if (mem->fd < 0)
		return error_set(err, -errno, "cannot make guest memory (memfd_create): %s",
				 strerror(errno));
	if (ftruncate(mem->fd, (off_t)mem->size))
		return error_set(err, -errno, "cannot size guest memory to %llu MiB: %s",
				 (unsigned long long)mem->size >> 20, strerror(errno));
	/* Nobody who holds the descriptor can make an access fault by shrinking it. */
	if (fcntl(mem->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		return error_set(err, -errno, "cannot seal guest memory: %s", strerror(errno));
	return 0;
}

static int no_huge_pages(const struct guest_memory *mem, int code, struct error *err)
{
	const uint64_t want = mem->size / HUGE;
	struct host_huge_pages host;

	host_huge_pages(&host);
	if (host.available >= want)
		return error_set(
			err, code,
			"--memory: cannot take %llu huge pages, though the host has them: %s "
			"(the hugetlb limit of this control group?)",
			(unsigned long long)want, strerror(-code));
	return error_set(
		err, code,
		"--memory: %llu MiB need %llu huge pages of 2 MiB, and the host has %llu to "
		"give; as root: echo %llu >/proc/sys/vm/nr_hugepages, or leave out ,hugepages",
		(unsigned long long)mem->size >> 20, (unsigned long long)want,
		(unsigned long long)host.available,
		(unsigned long long)(host.reserved + want - host.available));
}

static int map(struct guest_memory *mem, bool shared, struct error *err)
{
	const size_t align = HUGE;
	uint8_t *area, *host;
	int ret;

	if (shared) {
		ret = open_file(mem, err);
		if (ret)
			return ret;
	}
	/* Huge pages need host and guest addresses that agree modulo 2 MiB: reserve more, map
	 * inside. */
	area = mmap(NULL, mem->size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (area == MAP_FAILED)
		return error_set(err, -errno,
				 "cannot reserve addresses for %llu MiB of guest memory: %s",
				 (unsigned long long)mem->size >> 20, strerror(errno));
	host = (uint8_t *)(((uintptr_t)area + align - 1) & ~(uintptr_t)(align - 1));
	mem->area = area;
	mem->area_size = mem->size + align;
	if (mmap(host, mem->size, PROT_READ | PROT_WRITE,
		 MAP_FIXED | (mem->hugepages ? 0 : MAP_NORESERVE) |
			 (shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS),
		 mem->fd, 0) == MAP_FAILED) {
		if (mem->hugepages)
			return no_huge_pages(mem, -errno, err);
		return error_set(err, -errno, "cannot map %llu MiB of guest memory: %s",
				 (unsigned long long)mem->size >> 20, strerror(errno));
	}
	/* A page that is only promised can still be refused, by a control group: with SIGBUS. */
	if (mem->hugepages && fallocate(mem->fd, 0, 0, (off_t)mem->size))
		return no_huge_pages(mem, -errno, err);
	mem->host = host;
	memory_allow_huge(mem, true);
	(void)madvise(mem->host, mem->size, MADV_DONTDUMP);
	return 0;
}

static int add_slots(struct guest_memory *mem)
{
	struct s2_slot slot = {.gpa = 0, .size = mem->low, .hpa = 0, .page_size = 2 << 20};
	int ret = s2_slot_add(mem->vmm, &slot);

	if (ret || mem->size == mem->low)
		return ret;
	slot = (struct s2_slot){.gpa = FOUR_GIB,
				.size = mem->size - mem->low,
				.hpa = mem->low,
				.page_size = 2 << 20};
	return s2_slot_add(mem->vmm, &slot);
}

int memory_create(struct guest_memory *mem, uint64_t size, unsigned flags, struct error *err)
{
	const struct s2_config config = {.format = S2_EPT4, .input_bits = 48};
	const char *why = "";
	int ret;

	*mem = (struct guest_memory){
		.fd = -1,
		.hugepages = flags & MEMORY_HUGEPAGES,
		.size = size,
		.low = size < PCI_HOLE ? size : PCI_HOLE,
	};
	if (mem->hugepages && size % HUGE)
		return error_set(err, -EINVAL,
				 "--memory: with ,hugepages a multiple of 2M is needed");
	if (!(flags & MEMORY_OVERCOMMIT)) {
		ret = check_host(size, err);
		if (ret)
			return ret;
	}
	ret = map(mem, (flags & (MEMORY_SHARED | MEMORY_HUGEPAGES)) || shared_huge_pages(), err);
	if (ret)
		goto fail;
	ret = s2_create(&mem->s2, &config, &why);
	if (ret) {
		error_set(err, ret, "cannot make second-stage tables: %s", why);
		goto fail;
	}
	ret = s2_thread_init(&mem->vmm, mem->s2, "vmm");
	if (!ret)
		ret = add_slots(mem);
	if (ret) {
		error_set(err, ret, "cannot lay out guest memory: %s", strerror(-ret));
		goto fail;
	}
	return 0;
fail:
	memory_destroy(mem);
	return ret;
}

void memory_destroy(struct guest_memory *mem)
{
	memory_gather_end(mem);
	if (mem->vmm)
		s2_thread_exit(mem->vmm);
	if (mem->s2)
		s2_destroy(mem->s2);
	if (mem->area)
		munmap(mem->area, mem->area_size);
	if (mem->fd >= 0)
		close(mem->fd);
	*mem = (struct guest_memory){.fd = -1};
}

/* 0 and where it is; *rest: bytes from there to the leaf's end. */
static int translate(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, uint32_t access,
		     uint64_t *hpa, uint64_t *rest)
{
	struct s2_xlat x;

	while (!s2_translate(t, gpa, access, &x)) {
		enum s2_result result = s2_fault(t, gpa, access, &x);

		if (result == S2_FIXED || result == S2_SPURIOUS)
			break;
		switch (result) {
		case S2_RETRY: continue;
		case S2_MISSING:
			if (t == mem->vmm)
				mem->missing_gpa = gpa;
			return -EAGAIN;
		case S2_NOMEM: return -ENOMEM;
		default: return -EFAULT;
		}
	}
	*hpa = x.hpa;
	*rest = s2_level_size(mem->s2, x.level);
	*rest -= gpa & (*rest - 1);
	return 0;
}

enum copy { COPY_OUT, COPY_IN, FILL };

static int copy(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, void *buf, size_t len,
		enum copy how, uint8_t byte)
{
	uint8_t *p = buf;

	while (len) {
		uint64_t hpa, rest;
		uint8_t *host;
		size_t n;
		int ret = translate(mem, t, gpa, how == COPY_OUT ? S2_R : S2_W, &hpa, &rest);

		if (ret)
			return ret;
		n = rest < len ? rest : len;
		host = mem->host + hpa;
		if (how == COPY_OUT) {
			memcpy(p, host, n);
		} else {
			if (how == COPY_IN)
				memcpy(host, p, n);
			else
				memset(host, byte, n);
			s2_dirty_mark(t, gpa, n);
			if (mem->written)
				mem->written(mem->written_opaque, hpa, n);
		}
		gpa += n;
		len -= n;
		if (p)
			p += n;
	}
	return 0;
}

int memory_read(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, void *buf, size_t len)
{
	return copy(mem, t ? t : mem->vmm, gpa, buf, len, COPY_OUT, 0);
}

int memory_write(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, const void *buf,
		 size_t len)
{
	return copy(mem, t ? t : mem->vmm, gpa, (void *)(uintptr_t)buf, len, COPY_IN, 0);
}

int memory_set(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, uint8_t byte,
	       size_t len)
{
	return copy(mem, t ? t : mem->vmm, gpa, NULL, len, FILL, byte);
}

/* ---- for migration ---- */

void memory_layout(const struct guest_memory *mem, struct stream_memory *out)
{
	*out = (struct stream_memory){0};
	stream_memory_add(out, 0, mem->low / PAGE);
	if (mem->size > mem->low)
		stream_memory_add(out, FOUR_GIB / PAGE, (mem->size - mem->low) / PAGE);
}

uint8_t *memory_page(const struct guest_memory *mem, uint64_t page)
{
	const uint64_t gpa = page * PAGE;

	return mem->host + (gpa < mem->low ? gpa : gpa - FOUR_GIB + mem->low);
}

/* ---- for devices ---- */

static int dma_map(void *opaque, uint64_t gpa, size_t *len, bool write, void **out)
{
	struct guest_memory *mem = opaque;
	const uint32_t access = write ? S2_W : S2_R;
	const size_t want = *len;
	uint64_t first, hpa, rest, done;
	int ret = translate(mem, mem->vmm, gpa, access, &first, &rest);

	if (ret)
		return ret;
	/* Leaf by leaf, as long as host memory goes on; what stops it is found again by whoever
	 * asks for the rest. */
	for (done = rest; done < want; done += rest)
		if (gpa + done < gpa || translate(mem, mem->vmm, gpa + done, access, &hpa, &rest) ||
		    hpa != first + done)
			break;
	*len = done < want ? done : want;
	*out = mem->host + first;
	return 0;
}

static void dma_written(void *opaque, uint64_t gpa, size_t len)
{
	struct guest_memory *mem = opaque;

	s2_dirty_mark(mem->vmm, gpa, len);
	/* Code that was made of it since it was mapped goes, also where it is write-protected now.
	 */
	while (len && mem->written) {
		uint64_t hpa, rest;

		if (translate(mem, mem->vmm, gpa, S2_R, &hpa, &rest))
			return; /* not RAM: nothing was written there */
		if (rest > len)
			rest = len;
		mem->written(mem->written_opaque, hpa, rest);
		gpa += rest;
		len -= rest;
	}
}

static bool dma_here(void *opaque, uint64_t gpa, uint64_t len)
{
	struct guest_memory *mem = opaque;
	uint64_t hpa, rest;
	bool here = true;

	if (!mem->incomplete)
		return true;
	for (uint64_t at = 0; at < len; at += rest) {
		int ret = translate(mem, mem->vmm, gpa + at, S2_R, &hpa, &rest);

		if (ret == -EAGAIN)
			here = false;
		if (ret)
			rest = PAGE - ((gpa + at) & (PAGE - 1));
	}
	return here;
}

struct dma_ops memory_dma(struct guest_memory *mem)
{
	return (struct dma_ops){.map = dma_map,
				.written = dma_written,
				.here = dma_here,
				.wait = memory_wait,
				.wait_not = memory_wait_not,
				.opaque = mem};
}
