/* `ferry info` and `ferry stats`: what a running machine says of itself. */
#include <errno.h>
#include <string.h>

#include "cli/client.h"
#include "cli/json.h"
#include "cli/machine.h"
#include "vmm/exit_codes.h"

/* "key: value", what is inside of objects and arrays indented. */
static void print_tree(const json_t *value, unsigned depth)
{
	const char *key;
	json_t *member;

	json_object_foreach((json_t *)value, key, member)
	{
		char *text;

		if (json_is_null(member) || (json_is_array(member) && !json_array_size(member)) ||
		    (json_is_object(member) && !json_object_size(member)))
			continue;
		printf("%*s%s:", (int)depth * 2, "", key);
		if (json_is_object(member)) {
			putchar('\n');
			print_tree(member, depth + 1);
			continue;
		}
		if (json_is_string(member)) {
			printf(" %s\n", json_string_value(member));
			continue;
		}
		text = json_dumps(member, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
		printf(" %s\n", text ? text : "?");
		free(text);
	}
}

/* waits: that is said of one that waits for its guest; else it has nothing to say. */
static int show(const struct machine_config *config, const char *command, bool waits)
{
	struct client client;
	struct error err;
	json_t *answer;
	int ret = client_open(&client, config->name, &err);

	if (!ret) {
		ret = client_call(&client, command, NULL, CLIENT_ANSWER_MS, &answer, &err);
	} else if (ret == -ENOTCONN && waits) {
		answer = client_waiting(&client);
		ret = 0;
	}
	client_close(&client);
	if (ret)
		return complain(EXIT_START, &err);
	if (config->json) {
		print_json(answer);
	} else {
		print_tree(answer, 0);
		json_decref(answer);
	}
	return 0;
}

static int run_info(void *config)
{
	return show(config, "ferry-info", true);
}

static int run_stats(void *config)
{
	return show(config, "ferry-stats", false);
}

const struct verb verb_info = {
	.name = "info",
	.summary = "describe a running machine",
	.operands = "[NAME]",
	.description =
		"Prints the machine's description and what it does now: state (running, "
		"pausing, paused, shutdown; incomplete: pages of "
		"its memory cannot be had any more; waiting, of a ferry receive whose guest has "
		"not come), engine and why it was taken, process, "
		"uptime, and how long after the start of the process its guest had the "
		"first instruction. " MACHINE_NAME_TEXT,
	.options = machine_json_options,
	.fields = machine_fields,
	.size = sizeof(struct machine_config),
	.operand_field = "name",
	.operand_completion = COMPLETE_MACHINES,
	.run = run_info,
};

const struct verb verb_stats = {
	.name = "stats",
	.summary = "print what a running machine has counted",
	.operands = "[NAME]",
	.description = "Prints counters: exits and their kinds for each vCPU, faults and tables of "
		       "the second stage, and what devices count. " MACHINE_NAME_TEXT,
	.options = machine_json_options,
	.fields = machine_fields,
	.size = sizeof(struct machine_config),
	.operand_field = "name",
	.operand_completion = COMPLETE_MACHINES,
	.run = run_stats,
};
