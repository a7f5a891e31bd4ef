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
 * No callback (but to_pa and from_pa) is called with an RCU read section open.
 */
#ifndef MMU_SECOND_STAGE_H
#define MMU_SECOND_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s2;
struct s2_thread;

/* x86: EPT and nested paging, 4 and 5 levels. arm64 stage 2: levels and root follow from the input
 * width. RISC-V G-stage. */
enum s2_format {
	S2_EPT4,
	S2_EPT5,
	S2_NPT4,
	S2_NPT5,
	S2_ARM64_4K,
	S2_ARM64_16K,
	S2_ARM64_64K,
	S2_SV32X4,
	S2_SV39X4,
	S2_SV48X4,
	S2_SV57X4,
	S2_NR_FORMATS
};

/* What the hardware that walks the tables can do beyond the least, each for the formats that it
 * names (others refuse it); and a policy. */
enum s2_options {
	S2_OPT_EXEC_ONLY =
		1, /* EPT: X without R (IA32_VMX_EPT_VPID_CAP bit 0); others need no option */
	S2_OPT_VMID16 = 2,   /* arm64: VMIDs of 16 bits, not 8 (ID_AA64MMFR1_EL1.VMIDBits) */
	S2_OPT_PBMT = 4,     /* RISC-V but Sv32x4: Svpbmt */
	S2_OPT_NAPOT = 8,    /* the same: Svnapot */
	S2_OPT_NX_HUGE = 16, /* policy, all: large leaves are not executable, see s2_nx_recover */
};

/* Access kinds and permissions, combined by or. */
enum { S2_R = 1, S2_W = 2, S2_X = 4 };

enum s2_slot_flags {
	S2_SLOT_READONLY = 1, /* writes are S2_EMULATE */
	/* Dirty tracking on: kept in step by s2_dirty_start and stop. Given to s2_slot_add, this
	 * slot alone is tracked from its beginning, until tracking is stopped that was started. */
	S2_SLOT_LOG = 2,
};

/* Guest memory [gpa, gpa+size) lies at [hpa, hpa+size) of the owner's memory. All three are
 * multiples of the smallest page (s2_level_size of level 1). page_size: the largest page that backs
 * it, a power of two: no leaf is larger. */
struct s2_slot {
	uint64_t gpa, size, hpa, page_size;
	uint32_t flags;
};

/* Memory for tables, slots and dirty bitmaps. alloc returns zeroed memory of `bytes` (a power of
 * two >= 4096), aligned to its size, or NULL; it and free may block, and are never called inside a
 * fault's or a walk's critical section. `pa` of a table is what entries of its parent hold:
 * to_pa/from_pa convert, within critical sections: pure arithmetic. Both NULL: the identity, and
 * the fastest. It must fit into hpa_bits: a page that does not is given back to free, and is to the
 * caller what no memory is (s2_create says -ERANGE). */
struct s2_env {
	void *opaque;
	void *(*alloc)(void *opaque, size_t bytes);
	void (*free)(void *opaque, void *table, size_t bytes);
	uint64_t (*to_pa)(void *opaque, const void *table);
	void *(*from_pa)(void *opaque, uint64_t pa);
};
/* aligned_alloc, identity addresses: of a process, about 47 bits wide. */
extern const struct s2_env s2_env_default;

struct s2_config {
	enum s2_format format;
	unsigned input_bits; /* width of a gpa; 0: the format's widest; arm64: 32..52, 0: 40 */
	unsigned hpa_bits;   /* wider host addresses are refused, of slots and of table pages;
			      * 0: 52; arm64: 48, or 52 if the input needs it; Sv32x4: 34, other
			      * RISC-V: 56 */
	bool use_ad;	     /* hardware sets A/D bits: EPTP bit 6, VTCR_EL2.HA, Svadu */
	unsigned options;    /* enum s2_options */
	/* arm64 (ID_AA64MMFR2_EL1.BBM), how a block becomes a table: 0 by way of an invalid entry
	 * and a flush; 1 by way of nT and a flush; 2 in place, then a flush. Others: 0, and no
	 * flush at all. */
	unsigned bbm_level;
	const struct s2_env *env; /* NULL: s2_env_default; else outlives the instance */
};

/* -EINVAL (impossible configuration), -ERANGE (the first table page that env.alloc gave lies above
 * hpa_bits), -ENOMEM; *why (may be NULL) names the rule, until the thread's next failing call. */
int s2_create(struct s2 **out, const struct s2_config *config, const char **why);
/* No thread and no TLB client is registered any more. */
void s2_destroy(struct s2 *s2);

/* A thread's registration (table cache, counters, place in the lock). Used by one thread at a time;
 * which one may change while no call is open. `name` is kept by reference and shown in statistics.
 * -ENOMEM; -EUSERS: 512 are registered (Sv32x4: 64). */
int s2_thread_init(struct s2_thread **out, struct s2 *s2, const char *name);
void s2_thread_exit(struct s2_thread *t);

/* Slots. -EINVAL: misaligned, empty, an unknown page_size, beyond the input width or hpa_bits;
 * -EEXIST: overlaps one; -ENOMEM. While dirty tracking is on, a new slot is tracked and clean.
 * Removing (-ENOENT: no slot starts at gpa; -EBUSY: a page of it is lent or borrowed, sharing.h)
 * makes faults S2_EMULATE at once, unmaps the range and waits until every TLB client has
 * acknowledged; only then is the range free for another slot. */
int s2_slot_add(struct s2_thread *t, const struct s2_slot *slot);
int s2_slot_remove(struct s2_thread *t, uint64_t gpa);

/* What a translation found. */
struct s2_xlat {
	uint64_t hpa;	/* of the byte asked for */
	uint32_t perm;	/* what the leaf grants now: S2_R | S2_W | S2_X */
	uint32_t level; /* of the leaf, 1 = the smallest */
	uint64_t entry; /* the leaf entry as read */
};

enum s2_result {
	S2_FIXED,    /* mapped (or permission given); try again or use the xlat */
	S2_SPURIOUS, /* nothing was missing (any more) */
	S2_RETRY,    /* lost a race; serve pending TLB invalidations, then try again */
	S2_EMULATE,  /* no slot there, or a write to a read-only slot: MMIO */
	S2_INVALID,  /* gpa beyond the input width: the guest's error */
	S2_MISSING,  /* post-copy: the page is not here yet (missing.h) */
	S2_FORWARD,  /* nested (shadow.h): the guest's own second stage refuses */
	S2_NOMEM,    /* no memory for a table; nothing was changed */
	S2_NR_RESULTS
};

const char *s2_result_name(enum s2_result result);

/* Bytes that a leaf of this level maps. */
uint64_t s2_level_size(const struct s2 *s2, uint32_t level);

/* Lock-free walk of the tables as a TLB refill does it. true: the leaf grants `access`, *out is
 * valid. false: a fault; call s2_fault. Takes and leaves an RCU read section by itself, if the
 * thread is no TLB client's. */
bool s2_translate(struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out);

/* Resolves a fault: maps at the largest level that fits, or gives back W and marks the page dirty.
 * On FIXED and SPURIOUS *out (may be NULL) is filled. Never blocks on a TLB client, except where
 * arm64 splits a block: there it flushes and waits as range operations do. */
enum s2_result s2_fault(struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out);

/* Range operations on [start, end) (multiples of the smallest page; end 0: the end of the input
 * space). They change tables, then invalidate the TLB clients by range, then wait for the
 * acknowledgements. They allocate nothing. A leaf that reaches beyond the range is unmapped or
 * protected as a whole; later faults bring the rest back. 0, or -EINVAL. When unmap returns, no
 * client uses a translation that it got before the call (in an order that both threads know of: a
 * lock, a message; the core makes none between them); the slot stays, so a later access faults and
 * is mapped again. */
int s2_unmap(struct s2_thread *t, uint64_t start, uint64_t end);
/* Many at the price of one wait. On -EINVAL nothing was unmapped; the array's content is lost. */
struct s2_range {
	uint64_t start, end;
};
int s2_unmap_ranges(struct s2_thread *t, struct s2_range *range, size_t n);
int s2_write_protect(struct s2_thread *t, uint64_t start, uint64_t end);

/* Splits every leaf of [start, end) that is larger than a leaf of `level` into leaves of `level`,
 * which keep permissions, accessed and dirty bits, memory type and software bits. In pieces:
 * between them no lock is held and the thread's cache of tables is filled again. Leaves that reach
 * beyond the range are split where they overlap it. arm64 flushes as bbm_level wants, once for
 * several blocks, and waits. 0; -EINVAL (range, or a level without leaves); -ENOMEM: what was split
 * until then stays so, the rest is as it was. */
int s2_split(struct s2_thread *t, uint64_t start, uint64_t end, uint32_t level);
/* The other way round, in place: a table whose entries are leaves that continue each other becomes
 * one leaf, as large as s2_fault would map there (slot, congruence, page_size, no tracking). They
 * must agree in R and X, memory type and software bits; W is in the large leaf if it is in all
 * (else its next write fault brings it back, for all of it). Large leaves are not made executable
 * with S2_OPT_NX_HUGE. Flushes and waits, once for many tables. Allocates nothing. The number of
 * leaves made, or -EINVAL. */
int64_t s2_collapse(struct s2_thread *t, uint64_t start, uint64_t end);

/* S2_OPT_NX_HUGE: an execute fault maps (or splits off) one small page, and the block that is not
 * one leaf because of that is put on a list, once. recover unmaps the oldest 1/share of the list,
 * rounded up (share 0: nothing), so that they may become large again; call it once a period. Blocks
 * that are not small any more leave the list on the way and are not counted in; those of a slot
 * leave it with their slot. Does nothing while dirty tracking is on. Returns how many. Without
 * memory for the list the block is executed all the same, and stays small until it is unmapped. */
int64_t s2_nx_recover(struct s2_thread *t, unsigned share);
/* Length of the list. */
uint64_t s2_nx_splits(struct s2 *s2);

/* Ageing: which pages of [start, end) have been used since this was asked last. The number of pages
 * of 4 KiB (whatever the format's smallest) in leaves that were, or -EINVAL; with `bitmap`, bit n
 * (little endian) is the page start + n * 4 KiB. Unless S2_AGE_TEST, they are unused afterwards:
 * their next use sets A, or faults and is FIXED without a wait; what the leaf grants, dirty
 * tracking and states of pages stay as they are. A leaf is used, or not, as a whole: one that
 * reaches beyond the range becomes unused there, too. What another thread is just changing counts
 * as unused and stays as it is.
 *
 * Without S2_AGE_FLUSH nothing is flushed: uses through what a TLB holds are not seen until it
 * drops it. That is what operating systems do with hardware's A bits; a software TLB, whose entries
 * live long, needs the flush. Two cases flush anyway: EPT without use_ad has no A bits, and ageing
 * takes permissions there; and nested guests (shadow.h), whose shadows follow. */
enum s2_age_flags {
	S2_AGE_TEST = 1,  /* only look */
	S2_AGE_FLUSH = 2, /* when it returns, every further use will be seen */
};
int64_t s2_age(struct s2_thread *t, uint64_t start, uint64_t end, unsigned flags, uint64_t *bitmap);

/* Dirty tracking, by page of 4 KiB whatever the format's smallest (all bits of a larger page are
 * set). One mechanism: what may be written without a fault is dirty, or becomes so by itself.
 *
 * start: from its return, every write is reported. -EALREADY, -ENOMEM; -EINVAL: *why (may be NULL)
 * names the rule. s2_dirty_start is start_with without options: write-protection, huge leaves are
 * split by the next write to them.
 * stop: drops the bits and rings; leaves get W back by their next write fault, as huge as they are.
 *
 * harvest: fetches and clears the bits of `pages` pages from `gpa` (a multiple of 64 pages) into
 * `bitmap` (little endian, bit n = page n), protects what it cleared, waits for the TLB clients,
 * returns the number of dirty pages or -EINVAL. Pages that no tracked slot holds are clean. A write
 * that is granted before the clearing is in this harvest, one after it is in the next: none is
 * lost. A clean range costs next to nothing (but with S2_DIRTY_DBIT, which reads the leaves). */
enum s2_dirty_flags {
	/* Large leaves are split by start, and not by the first write to each of them. Lack of
	 * memory is no error: faults split what is left. */
	S2_DIRTY_EAGER = 1,
	/* Hardware's dirty bits tell (use_ad, and a format that has them: EPT, NPT, RISC-V): small
	 * leaves stay writable, harvest clears D. A software TLB gets W only of a leaf with D: the
	 * fault sets it. */
	S2_DIRTY_DBIT = 2,
	/* harvest only reads: it clears and protects nothing and does not wait. Bits are cleared
	 * by s2_dirty_reprotect, before the pages are copied; others are reported again. */
	S2_DIRTY_MANUAL = 4,
	/* stop ends with s2_collapse of everything. */
	S2_DIRTY_COLLAPSE = 8,
};
struct s2_dirty_options {
	unsigned flags;	       /* enum s2_dirty_flags */
	unsigned ring_entries; /* rings, see below: of so many entries (a power of two, 64 or more);
				* 0: none */
	unsigned ring_soft;    /* s2_ring_full from so many used entries; 0: three quarters */
};
int s2_dirty_start_with(struct s2_thread *t, const struct s2_dirty_options *options,
			const char **why);
int s2_dirty_start(struct s2_thread *t);
int s2_dirty_stop(struct s2_thread *t);
int64_t s2_dirty_harvest(struct s2_thread *t, uint64_t gpa, uint64_t pages, uint64_t *bitmap);
/* With S2_DIRTY_MANUAL (and without, harmless): clears those bits that are set in `bitmap`, and
 * protects their pages; when it returns, no client writes there without a new bit. gpa and pages
 * as of harvest. The number of pages that were dirty, or -EINVAL. */
int64_t s2_dirty_reprotect(struct s2_thread *t, uint64_t gpa, uint64_t pages,
			   const uint64_t *bitmap);

/* Dirty rings (ring_entries; not with S2_DIRTY_DBIT). Every thread has one, from start to stop. A
 * fault that gives W, and s2_dirty_mark, put the page into the ring of the calling thread instead
 * of its bit into the bitmap; a page is there once for each time that it was protected and written
 * again. An entry is free, dirty, or harvested:
 *
 *	free --- fault, mark ---> dirty --- s2_ring_harvest ---> harvested --- s2_ring_reset --->
 *free
 *
 * s2_ring_full: the calling thread's ring is soft-full: a vCPU stops running its guest until
 * somebody has reset the rings. One that goes on (and a device, which cannot wait) loses nothing:
 * when all is used, pages go into the bitmap, and s2_dirty_harvest brings them; so do the entries
 * of a thread that leaves.
 *
 * harvest: up to `max` pages (addresses of the format's smallest page) of all rings; their number.
 * reset: protects the pages of all harvested entries, waits for the TLB clients, and only then may
 * the pages be copied; the number of entries. */
int64_t s2_ring_harvest(struct s2_thread *t, uint64_t *gpa, size_t max);
int64_t s2_ring_reset(struct s2_thread *t);
bool s2_ring_full(const struct s2_thread *t);

/* How fast a thread dirties memory: pages that were clean before (a page may count again after each
 * harvest), while tracking is on. `dirtied`: the sum so far, from any thread. rate: pages per
 * second between the last call and this one; the caller keeps the state (zeroed at first: then the
 * result is 0) and brings the time. Calls less than a millisecond apart return the last rate. */
struct s2_dirty_rate {
	uint64_t pages, ns, rate;
};
uint64_t s2_dirtied(const struct s2_thread *t);
uint64_t s2_dirty_rate(const struct s2_thread *t, struct s2_dirty_rate *state, uint64_t now_ns);

/* After a write by a device or the VMM through a pointer it has translated (S2_W): marks
 * [gpa, gpa+len). Call it when the data is written, not before. Does nothing outside slots and
 * while tracking is off. */
void s2_dirty_mark(struct s2_thread *t, uint64_t gpa, uint64_t len);

/* Whoever caches translations. invalidate: forget everything in [start, end) (end 0: all), then
 * acknowledge `generation` with s2_tlb_ack; called from the changing thread, with locks of the
 * core held; it must not wait nor call the core (but s2_tlb_ack): post a request, kick. The client
 * acknowledges between a translation and the next, never between s2_translate or s2_fault and the
 * filling of its cache. wait: called by the changing thread with no lock held, returns when
 * s2_tlb_acked (a vCPU thread serves its own queue meanwhile; it starts no other range operation
 * there); NULL: the core polls, and the client's own thread calls nothing that waits: no range
 * operation, no fault that may split a block of arm64. */
struct s2_tlb_client {
	const char *name;
	void *opaque;
	void (*invalidate)(void *opaque, uint64_t start, uint64_t end, uint64_t generation);
	void (*wait)(void *opaque, uint64_t generation);
	/* The same as invalidate for nested translations, which the client holds under the tags of
	 * shadow contexts (shadow.h): [start, end) are nested addresses. NULL: it holds none. */
	void (*invalidate_tag)(void *opaque, uint32_t tag, uint64_t start, uint64_t end,
			       uint64_t generation);
	bool coarse; /* drops everything, whatever the range: counted */
	/* The thread that fills this client's cache, if the same does: the client acknowledges
	 * between two of its translations and never within one, so whoever waits for the client
	 * has waited for the thread's walks, too, and these need no RCU read section. In no call
	 * while the client is added or removed. NULL: any. */
	struct s2_thread *thread;
	/* private to the core */
	_Atomic uint64_t acked;
	_Atomic uint32_t waiters;
	struct s2_tlb_client *next;
};
/* add: the client starts empty. remove: it has forgotten everything; threads that wait for it are
 * let go (s2_tlb_acked is true from then on), and the client's memory may be reused. */
void s2_tlb_client_add(struct s2_thread *t, struct s2_tlb_client *client);
void s2_tlb_client_remove(struct s2_thread *t, struct s2_tlb_client *client);
/* Acknowledges this generation and all before it. Generations reach invalidate in rising order. */
void s2_tlb_ack(struct s2_tlb_client *client, uint64_t generation);
/* For a client's wait function. */
bool s2_tlb_acked(struct s2_tlb_client *client, uint64_t generation);

/* The values that point hardware at the tables. root: EPTP (SDM vol. 3C 25.6.11), nCR3, VTTBR_EL2
 * or hgatp; control: VTCR_EL2, else 0. vmid: of arm64 and RISC-V, else 0. -EINVAL: it is too wide.
 */
struct s2_registers {
	uint64_t root, control;
};
int s2_registers(const struct s2 *s2, unsigned vmid, struct s2_registers *out);
/* Its root, with VMID 0: all that EPT and NPT need. */
uint64_t s2_root(const struct s2 *s2);
/* The format's name: "ept4", "sv39x4"; that of an instance's. */
const char *s2_format_name(enum s2_format format);
const char *s2_name(const struct s2 *s2);

/* Statistics: sums over all threads. A few of the counters below, for callers (tests, benchmarks)
 * that compute with them and do not want to look for names. */
struct s2_stats {
	uint64_t faults[S2_NR_RESULTS];
	uint64_t pages[6]; /* leaves per level, [1] the smallest; sizes: s2_level_size */
	uint64_t tables, splits, collapses, invalidations, retries, deferred_frees;
};
void s2_get_stats(struct s2 *s2, struct s2_stats *stats);

/* All of them, by name (groups divided by dots: "faults.fixed", "pages.2M"), in the order of the
 * table in mmu/stats.h. Names stay while show runs. s2_counter_row: the table's rows, without
 * instance and values; false after the last. */
enum s2_counter_kind {
	S2_COUNTER, /* only grows */
	S2_GAUGE,   /* what is there now */
};
struct s2_counter {
	const char *name, *help;
	enum s2_counter_kind kind;
	uint64_t value;
};
void s2_stats_each(struct s2 *s2, void (*show)(void *opaque, const struct s2_counter *counter),
		   void *opaque);
bool s2_counter_row(unsigned i, struct s2_counter *out);

#endif
