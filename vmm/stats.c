/* What was counted, as JSON: one object, numbers only, names that stay. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/message.h"
#include "vmm/vm_internal.h"

static const char *const result_names[S2_NR_RESULTS] = {
	[S2_FIXED] = "fixed",	  [S2_SPURIOUS] = "spurious", [S2_RETRY] = "retry",
	[S2_EMULATE] = "emulate", [S2_INVALID] = "invalid",   [S2_MISSING] = "missing",
	[S2_FORWARD] = "forward", [S2_NOMEM] = "nomem",
};

static void write_mmu(FILE *out, struct vm *vm)
{
	struct s2_stats s;

	s2_get_stats(vm->memory.s2, &s);
	fprintf(out, "  \"mmu\": {\n    \"faults\": {");
	for (int i = 0; i < S2_NR_RESULTS; i++)
		fprintf(out, "%s\"%s\": %llu", i ? ", " : "", result_names[i],
			(unsigned long long)s.faults[i]);
	fprintf(out, "},\n    \"pages\": {\"4K\": %llu, \"2M\": %llu, \"1G\": %llu},\n",
		(unsigned long long)s.pages[1], (unsigned long long)s.pages[2],
		(unsigned long long)s.pages[3]);
	fprintf(out,
		"    \"tables\": %llu, \"splits\": %llu, \"invalidations\": %llu, \"retries\": "
		"%llu\n  }\n",
		(unsigned long long)s.tables, (unsigned long long)s.splits,
		(unsigned long long)s.invalidations, (unsigned long long)s.retries);
}

static void write_vcpu(FILE *out, struct vm *vm, unsigned vcpu)
{
	uint64_t counters[COUNT_NR];

	vm->engine_ops->counters(vm->engine, vcpu, counters);
	fprintf(out, "    {");
	for (int i = 0; i < COUNT_NR; i++)
		fprintf(out, "%s\"%s\": %llu", i ? ", " : "", engine_counter_names[i],
			(unsigned long long)counters[i]);
	fprintf(out, "}%s\n", vcpu + 1 < vm->vcpu_count ? "," : "");
}

void vm_stats_write(struct vm *vm, const char *path)
{
	const struct clock_source *clock = loop_clock(vm->loop);
	FILE *out = fopen(path, "we");

	if (!out) {
		message("cannot write --stats %s: %s", path, strerror(errno));
		return;
	}
	fprintf(out,
		"{\n  \"engine\": \"%s\", \"resets\": %u, \"roundtrips\": %llu, \"guest_ns\": "
		"%llu,\n",
		vm->engine_ops->name, vm->resets, (unsigned long long)vm->roundtrips,
		(unsigned long long)clock->now(clock->opaque));
	fprintf(out, "  \"vcpus\": [\n");
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		write_vcpu(out, vm, i);
	fprintf(out, "  ],\n");
	write_mmu(out, vm);
	fprintf(out, "}\n");
	if (fclose(out))
		message("cannot write --stats %s: %s", path, strerror(errno));
}
