/* Messages of the control socket as JSON: what is sent, and what a command's arguments may be. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "vmm/control_internal.h"
#include "vmm/json_util.h"

/* Clients of QMP judge what they may ask by the version: the emulator's whose commands these are.
 */
json_t *control_version(void)
{
	return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", 7, "minor", 2, "micro", 0,
			 "package", "ferry " FERRY_VERSION);
}

json_t *control_greeting(void)
{
	return json_pack("{s:{s:o, s:[]}}", "QMP", "version", control_version(), "capabilities");
}

json_t *control_error(int code, const char *text)
{
	const char *class = code == -ENOSYS   ? "CommandNotFound"
			    : code == -ENODEV ? "DeviceNotFound"
					      : "GenericError";

	return json_pack("{s:{s:s, s:o}}", "error", "class", class, "desc", json_text(text));
}

json_t *control_event_message(const char *event, json_t *data)
{
	struct timespec now;
	json_t *message;

	clock_gettime(CLOCK_REALTIME, &now);
	message =
		json_pack("{s:s, s:{s:I, s:I}}", "event", event, "timestamp", "seconds",
			  (json_int_t)now.tv_sec, "microseconds", (json_int_t)(now.tv_nsec / 1000));
	if (data)
		json_object_set_new(message, "data", data);
	return message;
}

/* ---- arguments -------------------------------------------------------------------------- */

static const char *const type_names[] = {
	[CONTROL_STRING] = "string", [CONTROL_INT] = "int", [CONTROL_BOOL] = "bool"};

static int check_type(const struct control_arg *arg, const json_t *value, struct error *err)
{
	const bool fits = arg->type == CONTROL_STRING ? json_is_string(value)
			  : arg->type == CONTROL_INT  ? json_is_integer(value)
						      : json_is_boolean(value);

	if (!fits)
		return error_set(err, -EINVAL, "argument '%s' must be of type %s", arg->name,
				 type_names[arg->type]);
	if (arg->type == CONTROL_INT &&
	    (json_integer_value(value) < arg->min || json_integer_value(value) > arg->max))
		return error_set(err, -EINVAL, "argument '%s' must be from %lld to %lld", arg->name,
				 (long long)arg->min, (long long)arg->max);
	return 0;
}

int control_check_args(const struct control_command *command, const json_t *args, struct error *err)
{
	size_t known = 0;

	for (const struct control_arg *arg = command->args; arg && arg->name; arg++) {
		const json_t *value = json_object_get(args, arg->name);
		int ret = value ? check_type(arg, value, err) : 0;

		if (ret)
			return ret;
		if (!value && !arg->optional)
			return error_set(err, -EINVAL, "argument '%s' is missing", arg->name);
		known += value != NULL;
	}
	if (known != json_object_size(args)) {
		const char *name;
		json_t *value;

		json_object_foreach((json_t *)args, name, value)
		{
			const struct control_arg *arg = command->args;

			while (arg && arg->name && strcmp(arg->name, name) != 0)
				arg++;
			if (!arg || !arg->name)
				return error_set(err, -EINVAL, "%s has no argument '%.100s'",
						 command->name, name);
		}
	}
	return 0;
}

json_t *control_describe(const struct control_command *command)
{
	json_t *args = json_array();

	for (const struct control_arg *arg = command->args; arg && arg->name; arg++)
		json_array_append_new(args,
				      json_pack("{s:s, s:s, s:b}", "name", arg->name, "type",
						type_names[arg->type], "optional", arg->optional));
	return json_pack("{s:s, s:s, s:o}", "name", command->name, "help", command->help,
			 "arguments", args);
}
