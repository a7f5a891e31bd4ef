#include "vmm/exit_codes.h"

#include <stdio.h>

int exit_code_of(const struct vm_result *result)
{
	switch (result->end) {
	case VM_END_POWEROFF:
	case VM_END_MOVED: return EXIT_POWEROFF;
	case VM_END_RESET_LIMIT: return EXIT_RESET_LIMIT;
	case VM_END_PANIC: return EXIT_PANIC;
	case VM_END_DEBUG_EXIT: return exit_code_debug(result->code);
	case VM_END_ENGINE: return EXIT_ENGINE;
	case VM_END_ABSENT: return EXIT_START;
	case VM_END_STOPPED: return (int)result->code;
	}
	return EXIT_ENGINE;
}

void exit_reason(const struct vm_result *result, char *buf, size_t len)
{
	const char *text = "the engine or a device gave up";

	switch (result->end) {
	case VM_END_POWEROFF: text = "the guest switched itself off"; break;
	case VM_END_PANIC: text = "guest panic: the guest says that it has crashed"; break;
	case VM_END_MOVED:
		text = result->code ? "the guest has been saved" : "the guest has been moved";
		break;
	case VM_END_ABSENT: text = "the guest did not come"; break;
	case VM_END_ENGINE: break;
	case VM_END_RESET_LIMIT:
		snprintf(buf, len,
			 "reset limit: the guest wants to reset once more than the %u times that "
			 "--reset-limit allows",
			 result->code);
		return;
	case VM_END_DEBUG_EXIT:
		snprintf(buf, len, "the guest wrote %u to the debug-exit port", result->code);
		return;
	case VM_END_STOPPED:
		if (result->code > EXIT_SIGNAL) {
			snprintf(buf, len, "ended by signal %u", result->code - EXIT_SIGNAL);
			return;
		}
		text = "ended by its user";
		break;
	}
	snprintf(buf, len, "%s", text);
}
