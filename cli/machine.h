/* The tables of commands about one running machine: [NAME], perhaps --json, perhaps --timeout. */
#ifndef CLI_MACHINE_H
#define CLI_MACHINE_H

#include "cli/cli.h"

struct machine_config {
	char *name;
	bool json;
	uint32_t timeout; /* seconds */
};
extern const struct config_field machine_fields[];
extern const struct option machine_options[];	   /* --help alone */
extern const struct option machine_json_options[]; /* --json */

#define MACHINE_NAME_TEXT "Without NAME it is the machine that runs, if there is only one."

#endif
