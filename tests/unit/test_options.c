/* The command line of `run`: options in every place and form, and what is said about wrong ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net/net.h"
#include "vmm/config.h"

#define CHECK_TEXT err.text
#include "tests/unit/check.h"

/* The programme's own files are no library: the pieces under test are included. */
#include "cli/options.c"
#include "cli/suggest.c"

static const struct suboption memory_suboptions[] = {{"overcommit", "overcommit"}, {NULL, NULL}};
static const struct option table[] = {
	OPTION("initrd", 'i', "FILE", "initrd"),
	OPTION("append", 0, "TEXT", "append"),
	OPTION("memory", 'm', "SIZE[,overcommit]", "memory", .suboptions = memory_suboptions),
	OPTION("cpus", 'c', "N", "cpus"),
	OPTION("cpu", 0, "MODEL", "cpu_model"),
	OPTION("engine", 0, "ENGINE", "engine"),
	OPTION("serial", 0, "WHERE", "serial"),
	OPTION("debug-exit", 0, "PORT", "debug_exit"),
	OPTION("reset-limit", 0, "N", "reset_limit"),
	OPTION("name", 0, "NAME", "name"),
	OPTION("quiet", 'q', NULL, "quiet"),
	OPTION("help", 'h', NULL, NULL),
	{.name = NULL},
};
static const struct hint hints[] = {{"smp", "use --cpus N"}, {NULL, NULL}};
static const struct verb verb = {
	.name = "run",
	.operands = "KERNEL",
	.options = table,
	.hints = hints,
	.fields = run_config_fields,
	.size = sizeof(struct run_config),
	.operand_field = "kernel",
};

static struct error err;
static struct run_config config;

/* Parses the words of a line (divided by '|', as values hold spaces). */
static int parse(const char *line)
{
	char *copy = strdup(line), *words[32], *rest = NULL;
	int n = 0, ret;

	config_free(run_config_fields, &config);
	config_init(run_config_fields, &config, sizeof(config));
	err.text[0] = 0;
	for (char *word = strtok_r(copy, "|", &rest); word; word = strtok_r(NULL, "|", &rest))
		words[n++] = word;
	ret = options_parse(&verb, &config, n, words, &err);
	free(copy);
	return ret;
}

static void good(const char *line)
{
	CHECK(parse(line) == 0);
}

/* Refused, and the text holds both parts. */
static void bad(const char *line, const char *what, const char *remedy)
{
	CHECK(parse(line) == -EINVAL);
	CHECK(strstr(err.text, what) && strstr(err.text, remedy));
	CHECK(!strchr(err.text, '\n'));
}

static void test_places(void)
{
	good("bzImage|--initrd|ird|--memory=1G|-c|2");
	CHECK(!strcmp(config.kernel, "bzImage") && !strcmp(config.initrd, "ird"));
	CHECK(config.memory == 1ull << 30 && config.cpus == 2);
	good("-m512M|-q|--append|a b=c  d|bzImage|-c3");
	CHECK(config.memory == 512ull << 20 && config.quiet && config.cpus == 3);
	CHECK(!strcmp(config.append, "a b=c  d"));
	good("--append=root=/dev/vda quiet|k");
	CHECK(!strcmp(config.append, "root=/dev/vda quiet"));
	good("--append|--no-option|k");
	CHECK(!strcmp(config.append, "--no-option"));
	good("-q|--|--strange-kernel");
	CHECK(!strcmp(config.kernel, "--strange-kernel"));
	good("--append=|k");
	CHECK(config.append && !*config.append);
	CHECK(parse("k|--help") == 1);
	CHECK(parse("-h") == 1);
	good("k");
	CHECK(config.memory == 512ull << 20 && config.cpus == 1 && config.engine == ENGINE_AUTO);
	CHECK(config.reset_limit == CONFIG_NO_RESET_LIMIT && !config.debug_exit && !config.quiet);
	CHECK(!strcmp(config.board, "pc-1.0") && config.serial_count == 0);
}

static void test_repeated(void)
{
	good("-m|64G,overcommit|k");
	CHECK(config.overcommit && config.memory == 64ull << 30);
	good("-m|64G,overcommit|-m|1G|k");
	CHECK(!config.overcommit && config.memory == 1ull << 30);
	good("-m|1G,overcommit=off|k");
	CHECK(!config.overcommit);
	good("-c|2|-c|4|k");
	CHECK(config.cpus == 4);
	good("--serial|file=/a,b=c|--serial|none|--serial|pty|--serial=socket=x|k");
	CHECK(config.serial_count == 4 && config.serial[0].kind == SERIAL_FILE);
	CHECK(!strcmp(config.serial[0].path, "/a,b=c") && config.serial[1].kind == SERIAL_NONE);
	CHECK(config.serial[2].kind == SERIAL_PTY && !strcmp(config.serial[3].path, "x"));
	bad("--serial|none|--serial|none|--serial|none|--serial|none|--serial|none|k", "--serial",
	    "at most 4");
	good("--quiet=off|-q|k");
	CHECK(config.quiet);
}

static void test_wrong(void)
{
	bad("--memroy|1G|k", "--memroy", "did you mean --memory?");
	bad("--mem|1G|k", "--mem", "--memory?");
	bad("-append|x|k", "-append", "--append?");
	bad("-initrd|x|k", "-initrd", "--initrd?");
	bad("-cpu|host|k", "-cpu", "--cpu?");
	bad("-smp|4|k", "-smp", "use --cpus");
	bad("--smp=4|k", "unknown option --smp;", "use --cpus");
	bad("--frobnicate|k", "--frobnicate", "ferry help run");
	bad("-x|k", "-x", "ferry help run");
	bad("-qq|k", "-qq", "ferry help run");
	bad("k|--memory", "--memory needs a value", "SIZE");
	bad("k|-c", "-c needs a value", "N");
	bad("k|l", "'l' after 'k'", "quotes");
	bad("-m|x|k", "-m: 'x'", "from 2M to 256G");
	bad("-m|1M|k", "'1M'", "from 2M to 256G");
	bad("-m|2T|k", "'2T'", "from 2M to 256G");
	bad("-m|-1|k", "'-1'", "from 2M");
	bad("-m|99999999999999999999|k", "999", "from 2M");
	bad("-m|18446744073709551615T|k", "T'", "from 2M");
	bad("-m|512X|k", "512X", "like 512M");
	bad("-m|512MM|k", "512MM", "like 512M");
	bad("-m||k", "-m: 'k'", "like 512M"); /* the empty word is lost by strtok: k is the value */
	bad("-m|1G,hugepages|k", "hugepages", "SIZE[,overcommit]");
	bad("-m|1G,overcommit=maybe|k", "overcommit", "neither on nor off");
	bad("-c|0|k", "'0'", "from 1 to 8");
	bad("-c|9|k", "'9'", "from 1 to 8");
	bad("-c|two|k", "'two'", "from 1 to 8");
	bad("-c| 2|k", "' 2'", "from 1 to 8");
	bad("-c|+2|k", "'+2'", "from 1 to 8");
	bad("-c|2x|k", "'2x'", "from 1 to 8");
	bad("--engine|tcg|k", "'tcg'", "auto, kvm, soft");
	bad("--cpu|host|k", "'host'", "models are");
	bad("--serial|mon:stdio|k", "mon:stdio", "file=PATH");
	bad("--serial|file|k", "'file'", "file=PATH");
	bad("--serial|file=|k", "'file='", "file=PATH");
	bad("--serial|stdio=x|k", "stdio", "takes no value");
	bad("--name|a/b|k", "'a/b'", "letters, digits");
	bad("--name|.hidden|k", "'.hidden'", "begins with");
	bad("--name|0123456789012345678901234567890123456789012345678901234567890123|k", "name",
	    "63");
	bad("--debug-exit|0|k", "'0'", "from 1 to");
	bad("--debug-exit|0x10000|k", "0x10000", "from 1 to");
	bad("--quiet=perhaps|k", "--quiet", "neither on nor off");
	bad("--initrd=|k", "--initrd", "must not be empty");
}

static void test_sizes(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {
		{"512", 512ull << 20},	 {"512M", 512ull << 20},   {"512m", 512ull << 20},
		{"4G", 4ull << 30},	 {"256G", 1ull << 38},	   {"65536K", 64ull << 20},
		{"1.5G", 1536ull << 20}, {"0.25G", 256ull << 20},  {"4GiB", 4ull << 30},
		{"4GB", 4ull << 30},	 {"4194304b", 4ull << 20}, {"2097152B", 2ull << 20},
	};
	char text[32];

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snprintf(text, sizeof(text), "-m|%s|k", sizes[i].text);
		good(text);
		CHECK(config.memory == sizes[i].bytes);
	}
	config_size_text(0, text, sizeof(text));
	CHECK(!strcmp(text, "0"));
	config_size_text(1536ull << 20, text, sizeof(text));
	CHECK(!strcmp(text, "1536M"));
	config_size_text(1000, text, sizeof(text));
	CHECK(!strcmp(text, "1000B"));
	config_size_text(3ull << 50, text, sizeof(text));
	CHECK(!strcmp(text, "3072T"));
	good("--debug-exit|0xf4|--reset-limit|0|k");
	CHECK(config.debug_exit == 0xf4 && config.reset_limit == 0);
}

/* What config_format prints is what config_parse reads. */
static void test_round_trip(void)
{
	struct run_config copy;
	char buf[256];

	good("-m|3G,overcommit|-c|4|--cpu|x86-64-v2|--engine|soft|--serial|file=x|--serial|stdio|"
	     "--name|n|--append|a b|--reset-limit|7|-q|kernel");
	config_init(run_config_fields, &copy, sizeof(copy));
	for (const struct config_field *f = run_config_fields; f->name; f++) {
		CHECK(config_find(run_config_fields, f->name) == f); /* names are unique */
		CHECK(*f->help && f->help[strlen(f->help) - 1] != '.');
		for (unsigned i = 0; config_format(f, &config, i, buf, sizeof(buf)) >= 0; i++)
			CHECK(config_parse(f, &copy, buf, &err) == 0);
	}
	CHECK(copy.memory == config.memory && copy.overcommit && copy.cpus == 4 && copy.quiet);
	CHECK(copy.engine == ENGINE_SOFT && copy.serial_count == 2 && copy.reset_limit == 7);
	CHECK(copy.serial[0].kind == SERIAL_FILE && !strcmp(copy.serial[0].path, "x"));
	CHECK(!strcmp(copy.append, "a b") && !strcmp(copy.kernel, "kernel") && !copy.initrd);
	CHECK(config_check(&copy, &err) == 0);
	config_free(run_config_fields, &copy);
	CHECK(!copy.kernel && !copy.serial_count);
}

static void test_lists(void)
{
	struct run_config copy;
	const struct config_field *disk = config_find(run_config_fields, "disk"),
				  *net = config_find(run_config_fields, "net");
	struct net_forward forward;
	uint8_t mac[6];
	char buf[256];

	config_init(run_config_fields, &copy, sizeof(copy));
	CHECK(!config_parse(disk, &copy, "a,,b=c.img,ro,serial=x,,y,cache=none", &err));
	CHECK(!strcmp(copy.disk[0].file, "a,b=c.img") && copy.disk[0].read_only);
	CHECK(!strcmp(copy.disk[0].serial, "x,y") && copy.disk[0].cache == DISK_DIRECT);
	CHECK(config_format(disk, &copy, 0, buf, sizeof(buf)) > 0);
	CHECK(!strcmp(buf, "a,,b=c.img,ro,serial=x,,y,cache=none"));
	CHECK(config_format(disk, &copy, 1, buf, sizeof(buf)) < 0 && copy.disk_count == 1);
	/* A wrong one leaves nothing. */
	CHECK(config_parse(disk, &copy, "z,cache=fast", &err) == -EINVAL && copy.disk_count == 1);
	CHECK(config_parse(disk, &copy, "z,size=3", &err) == -EINVAL && strstr(err.text, "cache="));
	CHECK(config_parse(disk, &copy, "z,serial", &err) == -EINVAL && strstr(err.text, "value"));
	CHECK(!copy.disk[1].file);
	for (unsigned i = 1; i < CONFIG_MAX_DISKS; i++)
		CHECK(!config_parse(disk, &copy, "d", &err));
	CHECK(config_parse(disk, &copy, "d", &err) == -EINVAL && strstr(err.text, "16"));

	CHECK(!config_parse(net, &copy, "user,hostfwd=tcp::2222-:22,hostfwd=udp:[::1]:0-:53",
			    &err));
	CHECK(copy.net[0].user && copy.net[0].forward_count == 2);
	CHECK(config_format(net, &copy, 0, buf, sizeof(buf)) > 0);
	CHECK(!strcmp(buf, "user,hostfwd=tcp::2222-:22,hostfwd=udp:[::1]:0-:53"));
	CHECK(config_parse(net, &copy, "user,tap=t0", &err) == -EINVAL);
	CHECK(config_parse(net, &copy, "tap=t0,hostfwd=tcp::1-:1", &err) == -EINVAL);
	CHECK(config_parse(net, &copy, "stream=tcp:x", &err) == -EINVAL);
	CHECK(copy.net_count == 1);
	config_free(run_config_fields, &copy);
	CHECK(!copy.disk_count && !copy.disk[0].file && !copy.net_count);

	CHECK(!config_parse_mac("52:54:00:aB:Cd:0f", mac, &err) && mac[3] == 0xab && mac[5] == 15);
	for (const char *const *bad =
		     (const char *const[]){"", "52", "52:54:00:12:34:5", "525400123456",
					   "52:54:00:12:34:56:", "52:54:00:12:34:5g",
					   "53:54:00:12:34:56", "52-54-00-12-34-56", NULL};
	     *bad; bad++)
		CHECK(config_parse_mac(*bad, mac, &err) == -EINVAL);

	CHECK(!config_parse_forward("udp:[::1]:53-[fec0::15]:54", &forward, &err));
	CHECK(forward.udp && !strcmp(forward.host, "::1") && forward.host_port == 53);
	CHECK(!strcmp(forward.guest, "fec0::15") && forward.guest_port == 54);
	CHECK(!config_parse_forward("tcp::0-:22", &forward, &err) && !*forward.host);
	for (const char *const *bad =
		     (const char *const[]){"", "tcp", "tcp:", "sctp::1-:2", "tcp::1", "tcp::1-:0",
					   "tcp::65536-:1", "tcp:localhost:1-:2", "tcp:1-2",
					   "tcp::1-:2x", "tcp::-1-:2", NULL};
	     *bad; bad++)
		CHECK(config_parse_forward(*bad, &forward, &err) == -EINVAL);
}

static void check_fails(const char *line, const char *what)
{
	good(line);
	CHECK(config_check(&config, &err) == -EINVAL && strstr(err.text, what));
}

static void test_whole(void)
{
	check_fails("-q", "KERNEL");
	check_fails("k|--serial|stdio|--serial|stdio", "terminal");
	check_fails("k|--serial|file=x|--serial|file=x", "share x");
	check_fails("k|-m|4194305b", "multiple of 4K");
	good("k|--serial|file=x|--serial|socket=y|--serial|stdio|--serial|none");
	CHECK(config_check(&config, &err) == 0);
}

int main(void)
{
	for (const struct option *o = table; o->name; o++)
		CHECK(!o->field || config_find(run_config_fields, o->field));
	test_places();
	test_repeated();
	test_wrong();
	test_sizes();
	test_round_trip();
	test_lists();
	test_whole();
	config_free(run_config_fields, &config);
	return 0;
}
