/* `ferry restore`: a machine goes on out of a file. */
#include <errno.h>

#include "cli/cli.h"
#include "cli/here.h"
#include "cli/incoming_options.h"
#include "vmm/exit_codes.h"
#include "vmm/incoming.h"

static const struct option options[] = {
	INCOMING_OPTIONS,     OPTION("eager", 0, NULL, "eager"),
	INCOMING_RUN_OPTIONS, OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

static int start(const void *config, const struct vm_observer *observer, struct vm_result *result,
		 struct error *err)
{
	return vm_restore(config, observer, result, err);
}

static int run_restore(void *opaque)
{
	const struct incoming_config *config = opaque;
	struct error err = {""};

	if (!config->from) {
		error_set(&err, 0, "no file is given; try: ferry restore FILE");
		return complain(EXIT_USAGE, &err);
	}
	return run_here(start, config, config->detach);
}

static const struct example examples[] = {
	{"where it was, in the background", "ferry restore --detach vm1.ferry"},
	{"under another name, its disk being another file here",
	 "ferry restore --name vm2 --disk 1=copy.img vm1.ferry"},
	{NULL, NULL},
};

const struct verb verb_restore = {
	.name = "restore",
	.summary = "let a machine go on out of a file",
	.operands = "FILE",
	.description =
		"Starts the machine that ferry save has put into FILE, from where it stood: its "
		"clock "
		"too goes on from there, while the guest's real-time clock shows the time that it "
		"is. FILE stays, and is read as its pages are needed (--eager: before the guest "
		"runs): do not write into it meanwhile. The machine is as it was; where it finds "
		"its lines, disks and "
		"networks on this host can be said anew. It runs in the foreground, or with "
		"--detach in the background, like one that ferry run has started. Restore a file "
		"once only: two guests that go on from it would write to the same disks.",
	.options = options,
	.examples = examples,
	.exit_codes = true,
	.fields = incoming_fields,
	.size = sizeof(struct incoming_config),
	.operand_field = "from",
	.operand_completion = COMPLETE_FILES,
	.run = run_restore,
};
