/* Machines that go elsewhere, and those that have come and lack something. */
#include "vmm/control_move.h"

#include <errno.h>
#include <string.h>

#include "vmm/outgoing.h"
#include "vmm/vm_internal.h"

#define COMMAND(name)                                                                              \
	int name(void *opaque, struct control_request *request, const json_t *args, json_t **ret,  \
		 struct error *err)

const struct control_arg control_save_args[] = {
	{.name = "file", .type = CONTROL_STRING},
	{.name = NULL},
};

const struct control_arg control_migrate_args[] = {
	{.name = "to", .type = CONTROL_STRING},
	{.name = "downtime", .type = CONTROL_INT, .optional = true, .min = 1, .max = 3600000},
	{.name = "bandwidth",
	 .type = CONTROL_INT,
	 .optional = true,
	 .min = 4096,
	 .max = INT64_MAX >> 16},
	{.name = "timeout", .type = CONTROL_INT, .optional = true, .min = 1, .max = INT32_MAX},
	{.name = "on-timeout", .type = CONTROL_STRING, .optional = true},
	{.name = "postcopy-rounds",
	 .type = CONTROL_INT,
	 .optional = true,
	 .min = 1,
	 .max = INT32_MAX},
	{.name = "postcopy-ms", .type = CONTROL_INT, .optional = true, .min = 1, .max = INT32_MAX},
	{.name = "recover-ms", .type = CONTROL_INT, .optional = true, .min = 1, .max = INT32_MAX},
	{.name = "spool", .type = CONTROL_STRING, .optional = true},
	{.name = "verify", .type = CONTROL_BOOL, .optional = true},
	{.name = "uncompressed", .type = CONTROL_BOOL, .optional = true},
	{.name = "tls-certs", .type = CONTROL_STRING, .optional = true},
	{.name = "tls-psk", .type = CONTROL_STRING, .optional = true},
	{.name = "tls-name", .type = CONTROL_STRING, .optional = true},
	{.name = NULL},
};

const struct control_arg control_migrate_control_args[] = {
	{.name = "action", .type = CONTROL_STRING},
	{.name = NULL},
};

const struct control_arg control_migrate_complete_args[] = {
	{.name = "file", .type = CONTROL_STRING},
	{.name = NULL},
};

static const char *text(const json_t *args, const char *key)
{
	return json_string_value(json_object_get(args, key));
}

static uint64_t number(const json_t *args, const char *key, uint64_t initial)
{
	const json_t *value = json_object_get(args, key);

	return value ? (uint64_t)json_integer_value(value) : initial;
}

COMMAND(control_save)
{
	int code = outgoing_save(opaque, text(args, "file"), request, err);

	(void)ret;
	return code ? code : CONTROL_LATER;
}

/* Only read. */
static char *tls_word(const json_t *args, const char *name)
{
	return (char *)(uintptr_t)text(args, name);
}

COMMAND(control_migrate)
{
	const struct outgoing_params params = {
		.to = text(args, "to"),
		.downtime_ms = number(args, "downtime", 300),
		.bandwidth = number(args, "bandwidth", 0),
		.timeout_ms = number(args, "timeout", 0),
		.on_timeout = text(args, "on-timeout"),
		.postcopy_rounds = (uint32_t)number(args, "postcopy-rounds", 0),
		.postcopy_ms = number(args, "postcopy-ms", 0),
		.recover_ms = number(args, "recover-ms", 0),
		.spool = text(args, "spool"),
		.verify = json_is_true(json_object_get(args, "verify")),
		.uncompressed = json_is_true(json_object_get(args, "uncompressed")),
		.tls = {.certs = tls_word(args, "tls-certs"),
			.psk = tls_word(args, "tls-psk"),
			.name = tls_word(args, "tls-name")}};
	int code = outgoing_move(opaque, &params, request, err);

	(void)ret;
	return code ? code : CONTROL_LATER;
}

COMMAND(control_migration)
{
	(void)request;
	(void)args;
	(void)err;
	*ret = outgoing_query(opaque);
	if (!*ret)
		*ret = json_pack("{s:s}", "phase", "none");
	return 0;
}

COMMAND(control_migrate_control)
{
	(void)request;
	(void)ret;
	return outgoing_control(opaque, text(args, "action"), err);
}

COMMAND(control_migrate_complete)
{
	struct vm *vm = opaque;
	int code;

	(void)ret;
	if (!vm->arrival || !vm->arrival->complete)
		return error_set(err, -EINVAL, "nothing is missing here");
	code = vm->arrival->complete(vm->arrival, text(args, "file"), request, err);
	return code ? code : CONTROL_LATER;
}
