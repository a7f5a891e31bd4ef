/*
 * The guest's own first stage, read as its processor would: virtual to guest-physical addresses,
 * through tables in guest memory. For inspection, debugging and nested guests; it changes nothing,
 * not even accessed bits, and trusts nothing: tables may loop, lead out of memory or hold anything.
 * It takes no lock and keeps no state.
 *
 * x86: SDM vol. 3A chapter 4 (32-bit, PAE, 4 and 5 levels); arm64: Arm ARM D8 (VMSAv8-64, stage 1,
 * regime EL1&0, granules 4K, 16K, 64K); RISC-V: Privileged Architecture, Sv39, Sv48, Sv57.
 */
#ifndef MMU_GUEST_STAGE1_H
#define MMU_GUEST_STAGE1_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/second_stage.h"

/* Guest memory by guest-physical address: an aligned entry of 4 or 8 bytes. 0, or -errno: there is
 * no memory (or not now). */
struct guest_reader {
	void *opaque;
	int (*load)(void *opaque, uint64_t gpa, unsigned bytes, uint64_t *value);
};

enum guest_arch { GUEST_X86, GUEST_ARM64, GUEST_RISCV64 };

/* The registers that rule the stage, as the guest loaded them. */
struct guest_paging {
	enum guest_arch arch;
	unsigned gpa_bits; /* physical width of the guest; 0: 52, RISC-V: 56 */
	union {
		struct {
			uint64_t cr0, cr3, cr4, efer;
		} x86;
		struct {
			uint64_t sctlr, tcr, ttbr0, ttbr1; /* _EL1 */
		} arm64;
		struct {
			uint64_t satp;
		} riscv;
	};
};

enum guest_fault {
	GUEST_MAPPED,
	GUEST_NOT_CANONICAL, /* an address that the stage cannot take */
	GUEST_NOT_PRESENT,
	GUEST_RESERVED,	 /* an entry that the manual forbids */
	GUEST_NO_MEMORY, /* a table lies where load has nothing */
	GUEST_BAD_ROOT,	 /* registers that the manual forbids */
};

enum { GUEST_MAX_LEVELS = 5 };

struct guest_xlat {
	enum guest_fault fault;
	uint64_t gpa;	      /* GUEST_MAPPED: of the byte */
	uint64_t size;	      /* bytes around it that the leaf maps */
	uint32_t perm, user;  /* S2_R | S2_W | S2_X of the kernel, and of user mode */
	bool accessed, dirty; /* of the leaf */
	unsigned levels;      /* of the tree; 0: paging is off, gpa is the address itself */
	unsigned steps;	      /* entries that were read, from the root down */
	struct {
		unsigned level;	     /* counted from the leaves, 1 = the smallest pages */
		uint64_t gpa, value; /* where the entry lies, what it holds */
	} step[GUEST_MAX_LEVELS];
};

/* What `va` translates to, whoever asks for what: permissions are the caller's to compare (CR0.WP,
 * SMEP, SMAP, PAN, SUM are not looked at; x86: W of perm is that of CR0.WP = 1). */
enum guest_fault guest_translate(const struct guest_paging *paging,
				 const struct guest_reader *memory, uint64_t va,
				 struct guest_xlat *out);

#endif
