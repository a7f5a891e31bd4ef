#include "cli/cli.h"
#include "cli/here.h"
#include "vmm/exit_codes.h"

static const struct suboption memory_suboptions[] = {{"overcommit", "overcommit"},
						     {"shared", "shared"},
						     {"hugepages", "hugepages"},
						     {NULL, NULL}};

static const struct option options[] = {
	OPTION("initrd", 'i', "FILE", "initrd", .group = "Guest", .completion = COMPLETE_FILES),
	OPTION("append", 0, "TEXT", "append"),
	OPTION("memory", 'm', "SIZE[,overcommit][,shared][,hugepages]", "memory",
	       .group = "Machine", .suboptions = memory_suboptions),
	OPTION("cpus", 'c', "N", "cpus"),
	OPTION("cpu", 0, "MODEL", "cpu_model"),
	OPTION("engine", 0, "auto|kvm|soft", "engine"),
	OPTION("disk", 0, "FILE[,ro][,KEY=VALUE]...", "disk", .group = "Devices",
	       .completion = COMPLETE_FILES),
	OPTION("serial", 0, "stdio|pty|attach|file=PATH|socket=PATH|none", "serial",
	       .completion = COMPLETE_FILES),
	OPTION("console", 0, "stdio|pty|attach|file=PATH|socket=PATH|none", "console",
	       .completion = COMPLETE_FILES),
	OPTION("net", 0, "user|tap=NAME|stream=unix:PATH|none[,KEY=VALUE]...", "net"),
	OPTION("vsock", 0, "PATH[,cid=N]", "vsock", .completion = COMPLETE_FILES),
	OPTION("debug-exit", 0, "PORT", "debug_exit"),
	OPTION("reset-limit", 0, "N", "reset_limit"),
	OPTION("name", 0, "NAME", "name", .group = "Run"),
	OPTION("detach", 'd', NULL, "detach"),
	OPTION("pidfile", 0, "FILE", "pidfile", .completion = COMPLETE_FILES),
	OPTION("stats", 0, "FILE", "stats", .completion = COMPLETE_FILES),
	OPTION("quiet", 'q', NULL, "quiet"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};

static const struct hint hints[] = {
	{"kernel", "the kernel needs no option: ferry run [options] KERNEL"},
	{"k", "the kernel needs no option: ferry run [options] KERNEL"},
	{"smp", "use --cpus N"},
	{"vcpus", "use --cpus N"},
	{"mem", "use --memory SIZE"},
	{"ram", "use --memory SIZE"},
	{"params", "use --append TEXT"},
	{"p", "use --append TEXT"},
	{"cmdline", "use --append TEXT"},
	{"nographic", "it is not needed: the serial line is on the terminal"},
	{"display", "it is not needed: there is no display"},
	{"enable-kvm", "use --engine auto (the default)"},
	{"accel", "use --engine auto, kvm or soft"},
	{"machine", "use --engine to choose what executes the guest"},
	{"no-reboot", "use --reset-limit 0"},
	{"isa-debug-exit", "use --debug-exit PORT"},
	{"device", "use --disk, --net, --vsock or --console; the rest is always there"},
	{"drive", "use --disk FILE"},
	{"hda", "use --disk FILE"},
	{"network", "use --net user, --net tap=NAME or --net stream=unix:PATH"},
	{"netdev", "use --net user, --net tap=NAME or --net stream=unix:PATH"},
	{"nic", "use --net user"},
	{"tap", "use --net tap=NAME"},
	{"hostfwd", "use --net user,hostfwd=tcp::2222-:22"},
	{"daemonize", "use --detach"},
	{"background", "use --detach"},
	{"version", "use: ferry version"},
	{NULL, NULL},
};

static const struct example examples[] = {
	{"a kernel and an initramfs, console on this terminal",
	 "ferry run bzImage --initrd initrd.img --append console=ttyS0"},
	{"two processors, 1 GiB, the console in a file, another line on a socket",
	 "ferry run -c 2 -m 1G --serial file=boot.log --serial socket=x.sock bzImage"},
	{"a machine in the background, its console here, its end",
	 "ferry run --detach --name vm1 bzImage; ferry console vm1; ferry stop vm1"},
	{"a test kernel that reports by exit code",
	 "ferry run --debug-exit 0xf4 --reset-limit 0 --serial none test.elf"},
	{NULL, NULL},
};

/* The default of the first serial line, unless the console has that place. */
static void default_line(struct run_config *config)
{
	const enum serial_kind kind = config->detach ? SERIAL_ATTACH : SERIAL_STDIO;

	if (!config->serial_count && !(config->console_count && config->console[0].kind == kind))
		config_parse(config_find(run_config_fields, "serial"), config,
			     config->detach ? "attach" : "stdio", NULL);
}

static int start(const void *config, const struct vm_observer *observer, struct vm_result *result,
		 struct error *err)
{
	return vm_run(config, observer, result, err);
}

static int run(void *opaque)
{
	struct run_config *config = opaque;
	struct error err = {""};

	default_line(config);
	if (config_check(config, &err))
		return complain(EXIT_USAGE, &err);
	return run_here(start, config, config->detach);
}

const struct verb verb_run = {
	.name = "run",
	.summary = "start a virtual machine, here or in the background",
	.operands = "KERNEL",
	.description =
		"Starts a virtual machine in this process, in the foreground, until the guest "
		"switches itself off. The first serial line is the terminal, which is raw "
		"meanwhile: every key, Ctrl-C too, goes to the guest. C-a is the escape key: C-a x "
		"ends the guest, C-a h helps, C-a C-a sends one C-a. It ends with its terminal, "
		"and "
		"with the process that started it, unless that had ended within a second or nohup "
		"was used.\n"
		"With --detach the machine goes on in the background, in the folder where it was "
		"started; errors of the start are told and returned all the same. Its first serial "
		"line is for ferry console, and what the guest and ferry say is kept for ferry "
		"logs.\n"
		"Options may stand before or after the kernel, their values behind a space or '='. "
		"Of an option that is given twice the last one counts; --serial adds a line each "
		"time.\n"
		"A slow reader of a serial line makes the guest wait; not so a slow ferry console "
		"(attach), which misses output instead. With nobody connected to a pty or socket, "
		"output is dropped.",
	.options = options,
	.hints = hints,
	.examples = examples,
	.exit_codes = true,
	.fields = run_config_fields,
	.size = sizeof(struct run_config),
	.operand_field = "kernel",
	.operand_completion = COMPLETE_FILES,
	.run = run,
};
