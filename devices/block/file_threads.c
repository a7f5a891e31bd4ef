/* Requests on threads: where io_uring is not allowed. A thread carries out a request from its first
 * step to its last; an eventfd tells the loop of those that are over. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <fcntl.h>

#include "devices/block/file.h"
#include "migration/thread.h"

enum { THREADS_MAX = 16 };

struct pool {
	struct file file;
	const struct watch_source *watches;
	struct watch *watch;
	int event_fd;
	struct block_list batch; /* submitted, not committed; the loop's */
	unsigned threads;	 /* the loop's */
	pthread_t thread[THREADS_MAX];

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t work;
	struct block_list todo, done;
	unsigned idle, waiting; /* threads; requests in todo */
	bool stop;
};

/* ---- on the threads ---- */

static int64_t run_step(const struct file *f, const struct file_step *step)
{
	const off_t at = (off_t)step->offset;
	int64_t ret = 0;

	switch (step->op) {
	case FILE_NOTHING: return 0;
	case FILE_FAIL: return step->error;
	case FILE_READ:
		ret = step->iov ? preadv(f->fd, step->iov, (int)step->iovs, at)
				: pread(f->fd, step->buf, step->len, at);
		break;
	case FILE_WRITE:
		ret = step->iov ? pwritev(f->fd, step->iov, (int)step->iovs, at)
				: pwrite(f->fd, step->buf, step->len, at);
		break;
	case FILE_SYNC: ret = fdatasync(f->fd); break;
	case FILE_ALLOCATE: ret = fallocate(f->fd, step->mode, at, (off_t)step->len); break;
	}
	return ret < 0 ? -errno : ret;
}

static void run_request(struct file *f, struct block_request *r)
{
	struct file_step step;

	do
		file_next(f, r, &step);
	while (!file_stepped(f, r, run_step(f, &step)));
}

static void *pool_thread(void *arg)
{
	struct pool *p = arg;
	const uint64_t one = 1;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct block_request *r = block_list_take(&p->todo);
		bool first;

		if (!r && p->stop)
			break;
		if (!r) {
			p->idle++;
			pthread_cond_wait(&p->work, &p->lock);
			p->idle--;
			continue;
		}
		p->waiting--;
		pthread_mutex_unlock(&p->lock);
		run_request(&p->file, r);
		pthread_mutex_lock(&p->lock);
		first = !p->done.first;
		block_list_add(&p->done, r);
		if (first && write(p->event_fd, &one, sizeof(one)) < 0)
			continue; /* the counter is full: the loop is awake */
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- on the loop's ---- */

static int add_thread(struct pool *p)
{
	int ret = thread_start(&p->thread[p->threads], pool_thread, p);

	if (!ret)
		p->threads++;
	return ret;
}

static void pool_submit(struct block *b, struct block_request *r)
{
	struct pool *p = (struct pool *)b;

	r->done_bytes = 0;
	r->bounce = NULL;
	r->phase = r->tries = 0;
	b->in_flight++;
	block_list_add(&p->batch, r);
}

static void pool_commit(struct block *b)
{
	struct pool *p = (struct pool *)b;
	unsigned n = 0, wanted;

	for (struct block_request *r = p->batch.first; r; r = r->next)
		n++;
	if (!n)
		return;
	pthread_mutex_lock(&p->lock);
	block_list_move(&p->todo, &p->batch);
	p->waiting += n;
	wanted = p->waiting > p->idle ? p->waiting - p->idle : 0;
	for (unsigned i = 0; i < n && i < p->idle; i++)
		pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
	/* One is there in any case. */
	while (wanted-- && p->threads < THREADS_MAX && !add_thread(p))
		;
}

static void pool_done(void *arg, uint32_t events)
{
	struct pool *p = arg;
	struct block_list done;
	uint64_t count;

	(void)events;
	if (read(p->event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	block_list_init(&done);
	pthread_mutex_lock(&p->lock);
	block_list_move(&done, &p->done);
	pthread_mutex_unlock(&p->lock);
	block_finish(&p->file.block, &done);
}

static void pool_free(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++)
		pthread_join(p->thread[i], NULL);
	if (p->watch)
		p->watches->del(p->watch);
	if (p->event_fd >= 0)
		close(p->event_fd);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void pool_destroy(struct block *b)
{
	struct pool *p = (struct pool *)b;
	struct file file = p->file;

	pool_free(p);
	file_exit(&file);
}

static int pool_start(struct pool *p, const struct file_params *params, const struct block_ops *ops)
{
	int ret;

	p->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (p->event_fd < 0)
		return -errno;
	ret = p->watches->add(p->watches->opaque, p->event_fd, EPOLLIN, pool_done, p, &p->watch);
	if (!ret)
		ret = add_thread(p);
	return ret ? ret : file_init(&p->file, params, ops, "threads");
}

int file_threads_create(struct block **out, const struct file_params *params,
			const struct backend_host *host, char *why, size_t why_len)
{
	static const struct block_ops ops = {.submit = pool_submit,
					     .commit = pool_commit,
					     .release = file_release,
					     .acquire = file_acquire,
					     .destroy = pool_destroy};
	struct pool *p = calloc(1, sizeof(*p));
	int ret;

	if (!p) {
		snprintf(why, why_len, "out of memory");
		return -ENOMEM;
	}
	p->watches = host->watches;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	block_list_init(&p->batch);
	block_list_init(&p->todo);
	block_list_init(&p->done);
	ret = pool_start(p, params, &ops);
	if (ret) {
		snprintf(why, why_len, "%s", strerror(-ret));
		pool_free(p);
		return ret;
	}
	*out = &p->file.block;
	return 0;
}
