/* What a machine is described by: the rows of run_config_fields, and what is checked over all of
 * them. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpu/x86/model.h"
#include "devices/net/net.h"
#include "vmm/config.h"

/* ---- the words that values are made of -------------------------------------------------- */

#define WORDS(fn, ...)                                                                             \
	const char *fn(unsigned index)                                                             \
	{                                                                                          \
		static const char *const words[] = {__VA_ARGS__};                                  \
		return index < sizeof(words) / sizeof(words[0]) ? words[index] : NULL;             \
	}
WORDS(config_engine_word, "auto", "kvm", "soft")			/* enum engine_choice */
static WORDS(cache_word, "writeback", "writethrough", "none", "unsafe") /* enum disk_cache */
	static WORDS(aio_word, "auto", "io_uring", "threads")		/* enum disk_aio */
	static WORDS(format_word, "auto", "raw", "qcow2", "vmdk", "vdi", "vhdx",
		     "vpc")			  /* enum disk_format */
	static WORDS(full_word, "stop", "report") /* enum disk_full */
	WORDS(config_serial_word, "stdio", "pty", "attach", "file=", "socket=", "none")

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

#define MEMBER(s, n, t, m, ...)                                                                    \
	{                                                                                          \
		.name = n, .type = t, .offset = offsetof(struct s, m), __VA_ARGS__                 \
	}

/* ---- disks ------------------------------------------------------------------------------ */

static int check_serial_number(const char *text, struct error *err)
{
	return strlen(text) <= 20
		       ? 0
		       : error_set(err, -EINVAL, "a serial number has at most 20 characters");
}

#define FIELD(...) MEMBER(disk_config, __VA_ARGS__)
static const struct config_field disk_fields[] = {
	FIELD("file", CONFIG_STRING, file, .check = check_not_empty, .positional = true,
	      .help = "file, block device, or NBD address (nbd://HOST/EXPORT, "
		      "nbd+unix:///EXPORT?socket=PATH)"),
	FIELD("ro", CONFIG_BOOL, read_only, .help = "the guest can only read"),
	FIELD("serial", CONFIG_STRING, serial, .check = check_serial_number,
	      .help = "serial number that the guest sees (/dev/disk/by-id)"),
	FIELD("cache", CONFIG_CHOICE, cache, .word = cache_word, .initial = "writeback",
	      .help = "writeback: a flush of the guest's is on stable storage; writethrough: each "
		      "write is; none: as writeback, past the host's page cache; unsafe: flushes "
		      "do nothing"),
	FIELD("aio", CONFIG_CHOICE, aio, .word = aio_word, .initial = "auto",
	      .help = "how the host is asked: io_uring, or threads where it is not allowed"),
	FIELD("format", CONFIG_CHOICE, format, .word = format_word, .initial = "auto",
	      .help = "by default raw, but by the ending of the name for others, which qemu-nbd "
		      "serves"),
	FIELD("enospc", CONFIG_CHOICE, full, .word = full_word, .initial = "stop",
	      .help = "when the host's disk is full: stop the guest until `ferry resume`, or "
		      "report "
		      "an I/O error to it"),
	{.name = NULL},
};
#undef FIELD

/* ---- networks --------------------------------------------------------------------------- */

static int check_mac(const char *text, struct error *err)
{
	uint8_t mac[6];

	return config_parse_mac(text, mac, err);
}

static int check_forward(const char *text, struct error *err)
{
	struct net_forward forward;

	return config_parse_forward(text, &forward, err);
}

static int check_stream(const char *text, struct error *err)
{
	return !strncmp(text, "unix:", 5) && text[5]
		       ? 0
		       : error_set(err, -EINVAL, "a stream's address is unix:PATH");
}

int config_check_net(const void *element, struct error *err)
{
	const struct net_config *net = element;
	int kinds = net->none + net->user + (net->tap != NULL) + (net->stream != NULL);

	if (kinds != 1)
		return error_set(err, -EINVAL,
				 "a network is one of user, tap=NAME, stream=unix:PATH, none");
	if (!net->user && (net->forward_count || net->restricted))
		return error_set(err, -EINVAL, "%s belongs to a network of kind user",
				 net->restricted ? "restrict" : "hostfwd");
	return 0;
}

#define FIELD(...) MEMBER(net_config, __VA_ARGS__)
const struct config_field config_net_fields[] = {
	FIELD("none", CONFIG_BOOL, none, .help = "no network"),
	FIELD("user", CONFIG_BOOL, user,
	      .help = "through this process, without privileges: guest 10.0.2.15, gateway .2, DNS "
		      ".3"),
	FIELD("tap", CONFIG_STRING, tap, .check = check_not_empty, .max = 15,
	      .help = "a tap interface of the host that exists and is yours"),
	FIELD("stream", CONFIG_STRING, stream, .check = check_stream,
	      .help = "a unix socket (unix:PATH) that speaks QEMU's stream protocol, like passt's"),
	FIELD("mac", CONFIG_STRING, mac, .check = check_mac,
	      .help = "address of the guest's card; by default it follows from the machine's name"),
	FIELD("hostfwd", CONFIG_STRINGS, forward, .limit = CONFIG_MAX_FORWARDS,
	      .check = check_forward,
	      .help = "of user: forward a port of the host (at 127.0.0.1 if none is said): "
		      "tcp|udp:[ADDRESS]:PORT-[ADDRESS]:PORT; "
		      "may be given again"),
	FIELD("restrict", CONFIG_BOOL, restricted,
	      .help = "of user: no way out of the guest's network but the forwarded ports"),
	{.name = NULL},
};
#undef FIELD

#define FIELD(...) MEMBER(vsock_config, __VA_ARGS__)
const struct config_field config_vsock_fields[] = {
	FIELD("path", CONFIG_STRING, path, .check = check_not_empty, .positional = true,
	      .help = "unix socket for host programs: they say CONNECT PORT; a guest that connects "
		      "to port P reaches the socket PATH_P"),
	FIELD("cid", CONFIG_UINT, cid, .min = 3, .max = UINT32_MAX - 1, .initial = "3",
	      .help = "address of the guest"),
	{.name = NULL},
};
#undef FIELD

/* A list's count stands right behind it. */
#define LIST_OK(s, list, count)                                                                    \
	_Static_assert(offsetof(struct s, count) ==                                                \
			       offsetof(struct s, list) + sizeof(((struct s *)0)->list),           \
		       #count " must follow " #list)
LIST_OK(run_config, disk, disk_count);
LIST_OK(run_config, net, net_count);
LIST_OK(run_config, vsock, vsock_count);
LIST_OK(net_config, forward, forward_count);
#define LIST(member, max) .element = sizeof(((struct run_config *)0)->member[0]), .limit = max

/* ---- the machine ------------------------------------------------------------------------ */

#define FIELD(...) MEMBER(run_config, __VA_ARGS__)
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
	FIELD("hugepages", CONFIG_BOOL, hugepages,
	      .help = "guest memory of the 2 MiB pages that the host has reserved "
		      "(/proc/sys/vm/nr_hugepages), all of it at once"),
	FIELD("overcommit", CONFIG_BOOL, overcommit, .help = "allow more memory than the host has"),
	FIELD("cpus", CONFIG_UINT, cpus, .min = 1, .max = CONFIG_MAX_CPUS, .initial = "1",
	      .help = "virtual CPUs, each a thread of its own"),
	FIELD("engine", CONFIG_CHOICE, engine, .word = config_engine_word, .initial = "auto",
	      .help = "what executes the guest: kvm (hardware), soft (emulation, needs nothing of "
		      "the host), or auto: kvm where hardware pages for the guest, else soft"),
	FIELD("cpu_model", CONFIG_STRING, cpu_model, .word = cpu_model_word,
	      .check = check_cpu_model,
	      .help = "CPU model that the guest sees; the default is the first of"),
	FIELD("serial", CONFIG_SERIAL, serial, .word = config_serial_word,
	      .help = "where a serial line of the guest goes; up to 4 times, in order (default: "
		      "stdio)"),
	FIELD("console", CONFIG_SERIAL, console, .word = config_serial_word,
	      .help = "add a virtio console (hvc0) that goes there"),
	FIELD("debug_exit", CONFIG_UINT, debug_exit, .min = 1, .max = 0xfffc,
	      .help = "add a test device at this I/O port: a value written there ends the run with "
		      "exit code (value << 1) | 1"),
	FIELD("reset_limit", CONFIG_UINT, reset_limit, .max = UINT32_MAX, .initial = "4294967295",
	      .help = "let the guest reset N times; the next reset ends the run (0: the first one; "
		      "default: no limit). A triple fault is a reset"),
	FIELD("disk", CONFIG_LIST, disk, LIST(disk, CONFIG_MAX_DISKS), .sub = disk_fields,
	      .help = "a disk; the first is vda. May be given again"),
	FIELD("net", CONFIG_LIST, net, LIST(net, CONFIG_MAX_NETS), .sub = config_net_fields,
	      .check_element = config_check_net, .help = "a network card. May be given again"),
	FIELD("vsock", CONFIG_LIST, vsock, LIST(vsock, 1), .sub = config_vsock_fields,
	      .help = "sockets between guest and host (AF_VSOCK) behind a unix socket"),
	FIELD("pidfile", CONFIG_STRING, pidfile, .check = check_not_empty,
	      .help = "write the process id to this file, remove it at the end"),
	FIELD("stats", CONFIG_STRING, stats, .check = check_not_empty,
	      .help = "at the end, write what was counted (faults, kicks, exits...) to this file "
		      "as JSON"),
	FIELD("detach", CONFIG_BOOL, detach,
	      .help = "return as soon as the machine runs, which goes on in the background; prints "
		      "its name"),
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
	if (terminals && config->detach)
		return error_set(
			err, -EINVAL,
			"--detach: a machine in the background has no terminal; use attach "
			"(see: ferry console) instead of stdio");
	if (terminals > 1)
		return error_set(err, -EINVAL,
				 "--serial: only one line can have the terminal; use pty, "
				 "attach, file=, socket= or none for the others");
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
