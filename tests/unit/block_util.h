/* A back end under test: the real event loop around it, files of its own, requests that a test
 * waits for. */
#ifndef TESTS_UNIT_BLOCK_UTIL_H
#define TESTS_UNIT_BLOCK_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/block/open.h"
#include "tests/unit/dev_util.h"
#include "vmm/loop.h"

static struct loop *bt_loop;
static struct backend_host bt_host;
static char bt_folder[] = "/tmp/ferry-block-XXXXXX";
static char bt_why[256];
static unsigned bt_open, bt_batches;

static inline const char *bt_path(const char *name)
{
	static char path[4][512];
	static unsigned n;

	n = (n + 1) % 4;
	snprintf(path[n], sizeof(path[n]), "%s/%s", bt_folder, name);
	return path[n];
}

static inline void bt_start(void)
{
	if (!mkdtemp(bt_folder) || loop_create(&bt_loop, NULL))
		exit(1);
	bt_host = (struct backend_host){
		.watches = loop_watches(bt_loop),
		.works = loop_works(bt_loop),
		.timers = loop_timers(bt_loop),
		.clock = loop_clock(bt_loop),
	};
}

static inline int bt_end(const char *what)
{
	char command[600];

	loop_destroy(bt_loop);
	snprintf(command, sizeof(command), "rm -rf '%s'", bt_folder);
	if (system(command))
		dev_failures++;
	return dev_result(what);
}

static inline int bt_make(const char *name, uint64_t size, const void *head, size_t len)
{
	int fd = open(bt_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)size) || pwrite(fd, head, len, 0) != (ssize_t)len)
		exit(1);
	return fd;
}

static inline struct block *bt_try(struct block_open how)
{
	struct block *b = NULL;

	bt_why[0] = 0;
	if (block_open(&b, &how, &bt_host, bt_why, sizeof(bt_why))) {
		if (getenv("VERBOSE"))
			printf("  %s\n", bt_why);
		return NULL;
	}
	return b;
}

/* ---- requests ---- */

struct bt_request {
	struct block_request r;
	struct iovec iov[8];
	int result;
	bool over;
};

static inline void bt_done(struct block_request *r, int result)
{
	struct bt_request *t = r->opaque;

	CHECK(!t->over);
	t->result = result;
	t->over = true;
	bt_open--;
}

static inline void bt_completed(void *client)
{
	(void)client;
	bt_batches++;
	if (!bt_open)
		loop_stop(bt_loop, 0);
}

static inline void bt_submit(struct block *b, struct bt_request *t)
{
	t->over = false;
	t->r.done = bt_done;
	t->r.opaque = t;
	b->completed = bt_completed;
	bt_open++;
	b->ops->submit(b, &t->r);
}

static inline void bt_wait(struct block *b)
{
	b->ops->commit(b);
	if (bt_open)
		loop_run(bt_loop);
	CHECK_EQ(b->in_flight, 0);
}

static inline int bt_transfer(struct block *b, enum block_op op, uint64_t offset, void *buf,
			      size_t len)
{
	struct bt_request t = {.r = {.op = op, .offset = offset, .bytes = len}};

	t.iov[0] = (struct iovec){buf, len};
	t.r.iov = t.iov;
	t.r.iovs = 1;
	bt_submit(b, &t);
	bt_wait(b);
	return t.result;
}

static inline int bt_simple(struct block *b, enum block_op op, uint64_t offset, uint64_t len,
			    bool unmap)
{
	struct bt_request t = {.r = {.op = op, .offset = offset, .bytes = len, .may_unmap = unmap}};

	bt_submit(b, &t);
	bt_wait(b);
	return t.result;
}

#endif
