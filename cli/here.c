#include "cli/here.h"

#include "cli/cli.h"
#include "cli/detach.h"
#include "vmm/exit_codes.h"
#include "vmm/message.h"

/* How a run ended, if not as its user would expect. */
static void say_end(const struct vm_result *result)
{
	char reason[160];

	exit_reason(result, reason, sizeof(reason));
	if (result->end == VM_END_PANIC || result->end == VM_END_RESET_LIMIT ||
	    (result->end == VM_END_STOPPED && result->code > EXIT_SIGNAL))
		message("%s", reason);
}

/* A vm_observer's `running` and `listening`. */
static void reached(void *opaque, const char *name)
{
	detach_report(opaque, 0, name);
}

int run_here(run_here_fn *start, const void *config, bool background)
{
	int report = -1, ret;
	const struct vm_observer observer = {.running = reached,
					     .listening = reached,
					     .opaque = &report,
					     .begun = process_begun};
	struct vm_result result;
	struct error err = {""};

	if (background) {
		ret = detach(&report);
		if (ret >= 0)
			return ret;
	}
	ret = start(config, &observer, &result, &err);
	if (ret && background && report >= 0) {
		message_clean(err.text);
		detach_report(&report, EXIT_START, err.text);
		return EXIT_START;
	}
	if (ret || result.end == VM_END_ABSENT || result.end == VM_END_ENGINE) {
		message("%s", err.text); /* in the background it is a log's line */
		return result.end == VM_END_ENGINE && !ret ? EXIT_ENGINE : EXIT_START;
	}
	say_end(&result);
	return exit_code_of(&result);
}
