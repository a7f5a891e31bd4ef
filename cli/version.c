#include "cli/json.h"
#include "cli/json_option.h"

static int run(void *config)
{
	const struct json_config *json = config;

	if (!json->json) {
		puts("ferry " FERRY_VERSION);
		return 0;
	}
	fputs("{\"version\": ", stdout);
	print_json_string(stdout, FERRY_VERSION);
	puts(", \"board\": \"pc-1.0\", \"engines\": [\"soft\"]}");
	return 0;
}

const struct verb verb_version = {
	.name = "version",
	.summary = "print the version",
	.description = "Prints the version of ferry.",
	.options = json_options,
	.fields = json_fields,
	.size = sizeof(struct json_config),
	.run = run,
};
