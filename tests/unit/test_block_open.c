/* Opening disks: what is refused and how that is said, locks between ferries and with QEMU. */
#include <sys/wait.h>

#include "tests/unit/block_util.h"

#define MIB (1u << 20)

static void refused(struct block_open how, const char *text)
{
	struct block *b = bt_try(how);

	CHECK(!b);
	if (b)
		b->ops->destroy(b);
	if (!strstr(bt_why, text) || !strstr(bt_why, how.path)) {
		printf("'%s' is not in '%s'\n", text, bt_why);
		dev_failures++;
	}
}

static void accepted(struct block_open how)
{
	struct block *b = bt_try(how);

	if (!b)
		printf("refused: %s\n", bt_why);
	CHECK(b);
	if (b)
		b->ops->destroy(b);
}

static struct block_open named(const char *name)
{
	return (struct block_open){.path = bt_path(name)};
}

static void make(const char *name, uint64_t size, const char *head, size_t len)
{
	close(bt_make(name, size, head, len));
}

static void test_wrong(void)
{
	struct block_open how;

	refused(named("nothing.img"), "does not exist: truncate -s");
	refused((struct block_open){.path = "/tmp"}, "is a directory");
	refused((struct block_open){.path = "/dev/null"}, "neither a file nor a block device");
	CHECK_EQ(mkfifo(bt_path("pipe"), 0600), 0);
	refused(named("pipe"), "neither");
	make("empty.img", 0, "", 0);
	refused(named("empty.img"), "is empty");
	make("odd.img", 1000, "", 0);
	refused(named("odd.img"), "no multiple of 512");
	/* What looks like something else. */
	make("disk.img", MIB, "QFI\xfb\0\0\0\3", 8);
	refused(named("disk.img"), "begins like a qcow2 image: say format=qcow2, or format=raw");
	how = named("disk.img");
	how.format = BLOCK_FORMAT_RAW;
	accepted(how);
	make("disk.raw.xz", MIB, "\xfd\x37zXZ\0", 6);
	refused(named("disk.raw.xz"), "xz file: unpack it with unxz");
	make("raw.qcow2", MIB, "", 0);
	refused(named("raw.qcow2"), "does not begin like a qcow2 image: say format=raw");
	make("vmdk.qcow2", MIB, "KDMV", 4);
	refused(named("vmdk.qcow2"), "begins like a vmdk image");
	if (geteuid()) {
		make("mine.img", MIB, "", 0);
		CHECK_EQ(chmod(bt_path("mine.img"), 0400), 0);
		refused(named("mine.img"), "may only be read: add ',ro'");
	}
}

static void test_locks(void)
{
	struct block *first, *second;
	struct block_open how = named("lock.img");
	pid_t child;
	int status, say[2], go[2];
	char byte, text[64];

	make("lock.img", MIB, "", 0);
	how.path = strdup(how.path);
	/* One writer, or readers. */
	first = bt_try(how);
	CHECK(first);
	refused(how, "is in use by another disk of this machine");
	how.read_only = true;
	refused(how, "is in use by");
	first->ops->release(first);
	first->ops->acquire(first);
	refused(how, "is in use by");
	first->ops->destroy(first);
	first = bt_try(how);
	second = bt_try(how);
	CHECK(first && second);
	how.read_only = false;
	refused(how, "is in use by");
	first->ops->destroy(first);
	second->ops->destroy(second);
	/* A machine that moves: the lock goes from one to the other. */
	first = bt_try(how);
	how.unlocked = true;
	second = bt_try(how);
	CHECK(first && second);
	CHECK_EQ(second->ops->acquire(second), -EBUSY);
	CHECK_EQ(first->ops->release(first), 0);
	CHECK_EQ(second->ops->acquire(second), 0);
	CHECK_EQ(first->ops->acquire(first), -EBUSY);
	first->ops->destroy(first);
	CHECK_EQ(second->ops->acquire(second), 0);
	CHECK_EQ(second->ops->release(second), 0);
	/* Which is another disk meanwhile; nobody has it then. */
	CHECK_EQ(truncate(how.path, 2 * (off_t)MIB), 0);
	CHECK_EQ(second->ops->acquire(second), -EINVAL);
	how.unlocked = false;
	accepted(how);
	second->ops->destroy(second);
	/* Another process, by name. */
	CHECK(!pipe2(say, O_CLOEXEC) && !pipe2(go, O_CLOEXEC));
	child = fork();
	if (!child) {
		first = bt_try(how);
		byte = first ? 'y' : 'n';
		close(go[1]);
		_exit(write(say[1], &byte, 1) != 1 || read(go[0], &byte, 1) < 0);
	}
	CHECK_EQ(read(say[0], &byte, 1), 1);
	CHECK_EQ(byte, 'y');
	snprintf(text, sizeof(text), "is in use by process %d (test_block_open)", (int)child);
	text[52] = 0; /* names of processes are short */
	refused(how, strtok(text, ")"));
	close(go[1]);
	CHECK_EQ(waitpid(child, &status, 0), child);
	accepted(how);
	free((void *)(uintptr_t)how.path);
}

/* QEMU's own opinion. */
static int qemu_io(const char *command, const char *path)
{
	char line[700];

	snprintf(line, sizeof(line), "qemu-io -f raw -c '%s' '%s' >/dev/null 2>&1", command, path);
	return system(line);
}

static void test_qemu(void)
{
	struct block_open how = named("qemu.img");
	struct block *b;
	char line[700];
	pid_t pid;
	int status;

	if (system("qemu-io --version >/dev/null 2>&1")) {
		puts("block-open: no qemu-io here: its locks were not tried");
		return;
	}
	make("qemu.img", MIB, "", 0);
	how.path = strdup(how.path);
	CHECK_EQ(qemu_io("write 0 512", how.path), 0);
	b = bt_try(how);
	CHECK(b);
	CHECK(qemu_io("write 0 512", how.path) != 0);
	b->ops->release(b);
	CHECK_EQ(qemu_io("write 0 512", how.path), 0);
	b->ops->destroy(b);
	/* The other way round. */
	pid = fork();
	if (!pid) {
		execlp("qemu-io", "qemu-io", "-f", "raw", "-c", "write 0 512", "-c", "sleep 20000",
		       how.path, NULL);
		_exit(127);
	}
	for (unsigned i = 0; i < 200; i++) {
		b = bt_try(how);
		if (!b)
			break;
		b->ops->destroy(b);
		usleep(50000);
	}
	snprintf(line, sizeof(line), "is in use by process %d (qemu-io)", (int)pid);
	CHECK(strstr(bt_why, line));
	how.read_only = true;
	CHECK(!bt_try(how));
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	accepted(how);
	free((void *)(uintptr_t)how.path);
}

int main(void)
{
	bt_start();
	test_wrong();
	test_locks();
	test_qemu();
	return bt_end("block-open");
}
