#include "cli/machine.h"

const struct config_field machine_fields[] = {
	{.name = "name",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct machine_config, name),
	 .check = config_check_name,
	 .help = "name of the machine"},
	{.name = "json",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct machine_config, json),
	 .help = "print one JSON object, for scripts"},
	{.name = "timeout",
	 .type = CONFIG_UINT,
	 .offset = offsetof(struct machine_config, timeout),
	 .max = 1000000,
	 .initial = "30",
	 .help = "seconds that the guest has for switching itself off; 0: do not wait"},
	{.name = NULL},
};

const struct option machine_options[] = {
	OPTION("help", 'h', NULL, NULL, .group = "Options"),
	{.name = NULL},
};

const struct option machine_json_options[] = {
	OPTION("json", 'j', NULL, "json", .group = "Options"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};
