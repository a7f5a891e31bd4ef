/* Where a machine is sent to and taken from: what is in the place of a unix socket, and names. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int main(void)
{
	CHECK(mkdtemp(dir));
	in_the_place_of_others();
	deep();
	no_addresses();
	CHECK(!rmdir(dir));
	return 0;
}
