/* What `ferry migrate` was told, and what the machine is told of it. */
#ifndef CLI_MIGRATE_H
#define CLI_MIGRATE_H

#include <jansson.h>

#include "vmm/config.h"
#include "vmm/tls_config.h"

struct migrate_config {
	char *name, *to;
	char *downtime, *timeout, *postcopy_after, *recover, *spool;
	uint64_t bandwidth;
	bool json, postcopy, insecure, verify, uncompressed;
	struct tls_config tls;
	uint32_t on_timeout;
};
extern const struct config_field migrate_fields[];

/* What can be known to be wrong before a machine is looked for; the only operand becomes the
 * address. -EINVAL or so, with a text. */
int migrate_check(struct migrate_config *config, struct error *err);
/* The arguments of `ferry-migrate`; NULL with a text: JSON cannot carry them. */
json_t *migrate_arguments(const struct migrate_config *config, struct error *err);

#endif
