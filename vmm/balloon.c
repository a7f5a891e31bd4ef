/* The machine's side of the memory balloon: sizes as people say them, and BALLOON_CHANGE. */
#include <errno.h>

#include "vmm/vm_internal.h"

/* A guest changes its balloon in hundreds of steps; clients hear of it this often. */
#define EVENT_NS 1000000000ull

static int discard(void *opaque, const struct gpa_range *range, unsigned count)
{
	struct vm *vm = opaque;

	return memory_discard(&vm->memory, range, count);
}

uint64_t vm_balloon_actual(struct vm *vm)
{
	const uint64_t given = virtio_balloon_actual(vm->board.balloon);

	/* The guest may say what it likes. */
	return given < vm->memory.size ? vm->memory.size - given : 0;
}

static void tell(struct vm *vm)
{
	const struct timer_source *timers = loop_timers(vm->loop);
	const struct clock_source *clock = loop_clock(vm->loop);

	vm->balloon_changed = false;
	if (vm->balloon_timer)
		timers->set(vm->balloon_timer, clock->now(clock->opaque) + EVENT_NS);
	vm_tell(vm, "BALLOON_CHANGE",
		json_pack("{s:I}", "actual", (json_int_t)vm_balloon_actual(vm)));
}

static void timer(void *arg)
{
	struct vm *vm = arg;

	if (vm->balloon_changed)
		tell(vm);
	else
		vm->balloon_quiet = true;
}

static void changed(void *opaque, uint64_t bytes)
{
	struct vm *vm = opaque;

	(void)bytes;
	vm->balloon_changed = true;
	if (!vm->balloon_quiet)
		return;
	vm->balloon_quiet = false;
	tell(vm);
}

struct virtio_balloon_config vm_balloon_config(struct vm *vm)
{
	const struct timer_source *timers = loop_timers(vm->loop);

	/* Without the timer the first event is the only one. */
	vm->balloon_timer = timers->create(timers->opaque, timer, vm, "balloon");
	vm->balloon_quiet = true;
	return (struct virtio_balloon_config){.discard = discard, .changed = changed, .opaque = vm};
}

void vm_balloon_end(struct vm *vm)
{
	if (vm->balloon_timer)
		loop_timers(vm->loop)->destroy(vm->balloon_timer);
}

int vm_balloon_set(struct vm *vm, uint64_t bytes, struct error *err)
{
	if (bytes > vm->memory.size)
		return error_set(
			err, -EINVAL, "%llu MiB are more than the %llu MiB that the machine has",
			(unsigned long long)bytes >> 20, (unsigned long long)vm->memory.size >> 20);
	virtio_balloon_set(vm->board.balloon, vm->memory.size - bytes);
	return 0;
}
