#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/exit_codes.h"

enum { WIDTH = 79, INDENT = 26 };

const struct config_field *option_field(const struct verb *verb, const struct option *option)
{
	return option->field ? config_find(verb->fields, option->field) : NULL;
}

/* Prints text from `column` on, broken at words, following lines indented. */
static void wrap(FILE *out, unsigned column, unsigned indent, const char *text)
{
	while (*text) {
		size_t word = strcspn(text, " \n");

		if (column > indent && column + 1 + word > WIDTH) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fwrite(text, 1, word, out);
		column += (unsigned)word;
		text += word;
		if (*text == '\n') {
			fprintf(out, "\n\n%*s", (int)indent, "");
			column = indent;
		}
		text += *text != 0;
	}
	fputc('\n', out);
}

static void two_columns(FILE *out, const char *left, const char *right)
{
	int n = fprintf(out, "  %s", left);

	if (n + 2 > INDENT)
		fprintf(out, "\n%*s", INDENT, "");
	else
		fprintf(out, "%*s", INDENT - n, "");
	wrap(out, INDENT, INDENT, right);
}

void help_overview(FILE *out)
{
	fputs("ferry: runs virtual machines on any Linux host, with or without virtualization\n"
	      "extensions.\n\nUsage: ferry COMMAND [options]\n\nCommands:\n",
	      out);
	for (unsigned i = 0; verbs[i]; i++) {
		if (!verbs[i]->hidden)
			two_columns(out, verbs[i]->name, verbs[i]->summary);
	}
	fputs("\nferry help COMMAND says more; ferry help run is the place to begin.\n", out);
}

void help_value(const struct config_field *field, char *buf, size_t len)
{
	size_t n = (size_t)snprintf(buf, len, "%s", field->help);

	/* Those of a choice are in the option's or key's form already. */
	for (unsigned i = 0;
	     field->type == CONFIG_STRING && field->word && field->word(i) && n < len; i++)
		n += (size_t)snprintf(buf + n, len - n, "%s%s", i ? ", " : ": ", field->word(i));
	if (field->initial && !strstr(field->help, "default") && n < len)
		snprintf(buf + n, len - n, " (default: %s)", field->initial);
}

void help_key(const struct config_field *sub, char *buf, size_t len)
{
	size_t n = (size_t)snprintf(buf, len, "%s", sub->name);

	if (sub->positional) {
		for (char *c = buf; *c; c++)
			*c = (char)toupper((unsigned char)*c);
		return;
	}
	if (sub->type == CONFIG_BOOL)
		return;
	for (unsigned i = 0; sub->type == CONFIG_CHOICE && sub->word(i) && n < len; i++)
		n += (size_t)snprintf(buf + n, len - n, "%c%s", i ? '|' : '=', sub->word(i));
	if (sub->type != CONFIG_CHOICE && n < len)
		snprintf(buf + n, len - n, "=%s", sub->type == CONFIG_UINT ? "N" : "TEXT");
}

static void print_keys(const struct config_field *sub, FILE *out)
{
	char key[128], text[512];

	for (; sub->name; sub++) {
		help_key(sub, key, sizeof(key));
		help_value(sub, text, sizeof(text));
		fprintf(out, "%*s%s:", INDENT, "", key);
		wrap(out, INDENT + (unsigned)strlen(key) + 1, INDENT + 2, text);
	}
}

static void print_option(const struct verb *verb, const struct option *option, FILE *out)
{
	const struct config_field *field = option_field(verb, option);
	char left[128], right[512] = "show this help";
	int n;

	n = option->letter ? snprintf(left, sizeof(left), "-%c, ", option->letter)
			   : snprintf(left, sizeof(left), "    ");
	snprintf(left + n, sizeof(left) - (size_t)n, "--%s%s%s", option->name,
		 option->value ? " " : "", option->value ? option->value : "");
	if (field)
		help_value(field, right, sizeof(right));
	two_columns(out, left, right);
	if (field && field->type == CONFIG_LIST)
		print_keys(field->sub, out);
}

void help_verb(const struct verb *verb, FILE *out)
{
	fprintf(out, "Usage: ferry %s [options]%s%s\n\n", verb->name, verb->operands ? " " : "",
		verb->operands ? verb->operands : "");
	wrap(out, 0, 0, verb->description);
	for (const struct option *o = verb->options; o->name; o++) {
		if (o->group)
			fprintf(out, "\n%s:\n", o->group);
		print_option(verb, o, out);
	}
	if (verb->exit_codes) {
		fputs("\nExit codes:\n", out);
		for (const struct exit_text *e = exit_texts; e->code; e++)
			two_columns(out, e->code, e->text);
		fputc('\n', out);
		wrap(out, 0, 0, exit_overlap);
	}
	for (const struct example *e = verb->examples; e && e->text; e++)
		fprintf(out, "%s  # %s\n  %s\n", e == verb->examples ? "\nExamples:\n" : "\n",
			e->text, e->command);
}

/* ---- the verb ---------------------------------------------------------------------------------
 */

struct help_config {
	char *topic;
};

static const struct config_field fields[] = {
	{.name = "topic",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct help_config, topic),
	 .help = "command to explain"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("help", 'h', NULL, NULL, .group = "Options"),
	{.name = NULL},
};

static const char *verb_word(unsigned i)
{
	return verbs[i] && !verbs[i]->hidden ? verbs[i]->name : NULL; /* hidden ones come last */
}

static int run(void *config)
{
	const struct help_config *help = config;
	const struct verb *verb;
	struct error err;

	if (!help->topic) {
		help_overview(stdout);
		return 0;
	}
	verb = verb_find(help->topic);
	if (!verb) {
		error_set(&err, 0, "no command '%s'; see: ferry help", help->topic);
		return complain(EXIT_USAGE, &err);
	}
	help_verb(verb, stdout);
	return 0;
}

const struct verb verb_help = {
	.name = "help",
	.summary = "explain a command",
	.operands = "[COMMAND]",
	.description = "Explains a command, or lists all of them.",
	.options = options,
	.fields = fields,
	.size = sizeof(struct help_config),
	.operand_field = "topic",
	.operand_word = verb_word,
	.run = run,
};
