/* What a machine is described by: the rows of run_config_fields, and what is checked over all of
 * them. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpu/x86/model.h"
#include "vmm/config.h"

/* ---- the words that values are made of -------------------------------------------------- */

#define WORDS(fn, ...)                                                                             \
	static const char *fn(unsigned index)                                                      \
	{                                                                                          \
		static const char *const words[] = {__VA_ARGS__};                                  \
		return index < sizeof(words) / sizeof(words[0]) ? words[index] : NULL;             \
	}
WORDS(engine_word, "auto", "kvm", "soft") /* enum engine_choice */
WORDS(net_word, "none")			  /* enum net_kind */
WORDS(serial_word, "stdio", "pty", "file=", "socket=", "none")

static const char *cpu_model_word(unsigned index)
{
	return x86_models[index].name;
}

static int check_cpu_model(const char *text, struct error *err)
{
	char all[256] = "";
	size_t used = 0;

	if (x86_model_find(text))
		return 0;
	for (unsigned i = 0; x86_models[i].name && used < sizeof(all); i++)
		used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "",
					 x86_models[i].name);
	return error_set(err, -EINVAL, "models are %s", all);
}

int config_check_name(const char *text, struct error *err)
{
	size_t len = strlen(text);

	if (!len || len > 63)
		return error_set(err, -EINVAL, "a name has 1 to 63 characters");
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (!(isalnum(c) && c < 128) && !(i && strchr("._-", c)))
			return error_set(
				err, -EINVAL,
				"a name consists of letters, digits, '.', '_' and '-', and "
				"begins with a letter or digit");
	}
	return 0;
}

static int check_not_empty(const char *text, struct error *err)
{
	return *text ? 0 : error_set(err, -EINVAL, "it must not be empty");
}

#define FIELD(n, t, m, ...)                                                                        \
	{                                                                                          \
		.name = n, .type = t, .offset = offsetof(struct run_config, m), __VA_ARGS__        \
	}
const struct config_field run_config_fields[] = {
	FIELD("name", CONFIG_STRING, name, .check = config_check_name,
	      .help = "name under which other commands find the machine (default: vm-PID)"),
	FIELD("board", CONFIG_STRING, board, .initial = "pc-1.0",
	      .help = "versioned name of the board: which devices stand where"),
	FIELD("kernel", CONFIG_STRING, kernel, .check = check_not_empty,
	      .help = "kernel image: bzImage, ELF (vmlinux, PVH) or multiboot"),
	FIELD("initrd", CONFIG_STRING, initrd, .check = check_not_empty,
	      .help = "initial RAM file system for the kernel"),
	FIELD("append", CONFIG_STRING, append, .max = 65535, .help = "command line for the kernel"),
	FIELD("memory", CONFIG_SIZE, memory, .min = 2 << 20, .max = 1ull << 38, .initial = "512M",
	      .help = "RAM of the guest; a plain number is MiB. More than this host has is "
		      "refused"),
	FIELD("shared", CONFIG_BOOL, shared,
	      .help = "guest memory is a memfd that other processes can map"),
	FIELD("overcommit", CONFIG_BOOL, overcommit, .help = "allow more memory than the host has"),
	FIELD("cpus", CONFIG_UINT, cpus, .min = 1, .max = CONFIG_MAX_CPUS, .initial = "1",
	      .help = "virtual CPUs, each a thread of its own"),
	FIELD("engine", CONFIG_CHOICE, engine, .word = engine_word, .initial = "auto",
	      .help = "what executes the guest: kvm (hardware), soft (emulation, needs nothing of "
		      "the host), or auto: kvm where hardware pages for the guest, else soft"),
	FIELD("cpu_model", CONFIG_STRING, cpu_model, .word = cpu_model_word,
	      .check = check_cpu_model,
	      .help = "CPU model that the guest sees; the default is the first of"),
	FIELD("serial", CONFIG_SERIAL, serial, .word = serial_word,
	      .help = "where a serial line of the guest goes; up to 4 times, in order (default: "
		      "stdio)"),
	FIELD("console", CONFIG_SERIAL, console, .word = serial_word,
	      .help = "add a virtio console (hvc0) that goes there"),
	FIELD("debug_exit", CONFIG_UINT, debug_exit, .min = 1, .max = 0xfffc,
	      .help = "add a test device at this I/O port: a value written there ends the run with "
		      "exit code (value << 1) | 1"),
	FIELD("reset_limit", CONFIG_UINT, reset_limit, .max = UINT32_MAX, .initial = "4294967295",
	      .help = "let the guest reset N times; the next reset ends the run (0: the first one; "
		      "default: no limit). A triple fault is a reset"),
	FIELD("net", CONFIG_CHOICE, net, .word = net_word, .initial = "none",
	      .help = "network of the guest; only none is there yet"),
	FIELD("pidfile", CONFIG_STRING, pidfile, .check = check_not_empty,
	      .help = "write the process id to this file, remove it at the end"),
	FIELD("stats", CONFIG_STRING, stats, .check = check_not_empty,
	      .help = "at the end, write what was counted (faults, kicks, exits...) to this file "
		      "as JSON"),
	FIELD("quiet", CONFIG_BOOL, quiet, .help = "say nothing on stderr but errors"),
	{.name = NULL},
};

/* ---- the whole -------------------------------------------------------------------------- */

/* The n-th of all lines that go somewhere: serial lines, then the console. */
static const struct serial_config *line(const struct run_config *config, uint32_t n)
{
	return n < config->serial_count ? &config->serial[n]
					: &config->console[n - config->serial_count];
}

static int check_lines(const struct run_config *config, struct error *err)
{
	const uint32_t count = config->serial_count + config->console_count;
	unsigned terminals = 0;

	if (config->console_count > 1)
		return error_set(err, -EINVAL, "--console: a machine has one; give it once");
	for (uint32_t i = 0; i < count; i++) {
		const char *path = line(config, i)->path;

		terminals += line(config, i)->kind == SERIAL_STDIO;
		for (uint32_t j = 0; j < i && path; j++) {
			if (line(config, j)->path && !strcmp(path, line(config, j)->path))
				return error_set(err, -EINVAL,
						 "--serial: two lines cannot share %s; give each a "
						 "path of its own",
						 path);
		}
	}
	if (terminals > 1)
		return error_set(err, -EINVAL,
				 "--serial: only one line can have the terminal; use pty, file=, "
				 "socket= or none for the others");
	return 0;
}

int config_check(const struct run_config *config, struct error *err)
{

	if (!config->kernel)
		return error_set(err, -EINVAL, "no kernel given; try: ferry run [options] KERNEL");
	if (config->memory % 4096)
		return error_set(err, -EINVAL, "--memory: not a multiple of 4K");
	return check_lines(config, err);
}
