/* What can be said of a machine that exists already: which things of this host it is given. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/incoming_internal.h"

/* "2=FILE", "vdb=FILE": the number from 0, and the file. */
static int parse_disk(const char *text, unsigned *n, const char **file)
{
	const char *equals = strchr(text, '=');
	char *end;

	if (!equals || !equals[1])
		return -EINVAL;
	*file = equals + 1;
	if (equals - text == 3 && !strncmp(text, "vd", 2) && text[2] >= 'a' &&
	    text[2] < 'a' + CONFIG_MAX_DISKS) {
		*n = (unsigned)(text[2] - 'a');
		return 0;
	}
	*n = (unsigned)strtoul(text, &end, 10) - 1;
	return end == equals && end != text && *n < CONFIG_MAX_DISKS ? 0 : -EINVAL;
}

static int check_disk(const char *text, struct error *err)
{
	const char *file;
	unsigned n;

	return parse_disk(text, &n, &file)
		       ? error_set(err, -EINVAL,
				   "it is N=FILE: 1=FILE or vda=FILE for the first "
				   "disk")
		       : 0;
}

#define FIELD(n, t, m, ...)                                                                        \
	{                                                                                          \
		.name = n, .type = t, .offset = offsetof(struct incoming_config, m), __VA_ARGS__   \
	}
#define LIST(member, max) .element = sizeof(((struct incoming_config *)0)->member[0]), .limit = max
#define LIST_OK(list, count)                                                                       \
	_Static_assert(offsetof(struct incoming_config, count) ==                                  \
			       offsetof(struct incoming_config, list) +                            \
				       sizeof(((struct incoming_config *)0)->list),                \
		       #count " must follow " #list)
LIST_OK(serial, serial_count);
LIST_OK(console, console_count);
LIST_OK(disk, disk_count);
LIST_OK(net, net_count);
LIST_OK(vsock, vsock_count);

const struct config_field incoming_fields[] = {
	FIELD("from", CONFIG_STRING, from, .help = "the file, or the address to listen at"),
	FIELD("name", CONFIG_STRING, name, .check = config_check_name,
	      .help = "name of the machine here (default: the one it had, if that is free)"),
	FIELD("serial", CONFIG_SERIAL, serial, .word = config_serial_word,
	      .help = "where a serial line goes here; as many as the machine has, in order. Files "
		      "are appended to"),
	FIELD("console", CONFIG_SERIAL, console, .word = config_serial_word,
	      .help = "where its virtio console goes here"),
	FIELD("disk", CONFIG_STRINGS, disk, .limit = CONFIG_MAX_DISKS, .check = check_disk,
	      .help = "N=FILE: the N-th disk (1 or vda is the first) is this file here"),
	FIELD("net", CONFIG_LIST, net, LIST(net, CONFIG_MAX_NETS), .sub = config_net_fields,
	      .check_element = config_check_net,
	      .help = "what a card is connected to here; as many as the machine has, in order"),
	FIELD("vsock", CONFIG_LIST, vsock, LIST(vsock, 1), .sub = config_vsock_fields,
	      .help = "the socket of its vsock device here"),
	FIELD("shared", CONFIG_BOOL, shared,
	      .help = "guest memory is a memfd that other processes can map"),
	FIELD("hugepages", CONFIG_BOOL, hugepages, .help = "guest memory of reserved huge pages"),
	FIELD("overcommit", CONFIG_BOOL, overcommit, .help = "allow more memory than the host has"),
	FIELD("engine", CONFIG_CHOICE, engine, .word = config_engine_word, .initial = "auto",
	      .help = "what executes the guest here: kvm, soft or auto"),
	FIELD("pidfile", CONFIG_STRING, pidfile,
	      .help = "write the process id to this file, remove it at the end"),
	FIELD("stats", CONFIG_STRING, stats,
	      .help = "at the end, write what was counted to this file as JSON"),
	FIELD("detach", CONFIG_BOOL, detach, .help = "go on in the background"),
	FIELD("insecure", CONFIG_BOOL, insecure,
	      .help = "listen on addresses that other hosts reach, without any protection"),
	TLS_CONFIG_FIELDS(FIELD),
	FIELD("eager", CONFIG_BOOL, eager, .help = "load all of the memory before the guest runs"),
	FIELD("quiet", CONFIG_BOOL, quiet, .help = "say nothing on stderr but errors"),
	{.name = NULL},
};

static int replace(char **at, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int set_disks(struct run_config *config, const struct incoming_config *how,
		     struct error *err)
{
	for (uint32_t i = 0; i < how->disk_count; i++) {
		const char *file;
		unsigned n;

		if (parse_disk(how->disk[i], &n, &file) || n >= config->disk_count)
			return error_set(err, -EINVAL, "--disk %s: the machine has %u disk%s",
					 how->disk[i], config->disk_count,
					 config->disk_count == 1 ? "" : "s");
		if (replace(&config->disk[n].file, file))
			return error_set(err, -ENOMEM, "no memory");
	}
	return 0;
}

/* Replaces a list as a whole. Serial lines and cards are what the guest has found: their number
 * stays. Cards keep their addresses. */
static int set_list(struct run_config *config, const struct incoming_config *how, const char *name,
		    struct error *err)
{
	const struct config_field *to = config_find(run_config_fields, name);
	const struct config_field *from = config_find(incoming_fields, name);
	unsigned count = config_count(from, how), have = config_count(to, config);
	const struct config_field one[2] = {*to, {.name = NULL}};
	char text[8192];

	if (!count)
		return 0;
	if (count != have)
		return error_set(err, -EINVAL, "--%s was given %u times, the machine has %u", name,
				 count, have);
	config_free(one, config);
	for (unsigned i = 0; i < count; i++) {
		if (config_format(from, how, i, text, sizeof(text)) >= (int)sizeof(text) ||
		    config_parse(to, config, text, err))
			return error_prefix(err, -EINVAL, "--%s", name);
	}
	return 0;
}

static int set_nets(struct run_config *config, const struct incoming_config *how, struct error *err)
{
	char *mac[CONFIG_MAX_NETS] = {NULL};
	const uint32_t have = config->net_count;
	int ret = 0;

	for (uint32_t i = 0; i < have && !ret; i++)
		ret = replace(&mac[i], config->net[i].mac);
	if (ret)
		error_set(err, ret, "no memory");
	else
		ret = set_list(config, how, "net", err);
	for (uint32_t i = 0; i < have; i++) {
		if (!ret && !config->net[i].mac) {
			config->net[i].mac = mac[i];
			mac[i] = NULL;
		}
		free(mac[i]);
	}
	return ret;
}

/* A line of a terminal there is one of this terminal, if there is one. */
static void set_lines(struct serial_config *line, uint32_t count, bool detach, bool *terminal)
{
	for (uint32_t i = 0; i < count; i++) {
		if (line[i].kind == SERIAL_STDIO && (detach || *terminal))
			line[i].kind = SERIAL_ATTACH;
		else if (line[i].kind == SERIAL_ATTACH && !detach && !*terminal && i == 0)
			line[i].kind = SERIAL_STDIO;
		*terminal |= line[i].kind == SERIAL_STDIO;
	}
}

int incoming_override(struct run_config *config, const struct incoming_config *how,
		      struct error *err)
{
	bool terminal = how->detach;
	int ret = 0;

	config->shared = how->shared;
	config->hugepages = how->hugepages;
	config->overcommit = how->overcommit;
	config->detach = how->detach;
	config->quiet = how->quiet;
	config->engine = how->engine;
	if (replace(&config->pidfile, how->pidfile) || replace(&config->stats, how->stats) ||
	    (how->name && replace(&config->name, how->name)))
		return error_set(err, -ENOMEM, "no memory");
	ret = set_list(config, how, "serial", err);
	if (!ret)
		ret = set_list(config, how, "console", err);
	if (!ret)
		ret = set_list(config, how, "vsock", err);
	if (!ret)
		ret = set_nets(config, how, err);
	if (!ret)
		ret = set_disks(config, how, err);
	if (ret)
		return ret;
	if (!how->serial_count)
		set_lines(config->serial, config->serial_count, how->detach, &terminal);
	if (!how->console_count)
		set_lines(config->console, config->console_count, how->detach, &terminal);
	return config_check(config, err);
}
