/*
 * Code that one processor writes and others run, by the manual's handshake for cross-modifying code
 * (SDM vol. 3A, 8.1.3): the writer changes it while nobody runs it, then says so; a reader that has
 * heard it serialises (cpuid) and calls it. It must get the new code, every time.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

enum {
	PAGE = 4096,
	PAGES = 8,
	STUBS = 6, /* per page; the last one lies across the page's end */
	CALLS = 3, /* calls of each stub per version */
};

enum how { SAME, ALIAS, KERNEL, REMAP };

static struct code {
	enum how how;
	struct meeting meeting;
	char *run;   /* where it is called */
	char *write; /* where it is written */
	int file;
	bool stop;
	uint32_t version;
	char image[PAGES * PAGE + 16]; /* of the next version, for KERNEL and REMAP */
} c;

static void serialise(void)
{
	uint32_t eax = 0, ebx, ecx = 0, edx;

	asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
}

static size_t stub(unsigned page, unsigned n)
{
	return page * PAGE + (n < STUBS - 1 ? 64 + n * 640 : PAGE - 3);
}

static unsigned stubs_of(unsigned page)
{
	return page < PAGES - 1 ? STUBS : STUBS - 1;
}

static uint32_t value(uint32_t version, unsigned page, unsigned n)
{
	return version * 2654435761u + page * 131 + n;
}

static void write_stub(char *p, uint32_t v, uint32_t version)
{
	if (version % 2) { /* mov eax, imm32; ret */
		p[0] = (char)0xb8;
		memcpy(p + 1, &v, 4);
		p[5] = (char)0xc3;
	} else { /* mov eax, imm32 in two steps with a branch: another shape of block */
		uint32_t half = v - 77;

		p[0] = (char)0xb8;
		memcpy(p + 1, &half, 4);
		memcpy(p + 5, "\xeb\x01\xcc\x83\xc0\x4d\xc3",
		       7); /* jmp +1; int3; add eax, 77; ret */
	}
}

static void write_version(uint32_t version)
{
	bool direct = c.how == SAME || c.how == ALIAS;

	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned n = 0; n < stubs_of(page); n++)
			write_stub((direct ? c.write : c.image) + stub(page, n),
				   value(version, page, n), version);
	if (c.how == KERNEL && pwrite(c.file, c.image, PAGES * PAGE, 0) != PAGES * PAGE)
		abort();
	if (c.how == REMAP) {
		/* New pages at the old address: the old ones are gone, their physical pages reused.
		 */
		if (mmap(c.run, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != c.run)
			abort();
		memcpy(c.run, c.image, PAGES * PAGE);
		if (mprotect(c.run, PAGES * PAGE, PROT_READ | PROT_EXEC))
			abort();
	}
}

static void call_all(struct run *r, unsigned index, uint32_t version)
{
	for (unsigned k = 0; k < CALLS; k++)
		for (unsigned page = 0; page < PAGES; page++)
			for (unsigned n = 0; n < stubs_of(page); n++) {
				uint32_t (*f)(void) =
					(uint32_t(*)(void))(uintptr_t)(c.run + stub(page, n));
				uint32_t got = f(), should = value(version, page, n);

				if (got != should)
					wrong(r,
					      "processor %u, version %u, page %u, stub %u: %s code "
					      "(%#x, not %#x)",
					      index, version, page, n,
					      got == value(version - 1, page, n) ? "old"
										 : "foreign",
					      got, should);
			}
}

static void worker(struct run *r, unsigned index, void *arg)
{
	(void)arg;
	for (;;) {
		/* The writer goes round, so that each processor writes what all others run. */
		if (c.version % r->threads == index) {
			c.stop = !going(r);
			if (!c.stop)
				write_version(c.version);
		}
		meet(&c.meeting);
		if (c.stop)
			return;
		serialise();
		call_all(r, index, c.version);
		checked(r, CALLS * (PAGES * STUBS - 1));
		meet(&c.meeting);
		if (index == 0)
			c.version++;
		meet(&c.meeting);
	}
}

static void stress_code(struct run *r, enum how how)
{
	const int rwx = PROT_READ | PROT_WRITE | PROT_EXEC;
	const size_t size = PAGES * PAGE;

	memset(&c, 0, sizeof(c));
	c.how = how;
	c.meeting.n = r->threads;
	c.version = 1;
	if (how == SAME || how == REMAP) {
		c.run = mmap(NULL, size, rwx, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		c.write = c.run;
	} else {
		c.file = memfd_create("code", 0);
		if (c.file < 0 || ftruncate(c.file, (off_t)size))
			abort();
		c.run = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, c.file, 0);
		c.write = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, c.file, 0);
	}
	if (c.run == MAP_FAILED || c.write == MAP_FAILED)
		abort();
	in_parallel(r, r->threads, worker, NULL);
	munmap(c.run, size);
	if (c.write != c.run)
		munmap(c.write, size);
	if (c.file)
		close(c.file);
}

void stress_code_same(struct run *r)
{
	stress_code(r, SAME);
}

void stress_code_alias(struct run *r)
{
	stress_code(r, ALIAS);
}

void stress_code_kernel(struct run *r)
{
	stress_code(r, KERNEL);
}

void stress_code_remap(struct run *r)
{
	stress_code(r, REMAP);
}
