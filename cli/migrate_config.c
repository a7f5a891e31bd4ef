#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/client.h"
#include "cli/migrate.h"
#include "migration/address.h"
#include "vmm/json_util.h"

/* "300ms", "2s", "1m"; a plain number is seconds. Milliseconds, or -1. */
static long parse_time(const char *text)
{
	char *end;
	double value = strtod(text, &end), unit = 1000;

	if (!strcmp(end, "ms"))
		unit = 1;
	else if (!strcmp(end, "m"))
		unit = 60000;
	else if (*end && strcmp(end, "s") != 0)
		return -1;
	value *= unit;
	return end == text || !(value >= 1) || value > 3600000 ? -1 : (long)value;
}

static int check_time(const char *text, struct error *err)
{
	return parse_time(text) < 0
		       ? error_set(err, -EINVAL, "a time is 1ms to 3600s: 300ms, 2s, 1m")
		       : 0;
}

/* A plain number is rounds, else it is a time. */
static bool is_rounds(const char *text)
{
	return text[0] && strspn(text, "0123456789") == strlen(text);
}

static int check_after(const char *text, struct error *err)
{
	if (is_rounds(text) ? strlen(text) < 7 && strtol(text, NULL, 10) > 0 : parse_time(text) > 0)
		return 0;
	return error_set(err, -EINVAL, "rounds (3), or a time (500ms, 2s)");
}

/* ---- for the machine -------------------------------------------------------------------- */

static const char *timeout_word(unsigned i)
{
	static const char *const words[] = {"cancel", "postcopy", "throttle"};

	return i < sizeof(words) / sizeof(words[0]) ? words[i] : NULL;
}

static void add_numbers(const struct migrate_config *config, json_t *args)
{
	if (config->downtime)
		json_object_set_new(args, "downtime", json_integer(parse_time(config->downtime)));
	if (config->timeout)
		json_object_set_new(args, "timeout", json_integer(parse_time(config->timeout)));
	json_object_set_new(args, "on-timeout", json_string(timeout_word(config->on_timeout)));
	if (config->postcopy)
		json_object_set_new(args, "postcopy-rounds", json_integer(1));
	else if (config->postcopy_after && is_rounds(config->postcopy_after))
		json_object_set_new(args, "postcopy-rounds",
				    json_integer(strtol(config->postcopy_after, NULL, 10)));
	else if (config->postcopy_after)
		json_object_set_new(args, "postcopy-ms",
				    json_integer(parse_time(config->postcopy_after)));
	if (config->bandwidth)
		json_object_set_new(args, "bandwidth", json_integer((json_int_t)config->bandwidth));
	if (config->verify)
		json_object_set_new(args, "verify", json_true());
	if (config->uncompressed)
		json_object_set_new(args, "uncompressed", json_true());
	if (config->tls.name)
		json_object_set_new(args, "tls-name", json_text(config->tls.name));
	if (config->spool)
		json_object_set_new(args, "recover-ms", json_integer(parse_time(config->recover)));
}

/* Left out, a file would be as if never asked for: the guest would go without TLS. */
static int add_files(const struct migrate_config *config, json_t *args, struct error *err)
{
	const struct {
		const char *key, *file;
	} files[] = {
		{"tls-certs", config->tls.certs},
		{"tls-psk", config->tls.psk},
		{"spool", config->spool},
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int ret = client_add_path(args, files[i].key, files[i].file, err);

		if (ret)
			return error_prefix(err, ret, "--%s", files[i].key);
	}
	return 0;
}

json_t *migrate_arguments(const struct migrate_config *config, struct error *err)
{
	json_t *args = json_object();

	if (!client_add_address(args, "to", config->to, err) && !add_files(config, args, err)) {
		add_numbers(config, args);
		return args;
	}
	json_decref(args);
	return NULL;
}

/* ---- before there is one ---------------------------------------------------------------- */

int migrate_check(struct migrate_config *config, struct error *err)
{
	struct stream_error why;
	struct tls *tls;
	json_t *args;
	int ret;

	if (!config->to) {
		config->to = config->name;
		config->name = NULL;
	}
	if (!config->to)
		return error_set(err, -EINVAL,
				 "no address is given; try: ferry migrate [NAME] tcp:HOST:PORT");
	if (config->name && config_check_name(config->name, err))
		return error_prefix(err, -EINVAL, "NAME");
	ret = address_check(config->to, &why);
	if (ret)
		return error_set(err, ret, "%s", why.text);
	if (config->postcopy && config->postcopy_after)
		return error_set(err, -EINVAL, "either --postcopy or --postcopy-after");
	args = migrate_arguments(config, err);
	json_decref(args);
	if (!args)
		return -EINVAL;
	/* The machine reads the files again. */
	ret = tls_config_load(&config->tls, TLS_CLIENT, config->to, &tls, err);
	tls_free(tls);
	return ret;
}

/* ---- the table -------------------------------------------------------------------------- */

#define FIELD(n, t, m, ...)                                                                        \
	{                                                                                          \
		.name = n, .type = t, .offset = offsetof(struct migrate_config, m), __VA_ARGS__    \
	}
const struct config_field migrate_fields[] = {
	FIELD("name", CONFIG_STRING, name, .help = "name of the machine"),
	FIELD("to", CONFIG_STRING, to, .help = "where a ferry receive waits"),
	FIELD("downtime", CONFIG_STRING, downtime, .check = check_time, .initial = "300ms",
	      .help = "the guest may stand still for this long; given up at the latest 5 s "
		      "after that"),
	FIELD("timeout", CONFIG_STRING, timeout, .check = check_time,
	      .help = "so long it may take; without an end, what --on-timeout says is done"),
	FIELD("on-timeout", CONFIG_CHOICE, on_timeout, .word = timeout_word, .initial = "cancel",
	      .help = "what is done then; the last two also when what is left does not get less"),
	FIELD("postcopy", CONFIG_BOOL, postcopy,
	      .help = "after the first round the guest goes, its other pages follow it"),
	FIELD("postcopy-after", CONFIG_STRING, postcopy_after, .check = check_after,
	      .help = "the same after so many rounds (3), or that time (500ms, 2s)"),
	FIELD("recover-timeout", CONFIG_STRING, recover, .check = check_time, .initial = "60s",
	      .help = "with --spool: so long the other side is looked for"),
	FIELD("spool", CONFIG_STRING, spool,
	      .help = "file for the pages that the guest lacks there when its link stays dead"),
	FIELD("bandwidth", CONFIG_SIZE, bandwidth, .min = 4096, .max = 1ull << 46,
	      .help = "bytes per second that may be sent; a plain number is MiB"),
	FIELD("uncompressed", CONFIG_BOOL, uncompressed,
	      .help = "pages go as they are, also where the link is waited for: for a host whose "
		      "processors have enough to do"),
	FIELD("verify", CONFIG_BOOL, verify,
	      .help = "the destination checks every page and the devices' state against digests "
		      "made here"),
	TLS_CONFIG_FIELDS(FIELD),
	FIELD("insecure", CONFIG_BOOL, insecure,
	      .help = "do not warn of a connection without protection"),
	FIELD("json", CONFIG_BOOL, json, .help = "one JSON object a line on stdout, for scripts"),
	{.name = NULL},
};
