/* `ferry stream FILE`: what is in a stored stream, and whether it is whole. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "migration/stream_check.h"
#include "migration/stream_items.h"
#include "vmm/exit_codes.h"
#include "vmm/json_util.h"
#include "vmm/message.h"

enum { CHUNK = 256 << 10 };

struct stream_config {
	char *file;
	bool json, frames;
};

struct job {
	const struct stream_config *config;
	struct stream_parser *parser;
	struct stream_check *check;
	struct stream_error error;
	json_t *frames;
};

static const char *type_name(unsigned type)
{
	const char *name = stream_type_info(type)->name;

	return name ? name : "unknown";
}

static void list_frame(struct job *job, const struct stream_frame *f)
{
	if (job->config->json)
		json_array_append_new(
			job->frames,
			json_pack("{sI sI ss sI si sI sI sI}", "frame", (json_int_t)f->number,
				  "offset", (json_int_t)f->offset, "type", type_name(f->type),
				  "number", (json_int_t)f->type, "channel", (int)f->channel,
				  "round", (json_int_t)f->round, "sent", (json_int_t)f->sent,
				  "bytes", (json_int_t)f->len));
	else
		printf("%10" PRIu64 " %14" PRIu64 "  %-12s channel %u round %" PRIu32 " %" PRIu32
		       " bytes%s\n",
		       f->number, f->offset, type_name(f->type), f->channel, f->round, f->len,
		       f->flags & STREAM_ZSTD ? ", compressed" : "");
}

static int take(struct job *job, const uint8_t *data, size_t len)
{
	struct stream_frame frame;
	size_t used;
	int ret;

	for (; len; data += used, len -= used) {
		ret = stream_parse(job->parser, data, len, &used, &frame, &job->error);
		if (ret < 0)
			return ret;
		if (!ret)
			continue;
		if (job->config->frames)
			list_frame(job, &frame);
		ret = stream_check_frame(job->check, &frame, &job->error);
		if (ret)
			return ret;
	}
	return 0;
}

/* 0; -EIO: the file cannot be read, with errno; otherwise the stream's error. */
static int read_all(struct job *job, int fd)
{
	uint8_t *buf = malloc(CHUNK);
	ssize_t n = 0;
	int ret = buf ? 0 : -ENOMEM;

	while (!ret && (n = read(fd, buf, CHUNK)) != 0) {
		if (n > 0)
			ret = take(job, buf, (size_t)n);
		else if (errno != EINTR)
			ret = -EIO;
	}
	if (!ret)
		ret = stream_parser_finish(job->parser, &job->error);
	if (!ret)
		ret = stream_check_finish(job->check, &job->error);
	if (ret == -ENOMEM)
		stream_fail(&job->error, NULL, ret, "no memory");
	free(buf);
	return ret;
}

/* ---- the summary ---- */

static json_t *session_text(const struct stream_hello *hello)
{
	char text[sizeof(hello->session) * 2 + 1];

	for (size_t i = 0; i < sizeof(hello->session); i++)
		snprintf(text + i * 2, 3, "%02x", hello->session[i]);
	return json_string(text);
}

/* Names come more than once: values are lists. */
static json_t *description(const struct stream_summary *s)
{
	struct stream_frame f = {.payload = s->description.data,
				 .len = (uint32_t)s->description.len};
	json_t *all = json_object(), *list;
	struct stream_item item;
	char text[4096];
	uint32_t at = 0;

	while (stream_item_next(&f, &at, &item, NULL) > 0) {
		size_t n = item.len < sizeof(text) - 1 ? item.len : sizeof(text) - 1;

		memcpy(text, item.value, n);
		text[n] = 0;
		list = json_object_get(all, item.name);
		if (!list) {
			list = json_array();
			json_object_set_new(all, item.name, list);
		}
		json_array_append_new(list, json_text(text));
	}
	return all;
}

static json_t *summary(const struct job *job, const char *state)
{
	static const char *const roles[] = {"source", "destination", "file"};
	const struct stream_summary *s = stream_check_summary(job->check);
	json_t *types = json_object(), *rounds = json_array(), *images = json_object(),
	       *states = json_array(), *all;

	for (unsigned i = 0; i < STREAM_TYPES; i++) {
		if (s->type[i].frames)
			json_object_set_new(types, type_name(i),
					    json_pack("{sI sI}", "frames",
						      (json_int_t)s->type[i].frames, "bytes",
						      (json_int_t)s->type[i].bytes));
	}
	for (unsigned i = 0; i < s->rounds; i++)
		json_array_append_new(rounds,
				      json_pack("{sI sI sI sI sI}", "round",
						(json_int_t)s->round[i].round, "frames",
						(json_int_t)s->round[i].count.frames, "bytes",
						(json_int_t)s->round[i].count.bytes, "pages",
						(json_int_t)s->round[i].contents, "zero_pages",
						(json_int_t)s->round[i].zero));
	for (unsigned i = 0; i < s->images; i++)
		json_object_set_new(images, s->image[i].name,
				    json_integer((json_int_t)s->image[i].bytes));
	for (unsigned i = 0; i < s->states; i++)
		json_array_append_new(states,
				      json_pack("{ss si sI sI}", "name", s->state[i].head.name,
						"version", (int)s->state[i].head.version, "fields",
						(json_int_t)s->state[i].head.fields, "bytes",
						(json_int_t)s->state[i].bytes));
	all = json_pack("{ss sI sI ss so ss sI sI sI so so so so so}", "state", state, "frames",
			(json_int_t)s->frames, "bytes", (json_int_t)s->bytes, "from",
			roles[s->hello.role], "session", session_text(&s->hello), "ferry",
			s->hello.ferry, "version", (json_int_t)s->hello.version, "pages",
			(json_int_t)s->contents, "zero_pages", (json_int_t)s->zero, "types", types,
			"rounds", rounds, "images", images, "states", states, "description",
			description(s));
	if (s->counted)
		json_object_set_new(all, "missing_pages", json_integer((json_int_t)s->missing));
	if (strcmp(state, "whole") != 0)
		json_object_set_new(all, "error",
				    json_pack("{sI sI so}", "frame", (json_int_t)job->error.frame,
					      "offset", (json_int_t)job->error.offset, "text",
					      json_text(job->error.text)));
	if (job->frames)
		json_object_set(all, "list", job->frames);
	return all;
}

static void print_description(const struct stream_summary *s)
{
	json_t *all = description(s), *list, *value;
	const char *name;
	char text[512];
	size_t i;

	json_object_foreach(all, name, list)
	{
		json_array_foreach(list, i, value)
		{
			snprintf(text, sizeof(text), "%s", json_string_value(value));
			message_clean(text);
			printf("  %-16s %s\n", name, text);
		}
	}
	json_decref(all);
}

static void print_summary(const struct job *job)
{
	const struct stream_summary *s = stream_check_summary(job->check);

	printf("%-12s %10s %14s\n", "type", "frames", "bytes");
	for (unsigned i = 0; i < STREAM_TYPES; i++) {
		if (s->type[i].frames)
			printf("%-12s %10" PRIu64 " %14" PRIu64 "\n", type_name(i),
			       s->type[i].frames, s->type[i].bytes);
	}
	printf("%-12s %10" PRIu64 " %14" PRIu64 "\n", "all", s->frames, s->bytes);
	if (s->description.len)
		printf("\nmachine:\n");
	print_description(s);
	for (unsigned i = 0; i < s->images; i++)
		printf("  %-16s image of %" PRIu64 " bytes\n", s->image[i].name, s->image[i].bytes);
	if (s->rounds)
		printf("\n%-12s %10s %14s %12s %12s\n", "round", "frames", "bytes", "pages",
		       "zero pages");
	for (unsigned i = 0; i < s->rounds; i++)
		printf("%-12" PRIu32 " %10" PRIu64 " %14" PRIu64 " %12" PRIu64 " %12" PRIu64 "\n",
		       s->round[i].round, s->round[i].count.frames, s->round[i].count.bytes,
		       s->round[i].contents, s->round[i].zero);
	if (s->states)
		printf("\n%-24s %8s %8s %14s\n", "device state", "version", "fields", "bytes");
	for (unsigned i = 0; i < s->states; i++)
		printf("%-24s %8u %8" PRIu32 " %14" PRIu64 "\n", s->state[i].head.name,
		       s->state[i].head.version, s->state[i].head.fields, s->state[i].bytes);
}

/* ---- the verb ---- */

static int report(struct job *job, int ret)
{
	const char *state = !ret	      ? "whole"
			    : ret == -ENOTSUP ? "newer"
			    : ret == -ENOMEM  ? "unknown"
					      : "damaged";
	struct error err;

	if (job->config->json)
		print_json(summary(job, state));
	else
		print_summary(job);
	if (!ret) {
		if (!job->config->json)
			printf("\n%s: whole and well-formed\n", job->config->file);
		return 0;
	}
	error_set(&err, ret, "%s: %s", job->config->file, job->error.text);
	return complain(ret == -ENOTSUP	 ? EXIT_STREAM_NEWER
			: ret == -ENOMEM ? EXIT_START
					 : EXIT_STREAM_DAMAGED,
			&err);
}

static int run(void *opaque)
{
	const struct stream_config *config = opaque;
	struct job job = {.config = config};
	struct error err;
	int fd = -1, ret;

	if (!config->file) {
		error_set(&err, 0, "the file is missing: ferry stream FILE");
		return complain(EXIT_USAGE, &err);
	}
	fd = strcmp(config->file, "-") != 0 ? open(config->file, O_RDONLY | O_CLOEXEC)
					    : dup(STDIN_FILENO);
	if (fd < 0) {
		error_set(&err, 0, "%s: %s", config->file, strerror(errno));
		return complain(EXIT_START, &err);
	}
	job.parser = stream_parser_new();
	job.check = stream_check_new();
	job.frames = config->json && config->frames ? json_array() : NULL;
	ret = job.parser && job.check ? read_all(&job, fd) : -ENOMEM;
	if (ret == -EIO) {
		error_set(&err, 0, "%s: %s", config->file, strerror(errno));
		ret = complain(EXIT_START, &err);
	} else if (job.parser && job.check) {
		ret = report(&job, ret);
	} else {
		error_set(&err, 0, "no memory");
		ret = complain(EXIT_START, &err);
	}
	json_decref(job.frames);
	stream_parser_free(job.parser);
	stream_check_free(job.check);
	close(fd);
	return ret;
}

static const struct config_field fields[] = {
	{.name = "file",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct stream_config, file),
	 .help = "the stored stream; - is standard input"},
	{.name = "frames",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct stream_config, frames),
	 .help = "list every frame, too"},
	{.name = "json",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct stream_config, json),
	 .help = "print one JSON object, for scripts"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("frames", 'f', NULL, "frames", .group = "Options"),
	OPTION("json", 'j', NULL, "json"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

static const struct example examples[] = {
	{"the first damage in a file", "ferry stream --json vm1.ferry | jq .error"},
	{NULL, NULL},
};

const struct verb verb_stream = {
	.name = "stream",
	.summary = "list and check a stored migration stream",
	.operands = "FILE",
	.description =
		"Reads a saved machine, or one direction of a migration that was recorded, without "
		"starting anything: what is in it by type and by round, the machine's description, "
		"its boot images and its device state; and checks every frame, their order, and "
		"that nothing is missing. The first error is named with the frame's number and its "
		"place.\nThe exit code is 0 for a whole stream, 16 for one that is damaged or cut "
		"off, 18 for one that only a newer ferry understands, and 1 if the file cannot be "
		"read.",
	.options = options,
	.examples = examples,
	.fields = fields,
	.size = sizeof(struct stream_config),
	.operand_field = "file",
	.operand_completion = COMPLETE_FILES,
	.run = run,
};
