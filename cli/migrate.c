/* `ferry migrate`: a running guest goes to another ferry. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/incoming_options.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/machine.h"
#include "cli/migrate.h"
#include "migration/address.h"
#include "vmm/exit_codes.h"
#include "vmm/json_util.h"
#include "vmm/message.h"

enum { TURN_MS = 250, GONE_MS = 10000 };

/* ---- what is seen ----------------------------------------------------------------------- */

static long long number(const json_t *j, const char *key)
{
	return (long long)json_integer_value(json_object_get(j, key));
}

static const char *word(const json_t *j, const char *key)
{
	const char *text = json_string_value(json_object_get(j, key));

	return text ? text : "";
}

static void print_line(json_t *j)
{
	json_dumpf(j, stdout, JSON_COMPACT);
	puts("");
	fflush(stdout);
}

/* On a terminal one line, which is never wider than that. */
static void print_progress(const json_t *p, bool terminal)
{
	const double done = json_real_value(json_object_get(p, "done"));
	struct winsize size = {0};
	char text[256], left[32] = "no end in sight";
	int width = sizeof(text) - 1;

	if (json_object_get(p, "eta-ms"))
		snprintf(left, sizeof(left), "%lld s to go", (number(p, "eta-ms") + 999) / 1000);
	snprintf(text, sizeof(text),
		 "%s: %.0f %%, %s, %lld MiB left, %lld MiB/s, written again: %lld MiB/s, downtime "
		 "would be %lld ms, round %lld",
		 word(p, "phase"), done * 100, left, number(p, "remaining") >> 20,
		 number(p, "rate") >> 20, number(p, "dirty-rate") >> 20,
		 number(p, "expected-downtime-ms"), number(p, "round"));
	if (*word(p, "trouble")) {
		snprintf(text, sizeof(text), "%s: %.0f %%, %lld MiB left: %s", word(p, "phase"),
			 done * 100, number(p, "remaining") >> 20, word(p, "trouble"));
		message_clean(text);
	}
	if (terminal && !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col > 1)
		width = size.ws_col - 1;
	fprintf(stderr, "%s%.*s%s", terminal ? "\r\033[K" : "", width, text, terminal ? "" : "\n");
}

/* What has changed since the last time; lines that are the same are not said again. */
static void show(struct client *client, const struct migrate_config *config, bool terminal)
{
	static char last[64];
	char now[64];
	struct error err;
	json_t *p;

	if (client_call(client, "ferry-migration", NULL, CLIENT_ANSWER_MS, &p, &err))
		return;
	snprintf(now, sizeof(now), "%.20s %lld %lld", word(p, "phase"), number(p, "round"),
		 number(p, "bytes"));
	if (strcmp(now, last) != 0 && strcmp(word(p, "phase"), "none") != 0) {
		snprintf(last, sizeof(last), "%s", now);
		if (config->json)
			print_line(p);
		else
			print_progress(p, terminal);
	}
	json_decref(p);
}

/* ---- how it ends ------------------------------------------------------------------------ */

/* The last line, where the machine itself has none for it. */
static void print_end(const char *status, const char *text)
{
	json_t *j = json_pack("{s:s, s:s, s:o, s:i, s:i, s:i, s:i}", "phase", "failed", "status",
			      status, "text", json_text(text), "downtime_ms", 0, "total_ms", 0,
			      "bytes", 0, "faults", 0);

	if (j)
		print_line(j);
	json_decref(j);
}

static int finish(const struct migrate_config *config, json_t *answer, bool terminal)
{
	static const struct {
		const char *status;
		int code;
	} codes[] = {{"moved", 0},
		     {"refused", EXIT_REFUSED},
		     {"failed", EXIT_FAILED},
		     {"cancelled", EXIT_CANCELLED},
		     {"spooled", EXIT_SPOOLED}};
	const char *status = word(answer, "status");
	int code = EXIT_DOUBT;

	for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (!strcmp(status, codes[i].status))
			code = codes[i].code;
	if (terminal && !config->json)
		fprintf(stderr, "\r\033[K");
	if (!config->json && !code)
		message("moved to %s: %lld ms, downtime %lld ms, %lld MiB sent", config->to,
			number(answer, "total-ms"), number(answer, "downtime-ms"),
			number(answer, "bytes") >> 20);
	else if (code == EXIT_SPOOLED)
		message("the guest is at %s and lacks pages that are in %s now; there: ferry "
			"migrate-control NAME complete FILE",
			config->to, word(answer, "file"));
	else if (code)
		message("%s: %s", status, word(answer, "text"));
	if (config->json) {
		/* Names that scripts know. */
		json_object_set_new(answer, "downtime_ms",
				    json_integer(number(answer, "downtime-ms")));
		json_object_set_new(answer, "total_ms", json_integer(number(answer, "total-ms")));
		print_line(answer);
	}
	json_decref(answer);
	return code;
}

/* Whoever has told the other side to listen without protection has decided it for both. */
static void warn_of_open_link(const struct migrate_config *config)
{
	char host[256];

	address_host(config->to, host, sizeof(host));
	if (tls_config_given(&config->tls) || config->insecure || !*host ||
	    !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost"))
		return;
	message("all of the guest's memory goes to %s as it is, for everybody on the way to read "
		"and to change: --tls-psk or --tls-certs protect it",
		host);
}

/* Nothing has begun, or the machine has refused it. */
static int give_up(const struct migrate_config *config, int code, struct error *err)
{
	if (config->json)
		print_end("failed", err->text);
	return complain(code, err);
}

static void wrong(const char *text)
{
	print_end("failed", text);
}

/* Who looks on goes; the move is the machine's. */
static int leave(const struct migrate_config *config, const struct client *client, int signo)
{
	struct error err;

	error_set(
		&err, 0,
		"%s goes on to be moved to %s; ferry migrate-control %s cancel calls it off, ferry "
		"info %s tells how far it is",
		client->name, config->to, client->name, client->name);
	if (config->json)
		print_end("left", err.text);
	return complain(EXIT_SIGNAL + signo, &err);
}

static int migrate(const struct migrate_config *config, struct client *client, struct client *eye)
{
	const bool terminal = isatty(STDERR_FILENO);
	json_t *answer = NULL, *args;
	struct error err;
	int ret;

	args = migrate_arguments(config, &err);
	if (!args)
		return give_up(config, EXIT_USAGE, &err);
	interrupt_watch();
	ret = client_call(client, "ferry-migrate", args, TURN_MS, &answer, &err);
	while (ret == -ETIMEDOUT && !interrupt_came()) {
		show(eye, config, terminal);
		ret = client_answer(client, TURN_MS, &answer, &err);
	}
	if (ret == -ETIMEDOUT) {
		if (terminal && !config->json)
			fprintf(stderr, "\r\033[K");
		return leave(config, client, interrupt_came());
	}
	if (ret == -EPIPE) {
		error_set(&err, 0,
			  "the machine's process has ended: whether the guest runs at %s is to be "
			  "seen there",
			  config->to);
		if (config->json)
			print_end("doubt", err.text);
		return complain(EXIT_DOUBT, &err);
	}
	if (ret)
		return give_up(config, ret == -EREMOTEIO ? EXIT_FAILED : EXIT_START, &err);
	if (!strcmp(word(answer, "status"), "moved") || !strcmp(word(answer, "status"), "spooled"))
		client_gone(client, GONE_MS);
	return finish(config, answer, terminal);
}

static int run_migrate(void *opaque)
{
	struct migrate_config *config = opaque;
	struct client client, eye;
	struct error err;
	int ret, code;

	if (migrate_check(config, &err))
		return give_up(config, EXIT_USAGE, &err);
	warn_of_open_link(config);
	ret = client_open(&client, config->name, &err);
	if (ret) {
		client_close(&client);
		return give_up(config, EXIT_START, &err);
	}
	ret = client_open(&eye, client.name, &err);
	code = ret ? give_up(config, EXIT_START, &err) : migrate(config, &client, &eye);
	client_close(&eye);
	client_close(&client);
	return code;
}

/* ---- the tables ------------------------------------------------------------------------- */

static const struct option options[] = {
	OPTION("downtime", 0, "TIME", "downtime", .group = "Options"),
	OPTION("bandwidth", 0, "SIZE", "bandwidth"),
	OPTION("uncompressed", 0, NULL, "uncompressed"),
	OPTION("timeout", 0, "TIME", "timeout"),
	OPTION("on-timeout", 0, "cancel|postcopy|throttle", "on-timeout"),
	OPTION("postcopy", 0, NULL, "postcopy"),
	OPTION("postcopy-after", 0, "N|TIME", "postcopy-after"),
	OPTION("spool", 0, "FILE", "spool", .completion = COMPLETE_FILES),
	OPTION("recover-timeout", 0, "TIME", "recover-timeout"),
	OPTION("verify", 0, NULL, "verify"),
	OPTION("json", 'j', NULL, "json"),
	TLS_OPTIONS,
	OPTION("insecure", 0, NULL, "insecure"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

const struct verb verb_migrate = {
	.name = "migrate",
	.summary = "move a running guest to another ferry",
	.operands = "[NAME] tcp:HOST:PORT|unix:PATH",
	.description =
		"Moves the guest to the ferry receive at that address, while it runs: memory is "
		"copied in rounds until the rest fits into --downtime, and as long as each round "
		"leaves half of what the one before it left; then the guest stands still, and goes "
		"on there. The machine here ends with code 0. Returns when "
		"it "
		"is known where the guest is; the exit code tells. Ctrl-C ends the looking on "
		"only: the "
		"move goes on, and ferry migrate-control NAME cancel calls it off.\n"
		"Whatever fails before the guest is given away leaves it running here. If the link "
		"breaks in that very moment the guest stands still here until the other side has "
		"said whether it has it; both look for each other by "
		"themselves.\n"
		"With --postcopy the guest runs there before all of its memory has come: what it "
		"touches is fetched, the rest follows. Until then it needs both sides: if the link "
		"breaks it waits, where it needs a page, until the two have found each other; if "
		"one of the processes dies it is lost. With --spool, a link that stays dead for "
		"--recover-timeout (or the end of the process here) makes a file of what is still "
		"here: brought to the other host by other means, ferry migrate-control NAME "
		"complete FILE gives it to that guest, and no other takes it.\n"
		"With --tls-psk or --tls-certs, here and at ferry receive, the guest goes "
		"encrypted, and each side knows that the other one may have it. " MACHINE_NAME_TEXT,
	.options = options,
	.exit_codes = true,
	.fields = migrate_fields,
	.size = sizeof(struct migrate_config),
	.operand_field = "name",
	.second_field = "to",
	.operand_completion = COMPLETE_MACHINES,
	.run = run_migrate,
	.wrong = wrong,
};
