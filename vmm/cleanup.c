#include "vmm/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum entry_state { FREE, BUSY, READY };
enum entry_kind { REMOVE_FILE, SET_TERMINAL, SET_FLAGS };

struct entry {
	_Atomic enum entry_state state;
	enum entry_kind kind;
	pid_t owner;
	int fd, flags;
	struct termios modes;
	char name[NAME_MAX + 1];
};

static struct entry entries[32];

static struct entry *take(enum entry_kind kind, int fd)
{
	for (unsigned i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		enum entry_state free_state = FREE;

		if (!atomic_compare_exchange_strong(&entries[i].state, &free_state, BUSY))
			continue;
		entries[i].kind = kind;
		entries[i].fd = fd;
		entries[i].owner = getpid();
		return &entries[i];
	}
	return NULL;
}

static int ready(struct entry *entry)
{
	if (!entry)
		return -ENOSPC;
	atomic_store(&entry->state, READY);
	return (int)(entry - entries);
}

int cleanup_add_file(int dir_fd, const char *name)
{
	struct entry *entry;

	if (strlen(name) > NAME_MAX)
		return -ENAMETOOLONG;
	entry = take(REMOVE_FILE, dir_fd);
	if (entry)
		memcpy(entry->name, name, strlen(name) + 1);
	return ready(entry);
}

int cleanup_add_terminal(int fd, const struct termios *modes)
{
	struct entry *entry = take(SET_TERMINAL, fd);

	if (entry)
		entry->modes = *modes;
	return ready(entry);
}

int cleanup_add_flags(int fd, int flags)
{
	struct entry *entry = take(SET_FLAGS, fd);

	if (entry)
		entry->flags = flags;
	return ready(entry);
}

void cleanup_drop(int handle)
{
	if (handle >= 0)
		atomic_store(&entries[handle].state, FREE);
}

void cleanup_run(void)
{
	/* The last first: it may have found what an earlier one had changed. */
	for (unsigned i = sizeof(entries) / sizeof(entries[0]); i--;) {
		struct entry *entry = &entries[i];
		enum entry_state ready_state = READY;

		if (entry->owner != getpid() ||
		    !atomic_compare_exchange_strong(&entry->state, &ready_state, BUSY))
			continue;
		switch (entry->kind) {
		case REMOVE_FILE: unlinkat(entry->fd, entry->name, 0); break;
		case SET_TERMINAL: tcsetattr(entry->fd, TCSANOW, &entry->modes); break;
		case SET_FLAGS: fcntl(entry->fd, F_SETFL, entry->flags); break;
		}
	}
}

/* ---- the ends that nobody planned ---------------------------------------------------------------
 */

/* Those of a crash are thread_start()'s, too. */
static const struct {
	int signo;
	const char *name; /* of a crash; NULL: the user's way to end a process */
} fatal[] = {
	{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"}, {SIGFPE, "SIGFPE"},
	{SIGABRT, "SIGABRT"}, {SIGSYS, "SIGSYS"}, {SIGHUP, NULL},     {SIGINT, NULL},
	{SIGQUIT, NULL},      {SIGTERM, NULL},
};
enum { N_FATAL = sizeof(fatal) / sizeof(fatal[0]) };
static struct sigaction before[N_FATAL];

static void say(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		return;
}

static void on_fatal(int signo, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)context;
	cleanup_run();
	for (unsigned i = 0; i < N_FATAL; i++) {
		if (fatal[i].signo != signo)
			continue;
		if (fatal[i].name) {
			say("ferry: internal error: ");
			say(fatal[i].name);
			say("; the guest is lost, please report this\n");
		}
		/* A sanitizer's handler, or the default: it gets the same signal once more. */
		sigaction(signo, &before[i], NULL);
	}
	if (info->si_code <= 0)
		raise(signo); /* a fault comes again by itself, with its address */
	errno = saved;
}

void cleanup_install(void)
{
	static char stack[65536];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	atexit(cleanup_run);
	sigaltstack(&alternate, NULL);
	sigemptyset(&action.sa_mask);
	for (unsigned i = 0; i < N_FATAL; i++) {
		sigaction(fatal[i].signo, NULL, &before[i]);
		/* nohup means it */
		if (before[i].sa_handler != SIG_IGN)
			sigaction(fatal[i].signo, &action, NULL);
	}
}
