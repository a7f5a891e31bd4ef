/*
 * A hostile guest can provoke a message with every access: after a burst, messages are counted
 * instead of written until the second is over.
 */
#include "devices/device.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#include "migration/clock.h"

#define LOG_PER_SECOND 10

static struct {
	pthread_mutex_t lock;
	void (*sink)(void *opaque, const char *line);
	void *opaque;
	uint64_t second;
	unsigned written, dropped;
} dev_log_state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void log_emit(const char *line)
{
	if (dev_log_state.sink)
		dev_log_state.sink(dev_log_state.opaque, line);
	else
		fprintf(stderr, "%s\n", line);
}

static bool log_allowed(void)
{
	const uint64_t now = clock_now() / 1000000000;
	char line[96];

	if (now != dev_log_state.second) {
		if (dev_log_state.dropped) {
			snprintf(line, sizeof(line), "devices: %u messages left out",
				 dev_log_state.dropped);
			log_emit(line);
		}
		dev_log_state.second = now;
		dev_log_state.written = 0;
		dev_log_state.dropped = 0;
	}
	if (dev_log_state.written == LOG_PER_SECOND) {
		dev_log_state.dropped++;
		return false;
	}
	dev_log_state.written++;
	return true;
}

void dev_log(const char *device, const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	pthread_mutex_lock(&dev_log_state.lock);
	if (log_allowed()) {
		n = snprintf(line, sizeof(line), "%.64s: ", device);
		va_start(ap, fmt);
		vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
		va_end(ap);
		log_emit(line);
	}
	pthread_mutex_unlock(&dev_log_state.lock);
}

void dev_log_set_sink(void (*sink)(void *opaque, const char *line), void *opaque)
{
	pthread_mutex_lock(&dev_log_state.lock);
	dev_log_state.sink = sink;
	dev_log_state.opaque = opaque;
	pthread_mutex_unlock(&dev_log_state.lock);
}
