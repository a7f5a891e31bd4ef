/* What `ferry mmu` asks: counters, the way to an address, what is mapped, what happened last.
 * Addresses and entries are strings of hexadecimal digits: they use all 64 bits, numbers of JSON do
 * not. */
#include "vmm/control_mmu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "mmu/inspect.h"
#include "vmm/vm_internal.h"

/* One answer has so many of them at most, and stays far below CONTROL_OUTPUT_MAX. */
enum { DUMP_MAX = 1000, TRACE_MAX = 2000 };

const struct control_arg control_mmu_walk_args[] = {
	{.name = "gpa", .type = CONTROL_INT, .min = 0, .max = INT64_MAX},
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

int control_mmu_walk(void *opaque, struct control_request *request, const json_t *args,
		     json_t **ret, struct error *err)
{
	struct vm *vm = opaque;
	uint64_t gpa = (uint64_t)json_integer_value(json_object_get(args, "gpa"));
	struct s2_step step[S2_WALK_MAX];
	int found = s2_inspect_walk(vm->memory.s2, gpa, step);
	const unsigned n = found > 0 ? (unsigned)found : 0;
	json_t *steps;

	(void)request;
	if (!n)
		return error_set(err, -EINVAL,
				 "0x%" PRIx64 " is beyond the guest's physical addresses", gpa);
	steps = json_array();
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(steps, step_json(&step[i]));
	*ret = json_pack("{s:s, s:o, s:o}", "format", s2_name(vm->memory.s2), "gpa", hex(gpa),
			 "steps", steps);
	if (step[n - 1].entry.kind == S2_ENTRY_LEAF)
		json_object_set_new(*ret, "hpa",
				    hex(step[n - 1].entry.addr | (gpa & (step[n - 1].size - 1))));
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

static uint64_t monotonic(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

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
	if (json_is_true(on) && s2_trace_start(s2, monotonic) == -ENOMEM) {
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
