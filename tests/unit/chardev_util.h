/* A loop, a device behind a character back end, and what is sent through both. */
#ifndef TESTS_UNIT_CHARDEV_UTIL_H
#define TESTS_UNIT_CHARDEV_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "vmm/chardev.h"
#include "vmm/exit_codes.h"

static char dir[] = "/tmp/ferry-test-XXXXXX";
static struct loop *loop;
static int quit_code;

/* A device that takes `room` bytes at a time and counts. */
static struct device_side {
	size_t room, got;
	uint32_t sum;
	unsigned writable;
	size_t stop_at; /* bytes received */
	uint8_t last[64];
} dev;

static inline size_t can_receive(void *opaque)
{
	(void)opaque;
	return dev.room;
}

static inline void receive(void *opaque, const uint8_t *data, size_t len)
{
	(void)opaque;
	CHECK(len <= dev.room);
	for (size_t i = 0; i < len; i++) {
		dev.sum = dev.sum * 31 + data[i];
		dev.last[(dev.got + i) % sizeof(dev.last)] = data[i];
	}
	dev.got += len;
	if (dev.got == dev.stop_at)
		loop_stop(loop, 0);
}

static inline void writable(void *opaque)
{
	(void)opaque;
	__atomic_add_fetch(&dev.writable, 1, __ATOMIC_SEQ_CST);
}

static const struct chardev_client client = {can_receive, receive, writable, NULL};

static inline void quit(void *opaque, int code)
{
	(void)opaque;
	quit_code = code;
	loop_stop(loop, code);
}

static inline struct chardev *begin(enum serial_kind kind, char *path)
{
	struct serial_config config = {kind, path};
	struct chardev_env env = {.name = "serial0", .quiet = true, .quit = quit};
	struct chardev *chr = NULL;
	struct error err = {""};

	dev = (struct device_side){.room = 16};
	CHECK(loop_create(&loop, NULL) == 0);
	env.loop = loop;
	if (chardev_create(&chr, &config, &env, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	chr->ops->attach(chr, &client);
	return chr;
}

static inline void end(struct chardev *chr)
{
	chardev_destroy(chr);
	loop_destroy(loop);
}

static inline void stop(void *arg)
{
	(void)arg;
	loop_stop(loop, 0);
}

/* Lets everything that is due happen. */
static inline void turn(void)
{
	for (int i = 0; i < 5; i++) {
		usleep(1000);
		loop_post(loop, stop, NULL);
		loop_run(loop);
	}
}

/* Until it has come to that: what goes through a terminal is on its way for a while. */
#define TURN_UNTIL(c)                                                                              \
	do {                                                                                       \
		for (int turns_ = 0; turns_ < 1000 && !(c); turns_++)                              \
			turn();                                                                    \
		CHECK(c);                                                                          \
	} while (0)

/* Without C-a, which a terminal takes for itself. */
static inline uint8_t pattern_byte(size_t at)
{
	return (uint8_t)(2 + (at * 7 + at / 251) % 250);
}

static inline uint32_t pattern_sum(size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = sum * 31 + pattern_byte(i);
	return sum;
}

static inline void pattern(uint8_t *buf, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern_byte(at + i);
}

enum { BIG = 64 * 1024 };

/* Sends BIG bytes into fd from a thread, with pauses. */
static inline void *feed(void *arg)
{
	int fd = *(int *)arg;
	uint8_t buf[1000];

	for (size_t at = 0; at < BIG;) {
		size_t len = BIG - at < sizeof(buf) ? BIG - at : sizeof(buf), done = 0;

		pattern(buf, at, len);
		while (done < len) {
			ssize_t n = write(fd, buf + done, len - done);

			CHECK(n > 0);
			done += (size_t)n;
		}
		at += len;
		if (at % 8000 == 0)
			usleep(1000);
	}
	return NULL;
}

/* A slow reader: small reads with pauses. */
static inline void *drain(void *arg)
{
	int fd = *(int *)arg;
	uint32_t sum = 0;
	uint8_t buf[700];

	for (size_t got = 0; got < BIG;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		CHECK(n > 0);
		for (ssize_t i = 0; i < n; i++)
			sum = sum * 31 + buf[i];
		got += (size_t)n;
		if (got < 10000)
			usleep(2000);
	}
	return (void *)(uintptr_t)sum;
}

/* The vCPU: sends BIG bytes, waits for `writable` after each short write. */
static inline void *vcpu(void *arg)
{
	struct chardev *chr = arg;
	unsigned seen = 0, waits = 0;

	for (size_t at = 0; at < BIG;) {
		uint8_t buf[100];
		size_t len = BIG - at < sizeof(buf) ? BIG - at : sizeof(buf), n;

		pattern(buf, at, len);
		n = chr->ops->write(chr, buf, len);
		CHECK(n <= len);
		at += n;
		if (n < len) {
			waits++;
			while (__atomic_load_n(&dev.writable, __ATOMIC_SEQ_CST) == seen)
				usleep(100);
			seen = __atomic_load_n(&dev.writable, __ATOMIC_SEQ_CST);
		}
	}
	loop_post(loop, stop, NULL);
	return (void *)(uintptr_t)waits;
}

/* Both ways at once over a connected back end whose other end is `fd`. */
static inline void both_ways(struct chardev *chr, int fd)
{
	pthread_t feeder, reader, cpu;
	void *sum, *waits;

	dev.stop_at = BIG;
	pthread_create(&feeder, NULL, feed, &fd);
	CHECK(loop_run(loop) == 0);
	pthread_join(feeder, NULL);
	CHECK(dev.got == BIG && dev.sum == pattern_sum(BIG));

	pthread_create(&reader, NULL, drain, &fd);
	pthread_create(&cpu, NULL, vcpu, chr);
	CHECK(loop_run(loop) == 0);
	pthread_join(cpu, &waits);
	CHECK((uintptr_t)waits > 0);
	turn();
	/* The rest is in the buffer: it must come while the loop goes on. */
	for (int i = 0; i < 2000 && pthread_tryjoin_np(reader, &sum) == EBUSY; i++)
		turn();
	CHECK((uint32_t)(uintptr_t)sum == pattern_sum(BIG));
}

#endif
