/*
 * Shadow contexts: the second stage of a guest's own guest, beside second_stage.h.
 *
 * The guest (L1) of an instance runs a guest of its own (L2) and has a second stage for it, in
 * tables that lie in guest memory: nested addresses (ngpa) to guest-physical ones (gpa). Hardware
 * walks one second stage only, so what it gets is the composition ngpa -> gpa -> hpa: a shadow, in
 * the instance's format, built one fault at a time, thrown away at any moment like a TLB, and built
 * again by the next fault.
 *
 * A context is the shadow of one guest root, found by {VMID, root, control}. Each has a TLB tag of
 * its own. They are counted, referenced by who runs in them, and recycled, round robin, when nobody
 * does. A map from gpa to the shadow leaves that use it keeps them in line with the instance's own
 * tables: s2_unmap, s2_write_protect, harvests and slot changes take from the shadows just what
 * they take from the tables (range operations look for shadows; faults and translations of the
 * guest itself do not).
 *
 * Threads: as in second_stage.h. Nested faults run in parallel; invalidations of either stage hold
 * the instance's lock exclusively for a moment. Levels count from the leaves, 1 = the smallest
 * (arm64's level is 4 - level).
 */
#ifndef MMU_SHADOW_H
#define MMU_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/second_stage.h"

struct s2_shadows; /* all contexts of an instance */
struct s2_context; /* one of them */

/* How the tables of the guest's second stage are read: by host address, after the instance has
 * translated theirs. Called in no critical section, at once after the translation; whoever may take
 * guest memory away meanwhile waits for the calling thread's TLB client. */
struct s2_guest_memory {
	void *opaque;
	/* One aligned entry of 4 or 8 bytes, read at once. */
	uint64_t (*load)(void *opaque, uint64_t hpa, unsigned bytes);
	/* Replaces it if it is `old` still. NULL: the guest's hardware sets no A/D bits. */
	bool (*cas)(void *opaque, uint64_t hpa, unsigned bytes, uint64_t old, uint64_t value);
};

struct s2_shadow_config {
	/* The guest's second stage, as the guest was told: its registers may ask for no more.
	 * EPT4: 4 levels; EPT5: 4 or 5. Sv39x4, Sv48x4, Sv57x4: this mode, or one of fewer levels.
	 * Sv32x4: only itself. arm64: any granule that is no smaller than the instance's, since
	 * VTCR_EL2 chooses; LPA and LPA2 with gpa_bits above 48 only.
	 * A shadow has the levels of the guest's stage. To name more of them than the instance has
	 * is to say that what walks its shadows has them, too. Nested paging is the exception: no
	 * register says the levels, so shadows have the instance's, and the guest's are no more. */
	enum s2_format guest;
	unsigned options; /* enum s2_options that the guest was told it has */
	/* RISC-V: the guest was told that its hardware sets A/D (Svadu). EPT and arm64 ask for it
	 * in the root's registers, NPT always has it. Needs memory.cas. */
	bool use_ad;
	unsigned gpa_bits; /* the guest's physical width; 0: the instance's input width */
	/* Bounds. contexts: two for each vCPU are good, 0: 16; leaves: 0: 65536, 48 bytes each,
	 * taken at creation; tables: 0: as many as leaves / 8, but no fewer than 64. What one
	 * instruction of the guest's guest may touch has to fit: some dozens of each, at least. */
	unsigned contexts;
	size_t leaves, tables;
	unsigned first_tag; /* tags are first_tag .. first_tag + contexts - 1 */
	struct s2_guest_memory memory;
};

/* -EINVAL (*why names the rule: not the same family of formats, permissions that the instance's
 * format cannot express), -EALREADY (the instance has shadows), -ENOMEM. */
int s2_shadows_create(struct s2_shadows **out, struct s2_thread *t,
		      const struct s2_shadow_config *config, const char **why);
/* No context is referenced any more. Before s2_destroy. */
void s2_shadows_destroy(struct s2_thread *t, struct s2_shadows *shadows);

/* What the guest's hypervisor has loaded. arm64 and RISC-V have the VMID in `root`, and vmid is not
 * looked at; x86: nested paging: the ASID; EPT: 0. off: no second stage (HCR_EL2.VM 0, hgatp Bare):
 * ngpa = gpa; the context is found by its VMID alone. */
struct s2_guest_root {
	uint64_t root, control; /* as in struct s2_registers */
	uint32_t vmid;
	bool off;
};

/* The context of this root, with a reference that holds its tables' root in place. A context that
 * nobody references may be emptied and recycled for it: this waits for TLB clients.
 * -EINVAL: the registers are impossible (*why, may be NULL, names the rule), -EBUSY: all contexts
 * are referenced, -EAGAIN: but for one that somebody is just making, for this root perhaps, and who
 * may wait for the calling thread's TLB client: acknowledge, and ask again; -ENOMEM, -ERANGE as of
 * s2_create. */
int s2_context_get(struct s2_context **out, struct s2_thread *t, struct s2_shadows *shadows,
		   const struct s2_guest_root *guest, const char **why);
void s2_context_put(struct s2_context *ctx);
/* Empties a context, whoever runs in it. Waits for TLB clients. */
void s2_context_drop(struct s2_thread *t, struct s2_context *ctx);

/* What TLBs of this context are tagged with, and what points hardware at its tables. The root does
 * not change while the context is referenced. -EINVAL: the tag is too wide for the format. */
uint32_t s2_context_tag(const struct s2_context *ctx);
int s2_context_registers(const struct s2_context *ctx, struct s2_registers *out);

/* Whose fault it is. */
enum s2_stage_fault {
	S2_NO_FAULT,
	S2_FAULT_TRANSLATION, /* nothing mapped; also an ngpa beyond the guest's input width, at the
			       * root's level; on arm64 at 4, which is its level 0 */
	S2_FAULT_PERMISSION,  /* a leaf (or, on x86, a table above it) refuses the access */
	S2_FAULT_ACCESS_FLAG, /* A (or D, for a write) is clear and hardware does not set it */
	S2_FAULT_RESERVED,    /* an entry that the manual forbids: EPT misconfiguration, NPT RSV */
	S2_FAULT_SIZE,	/* an address in it is wider than gpa_bits (x86: that is RESERVED); or,
			 * with the stage off, ngpa is wider than the instance's input */
	S2_FAULT_TABLE, /* a table of the guest lies where it has no memory: external abort */
};

/* With S2_FORWARD: what the guest's hypervisor is to be told. With S2_EMULATE: where the guest's
 * stage led to (kind is S2_NO_FAULT): L2 touches a device of L1. With S2_MISSING: which page is not
 * here yet. */
struct s2_syndrome {
	enum s2_stage_fault kind;
	unsigned level;	 /* of the entry in the guest's second stage, counted from the leaves */
	uint32_t access; /* that was refused */
	uint64_t ngpa;	 /* the nested address (arm64: HPFAR_EL2; EPT: the guest-physical one) */
	uint64_t gpa;	 /* S2_FAULT_TABLE: of the entry that could not be read; S2_EMULATE: what
			  * ngpa leads to; S2_MISSING: that, or an entry on the way */
	uint32_t perm;	 /* what the guest's stage grants there (x86 reports it), else 0 */
};

/* As s2_translate and s2_fault, for ngpa. *why (may be NULL) is written on S2_FORWARD,
 * S2_EMULATE and S2_MISSING. The leaf grants what both stages do, and W only once the write has
 * been marked dirty in the instance (and in the guest's leaf, where that has a D bit). S2_RETRY and
 * S2_NOMEM as for s2_fault; where a fault meets a leaf that the guest has meanwhile replaced it
 * waits for TLB clients. */
bool s2_context_translate(struct s2_thread *t, struct s2_context *ctx, uint64_t ngpa,
			  uint32_t access, struct s2_xlat *out);
enum s2_result s2_context_fault(struct s2_thread *t, struct s2_context *ctx, uint64_t ngpa,
				uint32_t access, struct s2_xlat *out, struct s2_syndrome *why);

/* What the guest's hypervisor invalidates; guest/invalidate.h makes it of instructions. */
enum s2_inv_kind {
	S2_INV_ALL,    /* every context */
	S2_INV_VMID,   /* the contexts of vmid, those with their stage off included */
	S2_INV_ROOT,   /* the contexts whose table address is root's */
	S2_INV_STAGE1, /* of vmid: only what TLBs hold; no shadow is touched */
	S2_INV_RANGE,  /* of vmid: every guest leaf that has a part in [start, end) */
	S2_INV_IPA,    /* of vmid: the guest's leaf around start */
};

struct s2_inv {
	enum s2_inv_kind kind;
	uint32_t vmid;
	uint64_t root;
	uint64_t start, end; /* end 0: the end of the address space */
	unsigned shift;	     /* IPA: log2 of the bytes that the guest's leaf maps; 0: not known */
};

/* When it returns, no TLB client uses a nested translation that it got before the call from what is
 * invalidated, and no shadow holds one. More may go than was asked for. */
void s2_shadow_invalidate(struct s2_thread *t, struct s2_shadows *shadows,
			  const struct s2_inv *inv);

struct s2_shadow_stats {
	uint64_t contexts, leaves, tables;   /* now */
	uint64_t faults[S2_NR_RESULTS];	     /* of nested accesses */
	uint64_t invalidated, followed;	     /* leaves that went: by the guest's, by the instance's
					      * own changes */
	uint64_t lost_write;		     /* that lost W with the instance's own leaf */
	uint64_t drops, recycled, evictions; /* contexts; evictions: because a bound was reached */
};
void s2_shadow_get_stats(struct s2_shadows *shadows, struct s2_shadow_stats *stats);

#endif
