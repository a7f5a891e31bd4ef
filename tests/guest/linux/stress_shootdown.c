/*
 * Mappings that one processor takes away while others use them. When munmap, mprotect or madvise
 * has returned, nobody may reach the old page any more, whatever his TLB remembers.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

enum { PAGE = 4096, PAGES = 16 };

static struct shootdown {
	char *area;
	_Atomic uint64_t dead; /* versions up to this one are gone for good */
	_Atomic uint64_t writes, faults;
	_Atomic bool stop;
	struct meeting all_there;
} s;

static volatile uint64_t *word(unsigned page)
{
	return (volatile uint64_t *)(s.area + page * PAGE + 8 * (page % 500));
}

/* Reads a page that may vanish: false: it was not there. */
static bool try_read(unsigned page, uint64_t *value)
{
	struct expected_fault fault = {.address = word(page)};

	if (sigsetjmp(fault.back, 0))
		return false;
	expected_fault = &fault;
	*value = *word(page);
	expected_fault = NULL;
	return true;
}

static void fill(uint64_t version)
{
	for (unsigned page = 0; page < PAGES; page++)
		*word(page) = version;
}

/* Thread 0 takes mappings away; the others read all the time. how: 0 munmap, 1 mremap, 2
 * MADV_DONTNEED, 3 MAP_FIXED over it. */
static void unmap_worker(struct run *r, unsigned index, void *arg)
{
	bool dontneed = arg != NULL;
	uint64_t version = 1, value;

	/* A hole in the address space belongs to whoever asks for memory first. A new thread's
	 * stack in it would be taken away by MAP_FIXED. */
	meet(&s.all_there);
	if (index == 0) {
		while (going(r)) {
			unsigned how = dontneed ? 2 : (unsigned[]){0, 1, 3}[version % 3];
			void *moved = MAP_FAILED;

			fill(version);
			for (unsigned i = 0; i < 300; i++)
				__builtin_ia32_pause();
			if (how == 0)
				munmap(s.area, PAGES * PAGE);
			else if (how == 1)
				moved = mremap(s.area, PAGES * PAGE, PAGES * PAGE,
					       MREMAP_MAYMOVE | MREMAP_FIXED,
					       s.area + 2 * PAGES * PAGE);
			else if (how == 2)
				madvise(s.area, PAGES * PAGE, MADV_DONTNEED);
			if (how == 1 && moved == MAP_FAILED)
				wrong(r, "mremap failed");
			if (how < 3) {
				atomic_store(&s.dead, version);
				for (unsigned i = 0; i < 300; i++)
					__builtin_ia32_pause();
			}
			if (how != 2 &&
			    mmap(s.area, PAGES * PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != s.area)
				wrong(r, "mmap failed");
			atomic_store(&s.dead, version);
			if (moved != MAP_FAILED) {
				/* What was moved must still be there, elsewhere. */
				if (((volatile uint64_t *)((char *)moved))[0] != version)
					wrong(r, "a moved page lost its content");
				munmap(moved, PAGES * PAGE);
			}
			version++;
			checked(r, 1);
		}
		atomic_store(&s.stop, true);
		return;
	}
	for (unsigned page = index; !atomic_load(&s.stop); page = (page + 1) % PAGES) {
		uint64_t dead = atomic_load(&s.dead);

		if (!try_read(page, &value)) {
			atomic_fetch_add(&s.faults, 1);
			continue;
		}
		/* Untouched new pages read as 0. */
		if (value && value <= dead)
			wrong(r, "page %u: version %lu was read after %lu had been taken away",
			      page, value, dead);
		atomic_fetch_add_explicit(&s.writes, 1, memory_order_relaxed);
	}
}

static void unmapping(struct run *r, bool dontneed)
{
	char *space = mmap(NULL, 4 * PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(&s, 0, sizeof(s));
	s.area = space;
	s.all_there.n = r->threads;
	mmap(s.area, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
	     -1, 0);
	in_parallel(r, r->threads, unmap_worker, dontneed ? &s : NULL);
	if (!s.writes)
		wrong(r, "no read ever succeeded");
	checked(r, s.writes + s.faults);
	munmap(space, 4 * PAGES * PAGE);
}

void stress_munmap(struct run *r)
{
	unmapping(r, false);
}

void stress_dontneed(struct run *r)
{
	unmapping(r, true);
}

/* Thread 0 makes pages read-only: from then on they stand still, though the others write all the
 * time. */
static void protect_worker(struct run *r, unsigned index, void *arg)
{
	uint64_t copy[PAGES][64];

	(void)arg;
	if (index == 0) {
		while (going(r)) {
			if (mprotect(s.area, PAGES * PAGE, PROT_READ))
				wrong(r, "mprotect failed");
			for (unsigned page = 0; page < PAGES; page++)
				memcpy(copy[page], s.area + page * PAGE, sizeof(copy[page]));
			for (unsigned i = 0; i < 1000; i++)
				__builtin_ia32_pause();
			for (unsigned page = 0; page < PAGES; page++)
				if (memcmp(copy[page], s.area + page * PAGE, sizeof(copy[page])))
					wrong(r, "page %u was written while it was read-only",
					      page);
			checked(r, PAGES);
			mprotect(s.area, PAGES * PAGE, PROT_READ | PROT_WRITE);
			for (unsigned i = 0; i < 1000; i++)
				__builtin_ia32_pause();
		}
		atomic_store(&s.stop, true);
		return;
	}
	for (unsigned page = index; !atomic_load(&s.stop); page = (page + 1) % PAGES) {
		volatile uint64_t *target = (uint64_t *)(s.area + page * PAGE) + index % 64;
		struct expected_fault fault = {.address = target};

		if (sigsetjmp(fault.back, 0)) {
			atomic_fetch_add(&s.faults, 1);
			continue;
		}
		expected_fault = &fault;
		(*target)++;
		expected_fault = NULL;
		atomic_fetch_add_explicit(&s.writes, 1, memory_order_relaxed);
	}
}

void stress_mprotect(struct run *r)
{
	memset(&s, 0, sizeof(s));
	s.area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	in_parallel(r, r->threads, protect_worker, NULL);
	if (!s.writes || !s.faults)
		wrong(r, "%lu writes, %lu faults: nothing was tried", s.writes, s.faults);
	checked(r, s.writes + s.faults);
	munmap(s.area, PAGES * PAGE);
}
