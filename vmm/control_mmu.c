/* What `ferry mmu` asks: counters, the way to an address, what is mapped, what happened last.
 * Addresses and entries are strings of hexadecimal digits: they use all 64 bits, numbers of JSON do
 * not. */
#include "vmm/control_mmu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migration/clock.h"
#include "mmu/guest/stage1.h"
#include "mmu/inspect.h"
#include "vmm/vm_internal.h"

/* One answer has so many of them at most, and stays far below CONTROL_OUTPUT_MAX. */
enum { DUMP_MAX = 1000, TRACE_MAX = 2000 };

const struct control_arg control_mmu_walk_args[] = {
	{.name = "gpa", .type = CONTROL_INT, .min = 0, .max = INT64_MAX},
	{.name = NULL},
};

const struct control_arg control_mmu_virtual_args[] = {
	{.name = "gva", .type = CONTROL_STRING},
	{.name = "vcpu", .type = CONTROL_INT, .optional = true, .min = 0, .max = CPU_MAX - 1},
	{.name = NULL},
};

const struct control_arg control_mmu_dump_args[] = {
	{.name = "start", .type = CONTROL_INT, .optional = true, .min = 0, .max = INT64_MAX},
	{.name = NULL},
};

const struct control_arg control_mmu_trace_args[] = {
	{.name = "on", .type = CONTROL_BOOL, .optional = true},
	{.name = "count", .type = CONTROL_INT, .optional = true, .min = 1, .max = TRACE_MAX},
	{.name = NULL},
};

static json_t *hex(uint64_t value)
{
	char text[20];

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	return json_string(text);
}

static json_t *letters(uint32_t perm)
{
	const char text[] = {perm & S2_R ? 'r' : '-', perm & S2_W ? 'w' : '-',
			     perm & S2_X ? 'x' : '-', 0};

	return json_string(text);
}

/* What a leaf says beside its address. */
static void set_attributes(json_t *object, const struct s2_entry *e)
{
	json_object_set_new(object, "permissions", letters(e->perm));
	json_object_set_new(object, "accessed", json_boolean(e->accessed));
	json_object_set_new(object, "dirty", json_boolean(e->dirty));
	json_object_set_new(object, "memory", json_string(s2_memory_name(e->memory)));
	json_object_set_new(object, "software", json_integer(e->software));
}

int control_mmu_stats(void *opaque, struct control_request *request, const json_t *args,
		      json_t **ret, struct error *err)
{
	struct vm *vm = opaque;

	(void)request, (void)args, (void)err;
	*ret = vm_mmu_stats(vm);
	json_object_set_new(*ret, "format", json_string(s2_name(vm->memory.s2)));
	return 0;
}

static json_t *step_json(const struct s2_step *step)
{
	const struct s2_entry *e = &step->entry;
	json_t *object = json_pack("{s:i, s:i, s:o, s:o, s:I, s:o, s:s}", "level", (int)e->level,
				   "index", (int)step->index, "entry", hex(step->pa), "gpa",
				   hex(step->gpa), "size", (json_int_t)step->size, "raw",
				   hex(e->raw), "kind", s2_entry_kind_name(e->kind));

	if (e->kind == S2_ENTRY_TABLE)
		json_object_set_new(object, "table", hex(e->addr));
	if (e->kind == S2_ENTRY_LEAF) {
		json_object_set_new(object, "hpa", hex(e->addr));
		set_attributes(object, e);
	}
	return object;
}

/* Adds to `answer` how gpa is translated. */
static int walk(struct vm *vm, uint64_t gpa, json_t *answer, struct error *err)
{
	struct s2_step step[S2_WALK_MAX];
	int found = s2_inspect_walk(vm->memory.s2, gpa, step);
	const unsigned n = found > 0 ? (unsigned)found : 0;
	json_t *steps;

	if (!n)
		return error_set(err, -EINVAL,
				 "0x%" PRIx64 " is beyond the guest's physical addresses", gpa);
	steps = json_array();
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(steps, step_json(&step[i]));
	json_object_set_new(answer, "format", json_string(s2_name(vm->memory.s2)));
	json_object_set_new(answer, "gpa", hex(gpa));
	json_object_set_new(answer, "steps", steps);
	if (step[n - 1].entry.kind == S2_ENTRY_LEAF)
		json_object_set_new(answer, "hpa",
				    hex(step[n - 1].entry.addr | (gpa & (step[n - 1].size - 1))));
	return 0;
}

int control_mmu_walk(void *opaque, struct control_request *request, const json_t *args,
		     json_t **ret, struct error *err)
{
	int result;

	(void)request;
	*ret = json_object();
	result =
		walk(opaque, (uint64_t)json_integer_value(json_object_get(args, "gpa")), *ret, err);
	if (result) {
		json_decref(*ret);
		*ret = NULL;
	}
	return result;
}

/* ---- the guest's own stage ---------------------------------------------------------------- */

static int load_entry(void *opaque, uint64_t gpa, unsigned bytes, uint64_t *value)
{
	struct vm *vm = opaque;

	*value = 0;
	return memory_read(&vm->memory, vm->memory.vmm, gpa, value, bytes);
}

/* How a vCPU translates just now. */
static int paging_of(struct vm *vm, unsigned vcpu, struct guest_paging *paging)
{
	struct x86_state *state = malloc(sizeof(*state));
	int ret;

	if (!state)
		return -ENOMEM;
	*state = vm->vcpu[vcpu].state;
	ret = vm->engine_ops->get_state(vm->engine, vcpu, state);
	*paging = (struct guest_paging){.arch = GUEST_X86,
					.x86 = {.cr0 = state->cr0,
						.cr3 = state->cr3,
						.cr4 = state->cr4,
						.efer = state->efer}};
	free(state);
	return ret;
}

static json_t *virtual_json(const struct guest_xlat *x, uint64_t gva, unsigned vcpu)
{
	static const char *const faults[] = {
		[GUEST_MAPPED] = "mapped",	     [GUEST_NOT_CANONICAL] = "not-canonical",
		[GUEST_NOT_PRESENT] = "not-present", [GUEST_RESERVED] = "reserved-bits",
		[GUEST_NO_MEMORY] = "no-memory",     [GUEST_BAD_ROOT] = "bad-root"};
	json_t *steps = json_array(), *object;

	for (unsigned i = 0; i < x->steps; i++)
		json_array_append_new(
			steps, json_pack("{s:i, s:o, s:o}", "level", (int)x->step[i].level, "entry",
					 hex(x->step[i].gpa), "raw", hex(x->step[i].value)));
	object = json_pack("{s:o, s:i, s:i, s:s, s:o}", "gva", hex(gva), "vcpu", (int)vcpu,
			   "levels", (int)x->levels, "outcome", faults[x->fault], "steps", steps);
	if (x->fault == GUEST_MAPPED) {
		json_object_set_new(object, "gpa", hex(x->gpa));
		json_object_set_new(object, "size", json_integer((json_int_t)x->size));
		json_object_set_new(object, "permissions", letters(x->perm));
		json_object_set_new(object, "user-permissions", letters(x->user));
		json_object_set_new(object, "accessed", json_boolean(x->accessed));
		json_object_set_new(object, "dirty", json_boolean(x->dirty));
	}
	return object;
}

int control_mmu_virtual(void *opaque, struct control_request *request, const json_t *args,
			json_t **ret, struct error *err)
{
	struct vm *vm = opaque;
	const struct guest_reader reader = {.opaque = vm, .load = load_entry};
	const char *text = json_string_value(json_object_get(args, "gva"));
	unsigned vcpu = (unsigned)json_integer_value(json_object_get(args, "vcpu"));
	struct guest_paging paging;
	struct guest_xlat x;
	uint64_t gva;
	char *end;
	int result;

	(void)request;
	errno = 0;
	gva = strtoull(text, &end, 0);
	if (errno || *end || end == text || strchr(text, '-'))
		return error_set(err, -EINVAL, "'%.40s' is no virtual address", text);
	if (vcpu >= vm->vcpu_count)
		return error_set(err, -EINVAL, "there is no vCPU %u: the machine has %u", vcpu,
				 vm->vcpu_count);
	if (vm->ended)
		return error_set(err, -ESHUTDOWN, "the machine has ended");
	/* The guest changes its tables while it runs; its registers are to be had parked only. */
	vcpus_park(vm);
	result = paging_of(vm, vcpu, &paging);
	if (!result)
		guest_translate(&paging, &reader, gva, &x);
	if (vm->started && !vm->ended && vm->motion == VM_MOVING && !atomic_load(&vm->events))
		vcpus_resume(vm);
	if (result)
		return error_set(err, result, "vCPU %u does not say how it translates", vcpu);
	*ret = json_pack("{s:o}", "virtual", virtual_json(&x, gva, vcpu));
	/* Beyond the bus there is nothing to walk. */
	if (x.fault == GUEST_MAPPED && walk(vm, x.gpa, *ret, err))
		err->text[0] = 0;
	return 0;
}

static json_t *mapping_json(struct s2 *s2, const struct s2_mapping *m)
{
	json_t *object =
		json_pack("{s:o, s:o, s:I, s:i, s:I}", "gpa", hex(m->gpa), "hpa", hex(m->hpa),
			  "size", (json_int_t)m->size, "level", (int)m->entry.level, "leaf",
			  (json_int_t)s2_level_size(s2, m->entry.level));

	set_attributes(object, &m->entry);
	return object;
}

int control_mmu_dump(void *opaque, struct control_request *request, const json_t *args,
		     json_t **ret, struct error *err)
{
	struct s2 *s2 = ((struct vm *)opaque)->memory.s2;
	uint64_t gpa = (uint64_t)json_integer_value(json_object_get(args, "start"));
	struct s2_mapping *m = calloc(DUMP_MAX, sizeof(*m));
	bool done = false;
	json_t *list;
	int n;

	(void)request;
	if (!m)
		return error_set(err, -ENOMEM, "out of memory");
	gpa &= ~(s2_level_size(s2, 1) - 1);
	n = s2_inspect_dump(s2, &gpa, &done, m, DUMP_MAX);
	if (n < 0) {
		free(m);
		return error_set(err, n, "0x%" PRIx64 " is beyond the guest's physical addresses",
				 gpa);
	}
	list = json_array();
	for (int i = 0; i < n; i++)
		json_array_append_new(list, mapping_json(s2, &m[i]));
	free(m);
	*ret = json_pack("{s:s, s:o}", "format", s2_name(s2), "mappings", list);
	if (!done)
		json_object_set_new(*ret, "next", json_integer((json_int_t)gpa));
	return 0;
}

/* ---- the trace ---------------------------------------------------------------------------- */

static json_t *event_json(const struct s2_trace_entry *e)
{
	json_t *object = json_pack("{s:I, s:s, s:I, s:s, s:o}", "time", (json_int_t)e->time,
				   "thread", e->thread, "number", (json_int_t)e->number, "event",
				   s2_trace_event_name(e->event), "gpa", hex(e->gpa));

	if (e->event == S2_TRACE_FLUSH) {
		json_object_set_new(object, "end", hex(e->after));
		return object;
	}
	json_object_set_new(object, "level", json_integer(e->level));
	json_object_set_new(object, "before", hex(e->before));
	json_object_set_new(object, "after", hex(e->after));
	if (e->event == S2_TRACE_FAULT) {
		json_object_set_new(object, "access", letters(e->access));
		json_object_set_new(object, "outcome", json_string(s2_result_name(e->outcome)));
	}
	return object;
}

int control_mmu_trace(void *opaque, struct control_request *request, const json_t *args,
		      json_t **ret, struct error *err)
{
	struct s2 *s2 = ((struct vm *)opaque)->memory.s2;
	const json_t *on = json_object_get(args, "on"), *count = json_object_get(args, "count");
	size_t room = count ? (size_t)json_integer_value(count) : TRACE_MAX, n;
	struct s2_trace_entry *e;
	json_t *list = json_array();

	(void)request;
	if (json_is_true(on) && s2_trace_start(s2, clock_now) == -ENOMEM) {
		s2_trace_stop(s2);
		json_decref(list);
		return error_set(err, -ENOMEM, "no memory for the trace");
	}
	if (json_is_false(on))
		s2_trace_stop(s2);
	e = calloc(room, sizeof(*e));
	n = e ? s2_trace_read(s2, e, room) : 0;
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, event_json(&e[i]));
	free(e);
	*ret = json_pack("{s:b, s:o}", "running", s2_trace_running(s2), "events", list);
	return 0;
}
