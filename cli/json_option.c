#include "cli/json_option.h"

const struct config_field json_fields[] = {
	{.name = "json",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct json_config, json),
	 .help = "print one JSON object, for scripts"},
	{.name = NULL},
};

const struct option json_options[] = {
	OPTION("json", 'j', NULL, "json", .group = "Options"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};
