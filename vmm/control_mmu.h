/* The control socket's questions about the second stage; rows of the table in control_vm.c. */
#ifndef VMM_CONTROL_MMU_H
#define VMM_CONTROL_MMU_H

#include "vmm/control.h"

/* opaque: struct vm. All answer at once, from tables that the vCPUs go on using. */
extern const struct control_arg control_mmu_walk_args[], control_mmu_virtual_args[],
	control_mmu_dump_args[], control_mmu_trace_args[];
int control_mmu_stats(void *opaque, struct control_request *request, const json_t *args,
		      json_t **ret, struct error *err);
int control_mmu_walk(void *opaque, struct control_request *request, const json_t *args,
		     json_t **ret, struct error *err);
/* vCPUs stand still for a moment: one of them tells how it translates. */
int control_mmu_virtual(void *opaque, struct control_request *request, const json_t *args,
			json_t **ret, struct error *err);
int control_mmu_dump(void *opaque, struct control_request *request, const json_t *args,
		     json_t **ret, struct error *err);
int control_mmu_trace(void *opaque, struct control_request *request, const json_t *args,
		      json_t **ret, struct error *err);

#endif
