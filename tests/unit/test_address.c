/* Where a machine is sent to and taken from: what is in the place of a unix socket, and names. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "migration/address.h"

static struct stream_error why;
#define CHECK_TEXT why.text
#include "check.h"

static char dir[] = "/tmp/ferry-test-address-XXXXXX";

static int at(const char *file)
{
	char address[4096], bound[4200];

	snprintf(address, sizeof(address), "unix:%s/%s", dir, file);
	return address_listen(address, false, bound, sizeof(bound), &why);
}

static bool exists(const char *file)
{
	char path[4096];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return !lstat(path, &st);
}

/* What a process that was killed leaves. */
static void leave_socket(const char *file)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/%s", dir, file);
	CHECK(!bind(fd, (struct sockaddr *)&sun, sizeof(sun)));
	close(fd);
}

static void in_the_place_of_others(void)
{
	char path[128], address[140];
	int fd, other;

	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && write(fd, "x", 1) == 1);
	close(fd);
	CHECK(at("file") == -EEXIST && exists("file") && strstr(why.text, "no socket"));
	CHECK(!unlink(path));
	leave_socket("stale");
	fd = at("stale");
	CHECK(fd >= 0);
	CHECK(at("stale") == -EADDRINUSE && exists("stale"));
	snprintf(address, sizeof(address), "unix:%s/stale", dir);
	other = address_connect(address, 1000, -1, &why);
	CHECK(other >= 0);
	close(other);
	address_unlisten(address, fd);
	CHECK(!exists("stale"));
	CHECK(address_connect(address, 1000, -1, &why) == -ENOENT);
}

/* Longer than what a socket's address has room for. */
static void deep(void)
{
	char path[400], address[420], bound[420];
	int fd, peer;

	snprintf(path, sizeof(path), "%s/%0150d", dir, 0);
	CHECK(!mkdir(path, 0700));
	snprintf(address, sizeof(address), "unix:%s/s", path);
	fd = address_listen(address, false, bound, sizeof(bound), &why);
	CHECK(fd >= 0 && !strcmp(bound, address));
	peer = address_connect(address, 1000, -1, &why);
	CHECK(peer >= 0);
	close(peer);
	address_unlisten(address, fd);
	CHECK(!rmdir(path));
}

static void no_addresses(void)
{
	static const char *const wrong[] = {"",	       "foo",	 "tcp:h",
					    "tcp::1",  "tcp:h:", "tcp:h:99999",
					    "tcp:h:x", "unix:",	 "udp:h:1"};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		CHECK(address_check(wrong[i], &why) == -EINVAL);
	CHECK(!address_check("tcp:[::1]:0", &why) && !address_check("unix:x", &why));
}

/* The resolver, which answers for "slow.test" when it is told to: with this host; and does not know
 * "none.test". */
static atomic_int asked, answered;
static int go;

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
		struct addrinfo **out)
{
	static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	const bool slow = !strcmp(host, "slow.test") && !(hints->ai_flags & AI_NUMERICHOST);
	uint64_t one;
	int ret;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (slow) {
		atomic_fetch_add(&asked, 1);
		CHECK(read(go, &one, sizeof(one)) == sizeof(one));
	}
	if (!strcmp(host, "none.test"))
		return EAI_NONAME;
	ret = real(slow ? "127.0.0.1" : host, port, hints, out);
	if (slow)
		atomic_fetch_add(&answered, 1);
	return ret;
}

static void *answer_late(void *arg)
{
	const uint64_t one = 1;

	usleep(50000);
	CHECK(write(go, &one, sizeof(one)) == sizeof(one));
	return arg;
}

/* A resolver that does not answer is waited for as long as was said, and no longer. */
static void slow_names(void)
{
	const int wake = eventfd(1, EFD_CLOEXEC);
	const uint64_t eight = 8;
	pthread_t thread;
	char bound[100], address[100];
	int fd, peer;

	go = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	CHECK(wake >= 0 && go >= 0);
	CHECK(address_connect("tcp:slow.test:1", 100, -1, &why) == -ETIMEDOUT);
	CHECK(strstr(why.text, "slow.test") && strstr(why.text, "resolver"));
	for (int i = 0; i < 7; i++)
		CHECK(address_connect("tcp:slow.test:1", -1, wake, &why) == -ECANCELED);
	CHECK(address_connect("tcp:slow.test:1", -1, -1, &why) == -EBUSY);
	/* All are answered, when nobody listens any more. */
	CHECK(write(go, &eight, sizeof(eight)) == sizeof(eight));
	for (int i = 0; i < 10000 && atomic_load(&answered) < 8; i++)
		usleep(1000);
	CHECK(atomic_load(&asked) == 8 && atomic_load(&answered) == 8);

	fd = address_listen("tcp:127.0.0.1:0", false, bound, sizeof(bound), &why);
	CHECK(fd >= 0);
	snprintf(address, sizeof(address), "tcp:slow.test%s", strrchr(bound, ':'));
	CHECK(!pthread_create(&thread, NULL, answer_late, NULL));
	do /* they may be a moment from having said that they are done */
		peer = address_connect(address, 60000, -1, &why);
	while (peer == -EBUSY);
	CHECK(peer >= 0 && atomic_load(&answered) == 9);
	pthread_join(thread, NULL);
	close(peer);
	address_unlisten(bound, fd);
	close(wake);
	close(go);
	CHECK(address_connect("tcp:none.test:1", -1, -1, &why) == -ENOENT);
	CHECK(strstr(why.text, "none.test"));
}

int main(void)
{
	CHECK(mkdtemp(dir));
	slow_names();
	in_the_place_of_others();
	deep();
	no_addresses();
	CHECK(!rmdir(dir));
	return 0;
}
