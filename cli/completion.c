/* `ferry completion SHELL`: a script for the shell, from the tables. */
#include <stddef.h>
#include <string.h>

#include "cli/cli.h"
#include "vmm/exit_codes.h"

static bool words(const struct verb *verb, const struct option *o, const char *separator)
{
	const struct config_field *field = option_field(verb, o);

	for (unsigned i = 0; field && field->word && field->word(i); i++)
		printf("%s%s", i ? separator : "", field->word(i));
	return field && field->word;
}

/* ---- bash ------------------------------------------------------------------------------- */

/* bash divides words at '=', so that --engine=so arrives as three and file=PATH as well. */
static const char bash_head[] =
	"# bash completion of ferry; made by: ferry completion bash\n"
	"_ferry()\n{\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words='' files=''\n"
	"\tCOMPREPLY=()\n"
	"\tif [[ $cur == = ]]; then\n\t\tcur=''\n"
	"\telif [[ $prev == = ]]; then\n\t\tprev=${COMP_WORDS[COMP_CWORD-2]}\n"
	"\t\t[[ $prev == -* ]] || { files=yes; prev=''; }\n\tfi\n";
static const char bash_tail[] =
	"\tesac\n"
	"\t[[ -n $words ]] && mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	"\tif [[ -n $files && ${#COMPREPLY[@]} -eq 0 ]]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	"\t\tcompopt -o filenames 2>/dev/null\n\tfi\n"
	"\t[[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null\n"
	"\treturn 0\n}\ncomplete -F _ferry ferry\n";

static void bash_verb(const struct verb *verb)
{
	printf("\t%s)\n\t\tcase $prev in\n", verb->name);
	for (const struct option *o = verb->options; o->name; o++) {
		if (!o->value)
			continue;
		printf("\t\t--%s", o->name);
		if (o->letter)
			printf("|-%c", o->letter);
		printf(") words=\"");
		words(verb, o, " ");
		printf("\"%s ;;\n", o->completion == COMPLETE_FILES ? " files=yes" : "");
	}
	printf("\t\t*)\n\t\t\t[[ $cur == -* ]] && words=\"");
	for (const struct option *o = verb->options; o->name; o++)
		printf("%s--%s", o == verb->options ? "" : " ", o->name);
	puts("\"");
	if (verb->operand_word) {
		printf("\t\t\t[[ $cur == -* ]] || words=\"");
		for (unsigned i = 0; verb->operand_word(i); i++)
			printf("%s%s", i ? " " : "", verb->operand_word(i));
		puts("\"");
	}
	if (verb->operand_completion == COMPLETE_FILES)
		puts("\t\t\tfiles=yes");
	if (verb->operand_completion == COMPLETE_MACHINES)
		puts("\t\t\t[[ $cur == -* ]] || words=$(\"${COMP_WORDS[0]}\" ps --names "
		     "2>/dev/null)");
	puts("\t\t\t;;\n\t\tesac\n\t\t;;");
}

static void bash(void)
{
	fputs(bash_head, stdout);
	fputs("\tif [[ $COMP_CWORD -eq 1 ]]; then\n\t\tmapfile -t COMPREPLY < <(compgen -W \"",
	      stdout);
	for (unsigned i = 0; verbs[i]; i++) {
		if (!verbs[i]->hidden)
			printf("%s%s", i ? " " : "", verbs[i]->name);
	}
	puts("\" -- \"$cur\")\n\t\treturn 0\n\tfi\n\tcase ${COMP_WORDS[1]} in");
	for (unsigned i = 0; verbs[i]; i++) {
		if (!verbs[i]->hidden)
			bash_verb(verbs[i]);
	}
	fputs(bash_tail, stdout);
}

/* ---- zsh and fish ----------------------------------------------------------------------- */

/* A help text within '...' and, for zsh, within [...]: the help is cut at its first clause. */
static void clause(const char *help)
{
	size_t len = strcspn(help, ":;.(");

	while (len && help[len - 1] == ' ')
		len--;
	for (size_t i = 0; i < len; i++) {
		if (!strchr("'[]\\", help[i]))
			putchar(help[i]);
	}
}

static const char *help_of(const struct verb *verb, const struct option *o)
{
	const struct config_field *field = option_field(verb, o);

	return field ? field->help : "show help";
}

static void zsh_option(const struct verb *verb, const struct option *o)
{
	const char *names[2] = {o->name, NULL};
	char letter[2] = {o->letter, 0};

	if (o->letter)
		names[1] = letter;
	for (unsigned i = 0; i < 2 && names[i]; i++) {
		printf("\t\t'*%s%s%s[", i ? "-" : "--", names[i], o->value && !i ? "=" : "");
		clause(help_of(verb, o));
		putchar(']');
		if (o->value) {
			const struct config_field *field = option_field(verb, o);

			printf(":%s:", o->name);
			if (field->word) {
				fputs("((", stdout);
				words(verb, o, " ");
				fputs("))", stdout);
			} else if (o->completion == COMPLETE_FILES) {
				fputs("_files", stdout);
			}
		}
		puts("' \\");
	}
}

static void zsh(void)
{
	puts("#compdef ferry\n# made by: ferry completion zsh\n_ferry() {\n\tlocal -a commands");
	puts("\tif (( CURRENT == 2 )); then\n\t\tcommands=(");
	for (unsigned i = 0; verbs[i]; i++) {
		if (verbs[i]->hidden)
			continue;
		printf("\t\t\t'%s:", verbs[i]->name);
		clause(verbs[i]->summary);
		puts("'");
	}
	puts("\t\t)\n\t\t_describe command commands\n\t\treturn\n\tfi");
	puts("\tlocal command=$words[2]\n\tshift words\n\t(( CURRENT-- ))\n\tcase $command in");
	for (unsigned i = 0; verbs[i]; i++) {
		const struct verb *verb = verbs[i];

		if (verb->hidden)
			continue;
		printf("\t%s)\n\t\t_arguments \\\n", verb->name);
		for (const struct option *o = verb->options; o->name; o++)
			zsh_option(verb, o);
		fputs("\t\t'*:operand:", stdout);
		for (unsigned w = 0; verb->operand_word && verb->operand_word(w); w++)
			printf("%s%s", w ? " " : "((", verb->operand_word(w));
		printf("%s'\n\t\t;;\n", verb->operand_word			     ? "))"
					: verb->operand_completion == COMPLETE_FILES ? "_files"
					: verb->operand_completion == COMPLETE_MACHINES
						? "{_values machine "
						  "${(f)\"$(ferry ps "
						  "--names "
						  "2>/dev/null)\"}}"
						: "");
	}
	puts("\tesac\n}\n_ferry \"$@\"");
}

static void fish_option(const struct verb *verb, const struct option *o)
{
	const struct config_field *field = option_field(verb, o);

	printf("complete -c ferry -n '__fish_seen_subcommand_from %s' -l %s", verb->name, o->name);
	if (o->letter)
		printf(" -s %c", o->letter);
	if (o->value)
		fputs(o->completion == COMPLETE_FILES ? " -r -F" : " -x", stdout);
	if (o->value && field && field->word) {
		fputs(" -a '", stdout);
		words(verb, o, " ");
		putchar('\'');
	}
	fputs(" -d '", stdout);
	clause(help_of(verb, o));
	puts("'");
}

static void fish(void)
{
	puts("# made by: ferry completion fish\ncomplete -c ferry -f");
	for (unsigned i = 0; verbs[i]; i++) {
		const struct verb *verb = verbs[i];

		if (verb->hidden)
			continue;
		printf("complete -c ferry -n __fish_use_subcommand -a %s -d '", verb->name);
		clause(verb->summary);
		puts("'");
		for (const struct option *o = verb->options; o->name; o++)
			fish_option(verb, o);
		if (verb->operand_completion == COMPLETE_FILES)
			printf("complete -c ferry -n '__fish_seen_subcommand_from %s' -F\n",
			       verb->name);
		if (verb->operand_completion == COMPLETE_MACHINES)
			printf("complete -c ferry -n '__fish_seen_subcommand_from %s' -a '(ferry "
			       "ps --names 2>/dev/null)'\n",
			       verb->name);
		for (unsigned w = 0; verb->operand_word && verb->operand_word(w); w++)
			printf("complete -c ferry -n '__fish_seen_subcommand_from %s' -a %s\n",
			       verb->name, verb->operand_word(w));
	}
}

/* ---- the verb --------------------------------------------------------------------------- */

static const struct shell {
	const char *name;
	void (*script)(void);
} shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}, {NULL, NULL}};

static const char *shell_word(unsigned i)
{
	return shells[i].name;
}

struct completion_config {
	char *shell;
};

static const struct config_field fields[] = {
	{.name = "shell",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct completion_config, shell),
	 .help = "bash, zsh or fish"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("help", 'h', NULL, NULL, .group = "Options"),
	{.name = NULL},
};

static int run(void *config)
{
	const struct completion_config *completion = config;
	struct error err;

	for (const struct shell *shell = shells; completion->shell && shell->name; shell++) {
		if (!strcmp(shell->name, completion->shell)) {
			shell->script();
			return 0;
		}
	}
	error_set(&err, 0, "completion: %s%s%s; choose bash, zsh or fish",
		  completion->shell ? "'" : "",
		  completion->shell ? completion->shell : "no shell given",
		  completion->shell ? "' is not known" : "");
	return complain(EXIT_USAGE, &err);
}

const struct verb verb_completion = {
	.name = "completion",
	.summary = "print a completion script for a shell",
	.operands = "SHELL",
	.description =
		"Prints a completion script. For bash, in ~/.bashrc: source <(ferry completion "
		"bash)",
	.options = options,
	.fields = fields,
	.size = sizeof(struct completion_config),
	.operand_field = "shell",
	.operand_word = shell_word,
	.run = run,
};
