/* Paging: access rights, error codes, CR2, accessed and dirty flags, invalidation (SDM vol. 3A
 * chapter 4). What an access must do is computed by an oracle written from sections 4.6 and 4.7
 * alone, and compared with what the processor does for every combination. */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "guest.h"

enum access { READ, WRITE, FETCH };
extern const char *const access_name[];
extern u8 do_read[], do_write[], do_fetch[], do_cmpxchg[]; /* at RSI */

/* The processor's mode, beside the tables. */
struct mode {
	bool wp, nxe, smep, smap, ac;
};

extern bool have_nx, have_1g, have_smep, have_smap;
extern u32 phys_bits;
extern u64 kernel_cr4;

bool mode_possible(const struct mode *m);
void mode_set(const struct mode *m);
void mode_reset(void);

/* Where a test page has data, and code that ends itself. */
#define DATA_OFFSET 0x108
#define CODE_OFFSET 0x200

/* The entries on the way to a page, the leaf last, and the bits that are reserved in each. */
struct walk {
	u32 n;
	u64 entry[4], rsvd[4];
};
/* SDM vol. 3A 4.6.1 (rights) and 4.7 (error code). Returns the error code, or NO_ERROR: no fault.
 * Tables of 32-bit entries: with nxe false. */
u64 oracle(const struct walk *w, const struct mode *m, enum access a, bool user);
/* Takes a right away, or sets a reserved bit, for each bit of defects. */
u64 defective(u64 good, u64 rsvd, u32 defects);

void test_rights(void);
void test_crossing(void);
void test_invalidation(void);
void test_implicit(void);
void test_legacy(void);

#endif
