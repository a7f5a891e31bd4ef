/* The table of verbs whose only option is --json. */
#ifndef CLI_JSON_OPTION_H
#define CLI_JSON_OPTION_H

#include "cli/cli.h"

struct json_config {
	bool json;
};
extern const struct config_field json_fields[];
extern const struct option json_options[];

#endif
