/* stdio: on a terminal, on pipes, sockets, files; what it reads ahead and what it leaves. */
#include "tests/unit/chardev_util.h"

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
	test_terminal();
	test_stdio();
	test_piped();
	CHECK(rmdir(dir) == 0);
	return 0;
}
