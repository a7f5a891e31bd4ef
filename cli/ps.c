/* `ferry ps`: the machines of this user. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/json.h"
#include "vmm/exit_codes.h"
#include "vmm/json_util.h"

enum { PATIENCE_MS = 2000 };

struct ps_config {
	bool json, all, names;
};

static const struct config_field fields[] = {
	{.name = "json",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct ps_config, json),
	 .help = "print one JSON array, for scripts"},
	{.name = "all",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct ps_config, all),
	 .help = "also those that have ended, as long as their logs are kept"},
	{.name = "names",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct ps_config, names),
	 .help = "print the names only"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("all", 'a', NULL, "all", .group = "Options"),
	OPTION("json", 'j', NULL, "json"),
	OPTION("names", 'q', NULL, "names"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

/* What a machine says of itself; one that does not answer is listed all the same. */
static json_t *ask(const struct runtime_entry *entry)
{
	const char *name = entry->name;
	struct client client;
	struct error err;
	json_t *info = NULL;
	int ret = client_find(&client, name, NULL, &err);

	client.patience_ms = PATIENCE_MS;
	if (!ret)
		ret = client_connect(&client, &err);
	if (!ret)
		ret = client_call(&client, "ferry-info", NULL, PATIENCE_MS, &info, &err);
	else if (ret == -ENOTCONN)
		info = client_waiting(&client);
	client_close(&client);
	if (!ret || ret == -ENOTCONN)
		return info;
	/* Not yet listening, or gone since it was listed: not stuck. */
	if (ret == -ESRCH || ret == -EPIPE)
		return NULL;
	return json_pack("{s:s, s:I, s:s}", "name", name, "pid", (json_int_t)entry->pid, "state",
			 ret == -ENOENT || ret == -ECONNREFUSED ? "starting" : "not answering");
}

static json_t *ended(const struct runtime *runtime, const char *name)
{
	struct runtime_end end;

	if (runtime_end_read(runtime->dir_fd, name, &end))
		return NULL;
	return json_pack("{s:s, s:I, s:s, s:i, s:o, s:I}", "name", name, "pid", (json_int_t)end.pid,
			 "state", "ended", "exit-code", end.exit_code, "reason",
			 json_text(end.reason), "ended", (json_int_t)end.time);
}

static void duration(double seconds, char *buf, size_t len)
{
	long s = (long)seconds;

	if (s < 100)
		snprintf(buf, len, "%lds", s);
	else if (s < 6000)
		snprintf(buf, len, "%ldm%02lds", s / 60, s % 60);
	else if (s < 100 * 3600)
		snprintf(buf, len, "%ldh%02ldm", s / 3600, s / 60 % 60);
	else
		snprintf(buf, len, "%ldd%02ldh", s / 86400, s / 3600 % 24);
}

static const char *text(const json_t *object, const char *key, const char *otherwise)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : otherwise;
}

static void print_row(const json_t *m)
{
	const json_t *config = json_object_get(m, "config");
	const char *state = text(m, "state", "?");
	char up[32] = "-", memory[32] = "-", how[160];

	if (json_object_get(m, "exit-code")) {
		duration((double)time(NULL) - json_number_value(json_object_get(m, "ended")), up,
			 sizeof(up));
		snprintf(how, sizeof(how), "ended %s ago with code %d: %s", up,
			 (int)json_integer_value(json_object_get(m, "exit-code")),
			 text(m, "reason", ""));
		printf("%-20s %8s  %s\n", text(m, "name", "?"), "-", how);
		return;
	}
	if (config) {
		duration(json_number_value(json_object_get(m, "uptime")), up, sizeof(up));
		config_size_text((uint64_t)json_integer_value(json_object_get(config, "memory")),
				 memory, sizeof(memory));
	}
	printf("%-20s %8lld  %-10s %8s %5lld %8s  %s\n", text(m, "name", "?"),
	       json_integer_value(json_object_get(m, "pid")), state, up,
	       json_integer_value(json_object_get(config, "cpus")), memory,
	       text(m, "engine", text(m, "address", "-")));
}

static void print_table(const json_t *all)
{
	if (!json_array_size(all))
		return;
	printf("%-20s %8s  %-10s %8s %5s %8s  %s\n", "NAME", "PID", "STATE", "UPTIME", "CPUS",
	       "MEMORY", "ENGINE");
	for (size_t i = 0; i < json_array_size(all); i++)
		print_row(json_array_get(all, i));
}

static int run(void *opaque)
{
	const struct ps_config *config = opaque;
	struct runtime_entry *entries;
	struct runtime runtime;
	struct error err;
	json_t *all;
	int count;

	if (runtime_open(&runtime, &err))
		return complain(EXIT_START, &err);
	count = runtime_list(&runtime, &entries, &err);
	if (count < 0) {
		runtime_close(&runtime);
		return complain(EXIT_START, &err);
	}
	all = json_array();
	for (int i = 0; i < count; i++) {
		json_t *one = NULL;

		if (!entries[i].pid && !config->all)
			continue;
		if (config->names)
			puts(entries[i].name);
		else
			one = entries[i].pid ? ask(&entries[i]) : ended(&runtime, entries[i].name);
		if (one)
			json_array_append_new(all, one);
	}
	free(entries);
	runtime_close(&runtime);
	if (config->json)
		print_json(all);
	else
		print_table(all);
	if (!config->json)
		json_decref(all);
	return 0;
}

static const struct example examples[] = {
	{"all machines, also those that have ended today", "ferry ps --all"},
	{"end all of them", "for m in $(ferry ps --names); do ferry stop $m & done; wait"},
	{NULL, NULL},
};

const struct verb verb_ps = {
	.name = "ps",
	.summary = "list running machines",
	.description = "Lists the machines of this user, in the foreground and in the background, "
		       "and cleans up behind those that were killed.",
	.options = options,
	.examples = examples,
	.fields = fields,
	.size = sizeof(struct ps_config),
	.run = run,
};
