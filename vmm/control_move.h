/* What the control socket says of machines that move; rows of the table in control_vm.c. */
#ifndef VMM_CONTROL_MOVE_H
#define VMM_CONTROL_MOVE_H

#include "vmm/control.h"

/* opaque: struct vm. */
extern const struct control_arg control_save_args[], control_migrate_args[],
	control_migrate_control_args[], control_migrate_complete_args[];
int control_save(void *opaque, struct control_request *request, const json_t *args, json_t **ret,
		 struct error *err);
int control_migrate(void *opaque, struct control_request *request, const json_t *args, json_t **ret,
		    struct error *err);
int control_migration(void *opaque, struct control_request *request, const json_t *args,
		      json_t **ret, struct error *err);
int control_migrate_control(void *opaque, struct control_request *request, const json_t *args,
			    json_t **ret, struct error *err);
int control_migrate_complete(void *opaque, struct control_request *request, const json_t *args,
			     json_t **ret, struct error *err);

#endif
