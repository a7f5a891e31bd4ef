/* What the control socket of a machine can be asked: a table, and the functions of its rows. Where
 * QMP has the command, its names and members are QMP's. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/board/pc.h"
#include "vmm/chardev_attach.h"
#include "vmm/control_mmu.h"
#include "vmm/control_move.h"
#include "vmm/exit_codes.h"
#include "vmm/json_util.h"
#include "vmm/outgoing.h"
#include "vmm/vm_internal.h"

#define COMMAND(name)                                                                              \
	static int name(void *opaque, struct control_request *request, const json_t *args,         \
			json_t **ret, struct error *err)
#define UNUSED(...)                                                                                \
	do {                                                                                       \
		const void *unused[] = {__VA_ARGS__};                                              \
		(void)unused;                                                                      \
	} while (0)

void vm_tell(struct vm *vm, const char *event, json_t *data)
{
	if (vm->control)
		control_event(vm->control, event, data);
	else
		json_decref(data);
}

/* ---- questions -------------------------------------------------------------------------- */

COMMAND(query_status)
{
	const struct vm *vm = opaque;
	const char *state = vm_state_name(vm);
	const bool running = !vm->said_paused && !vm->ended;

	/* QMP has no word for what is between running and paused. */
	UNUSED(request, args, err);
	*ret = json_pack("{s:s, s:b, s:b}", "status", running ? "running" : state, "running",
			 running, "singlestep", 0);
	return 0;
}

COMMAND(query_name)
{
	const struct vm *vm = opaque;

	UNUSED(request, args, err);
	*ret = json_pack("{s:o}", "name", json_text(vm->presence->name.name));
	return 0;
}

COMMAND(query_cpus_fast)
{
	const struct vm *vm = opaque;

	UNUSED(request, args, err);
	*ret = json_array();
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		char path[48];

		snprintf(path, sizeof(path), "/machine/unattached/device[%u]", i);
		json_array_append_new(*ret,
				      json_pack("{s:i, s:i, s:s, s:s, s:{s:i, s:i, s:i}}",
						"cpu-index", (int)i, "thread-id", vm->vcpu[i].tid,
						"qom-path", path, "target", "x86_64", "props",
						"socket-id", (int)i, "core-id", 0, "thread-id", 0));
	}
	return 0;
}

COMMAND(query_balloon)
{
	UNUSED(request, args, err);
	*ret = json_pack("{s:I}", "actual", (json_int_t)vm_balloon_actual(opaque));
	return 0;
}

/* Whose state is on its way must not change. */
static int on_its_way(struct error *err)
{
	return error_set(err, -EBUSY, "the guest is being moved and stands still; try again");
}

COMMAND(balloon)
{
	UNUSED(request, ret);
	if (((struct vm *)opaque)->holds & VM_HOLD_MOVE)
		return on_its_way(err);
	return vm_balloon_set(opaque, (uint64_t)json_integer_value(json_object_get(args, "value")),
			      err);
}

COMMAND(ferry_info)
{
	UNUSED(request, args, err);
	*ret = vm_info(opaque);
	return 0;
}

COMMAND(ferry_stats)
{
	UNUSED(request, args, err);
	*ret = vm_stats(opaque);
	return 0;
}

/* ---- pause and go on -------------------------------------------------------------------- */

static void paused(void *arg, int code)
{
	struct error err;

	error_set(&err, code,
		  code == -EINTR ? "it goes on: it was resumed before it stood still"
				 : "the machine has ended");
	control_answer(arg, code, NULL, &err);
}

COMMAND(stop)
{
	UNUSED(args, ret);
	if (((struct vm *)opaque)->holds & VM_HOLD_MOVE)
		return on_its_way(err);
	if (vm_pause(opaque, VM_HOLD_USER, paused, request))
		return error_set(err, -ENOMEM, "out of memory");
	return CONTROL_LATER;
}

COMMAND(cont)
{
	UNUSED(request, args, ret);
	if (((struct vm *)opaque)->holds & VM_HOLD_MOVE)
		return on_its_way(err);
	vm_resume(opaque, VM_HOLD_USER);
	return 0;
}

/* ---- buttons ---------------------------------------------------------------------------- */

COMMAND(system_reset)
{
	UNUSED(args, ret);
	if (((struct vm *)opaque)->holds & VM_HOLD_MOVE)
		return on_its_way(err);
	vm_reset(opaque);
	/* Answered behind the reset: what follows meets the machine as it is then, a power button
	 * that is pressed would be lost otherwise. The reset ends this hold with its own. */
	if (vm_pause(opaque, VM_HOLD_RESET, paused, request))
		return error_set(err, -ENOMEM, "out of memory");
	return CONTROL_LATER;
}

COMMAND(system_powerdown)
{
	struct vm *vm = opaque;

	UNUSED(request, args, ret);
	if (vm->holds & VM_HOLD_MOVE)
		return on_its_way(err);
	vm_tell(vm, "POWERDOWN", NULL);
	acpi_pm_power_button(vm->board.pm);
	return 0;
}

COMMAND(quit)
{
	struct vm *vm = opaque;

	UNUSED(request, args, ret, err);
	vm->end_reason = "host-qmp-quit";
	loop_stop(vm->loop, EXIT_KILLED);
	return 0;
}

/* ---- the end ---------------------------------------------------------------------------- */

struct vm_request {
	struct control_request *request;
	struct vm_request *next;
};

COMMAND(ferry_wait)
{
	struct vm_request *waiting = calloc(1, sizeof(*waiting));
	struct vm *vm = opaque;

	UNUSED(args, ret);
	if (!waiting)
		return error_set(err, -ENOMEM, "out of memory");
	*waiting = (struct vm_request){request, vm->waiting};
	vm->waiting = waiting;
	return CONTROL_LATER;
}

static void tell_end(struct vm *vm)
{
	bool guest = true;
	const char *reason = "guest-shutdown";

	switch (vm->result.end) {
	case VM_END_POWEROFF:
	case VM_END_DEBUG_EXIT: break;
	case VM_END_RESET_LIMIT: reason = "guest-reset"; break;
	case VM_END_PANIC:
		reason = "guest-panic";
		vm_tell(vm, "GUEST_PANICKED", json_pack("{s:s}", "action", "poweroff"));
		break;
	case VM_END_ENGINE:
		reason = "host-error";
		guest = false;
		break;
	case VM_END_ABSENT:
	case VM_END_MOVED:
		reason = "host-moved";
		guest = false;
		break;
	case VM_END_STOPPED:
		reason = vm->end_reason			 ? vm->end_reason
			 : vm->result.code > EXIT_SIGNAL ? "host-signal"
							 : "host-ui";
		guest = false;
		break;
	}
	vm_tell(vm, "SHUTDOWN", json_pack("{s:b, s:s}", "guest", guest, "reason", reason));
}

void vm_control_end(struct vm *vm, const struct runtime_end *how)
{
	struct vm_request *waiting;

	if (!vm->control)
		return;
	tell_end(vm);
	while ((waiting = vm->waiting)) {
		vm->waiting = waiting->next;
		control_answer(waiting->request, 0,
			       json_pack("{s:i, s:o}", "exit-code", how->exit_code, "reason",
					 json_text(how->reason)),
			       NULL);
		free(waiting);
	}
	control_finish(vm->control);
}

/* ---- the console ------------------------------------------------------------------------ */

/* The back end of a line that can be attached to; NULL: of the first such. */
static struct chardev *find_line(struct vm *vm, const char *line, const char **name)
{
	static const char *const names[] = {"serial0", "serial1", "serial2", "serial3"};

	for (unsigned i = 0; i < vm->config->serial_count; i++) {
		*name = names[i];
		if (line ? !strcmp(line, names[i]) : vm->config->serial[i].kind == SERIAL_ATTACH)
			return vm->config->serial[i].kind == SERIAL_ATTACH ? vm->serial[i] : NULL;
	}
	*name = "console0";
	return vm->config->console_count && vm->config->console[0].kind == SERIAL_ATTACH &&
			       (!line || !strcmp(line, *name))
		       ? vm->console
		       : NULL;
}

static void attach(void *opaque, int fd, const uint8_t *data, size_t len)
{
	chardev_attach_viewer(opaque, fd, data, len);
}

COMMAND(ferry_console)
{
	const char *name, *line = json_string_value(json_object_get(args, "line"));
	struct chardev *chr = find_line(opaque, line, &name);

	if (!chr && line)
		return error_set(err, -ENODEV,
				 "%.20s is no line that can be attached to; it must be of kind "
				 "attach",
				 line);
	if (!chr)
		return error_set(err, -ENODEV,
				 "the machine has no line that can be attached to: neither "
				 "--detach nor --serial attach was given");
	*ret = json_pack("{s:s}", "line", name);
	control_hand_over(request, attach, chr);
	return 0;
}

/* ---- the table -------------------------------------------------------------------------- */

static const struct control_arg console_args[] = {
	{.name = "line", .type = CONTROL_STRING, .optional = true},
	{.name = NULL},
};

static const struct control_arg balloon_args[] = {
	{.name = "value", .type = CONTROL_INT, .min = 0, .max = INT64_MAX},
	{.name = NULL},
};

static const struct control_command commands[] = {
	{"query-status", "whether the guest runs", NULL, query_status},
	{"query-name", "the machine's name", NULL, query_name},
	{"query-cpus-fast", "the vCPUs and their threads", NULL, query_cpus_fast},
	{"stop", "pauses the guest; the answer comes when all is quiet", NULL, stop},
	{"cont", "lets the guest go on", NULL, cont},
	{"system_reset", "resets the machine; a paused one stays paused", NULL, system_reset},
	{"system_powerdown", "presses the power button: the guest decides what follows", NULL,
	 system_powerdown},
	{"quit", "ends the machine at once", NULL, quit},
	{"balloon", "asks the guest to live on `value` bytes: it may give up less, or later",
	 balloon_args, balloon},
	{"query-balloon", "how many bytes the guest has now", NULL, query_balloon},
	{"ferry-save", "moves the guest into `file`, an absolute path; the machine ends then",
	 control_save_args, control_save},
	{"ferry-migrate",
	 "moves the guest to the ferry at `to`; the answer says how it went, milliseconds and "
	 "bytes per second",
	 control_migrate_args, control_migrate},
	{"ferry-migration", "how far that is", NULL, control_migration},
	{"ferry-migrate-control", "`action`: cancel (ferry-save, too), retry, postcopy, or force",
	 control_migrate_control_args, control_migrate_control},
	{"ferry-migrate-complete",
	 "takes the pages that the guest lacks from `file`, which its source has written when it "
	 "did not find this machine any more (`spool`)",
	 control_migrate_complete_args, control_migrate_complete},
	{"ferry-info", "the machine's description, and what it does now", NULL, ferry_info},
	{"ferry-stats", "what was counted", NULL, ferry_stats},
	{"ferry-mmu-stats", "the counters of the second stage", NULL, control_mmu_stats},
	{"ferry-mmu-walk", "the entries on the way to a guest-physical address",
	 control_mmu_walk_args, control_mmu_walk},
	{"ferry-mmu-walk-virtual", "the same for a virtual address, through a vCPU's own tables",
	 control_mmu_virtual_args, control_mmu_virtual},
	{"ferry-mmu-dump", "what is mapped from `start` on; `next`: go on there",
	 control_mmu_dump_args, control_mmu_dump},
	{"ferry-mmu-trace", "the newest `count` events of the second stage; `on` switches",
	 control_mmu_trace_args, control_mmu_trace},
	{"ferry-wait", "is answered when the machine has ended, with its exit code", NULL,
	 ferry_wait},
	{"ferry-console",
	 "turns this connection into the line's: bytes of the guest's output and input",
	 console_args, ferry_console},
	{.name = NULL},
};

int vm_control_start(struct vm *vm, struct error *err)
{
	char name[RUNTIME_NAME_MAX + 8];
	int ret = control_create(&vm->control, vm->loop, commands, vm, err);

	snprintf(name, sizeof(name), "%s.sock", vm->presence->name.name);
	return ret ? ret : control_listen(vm->control, vm->presence->name.dir_fd, name, err);
}
