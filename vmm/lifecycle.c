/* What a machine does when a device, a vCPU or its user asks for it: pause, reset, power-off, the
 * end. All on the loop's thread, but vm_event(). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/board/pc.h"
#include "vmm/chardev.h"
#include "vmm/message.h"
#include "vmm/state.h"
#include "vmm/vm_internal.h"

void vm_event(struct vm *vm, enum vm_event event, uint32_t code)
{
	atomic_store(&vm->event_code, code);
	atomic_fetch_or(&vm->events, 1u << event);
	/* No vCPU runs on past this; the loop's thread decides what follows. */
	atomic_store(&vm->stop_wanted, true);
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpu[i].started)
			vm->engine_ops->kick(vm->engine, i);
	loop_work_post(vm->loop, &vm->event_work);
}

static void sink_event(void *opaque, enum machine_event event, uint32_t code)
{
	static const enum vm_event map[] = {
		[MACHINE_POWEROFF] = VM_EVENT_POWEROFF,
		[MACHINE_RESET] = VM_EVENT_RESET,
		[MACHINE_PANIC] = VM_EVENT_PANIC,
		[MACHINE_DEBUG_EXIT] = VM_EVENT_DEBUG_EXIT,
	};

	vm_event(opaque, map[event], code);
}

static void end(struct vm *vm, enum vm_end how, uint32_t code)
{
	vm->result = (struct vm_result){.end = how, .code = code};
	loop_stop(vm->loop, 0);
}

/* ---- standing still and going on ----------------------------------------------------------------
 */

struct still_waiter {
	void (*fn)(void *arg, int code);
	void *arg;
	struct still_waiter *next;
};

static void tell_waiters(struct vm *vm, int code)
{
	struct still_waiter *waiter;

	while ((waiter = vm->still_waiters)) {
		vm->still_waiters = waiter->next;
		waiter->fn(waiter->arg, code);
		free(waiter);
	}
}

/* All devices, in the order in which they were made, or the other way round. */
static void prepare_devices(struct vm *vm)
{
	for (unsigned i = vm->board.device_count; i--;) {
		struct device *dev = vm->board.devices[i];

		if (dev->ops->prepare)
			dev->ops->prepare(dev);
	}
}

static void release_devices(struct vm *vm)
{
	for (unsigned i = 0; i < vm->board.device_count; i++) {
		struct device *dev = vm->board.devices[i];

		if (dev->ops->abort)
			dev->ops->abort(dev);
	}
}

static bool devices_drained(struct vm *vm)
{
	bool done = true;

	for (unsigned i = 0; i < vm->board.device_count; i++) {
		struct device *dev = vm->board.devices[i];

		if (dev->ops->drain && dev->ops->drain(dev) == -EINPROGRESS)
			done = false;
	}
	return done;
}

static void hold_lines(struct vm *vm, bool hold)
{
	chardev_hold(vm->console, hold);
	for (unsigned i = 0; i < BOARD_SERIAL_MAX; i++)
		chardev_hold(vm->serial[i], hold);
}

static void go_on(struct vm *vm)
{
	vm->motion = VM_MOVING;
	hold_lines(vm, false);
	release_devices(vm);
	loop_clock_resume(vm->loop);
	/* An event that came meanwhile has parked the vCPUs for itself. */
	if (!atomic_load(&vm->events))
		vcpus_resume(vm);
}

/* What has changed between those who hold the machine and what it does. */
static void settle(void *arg)
{
	struct vm *vm = arg;

	if (vm->ended)
		return;
	if (vm->holds && vm->motion == VM_MOVING) {
		vcpus_park(vm);
		loop_clock_pause(vm->loop);
		vm->motion = VM_DRAINING;
		hold_lines(vm, true);
		prepare_devices(vm);
	}
	/* Nobody wants it to stand still any more; what a device waits for may take for ever. */
	if (!vm->holds && vm->motion != VM_STILL) {
		tell_waiters(vm, -EINTR);
		if (vm->motion == VM_DRAINING) {
			go_on(vm);
			loop_work_post(vm->loop, &vm->event_work);
		}
		return;
	}
	if (vm->motion == VM_DRAINING && devices_drained(vm)) {
		vm->motion = VM_STILL;
		/* A guest's reset that came in the middle. */
		loop_work_post(vm->loop, &vm->event_work);
	}
	if (vm->motion != VM_STILL)
		return;
	if ((vm->holds & VM_HOLD_USER) && !vm->said_paused) {
		vm->said_paused = true;
		vm_tell(vm, "STOP", NULL);
	}
	tell_waiters(vm, 0); /* they may release the machine */
	if (!vm->holds && vm->motion == VM_STILL)
		go_on(vm);
}

int vm_pause(struct vm *vm, enum vm_hold hold, void (*fn)(void *arg, int code), void *arg)
{
	struct still_waiter *waiter = calloc(1, sizeof(*waiter)), **at = &vm->still_waiters;

	if (!waiter)
		return -ENOMEM;
	*waiter = (struct still_waiter){.fn = fn, .arg = arg};
	while (*at)
		at = &(*at)->next;
	*at = waiter;
	vm->holds |= hold;
	loop_work_post(vm->loop, &vm->settle_work);
	return 0;
}

void vm_pause_forget(struct vm *vm, void (*fn)(void *arg, int code), const void *arg)
{
	struct still_waiter **at = &vm->still_waiters, *waiter;

	while ((waiter = *at)) {
		if (waiter->fn == fn && waiter->arg == arg) {
			*at = waiter->next;
			free(waiter);
		} else {
			at = &waiter->next;
		}
	}
}

static void still(void *arg, int code)
{
	(void)arg;
	(void)code;
}

void vm_disk_full(void *opaque, struct device *dev)
{
	struct vm *vm = opaque;

	message("%s: the host has no space left; the guest is paused. Make room, then: ferry "
		"resume %s",
		dev->name, vm->presence->name.name);
	vm->disk_full = true;
	vm_tell(vm, "BLOCK_IO_ERROR",
		json_pack("{s:s, s:s, s:s, s:b, s:s}", "device", dev->name, "operation", "write",
			  "action", "stop", "nospace", 1, "reason", "No space left on device"));
	/* Without memory for the waiter the guest runs on, its requests waiting all the same. */
	(void)vm_pause(vm, VM_HOLD_USER, still, NULL);
}

void vm_resume(struct vm *vm, enum vm_hold hold)
{
	vm->holds &= ~(unsigned)hold;
	if (hold == VM_HOLD_USER && vm->disk_full) {
		vm->disk_full = false;
		for (unsigned i = 0; i < vm->board.disk_count; i++)
			virtio_blk_retry(vm->board.disks[i]);
	}
	if (hold == VM_HOLD_USER && vm->said_paused) {
		vm->said_paused = false;
		vm_tell(vm, "RESUME", NULL);
	}
	loop_work_post(vm->loop, &vm->settle_work);
}

static void on_drained(void *opaque)
{
	struct vm *vm = opaque;

	if (vm->ended)
		loop_stop(vm->loop, 0);
	loop_work_post(vm->loop, &vm->settle_work);
}

const char *vm_state_name(const struct vm *vm)
{
	if (vm->ended)
		return "shutdown";
	if (vm->holds & VM_HOLD_MOVE)
		return vm->outgoing ? "moving" : "incoming";
	if (!vm->started)
		return "prelaunch";
	if (!(vm->holds & VM_HOLD_USER))
		return vm->lacks[0] ? "incomplete" : "running";
	if (vm->said_paused)
		return vm->disk_full ? "io-error" : "paused";
	return "pausing";
}

/* ---- what the machine has of its host ----------------------------------------------------------
 */

static int acquire_lines(struct vm *vm, struct error *err)
{
	int ret = chardev_acquire(vm->console, err);

	for (unsigned i = 0; i < BOARD_SERIAL_MAX && !ret; i++)
		ret = chardev_acquire(vm->serial[i], err);
	return ret;
}

int vm_acquire(struct vm *vm, struct error *err)
{
	struct error ignored;
	int ret = acquire_lines(vm, err);

	for (unsigned i = 0; i < vm->board.device_count && !ret; i++) {
		struct device *dev = vm->board.devices[i];

		if (dev->ops->acquire)
			ret = dev->ops->acquire(dev);
		if (ret)
			error_set(err, ret, "%s cannot be taken over: %s", dev->name,
				  ret == -EBUSY ? "another process has it" : strerror(-ret));
	}
	/* They go on by themselves: not before the machine does. */
	prepare_devices(vm);
	if (ret)
		(void)vm_release(vm, &ignored);
	return ret;
}

int vm_release(struct vm *vm, struct error *err)
{
	int ret = 0;

	chardev_release(vm->console);
	for (unsigned i = 0; i < BOARD_SERIAL_MAX; i++)
		chardev_release(vm->serial[i]);
	for (unsigned i = 0; i < vm->board.device_count; i++) {
		struct device *dev = vm->board.devices[i];
		int one = dev->ops->release ? dev->ops->release(dev) : 0;

		if (one && !ret)
			ret = error_set(err, one, "%s cannot be given up: %s", dev->name,
					strerror(-one));
	}
	return ret;
}

void vm_absent(struct vm *vm)
{
	end(vm, VM_END_ABSENT, 0);
}

/* What was typed here and read for escape keys only. */
static void tell_typed(const struct chardev *line, const char *name)
{
	const size_t bytes = chardev_ahead(line);

	if (bytes)
		message("%s: the last %zu bytes typed here have not gone with the guest", name,
			bytes);
}

void vm_moved(struct vm *vm, bool file)
{
	char name[16];

	tell_typed(vm->console, "console");
	for (unsigned i = 0; i < BOARD_SERIAL_MAX; i++) {
		snprintf(name, sizeof(name), "serial%u", i);
		tell_typed(vm->serial[i], name);
	}
	end(vm, VM_END_MOVED, file);
}

/* ---- reset and the end --------------------------------------------------------------------------
 */

int vm_boot(struct vm *vm, struct error *err)
{
	struct x86_state bsp;
	int ret;

	board_reset(&vm->board);
	x86_state_reset(&bsp, true);
	ret = board_pc_describe(&vm->board, &vm->board_host, &vm->memory, &vm->boot_board, err);
	if (ret)
		return ret;
	ret = boot_load(vm->image, &vm->memory, &vm->boot_board, &bsp, err);
	return ret ? ret : vcpus_reset(vm, &bsp, err);
}

static void boot_again(void *arg, int code)
{
	struct vm *vm = arg;

	if (code)
		return;
	/* What is loaded now would meet pages that come later: when all are here. */
	if (vm->memory.incomplete) {
		vm->reset_waits = true;
		return;
	}
	vm->resets++;
	if (vm_boot(vm, &vm->engine_error)) {
		end(vm, VM_END_ENGINE, 0);
		return;
	}
	vm_tell(vm, "RESET",
		json_pack("{s:b, s:s}", "guest", vm->reset_by_guest, "reason",
			  vm->reset_by_guest ? "guest-reset" : "host-qmp-system-reset"));
	vm_resume(vm, VM_HOLD_RESET);
}

bool vm_reset_waits(const struct vm *vm)
{
	return vm->reset_waits;
}

void vm_reset_go_on(struct vm *vm)
{
	vm->reset_waits = false;
	boot_again(vm, 0);
}

/* Whatever is in flight ends before the memory is filled anew. */
static void reset(struct vm *vm, bool by_guest)
{
	if (vm->holds & VM_HOLD_RESET)
		return; /* it is on its way */
	vm->reset_by_guest = by_guest;
	if (by_guest && vm->config->reset_limit != CONFIG_NO_RESET_LIMIT &&
	    vm->guest_resets++ >= vm->config->reset_limit)
		end(vm, VM_END_RESET_LIMIT, vm->config->reset_limit);
	else if (vm_pause(vm, VM_HOLD_RESET, boot_again, vm))
		end(vm, VM_END_ENGINE, 0);
}

void vm_reset(struct vm *vm)
{
	reset(vm, false);
}

static void handle_events(void *arg)
{
	struct vm *vm = arg;
	uint32_t events = atomic_load(&vm->events);

	if (!events || vm->ended)
		return;
	vcpus_park(vm);
	/* In the order of what is lost by ignoring it. */
	if (events & 1u << VM_EVENT_ENGINE)
		end(vm, VM_END_ENGINE, 0);
	else if (events & 1u << VM_EVENT_DEBUG_EXIT)
		end(vm, VM_END_DEBUG_EXIT, atomic_load(&vm->event_code));
	else if (events & 1u << VM_EVENT_PANIC)
		end(vm, VM_END_PANIC, 0);
	else if (events & 1u << VM_EVENT_POWEROFF)
		end(vm, VM_END_POWEROFF, 0);
	else if (vm->motion == VM_DRAINING)
		return; /* settle() posts this again */
	else
		reset(vm, true);
	atomic_fetch_and(&vm->events, ~events);
}

/* ---- the round-trip test: as if nothing had happened --------------------------------------------
 */

static void roundtrip_still(void *arg, int code)
{
	struct vm *vm = arg;
	const struct clock_source *clock = loop_clock(vm->loop);

	if (code)
		return;
	if (vm_state_roundtrip(vm, &vm->engine_error)) {
		end(vm, VM_END_ENGINE, 0);
		return;
	}
	vm->roundtrips++;
	vm_resume(vm, VM_HOLD_TEST);
	/* Any time between at once and twice the mean. */
	loop_timers(vm->loop)->set(vm->roundtrip_timer,
				   clock->now(clock->opaque) +
					   (uint64_t)random() %
						   ((uint64_t)vm->roundtrip_ms * 2000000));
}

static void roundtrip(void *arg)
{
	struct vm *vm = arg;

	if (vm_pause(vm, VM_HOLD_TEST, roundtrip_still, vm))
		end(vm, VM_END_ENGINE, 0);
}

int lifecycle_start_roundtrips(struct vm *vm, long ms)
{
	const struct timer_source *timers = loop_timers(vm->loop);

	vm->roundtrip_ms = ms;
	vm->roundtrip_timer = timers->create(timers->opaque, roundtrip, vm, "roundtrip");
	if (!vm->roundtrip_timer)
		return -ENOMEM;
	timers->set(vm->roundtrip_timer, (uint64_t)ms * 1000000);
	return 0;
}

/* ---- life ------------------------------------------------------------------------------- */

void lifecycle_init(struct vm *vm)
{
	vm->sink = (struct machine_sink){.event = sink_event, .opaque = vm};
	vm->event_work = (struct loop_work){.fn = handle_events, .arg = vm};
	vm->settle_work = (struct loop_work){.fn = settle, .arg = vm};
}

static void watch_drain(struct vm *vm)
{
	for (unsigned i = 0; i < vm->board.device_count; i++) {
		vm->board.devices[i]->drain_notify = on_drained;
		vm->board.devices[i]->drain_opaque = vm;
	}
}

void lifecycle_arrive(struct vm *vm)
{
	watch_drain(vm);
	vm->started = true;
	vm->holds |= VM_HOLD_MOVE;
	vm->motion = VM_STILL;
	hold_lines(vm, true);
	prepare_devices(vm);
}

void lifecycle_start(struct vm *vm)
{
	watch_drain(vm);
	vm->started = true;
	loop_clock_resume(vm->loop);
	vcpus_resume(vm);
}

void lifecycle_end(struct vm *vm)
{
	vcpus_park(vm);
	vm->ended = true;
	/* What is in flight still reads and writes guest memory, and ends in the devices. */
	prepare_devices(vm);
	while (!devices_drained(vm))
		if (loop_run(vm->loop))
			message("a disk is still at work for the guest: its end is waited for");
	tell_waiters(vm, -ECANCELED);
}
