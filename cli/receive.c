/* `ferry receive`: waits for a guest that another ferry sends. */
#include "cli/cli.h"
#include "cli/here.h"
#include "cli/incoming_options.h"
#include "migration/address.h"
#include "vmm/exit_codes.h"
#include "vmm/incoming.h"

static const struct option options[] = {
	INCOMING_OPTIONS,
	TLS_OPTIONS,
	OPTION("insecure", 0, NULL, "insecure"),
	INCOMING_RUN_OPTIONS,
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

static int start(const void *config, const struct vm_observer *observer, struct vm_result *result,
		 struct error *err)
{
	return vm_receive(config, observer, result, err);
}

static int run_receive(void *opaque)
{
	const struct incoming_config *config = opaque;
	struct stream_error why;
	struct error err = {""};

	if (!config->from) {
		error_set(&err, 0, "no address is given; try: ferry receive tcp:127.0.0.1:4444");
		return complain(EXIT_USAGE, &err);
	}
	if (address_check(config->from, &why)) {
		error_set(&err, 0, "%s", why.text);
		return complain(EXIT_USAGE, &err);
	}
	return run_here(start, config, config->detach);
}

static const struct example examples[] = {
	{"behind ssh, which protects it: here, and where the guest is",
	 "ferry receive unix:/tmp/in; ssh -L/tmp/out:/tmp/in HOST ...; ferry migrate vm1 "
	 "unix:/tmp/out"},
	{"over a network, with a key that both hosts have",
	 "psktool -u vm -p vm.psk; ferry receive --tls-psk vm.psk tcp:0.0.0.0:4444; "
	 "ferry migrate --tls-psk vm.psk vm1 tcp:HOST:4444"},
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
		"anew. Without --tls-psk or --tls-certs it listens on 127.0.0.1 and unix sockets "
		"only, unless it is told --insecure. Locks, ports and the like are taken when the "
		"guest comes, not before.\n"
		"It ends with code 1 if the guest does not come, with 128+N by signal N, whether "
		"the "
		"guest has come or not, otherwise like ferry run; ferry kill and ferry stop end it "
		"while it waits. While "
		"it is not certain who has the guest it waits for the source, for up to five "
		"minutes, and never starts the guest without its word. With --detach it returns "
		"when it listens, and prints the address; from then on ferry logs has what it "
		"says, "
		"and ferry wait how it ended.",
	.options = options,
	.examples = examples,
	.exit_codes = true,
	.fields = incoming_fields,
	.size = sizeof(struct incoming_config),
	.operand_field = "from",
	.operand_completion = COMPLETE_NOTHING,
	.run = run_receive,
};
