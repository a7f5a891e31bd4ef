/* The control socket's server: its messages, its bounds, and clients that do everything wrong. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/unit/check.h"
#include "tests/unit/control_util.h"
#include "vmm/unix_socket.h"

static char dir[] = "/tmp/ferry-test-XXXXXX";
static int dir_fd;
static struct loop *loop;
static pthread_t thread;
static struct error err;

static void *run_loop(void *arg)
{
	(void)arg;
	loop_run(loop);
	return NULL;
}

static void begin(void)
{
	CHECK(!loop_create(&loop, &err));
	CHECK(!control_create(&control, loop, test_commands, NULL, &err));
	CHECK(!control_listen(control, dir_fd, "c.sock", &err));
	CHECK(!pthread_create(&thread, NULL, run_loop, NULL));
}

/* ---- a client --------------------------------------------------------------------------- */

struct conn {
	int fd;
	char buf[1 << 18];
	size_t len;
};

static void put(struct conn *c, const char *text)
{
	size_t len = strlen(text);

	CHECK(send(c->fd, text, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* False: closed. */
static bool more(struct conn *c)
{
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN};
	ssize_t n;

	CHECK(poll(&pfd, 1, 20000) == 1);
	CHECK(c->len < sizeof(c->buf));
	n = recv(c->fd, c->buf + c->len, sizeof(c->buf) - c->len, 0);
	if (n <= 0)
		return false;
	c->len += (size_t)n;
	return true;
}

/* The next line; NULL: closed. */
static const char *line(struct conn *c)
{
	static char text[sizeof(c->buf)];
	char *end;

	while (!(end = memchr(c->buf, '\n', c->len))) {
		if (!more(c))
			return NULL;
	}
	memcpy(text, c->buf, (size_t)(end - c->buf));
	text[end - c->buf] = 0;
	c->len -= (size_t)(end + 1 - c->buf);
	memmove(c->buf, end + 1, c->len);
	return text;
}

static bool said(struct conn *c, const char *what)
{
	const char *got = line(c);

	if (got && strstr(got, what))
		return true;
	fprintf(stderr, "expected %s, got %s\n", what, got ? got : "the end");
	return false;
}

static struct conn *new_conn(void)
{
	struct conn *c = calloc(1, sizeof(*c));

	CHECK(c);
	c->fd = unix_connect(dir_fd, "c.sock", &err);
	CHECK(c->fd >= 0);
	return c;
}

static struct conn *open_conn(void)
{
	struct conn *c = new_conn();

	CHECK(said(c, "{\"QMP\":{\"version\":{\"qemu\":{"));
	put(c, "{\"execute\":\"qmp_capabilities\"}\r\n");
	CHECK(said(c, "{\"return\":{}}"));
	return c;
}

static void close_conn(struct conn *c)
{
	close(c->fd);
	free(c);
}

static void ask(struct conn *c, const char *message, const char *answer)
{
	put(c, message);
	put(c, "\n");
	if (!said(c, answer)) {
		fprintf(stderr, "to %s\n", message);
		exit(1);
	}
}

/* ---- the protocol ----------------------------------------------------------------------- */

static void test_messages(void)
{
	struct conn *c = new_conn();
	struct stat st;

	CHECK(!fstatat(dir_fd, "c.sock", &st, 0) && (st.st_mode & 0777) == 0600);
	CHECK(said(c, "\"capabilities\":[]}}"));
	ask(c, "{\"execute\":\"echo\"}", "Expecting capabilities negotiation");
	ask(c, "{\"execute\":\"qmp_capabilities\",\"id\":\"x\"}", "{\"return\":{},\"id\":\"x\"}");
	ask(c, "{\"execute\":\"qmp_capabilities\"}", "CommandNotFound");
	ask(c, "{\"execute\":\"query-version\"}", "\"package\":\"ferry ");
	ask(c, "{\"execute\":\"query-commands\"}",
	    "{\"name\":\"count\",\"type\":\"int\",\"optional\":true}");
	ask(c, "{\"execute\":\"no\",\"id\":7}", "\"class\":\"CommandNotFound\"");
	ask(c, "{\"execute\":\"fail\",\"id\":[1]}", "it failed \xef\xbf\xbd\"},\"id\":[1]}");
	/* Arguments. */
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"a\\u0041\",\"count\":3}}",
	    "{\"return\":{\"text\":\"aA\",\"count\":3}}");
	ask(c, "{\"execute\":\"echo\"}", "argument 'text' is missing");
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":1}}", "must be of type string");
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"count\":4}}", "from 1 to 3");
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"flag\":0}}", "of type bool");
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\",\"txet\":0}}", "'txet'");
	ask(c, "{\"execute\":\"echo\",\"arguments\":[]}", "must be an object");
	ask(c, "{\"execute\":\"echo\",\"argument\":{}}", "no member 'argument'");
	ask(c, "{\"execute\":1}", "needs 'execute'");
	ask(c, "[]", "a message is an object");
	/* Several in one go; one without its line feed; one in parts; blank lines. */
	put(c, "\n\r\n{\"execute\":\"echo\",\"arguments\":{\"text\":\"1\"}}{\"execute\":\"ec");
	CHECK(said(c, "\"1\""));
	put(c, "ho\",\"arguments\":{\"text\":\"}2\"}}");
	CHECK(said(c, "}2"));
	/* Events. */
	put(c, "{\"execute\":\"event\"}\n");
	CHECK(said(c, "\"event\":\"SOMETHING\",\"timestamp\":{\"seconds\":"));
	CHECK(said(c, "return"));
	close_conn(c);
}

static void test_garbage(void)
{
	struct conn *c = open_conn();
	char deep[4001];

	ask(c, "GET / HTTP/1.1", "JSON parse error");
	ask(c, "{\"execute\":\"echo\"", "JSON parse error");
	ask(c, "{\"a\":1,\"a\":2}", "duplicate");
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\xc3\x28\"}}", "JSON parse error");
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"\\u0000\"}}", "JSON parse error");
	memset(deep, '[', 4000);
	deep[4000] = 0;
	ask(c, deep, "JSON parse error");
	CHECK(send(c->fd, "a\0b\n", 4, 0) == 4);
	CHECK(said(c, "NUL"));
	/* It still works. */
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"well\"}}", "well");
	close_conn(c);
}

static void test_too_long(void)
{
	struct conn *c = open_conn();
	static char text[CONTROL_MESSAGE_MAX];
	static const char head[] = "{\"execute\":\"echo\",\"arguments\":{\"text\":\"";

	/* The longest that is allowed, then one byte more. */
	memset(text, 'y', sizeof(text));
	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + sizeof(text) - 4, "\"}}\n", 4);
	CHECK(send(c->fd, text, sizeof(text), MSG_NOSIGNAL) == sizeof(text));
	CHECK(said(c, "yyyyyyyy"));
	memset(text, 'y', sizeof(text));
	CHECK(send(c->fd, text, sizeof(text), MSG_NOSIGNAL) == sizeof(text));
	CHECK(said(c, "at most 65536 bytes"));
	CHECK(!line(c));
	close_conn(c);
}

/* ---- answers that come later ------------------------------------------------------------ */

static void test_later(void)
{
	struct conn *a = open_conn(), *b = open_conn(), *gone = open_conn();
	struct pollfd pfd = {.fd = a->fd, .events = POLLIN};

	put(a, "{\"execute\":\"later\",\"id\":1}\n{\"execute\":\"event\",\"id\":2}\n");
	put(gone, "{\"execute\":\"later\"}\n");
	/* The second command of a client waits for the first. */
	CHECK(poll(&pfd, 1, 50) == 0);
	close_conn(gone);
	ask(b, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"b\"}}", "\"b\"");
	put(b, "{\"execute\":\"answer\",\"arguments\":{\"ok\":true}}\n");
	CHECK(said(a, "{\"return\":\"late\",\"id\":1}"));
	CHECK(said(a, "SOMETHING") && said(a, "\"id\":2}"));
	/* Half closed: what was asked is answered, then it ends. */
	put(a, "{\"execute\":\"later\",\"id\":3}\n{\"execute\":\"fail\"}\n{\"execute\":\"fa");
	CHECK(!shutdown(a->fd, SHUT_WR));
	CHECK(poll(&pfd, 1, 50) == 0);
	put(b, "{\"execute\":\"answer\",\"arguments\":{\"ok\":false}}\n");
	CHECK(said(a, "cancelled") && said(a, "it failed") && !line(a));
	close_conn(a);
	close_conn(b);
}

static void test_hand_over(void)
{
	struct conn *c = open_conn();

	put(c, "{\"execute\":\"take\"}\nbytes");
	CHECK(said(c, "{\"return\":{}}"));
	while (more(c))
		;
	CHECK(c->len == 9 && !memcmp(c->buf, "raw:bytes", 9));
	close_conn(c);
	/* The line feed belongs to the request, whenever it comes. */
	c = open_conn();
	put(c, "{\"execute\":\"take\"}");
	CHECK(said(c, "{\"return\":{}}"));
	put(c, "\r");
	usleep(20000);
	put(c, "\n\nmore");
	while (more(c))
		;
	CHECK(c->len >= 5 && !memcmp(c->buf, "raw:\n", 5));
	close_conn(c);
}

/* ---- bounds ----------------------------------------------------------------------------- */

static void test_slow_reader(void)
{
	struct conn *slow = open_conn(), *other = open_conn();
	unsigned n = 0;

	/* It never reads: it is dropped, and the others notice nothing. */
	while (send(slow->fd, "{\"execute\":\"big\",\"arguments\":{\"bytes\":300000}}\n", 47,
		    MSG_NOSIGNAL | MSG_DONTWAIT) == 47 &&
	       n++ < 100000)
		;
	for (unsigned i = 0; i < 20000; i++) {
		put(other, "{\"execute\":\"event\"}\n");
		CHECK(said(other, "SOMETHING") && said(other, "return"));
	}
	while (more(slow))
		slow->len = 0;
	ask(other, "{\"execute\":\"big\",\"arguments\":{\"bytes\":200000}}", "x");
	close_conn(slow);
	close_conn(other);
}

static void test_many(void)
{
	enum { MANY = 300 };
	struct conn *kept = open_conn(), *c;
	struct rlimit limit;
	int fds[MANY];

	/* Those that say nothing make room for those that do. */
	for (int i = 0; i < MANY; i++) {
		fds[i] = unix_connect(dir_fd, "c.sock", &err);
		CHECK(fds[i] >= 0);
	}
	c = open_conn();
	ask(c, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"in\"}}", "in");
	ask(kept, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"kept\"}}", "kept");
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	close_conn(c);
	/* All places taken by clients that have negotiated: a clear answer. */
	struct conn *all[CONTROL_CLIENTS_MAX - 1];

	for (int i = 0; i < CONTROL_CLIENTS_MAX - 1; i++)
		all[i] = open_conn();
	c = new_conn();
	CHECK(said(c, "too many connections") && !line(c));
	close_conn(c);
	for (int i = 0; i < CONTROL_CLIENTS_MAX - 1; i++)
		close_conn(all[i]);
	/* No descriptor left: sent away, and the loop goes on. */
	CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
	for (unsigned i = 0; i < 1000; i++) {
		const char *text;

		c = new_conn();
		text = line(c);
		if (text && strstr(text, "QMP"))
			break;
		close_conn(c); /* the loop has not yet noticed that all the others are gone */
		usleep(5000);
	}
	fds[0] = unix_connect(dir_fd, "c.sock", &err); /* so that room is for less than a pair */
	limit.rlim_cur = (rlim_t)fds[0] + 1;
	close(fds[0]);
	struct rlimit old;

	CHECK(!getrlimit(RLIMIT_NOFILE, &old) && !setrlimit(RLIMIT_NOFILE, &limit));
	for (int i = 0; i < 3; i++) {
		struct conn *d = calloc(1, sizeof(*d));

		d->fd = unix_connect(dir_fd, "c.sock", &err);
		if (d->fd >= 0) {
			const char *text = line(d);

			CHECK(text && (strstr(text, "descriptor") || strstr(text, "QMP")));
			close(d->fd);
		}
		free(d);
	}
	CHECK(!setrlimit(RLIMIT_NOFILE, &old));
	ask(kept, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"kept\"}}", "kept");
	close_conn(c);
	close_conn(kept);
}

/* What waits at the end is still sent; the connection's own end comes last. */
static void test_end(void)
{
	struct conn *c = open_conn(), *other = open_conn();
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN};

	put(c, "{\"execute\":\"later\",\"id\":9}\n");
	/* The loop has read it once it has answered this one. */
	ask(other, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"x\"}}", "x");
	ask(other, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"y\"}}", "y");
	loop_stop(loop, 0);
	pthread_join(thread, NULL);
	CHECK(later_count == 1);
	control_answer(later[--later_count], 0, json_string("over"), NULL);
	control_finish(control);
	CHECK(faccessat(dir_fd, "c.sock", F_OK, 0) && errno == ENOENT);
	CHECK(said(c, "{\"return\":\"over\",\"id\":9}") && poll(&pfd, 1, 20) == 0);
	control_destroy(control);
	CHECK(!line(c) && !line(other));
	loop_destroy(loop);
	close_conn(c);
	close_conn(other);
}

int main(void)
{
	CHECK(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	begin();
	test_messages();
	test_garbage();
	test_too_long();
	test_later();
	test_hand_over();
	test_slow_reader();
	test_many();
	test_end();
	close(dir_fd);
	CHECK(!rmdir(dir));
	return 0;
}
