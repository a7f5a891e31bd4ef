/* What a machine does when a device or a vCPU asks for it: power-off, reset, panic, the end. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/board/pc.h"
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

static void end(struct vm *vm, enum vm_end how, uint32_t code)
{
	vm->result = (struct vm_result){.end = how, .code = code};
	loop_stop(vm->loop, 0);
}

static void reset(struct vm *vm)
{
	if (vm->config->reset_limit != CONFIG_NO_RESET_LIMIT &&
	    vm->resets >= vm->config->reset_limit) {
		end(vm, VM_END_RESET_LIMIT, vm->resets);
		return;
	}
	vm->resets++;
	if (vm_boot(vm, &vm->engine_error)) {
		end(vm, VM_END_ENGINE, 0);
		return;
	}
	vcpus_resume(vm);
}

static void handle_events(void *arg)
{
	struct vm *vm = arg;
	uint32_t events = atomic_exchange(&vm->events, 0);

	if (!events)
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
	else
		reset(vm);
}

/* ---- the round-trip test: as if nothing had happened --------------------------------------------
 */

static void roundtrip(void *arg)
{
	struct vm *vm = arg;
	const struct clock_source *clock = loop_clock(vm->loop);

	vcpus_park(vm);
	loop_clock_pause(vm->loop);
	if (vm_state_roundtrip(vm, &vm->engine_error)) {
		end(vm, VM_END_ENGINE, 0);
		return;
	}
	vm->roundtrips++;
	loop_clock_resume(vm->loop);
	/* An event that came meanwhile has parked the vCPUs for itself. */
	if (!atomic_load(&vm->events))
		vcpus_resume(vm);
	/* Any time between at once and twice the mean. */
	loop_timers(vm->loop)->set(vm->roundtrip_timer,
				   clock->now(clock->opaque) +
					   (uint64_t)random() %
						   ((uint64_t)vm->roundtrip_ms * 2000000));
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

void lifecycle_init(struct vm *vm)
{
	vm->sink = (struct machine_sink){.event = sink_event, .opaque = vm};
	vm->event_work = (struct loop_work){.fn = handle_events, .arg = vm};
}
