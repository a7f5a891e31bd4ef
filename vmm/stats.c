/* What was counted, as JSON: one object, numbers only, names that stay. */
#include <errno.h>
#include <string.h>

#include "vmm/message.h"
#include "vmm/vm_internal.h"

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

/* "faults.fixed" is member "fixed" of member "faults". */
static void add_counter(void *opaque, const struct s2_counter *counter)
{
	const char *name = counter->name, *dot;
	json_t *object = opaque;

	while ((dot = strchr(name, '.'))) {
		json_t *inner = json_object_getn(object, name, (size_t)(dot - name));

		if (!inner) {
			inner = json_object();
			json_object_setn_new(object, name, (size_t)(dot - name), inner);
		}
		object = inner;
		name = dot + 1;
	}
	json_object_set_new(object, name, number(counter->value));
}

json_t *vm_mmu_stats(struct vm *vm)
{
	json_t *all = json_object();

	s2_stats_each(vm->memory.s2, add_counter, all);
	return all;
}

static json_t *vcpu_stats(struct vm *vm, unsigned vcpu)
{
	uint64_t counters[COUNT_NR];
	json_t *all = json_object();

	vm->engine_ops->counters(vm->engine, vcpu, counters);
	for (int i = 0; i < COUNT_NR; i++)
		json_object_set_new(all, engine_counter_names[i], number(counters[i]));
	return all;
}

json_t *vm_stats(struct vm *vm)
{
	const struct clock_source *clock = loop_clock(vm->loop);
	json_t *vcpus = json_array();

	for (unsigned i = 0; i < vm->vcpu_count; i++)
		json_array_append_new(vcpus, vcpu_stats(vm, i));
	return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o, s:o}", "engine", vm->engine_ops->name,
			 "resets", (int)vm->resets, "roundtrips", number(vm->roundtrips),
			 "guest_ns", number(clock->now(clock->opaque)), "vcpus", vcpus, "mmu",
			 vm_mmu_stats(vm), "devices", vm_devices(vm, true));
}

void vm_stats_write(struct vm *vm, const char *path)
{
	json_t *stats = vm_stats(vm);

	if (!stats || json_dump_file(stats, path, JSON_INDENT(2)))
		message("cannot write --stats %s: %s", path, strerror(errno));
	json_decref(stats);
}
