/* The character back ends but stdio against real descriptors: nothing is lost, nothing blocks,
 * clients come and go. */
#include "tests/unit/chardev_util.h"
#include "vmm/unix_socket.h"

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
	TURN_UNTIL(dev.got == 4);
	fd = open(path, O_RDWR | O_NOCTTY);
	CHECK(write(fd, "x", 1) == 1);
	TURN_UNTIL(dev.got == 5);

	/* It is not read: the guest waits; it is closed: the guest goes on. */
	for (n = 0; n < 1000; n++) {
		uint8_t kb[1024] = {0};

		if (chr->ops->write(chr, kb, sizeof(kb)))
			continue;
		/* Bytes on their way in there make room for some more. */
		dev.writable = 0;
		turn();
		if (!dev.writable && !chr->ops->write(chr, kb, sizeof(kb)))
			break;
	}
	CHECK(n < 1000 && dev.writable == 0);
	close(fd);
	TURN_UNTIL(dev.writable == 1);

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
	CHECK(rmdir(dir) == 0);
	return 0;
}