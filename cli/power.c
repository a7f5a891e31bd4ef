/* The buttons of a running machine: pause, resume, reset; and its end: stop, kill, wait. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/exit_codes.h"
#include "cli/machine.h"
#include "vmm/message.h"

/* What it takes a machine to give its memory back, and a slow reader of a serial line its last
 * bytes. */
enum { GONE_MS = 10000 };
/* Who is ended at once has this long for doing it itself. */
enum { HARD_MS = 1500, AGAIN_US = 200000 };

static int button(const struct machine_config *config, const char *command)
{
	struct client client;
	struct error err;
	int ret = client_open(&client, config->name, &err);

	/* A pause waits for the disk. */
	if (!ret)
		ret = client_call(&client, command, NULL, -1, NULL, &err);
	client_close(&client);
	return ret ? complain(EXIT_START, &err) : 0;
}

static int run_pause(void *config)
{
	return button(config, "stop");
}

static int run_resume(void *config)
{
	return button(config, "cont");
}

static int run_reset(void *config)
{
	return button(config, "system_reset");
}

/* ---- the end ---------------------------------------------------------------------------- */

static void read_end(json_t *answer, struct runtime_end *end)
{
	const char *reason = json_string_value(json_object_get(answer, "reason"));

	end->exit_code = (int)json_integer_value(json_object_get(answer, "exit-code"));
	snprintf(end->reason, sizeof(end->reason), "%s", reason ? reason : "?");
	json_decref(answer);
}

static bool await_release(const struct client *client, int ms)
{
	for (; ms > 0; ms -= 20) {
		if (runtime_holder(&client->runtime, client->name) != client->pid)
			return true;
		usleep(20000);
	}
	return false;
}

/* It went without an answer. A detached one may have left word. */
static int look_for_record(struct client *client, struct runtime_end *end, struct error *err)
{
	struct client again;
	int ret;

	/* Until the kernel has closed everything of a killed process. */
	await_release(client, 2000);
	ret = client_find(&again, client->name, end, err);
	client_close(&again);
	if (ret == -ESRCH)
		return 0;
	*end = (struct runtime_end){.exit_code = EXIT_LOST,
				    .reason = "its process ended without saying how: killed, or "
					      "crashed"};
	return 0;
}

/* Begins to wait, for timeout_ms; once begun (-ETIMEDOUT), `begun`. */
static int wait_end(struct client *client, bool begun, int timeout_ms, struct runtime_end *end,
		    struct error *err)
{
	json_t *answer = NULL;
	int ret = begun ? client_answer(client, timeout_ms, &answer, err)
			: client_call(client, "ferry-wait", NULL, timeout_ms, &answer, err);

	if (ret == -EPIPE)
		return look_for_record(client, end, err);
	if (ret)
		return ret;
	read_end(answer, end);
	client_gone(client, GONE_MS);
	return 0;
}

/* Signals the process that holds the name, and no other one that has got its number. */
static int send_signal(struct client *client, int signo)
{
	int fd = (int)syscall(SYS_pidfd_open, (pid_t)client->pid, 0), ret;

	if (fd < 0)
		return -errno;
	ret = runtime_holder(&client->runtime, client->name) == client->pid
		      ? (int)syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0)
		      : 0;
	close(fd);
	return ret;
}

/* At once: it is asked, and a machine that does not answer is killed. */
static int end_hard(struct client *client, struct runtime_end *end, struct error *err)
{
	struct client other;
	int ret = client_find(&other, client->name, NULL, err);

	other.patience_ms = HARD_MS;
	if (!ret)
		ret = client_connect(&other, err);
	if (!ret && other.pid == client->pid) {
		ret = client_call(&other, "quit", NULL, HARD_MS, NULL, err);
		if (!ret || ret == -EPIPE)
			ret = client_gone(&other, GONE_MS);
	}
	client_close(&other);
	/* Gone meanwhile, or without a control socket yet. */
	if (ret && runtime_holder(&client->runtime, client->name) == client->pid) {
		send_signal(client, SIGKILL);
		message("the machine '%s' did not answer; its process was killed", client->name);
	}
	return look_for_record(client, end, err);
}

/* One that waits for its guest listens to nobody but him: a signal ends it. */
static int end_waiting(struct client *client, struct error *err)
{
	int ret = send_signal(client, SIGTERM);

	if (!ret && !await_release(client, HARD_MS)) {
		ret = send_signal(client, SIGKILL);
		message("the machine '%s' did not end by itself; its process was killed",
			client->name);
	}
	if (!ret || ret == -ESRCH)
		return await_release(client, GONE_MS)
			       ? 0
			       : error_set(err, -ETIMEDOUT, "the process %ld does not end",
					   client->pid);
	return error_set(err, ret, "the process %ld cannot be ended: %s", client->pid,
			 strerror(-ret));
}

/* Until it has a guest, or has ended. */
static int await_guest(struct client *client, struct runtime_end *end, struct error *err)
{
	char name[RUNTIME_NAME_MAX];
	int ret = 0;

	snprintf(name, sizeof(name), "%s", client->name);
	message("%s waits for a guest at %s", name, client->waits_at);
	while (!ret && client->waits_at[0]) {
		usleep(AGAIN_US);
		client_close(client);
		ret = client_find(client, name, end, err);
	}
	return ret;
}

static int fail(struct client *client, struct error *err)
{
	client_close(client);
	return complain(EXIT_START, err);
}

static int run_kill(void *opaque)
{
	const struct machine_config *config = opaque;
	struct runtime_end end;
	struct client client;
	struct error err;

	int ret = client_find(&client, config->name, NULL, &err);

	if (!ret)
		ret = client.waits_at[0] ? end_waiting(&client, &err)
					 : end_hard(&client, &end, &err);
	if (ret)
		return fail(&client, &err);
	client_close(&client);
	return 0;
}

static int run_wait(void *opaque)
{
	const struct machine_config *config = opaque;
	struct runtime_end end = {0};
	struct client client;
	struct error err;
	int ret = client_find(&client, config->name, &end, &err);

	if (!ret && client.waits_at[0])
		ret = await_guest(&client, &end, &err);
	if (!ret) {
		ret = client_connect(&client, &err);
		if (!ret)
			ret = wait_end(&client, false, -1, &end, &err);
		if (ret == -EPIPE)
			ret = look_for_record(&client, &end, &err);
	} else if (ret == -ESRCH) {
		ret = 0;
	}
	if (ret)
		return fail(&client, &err);
	if (end.exit_code)
		message("%s: %s", client.name, end.reason);
	client_close(&client);
	return end.exit_code;
}

/* By its user's wish, or for want of room; one that is on its way is neither. */
static bool stands(const char *state)
{
	return !strcmp(state, "paused") || !strcmp(state, "pausing") || !strcmp(state, "io-error");
}

/* A paused guest cannot see the button. */
static int press(struct client *client, struct error *err)
{
	json_t *info = NULL;
	const char *state;
	int ret = client_call(client, "ferry-info", NULL, CLIENT_ANSWER_MS, &info, err);

	if (ret)
		return ret;
	state = json_string_value(json_object_get(info, "state"));
	if (state && stands(state)) {
		ret = client_call(client, "cont", NULL, CLIENT_ANSWER_MS, NULL, err);
		if (!ret)
			message("%s was paused: resumed, so that it can switch itself off",
				client->name);
	}
	json_decref(info);
	return ret ? ret
		   : client_call(client, "system_powerdown", NULL, CLIENT_ANSWER_MS, NULL, err);
}

static int run_stop(void *opaque)
{
	const struct machine_config *config = opaque;
	struct runtime_end end = {0};
	struct client client;
	struct error err;
	int ret = client_open(&client, config->name, &err);

	if (ret == -ENOTCONN) {
		message("%s waited for a guest at %s and is ended", client.name, client.waits_at);
		ret = end_waiting(&client, &err);
		if (ret)
			return fail(&client, &err);
		client_close(&client);
		return 0;
	}
	if (ret && ret != -ETIMEDOUT)
		return fail(&client, &err);
	if (!ret)
		ret = press(&client, &err);
	if (!ret)
		ret = wait_end(&client, false, (int)config->timeout * 1000, &end, &err);
	if (ret == -EPIPE) {
		ret = look_for_record(&client, &end, &err);
	} else if (ret == -ETIMEDOUT) {
		ret = end_hard(&client, &end, &err);
		if (!ret) {
			message("%s did not switch itself off within %u s and was ended the hard "
				"way",
				client.name, config->timeout);
			client_close(&client);
			return EXIT_HARD;
		}
	}
	if (ret)
		return fail(&client, &err);
	if (end.exit_code)
		message("%s: %s", client.name, end.reason);
	client_close(&client);
	return end.exit_code;
}

/* ---- the tables ------------------------------------------------------------------------- */

static const struct option stop_options[] = {
	OPTION("timeout", 't', "SECONDS", "timeout", .group = "Options"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

#define MACHINE_VERB(fn, n, s, o, d, ...)                                                          \
	const struct verb verb_##fn = {.name = n,                                                  \
				       .summary = s,                                               \
				       .operands = "[NAME]",                                       \
				       .description = d " " MACHINE_NAME_TEXT,                     \
				       .options = o,                                               \
				       .fields = machine_fields,                                   \
				       .size = sizeof(struct machine_config),                      \
				       .operand_field = "name",                                    \
				       .operand_completion = COMPLETE_MACHINES,                    \
				       .run = run_##fn,                                            \
				       __VA_ARGS__}

MACHINE_VERB(
	pause, "pause", "make a guest stand still", machine_options,
	"Stops the vCPUs and the guest's clock; returns when nothing of the guest's is in flight "
	"any more. A paused guest does not notice how long it stood still.");
MACHINE_VERB(resume, "resume", "let a paused guest go on", machine_options,
	     "Lets a paused guest go on, its clock from where it stood.");
MACHINE_VERB(reset, "reset", "press a machine's reset button", machine_options,
	     "Resets the machine, which starts its kernel again. It does not count for "
	     "--reset-limit. A paused machine is reset and stays paused.");
MACHINE_VERB(
	stop, "stop", "ask a guest to switch itself off", stop_options,
	"Presses the machine's power button and waits until the guest has switched itself off. "
	"A guest that has not after --timeout seconds is ended the hard way, and the exit code "
	"says so. A paused guest is resumed first: it could not see the button. The exit code is "
	"the machine's, as of ferry wait: 0 if it switched itself off. A ferry receive that waits "
	"for its guest is ended, with code 0.",
	.exit_codes = true);
MACHINE_VERB(
	kill, "kill", "end a machine at once", machine_options,
	"Ends the machine at once; the guest does not learn of it, as if the mains were cut. One "
	"that does not answer is killed with SIGKILL. A ferry receive that waits for its guest is "
	"ended too.");
MACHINE_VERB(
	wait, "wait", "wait for the end of a machine", machine_options,
	"Waits until the machine has ended and returns its exit code. For a machine that ran in "
	"the background it also tells afterwards: for a day, as long as no other takes its name.",
	.exit_codes = true);
