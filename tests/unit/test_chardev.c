/* The character back ends against real descriptors: nothing is lost, nothing blocks, clients come
 * and go. */
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
#include "vmm/unix_socket.h"

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

static size_t can_receive(void *opaque)
{
	(void)opaque;
	return dev.room;
}

static void receive(void *opaque, const uint8_t *data, size_t len)
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

static void writable(void *opaque)
{
	(void)opaque;
	__atomic_add_fetch(&dev.writable, 1, __ATOMIC_SEQ_CST);
}

static const struct chardev_client client = {can_receive, receive, writable, NULL};

static void quit(void *opaque, int code)
{
	(void)opaque;
	quit_code = code;
	loop_stop(loop, code);
}

static struct chardev *begin(enum serial_kind kind, char *path)
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

static void end(struct chardev *chr)
{
	chardev_destroy(chr);
	loop_destroy(loop);
}

static void stop(void *arg)
{
	(void)arg;
	loop_stop(loop, 0);
}

/* Lets everything that is due happen. */
static void turn(void)
{
	for (int i = 0; i < 5; i++) {
		usleep(1000);
		loop_post(loop, stop, NULL);
		loop_run(loop);
	}
}

/* Without C-a, which a terminal takes for itself. */
static uint8_t pattern_byte(size_t at)
{
	return (uint8_t)(2 + (at * 7 + at / 251) % 250);
}

static uint32_t pattern_sum(size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = sum * 31 + pattern_byte(i);
	return sum;
}

static void pattern(uint8_t *buf, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern_byte(at + i);
}

enum { BIG = 64 * 1024 };

/* Sends BIG bytes into fd from a thread, with pauses. */
static void *feed(void *arg)
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
static void *drain(void *arg)
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
static void *vcpu(void *arg)
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
static void both_ways(struct chardev *chr, int fd)
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

static void test_none(void)
{
	struct chardev *chr = begin(SERIAL_NONE, NULL);

	CHECK(chr->ops->write(chr, (const uint8_t *)"abc", 3) == 3);
	chr->ops->kick_receive(chr);
	end(chr);
}

static void test_file(void)
{
	char path[100], full[] = "/dev/full", buf[8];
	struct chardev *chr;
	int fd;

	snprintf(path, sizeof(path), "%s/out", dir);
	chr = begin(SERIAL_FILE, path);
	CHECK(chr->ops->write(chr, (const uint8_t *)"ab", 2) == 2);
	fd = open(path, O_RDONLY);
	CHECK(read(fd, buf, 8) == 2 && !memcmp(buf, "ab", 2)); /* without the loop having run */
	CHECK(truncate(path, 0) == 0);			       /* a log rotation */
	CHECK(chr->ops->write(chr, (const uint8_t *)"c", 1) == 1);
	CHECK(pread(fd, buf, 8, 0) == 1 && buf[0] == 'c');
	close(fd);
	end(chr);
	unlink(path);

	chr = begin(SERIAL_FILE, full);
	CHECK(chr->ops->write(chr, (const uint8_t *)"abc", 3) ==
	      3); /* said once, the guest goes on */
	turn();
	end(chr);

	struct serial_config config = {SERIAL_FILE, dir};
	struct chardev_env env = {.name = "serial0", .quit = quit};
	struct error err;

	CHECK(chardev_create(&chr, &config, &env, &err) == -EISDIR && strstr(err.text, dir));
}

static void test_fifo(void)
{
	char path[100];
	struct chardev *chr;
	pthread_t reader, cpu;
	void *sum;
	int fd;

	snprintf(path, sizeof(path), "%s/fifo", dir);
	CHECK(mkfifo(path, 0600) == 0);

	struct serial_config config = {SERIAL_FILE, path};
	struct chardev_env env = {.name = "serial0", .quit = quit};
	struct error err;

	CHECK(chardev_create(&chr, &config, &env, &err) == -ENXIO && strstr(err.text, "reader"));
	fd = open(path, O_RDONLY | O_NONBLOCK);
	fcntl(fd, F_SETFL, O_RDONLY);
	fcntl(fd, F_SETPIPE_SZ, 4096);
	chr = begin(SERIAL_FILE, path);
	pthread_create(&reader, NULL, drain, &fd);
	pthread_create(&cpu, NULL, vcpu, chr);
	CHECK(loop_run(loop) == 0);
	pthread_join(cpu, NULL);
	end(chr); /* what waits is written at the end */
	pthread_join(reader, &sum);
	CHECK((uint32_t)(uintptr_t)sum == pattern_sum(BIG));
	close(fd);
	unlink(path);
}

static void test_socket(void)
{
	char path[400], buf[64];
	struct chardev *chr;
	struct stat st;
	const char *name;
	int dir_fd, fd, next, n = snprintf(path, sizeof(path), "%s/", dir);

	memset(path + n, 'd', 150); /* a folder that sun_path cannot hold */
	path[n + 150] = 0;
	CHECK(mkdir(path, 0700) == 0);
	strcat(path, "/sock");
	chr = begin(SERIAL_SOCKET, path);
	CHECK(stat(path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
	/* Nobody there: dropped, not kept, not waited for. */
	for (int i = 0; i < 3000; i++)
		CHECK(chr->ops->write(chr, (const uint8_t *)"lost", 4) == 4);
	turn();
	dir_fd = path_open_dir(path, &name, NULL);
	fd = unix_connect(dir_fd, name, NULL);
	CHECK(fd >= 0);
	turn();
	CHECK(chr->ops->write(chr, (const uint8_t *)"hello", 5) == 5);
	turn();
	CHECK(read(fd, buf, sizeof(buf)) == 5 && !memcmp(buf, "hello", 5));
	both_ways(chr, fd);

	/* A second one waits for its turn; a client that goes leaves what it had sent. */
	next = unix_connect(dir_fd, name, NULL);
	CHECK(next >= 0);
	dev.got = 0;
	dev.stop_at = 0;
	dev.room = 0;
	CHECK(write(fd, "bye", 3) == 3);
	close(fd);
	turn();
	dev.room = 16;
	chr->ops->kick_receive(chr);
	turn();
	CHECK(dev.got == 3);
	CHECK(chr->ops->write(chr, (const uint8_t *)"two", 3) == 3);
	turn();
	CHECK(read(next, buf, sizeof(buf)) == 3 && !memcmp(buf, "two", 3));

	/* Half closed: it still reads. */
	shutdown(next, SHUT_WR);
	turn();
	CHECK(chr->ops->write(chr, (const uint8_t *)"half", 4) == 4);
	turn();
	CHECK(read(next, buf, sizeof(buf)) == 4);
	close(next);
	turn();

	/* The path is taken; a client that reads nothing holds the guest up, until it goes. */
	struct serial_config config = {SERIAL_SOCKET, path};
	struct chardev_env env = {.loop = loop, .name = "serial1", .quiet = true, .quit = quit};
	struct chardev *other;
	struct error err;

	CHECK(chardev_create(&other, &config, &env, &err) == -EADDRINUSE);
	fd = unix_connect(dir_fd, name, NULL);
	turn();
	dev.writable = 0;
	for (n = 0; n < 10000; n++) {
		uint8_t kb[1024] = {0};

		if (chr->ops->write(chr, kb, sizeof(kb)) < sizeof(kb))
			if (turn(), chr->ops->write(chr, kb, sizeof(kb)) == 0)
				break;
	}
	CHECK(n < 10000);
	dev.writable = 0;
	turn();
	CHECK(dev.writable == 0);
	close(fd);
	turn();
	CHECK(dev.writable == 1);
	end(chr);
	CHECK(stat(path, &st) < 0);

	/* A stale one is replaced, a file is not. */
	fd = unix_listen(dir_fd, name, 1, NULL);
	CHECK(fd >= 0);
	close(fd);
	CHECK(stat(path, &st) == 0);
	chr = begin(SERIAL_SOCKET, path);
	end(chr);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	CHECK(loop_create(&loop, NULL) == 0);
	env.loop = loop;
	CHECK(chardev_create(&other, &config, &env, &err) == -EEXIST && strstr(err.text, "sock"));
	loop_destroy(loop);
	unlink(path);
	*strrchr(path, '/') = 0;
	rmdir(path);
	close(dir_fd);
}

/* Runs fn in a child whose stderr comes back, for the path of the pty. */
static int capture_stderr(int *saved)
{
	int fds[2];

	CHECK(pipe(fds) == 0);
	*saved = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	return fds[0];
}

static void *read_late(void *arg)
{
	char buf[16];

	usleep(200000);
	return (void *)(uintptr_t)read(*(int *)arg, buf, sizeof(buf));
}

static void test_pty(void)
{
	char text[200], buf[64], *path;
	struct chardev *chr;
	struct termios modes;
	int saved, err_fd = capture_stderr(&saved), fd;
	ssize_t n;

	chr = begin(SERIAL_PTY, NULL);
	n = read(err_fd, text, sizeof(text) - 1);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(err_fd);
	CHECK(n > 0 && text[n - 1] == '\n');
	text[n - 1] = 0;
	path = strstr(text, "/dev/pts/");
	CHECK(path);
	for (int i = 0; i < 3000; i++) {
		CHECK(chr->ops->write(chr, (const uint8_t *)"lost", 4) == 4);
		if (i % 1000 == 0)
			turn(); /* it is the loop that sees that nobody is there */
	}
	turn();
	CHECK(chr->ops->write(chr, (const uint8_t *)"lost", 4) == 4);
	turn();
	fd = open(path, O_RDWR | O_NOCTTY);
	CHECK(fd >= 0 && tcgetattr(fd, &modes) == 0 && !(modes.c_lflag & (ICANON | ECHO)));
	turn();
	CHECK(chr->ops->write(chr, (const uint8_t *)"hi\n", 3) == 3);
	turn();
	CHECK(read(fd, buf, sizeof(buf)) == 3 && !memcmp(buf, "hi\n", 3));
	both_ways(chr, fd);
	close(fd);
	turn();

	/* Typed by somebody who is gone before we look; then somebody opens it again. */
	dev.got = 0;
	dev.stop_at = 0;
	fd = open(path, O_WRONLY | O_NOCTTY);
	CHECK(write(fd, "echo", 4) == 4);
	close(fd);
	turn();
	CHECK(dev.got == 4);
	fd = open(path, O_RDWR | O_NOCTTY);
	CHECK(write(fd, "x", 1) == 1);
	turn();
	CHECK(dev.got == 5);

	/* It is not read: the guest waits; it is closed: the guest goes on. */
	for (n = 0; n < 1000; n++) {
		uint8_t kb[1024] = {0};

		if (chr->ops->write(chr, kb, sizeof(kb)) < sizeof(kb))
			if (turn(), chr->ops->write(chr, kb, sizeof(kb)) == 0)
				break;
	}
	CHECK(n < 1000);
	dev.writable = 0;
	turn();
	CHECK(dev.writable == 0);
	close(fd);
	turn();
	CHECK(dev.writable == 1);

	/* The last words wait for a reader who is late. */
	pthread_t reader;
	void *got;

	fd = open(path, O_RDWR | O_NOCTTY);
	turn();
	tcflush(fd, TCIFLUSH); /* what the one before has not read */
	CHECK(chr->ops->write(chr, (const uint8_t *)"last", 4) == 4);
	pthread_create(&reader, NULL, read_late, &fd);
	end(chr);
	pthread_join(reader, &got);
	CHECK((uintptr_t)got == 4);
	close(fd);
}

/* stdio on a pseudo-terminal, in this process: descriptors 0 and 1 are replaced for the time. */
static void test_terminal(void)
{
	struct termios before, raw, after;
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave, in = dup(0), out = dup(1);
	struct chardev *chr;
	char path[100], buf[64];

	CHECK(grantpt(master) == 0 && unlockpt(master) == 0);
	ptsname_r(master, path, sizeof(path));
	slave = open(path, O_RDWR | O_NOCTTY);
	tcgetattr(slave, &before);
	dup2(slave, 0);
	dup2(slave, 1);
	chr = begin(SERIAL_STDIO, NULL);
	tcgetattr(slave, &raw);
	CHECK(!(raw.c_lflag & (ICANON | ECHO | ISIG)) && !(raw.c_oflag & OPOST));
	CHECK(!(fcntl(0, F_GETFL) & O_NONBLOCK) && !(fcntl(1, F_GETFL) & O_NONBLOCK));
	turn();
	both_ways(chr, master);

	/* Escape keys, split over reads; the device takes nothing meanwhile. */
	dev = (struct device_side){.room = 0};
	CHECK(write(master, "a\x01", 2) == 2);
	turn();
	CHECK(write(master,
		    "\x01"
		    "b\x03\x01qc",
		    6) == 6);
	turn();
	CHECK(dev.got == 0);
	dev.room = 16;
	chr->ops->kick_receive(chr);
	turn();
	CHECK(dev.got == 5 && !memcmp(dev.last,
				      "a\x01"
				      "b\x03"
				      "c",
				      5));
	CHECK(!chardev_ahead(chr));
	dev.room = 0;
	CHECK(write(master, "typed ahead\x01x", 13) == 13);
	CHECK(loop_run(loop) == EXIT_KILLED && quit_code == EXIT_KILLED);
	CHECK(chardev_ahead(chr) == 11);
	CHECK(chr->ops->write(chr, (const uint8_t *)"last\n", 5) == 5);
	end(chr); /* written at the end without the loop, and raw: no \r */
	CHECK(read(master, buf, sizeof(buf)) == 5 && !memcmp(buf, "last\n", 5));
	tcgetattr(slave, &after);
	CHECK(before.c_lflag == after.c_lflag && before.c_iflag == after.c_iflag &&
	      before.c_oflag == after.c_oflag && before.c_cflag == after.c_cflag &&
	      !memcmp(before.c_cc, after.c_cc, sizeof(before.c_cc)));

	/* The terminal goes away. */
	chr = begin(SERIAL_STDIO, NULL);
	turn();
	close(master);
	CHECK(loop_run(loop) == EXIT_SIGNAL + SIGHUP);
	end(chr);
	close(slave);
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
}

/* stdio on pipes, a socket pair, /dev/null, files. */
static void stdio_on(int in_fd, int out_fd, int feed_fd, int drain_fd)
{
	int in = dup(0), out = dup(1);
	struct chardev *chr;
	pthread_t feeder, reader, cpu;
	void *sum;

	dup2(in_fd, 0);
	dup2(out_fd, 1);
	chr = begin(SERIAL_STDIO, NULL);
	dev.stop_at = BIG;
	if (feed_fd >= 0) {
		pthread_create(&feeder, NULL, feed, &feed_fd);
		CHECK(loop_run(loop) == 0);
		pthread_join(feeder, NULL);
		CHECK(dev.got == BIG && dev.sum == pattern_sum(BIG));
		if (feed_fd != drain_fd)
			close(feed_fd);
	}
	turn(); /* end of input: nothing happens, and the loop does not spin */
	if (drain_fd >= 0)
		pthread_create(&reader, NULL, drain, &drain_fd);
	pthread_create(&cpu, NULL, vcpu, chr);
	CHECK(loop_run(loop) == 0);
	pthread_join(cpu, NULL);
	end(chr);
	if (drain_fd >= 0) {
		pthread_join(reader, &sum);
		CHECK((uint32_t)(uintptr_t)sum == pattern_sum(BIG));
	}
	CHECK(!(fcntl(0, F_GETFL) & O_NONBLOCK) && !(fcntl(1, F_GETFL) & O_NONBLOCK));
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
}

static void test_stdio(void)
{
	int in[2], out[2], pair[2], null = open("/dev/null", O_RDWR), fd;
	char path[100], buf[100];
	struct stat st;

	CHECK(pipe(in) == 0 && pipe(out) == 0);
	fcntl(out[1], F_SETPIPE_SZ, 4096);
	/* The feeding end is closed in there after its data: end of file. */
	int in_read = in[0], in_write = in[1];

	stdio_on(in_read, out[1], in_write, out[0]);
	close(in_read);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	stdio_on(pair[0], pair[0], pair[1], pair[1]);
	close(pair[0]);
	close(pair[1]);
	stdio_on(null, null, -1, -1);
	/* A reader that goes away: the guest goes on. */
	close(out[0]);
	stdio_on(null, out[1], -1, -1);
	close(out[1]);

	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	CHECK(write(fd, "before\n", 7) ==
	      7); /* the position is the shell's: `(echo before; ferry) > f` */
	stdio_on(null, fd, -1, -1);
	CHECK(fstat(fd, &st) == 0 && st.st_size == BIG + 7);
	CHECK(pread(fd, buf, 7, 0) == 7 && !memcmp(buf, "before\n", 7));
	close(fd);
	unlink(path);
	close(null);
}

static int unread(int fd)
{
	int bytes = 0;

	CHECK(ioctl(fd, SIOCOUTQ, &bytes) == 0);
	return bytes;
}

/* What the device does not take, or may not have, stays in the socket. */
static void test_held(void)
{
	char path[100];
	struct chardev *chr;
	const char *name;
	int dir_fd, fd, whole;

	snprintf(path, sizeof(path), "%s/held", dir);
	chr = begin(SERIAL_SOCKET, path);
	dir_fd = path_open_dir(path, &name, NULL);
	fd = unix_connect(dir_fd, name, NULL);
	CHECK(fd >= 0);
	turn();
	dev.room = 0;
	CHECK(write(fd, "typed", 5) == 5);
	whole = unread(fd);
	turn();
	CHECK(whole > 0 && unread(fd) == whole);
	chardev_hold(chr, true);
	dev.room = 16;
	chr->ops->kick_receive(chr);
	turn();
	CHECK(!dev.got && unread(fd) == whole);
	chardev_hold(chr, false);
	turn();
	CHECK(dev.got == 5 && !unread(fd) && !memcmp(dev.last, "typed", 5));
	close(fd);
	close(dir_fd);
	end(chr);
}

/* A pipe as standard input keeps what the device does not take: whoever reads it next has it. */
static void test_piped(void)
{
	int in = dup(0), pair[2], left = 0;
	struct chardev *chr;

	CHECK(pipe(pair) == 0);
	dup2(pair[0], 0);
	chr = begin(SERIAL_STDIO, NULL);
	dev.room = 0;
	CHECK(write(pair[1], "typed ahead", 11) == 11);
	turn();
	CHECK(!chardev_ahead(chr) && !ioctl(pair[0], FIONREAD, &left) && left == 11);
	chardev_hold(chr, true);
	dev.room = 16;
	chr->ops->kick_receive(chr);
	turn();
	CHECK(!dev.got);
	chardev_hold(chr, false);
	turn();
	CHECK(dev.got == 11 && ioctl(pair[0], FIONREAD, &left) == 0 && !left);
	end(chr);
	dup2(in, 0);
	close(in);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	alarm(60);
	CHECK(mkdtemp(dir));
	test_none();
	test_file();
	test_fifo();
	test_socket();
	test_held();
	test_pty();
	test_terminal();
	test_stdio();
	test_piped();
	CHECK(rmdir(dir) == 0);
	return 0;
}
