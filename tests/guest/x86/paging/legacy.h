/* Paging outside of long mode: legacy.c, legacy32.S. */
#ifndef GUEST_LEGACY_H
#define GUEST_LEGACY_H

#include "guest.h"

/* legacy32.S knows the offsets. */
struct legacy {
	u32 cr0, cr3, cr4, efer_nxe;		  /* 0 */
	u32 cs, ss, eip, esp;			  /* 16 */
	u32 eflags, eax, esi, ebx;		  /* 32 */
	u32 vector, error, cr2;			  /* 48: after the run */
	u32 esp32;				  /* 60: scratch */
	u64 rsp64, cr3_long, cr4_long, efer_long; /* 64 */
};

/*
 * Leave long mode for 32-bit protected mode with the paging that cr0, cr3 and cr4 ask for, run from
 * cs:eip until the first exception, come back. Interrupts are off, identity mapping is needed where
 * this image and its stacks are.
 */
void legacy_run(struct legacy *l);

#endif
