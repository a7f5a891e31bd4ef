/* What a machine says of itself: its description, from the schema, and what it does now. */
#include <string.h>
#include <unistd.h>

#include "migration/clock.h"
#include "vmm/json_util.h"
#include "vmm/outgoing.h"
#include "vmm/vm_internal.h"

static json_t *element(const struct config_field *field, const void *object, unsigned index)
{
	char text[4096];

	if (field->type == CONFIG_LIST)
		return config_json(field->sub, config_element(field, object, index));
	return config_format(field, object, index, text, sizeof(text)) < 0 ? json_null()
									   : json_text(text);
}

static json_t *value(const struct config_field *field, const void *object)
{
	const void *at = (const char *)object + field->offset;
	unsigned count = config_count(field, object);
	json_t *list;

	switch (field->type) {
	case CONFIG_STRING: return json_text(*(char *const *)at);
	case CONFIG_BOOL: return json_boolean(*(const bool *)at);
	case CONFIG_SIZE: return json_integer((json_int_t) * (const uint64_t *)at);
	case CONFIG_UINT:
		/* Below the least: not given. The greatest of all: no limit. */
		if (*(const uint32_t *)at < field->min || *(const uint32_t *)at == UINT32_MAX)
			return json_null();
		return json_integer(*(const uint32_t *)at);
	case CONFIG_CHOICE: return json_text(field->word(*(const uint32_t *)at));
	case CONFIG_SERIAL:
	case CONFIG_STRINGS:
	case CONFIG_LIST: break;
	}
	list = json_array();
	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, element(field, object, i));
	return list;
}

json_t *config_json(const struct config_field *fields, const void *object)
{
	json_t *all = json_object();

	for (; fields->name; fields++)
		json_object_set_new(all, fields->name, value(fields, object));
	return all;
}

static void add_counter(void *opaque, const char *name, uint64_t number)
{
	json_object_set_new(opaque, name, json_integer((json_int_t)number));
}

static void add_text(void *opaque, const char *name, const char *text)
{
	json_object_set_new(opaque, name, json_text(text));
}

static void ignore_counter(void *opaque, const char *name, uint64_t number)
{
	(void)opaque;
	(void)name;
	(void)number;
}

static void ignore_text(void *opaque, const char *name, const char *text)
{
	(void)opaque;
	(void)name;
	(void)text;
}

/* By name, what each device says of itself: its counters, or the rest. */
json_t *vm_devices(struct vm *vm, bool counters)
{
	json_t *all = json_object();

	for (unsigned i = 0; i < vm->board.device_count; i++) {
		struct device *dev = vm->board.devices[i];
		json_t *one = json_object();
		const struct inspector to = {.counter = counters ? add_counter : ignore_counter,
					     .text = counters ? ignore_text : add_text,
					     .opaque = one};

		if (dev->ops->inspect)
			dev->ops->inspect(dev, &to);
		if (!counters || json_object_size(one))
			json_object_set_new(all, dev->name, one);
		else
			json_decref(one);
	}
	return all;
}

/* When the guest's first instruction was executed here; NULL: none was yet. */
static json_t *first_instruction(struct vm *vm)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		const uint64_t one = vm->engine_ops->begun(vm->engine, i);

		if (one && (!first || one < first))
			first = one;
	}
	if (!first || first < vm->process_ns)
		return NULL;
	return json_pack("{s:f, s:I}", "ms-after-start",
			 vm->process_ns ? (double)(first - vm->process_ns) / 1e6 : 0.0,
			 "monotonic-ns", (json_int_t)first);
}

json_t *vm_info(struct vm *vm)
{
	const struct clock_source *clock = loop_clock(vm->loop);
	json_t *all, *migration, *first = first_instruction(vm);
	json_int_t up;

	up = (json_int_t)(clock_now() - vm->start_ns);
	migration = outgoing_query(vm);
	all = json_pack("{s:o, s:s, s:s, s:i, s:f, s:f, s:i, s:s, s:o, s:s, s:o, s:o}", "name",
			json_text(vm->presence->name.name), "state", vm_state_name(vm), "version",
			FERRY_VERSION, "pid", (int)getpid(), "uptime", (double)up / 1e9,
			"guest-time", (double)clock->now(clock->opaque) / 1e9, "resets",
			(int)vm->resets, "engine", vm->engine_ops->name, "engine-reason",
			json_text(vm->host_engine.reason), "cpu-model", vm->cpuid.model->name,
			"config", config_json(run_config_fields, vm->config), "devices",
			vm_devices(vm, false));
	if (first)
		json_object_set_new(all, "first-instruction", first);
	if (migration)
		json_object_set_new(all, "migration", migration);
	if (vm->lacks[0])
		json_object_set_new(all, "lacks", json_text(vm->lacks));
	return all;
}
