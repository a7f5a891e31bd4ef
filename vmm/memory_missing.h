/* What the files of guest memory share: devices that wait for it (what memory.c gives them in their
 * dma_ops), and giving it back. */
#ifndef VMM_MEMORY_MISSING_H
#define VMM_MEMORY_MISSING_H

#include <stdbool.h>
#include <stdint.h>

#include "devices/device.h"

struct guest_memory;

void memory_wait(void *opaque, struct dma_waiter *waiter);
void memory_wait_not(void *opaque, struct dma_waiter *waiter);

/* ---- memory_gather.c ---- */
/* Before memory goes; nothing if it was not begun. */
void memory_gather_end(struct guest_memory *mem);

/* ---- memory_discard.c ---- */
/* The host has the pages [hpa, hpa + len) back, and they read as zeroes. 0 or -errno. */
int memory_punch(struct guest_memory *mem, uint64_t hpa, uint64_t len);
/* Whether a run of zeroes of that length is not better written. */
bool memory_worth_giving(const struct guest_memory *mem, uint64_t len);

#endif
