/*
 * The second stage of one guest: guest-physical addresses (gpa) to host addresses (hpa, an offset
 * into the owner's guest memory), in tables that are bit for bit what the hardware manuals define.
 *
 * Pure: no I/O, no engine, no device. Memory for tables and the cost of a flush are the owner's
 * (struct s2_env, struct s2_tlb_client). Several instances may live in one process.
 *
 * Threads. Every thread that translates or changes a table owns a struct s2_thread (vCPU threads,
 * device and VMM threads alike). Faults, write-protection, splitting, ageing and harvest run in
 * parallel under the read side of the instance's lock + RCU; slot changes take the write side.
 * No callback of the environment is called with an RCU read section open.
 */
#ifndef MMU_SECOND_STAGE_H
#define MMU_SECOND_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s2;
struct s2_thread;

enum s2_format { S2_EPT4, S2_EPT5 }; /* the others come with their format files */

/* Access kinds and permissions, combined by or. */
enum { S2_R = 1, S2_W = 2, S2_X = 4 };

enum s2_slot_flags {
	S2_SLOT_READONLY = 1, /* writes are S2_EMULATE */
	S2_SLOT_LOG = 2,      /* dirty tracking on (kept in step by s2_dirty_start/stop) */
};

/* Guest memory [gpa, gpa+size) lies at [hpa, hpa+size) of the owner's memory. All three are
 * multiples of 4 KiB. page_size: the largest page that backs it (4 KiB, 2 MiB, 1 GiB): no leaf is
 * larger. */
struct s2_slot {
	uint64_t gpa, size, hpa, page_size;
	uint32_t flags;
};

/* Memory for tables. alloc returns zeroed memory of `bytes` (a power of two >= 4096), aligned to
 * its size, or NULL. `pa` of a table is what entries of its parent hold: to_pa/from_pa convert. */
struct s2_env {
	void *opaque;
	void *(*alloc)(void *opaque, size_t bytes);
	void (*free)(void *opaque, void *table, size_t bytes);
	uint64_t (*to_pa)(void *opaque, const void *table);
	void *(*from_pa)(void *opaque, uint64_t pa);
};
/* aligned_alloc, identity addresses */
extern const struct s2_env s2_env_default;

struct s2_config {
	enum s2_format format;
	unsigned input_bits; /* width of a gpa: 48 with EPT4, 57 with EPT5, or fewer */
	unsigned hpa_bits;   /* entries with address bits at or above are refused (default 52) */
	bool use_ad;         /* hardware A/D bits (EPTP bit 6) */
	const struct s2_env *env; /* NULL: s2_env_default */
};

/* -EINVAL (impossible configuration; *why names the rule), -ENOMEM. */
int s2_create(struct s2 **out, const struct s2_config *config, const char **why);
/* No thread and no TLB client is registered any more. */
void s2_destroy(struct s2 *s2);

/* A thread's registration (RCU, table cache, counters). Init and exit on that thread itself;
 * `name` is kept by reference and shown in statistics. */
int s2_thread_init(struct s2_thread **out, struct s2 *s2, const char *name);
void s2_thread_exit(struct s2_thread *t);

/* Slots. Overlap, misalignment, beyond the input width: -EINVAL/-EEXIST. Removing unmaps the range
 * and waits until every TLB client has acknowledged. */
int s2_slot_add(struct s2_thread *t, const struct s2_slot *slot);
int s2_slot_remove(struct s2_thread *t, uint64_t gpa);

/* What a translation found. */
struct s2_xlat {
	uint64_t hpa;   /* of the byte asked for */
	uint32_t perm;  /* what the leaf grants now: S2_R | S2_W | S2_X */
	uint32_t level; /* of the leaf, 1 = 4 KiB */
	uint64_t entry; /* the leaf entry as read */
};

enum s2_result {
	S2_FIXED,    /* mapped (or permission given); try again or use the xlat */
	S2_SPURIOUS, /* nothing was missing (any more) */
	S2_RETRY,    /* lost a race; try again */
	S2_EMULATE,  /* no slot there, or a write to a read-only slot: MMIO */
	S2_INVALID,  /* gpa beyond the input width: the guest's error */
	S2_MISSING,  /* post-copy: the page is not here yet (issue "Live migration") */
	S2_FORWARD,  /* nested: the guest's own second stage refuses (comes with shadow contexts) */
	S2_NOMEM,    /* no memory for a table; nothing was changed */
	S2_NR_RESULTS
};

/* Lock-free walk of the tables as a TLB refill does it. true: the leaf grants `access`, *out is
 * valid. false: a fault; call s2_fault. Takes and leaves an RCU read section by itself. */
bool s2_translate(struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out);

/* Resolves a fault: maps at the largest level that fits, or gives back W and marks the page dirty.
 * On FIXED and SPURIOUS *out (may be NULL) is filled. Never blocks on a TLB client. */
enum s2_result s2_fault(struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out);

/* Range operations on [start, end) (4 KiB multiples). They change tables, then invalidate the TLB
 * clients by range, then wait for the acknowledgements (s2_sync). 0 or -errno. */
int s2_unmap(struct s2_thread *t, uint64_t start, uint64_t end);
int s2_write_protect(struct s2_thread *t, uint64_t start, uint64_t end);

/* Dirty tracking by write-protection. start: protects everything (huge leaves are split by the next
 * write), stop: undoes. harvest: fetches and clears the bits of `pages` pages from `gpa` (a multiple of
 * 64 pages) into `bitmap` (little endian, bit n = page n), protects what it cleared, waits for the
 * TLB clients, returns the number of dirty pages or -errno. A write that is granted before the
 * clearing is in this harvest, one after it is in the next: none is lost. */
int s2_dirty_start(struct s2_thread *t);
int s2_dirty_stop(struct s2_thread *t);
int64_t s2_dirty_harvest(struct s2_thread *t, uint64_t gpa, uint64_t pages, uint64_t *bitmap);
/* A write by a device or the VMM through a pointer it has translated (S2_W): marks [gpa, gpa+len). */
void s2_dirty_mark(struct s2_thread *t, uint64_t gpa, uint64_t len);

/* Whoever caches translations. invalidate: forget everything in [start, end) (end 0: all), then
 * acknowledge `generation` with s2_tlb_ack; called from the changing thread, with no lock of the
 * core held except the client list's read side; it must not wait: post a request, kick. wait: called by the
 * changing thread with no lock held, returns when generation is acknowledged (a vCPU thread serves
 * its own queue meanwhile); NULL: the core polls the acknowledged generation. */
struct s2_tlb_client {
	const char *name;
	void *opaque;
	void (*invalidate)(void *opaque, uint64_t start, uint64_t end, uint64_t generation);
	void (*wait)(void *opaque, uint64_t generation);
	/* private to the core */
	_Atomic uint64_t acked;
	struct s2_tlb_client *next;
};
void s2_tlb_client_add(struct s2_thread *t, struct s2_tlb_client *client);
void s2_tlb_client_remove(struct s2_thread *t, struct s2_tlb_client *client);
void s2_tlb_ack(struct s2_tlb_client *client, uint64_t generation);

/* The value for the control register that points hardware at the tables (EPTP; SDM vol. 3C 25.6.11). */
uint64_t s2_root(const struct s2 *s2);

/* Statistics: sums over all threads. */
struct s2_stats {
	uint64_t faults[S2_NR_RESULTS];
	uint64_t pages[5];  /* leaves per level: [1] 4 KiB, [2] 2 MiB, [3] 1 GiB */
	uint64_t tables, splits, collapses, invalidations, retries, deferred_frees;
};
void s2_get_stats(struct s2 *s2, struct s2_stats *stats);

#endif
