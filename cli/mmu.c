/* `ferry mmu`: a look into the second stage of a running machine. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/client.h"
#include "cli/json.h"
#include "cli/machine.h"
#include "cpu/engine.h"
#include "mmu/second_stage.h"
#include "vmm/exit_codes.h"

struct mmu_config {
	char *name, *what, *gpa;
	bool json, on, off, virtual;
	uint32_t count, vcpu;
};

struct job {
	const struct mmu_config *config;
	struct client client;
	struct error err;
};

static int ask(struct job *job, const char *command, json_t *args, json_t **answer)
{
	return client_call(&job->client, command, args, CLIENT_ANSWER_MS, answer, &job->err);
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "?";
}

static uint64_t number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static uint64_t address(const json_t *object, const char *key)
{
	return strtoull(text(object, key), NULL, 16);
}

static void size_text(uint64_t size, char *buf, size_t len)
{
	unsigned unit = 0;

	for (; size && !(size & 1023) && unit < 6; unit++)
		size >>= 10;
	snprintf(buf, len, "%" PRIu64 "%.1s", size, &" KMGTPE"[unit]);
}

/* ---- stats -------------------------------------------------------------------------------- */

/* Below one row of the table: what is zero is left out. */
static void print_parts(const char *name, const json_t *value)
{
	const char *key;
	json_t *member;

	if (!json_is_object(value)) {
		if (json_integer_value(value))
			printf("  %-32s %" JSON_INTEGER_FORMAT "\n", name,
			       json_integer_value(value));
		return;
	}
	json_object_foreach((json_t *)value, key, member)
	{
		char longer[128];

		snprintf(longer, sizeof(longer), "%s%s%s", name, *name ? "." : "", key);
		print_parts(longer, member);
	}
}

static int stats(struct job *job)
{
	struct s2_counter row;
	json_t *answer;
	int ret = ask(job, "ferry-mmu-stats", NULL, &answer);

	if (ret)
		return ret;
	if (job->config->json) {
		print_json(answer);
		return 0;
	}
	printf("format: %s\n", text(answer, "format"));
	for (unsigned i = 0; s2_counter_row(i, &row); i++) {
		const json_t *value = json_object_get(answer, row.name);

		if (!value)
			continue;
		printf("%s: ", row.name);
		if (json_is_integer(value))
			printf("%" JSON_INTEGER_FORMAT "  ", json_integer_value(value));
		printf("(%s)\n", row.help);
		if (json_is_object(value))
			print_parts("", value);
	}
	json_decref(answer);
	return 0;
}

/* ---- walk --------------------------------------------------------------------------------- */

static void print_attributes(const json_t *leaf)
{
	printf(" %s %s%s", text(leaf, "permissions"),
	       json_is_true(json_object_get(leaf, "accessed")) ? "A" : "-",
	       json_is_true(json_object_get(leaf, "dirty")) ? "D" : "-");
	if (strcmp(text(leaf, "memory"), "write-back") != 0)
		printf(" %s", text(leaf, "memory"));
	if (number(leaf, "software"))
		printf(" software=%" PRIu64, number(leaf, "software"));
}

static void print_step(const json_t *step)
{
	const char *kind = text(step, "kind");
	char size[16];

	size_text(number(step, "size"), size, sizeof(size));
	printf("level %" PRIu64 ": entry %" PRIu64 " at %s: %s, %s", number(step, "level"),
	       number(step, "index"), text(step, "entry"), text(step, "raw"), kind);
	if (!strcmp(kind, "table"))
		printf(" at %s", text(step, "table"));
	if (!strcmp(kind, "leaf")) {
		printf(" of %s at %s", size, text(step, "hpa"));
		print_attributes(step);
	} else {
		printf("; covers %s from %s", size, text(step, "gpa"));
	}
	putchar('\n');
}

static void print_virtual(const json_t *v)
{
	json_t *steps = json_object_get(v, "steps");
	const char *outcome = text(v, "outcome");
	char size[16];

	printf("virtual %s, vCPU %" PRIu64 ", ", text(v, "gva"), number(v, "vcpu"));
	if (number(v, "levels"))
		printf("%" PRIu64 " levels\n", number(v, "levels"));
	else
		printf("paging is off\n");
	for (size_t i = 0; i < json_array_size(steps); i++) {
		const json_t *step = json_array_get(steps, i);

		printf("level %" PRIu64 ": entry at %s: %s\n", number(step, "level"),
		       text(step, "entry"), text(step, "raw"));
	}
	if (strcmp(outcome, "mapped") != 0) {
		printf("not mapped by the guest: %s\n", outcome);
		return;
	}
	size_text(number(v, "size"), size, sizeof(size));
	printf("guest-physical: %s", text(v, "gpa"));
	if (number(v, "levels"))
		printf(" in %s, kernel %s, user %s, %s%s", size, text(v, "permissions"),
		       text(v, "user-permissions"),
		       json_is_true(json_object_get(v, "accessed")) ? "A" : "-",
		       json_is_true(json_object_get(v, "dirty")) ? "D" : "-");
	putchar('\n');
}

static int walk(struct job *job)
{
	const struct mmu_config *config = job->config;
	const char *kind = config->virtual ? "virtual" : "guest-physical";
	json_t *answer, *steps, *args;
	char *end;
	uint64_t at;
	int ret;

	if (!config->gpa)
		return error_set(&job->err, -EINVAL,
				 "the address is missing: ferry mmu %s walk GPA, or walk --virtual "
				 "GVA",
				 job->client.name);
	errno = 0;
	at = strtoull(config->gpa, &end, 0);
	if (errno || *end || end == config->gpa || strchr(config->gpa, '-') ||
	    (!config->virtual && at > INT64_MAX))
		return error_set(&job->err, -EINVAL,
				 "'%s' is no %s address; write it as 0x12345000", config->gpa,
				 kind);
	if (config->virtual)
		args = json_pack("{s:s, s:i}", "gva", config->gpa, "vcpu", (int)config->vcpu);
	else
		args = json_pack("{s:I}", "gpa", (json_int_t)at);
	ret = ask(job, config->virtual ? "ferry-mmu-walk-virtual" : "ferry-mmu-walk", args,
		  &answer);
	if (ret)
		return ret;
	if (config->json) {
		print_json(answer);
		return 0;
	}
	if (config->virtual)
		print_virtual(json_object_get(answer, "virtual"));
	if (!json_object_get(answer, "gpa")) {
		json_decref(answer);
		return 0;
	}
	printf("%s, %s\n", text(answer, "gpa"), text(answer, "format"));
	steps = json_object_get(answer, "steps");
	for (size_t i = 0; i < json_array_size(steps); i++)
		print_step(json_array_get(steps, i));
	if (json_object_get(answer, "hpa"))
		printf("host: %s\n", text(answer, "hpa"));
	else
		printf("not mapped: the guest's next access faults\n");
	json_decref(answer);
	return 0;
}

/* ---- dump --------------------------------------------------------------------------------- */

static void print_mapping(const json_t *m)
{
	uint64_t gpa = address(m, "gpa"), size = number(m, "size");
	char leaf[16];

	size_text(number(m, "leaf"), leaf, sizeof(leaf));
	printf("%012" PRIx64 "-%012" PRIx64 " %12s %8" PRIu64 " * %-4s", gpa, gpa + (size - 1),
	       text(m, "hpa"), number(m, "leaf") ? size / number(m, "leaf") : 0, leaf);
	print_attributes(m);
	putchar('\n');
}

/* One answer after the other is asked for and printed, so that neither side keeps the whole. */
static int dump(struct job *job)
{
	const bool json = job->config->json;
	json_int_t start = 0;
	bool head = true, first = true, more = true;
	int ret = 0;

	while (more && !ferror(stdout)) {
		json_t *answer, *next, *mappings;

		ret = ask(job, "ferry-mmu-dump", json_pack("{s:I}", "start", start), &answer);
		if (ret)
			break;
		if (head && json)
			printf("{\n  \"format\": \"%s\",\n  \"mappings\": [",
			       text(answer, "format"));
		else if (head)
			printf("%-25s %12s %8s   %-4s\n", "guest-physical", "host", "leaves",
			       "size");
		mappings = json_object_get(answer, "mappings");
		for (size_t i = 0; i < json_array_size(mappings); i++) {
			const json_t *m = json_array_get(mappings, i);

			if (json) {
				printf("%s\n    ", first ? "" : ",");
				json_dumpf(m, stdout, JSON_COMPACT);
			} else {
				print_mapping(m);
			}
			first = false;
		}
		head = false;
		next = json_object_get(answer, "next");
		more = next != NULL;
		/* A machine that does not come forward would keep us for ever. */
		if (more && json_integer_value(next) <= start && start) {
			more = false;
			ret = error_set(&job->err, -EPROTO, "the machine repeats itself");
		}
		start = json_integer_value(next);
		json_decref(answer);
	}
	if (json && !ret)
		printf("\n  ]\n}\n");
	return ret;
}

/* ---- trace -------------------------------------------------------------------------------- */

static void print_event(const json_t *e, uint64_t first)
{
	printf("%12.3f %-8s %-8s %14s", (double)(number(e, "time") - first) / 1000,
	       text(e, "thread"), text(e, "event"), text(e, "gpa"));
	if (json_object_get(e, "end")) {
		printf(" to %s\n", text(e, "end"));
		return;
	}
	printf(" level %" PRIu64 ": %s -> %s", number(e, "level"), text(e, "before"),
	       text(e, "after"));
	if (json_object_get(e, "outcome"))
		printf(" %s %s", text(e, "access"), text(e, "outcome"));
	putchar('\n');
}

static int trace(struct job *job)
{
	const struct mmu_config *config = job->config;
	json_t *args = json_object(), *answer, *events;
	bool running;
	int ret;

	if (config->on || config->off)
		json_object_set_new(args, "on", json_boolean(config->on));
	if (config->count)
		json_object_set_new(args, "count", json_integer(config->count));
	ret = ask(job, "ferry-mmu-trace", args, &answer);
	if (ret)
		return ret;
	events = json_object_get(answer, "events");
	running = json_is_true(json_object_get(answer, "running"));
	if (config->json) {
		print_json(answer);
		return 0;
	}
	if (!running && !config->off && !json_array_size(events))
		ret = error_set(&job->err, -ENOENT,
				"nothing is traced; begin with: ferry mmu %s trace --on",
				job->client.name);
	if (json_array_size(events))
		printf("%12s %-8s %-8s %14s\n", "microseconds", "thread", "event", "gpa");
	for (size_t i = 0; i < json_array_size(events); i++)
		print_event(json_array_get(events, i), number(json_array_get(events, 0), "time"));
	json_decref(answer);
	return ret;
}

/* ---- the verb ----------------------------------------------------------------------------- */

static const struct what {
	const char *name;
	int (*run)(struct job *job);
} whats[] = {{"stats", stats}, {"walk", walk}, {"dump", dump}, {"trace", trace}};

enum { WHATS = sizeof(whats) / sizeof(*whats) };

static const struct what *find_what(const char *name)
{
	for (unsigned i = 0; name && i < WHATS; i++) {
		if (!strcmp(whats[i].name, name))
			return &whats[i];
	}
	return NULL;
}

static int check(const struct mmu_config *config, const struct what *what, struct error *err)
{
	if (!config->what && find_what(config->name))
		return error_set(err, -EINVAL, "of which machine? ferry mmu NAME %s; see: ferry ps",
				 config->name);
	if (!config->what)
		return error_set(err, -EINVAL,
				 "what of it? ferry mmu %s stats, walk GPA, dump or trace",
				 config->name ? config->name : "NAME");
	if (!what)
		return error_set(err, -EINVAL,
				 "'%s' cannot be shown; choose stats, walk GPA, dump or trace",
				 config->what);
	if (config->gpa && what->run != walk)
		return error_set(err, -EINVAL, "'%s' is not expected after %s", config->gpa,
				 what->name);
	if ((config->on || config->off || config->count) && what->run != trace)
		return error_set(err, -EINVAL, "--on, --off and --count are for trace only");
	if (config->virtual && what->run != walk)
		return error_set(err, -EINVAL, "--virtual is for walk only");
	if (config->vcpu && !config->virtual)
		return error_set(err, -EINVAL, "--vcpu goes with walk --virtual");
	if (config->on && config->off)
		return error_set(err, -EINVAL, "--on and --off exclude each other");
	return 0;
}

static int run(void *opaque)
{
	const struct mmu_config *config = opaque;
	const struct what *what = find_what(config->what);
	struct job job = {.config = config};
	int ret = check(config, what, &job.err);

	if (ret)
		return complain(EXIT_USAGE, &job.err);
	ret = client_open(&job.client, config->name, &job.err);
	if (!ret)
		ret = what->run(&job);
	client_close(&job.client);
	return ret ? complain(ret == -EINVAL ? EXIT_USAGE : EXIT_START, &job.err) : 0;
}

static const struct config_field fields[] = {
	{.name = "name",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct mmu_config, name),
	 .check = config_check_name,
	 .help = "name of the machine"},
	{.name = "what",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct mmu_config, what),
	 .help = "stats, walk, dump or trace"},
	{.name = "gpa",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct mmu_config, gpa),
	 .help = "a guest-physical address; with --virtual, a virtual one"},
	{.name = "json",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct mmu_config, json),
	 .help = "print one JSON object, for scripts"},
	{.name = "virtual",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct mmu_config, virtual),
	 .help = "walk: the address is one that the guest's programmes use"},
	{.name = "vcpu",
	 .type = CONFIG_UINT,
	 .offset = offsetof(struct mmu_config, vcpu),
	 .max = CPU_MAX - 1,
	 .help = "walk --virtual: whose tables (default: 0)"},
	{.name = "on",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct mmu_config, on),
	 .help = "trace: begin to keep events"},
	{.name = "off",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct mmu_config, off),
	 .help = "trace: stop; what was kept is printed"},
	{.name = "count",
	 .type = CONFIG_UINT,
	 .offset = offsetof(struct mmu_config, count),
	 .min = 1,
	 .max = 2000,
	 .help = "trace: print the newest COUNT events only"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("json", 'j', NULL, "json", .group = "Options"),
	OPTION("virtual", 0, NULL, "virtual"),
	OPTION("vcpu", 0, "N", "vcpu"),
	OPTION("on", 0, NULL, "on"),
	OPTION("off", 0, NULL, "off"),
	OPTION("count", 'n', "COUNT", "count"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

static const struct example examples[] = {
	{"what is mapped, and by pages of which size", "ferry mmu vm1 dump"},
	{"the way to one address", "ferry mmu vm1 walk 0x100000"},
	{"the way from a virtual address, through both stages",
	 "ferry mmu vm1 walk --virtual 0xffffffff81000000 --vcpu 1"},
	{"the last faults of a second", "ferry mmu vm1 trace --on; sleep 1; ferry mmu vm1 trace "
					"--off"},
	{NULL, NULL},
};

const struct verb verb_mmu = {
	.name = "mmu",
	.summary = "look into the second stage of a running machine",
	.operands = "NAME stats|walk GPA|dump|trace",
	.description =
		"Shows how a guest's physical memory is mapped, while it runs. stats: counters: "
		"pages by size, faults by access, kind and outcome, splits, flushes (what is zero "
		"is left out, but with --json). walk: each entry on the way to a guest-physical "
		"address, as it is and decoded; with --virtual, first those of the guest's own "
		"tables on the way to that guest-physical address, as one of its processors sees "
		"them just now. dump: what is mapped, neighbours that are alike "
		"in one line. trace: the last 1024 events of each thread: faults, protected and "
		"unmapped entries, flushes; --on begins with it.",
	.options = options,
	.examples = examples,
	.fields = fields,
	.size = sizeof(struct mmu_config),
	.operand_field = "name",
	.second_field = "what",
	.third_field = "gpa",
	.operand_completion = COMPLETE_MACHINES,
	.run = run,
};
