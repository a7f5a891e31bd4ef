/*
 * Guest memory: one mapping, and the one accessor through which devices, loaders and
 * the VMM reach it. Every access is translated by the second-stage MMU core: it faults pages in,
 * marks dirty what it writes, and never trusts a guest address.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "devices/device.h"
#include "mmu/missing.h"
#include "vmm/error.h"

struct guest_memory {
	int fd;	       /* memfd, sealed against shrinking and growing */
	uint8_t *host; /* the mapping: hpa n is host[n] */
	void *area;    /* what is reserved around the mapping */
	size_t area_size;
	bool hugepages;
	uint64_t size; /* bytes of RAM */
	uint64_t low;  /* RAM below the PCI hole: [0, low); the rest is at [4 GiB, 4 GiB + size -
			  low) */
	struct s2 *s2;
	struct s2_thread *vmm; /* the VMM's own registration (main thread) */
	/* Writes by others than this vCPU must drop its translated code: set by the engine's glue.
	 */
	void (*written)(void *opaque, uint64_t hpa, uint64_t len);
	void *written_opaque;
	/* Between memory_missing_start and _stop the core may say S2_MISSING. A device waits for
	 * the page that it met last; when it comes, `arrived` (any thread; it may hold locks of the
	 * core: it posts) makes the main thread call memory_arrived. The main thread's. */
	bool incomplete;
	uint64_t missing_gpa; /* what the main thread met last */
	struct memory_wait *waits;
	unsigned wait_round;
	void (*arrived)(void *opaque);
	void *arrived_opaque;
	struct memory_gather *gather; /* NULL: not begun */
};

enum memory_flags {
	MEMORY_OVERCOMMIT = 1,
	MEMORY_SHARED = 2,
	/* Of huge pages that the host has reserved (hugetlbfs): shared; all of it is taken at once,
	 * so that no access can fail later, and none is given back. */
	MEMORY_HUGEPAGES = 4,
};

/* Allocates and maps. Refuses more than the host's RAM + swap or the control group's limit, unless
 * overcommit is asked for. */
int memory_create(struct guest_memory *mem, uint64_t size, unsigned flags, struct error *err);
void memory_destroy(struct guest_memory *mem);

/* Copies through the MMU core; main thread (or with a thread's own registration t). 0, -EFAULT (not
 * RAM, or read-only), -ENOMEM, -EAGAIN (not here yet); nothing is said about partly done copies
 * then. */
int memory_read(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, void *buf, size_t len);
int memory_write(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, const void *buf,
		 size_t len);
int memory_set(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, uint8_t byte,
	       size_t len);

/* Gives the whole pages of up to MEMORY_DISCARD_MAX ranges back to the host: they read as zeroes
 * afterwards, count as written, and no vCPU has a translation or translated code from before; one
 * that is not here yet is as if it had come. Main thread, no lock held (it waits for vCPUs, once
 * for all ranges). 0; -EFAULT: one is not RAM, and nothing was done; -errno of the host: some of
 * them may be zero. Pages of hugetlbfs stay: they would not be this machine's any more when it
 * needs them again. */
enum { MEMORY_DISCARD_MAX = 256 };
int memory_discard(struct guest_memory *mem, const struct gpa_range *range, unsigned count);
/* Of memory that no vCPU has looked at yet: pages (gpa / 4096) of one piece of RAM are zero, and
 * where there are many of them the host has them back. Any thread. */
void memory_clear(struct guest_memory *mem, uint64_t page, uint64_t count);

/* How guest memory lies, in pages of guest-physical addresses; and where a page of it is. Any
 * thread. */
struct stream_memory;
void memory_layout(const struct guest_memory *mem, struct stream_memory *out);
uint8_t *memory_page(const struct guest_memory *mem, uint64_t page);

/* Pages that are not here yet: mmu/missing.h, on top of which devices wait. start:
 * s2_missing_start; stop: s2_missing_stop, and their errors. Main thread, devices included. */
int memory_missing_start(struct guest_memory *mem, const struct s2_missing_ops *ops);
int memory_missing_stop(struct guest_memory *mem);
/* Whether the host may give memory as transparent huge pages; at first it may. Not while single
 * pages come in any order: who waits for the first of a huge page would wait until all of it is
 * cleared, 0.2 ms to 10 ms. Any thread. */
void memory_allow_huge(struct guest_memory *mem, bool allow);
/* Memory that came page by page becomes huge pages again, as far as it is there, while the guest
 * runs: without them a vCPU that reads all over it is up to a third slower, and khugepaged would
 * need hours for a large guest. A thread begins with it after delay_ms, until memory_destroy(),
 * with at most a tenth of a processor; a piece may hold up who meets a new page for 0.3 ms. Where
 * the host cannot do it (Linux before 6.1) nothing happens. Main thread. */
void memory_gather(struct guest_memory *mem, int delay_ms);
/* Brings the whole pages [gpa, gpa + len): those that are not here get their part of `data` (NULL:
 * zeroes), others stay. Any thread that has a registration `t`. Returns how many pages were
 * brought; -EINVAL: not whole pages of RAM. */
int64_t memory_bring(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, const void *data,
		     uint64_t len);
/* Zero pages that nobody has written to since memory was made: the host gives none for them. */
int64_t memory_bring_untouched(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa,
			       uint64_t len);
/* Devices whose page is here by now look again. Main thread. */
void memory_arrived(struct guest_memory *mem);

/* What devices see of it (devices/device.h). The main thread's, while `mem` lives. */
struct dma_ops memory_dma(struct guest_memory *mem);

#endif
