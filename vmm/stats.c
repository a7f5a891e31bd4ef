/* What was counted, as JSON: one object, numbers only, names that stay. */
#include <errno.h>
#include <string.h>

#include "vmm/message.h"
#include "vmm/vm_internal.h"

static const char *const result_names[S2_NR_RESULTS] = {
	[S2_FIXED] = "fixed",	  [S2_SPURIOUS] = "spurious", [S2_RETRY] = "retry",
	[S2_EMULATE] = "emulate", [S2_INVALID] = "invalid",   [S2_MISSING] = "missing",
	[S2_FORWARD] = "forward", [S2_NOMEM] = "nomem",
};

static json_t *number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *mmu_stats(struct vm *vm)
{
	json_t *faults = json_object();
	struct s2_stats s;

	s2_get_stats(vm->memory.s2, &s);
	for (int i = 0; i < S2_NR_RESULTS; i++)
		json_object_set_new(faults, result_names[i], number(s.faults[i]));
	return json_pack("{s:o, s:{s:o, s:o, s:o}, s:o, s:o, s:o, s:o}", "faults", faults, "pages",
			 "4K", number(s.pages[1]), "2M", number(s.pages[2]), "1G",
			 number(s.pages[3]), "tables", number(s.tables), "splits", number(s.splits),
			 "invalidations", number(s.invalidations), "retries", number(s.retries));
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
			 mmu_stats(vm), "devices", vm_devices(vm, true));
}

void vm_stats_write(struct vm *vm, const char *path)
{
	json_t *stats = vm_stats(vm);

	if (!stats || json_dump_file(stats, path, JSON_INDENT(2)))
		message("cannot write --stats %s: %s", path, strerror(errno));
	json_decref(stats);
}
