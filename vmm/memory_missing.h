/* Devices that wait for memory: what memory.c gives them in their dma_ops. */
#ifndef VMM_MEMORY_MISSING_H
#define VMM_MEMORY_MISSING_H

#include "devices/device.h"

void memory_wait(void *opaque, struct dma_waiter *waiter);
void memory_wait_not(void *opaque, struct dma_waiter *waiter);

#endif
