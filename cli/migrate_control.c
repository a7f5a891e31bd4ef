/* `ferry migrate-control`: of a guest that is on its way, or has come and lacks something. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/client.h"
#include "cli/machine.h"
#include "vmm/exit_codes.h"

struct control_config {
	char *name, *action, *file;
	bool force;
};

static const char *action_word(unsigned i)
{
	static const char *const words[] = {"cancel", "retry", "postcopy", "complete"};

	return i < sizeof(words) / sizeof(words[0]) ? words[i] : NULL;
}

static bool known(const char *action)
{
	const char *word;

	for (unsigned i = 0; (word = action_word(i)); i++)
		if (!strcmp(word, action))
			return true;
	return false;
}

/* The name may be left out. */
static void shift(struct control_config *config)
{
	const bool complete = config->name && !strcmp(config->name, "complete");

	if (config->file || (config->action && !complete))
		return;
	config->file = config->action;
	config->action = config->name;
	config->name = NULL;
}

static int check(const struct control_config *config, struct error *err)
{
	const char *action = config->action;
	const bool complete = action && !strcmp(action, "complete");

	if (!action)
		return error_set(err, -EINVAL,
				 "what shall it do? ferry migrate-control [NAME] "
				 "cancel|retry|postcopy|complete FILE");
	if (!known(action))
		return error_set(err, -EINVAL, "'%s' is none of cancel, retry, postcopy, complete",
				 action);
	if (config->force && strcmp(action, "cancel") != 0)
		return error_set(err, -EINVAL, "--force belongs to cancel");
	if (complete != !!config->file)
		return error_set(
			err, -EINVAL,
			complete ? "complete needs a file: the one that the source has written"
				 : "a file belongs to complete");
	return config->name ? config_check_name(config->name, err) : 0;
}

static int ask(struct client *client, const struct control_config *config, struct error *err)
{
	json_t *args;
	int ret;

	if (!config->file)
		return client_call(
			client, "ferry-migrate-control",
			json_pack("{s:s}", "action", config->force ? "force" : config->action),
			CLIENT_ANSWER_MS, NULL, err);
	args = json_object();
	ret = client_add_path(args, "file", config->file, err);
	if (!ret)
		return client_call(client, "ferry-migrate-complete", args, -1, NULL, err);
	json_decref(args);
	return ret;
}

static int run_control(void *opaque)
{
	struct control_config *config = opaque;
	struct client client;
	struct error err;
	int ret;

	shift(config);
	if (check(config, &err))
		return complain(EXIT_USAGE, &err);
	ret = client_open(&client, config->name, &err);
	if (!ret)
		ret = ask(&client, config, &err);
	client_close(&client);
	return ret ? complain(EXIT_START, &err) : 0;
}

#define FIELD(n, t, m, ...)                                                                        \
	{                                                                                          \
		.name = n, .type = t, .offset = offsetof(struct control_config, m), __VA_ARGS__    \
	}
static const struct config_field fields[] = {
	FIELD("name", CONFIG_STRING, name, .help = "name of the machine"),
	FIELD("action", CONFIG_STRING, action, .help = "cancel, retry, postcopy or complete"),
	FIELD("file", CONFIG_STRING, file, .help = "what the source has written (--spool)"),
	FIELD("force", CONFIG_BOOL, force,
	      .help = "take the guest back although it may run there: then two of it do"),
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("force", 0, NULL, "force", .group = "Options"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

const struct verb verb_migrate_control = {
	.name = "migrate-control",
	.summary = "call a migration off, or try again at once",
	.operands = "[NAME] cancel|retry|postcopy|complete [FILE]",
	.description =
		"cancel: calls the migration off, or a save; the guest goes on here. Refused when "
		"the guest has been given away, or is in the file. retry: looks for the other side "
		"now, and not after a while. "
		"postcopy: the guest goes at once, the pages that are still here follow it.\n"
		"cancel --force, of a guest that has been given away and of which nobody has said "
		"that it runs there, takes it back here: only for who knows that the other side "
		"will never run it. If it does, there are two of the guest, and both write to its "
		"disks.\n"
		"complete, where a guest has come to and lacks pages: takes them from FILE, which "
		"ferry migrate --spool has written. " MACHINE_NAME_TEXT,
	.options = options,
	.fields = fields,
	.size = sizeof(struct control_config),
	.operand_field = "name",
	.second_field = "action",
	.third_field = "file",
	.operand_word = action_word,
	.operand_completion = COMPLETE_MACHINES,
	.run = run_control,
};
