/*
 * The guest's own second stage, read as its hardware would: nested addresses (ngpa) to
 * guest-physical ones (gpa), through tables in guest memory that may hold anything. What a format
 * adds to mmu/format is how registers are read and which entries the manual forbids
 * (struct nested_format); the walk is walk_down. For mmu/ only; shadow.h uses it.
 */
#ifndef MMU_GUEST_STAGE2_H
#define MMU_GUEST_STAGE2_H

#include "mmu/shadow.h"
#include "mmu/walker.h"

struct guest_stage2;

struct nested_format {
	const struct format *f;
	bool table_perms;	 /* permissions of tables count, too */
	uint8_t beyond_level;	 /* of a fault beyond the input width; 0: the root's */
	bool a_faults, d_faults; /* a clear A (D, for a write) that hardware does not set faults */
	enum s2_stage_fault (*check)(const struct geometry *g, uint64_t entry, unsigned level);
};

/* One root of the guest's. */
struct guest_stage2 {
	const struct nested_format *n;
	struct geometry geo; /* output_bits: the guest's physical width */
	uint64_t root;	     /* gpa of the root table */
	uint32_t vmid;
	bool set_ad; /* its hardware sets A and D */
	bool off;    /* ngpa = gpa */
};

/* What of the configuration parsing needs. */
struct nested_rules {
	enum s2_format format;
	unsigned options, gpa_bits;
	bool use_ad;
};

/* 0, or -EINVAL and the rule that was broken. One function per family. */
int guest_stage2_parse(struct guest_stage2 *out, const struct nested_rules *rules,
		       const struct s2_guest_root *regs, const char **why);
int nested_parse_ept(struct guest_stage2 *out, const struct nested_rules *rules,
		     const struct s2_guest_root *regs, const char **why);
int nested_parse_npt(struct guest_stage2 *out, const struct nested_rules *rules,
		     const struct s2_guest_root *regs, const char **why);
int nested_parse_arm(struct guest_stage2 *out, const struct nested_rules *rules,
		     const struct s2_guest_root *regs, const char **why);
int nested_parse_riscv(struct guest_stage2 *out, const struct nested_rules *rules,
		       const struct s2_guest_root *regs, const char **why);

/* Where entries come from. Both return 0, a negative number (no memory there), or a positive one
 * that ends the walk and is returned: not now. */
struct guest_stage2_reader {
	void *opaque;
	int (*load)(void *opaque, uint64_t gpa, unsigned bytes, uint64_t *value);
	/* 0 also means that it has been replaced */
	int (*cas)(void *opaque, uint64_t gpa, unsigned bytes, uint64_t old, uint64_t value);
};

struct guest_leaf {
	enum s2_stage_fault fault;
	unsigned level;	  /* of the entry that ended the walk */
	unsigned shift;	  /* log2 of what the leaf maps */
	uint64_t gpa;	  /* where ngpa leads; S2_FAULT_TABLE: of the entry without memory */
	uint32_t perm;	  /* W only if D is set, where hardware sets D */
	uint32_t granted; /* whatever D is */
};

/* 0 and *out (a fault included), or what the reader returned. Sets A, and D for a write, where the
 * guest's hardware would. */
int guest_stage2_walk(const struct guest_stage2 *s, const struct guest_stage2_reader *reader,
		      uint64_t ngpa, uint32_t access, struct guest_leaf *out);

#endif
