#include "cli/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "vmm/exit_codes.h"

void detach_report(int *report, int code, const char *text)
{
	unsigned char byte = (unsigned char)code;

	/* A parent that was killed does not hear it; the machine goes on. */
	if (*report < 0)
		return;
	if (write(*report, &byte, 1) == 1)
		(void)!write(*report, text, strlen(text));
	close(*report);
	*report = -1;
}

static int wait_for_report(int fd, pid_t child)
{
	char text[sizeof(((struct error *)0)->text) + 1];
	struct error err = {""};
	size_t len = 0;
	ssize_t n;

	while (len < sizeof(text) - 1 && ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0 ||
					  (n < 0 && errno == EINTR)))
		len += n > 0 ? (size_t)n : 0;
	close(fd);
	waitpid(child, NULL, 0);
	text[len] = 0;
	if (!len) {
		error_set(&err, 0, "the machine's process died while it started");
		return complain(EXIT_START, &err);
	}
	if (!text[0]) {
		puts(text + 1);
		return 0;
	}
	snprintf(err.text, sizeof(err.text), "%s", text + 1);
	return complain((unsigned char)text[0], &err);
}

static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup3(null, STDIN_FILENO, 0);
	dup3(null, STDOUT_FILENO, 0);
	if (null > STDERR_FILENO)
		close(null);
}

int detach(int *report)
{
	struct error err;
	int fds[2];
	pid_t child;

	fflush(NULL);
	if (pipe2(fds, O_CLOEXEC)) {
		error_set(&err, 0, "--detach: %s", strerror(errno));
		return complain(EXIT_START, &err);
	}
	child = fork();
	if (child < 0) {
		error_set(&err, 0, "--detach: %s", strerror(errno));
		close(fds[0]);
		close(fds[1]);
		return complain(EXIT_START, &err);
	}
	if (child > 0) {
		close(fds[1]);
		return wait_for_report(fds[0], child);
	}
	close(fds[0]);
	setsid();
	/* Not a session's leader: no terminal that is opened becomes its own. */
	child = fork();
	if (child)
		_exit(child < 0);
	leave_terminal();
	*report = fds[1];
	return -1;
}
