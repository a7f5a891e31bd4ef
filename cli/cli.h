/*
 * The command line as tables: verbs, their options, their examples. Parsing, help, man pages and
 * shell completion all read them; what a value may be stands in the config_field (vmm/config.h)
 * that an option fills.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "vmm/config.h"
#include "vmm/error.h"

/* CLOCK_MONOTONIC in ns when this process began, as far as it can tell. */
extern uint64_t process_begun;

enum completion { COMPLETE_NOTHING, COMPLETE_FILES, COMPLETE_MACHINES };

/* One key of `--option value,key=value,flag`. */
struct suboption {
	const char *name;  /* NULL ends the table */
	const char *field; /* a bool may stand without =value */
};

struct option {
	const char *name;  /* without the dashes; NULL ends the table */
	char letter;	   /* short form, or 0 */
	const char *value; /* how help writes it; NULL: a flag */
	const char *field; /* what it sets; NULL: --help */
	const char *group; /* heading; NULL: as the one before */
	const struct suboption *suboptions;
	enum completion completion;
};

#define OPTION(n, l, v, f, ...)                                                                    \
	{                                                                                          \
		.name = n, .letter = l, .value = v, .field = f, __VA_ARGS__                        \
	}

/* What users of other programs type, and what ferry says then. */
struct hint {
	const char *word; /* option without dashes, or verb; NULL ends the table */
	const char *text; /* a clause: "use --cpus" */
};

struct example {
	const char *text, *command; /* NULL ends the table */
};

struct verb {
	const char *name; /* NULL ends the table */
	const char *summary;
	const char *operands;	 /* how help writes them: "KERNEL"; NULL: none */
	const char *description; /* paragraphs, divided by a line feed */
	const struct option *options;
	const struct hint *hints;
	const struct example *examples;
	bool exit_codes; /* help shows the table */
	bool hidden;	 /* not in help */

	const struct config_field *fields;
	size_t size;		   /* of the structure that they describe */
	const char *operand_field; /* that the operand fills */
	const char *second_field;  /* and a second one; NULL: there is one at most */
	const char *third_field;
	const char *(*operand_word)(unsigned i); /* for completion; NULL at the end */
	enum completion operand_completion;
	/* config: filled from the command line. Returns the exit code. */
	int (*run)(void *config);
	/* Beside what is said of a wrong command line, if it has --json; NULL: nothing. */
	void (*wrong)(const char *text);
};

extern const struct verb *const verbs[]; /* ends with NULL */
const struct verb *verb_find(const char *name);

extern const struct verb verb_run, verb_ps, verb_info, verb_pause, verb_resume, verb_reset,
	verb_stop, verb_kill, verb_wait, verb_stats, verb_balloon, verb_console, verb_logs,
	verb_save, verb_restore, verb_migrate, verb_receive, verb_migrate_control, verb_stream,
	verb_mmu, verb_doctor, verb_version, verb_help, verb_completion, verb_man;

/* ---- options.c -------------------------------------------------------------------------- */

/* Parses argv (without program and verb) into config, which was initialised. 0; 1: --help was asked
 * for; -EINVAL with a text. Long options also as --name=value, letters also as -m512M; options may
 * stand before and after operands; `--` ends them. Of an option that is no list the last one
 * counts. */
int options_parse(const struct verb *verb, void *config, int argc, char **argv, struct error *err);

/* ---- suggest.c -------------------------------------------------------------------------- */

/* The candidate nearest to `word`, or NULL if none is near. candidates(i) returns NULL at the end.
 */
const char *suggest(const char *word, const char *(*candidate)(const void *table, unsigned i),
		    const void *table);

/* ---- help.c ----------------------------------------------------------------------------- */

void help_overview(FILE *out);
void help_verb(const struct verb *verb, FILE *out);
/* What is said of a field, with its words and what it is by default. */
void help_value(const struct config_field *field, char *buf, size_t len);
/* How a key of a list's elements is written: "cache=writeback|none", "ro", "FILE". */
void help_key(const struct config_field *sub, char *buf, size_t len);
const struct config_field *option_field(const struct verb *verb, const struct option *option);

/* ---- main.c ----------------------------------------------------------------------------- */

/* One line on stderr, "ferry: TEXT". Returns code. */
int complain(int code, struct error *err);

#endif
