/* Lines that viewers attach to: what they see, what they type, and that none of them holds up the
 * guest. And the logs behind them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "vmm/chardev_attach.h"

static char dir[] = "/tmp/ferry-test-XXXXXX";
static int dir_fd;
static struct loop *loop;
static struct chardev *chr;
static pthread_t thread;
static struct error err;

/* The device: takes `room` bytes in all. */
static struct {
	_Atomic size_t room, got;
	char last[64];
} dev;

static size_t can_receive(void *opaque)
{
	(void)opaque;
	return dev.room;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
{
	(void)opaque;
	CHECK(len <= dev.room);
	for (size_t i = 0; i < len; i++)
		dev.last[(dev.got + i) % sizeof(dev.last)] = (char)data[i];
	dev.room -= len;
	dev.got += len;
}

static void *run_loop(void *arg)
{
	(void)arg;
	loop_run(loop);
	return NULL;
}

static void begin(bool logged)
{
	static const struct chardev_client client = {can_receive, receive, NULL, NULL};
	struct logfile log = {.fd = -1};
	const struct serial_config config = {.kind = SERIAL_ATTACH};

	CHECK(!loop_create(&loop, &err));
	const struct chardev_env env = {.loop = loop, .name = "serial0", .log = &log};

	if (logged)
		CHECK(!logfile_open(&log, dir_fd, "log", 100000, &err));
	CHECK(!chardev_create(&chr, &config, &env, &err));
	chr->ops->attach(chr, &client);
	dev.room = dev.got = 0;
	CHECK(!pthread_create(&thread, NULL, run_loop, NULL));
}

static void stop_loop(void)
{
	loop_stop(loop, 0);
	pthread_join(thread, NULL);
}

static void finish(void)
{
	stop_loop();
	chardev_destroy(chr);
	loop_destroy(loop);
}

/* As a guest does: all of it, waiting for room. Never for ever. */
static void print(const char *data, size_t len)
{
	for (unsigned turns = 0; len; turns++) {
		size_t n = chr->ops->write(chr, (const uint8_t *)data, len);

		data += n;
		len -= n;
		CHECK(turns < 200000);
		if (!n)
			usleep(100);
	}
}

static int new_viewer_fd;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t attached = PTHREAD_COND_INITIALIZER;

static void do_attach(void *arg)
{
	pthread_mutex_lock(&lock);
	chardev_attach_viewer(chr, new_viewer_fd, arg, strlen(arg));
	new_viewer_fd = -1;
	pthread_cond_signal(&attached);
	pthread_mutex_unlock(&lock);
}

static int viewer(const char *typed)
{
	int fds[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
	pthread_mutex_lock(&lock);
	new_viewer_fd = fds[0];
	CHECK(!loop_post(loop, do_attach, (void *)typed));
	while (new_viewer_fd >= 0)
		pthread_cond_wait(&attached, &lock);
	pthread_mutex_unlock(&lock);
	return fds[1];
}

/* Reads until what came ends with `tail`. */
static void expect(int fd, const char *tail)
{
	static char all[1 << 20];
	size_t len = 0;

	while (len < strlen(tail) || memcmp(all + len - strlen(tail), tail, strlen(tail)) != 0) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		ssize_t n;

		CHECK(poll(&pfd, 1, 20000) == 1 && len < sizeof(all));
		n = recv(fd, all + len, sizeof(all) - len, 0);
		CHECK(n > 0);
		len += (size_t)n;
	}
}

static void wait_got(size_t n)
{
	for (unsigned i = 0; i < 20000 && dev.got < n; i++)
		usleep(1000);
	CHECK(dev.got == n);
}

static void test_viewers(void)
{
	int a, b;

	begin(false);
	print("before ", 7);
	a = viewer("");
	expect(a, "before ");
	print("both", 4);
	b = viewer("early");
	expect(a, "both");
	expect(b, "before both");
	/* What is typed waits for the device. */
	CHECK(send(a, "12345", 5, 0) == 5);
	dev.room = 8;
	chr->ops->kick_receive(chr);
	wait_got(8);
	dev.room = 100;
	chr->ops->kick_receive(chr);
	wait_got(10);
	CHECK(!memcmp(dev.last, "early12345", 10));
	close(a);
	print("rest", 4);
	expect(b, "rest");
	stop_loop();
	/* Nothing of the last words is lost. */
	CHECK(chr->ops->write(chr, (const uint8_t *)"last", 4) == 4);
	chardev_destroy(chr);
	loop_destroy(loop);
	expect(b, "last");
	close(b);
}

static void test_stuck_viewer(void)
{
	enum { MEGABYTES = 4 };
	static char block[1 << 20];
	int stuck, reader;
	struct stat now, old;

	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (char)('a' + i % 26);
	begin(true);
	stuck = viewer("");
	for (unsigned i = 0; i < MEGABYTES; i++)
		print(block, sizeof(block));
	print("the end", 7);
	/* It reads at last: old bytes, a word about the gap, the newest. */
	expect(stuck, "the end");
	reader = viewer("");
	expect(reader, "the end");
	close(stuck);
	close(reader);
	finish();
	/* The log was turned over, and has the newest. */
	CHECK(!fstatat(dir_fd, "log", &now, 0) && !fstatat(dir_fd, "log.1", &old, 0));
	CHECK(now.st_size < 200000 && old.st_size >= 100000 && old.st_size < 200000);
	CHECK((now.st_mode & 0777) == 0600);
	unlinkat(dir_fd, "log", 0);
	unlinkat(dir_fd, "log.1", 0);
}

static void test_too_many(void)
{
	int fds[ATTACH_VIEWERS_MAX + 1];

	begin(false);
	print("x", 1);
	for (int i = 0; i <= ATTACH_VIEWERS_MAX; i++)
		fds[i] = viewer("");
	expect(fds[ATTACH_VIEWERS_MAX - 1], "x");
	expect(fds[ATTACH_VIEWERS_MAX], "too many are attached to this line]\r\n");
	for (int i = 0; i <= ATTACH_VIEWERS_MAX; i++)
		close(fds[i]);
	finish();
}

int main(void)
{
	CHECK(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	test_viewers();
	test_stuck_viewer();
	test_too_many();
	close(dir_fd);
	CHECK(!rmdir(dir));
	return 0;
}
