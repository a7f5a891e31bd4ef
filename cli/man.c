/* `ferry man [VERB]`: the man pages, in roff, from the same tables as the help. `make man` calls
 * it. */
#include <string.h>

#include "cli/cli.h"
#include "cli/exit_codes.h"

/* Text with roff's own characters escaped. A line must not begin with a dot or an apostrophe. */
static void text(const char *string)
{
	bool start = true;

	for (; *string; string++) {
		if (start && (*string == '.' || *string == '\''))
			fputs("\\&", stdout);
		start = *string == '\n';
		switch (*string) {
		case '\\': fputs("\\e", stdout); break;
		case '-': fputs("\\-", stdout); break;
		case '\'': fputs("\\(aq", stdout); break;
		case '`': fputs("\\(ga", stdout); break;
		case '^': fputs("\\(ha", stdout); break;
		case '~': fputs("\\(ti", stdout); break;
		case '\n': fputs("\n.PP\n", stdout); break;
		default: putchar(*string);
		}
	}
}

static void line(const char *macro, const char *string)
{
	fputs(macro, stdout);
	text(string);
	putchar('\n');
}

static void title(const char *name)
{
	printf(".\\\" Made by `ferry man`; change the tables in cli/ instead.\n.TH ");
	for (; *name; name++)
		putchar(*name >= 'a' && *name <= 'z' ? *name - 32 : *name);
	puts(" 1 \"\" \"ferry " FERRY_VERSION "\" \"User Commands\"\n.nh");
}

static void files_and_environment(void)
{
	puts(".SH ENVIRONMENT\n.TP\n.B FERRY_RUNTIME_DIR\n"
	     "Folder in which running machines are found by name, taken as it is. Without it,\n"
	     ".IR $XDG_RUNTIME_DIR /ferry,\n"
	     "else a private folder\n.I /run/ferry\\-UID\nor\n.IR /tmp/ferry\\-UID .\n"
	     ".SH FILES\nIn the runtime folder:\n.TP\n.IR NAME .lock\n"
	     "Locked while the machine NAME runs; holds its process id.\n"
	     "One that nobody holds is left over from a killed ferry; every command cleans up "
	     "behind it.\n"
	     ".TP\n.IR NAME .sock\nThe machine\\(aqs control socket, for its user and root.\n"
	     ".TP\n.IR NAME .log ,\\ NAME +serial0.log\n"
	     "Of a machine in the background: ferry\\(aqs messages and the guest\\(aqs output; "
	     "see\n"
	     ".BR ferry\\-logs (1).\n"
	     ".TP\n.IR NAME .end\nHow a machine in the background ended. It and the logs are kept "
	     "for a day, of\nthe 64 machines that ended last, as long as no other takes the name.");
}

static void exit_codes(void)
{
	puts(".SH EXIT STATUS");
	for (const struct exit_text *e = exit_texts; e->code; e++) {
		line(".TP\n.B ", e->code);
		line("", e->text);
	}
	line(".PP\n", exit_overlap);
}

static void page_overview(void)
{
	title("ferry");
	puts(".SH NAME\nferry \\- run virtual machines on any Linux host\n.SH SYNOPSIS\n.B ferry\n"
	     ".I COMMAND\n.RI [ options ]\n.SH DESCRIPTION\n"
	     "ferry runs a virtual machine through KVM where the processor pages for guests, and "
	     "everywhere\nelse by emulation, without any privileges.\n.SH COMMANDS");
	for (unsigned i = 0; verbs[i]; i++) {
		if (verbs[i]->hidden)
			continue;
		printf(".TP\n.BR ferry\\-%s (1)\n", verbs[i]->name);
		line("", verbs[i]->summary);
	}
	files_and_environment();
	puts(".SH SEE ALSO");
	for (unsigned i = 0; verbs[i]; i++) {
		if (!verbs[i]->hidden)
			printf(".BR ferry\\-%s (1)%s\n", verbs[i]->name,
			       verbs[i + 1] && !verbs[i + 1]->hidden ? "," : "");
	}
}

/* The keys of an option that is a list of structures. */
static void keys(const struct config_field *sub)
{
	char key[128], help[512];

	puts(".RS");
	for (; sub->name; sub++) {
		help_key(sub, key, sizeof(key));
		help_value(sub, help, sizeof(help));
		line(".TP\n.B ", key);
		text(help);
		puts(".");
	}
	puts(".RE");
}

static void option(const struct verb *verb, const struct option *o)
{
	const struct config_field *field = option_field(verb, o);
	char help[512] = "show this help";

	fputs(".TP\n", stdout);
	if (o->letter)
		printf("\\fB\\-%c\\fR, ", o->letter);
	fputs("\\fB\\-\\-", stdout);
	text(o->name);
	fputs("\\fR", stdout);
	if (o->value) {
		fputs(" \\fI", stdout);
		text(o->value);
		fputs("\\fR", stdout);
	}
	putchar('\n');
	if (field)
		help_value(field, help, sizeof(help));
	text(help);
	puts(".");
	if (field && field->type == CONFIG_LIST)
		keys(field->sub);
}

static void page_verb(const struct verb *verb)
{
	char name[64];

	snprintf(name, sizeof(name), "ferry-%s", verb->name);
	title(name);
	printf(".SH NAME\nferry\\-%s \\- %s\n.SH SYNOPSIS\n.B ferry %s\n.RI [ options ]\n",
	       verb->name, verb->summary, verb->name);
	if (verb->operands)
		line(".I ", verb->operands);
	line(".SH DESCRIPTION\n", verb->description);
	puts(".SH OPTIONS");
	for (const struct option *o = verb->options; o->name; o++) {
		if (o->group && strcmp(o->group, "Options") != 0)
			line(".SS ", o->group);
		option(verb, o);
	}
	if (verb->exit_codes)
		exit_codes();
	for (const struct example *e = verb->examples; e && e->text; e++) {
		if (e == verb->examples)
			puts(".SH EXAMPLES");
		line(".PP\n", e->text);
		line(".PP\n.RS 4\n.nf\n", e->command);
		puts(".fi\n.RE");
	}
	if (verb->exit_codes)
		files_and_environment();
	puts(".SH SEE ALSO\n.BR ferry (1)");
}

/* ---- the verb --------------------------------------------------------------------------- */

struct man_config {
	char *page;
};

static const struct config_field fields[] = {
	{.name = "page",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct man_config, page),
	 .help = "ferry, or ferry-VERB; without: the names of all pages"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("help", 'h', NULL, NULL, .group = "Options"),
	{.name = NULL},
};

static int run(void *config)
{
	const struct man_config *man = config;
	const struct verb *verb;
	struct error err;

	if (!man->page) {
		puts("ferry");
		for (unsigned i = 0; verbs[i]; i++) {
			if (!verbs[i]->hidden)
				printf("ferry-%s\n", verbs[i]->name);
		}
		return 0;
	}
	if (!strcmp(man->page, "ferry")) {
		page_overview();
		return 0;
	}
	verb = strncmp(man->page, "ferry-", 6) ? NULL : verb_find(man->page + 6);
	if (!verb) {
		error_set(&err, 0, "no man page '%s'; see: ferry man", man->page);
		return complain(EXIT_USAGE, &err);
	}
	page_verb(verb);
	return 0;
}

const struct verb verb_man = {
	.name = "man",
	.summary = "print a man page",
	.operands = "[PAGE]",
	.description = "Prints a man page in roff, or the names of all pages.",
	.options = options,
	.hidden = true,
	.fields = fields,
	.size = sizeof(struct man_config),
	.operand_field = "page",
	.run = run,
};
