#include "migration/clock.h"
#include "vmm/parent.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct parent_watch {
	int fd;
	struct loop_fd *entry;
	uint64_t since;
	void (*gone)(void *opaque);
	void *opaque;
};

static void on_end(void *arg, uint32_t events)
{
	struct parent_watch *w = arg;

	(void)events;
	loop_fd_del(w->entry);
	w->entry = NULL;
	if (clock_now() - w->since >= 1000000000)
		w->gone(w->opaque);
}

struct parent_watch *parent_watch(struct loop *loop, void (*gone)(void *opaque), void *opaque)
{
	struct sigaction hangup;
	struct parent_watch *w;
	pid_t parent = getppid();

	/* 0: of another pid namespace; 1: never ends. */
	if (parent <= 1 || sigaction(SIGHUP, NULL, &hangup) || hangup.sa_handler == SIG_IGN)
		return NULL;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	*w = (struct parent_watch){.gone = gone, .opaque = opaque};
	w->since = clock_now();
	w->fd = (int)syscall(SYS_pidfd_open, parent, 0);
	/* If it has ended meanwhile, the number may be somebody else's. */
	if (w->fd < 0 || getppid() != parent ||
	    loop_fd_add(loop, w->fd, EPOLLIN, on_end, w, &w->entry)) {
		if (w->fd >= 0)
			close(w->fd);
		free(w);
		return NULL;
	}
	return w;
}

void parent_unwatch(struct parent_watch *w)
{
	if (!w)
		return;
	loop_fd_del(w->entry);
	close(w->fd);
	free(w);
}
