#include "devices/block/nbd_server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/block/format.h"

#define PROGRAM "qemu-nbd"
enum { END_MS = 30000, FIRST_FD = 3 /* of socket activation */, HIGH_FD = 64 };

extern char **environ;

/* ---- a socket that nobody else can reach ------------------------------------------------- */

/* Listening and connected, its name already gone again. */
static int make_sockets(int *listen_fd, int *client_fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char folder[] = "/tmp/ferry-nbd-XXXXXX";
	int ret = 0;

	if (!mkdtemp(folder)) /* mode 0700 */
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/socket", folder);
	*listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*client_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*listen_fd < 0 || *client_fd < 0 ||
	    bind(*listen_fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(*listen_fd, 1) ||
	    connect(*client_fd, (struct sockaddr *)&addr, sizeof(addr)))
		ret = -errno;
	unlink(addr.sun_path);
	rmdir(folder);
	return ret;
}

/* ---- the child --------------------------------------------------------------------------- */

struct child {
	const char *program;
	char *argv[16];
	char **env;
	char pid_text[32]; /* "LISTEN_PID=123", by the child itself */
	int listen_fd, messages_fd;
	pid_t parent;
};

/* Between fork and exec, in a process that may have had threads: nothing that takes a lock. */
static void put_pid(char *text)
{
	char digits[16];
	unsigned n = 0, pid = (unsigned)getpid();

	for (; pid; pid /= 10)
		digits[n++] = (char)('0' + pid % 10);
	while (*text)
		text++;
	while (n)
		*text++ = digits[--n];
	*text = 0;
}

static void run_child(struct child *c)
{
	sigset_t none;
	int null;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	/* SIGTERM: it writes out what it has. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) || getppid() != c->parent)
		_exit(127);
	null = open("/dev/null", O_RDWR);
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(c->messages_fd, 2) < 0 ||
	    dup2(c->listen_fd, FIRST_FD) < 0)
		_exit(127);
	close_range(FIRST_FD + 1, ~0u, 0);
	put_pid(c->pid_text);
	execve(c->program, c->argv, c->env);
	_exit(127);
}

/* ---- what it is started with ------------------------------------------------------------- */

static bool find_program(char *path, size_t len)
{
	const char *dirs = getenv("PATH");

	dirs = dirs ? dirs : "/usr/local/bin:/usr/bin:/bin";
	while (*dirs) {
		size_t n = strcspn(dirs, ":");
		int used = snprintf(path, len, "%.*s/" PROGRAM, (int)n, dirs);

		if (n && used > 0 && (size_t)used < len && !access(path, X_OK))
			return true;
		dirs += n + (dirs[n] == ':');
	}
	return false;
}

static char **make_env(char *pid_text)
{
	static char fds[] = "LISTEN_FDS=1";
	size_t n = 0, count = 0;
	char **env;

	while (environ[count])
		count++;
	env = calloc(count + 3, sizeof(*env));
	if (!env)
		return NULL;
	for (char **e = environ; *e; e++)
		if (strncmp(*e, "LISTEN_", 7) != 0)
			env[n++] = *e;
	env[n++] = fds;
	env[n] = pid_text;
	return env;
}

/* To look at an image that another process may write to, for its size. */
static char *look_options(const struct block_open *how)
{
	size_t len = 2 * strlen(how->path) + 128;
	char *text = malloc(len), *at;

	if (!text)
		return NULL;
	at = text +
	     snprintf(text, len,
		      "driver=%s,read-only=on,force-share=on,file.driver=file,file.filename=",
		      format_name(how->format));
	for (const char *c = how->path; *c; c++) {
		if (*c == ',')
			*at++ = ',';
		*at++ = *c;
	}
	*at = 0;
	return text;
}

/* options: of an image that is only looked at, else NULL. */
static void make_argv(char **argv, const struct block_open *how, char *options, char (*text)[64])
{
	static const char *const caches[] = {[BLOCK_CACHE_WRITEBACK] = "writeback",
					     [BLOCK_CACHE_WRITETHROUGH] = "writeback",
					     [BLOCK_CACHE_NONE] = "none",
					     [BLOCK_CACHE_UNSAFE] = "unsafe"};
	unsigned n = 0;

	argv[n++] = (char *)(uintptr_t)PROGRAM;
	if (options) {
		argv[n++] = (char *)(uintptr_t) "--read-only";
		argv[n++] = (char *)(uintptr_t) "--image-opts";
		argv[n++] = (char *)(uintptr_t) "--";
		argv[n] = options;
		return;
	}
	snprintf(text[0], sizeof(text[0]), "--format=%s", format_name(how->format));
	snprintf(text[1], sizeof(text[1]), "--cache=%s", caches[how->cache]);
	argv[n++] = text[0];
	argv[n++] = text[1];
	argv[n++] = (char *)(uintptr_t) "--discard=unmap";
	if (how->read_only)
		argv[n++] = (char *)(uintptr_t) "--read-only";
	argv[n++] = (char *)(uintptr_t) "--";
	argv[n] = (char *)(uintptr_t)how->path;
}

/* Above all that the child puts in its place. */
static int raise_fd(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);

	if (fd >= 0)
		close(fd);
	return high;
}

static int spawn(struct nbd_server *s, struct child *c)
{
	int ret = 0;

	c->parent = getpid();
	strcpy(c->pid_text, "LISTEN_PID=");
	c->env = make_env(c->pid_text);
	c->messages_fd = raise_fd(memfd_create("qemu-nbd-messages", MFD_CLOEXEC));
	c->listen_fd = raise_fd(c->listen_fd);
	if (!c->env || c->messages_fd < 0 || c->listen_fd < 0)
		ret = -ENOMEM;
	s->pid = ret ? 0 : fork();
	if (!ret && !s->pid)
		run_child(c);
	if (s->pid < 0) {
		ret = -errno;
		s->pid = 0;
	}
	free(c->env);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	if (ret && c->messages_fd >= 0)
		close(c->messages_fd);
	s->messages_fd = ret ? -1 : c->messages_fd;
	return ret;
}

int nbd_server_start(struct nbd_server *s, const struct block_open *how, char *why, size_t why_len)
{
	struct child c = {.listen_fd = -1, .messages_fd = -1};
	char program[512], text[2][64], *options;
	int client = -1, ret;

	*s = (struct nbd_server){.messages_fd = -1};
	if (!find_program(program, sizeof(program))) {
		snprintf(why, why_len,
			 "%s is a %s image, for which " PROGRAM
			 " is needed: install qemu-utils, or convert it: qemu-img convert -O raw",
			 how->path, format_name(how->format));
		return -ENOENT;
	}
	c.program = program;
	options = how->unlocked ? look_options(how) : NULL;
	make_argv(c.argv, how, options, text);
	ret = how->unlocked && !options ? -ENOMEM : 0;
	if (!ret)
		ret = make_sockets(&c.listen_fd, &client);
	if (!ret)
		ret = spawn(s, &c);
	else if (c.listen_fd >= 0)
		close(c.listen_fd);
	free(options);
	if (!ret)
		return client;
	if (client >= 0)
		close(client);
	snprintf(why, why_len, "%s: " PROGRAM " cannot be started: %s", how->path, strerror(-ret));
	return ret;
}

/* ---- its end ----------------------------------------------------------------------------- */

static void read_messages(const struct nbd_server *s, char *buf, size_t len)
{
	off_t end = lseek(s->messages_fd, 0, SEEK_END);
	ssize_t n = pread(s->messages_fd, buf, len - 1,
			  end > (off_t)len - 1 ? end - (off_t)(len - 1) : 0);

	buf[n > 0 ? n : 0] = 0;
	for (char *c = buf; *c; c++)
		if (*c == '\n')
			*c = c[1] ? ';' : 0;
}

/* Its status once it has ended; false: not within that time. */
static bool await(struct nbd_server *s, int wait_ms, int *status)
{
	struct pollfd fd = {.events = POLLIN};
	pid_t pid = waitpid(s->pid, status, WNOHANG);

	if (!pid && wait_ms) {
		fd.fd = (int)syscall(SYS_pidfd_open, s->pid, 0);
		if (fd.fd >= 0) {
			(void)poll(&fd, 1, wait_ms);
			close(fd.fd);
		}
		pid = waitpid(s->pid, status, WNOHANG);
	}
	if (!pid)
		return false;
	s->pid = 0;
	return true;
}

bool nbd_server_ended(struct nbd_server *s, int wait_ms, char *text, size_t len)
{
	char said[160];
	int status = 0;

	if (!s->pid || !await(s, wait_ms, &status))
		return false;
	read_messages(s, said, sizeof(said));
	if (WIFSIGNALED(status))
		snprintf(text, len, PROGRAM " was killed by signal %d%s%s", WTERMSIG(status),
			 said[0] ? ": " : "", said);
	else
		snprintf(text, len, PROGRAM " has ended with code %d%s%s", WEXITSTATUS(status),
			 said[0] ? ": " : "", said);
	return true;
}

void nbd_server_stop(struct nbd_server *s)
{
	int status;

	if (s->pid && !await(s, END_MS, &status)) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, &status, 0);
	}
	if (s->messages_fd >= 0)
		close(s->messages_fd);
	*s = (struct nbd_server){.messages_fd = -1};
}
