/* `ferry balloon`: how much of its memory a guest has, and how much it shall have. */
#include "cli/client.h"
#include "cli/json.h"
#include "cli/machine.h"
#include "vmm/exit_codes.h"

struct balloon_config {
	char *name;
	uint64_t size; /* 0: not given */
	bool json;
};

static void print_figure(const json_t *device, const char *key, const char *text)
{
	const json_t *value = json_object_get(device, key);

	if (value)
		printf("%s: %lld MiB\n", text, (long long)json_integer_value(value) >> 20);
}

/* What is left to the guest, then what it says of itself. */
static int show(struct client *client, bool json, struct error *err)
{
	json_t *actual, *stats, *device;
	int ret = client_call(client, "query-balloon", NULL, CLIENT_ANSWER_MS, &actual, err);

	if (ret)
		return ret;
	ret = client_call(client, "ferry-stats", NULL, CLIENT_ANSWER_MS, &stats, err);
	if (ret) {
		json_decref(actual);
		return ret;
	}
	device = json_object_get(json_object_get(stats, "devices"), "balloon0");
	if (json) {
		json_object_update_missing(actual, device);
		print_json(actual);
	} else {
		print_figure(actual, "actual", "memory of the guest");
		print_figure(device, "target-bytes", "to be given up");
		print_figure(device, "actual-bytes", "given up");
		print_figure(device, "free-memory", "free, says the guest");
		print_figure(device, "available-memory", "available, says the guest");
		json_decref(actual);
	}
	json_decref(stats);
	return 0;
}

static int run_balloon(void *opaque)
{
	const struct balloon_config *config = opaque;
	struct client client;
	struct error err;
	int ret = client_open(&client, config->name, &err);

	if (!ret && config->size)
		ret = client_call(&client, "balloon",
				  json_pack("{s:I}", "value", (json_int_t)config->size),
				  CLIENT_ANSWER_MS, NULL, &err);
	else if (!ret)
		ret = show(&client, config->json, &err);
	client_close(&client);
	return ret ? complain(EXIT_START, &err) : 0;
}

static const struct config_field balloon_fields[] = {
	{.name = "name",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct balloon_config, name),
	 .check = config_check_name,
	 .help = "name of the machine"},
	{.name = "size",
	 .type = CONFIG_SIZE,
	 .offset = offsetof(struct balloon_config, size),
	 .min = 1 << 20,
	 .max = 1ull << 38,
	 .help = "memory that the guest shall have; a plain number is MiB"},
	{.name = "json",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct balloon_config, json),
	 .help = "print one JSON object, for scripts"},
	{.name = NULL},
};

const struct verb verb_balloon = {
	.name = "balloon",
	.summary = "take memory from a guest, or give it back",
	.operands = "[NAME [SIZE]]",
	.description =
		"Asks the guest to live on SIZE of its memory: what it gives up goes back to the "
		"host. It may give up less, or later: ask again without SIZE. Memory that is free "
		"inside of the guest goes back by itself where the guest's kernel reports it "
		"(Linux "
		"5.7 and later with virtio_balloon). " MACHINE_NAME_TEXT,
	.options = machine_json_options,
	.fields = balloon_fields,
	.size = sizeof(struct balloon_config),
	.operand_field = "name",
	.second_field = "size",
	.operand_completion = COMPLETE_MACHINES,
	.run = run_balloon,
};
