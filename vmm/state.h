/*
 * The whole state of a machine but its memory: guest time, every device, every vCPU, each from its
 * field table. Loop's thread, vCPUs parked and guest time paused.
 */
#ifndef VMM_STATE_H
#define VMM_STATE_H

#include "migration/field.h"
#include "vmm/error.h"

struct vm;

/* Appends to buf. 0 or -errno. */
int vm_state_save(struct vm *vm, struct field_buf *buf, struct error *err);
/* Into a machine of the same board. Hostile input: refused with a text; the machine is unusable
 * after a failure. */
int vm_state_load(struct vm *vm, const void *data, size_t len, struct error *err);
/* Saves, wipes and loads: for the tests. */
int vm_state_roundtrip(struct vm *vm, struct error *err);

#endif
