/* A table of commands for the control socket, without a machine: for the unit test and the fuzzer.
 */
#ifndef TESTS_UNIT_CONTROL_UTIL_H
#define TESTS_UNIT_CONTROL_UTIL_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/control.h"

static struct control *control;
static struct control_request *later[8]; /* not yet answered */
static unsigned later_count;

#define COMMAND(name)                                                                              \
	static int name(void *opaque, struct control_request *request, const json_t *args,         \
			json_t **ret, struct error *err)
#define UNUSED() ((void)opaque, (void)request, (void)args, (void)ret, (void)err)

COMMAND(do_echo)
{
	UNUSED();
	*ret = json_incref((json_t *)args);
	return 0;
}

COMMAND(do_fail)
{
	UNUSED();
	return error_set(err, -EIO, "it failed \xff");
}

COMMAND(do_big)
{
	size_t len = (size_t)json_integer_value(json_object_get(args, "bytes"));
	char *text = malloc(len + 1);

	UNUSED();
	memset(text, 'x', len);
	text[len] = 0;
	*ret = json_string(text);
	free(text);
	return 0;
}

COMMAND(do_later)
{
	UNUSED();
	if (later_count == sizeof(later) / sizeof(later[0]))
		return error_set(err, -EBUSY, "full");
	later[later_count++] = request;
	return CONTROL_LATER;
}

COMMAND(do_answer)
{
	const struct error why = {"cancelled"};

	UNUSED();
	while (later_count) {
		bool ok = json_is_true(json_object_get(args, "ok"));

		control_answer(later[--later_count], ok ? 0 : -ECANCELED,
			       ok ? json_string("late") : NULL, &why);
	}
	return 0;
}

COMMAND(do_event)
{
	UNUSED();
	control_event(control, "SOMETHING", json_pack("{s:i}", "n", 1));
	return 0;
}

static void taken(void *opaque, int fd, const uint8_t *data, size_t len)
{
	(void)opaque;
	(void)!send(fd, "raw:", 4, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)!send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

COMMAND(do_take)
{
	UNUSED();
	control_hand_over(request, taken, NULL);
	return 0;
}

static const struct control_arg echo_args[] = {
	{.name = "text", .type = CONTROL_STRING},
	{.name = "count", .type = CONTROL_INT, .optional = true, .min = 1, .max = 3},
	{.name = "flag", .type = CONTROL_BOOL, .optional = true},
	{.name = NULL},
};
static const struct control_arg big_args[] = {
	{.name = "bytes", .type = CONTROL_INT, .min = 0, .max = 4 << 20},
	{.name = NULL},
};
static const struct control_arg answer_args[] = {
	{.name = "ok", .type = CONTROL_BOOL},
	{.name = NULL},
};
static const struct control_command test_commands[] = {
	{"echo", "its arguments", echo_args, do_echo},
	{"fail", "fails", NULL, do_fail},
	{"big", "a long string", big_args, do_big},
	{"later", "waits for answer", NULL, do_later},
	{"answer", "answers those that wait", answer_args, do_answer},
	{"event", "sends one", NULL, do_event},
	{"take", "takes the connection", NULL, do_take},
	{.name = NULL},
};

#endif
