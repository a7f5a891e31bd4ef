/* `ferry receive`: waits for a guest that another ferry sends. */
#include "cli/cli.h"
#include "cli/detach.h"
#include "cli/ending.h"
#include "cli/incoming_options.h"
#include "vmm/exit_codes.h"
#include "vmm/incoming.h"

static const struct option options[] = {
	INCOMING_OPTIONS,
	OPTION("insecure", 0, NULL, "insecure", .group = "Run"),
	OPTION("detach", 'd', NULL, "detach"),
	OPTION("pidfile", 0, "FILE", "pidfile", .completion = COMPLETE_FILES),
	OPTION("stats", 0, "FILE", "stats", .completion = COMPLETE_FILES),
	OPTION("quiet", 'q', NULL, "quiet"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

static int run_receive(void *opaque)
{
	const struct incoming_config *config = opaque;
	int report = -1, ret;
	const struct vm_observer observer = {
		.running = ending_running, .listening = ending_running, .opaque = &report};
	struct vm_result result;
	struct error err = {""};

	if (!config->from) {
		error_set(&err, 0, "no address is given; try: ferry receive tcp:127.0.0.1:4444");
		return complain(EXIT_USAGE, &err);
	}
	if (config->detach) {
		ret = detach(&report);
		if (ret >= 0)
			return ret;
	}
	ret = vm_receive(config, &observer, &result, &err);
	return ending(ret, &result, config->detach, &report, &err);
}

static const struct example examples[] = {
	{"behind ssh, which protects it: here, and where the guest is",
	 "ferry receive unix:/tmp/in; ssh -L/tmp/out:/tmp/in HOST ...; ferry migrate vm1 "
	 "unix:/tmp/out"},
	{"on the same host", "ferry receive tcp:127.0.0.1:4444 & ferry migrate vm1 "
			     "tcp:127.0.0.1:4444"},
	{NULL, NULL},
};

const struct verb verb_receive = {
	.name = "receive",
	.summary = "take a guest that another ferry sends",
	.operands = "tcp:HOST:PORT|unix:PATH",
	.description =
		"Waits for one guest that ferry migrate sends, and runs it. What the machine is "
		"comes with it; where it finds its lines, disks and networks on this host can be "
		"said "
		"anew. Locks, ports and the like are taken when the guest comes, not before.\n"
		"It ends with code 1 if the guest does not come; otherwise like ferry run. While "
		"it is not certain who has the guest it waits for the source, for up to five "
		"minutes, and never starts the guest without its word. With --detach it returns "
		"when it listens, and prints the address.",
	.options = options,
	.examples = examples,
	.exit_codes = true,
	.fields = incoming_fields,
	.size = sizeof(struct incoming_config),
	.operand_field = "from",
	.operand_completion = COMPLETE_NOTHING,
	.run = run_receive,
};
