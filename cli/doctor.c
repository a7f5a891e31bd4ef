#include "cli/json.h"
#include "cli/json_option.h"
#include "vmm/exit_codes.h"
#include "vmm/host.h"

static const char *const status_text[] = {
	[HOST_OK] = "ok", [HOST_LIMITED] = "limited", [HOST_MISSING] = "missing"};

static void print_text(const struct host_check *checks, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		printf("%-8s  %-14s  %s\n", status_text[checks[i].status], checks[i].name,
		       checks[i].detail);
		if (*checks[i].remedy)
			printf("%-8s  %-14s  -> %s\n", "", "", checks[i].remedy);
	}
}

static void print_report(const struct host_check *checks, unsigned n)
{
	struct host_engine engine;

	host_choose_engine(ENGINE_AUTO, &engine, NULL);
	printf("{\"engine\": \"%s\", \"reason\": ", engine.engine == ENGINE_KVM ? "kvm" : "soft");
	print_json_string(stdout, engine.reason);
	printf(", \"kvm_capable\": %s, \"checks\": [", engine.kvm_capable ? "true" : "false");
	for (unsigned i = 0; i < n; i++) {
		printf("%s\n  {\"name\": ", i ? "," : "");
		print_json_string(stdout, checks[i].name);
		printf(", \"status\": \"%s\", \"needed\": %s, \"detail\": ",
		       status_text[checks[i].status], checks[i].needed ? "true" : "false");
		print_json_string(stdout, checks[i].detail);
		fputs(", \"remedy\": ", stdout);
		if (*checks[i].remedy)
			print_json_string(stdout, checks[i].remedy);
		else
			fputs("null", stdout);
		putchar('}');
	}
	puts("\n]}");
}

static int run(void *config)
{
	const struct json_config *json = config;
	struct host_check checks[HOST_MAX_CHECKS];
	unsigned n = host_checks(checks);
	int ret = 0;

	for (unsigned i = 0; i < n; i++) {
		if (checks[i].needed && checks[i].status == HOST_MISSING)
			ret = EXIT_START;
	}
	if (json->json) {
		print_report(checks, n);
		return ret;
	}
	print_text(checks, n);
	puts(ret ? "\nferry cannot run here before what is missing above is cured."
		 : "\nferry can run here.");
	return ret;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.summary = "explain what this host offers, which engine is taken and why",
	.description = "Looks at what ferry can use of this host, says which engine `--engine "
		       "auto` takes and "
		       "why, and what would cure what is missing. Needs no privileges and changes "
		       "nothing. "
		       "The exit code is 0 if ferry can run here, else 1.",
	.options = json_options,
	.fields = json_fields,
	.size = sizeof(struct json_config),
	.run = run,
};
