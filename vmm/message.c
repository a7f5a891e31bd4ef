#include "vmm/message.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static _Atomic bool raw_terminal;
static void (*log_after)(void *opaque);
static void *log_opaque;

void message_set_log(void (*after)(void *opaque), void *opaque)
{
	log_after = after;
	log_opaque = opaque;
}

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

static size_t prefix(char *line, size_t room)
{
	const time_t now = time(NULL);
	struct tm tm;
	size_t len = 0;

	if (log_after && gmtime_r(&now, &tm))
		len = strftime(line, room, "%Y-%m-%dT%H:%M:%SZ ", &tm);
	return len + (size_t)snprintf(line + len, room - len, "ferry: ");
}

void message(const char *fmt, ...)
{
	char line[1024];
	size_t len = prefix(line, sizeof(line)), room = sizeof(line) - len - 2;
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
	if (log_after)
		log_after(log_opaque);
}
