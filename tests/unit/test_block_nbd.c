/* Images through a qemu-nbd of our own and servers elsewhere: data, pieces, holes, the end of the
 * server, what is left behind. */
#include <dirent.h>
#include <signal.h>
#include <stdarg.h>

#include "tests/unit/block_util.h"

#define MIB (1u << 20)

static unsigned char *want, *got;
static char last_log[400];

static void log_line(void *opaque, const char *line)
{
	(void)opaque;
	snprintf(last_log, sizeof(last_log), "%s", line);
}

__attribute__((format(printf, 1, 2))) static int shell(const char *fmt, ...)
{
	char line[1500];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	return system(line);
}

/* The child of ours that is called qemu-nbd; 0: none. */
static pid_t server(void)
{
	char path[300], text[300], name[32];
	pid_t found = 0;
	struct dirent *e;
	DIR *proc = opendir("/proc");

	while (proc && (e = readdir(proc))) {
		int pid, parent;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fgets(text, sizeof(text), f) &&
		    sscanf(text, "%d (%31[^)]) %*c %d", &pid, name, &parent) == 3 &&
		    parent == getpid() && !strcmp(name, "qemu-nbd"))
			found = pid;
		fclose(f);
	}
	if (proc)
		closedir(proc);
	return found;
}

static void test_data(struct block *b)
{
	struct bt_request t = {.r = {.op = BLOCK_WRITE, .offset = 512, .bytes = 3 * MIB}};
	static struct bt_request many[300];
	uint64_t seed = 7;

	for (size_t i = 0; i < 4 * MIB; i++)
		want[i] = (unsigned char)dev_random(&seed);
	CHECK_EQ(bt_transfer(b, BLOCK_WRITE, 0, want, 512), 0);
	t.iov[0] = (struct iovec){want + 512, 1};
	t.iov[1] = (struct iovec){want + 513, 2 * MIB};
	t.iov[2] = (struct iovec){want + 513 + 2 * MIB, MIB - 1};
	t.r.iov = t.iov;
	t.r.iovs = 3;
	bt_submit(b, &t);
	bt_wait(b);
	CHECK_EQ(t.result, 0);
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 3 * MIB + 512), 0);
	CHECK(!memcmp(got, want, 3 * MIB + 512));
	memset(got, 0, 4 * MIB);
	t = (struct bt_request){.r = {.op = BLOCK_READ, .bytes = 3 * MIB}};
	t.iov[0] = (struct iovec){got + 3, 1 * MIB + 77};
	t.iov[1] = (struct iovec){got, 0};
	t.iov[2] = (struct iovec){got + 2 * MIB, 2 * MIB - 77};
	t.r.iov = t.iov;
	t.r.iovs = 3;
	bt_submit(b, &t);
	bt_wait(b);
	CHECK_EQ(t.result, 0);
	CHECK(!memcmp(got + 3, want, MIB + 77));
	CHECK(!memcmp(got + 2 * MIB, want + MIB + 77, 2 * MIB - 77));
	/* More at once than the server takes. */
	for (unsigned i = 0; i < 300; i++) {
		many[i] = (struct bt_request){
			.r = {.op = BLOCK_READ, .offset = i * 4096, .bytes = 4096}};
		many[i].iov[0] = (struct iovec){got + i * 4096, 4096};
		many[i].r.iov = many[i].iov;
		many[i].r.iovs = 1;
		bt_submit(b, &many[i]);
	}
	bt_wait(b);
	CHECK(!memcmp(got, want, 300 * 4096));
	CHECK_EQ(bt_simple(b, BLOCK_FLUSH, 512, 4096, false), 0); /* which say nothing */
	CHECK_EQ(bt_simple(b, BLOCK_ZEROES, 4096, 8192, false), 0);
	CHECK_EQ(bt_simple(b, BLOCK_DISCARD, MIB, MIB, false), 0);
	CHECK_EQ(bt_simple(b, BLOCK_ZEROES, 2 * MIB, 65536, true), 0);
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 3 * MIB), 0);
	CHECK(!memcmp(got, want, 4096) && !got[4096] && !memcmp(got + 4096, got + 4097, 8191));
	CHECK(!got[2 * MIB] && !memcmp(got + 2 * MIB, got + 2 * MIB + 1, 65535));
	CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 0), 0);
}

/* A guest moves on this host: its image goes from one server to another one, and may come back. */
static void test_hand_over(struct block *from, struct block_open how)
{
	const pid_t first = server();
	struct block *to;

	how.unlocked = true;
	to = bt_try(how);
	CHECK(to);
	if (!to) {
		printf("  %s\n", bt_why);
		return;
	}
	CHECK_EQ(to->size, from->size);
	CHECK_EQ(server(), first); /* none for it */
	CHECK(to->ops->acquire(to) < 0);
	CHECK_EQ(from->ops->release(from), 0);
	CHECK_EQ(to->ops->acquire(to), 0);
	CHECK(to->can_zero == from->can_zero);
	memset(got, 0, 512);
	CHECK_EQ(bt_transfer(to, BLOCK_READ, 0, got, 512), 0);
	CHECK(!memcmp(got, want, 512));
	CHECK(from->ops->acquire(from) < 0);
	CHECK_EQ(bt_transfer(to, BLOCK_WRITE, 0, want, 512), 0);
	CHECK_EQ(to->ops->release(to), 0);
	CHECK_EQ(from->ops->acquire(from), 0);
	CHECK_EQ(bt_transfer(from, BLOCK_READ, 0, got, 512), 0);
	to->ops->destroy(to);
}

static void test_image(const char *format, const char *name)
{
	struct block_open how = {.path = strdup(bt_path(name))};
	struct block *b;

	if (shell("qemu-img create -q -f %s '%s' 64M", format, how.path)) {
		CHECK(!"qemu-img");
		return;
	}
	b = bt_try(how);
	if (!b)
		printf("%s: %s\n", format, bt_why);
	CHECK(b);
	if (b) {
		printf("block-nbd: %s: %s, discard %d, zero %d\n", format, b->mechanism,
		       b->can_discard, b->can_zero);
		CHECK_EQ(b->size, 64 * MIB);
		CHECK_EQ(getpgid(server()), getpgrp());
		test_data(b);
		CHECK(!bt_try(how) && strstr(bt_why, "is in use by"));
		test_hand_over(b, how);
		b->ops->destroy(b);
		CHECK_EQ(server(), 0);
	}
	/* It is in the image. */
	how.read_only = true;
	b = bt_try(how);
	CHECK(b);
	if (b) {
		memset(got, 0, 512);
		CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 512), 0);
		CHECK(!memcmp(got, want, 512));
		CHECK(bt_transfer(b, BLOCK_WRITE, 0, got, 512) < 0);
		/* Given up and taken again, for a machine that moves. */
		CHECK_EQ(b->ops->release(b), 0);
		CHECK_EQ(server(), 0);
		CHECK_EQ(b->ops->acquire(b), 0);
		CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 512), 0);
		b->ops->destroy(b);
	}
	free((void *)(uintptr_t)how.path);
}

/* Whoever kills the server: errors, a message, no more. */
static void test_killed(void)
{
	struct block_open how = {.path = strdup(bt_path("kill.qcow2"))};
	struct bt_request t = {.r = {.op = BLOCK_READ, .bytes = 512}};
	struct block *b;

	CHECK_EQ(shell("qemu-img create -q -f qcow2 '%s' 64M", how.path), 0);
	b = bt_try(how);
	CHECK(b && server());
	if (!b)
		return;
	kill(server(), SIGSTOP);
	t.iov[0] = (struct iovec){got, 512};
	t.r.iov = t.iov;
	t.r.iovs = 1;
	bt_submit(b, &t);
	b->ops->commit(b);
	kill(server(), SIGKILL);
	bt_wait(b);
	CHECK(t.result < 0);
	CHECK(strstr(last_log, "kill.qcow2") && strstr(last_log, "killed by signal 9"));
	CHECK(strstr(b->mechanism, "lost"));
	CHECK_EQ(bt_transfer(b, BLOCK_WRITE, 0, got, 512), -EIO);
	CHECK_EQ(bt_simple(b, BLOCK_FLUSH, 0, 0, false), -EIO);
	b->ops->destroy(b);
	CHECK_EQ(server(), 0);
	free((void *)(uintptr_t)how.path);
}

static void refused(struct block_open how, const char *text)
{
	struct block *b = bt_try(how);

	CHECK(!b);
	if (b)
		b->ops->destroy(b);
	if (!strstr(bt_why, text)) {
		printf("'%s' is not in '%s'\n", text, bt_why);
		dev_failures++;
	}
	CHECK_EQ(server(), 0);
}

static void test_wrong(void)
{
	struct block_open how = {.path = strdup(bt_path("bad.qcow2"))};
	char *path = strdup(getenv("PATH"));

	close(bt_make("bad.qcow2", 65536, "QFI\xfb\0\0\0\x99", 8));
	refused(how, "bad.qcow2: qemu-nbd has ended with code 1");
	setenv("PATH", "/nowhere", 1);
	refused(how, "install qemu-utils");
	setenv("PATH", path, 1);
	refused((struct block_open){.path = "nbd+unix:///?socket=/nowhere/socket"}, "socket");
	refused((struct block_open){.path = "nbd://x", .format = BLOCK_FORMAT_QCOW2}, "format=");
	free(path);
	free((void *)(uintptr_t)how.path);
}

/* A server that somebody else has started; it exports for reading only. */
static void test_address(void)
{
	char address[300], socket[200];
	struct block_open how = {.path = address};
	struct block *b = NULL;

	close(bt_make("far.img", MIB, "far", 3));
	snprintf(socket, sizeof(socket), "%s/far.sock", bt_folder);
	snprintf(address, sizeof(address), "nbd+unix:///?socket=%s", socket);
	CHECK_EQ(shell("qemu-nbd --fork -t -r -f raw -k '%s' --pid-file=pid '%s/far.img'", socket,
		       bt_folder),
		 0);
	refused(how, "lets it only be read: add ',ro'");
	how.read_only = true;
	b = bt_try(how);
	CHECK(b);
	if (b) {
		CHECK_EQ(b->size, MIB);
		CHECK_EQ(bt_transfer(b, BLOCK_READ, 0, got, 4096), 0);
		CHECK(!memcmp(got, "far", 3));
		b->ops->destroy(b);
	}
	CHECK_EQ(system("kill $(cat pid)"), 0);
}

int main(void)
{
	if (system("qemu-nbd --version >/dev/null 2>&1 && qemu-img --version >/dev/null 2>&1")) {
		puts("no qemu-nbd and qemu-img here (qemu-utils)");
		return 77;
	}
	bt_start();
	dev_log_set_sink(log_line, NULL);
	want = malloc(4 * MIB);
	got = malloc(4 * MIB);
	if (!want || !got || chdir(bt_folder))
		return 1;
	test_image("qcow2", "a.qcow2");
	test_image("vmdk", "a.vmdk");
	test_image("vdi", "a.vdi");
	test_killed();
	test_wrong();
	test_address();
	free(want);
	free(got);
	CHECK_EQ(system("ls /tmp/ferry-nbd-* 2>/dev/null | grep -q ."), 1 << 8);
	return bt_end("block-nbd");
}
