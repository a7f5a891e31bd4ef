#include "vmm/message.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static _Atomic bool raw_terminal;

void message_set_raw(bool raw)
{
	atomic_store(&raw_terminal, raw);
}

void message_clean(char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
	}
}

void message(const char *fmt, ...)
{
	char line[1024] = "ferry: ";
	size_t len = 7, room = sizeof(line) - len - 2;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line + len, room, fmt, ap);
	va_end(ap);
	message_clean(line + len);
	if (n > 0)
		len += (size_t)n < room ? (size_t)n : room - 1;
	if (atomic_load(&raw_terminal) && isatty(STDERR_FILENO))
		line[len++] = '\r';
	line[len++] = '\n';
	/* One write: lines of several threads and processes stay whole. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}
