/* Bytes into the control socket: whatever comes, each answer is a line of JSON, requests that wait
 * can be answered, and the next client is served. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>

#include "tests/unit/control_util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max);

static struct loop *loop;

static void stop(void *arg)
{
	(void)arg;
	loop_stop(loop, 0);
}

/* What is ready now, and what follows from it. */
static void turn(unsigned rounds)
{
	while (rounds--) {
		if (loop_post(loop, stop, NULL))
			abort();
		loop_run(loop);
	}
}

static void check_lines(const char *text, size_t len)
{
	const char *end;

	while ((end = memchr(text, '\n', len))) {
		json_t *message = json_loadb(text, (size_t)(end - text), 0, NULL);

		if (!message && memcmp(text, "raw:", len < 4 ? len : 4) != 0)
			abort();
		if (!message)
			return; /* the connection was handed over */
		if (!json_object_get(message, "return") && !json_object_get(message, "error") &&
		    !json_object_get(message, "event") && !json_object_get(message, "QMP"))
			abort();
		json_decref(message);
		len -= (size_t)(end + 1 - text);
		text = end + 1;
	}
}

static void answer_all(void)
{
	while (later_count)
		control_answer(later[--later_count], 0, NULL, NULL);
}

/* What the server has written so far. */
static size_t drain(int fd, char *buf, size_t room)
{
	size_t len = 0;
	ssize_t n;

	while (len < room && (n = recv(fd, buf + len, room - len, MSG_DONTWAIT)) > 0)
		len += (size_t)n;
	return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char out[8 << 20];
	size_t used = 0, half = len / 2;
	struct error err;
	int fds[2];

	if (!loop &&
	    (loop_create(&loop, &err) || control_create(&control, loop, test_commands, NULL, &err)))
		abort();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) ||
	    control_adopt(control, fds[0]))
		abort();
	/* In two parts: a message may be cut anywhere. */
	(void)!send(fds[1], data, half, MSG_NOSIGNAL);
	turn(3);
	used += drain(fds[1], out, sizeof(out));
	(void)!send(fds[1], data + half, len - half, MSG_NOSIGNAL);
	shutdown(fds[1], SHUT_WR);
	for (unsigned i = 0; i < 4; i++) {
		turn(2);
		used += drain(fds[1], out + used, sizeof(out) - used);
		answer_all();
	}
	check_lines(out, used);
	close(fds[1]);
	turn(2);
	answer_all();
	turn(1);
	return 0;
}

size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	static const char hello[] = "{\"execute\":\"qmp_capabilities\"}\n";
	static const char *const seeds[] = {
		"{\"execute\":\"query-commands\",\"id\":1}\n",
		"{\"execute\":\"echo\",\"arguments\":{\"text\":\"a\\u00e9\",\"count\":2,"
		"\"flag\":true},\"id\":{\"a\":[null,1.5]}}\r\n",
		"{\"execute\":\"later\",\"id\":\"x\"}\n{\"execute\":\"event\"}\n",
		"{\"execute\":\"later\"}{\"execute\":\"answer\",\"arguments\":{\"ok\":false}}",
		"{\"execute\":\"big\",\"arguments\":{\"bytes\":70000}}\n"
		"{\"execute\":\"big\",\"arguments\":{\"bytes\":900000}}\n{\"execute\":\"fail\"}\n",
		"{\"execute\":\"event\"}\n{\"execute\":\"take\"}\nbytes",
		"[[[[{{{{\n{\"execute\"\n",
	};

	if (n >= sizeof(seeds) / sizeof(seeds[0]))
		return 0;
	return (size_t)snprintf((char *)buf, max, "%s%s", hello, seeds[n]);
}
