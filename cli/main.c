#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "migration/clock.h"
#include "vmm/cleanup.h"
#include "vmm/exit_codes.h"
#include "vmm/message.h"

const struct verb *const verbs[] = {
	&verb_run,     &verb_ps,      &verb_info,    &verb_pause,
	&verb_resume,  &verb_reset,   &verb_stop,    &verb_kill,
	&verb_wait,    &verb_stats,   &verb_balloon, &verb_save,
	&verb_restore, &verb_migrate, &verb_receive, &verb_migrate_control,
	&verb_console, &verb_logs,    &verb_stream,  &verb_mmu,
	&verb_doctor,  &verb_version, &verb_help,    &verb_completion,
	&verb_man,     NULL,
};

static const struct hint verb_hints[] = {
	{"start", "use: ferry run"},
	{"boot", "use: ferry run"},
	{"create", "use: ferry run"},
	{"list", "use: ferry ps"},
	{"ls", "use: ferry ps"},
	{"show", "use: ferry info"},
	{"status", "use: ferry info"},
	{"attach", "use: ferry console"},
	{"suspend", "use: ferry pause"},
	{"continue", "use: ferry resume"},
	{"cont", "use: ferry resume"},
	{"reboot", "use: ferry reset"},
	{"shutdown", "use: ferry stop"},
	{"poweroff", "use: ferry stop"},
	{"destroy", "use: ferry kill"},
	{"check", "use: ferry doctor"},
	{"move", "use: ferry migrate"},
	{"send", "use: ferry migrate"},
	{"incoming", "use: ferry receive"},
	{"snapshot", "use: ferry save"},
	{NULL, NULL},
};

const struct verb *verb_find(const char *name)
{
	for (unsigned i = 0; verbs[i]; i++) {
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	}
	return NULL;
}

int complain(int code, struct error *err)
{
	message_clean(err->text);
	fflush(stdout);
	fprintf(stderr, "ferry: %s\n", err->text);
	return code;
}

static const char *visible_name(const void *table, unsigned i)
{
	const struct verb *const *list = table;

	return list[i] && !list[i]->hidden ? list[i]->name : NULL;
}

static int unknown_verb(const char *word)
{
	const char *near = suggest(word, visible_name, verbs);
	struct error err;

	for (const struct hint *h = verb_hints; h->word; h++) {
		if (!strcmp(h->word, word)) {
			error_set(&err, 0, "unknown command '%s'; %s", word, h->text);
			return complain(EXIT_USAGE, &err);
		}
	}
	if (word[0] == '-')
		error_set(&err, 0,
			  "option %s before the command; options follow it: ferry run [options] "
			  "KERNEL",
			  word);
	else if (near)
		error_set(&err, 0, "unknown command '%s'; did you mean '%s'?", word, near);
	else if (!access(word, R_OK))
		error_set(&err, 0, "unknown command '%s'; to start that file: ferry run %s", word,
			  word);
	else
		error_set(&err, 0, "unknown command '%s'; see: ferry help", word);
	return complain(EXIT_USAGE, &err);
}

/* Wherever it stands: what comes before it may be wrong. */
static bool wants_json(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (!strcmp(argv[i], "--json") || !strcmp(argv[i], "-j"))
			return true;
	return false;
}

static int run_verb(const struct verb *verb, int argc, char **argv)
{
	struct error err = {""};
	void *config = calloc(1, verb->size);
	int ret;

	if (!config) {
		error_set(&err, 0, "out of memory");
		return complain(EXIT_START, &err);
	}
	config_init(verb->fields, config, verb->size);
	ret = options_parse(verb, config, argc, argv, &err);
	if (ret < 0 && verb->wrong && wants_json(argc, argv))
		verb->wrong(err.text);
	if (ret < 0)
		ret = complain(EXIT_USAGE, &err);
	else if (ret > 0)
		ret = (help_verb(verb, stdout), 0);
	else
		ret = verb->run(config);
	config_free(verb->fields, config);
	free(config);
	return ret;
}

/* A closed standard descriptor would be given to the next file that is opened. */
static void open_standard_fds(void)
{
	for (int fd = 0; fd < 3; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)!open("/dev/null", fd ? O_WRONLY : O_RDONLY);
	}
}

uint64_t process_begun;

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;
	const struct verb *verb;
	struct error err;
	int ret;

	/* Loading the libraries came before: what it has cost in processor time is known. */
	process_begun = clock_now() - clock_read(CLOCK_PROCESS_CPUTIME_ID);
	open_standard_fds();
	cleanup_install();
	signal(SIGPIPE, SIG_IGN);
	if (!word) {
		help_overview(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h"))
		word = "help";
	else if (!strcmp(word, "--version") || !strcmp(word, "-V"))
		word = "version";
	verb = verb_find(word);
	if (!verb)
		return unknown_verb(word);
	ret = run_verb(verb, argc - 2, argv + 2);
	if ((fflush(stdout) || ferror(stdout)) && !ret && errno != EPIPE) {
		error_set(&err, 0, "standard output: %s", strerror(errno));
		return complain(EXIT_START, &err);
	}
	return ret;
}
