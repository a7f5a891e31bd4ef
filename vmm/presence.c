#include "vmm/presence.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/message.h"

enum { LOG_LIMIT = 128 << 10, LINE_LOG_LIMIT = 512 << 10 };

/* Messages come from any thread. */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void after_message(void *opaque)
{
	struct logfile *log = opaque;

	pthread_mutex_lock(&log_lock);
	if (logfile_turn(log))
		dup3(log->fd, STDERR_FILENO, 0);
	pthread_mutex_unlock(&log_lock);
}

static int begin_log(struct presence *p, struct error *err)
{
	char file[128];
	int ret;

	runtime_log_name(file, sizeof(file), p->name.name, NULL);
	ret = logfile_open(&p->log, p->name.dir_fd, file, LOG_LIMIT, err);
	if (ret)
		return ret;
	if (dup3(p->log.fd, STDERR_FILENO, 0) < 0)
		return error_set(err, -errno, "log: %s", strerror(errno));
	p->logging = true;
	message_set_log(after_message, &p->log);
	return 0;
}

int presence_begin(struct presence *p, const char *name, const char *pidfile, bool detached,
		   struct error *err)
{
	int ret;

	*p = (struct presence){.runtime.dir_fd = -1,
			       .name.lock_fd = -1,
			       .pidfile.dir_fd = -1,
			       .log.fd = -1,
			       .detached = detached};
	ret = runtime_open(&p->runtime, err);
	if (!ret)
		ret = runtime_claim(&p->name, &p->runtime, name, err);
	if (!ret && pidfile)
		ret = pidfile_write(&p->pidfile, pidfile, err);
	if (!ret && detached)
		ret = begin_log(p, err);
	return ret;
}

void presence_waits(struct presence *p, const char *address)
{
	(void)runtime_note(&p->name, address);
}

/* With what was said before. */
static void move_log(struct presence *p, const struct runtime_name *to)
{
	char file[sizeof(p->log.name)], from[sizeof(file) + 4], there[sizeof(file) + 4];

	runtime_log_name(file, sizeof(file), to->name, NULL);
	for (unsigned old = 0; old < 2; old++) {
		snprintf(from, sizeof(from), "%s%s", p->log.name, old ? ".1" : "");
		snprintf(there, sizeof(there), "%s%s", file, old ? ".1" : "");
		(void)renameat(p->name.dir_fd, from, to->dir_fd, there);
	}
	memcpy(p->log.name, file, sizeof(file));
	p->log.dir_fd = to->dir_fd;
}

int presence_arrived(struct presence *p, const char *name, struct error *err)
{
	struct runtime_name claim;
	int ret;

	if (!name || !strcmp(name, p->name.name)) {
		(void)runtime_note(&p->name, "");
		return 0;
	}
	ret = runtime_claim(&claim, &p->runtime, name, err);
	if (ret)
		return ret;
	pthread_mutex_lock(&log_lock);
	if (p->logging)
		move_log(p, &claim);
	runtime_release(&p->name, false);
	p->name = claim;
	pthread_mutex_unlock(&log_lock);
	return 0;
}

static void no_more(void *opaque)
{
	(void)opaque;
}

void presence_end(struct presence *p, struct runtime_end *end)
{
	const bool keep = p->detached && end && p->name.lock_fd >= 0;

	if (keep) {
		end->pid = getpid();
		end->time = time(NULL);
		if (runtime_end_write(p->name.dir_fd, p->name.name, end))
			message("cannot write down how the machine ended");
	}
	pidfile_remove(&p->pidfile);
	runtime_release(&p->name, keep);
	runtime_close(&p->runtime);
	/* What is said from here on goes there too, until the process ends. */
	if (p->logging)
		message_set_log(no_more, NULL);
	p->logging = false;
	logfile_close(&p->log);
}

int presence_line_log(const struct presence *p, const char *line, struct logfile *log,
		      struct error *err)
{
	char file[128];

	*log = (struct logfile){.fd = -1};
	if (!p->detached)
		return 0;
	runtime_log_name(file, sizeof(file), p->name.name, line);
	return logfile_open(log, p->name.dir_fd, file, LINE_LOG_LIMIT, err);
}
