/* `ferry save`: a running machine becomes a file. */
#include <errno.h>

#include "cli/client.h"
#include "cli/interrupt.h"
#include "cli/machine.h"
#include "vmm/exit_codes.h"
#include "vmm/message.h"

struct save_config {
	char *name, *file;
};

enum { GONE_MS = 10000, TURN_MS = 250 };

static int save(struct client *client, const char *file, struct error *err)
{
	json_t *args = json_object();
	int ret;

	interrupt_watch();
	ret = client_add_path(args, "file", file, err);

	if (ret)
		json_decref(args);
	else
		ret = client_call(client, "ferry-save", args, TURN_MS, NULL, err);
	while (ret == -ETIMEDOUT && !interrupt_came())
		ret = client_answer(client, TURN_MS, NULL, err);
	if (ret == -ETIMEDOUT)
		error_set(
			err, ret,
			"%s goes on to be saved in %s and ends then; ferry wait %s waits for that, "
			"ferry migrate-control %s cancel calls it off",
			client->name, file, client->name, client->name);
	/* So that what it had is free for who restores it. */
	if (!ret)
		client_gone(client, GONE_MS);
	return ret;
}

static int run_save(void *opaque)
{
	struct save_config *config = opaque;
	struct client client;
	struct error err;
	int ret;

	/* One operand is the file. */
	if (!config->file) {
		config->file = config->name;
		config->name = NULL;
	}
	if (!config->file) {
		error_set(&err, 0, "no file is given; try: ferry save [NAME] FILE");
		return complain(EXIT_USAGE, &err);
	}
	if (config->name && config_check_name(config->name, &err)) {
		error_prefix(&err, 0, "NAME");
		return complain(EXIT_USAGE, &err);
	}
	ret = client_open(&client, config->name, &err);
	if (!ret)
		ret = save(&client, config->file, &err);
	client_close(&client);
	if (ret == -ETIMEDOUT && interrupt_came())
		return complain(EXIT_SIGNAL + interrupt_came(), &err);
	return ret ? complain(EXIT_START, &err) : 0;
}

static const struct config_field save_fields[] = {
	{.name = "name",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct save_config, name),
	 .help = "name of the machine"},
	{.name = "file",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct save_config, file),
	 .help = "the file"},
	{.name = NULL},
};

static const struct example examples[] = {
	{"a machine that sleeps over a restart of its host",
	 "ferry save vm1 vm1.ferry; ferry restore --detach vm1.ferry"},
	{NULL, NULL},
};

const struct verb verb_save = {
	.name = "save",
	.summary = "put a running machine into a file",
	.operands = "[NAME] FILE",
	.description =
		"Stops the guest and writes all of it to FILE: memory, devices, processors, and "
		"what "
		"it was started with; the machine then ends. ferry restore lets it go on from "
		"there. "
		"FILE is there whole, or not at all: if it cannot be written (a full disk), the "
		"guest goes on as if nothing had happened. Ctrl-C ends the waiting for it only: it "
		"is saved, and the machine ends; ferry migrate-control cancel calls it off. Disks "
		"are not in it: what is written to "
		"them afterwards is a surprise for the guest. " MACHINE_NAME_TEXT,
	.options = machine_options,
	.examples = examples,
	.fields = save_fields,
	.size = sizeof(struct save_config),
	.operand_field = "name",
	.second_field = "file",
	.operand_completion = COMPLETE_MACHINES,
	.run = run_save,
};
