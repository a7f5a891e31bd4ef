/* `ferry logs`: what a machine in the background has said, and its guest. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/machine.h"
#include "vmm/exit_codes.h"

enum { POLL_US = 200000, LINES = 5 };

struct logs_config {
	char *name;
	bool follow, ferry, console;
};

/* One log: its file, which is turned over now and then. */
struct source {
	const char *line; /* NULL: ferry's messages */
	char file[128];
	int dir_fd, fd;
};

static const char *const lines[LINES] = {"serial0", "serial1", "serial2", "serial3", "console0"};

static int open_log(const struct source *s, const char *file)
{
	return openat(s->dir_fd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* As tail does: whose lines follow. */
static void heading(const struct source *s, const struct source **last)
{
	if (*last != s && *last)
		printf("\n==> %s <==\n", s->line ? s->line : "ferry");
	*last = s;
}

/* Prints what the descriptor still has; says whether there was anything. */
static bool drain(const struct source *s, int fd, const struct source **last)
{
	char buf[16384];
	bool any = false;
	ssize_t n;

	while (fd >= 0 && ((n = read(fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))) {
		if (n < 0)
			continue;
		heading(s, last);
		fwrite(buf, 1, (size_t)n, stdout);
		any = true;
	}
	return any;
}

static void print_old(const struct source *s, const struct source **last)
{
	char file[sizeof(s->file) + 4];
	int fd;

	snprintf(file, sizeof(file), "%s.1", s->file);
	fd = open_log(s, file);
	drain(s, fd, last);
	if (fd >= 0)
		close(fd);
}

static bool print_new(struct source *s, const struct source **last)
{
	struct stat ours, there;
	bool any = drain(s, s->fd, last);

	if (fstatat(s->dir_fd, s->file, &there, AT_SYMLINK_NOFOLLOW) || s->fd < 0 ||
	    fstat(s->fd, &ours) || ours.st_ino == there.st_ino)
		return any;
	drain(s, s->fd, last); /* what came between the reading and the turning over */
	close(s->fd);
	s->fd = open_log(s, s->file);
	drain(s, s->fd, last);
	return true;
}

static unsigned choose(const struct logs_config *config, const struct client *client,
		       struct source *sources)
{
	unsigned n = 0;

	for (unsigned i = 0; i <= LINES; i++) {
		struct source *s = &sources[n];

		if (i ? config->ferry && !config->console : config->console && !config->ferry)
			continue;
		*s = (struct source){.line = i ? lines[i - 1] : NULL,
				     .dir_fd = client->runtime.dir_fd};
		runtime_log_name(s->file, sizeof(s->file), client->name, s->line);
		s->fd = open_log(s, s->file);
		n += s->fd >= 0;
	}
	return n;
}

static void print(const struct logs_config *config, struct client *client, struct source *sources,
		  unsigned n)
{
	const struct source *last = NULL;
	bool running, any;

	for (unsigned i = 0; i < n; i++) {
		print_old(&sources[i], &last);
		print_new(&sources[i], &last);
	}
	fflush(stdout);
	while (config->follow && !ferror(stdout)) {
		/* Asked before reading: what it said last is there when it has gone. */
		running = runtime_holder(&client->runtime, client->name) != 0;
		any = false;
		for (unsigned i = 0; i < n; i++)
			any |= print_new(&sources[i], &last);
		fflush(stdout);
		if (!running && !any)
			return;
		usleep(POLL_US);
	}
}

static int run(void *opaque)
{
	const struct logs_config *config = opaque;
	struct source sources[LINES + 1];
	struct runtime_end end;
	struct client client;
	struct error err;
	unsigned n;
	int ret = client_find(&client, config->name, &end, &err);

	if (ret && ret != -ESRCH) {
		client_close(&client);
		return complain(EXIT_START, &err);
	}
	n = choose(config, &client, sources);
	if (n)
		print(config, &client, sources, n);
	else
		error_set(&err, 0,
			  "the machine '%s' has no such log: machines that run in the background "
			  "have (ferry run --detach)",
			  client.name);
	for (unsigned i = 0; i < n; i++)
		close(sources[i].fd);
	client_close(&client);
	return n ? 0 : complain(EXIT_START, &err);
}

static const struct config_field fields[] = {
	{.name = "name",
	 .type = CONFIG_STRING,
	 .offset = offsetof(struct logs_config, name),
	 .check = config_check_name,
	 .help = "name of the machine"},
	{.name = "follow",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct logs_config, follow),
	 .help = "go on until the machine has ended"},
	{.name = "ferry",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct logs_config, ferry),
	 .help = "ferry's own messages only"},
	{.name = "console",
	 .type = CONFIG_BOOL,
	 .offset = offsetof(struct logs_config, console),
	 .help = "output of the guest only"},
	{.name = NULL},
};

static const struct option options[] = {
	OPTION("follow", 'f', NULL, "follow", .group = "Options"),
	OPTION("ferry", 0, NULL, "ferry"),
	OPTION("console", 0, NULL, "console"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

const struct verb verb_logs = {
	.name = "logs",
	.summary = "print what a machine in the background has said",
	.operands = "[NAME]",
	.description =
		"Prints ferry's messages about a machine that was started with --detach, then the "
		"output of its serial lines. Logs are bounded: at least the last 128 KiB of "
		"messages "
		"and 512 KiB of each line are there. They stay for a day after the machine's end, "
		"as "
		"long as no other takes its name. " MACHINE_NAME_TEXT,
	.options = options,
	.fields = fields,
	.size = sizeof(struct logs_config),
	.operand_field = "name",
	.operand_completion = COMPLETE_MACHINES,
	.run = run,
};
